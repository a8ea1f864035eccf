"""
Originals of every kind: what is recorded is what the original's own library computes, on real models.

A second process runs each of them by another way than t2t does: a session where t2t runs eagerly, the .meta graph where
t2t runs the frozen one. What no library can tell (names, other weights, code that may not run) has its whole message.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import t2t
from t2t import mapping
from t2t.problems import Problem, T2TError
from t2t.proof import origin, recording
from t2t.proof.recording import Recording
from t2t.verification import Verify

QUIET = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}

RUN = "in the clone of t2t, run"


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not here")


class Recorder:
    """Records with a mapping of its own for each call; `notes` are what was said on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[Problem] = []
        self.made = 0

    def verify(self, inputs: str, reference: str, checkpoint: str | Path = "c", **more: object) -> Verify:
        """The verify section of a mapping in `folder`."""
        text = f"t2t: 1\nmodel: a:B\nsource: {{checkpoint: {checkpoint}}}\nmap: [{{tf: a, torch: b}}]\nverify:\n"
        text += f"  inputs: {inputs}\n  reference: {reference}\n"
        text += "".join(f"  {key}: {value}\n" for key, value in more.items())
        (self.folder / "m.yaml").write_text(text)
        read, problems = mapping.read(text.encode(), str(self.folder / "m.yaml"))
        assert problems == []
        assert read is not None
        assert read.verify is not None
        return read.verify

    def __call__(
        self,
        inputs: str,
        reference: str,
        checkpoint: str | Path,
        allow_import: list[str] | None = None,
        **more: object,
    ) -> Recording:
        """What is recorded, as it reads back."""
        verify = self.verify(inputs, reference, checkpoint, **more)
        self.notes = []
        self.made += 1
        place = self.folder / f"{self.made}.npz"
        t2t.record(self.folder / "m.yaml", recording=place, allow_import=allow_import or [], note=self.notes.append)
        return recording.load(str(place), verify)

    def refusal(self, *args: Any, **kwargs: Any) -> str:
        """The one problem, without the mapping's place."""
        with pytest.raises(T2TError) as error:
            self(*args, **kwargs)
        assert len(error.value.problems) == 1
        return str(error.value).removeprefix(f"{self.folder}/m.yaml:5:1: ")


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def weights(folder: Path) -> Path:
    """A checkpoint that nobody asks for anything."""
    np.savez(folder / "c.npz", a=np.zeros(2, np.float32))
    return folder / "c.npz"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return weights(tmp_path)


@pytest.fixture(scope="session")
def tiny(shared_data: Path) -> Path:
    return shared_data / "mlperf-tiny" / "mlcommons+tiny"


@pytest.fixture(scope="session")
def fsrcnn(shared_data: Path) -> Path:
    return shared_data / "fsrcnn" / "Saafke+FSRCNN_Tensorflow"


@pytest.fixture(scope="session")
def ultralight(shared_data: Path) -> Path:
    return shared_data / "ultralight-face" / "Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB"


FRAMES = "{frame: {shape: [1, 512], range: [-1, 1], seed: 3}}"
MFCC = "{x: {shape: [3, 49, 10, 1], range: [-1, 1]}}"
PIXELS = "{x: {shape: [3, 32, 32, 3], range: [0, 255]}}"
LUMA = "{x: {shape: [1, 9, 11, 1], range: [0, 1]}}"
TOKENS = "{number: {shape: [2, 4], range: [-1, 1]}, token: {shape: [2], range: [0, 5], dtype: int32}}"

#: The other way: it reads the inputs that t2t makes, and prints nothing.
OTHER_WAY = """
    import sys, numpy as np, tensorflow as tf, keras
    v1 = tf.compat.v1
    inputs, folder, dtln, kws, fsrcnn = np.load(sys.argv[1]), *sys.argv[2:]
    made = {}
    for draw in range(2):
        with tf.Graph().as_default(), v1.Session() as session:
            signature = v1.saved_model.load(session, ["serve"], dtln).signature_def["serving_default"]
            y, x = signature.outputs["conv1d_1"].name, signature.inputs["input_1"].name
            for step in range(10):
                made[f"dtln_{draw}_{step}"] = session.run(y, {x: inputs[f"frame_{draw}_{step}"]})
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], kws).signature_def["serving_default"]
        made["kws"] = session.run(signature.outputs["dense"].name, {signature.inputs["input_1"].name: inputs["mfcc"]})
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(fsrcnn + "/CKPT_dir/x2/fsrcnn_ckpt.meta").restore(
            session, fsrcnn + "/CKPT_dir/x2/fsrcnn_ckpt")
        made["fsrcnn"] = session.run("NHWC_output:0", {"IteratorGetNext:0": inputs["luma"]})
        definition = v1.GraphDef.FromString(open(fsrcnn + "/models/FSRCNN_x2.pb", "rb").read())
        nodes = [node for node in definition.node if node.op == "Const" and node.attr["dtype"].type == 1]
        made |= {f"constant_{i}": tf.make_ndarray(node.attr["value"].tensor) for i, node in enumerate(nodes)}

    number = keras.Input((4,), batch_size=2, name="number")
    token = keras.Input((), batch_size=2, dtype="int32", name="token")
    together = keras.layers.Concatenate()([number, keras.layers.Embedding(5, 3)(token)])
    state = keras.layers.LSTM(6, stateful=True, name="state")(keras.layers.Reshape((1, 7))(together))
    noise = keras.layers.Dropout(0.5, name="same")(state)
    model = keras.Model([number, token], {"state": noise, "sum": keras.ops.sum(state, axis=-1)})
    model.save(folder + "/model.keras")
    for draw in range(2):
        model.get_layer("state").reset_states()
        for step in range(3):
            given = [inputs[f"number_{draw}_{step}"], inputs[f"token_{draw}_{step}"]]
            computed = model(given, training=False)
            made |= {f"keras_{name}_{draw}_{step}": np.asarray(value) for name, value in computed.items()}

    class Sums(tf.Module):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable(tf.zeros(4))

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def add(self, x):
            self.total.assign_add(tf.reduce_sum(x, 0))
            return {"sum": self.total + 0.0, "twice": x * 2}

    sums = Sums()
    tf.saved_model.save(sums, folder + "/sums", signatures={"add": sums.add})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder + "/sums", signature_keys=["add"])
    converter.experimental_enable_resource_variables = True
    open(folder + "/sums.tflite", "wb").write(converter.convert())
    np.savez(folder + "/made.npz", **made)
"""


@pytest.fixture(scope="session")
def other_way(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path, tiny: Path, fsrcnn: Path
) -> tuple[Path, dict[str, Any]]:
    """A folder with `model.keras`, and what TensorFlow and Keras compute without t2t."""
    folder = tmp_path_factory.mktemp("other-way")
    verify = Recorder(folder).verify
    some = "{call: 'm:f', fetch: {y: y}}"
    frames, tokens = verify(FRAMES, some, draws=2, steps=10), verify(TOKENS, some, draws=2, steps=3)
    given = {"mfcc": recording.inputs(verify(MFCC, some), 0)["x"], "luma": recording.inputs(verify(LUMA, some), 0)["x"]}
    for draw in range(2):
        given |= {f"frame_{draw}_{step}": recording.inputs(frames, draw, step)["frame"] for step in range(10)}
        for step in range(3):
            given |= {f"{name}_{draw}_{step}": array for name, array in recording.inputs(tokens, draw, step).items()}
    np.savez(folder / "given.npz", **given)  # type: ignore[arg-type]
    places = (folder, shared_data / DTLN, tiny / KWS, fsrcnn)
    command = [sys.executable, "-c", textwrap.dedent(OTHER_WAY), str(folder / "given.npz"), *map(str, places)]
    subprocess.run(command, env=QUIET, check=True, timeout=300, stderr=subprocess.DEVNULL)
    with np.load(folder / "made.npz") as made:
        return folder, dict(made)


DTLN = "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model"
KWS = "keyword_spotting/trained_models/kws_ref_model"
RESNET = "image_classification/trained_models/pretrainedResnet"


# --- what is recorded ---


@needs("tensorflow", "keras")
def test_a_saved_model_that_keeps_state_begins_each_draw_afresh(
    record: Recorder, shared_data: Path, other_way: tuple[Path, dict[str, Any]]
) -> None:
    """Ten frames of a stream, twice; TensorFlow 1 loads it anew for each."""
    reference = f"{{saved_model: {shared_data / DTLN}, feed: {{frame: input_1}}, fetch: {{clean: conv1d_1}}}}"
    made = record(FRAMES, reference, shared_data / DTLN, draws=2, steps=10)

    assert (len(made.draws), made.steps) == (20, 10)
    assert sorted(made.made_by) == ["numpy", "t2t", "tensorflow"]
    assert record.notes == []
    for number, run in enumerate(made.draws):
        expected = other_way[1][f"dtln_{number // 10}_{number % 10}"]
        np.testing.assert_allclose(run.outputs["clean"], expected, rtol=0, atol=1e-6, strict=True)
    assert np.abs(made.draws[9].outputs["clean"]).max() > 0.01
    # A state that went on from the first draw, or never was, would show.
    alone = other_way[1]["dtln_0_0"]
    assert not np.allclose(made.draws[10].outputs["clean"], alone, atol=1e-3)


@needs("tensorflow", "keras")
def test_a_saved_model_that_cannot_be_loaded_runs_in_a_session_and_a_note_says_so(
    record: Recorder, tiny: Path, other_way: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimizer is Keras 2's: with tf_keras installed TensorFlow knows it, so tf_keras is hidden."""
    (record.folder / "tf_keras.py").write_text("raise ImportError('hidden')")
    monkeypatch.setenv("PYTHONPATH", str(record.folder))
    reference = f"{{saved_model: {tiny / KWS}, feed: {{x: input_1}}, fetch: {{y: dense}}}}"
    made = record(MFCC, reference, tiny / KWS, draws=2)

    assert [str(note).removeprefix(f"{record.folder}/m.yaml:5:1: ") for note in record.notes] == [
        "T2T906 tf.saved_model.load failed: '_UserObject' object has no attribute 'add_slot'; "
        "the SavedModel's graph is run in a TensorFlow 1 session instead"
    ]
    assert [note.severity for note in record.notes] == ["note"]
    np.testing.assert_allclose(made.draws[0].outputs["y"], other_way[1]["kws"], rtol=0, atol=1e-6, strict=True)


@needs("tensorflow", "tf_keras", "ai_edge_litert")
def test_keras_2_and_its_tflite_agree(record: Recorder, tiny: Path) -> None:
    """Two libraries that share no kernel; one input and one output need no names in Keras."""
    whole = tiny / f"{RESNET}.h5"
    by_keras = record(PIXELS, f"{{keras: {whole}, fetch: {{y: y}}}}", whole)
    lite = f"{{tflite: {tiny / RESNET}.tflite, feed: {{x: input_1}}, fetch: {{y: Identity}}}}"
    by_tflite = record(PIXELS, lite, whole)

    assert sorted(by_keras.made_by) == ["numpy", "t2t", "tensorflow", "tf_keras"]
    assert sorted(by_tflite.made_by) == ["ai_edge_litert", "numpy", "t2t"]
    assert by_keras.draws[0].outputs["y"].shape == (3, 10)
    np.testing.assert_allclose(by_keras.draws[0].outputs["y"], by_tflite.draws[0].outputs["y"], rtol=0, atol=1e-5)


@needs("tensorflow", "keras")
def test_a_keras_3_model_with_state_is_called_without_training(
    record: Recorder, other_way: tuple[Path, dict[str, Any]]
) -> None:
    """Inputs by name, whatever their order; a stateful LSTM; a dropout that training would show."""
    folder, expected = other_way
    inputs = TOKENS[1:-1].split(", token: ")
    turned = f"{{token: {inputs[1]}, {inputs[0]}}}"
    reference = f"{{keras: {folder}/model.keras, fetch: {{a: state, b: sum}}}}"
    made = record(turned, reference, folder / "model.keras", draws=2, steps=3)

    assert sorted(made.made_by) == ["keras", "numpy", "t2t", "tensorflow"]
    for number, run in enumerate(made.draws):
        draw, step = divmod(number, 3)
        for name, own in (("a", "state"), ("b", "sum")):
            np.testing.assert_allclose(run.outputs[name], expected[f"keras_{own}_{draw}_{step}"], rtol=0, atol=1e-6)


@needs("tensorflow", "keras", "ai_edge_litert")
def test_a_tflite_runs_by_its_signature_in_any_size_and_forgets_its_state(
    record: Recorder, checkpoint: Path, other_way: tuple[Path, dict[str, Any]]
) -> None:
    """It was converted for a batch of one."""
    reference = f"{{tflite: {other_way[0]}/sums.tflite, signature: add, feed: {{a: x}}, fetch: {{s: sum, t: twice}}}}"
    made = record("{a: {shape: [3, 4], range: [0, 1]}}", reference, checkpoint, draws=2, steps=2)
    given = [run.inputs["a"] for run in made.draws]
    first, second = given[0].sum(0), given[2].sum(0)
    expected = [first, first + given[1].sum(0), second, second + given[3].sum(0)]

    np.testing.assert_allclose([run.outputs["s"] for run in made.draws], expected, rtol=1e-6)
    np.testing.assert_array_equal([run.outputs["t"] for run in made.draws], 2 * np.array(given))


@needs("tensorflow")
def test_a_frozen_graph_computes_what_its_meta_graph_does(
    record: Recorder, fsrcnn: Path, other_way: tuple[Path, dict[str, Any]]
) -> None:
    reference = (
        f'{{frozen: {fsrcnn}/models/FSRCNN_x2.pb, feed: {{x: "IteratorGetNext:0"}}, fetch: {{y: "NHWC_output:0"}}}}'
    )
    made = record(LUMA, reference, fsrcnn / "CKPT_dir/x2/fsrcnn_ckpt")

    np.testing.assert_allclose(made.draws[0].outputs["y"], other_way[1]["fsrcnn"], rtol=0, atol=1e-6, strict=True)


@needs("onnxruntime")
def test_an_onnx_model_computes_what_onnxruntime_does(record: Recorder, ultralight: Path) -> None:
    """With the runtime's own optimisations, and in another process."""
    onnxruntime: Any = importlib.import_module("onnxruntime")

    path = f"{ultralight}/models/onnx/version-RFB-320_without_postprocessing.onnx"
    made = record(
        "{input: {shape: [1, 3, 240, 320], range: [-1, 1]}}",
        f"{{onnx: {path}, fetch: {{scores: scores, boxes: boxes}}}}",
        ultralight / "tf/export_models/RFB",
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores, boxes = session.run(["scores", "boxes"], dict(made.draws[0].inputs))

    assert sorted(made.made_by) == ["numpy", "onnxruntime", "t2t"]
    np.testing.assert_allclose(made.draws[0].outputs["scores"], scores, rtol=0, atol=1e-5, strict=True)
    np.testing.assert_allclose(made.draws[0].outputs["boxes"], boxes, rtol=0, atol=1e-5, strict=True)


STRANGERS = """
    import os
    import numpy as np

    def original(checkpoint):
        print("a stranger talks")
        total = np.zeros(3, np.float32)
        def run(inputs):
            total[:] += inputs["given"][0]
            return {"sum": total.copy(), "kept": inputs["scale"], "name": np.array([ord(c) for c in checkpoint]),
                    "text": np.array(["a"]), "half": np.float16([1])}
        return run

    class Namespace:
        made = original

    def refuses(checkpoint):
        raise KeyError("no such layer")

    def late(checkpoint):
        return lambda inputs: {"sum": np.ones(2) + np.ones(3)}

    def no_function(checkpoint):
        return 3

    def no_arrays(checkpoint):
        return lambda inputs: [1]
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with strangers.py in it."""
    (tmp_path / "strangers.py").write_text(textwrap.dedent(STRANGERS))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "strangers.py"


X = "{x: {shape: [2, 3], range: [0, 1]}, scale: {value: 2.0}}"
CALL = '{{call: "{}", feed: {{x: given, scale: scale}}, fetch: {{y: {}}}}}'


@pytest.mark.usefixtures("strangers")
def test_a_call_is_made_anew_for_each_draw_and_runs_each_step(
    record: Recorder, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = CALL.format("strangers:Namespace.made", "sum, kept: kept, name: name, half: half")
    made = record(X, reference, checkpoint, ["strangers"], draws=2, steps=3)
    xs = [run.inputs["x"][0] for run in made.draws]
    expected = [*np.cumsum(xs[:3], axis=0), *np.cumsum(xs[3:], axis=0)]

    np.testing.assert_array_equal([run.outputs["y"] for run in made.draws], expected)
    assert made.draws[0].outputs["half"].dtype == np.float16
    assert [run.outputs["kept"].tolist() for run in made.draws] == [2.0] * 6
    assert "".join(map(chr, made.draws[0].outputs["name"])) == str(checkpoint)
    assert record.notes == [Problem("T2T700", "importing strangers:Namespace.made", severity="note")]
    assert capfd.readouterr() == ("", "")
    assert sorted(made.made_by) == ["numpy", "t2t"]


@pytest.mark.parametrize(
    ("called", "output", "message"),
    [
        ("strangers:refuses", "sum", "T2T902 strangers:refuses failed: FILE:18: KeyError: 'no such layer'"),
        (
            "strangers:late",
            "sum",
            "T2T902 what strangers:late returned failed: FILE:21: ValueError: operands could not be broadcast together "
            "with shapes (2,) (3,)",
        ),
        (
            "strangers:no_function",
            "sum",
            "T2T902 strangers:no_function returned int, not a function that runs the model",
        ),
        ("strangers:no_arrays", "sum", "T2T902 what strangers:no_arrays returned computes list, not arrays by name"),
        (
            "strangers:original",
            "summ",
            "T2T503 fetch y: what strangers:original returned computes no summ; did you mean sum",
        ),
        ("strangers:original", "text", "T2T503 y: text is string, and only real numbers compare"),
        (
            "strangers:origin",
            "sum",
            "T2T902 strangers:origin cannot be found: AttributeError: module 'strangers' has no attribute 'origin'",
        ),
        (
            "strangers:STRANGERS",
            "sum",
            "T2T902 strangers:STRANGERS cannot be found: AttributeError: module 'strangers' "
            "has no attribute 'STRANGERS'",
        ),
        ("nowhere:f", "sum", "T2T902 nowhere:f cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("strangers:os.sep", "sum", "T2T902 strangers:os.sep is a str, not a function"),
    ],
)
def test_a_call_that_fails_is_told_with_its_own_line(
    record: Recorder, strangers: Path, called: str, output: str, message: str
) -> None:
    checkpoint = weights(strangers.parent)

    assert record.refusal(X, CALL.format(called, output), checkpoint) == message.replace("FILE", str(strangers))


def test_a_call_may_not_be_imported_from_elsewhere(record: Recorder, checkpoint: Path, strangers: Path) -> None:
    """The parent refuses before anything runs, the child what an attribute leads to."""
    strangers.with_name("ran.py").write_text("open('it ran', 'w')")
    assert record.refusal(X, CALL.format("ran:f", "sum"), checkpoint, ["strangers", "mine"]) == (
        "T2T705 ran:f may not be imported: ran is not under strangers, mine; --allow-import ran allows it"
    )
    assert not strangers.with_name("it ran").exists()
    assert record.refusal(X, CALL.format("strangers:os.getcwd", "sum"), checkpoint, ["strangers"]) == (
        "T2T705 strangers:os.getcwd may not be imported: os is not under strangers; --allow-import os allows it"
    )


# --- names that the original does not have, inputs that it does not take ---


@needs("ai_edge_litert")
@pytest.mark.parametrize(
    ("inputs", "reference", "message"),
    [
        ("{x: {shape: [1, 32, 32, 3], range: [0, 1]}}", "fetch: {y: Identity}",
         "T2T503 feed x: the model has no input x; it has input_1"),
        ("{input_1: {shape: [1, 32, 32, 3], range: [0, 1]}}", "fetch: {y: identity}",
         "T2T503 fetch y: the model has no output identity; did you mean Identity"),
        ("{input_1: {shape: [1, 32, 32, 3], range: [0, 1], dtype: float64}}", "fetch: {y: Identity}",
         "T2T503 input_1 is float64, but input_1 is float32; give the input dtype float32"),
        ("{input_1: {shape: [1, 32, 32, 3], range: [0, 1]}}", "signature: serving_default, fetch: {y: Identity}",
         "T2T503 signature serving_default: the model has no signature serving_default"),
    ],
)  # fmt: skip
def test_what_a_tflite_does_not_have_is_told(
    record: Recorder, tiny: Path, inputs: str, reference: str, message: str
) -> None:
    reference = f"{{tflite: {tiny / RESNET}.tflite, {reference}}}"

    assert record.refusal(inputs, reference, tiny / f"{RESNET}.h5") == message


@needs("onnxruntime")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("{x: {shape: [1, 3, 240, 320], range: [0, 1]}}", "T2T503 feed x: the model has no input x; it has input"),
        ("{input: {shape: [1, 3, 240, 320], range: [0, 1], dtype: float16}}",
         "T2T503 input is float16, but input is float32; give the input dtype float32"),
        ("{input: {shape: [2, 3, 240, 320], range: [0, 1]}}",
         "T2T503 input is [2, 3, 240, 320], but input is [1, 3, 240, 320]"),
    ],
)  # fmt: skip
def test_what_an_onnx_model_does_not_take_is_told(
    record: Recorder, ultralight: Path, inputs: str, message: str
) -> None:
    path = f"{ultralight}/models/onnx/version-RFB-320_without_postprocessing.onnx"
    reference = f"{{onnx: {path}, fetch: {{y: scores}}}}"

    assert record.refusal(inputs, reference, ultralight / "tf/export_models/RFB") == message


@needs("tensorflow")
def test_a_signature_that_is_not_there_is_told(record: Recorder, tiny: Path) -> None:
    reference = f"{{saved_model: {tiny / KWS}, signature: serving_defaul, fetch: {{y: dense}}}}"

    assert record.refusal(MFCC, reference, tiny / KWS) == (
        "T2T503 the SavedModel has no signature serving_defaul, it has serving_default; did you mean serving_default"
    )


# --- files that are no original ---


def hdf5(path: Path, **attributes: str) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file["a/w"] = np.ones(3, np.float32)
    return path


LAMBDA = json.dumps(
    {"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"function": ["YwAA"]}}]}}
)


@needs("tensorflow")
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "the file holds weights, but no model; name a file that Keras saved with save(), or describe the original "
             "by call"),
        ({"model_config": LAMBDA, "keras_version": "2.9.0"},
         "the model has a Lambda layer, whose code lies in the file; describe the original by call, in Python"),
        ({"model_config": "{", "keras_version": "2.9.0"},
         "not a file that Keras wrote: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_keras_model_is_told(
    record: Recorder, tmp_path: Path, attributes: dict[str, str], message: str
) -> None:
    path = hdf5(tmp_path / "m.h5", **attributes)

    assert record.refusal("{x: {value: 1}}", f"{{keras: {path}, fetch: {{y: y}}}}", path) == f"T2T902 {message}"


@needs("tensorflow")
def test_a_file_of_keras_2_needs_tf_keras(record: Recorder, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras 3 would open it, and compute what it does not know under the same name."""
    missing = "raise ModuleNotFoundError('none', name='tf_keras')"
    (record.folder / "tf_keras.py").write_text(missing)
    monkeypatch.setenv("PYTHONPATH", str(record.folder))
    whole = tiny / f"{RESNET}.h5"

    assert record.refusal(PIXELS, f"{{keras: {whole}, fetch: {{y: y}}}}", whole) == (
        "T2T901 tf_keras is not installed, and the file was written by Keras 2.4.0; "
        "in the clone of t2t, run pip install -e '.[keras2]'"
    )


@pytest.mark.parametrize(
    ("reference", "hidden", "message"),
    [
        ("{tflite: m, fetch: {y: y}}", ("ai_edge_litert", "tensorflow"), f"ai_edge_litert is not installed; {RUN} pip "
         "install -e '.[lite]'"),
        ("{onnx: m, fetch: {y: y}}", ("onnxruntime",), f"onnxruntime is not installed; {RUN} pip install -e '.[onnx]'"),
        ("{keras: m, fetch: {y: y}}", ("tensorflow",), f"tensorflow is not installed; {RUN} pip install -e '.[tf]'"),
    ],
)  # fmt: skip
def test_a_library_that_is_missing_is_named_with_what_brings_it(
    record: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    reference: str,
    hidden: tuple[str, ...],
    message: str,
) -> None:
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    checkpoint = weights(record.folder)

    assert record.refusal("{x: {value: 1}}", reference, checkpoint) == f"T2T901 {message}"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{saved_model: m, fetch: {y: y}}", "T2T902 no saved_model.pb in HERE/m"),
        ("{frozen: m, fetch: {y: y}}", "T2T902 no graph at HERE/m"),
        ("{keras: m, fetch: {y: y}}", "T2T902 no Keras model at HERE/m"),
        ("{saved_model: 'gs://a/m', fetch: {y: y}}", "T2T902 the original is run from files on this machine, but it is "
         "gs://a/m; copy it beside the checkpoint, and give --checkpoint"),
    ],
)  # fmt: skip
@needs("tensorflow")
def test_an_original_that_is_not_there_is_told_before_anything_runs(
    record: Recorder, checkpoint: Path, reference: str, message: str
) -> None:
    assert record.refusal("{x: {value: 1}}", reference, checkpoint) == message.replace("HERE", str(record.folder))


# --- what the mapping says ---


@pytest.mark.parametrize(
    ("reference", "more", "message"),
    [
        ("{keras: a, tflite: b, fetch: {y: y}}", "",
         "T2T108 reference: needs one of graph, saved_model, keras, tflite, onnx, frozen, call; it has keras and "
         "tflite"),
        ("{fetch: {y: y}}", "",
         "T2T108 reference: needs one of graph, saved_model, keras, tflite, onnx, frozen, call; it has none of them"),
        ("{keras: a}", "", "T2T105 key 'fetch' is missing"),
        ("{call: f, fetch: {y: y}}", "", "T2T106 call: expected 'package.module:attribute', got 'f'"),
        ("{onnx: a, signature: s, fetch: {y: y}}", "",
         "T2T503 signature stands beside onnx, which has none; remove it"),
        ("{onnx: a, fetch: {y: y}}", "  draws: 2\n  steps: 501\n",
         "T2T503 2 draws of 501 steps are 1002 runs, the limit is 1000; fewer prove as much"),
        ("{onnx: a, feed: {z: x}, fetch: {y: y}}", "", "T2T503 x is not among the tensors to feed: z"),
    ],
)  # fmt: skip
def test_a_reference_that_cannot_be_one_is_refused(reference: str, more: str, message: str) -> None:
    text = "t2t: 1\nmodel: a:B\nsource: {checkpoint: c}\nmap: [{tf: a, torch: b}]\nverify:\n"
    text += f"  inputs: {{x: {{value: 1}}}}\n  reference: {reference}\n{more}"
    problems = mapping.read(text.encode(), "m.yaml")[1]

    assert str(problems[0]).partition(": ")[2].startswith(message)


# --- where the original is ---

AT = "https://h/o/r"


@pytest.mark.parametrize(
    ("own", "reference", "given", "found"),
    [
        ("/a/c", "{graph: /a/c.meta, ", "/b/d", "/b/d.meta"),
        ("/a/c.index", "{graph: /a/c.meta, ", "/b/d", "/b/d.meta"),
        ("/a/c", "{graph: /a/g.meta, ", "/b/d", "/b/g.meta"),
        ("/a/c", "{graph: /a/b/g.meta, ", "/b/d", "/b/b/g.meta"),
        ("/a/c", "{graph: /a2/g.meta, ", "/b/d", "/a2/g.meta"),
        ("/a/c", "{onnx: /a/c, ", "/b/d", "/b/d"),
        ("/a/c.h5", "{keras: /a/./c.h5, ", "/b/d.h5", "/b/d.h5"),
        (f"{AT}/c", f"{{graph: {AT}/c.meta, ", "/b/d", "/b/d.meta"),
        (f"{AT}/c", f"{{tflite: {AT}/m.tflite, ", "/b/d", "/b/m.tflite"),
        (f"{AT}/x/c", f"{{tflite: {AT}/y/m.tflite, ", "/b/x/d", "/b/y/m.tflite"),
        (f"{AT}/c", "{tflite: /m.tflite, ", "/b/d", "/m.tflite"),
        ("/a/c", "{call: 'm:f', ", "/b/d", ""),
    ],
)
def test_what_belongs_to_the_checkpoint_follows_it(own: str, reference: str, given: str, found: str) -> None:
    assert where(own, reference, given, given) == found
    path = "" if "call" in reference else reference.partition(": ")[2].rstrip(", ")
    assert where(own, reference, None, own) == path


def where(own: str, reference: str, given: str | Path | None, path: str | Path) -> str:
    """Where the original is for a checkpoint at `path` that was given as `given`."""
    from types import SimpleNamespace

    from t2t.places import original_path

    text = f"t2t: 1\nmodel: a:B\nsource: {{checkpoint: '{own}'}}\nmap: [{{tf: a, torch: b}}]\nverify:\n"
    text += f"  inputs: {{x: {{value: 1}}}}\n  reference: {reference}fetch: {{y: y}}}}\n"
    read, problems = mapping.read(text.encode(), "m.yaml")
    assert problems == []
    assert read is not None
    opened: Any = SimpleNamespace(path=str(path))  # all of a checkpoint that decides it
    return original_path(read, opened, None if given is None else os.fspath(given))


def test_what_lies_in_a_directory_follows_it(tmp_path: Path) -> None:
    """A SavedModel by either of its names, and a directory with a state file."""
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").touch()
    model, inside = tmp_path / "model", tmp_path / "model/variables/variables"

    for given in (model, f"{model}/", inside):
        for own in (f"{AT}/m", f"{AT}/m/", f"{AT}/m/variables/variables"):
            assert where(own, f"{{saved_model: {AT}/m, ", given, inside) == str(model)
            assert where(own, f"{{tflite: {AT}/m.tflite, ", given, inside) == f"{tmp_path}/m.tflite"
    assert where("/a/m", "{graph: /a/m/g.meta, ", tmp_path, tmp_path / "ckpt-7") == f"{tmp_path}/g.meta"


# --- the key of a recording ---


def test_a_recording_belongs_to_its_kind_its_steps_and_its_code(
    record: Recorder, checkpoint: Path, strangers: Path
) -> None:
    made = record(X, CALL.format("strangers:original", "sum"), checkpoint, steps=2)
    place = str(record.folder / "1.npz")

    def found(call: str = "strangers:original", **more: object) -> Recording | Problem:
        verify = record.verify(X, CALL.format(call, "sum"), checkpoint, **more)
        return recording.find(place, verify, made.made_from["checkpoint"], "", "again")

    def reason(found: Recording | Problem) -> str:
        assert isinstance(found, Problem)
        return found.message.removeprefix(f"not proven: recording {place} was made from ")

    assert isinstance(found(steps=2), Recording)
    assert reason(found(steps=3)) == "another number of steps"
    assert reason(found()) == "another number of steps"
    assert reason(found("strangers:late", steps=2)) == "another kind of original and another call"
    graph = record.verify(X, "{graph: g, feed: {x: given, scale: scale}, fetch: {y: sum}}", steps=2)
    assert reason(recording.find(place, graph, made.made_from["checkpoint"], "", "again")) == (
        "another kind of original"
    )
    strangers.write_text("# " + strangers.read_text())
    assert reason(found(steps=2)) == "another call"
    strangers.unlink()
    assert isinstance(found(steps=2), Recording)


def test_the_code_of_a_call_is_found_without_running_it(
    record: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it ran')")
    (package / "inside.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path)

    def digest(path: str) -> str | None:
        reference = record.verify(X, CALL.format(path, "sum")).reference
        return origin.original_digest(reference, "")

    assert digest("package.inside:f") not in (None, digest("package:f"), digest("package.inside:g"))
    assert digest("package.outside:f") is digest("gone.inside:f") is digest("package.inside.more:f") is None


def test_a_saved_model_goes_by_its_graph(record: Recorder, tiny: Path) -> None:
    verify = record.verify(MFCC, "{saved_model: m, fetch: {y: dense}}")

    digest = origin.original_digest(verify.reference, str(tiny / KWS))

    assert digest == origin.original_digest(
        record.verify(MFCC, "{onnx: m, fetch: {y: y}}").reference, str(tiny / KWS / "saved_model.pb")
    )
