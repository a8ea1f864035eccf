"""
The layers that are recorded of somebody's function, and of a .tflite file.

What is recorded is what TensorFlow, Keras or numpy gives for the same thing where nobody watches: what each call of a
public function takes and gives, a Keras layer alone, a session's run of one tensor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t.proof.originals import samples, walk
from tests.proof.test_layers_recorded import ROOT, Recorded, needs, other_way, run, uniform, whole

DTLN = "dtln/breizhn+DTLN/model.h5"
ULTRALIGHT = "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/tf/export_models"
FFN = "ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036"
T2T = "t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt/model.ckpt-1"
BERT = "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt"
pytestmark = pytest.mark.slow

TINY = "mlperf-tiny/mlcommons+tiny"
RESNET = f"{TINY}/image_classification/trained_models/pretrainedResnet"
KWS = f"{TINY}/keyword_spotting/trained_models/kws_ref_model_float32.tflite"

#: Before a run: nobody asks for anything inside.
UNWATCHED = """
    import json
    load = json.load
    json.load = lambda file: {key: value for key, value in load(file).items() if key != "layers"}
"""


def called(path: str, checkpoint: Path | str, given: dict[str, Any], *fetch: str, **more: Any) -> dict[str, Any]:
    """A request for a function of somebody's; each input has one array."""
    request: dict[str, Any] = {"kind": "call", "path": path, "checkpoint": str(checkpoint)}
    request |= {"feed": {name: name for name in given}, "fetch": {name: name for name in fetch}}
    return request | {"given": [{0: array} for array in given.values()]} | more


def digests(layer: dict[str, Any]) -> list[str]:
    return [variable["digest"] for variable in layer["variables"]]


def of(*values: Any) -> list[str]:
    return [samples.digest(value) for value in values]


# --- the gallery's originals ---

#: Runs originals as they are, with what they call of TensorFlow watched by other means; sessions are asked.
GALLERY = """
    import sys, json, inspect, importlib
    from pathlib import Path
    folder, root, asked = sys.argv[1:]
    sys.path.insert(0, root)
    import numpy as np, tensorflow as tf
    made, v1 = {}, tf.compat.v1

    def wrapped(owner, function, note):
        own = getattr(owner, function)
        def replaced(x, *args, **kwargs):
            value = own(x, *args, **kwargs)
            note(function, x, value[0] if isinstance(value, tuple) else value)
            return value
        setattr(owner, function, replaced)

    def store(function, x, value):
        at = seen[function] = seen.get(function, -1) + 1
        made[f"{name} {function} {at} in"], made[f"{name} {function} {at}"] = np.asarray(x), np.asarray(value)

    wrapped(tf.nn, "conv2d", store)
    wrapped(tf.nn, "depthwise_conv2d", store)
    wrapped(tf.nn, "batch_normalization", store)
    wrapped(v1.nn, "fused_batch_norm", store)
    wrapped(tf, "tensordot", store)
    for name, (path, checkpoint, inputs) in json.loads(Path(asked).read_text()).items():
        seen = {}
        module, function = path.split(":")
        original = getattr(importlib.import_module(module), function)(checkpoint)
        if checkpoint.endswith("h5"):
            continue
        reader = tf.train.load_checkpoint(checkpoint)
        made |= {f"{name} {key}": reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
        with np.load(f"{folder}/{name}.in.npz") as arrays:
            given = {key: arrays[f"{place}_0"] for place, key in enumerate(inputs)}
        original(given)
        part = inspect.getclosurevars(original).nonlocals
        part = inspect.getclosurevars(part["graph"]).nonlocals if "graph" in part else part
        if "session" in part:
            # It tiles what it is given, and feeds positions of its own.
            if "masked_lm_positions" in part["fed"]:
                given = {key: np.tile(array, (8, 1)) for key, array in given.items()}
                given["masked_lm_positions"] = np.tile(np.arange(20, dtype=np.int32) % 16, (32, 1))
            feed = {part["fed"][key]: array for key, array in given.items()}
            graph = part["session"].graph
            kinds = {"Conv3D", "BiasAdd", "MatMul", "GatherV2", "Add"}
            wanted = [op for op in graph.get_operations() if op.type in kinds and op.outputs[0].dtype == tf.float32]
            wanted += [op for op in graph.get_operations() if op.name.endswith(("batchnorm/mul", "batchnorm/sub"))]
            values = part["session"].run([(op.inputs[0], op.inputs[1], op.outputs[0]) for op in wanted], feed)
            for op, (first, second, value) in zip(wanted, values):
                into = second if op.name.endswith("batchnorm/sub") else first
                made[f"{name} {op.name} in"], made[f"{name} {op.name}"] = into, value

    # DTLN, each layer of Keras alone.
    import keras, h5py
    layers = keras.layers
    if "dtln" in json.loads(Path(asked).read_text()):
        file = h5py.File(json.loads(Path(asked).read_text())["dtln"][1])
        noisy = np.load(folder + "/dtln.in.npz")["0_0"]
        def run(name, layer, x):
            layer.build(x.shape)
            layer.set_weights([file[f"{name}/{name}/{weight.name}:0"][()] for weight in layer.weights])
            made[f"dtln {name} in"], made[f"dtln {name}"] = np.asarray(x), np.asarray(layer(x))
            made.update({f"dtln {name}/{i}": np.asarray(weight) for i, weight in enumerate(layer.get_weights())})
            return made[f"dtln {name}"]
        spectrum = tf.signal.rfft(tf.signal.frame(noisy, 512, 128))
        x = magnitude = np.asarray(tf.abs(spectrum))
        for name in ("lstm", "lstm_1"):
            x = run(name, layers.LSTM(128, return_sequences=True), x)
        x = run("dense", layers.Dense(257), x)
        masked = tf.cast(magnitude * tf.sigmoid(x), tf.complex64)
        frames = tf.signal.irfft(masked * tf.exp(1j * tf.cast(tf.math.angle(spectrum), tf.complex64)))
        encoded = run("conv1d", layers.Conv1D(256, 1, use_bias=False), np.asarray(frames))
        x = run("layer_normalization", layers.LayerNormalization(epsilon=1e-7), encoded)
        for name in ("lstm_2", "lstm_3"):
            x = run(name, layers.LSTM(128, return_sequences=True), x)
        x = run("dense_1", layers.Dense(256), x)
        run("conv1d_1", layers.Conv1D(512, 1, use_bias=False), encoded * np.asarray(tf.sigmoid(x)))
    np.savez(folder + "/made.npz", **made)
"""

#: A checkpoint of TF-Slim's ResNet-50 with random values, an eighth of its width.
SLIM = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    import numpy as np
    from tests.gallery import with_vision
    with_vision.save(Path(sys.argv[1], "slim.ckpt"), with_vision.slim(), version=1)
    np.savez(sys.argv[1] + "/made.npz")
"""


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with what is recorded of the gallery's originals, and what TensorFlow and Keras give for it."""
    folder = tmp_path_factory.mktemp("gallery")
    other_way(folder, SLIM, ROOT)
    tokens = {"inputs": whole(0, 8000, 2, 6), "targets": whole(1, 8000, 2, 3), "space": np.array(3, np.int32)}
    ids = {"input_ids": whole(0, 15, 4, 16), "input_mask": whole(1, 2, 4, 16), "segment_ids": whole(2, 2, 4, 16)}
    picture, image = {"picture": uniform(0, 1, 240, 320, 3)}, {"image": 100 * uniform(0, 1, 64, 64, 3)}
    both = {"patches": uniform(0, 1, 9, 11, 13, 1), "seed": uniform(1, 1, 9, 11, 13, 1)}
    noisy = {"noisy": uniform(0, 2, 2560)}
    faces = shared_data / ULTRALIGHT
    own = "mappings.originals."
    requests = {
        "dtln": called(f"{own}dtln:original", shared_data / DTLN, noisy, "clean", layers={"a": "lstm"}),
        "rfb": called(f"{own}ultralight:rfb", faces / "RFB/variables/variables", picture, "scores", "offsets"),
        "slim": called(f"{own}resnet50:slim", folder / "slim.ckpt", image, "logits"),
        "t2t": called(f"{own}tensor2tensor:original", shared_data / T2T, tokens, "logits"),
        "ffn": called(f"{own}ffn:original", shared_data / FFN, both, "logits", layers={"end": "add:0"}),
        "bert": called(f"{own}toy_bert:original", shared_data / BERT, ids, "words", "next"),
        "wrong": called(f"{own}ffn:original", shared_data / FFN, both, "logits", layers={"end": "sum:0"}),
    }
    run(folder, requests)
    del requests["wrong"]
    run(folder, {f"{name} unwatched": request for name, request in requests.items()}, before=UNWATCHED)
    asked = {
        name: (request["path"], request["checkpoint"], list(request["feed"])) for name, request in requests.items()
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    return folder, other_way(folder, GALLERY, ROOT, folder / "asked.json")


libraries = needs("tensorflow", "keras", "h5py")


@libraries
@pytest.mark.parametrize("name", ["dtln", "rfb", "slim", "t2t", "ffn", "bert"])
def test_a_function_that_is_watched_computes_what_it_does_alone(
    gallery: tuple[Path, dict[str, Any]], name: str
) -> None:
    watched, alone = Recorded(gallery[0], name), Recorded(gallery[0], f"{name} unwatched")

    assert "layers" not in alone.report
    for member, array in alone.members.items():
        np.testing.assert_array_equal(watched.members[member], array, strict=True)


@libraries
def test_layers_of_keras_in_a_function_are_what_each_gives_alone(gallery: tuple[Path, dict[str, Any]]) -> None:
    """An LSTM is one layer, however many steps it takes."""
    recorded, made = Recorded(gallery[0], "dtln"), gallery[1]
    kinds = [
        "LSTM",
        "LSTM",
        "MatMul",
        "BiasAdd",
        "Conv2D",
        "Mul",
        "AddV2",
        "LSTM",
        "LSTM",
        "MatMul",
        "BiasAdd",
        "Conv2D",
    ]
    names = ["lstm", "lstm_1", "dense", "dense", "conv1d", "layer_normalization", "layer_normalization"]
    names += ["lstm_2", "lstm_3", "dense_1", "dense_1", "conv1d_1"]

    assert recorded.report["notes"] == [
        "what verify's layers name is not recorded: only a graph that runs in a session has names, and the function "
        "runs none"
    ]
    assert [layer["kind"] for layer in recorded.layers] == kinds
    for layer, name in zip(recorded.layers, names, strict=True):
        weights = [made[f"dtln {name}/{number}"] for number in range(3) if f"dtln {name}/{number}" in made]
        given, computed = made[f"dtln {name} in"], made[f"dtln {name}"]
        if layer["kind"] == "LSTM":
            assert digests(layer) == of(*weights)
            assert [variable["name"].split("/", 1)[1] for variable in layer["variables"]] == [
                "lstm_cell/kernel", "lstm_cell/recurrent_kernel", "lstm_cell/bias",
            ]  # fmt: skip
            recorded.check(layer["input"], given)
            recorded.check(layer["output"], computed)
        elif layer["kind"] == "MatMul":
            assert digests(layer) == of(weights[0])
            recorded.check(layer["input"], given.reshape(-1, given.shape[-1]))
        elif layer["kind"] == "BiasAdd":
            assert digests(layer) == of(weights[1])
            recorded.check(layer["output"], computed)
        elif layer["kind"] == "Conv2D":
            assert digests(layer) == of(weights[0])
            recorded.check(layer["input"], given[:, None])
            recorded.check(layer["output"], computed[:, None])
        else:
            (at,) = [number for number, one in enumerate(weights) if digests(layer) == of(one)]
            assert at == ["Mul", "AddV2"].index(layer["kind"])
    # What goes into layer norm as a whole, and comes out of it, lies around its operations.
    shift = recorded.layers[6]
    recorded.check(shift["before"][1], made["dtln layer_normalization in"])
    recorded.check(shift["after"][0], made["dtln layer_normalization"])


@libraries
@pytest.mark.parametrize(
    ("name", "kinds", "layers"),
    [
        ("rfb", {"Conv2D": "conv2d", "DepthwiseConv2dNative": "depthwise_conv2d"}, 139),
        ("slim", {"Conv2D": "conv2d", "FusedBatchNormV3": "fused_batch_norm"}, 108),
    ],
)
def test_layers_of_plain_operations_are_what_each_takes_and_gives(
    gallery: tuple[Path, dict[str, Any]], name: str, kinds: dict[str, str], layers: int
) -> None:
    """Constants stand for variables; each is told by its values."""
    recorded, made = Recorded(gallery[0], name), gallery[1]
    read = {key: value for key, value in made.items() if key.startswith(f"{name} ") and value.dtype == np.float32}
    stored = set(of(*read.values()))

    assert recorded.report["notes"] == []
    assert len(recorded.layers) == layers
    for kind, function in kinds.items():
        found = [layer for layer in recorded.layers if layer["kind"] == kind]
        assert len(found) == sum(key.startswith(f"{name} {function} ") and key.endswith(" in") for key in made)
        for number, layer in enumerate(found):
            assert set(digests(layer)) <= stored
            recorded.check(layer["output"], made[f"{name} {function} {number}"])
            recorded.check(layer["input"], made[f"{name} {function} {number} in"])
    norms = [layer for layer in recorded.layers if len(layer["variables"]) == 4]
    for number, layer in enumerate(norms):
        function = "batch_normalization" if name == "rfb" else "fused_batch_norm"
        recorded.check(layer["output"], made[f"{name} {function} {number}"])


@libraries
def test_layers_of_a_transformer_are_its_products(gallery: tuple[Path, dict[str, Any]]) -> None:
    """Integers are fed, one of them alone; the embedding is of sixteen variables, and is the head, too."""
    recorded, made = Recorded(gallery[0], "t2t"), gallery[1]
    words = of(*(made[f"t2t transformer/symbol_modality_8190_16/shared/weights_{part}"] for part in range(16)))
    products = [layer for layer in recorded.layers if layer["kind"] == "MatMul"]

    assert recorded.report["notes"] == []
    assert len(recorded.layers) == 70
    assert digests(recorded.layers[0]) == digests(recorded.layers[-1]) == words
    space = made["t2t transformer/body/target_space_embedding/kernel"]
    assert (recorded.layers[1]["kind"], digests(recorded.layers[1])) == ("AddV2", of(space))
    assert len(products) == sum(key.startswith("t2t tensordot") for key in made) / 2
    for number, layer in enumerate(products):
        given, computed = made[f"t2t tensordot {number} in"], made[f"t2t tensordot {number}"]
        recorded.check(layer["input"], given.reshape(-1, given.shape[-1]))
        recorded.check(layer["output"], computed.reshape(-1, computed.shape[-1]))


@libraries
@pytest.mark.parametrize(("name", "layers"), [("ffn", 50), ("bert", 48)])
def test_layers_of_a_function_with_a_session_are_what_the_session_gives(
    gallery: tuple[Path, dict[str, Any]], name: str, layers: int
) -> None:
    """Its constants were the checkpoint's variables."""
    recorded, made = Recorded(gallery[0], name), gallery[1]
    stored = {samples.digest(value): key for key, value in made.items() if value.dtype == np.float32}
    checked = 0

    assert recorded.report["notes"] == []
    assert len(recorded.layers) == layers
    for layer in recorded.layers:
        operation = f"{name} {layer['operation']}"
        if operation in made:
            checked += 1
            assert set(digests(layer)) <= set(stored)
            recorded.check(layer["output"], made[operation])
            if layer["input"] is not None:
                recorded.check(layer["input"], made[f"{operation} in"])
    assert checked == {"ffn": 50, "bert": 47}[name]
    if name == "ffn":
        recorded.check(recorded.report["named"]["end"], recorded.members["0_0"])


@libraries
def test_a_tensor_that_the_graph_of_a_function_does_not_have_is_the_mappings_fault(
    gallery: tuple[Path, dict[str, Any]],
) -> None:
    report = json.loads((gallery[0] / "wrong.json").read_text())

    assert (report["kind"], report["message"]) == ("names", "layers end: the graph has no tensor sum:0")
    assert "add:0" in report["candidates"]


# --- functions of every kind ---

STRANGERS = """
    import numpy as np

    random = np.random.default_rng(4)

    def values(*shape):
        return random.uniform(-1, 1, shape).astype(np.float32)

    W, BIAS, TABLE, DEEP, LOOK, CELL = values(3, 4), values(4), values(5, 4), values(4, 4), values(4, 4), values(4, 4)

    def every(_):
        import tensorflow as tf
        w, look = tf.Variable(W, name="w"), tf.Variable(LOOK, name="look")
        state = tf.Variable(np.zeros((2, 4), np.float32), name="state")

        @tf.function
        def deep(x):
            return tf.matmul(x, DEEP)

        whole = deep.get_concrete_function(tf.TensorSpec([2, 4]))

        def run(given):
            doubled = given["x"] * 2  # numpy's
            with tf.name_scope("first"):
                y = tf.matmul(doubled, w) + BIAS
            y = y * given["mask"] + tf.gather(TABLE, given["ids"])
            y = whole(deep(tf.nn.relu(y)))
            y = y + tf.matmul(state.read_value(), tf.transpose(look)) * 0.5
            state.assign(tf.tanh(y))
            for _ in range(20):
                y = tf.tanh(tf.matmul(y, CELL))
            for _ in range(3):
                y = tf.matmul(y, w[:1] * tf.ones((4, 1)))
            return {"y": (y + 1.0).numpy()}

        return run

    def recurrent(_):
        import keras, tf_keras, tensorflow as tf
        keras.utils.set_random_seed(1)
        gru = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True, name="gru"), name="both")
        lstm = tf_keras.layers.LSTM(5, name="old")

        def run(given):
            steps = gru(given["x"])
            last = lstm(steps)
            np.savez("recurrent.npz", x=given["x"], steps=steps, last=last,
                     **{w.path.replace("/", "."): w for w in gru.weights}, **{w.name: w for w in lstm.weights})
            return {"y": last.numpy()}

        run({"x": np.ones((2, 30, 4), np.float32)})
        return run

    def increasing(_):
        import tensorflow as tf

        def run(given):
            if (np.diff(given["x"]) < 0).any():
                raise ValueError("they must increase")
            return {"y": tf.matmul(given["x"], W).numpy()}

        return run

    def without(_):
        return lambda given: {"y": given["x"] @ W}

    def idle(_):
        import tensorflow

        return without(_)

    def fed_alone(_):
        import tensorflow as tf

        return lambda given: {"y": tf.nn.relu(given["x"]).numpy()}

    def sessions(_):
        import tensorflow.compat.v1 as tf
        first, second = tf.Graph(), tf.Graph()
        with first.as_default():
            tf.matmul(tf.placeholder(tf.float32, [None, 3], name="x"), tf.constant(W), name="product")
        with second.as_default():
            x = tf.placeholder(tf.float32, [None, 4], name="x")
            tf.add(tf.sqrt(x, name="root"), tf.Variable(BIAS, name="bias", use_resource=True), name="sum")
            begin = tf.global_variables_initializer()
        one, other = tf.Session(graph=first), tf.Session(graph=second)
        other.run(begin)

        def run(given):
            y = one.run("product:0", {"x:0": given["x"]})
            y = other.run({"y": [second.get_tensor_by_name("sum:0")]}, feed_dict={"x:0": y * y})
            return {"y": y["y"][0]}

        return run

    def counting(_):
        import tensorflow.compat.v1 as tf
        with tf.Graph().as_default() as graph:
            x, count = tf.placeholder(tf.float32, [None, 3], name="x"), tf.Variable(np.ones((3, 1), np.float32))
            y = tf.matmul(x, tf.assign_add(count, np.ones((3, 1), np.float32)))
            begin = tf.global_variables_initializer()
        session = tf.Session(graph=graph)
        session.run(begin)

        def run(given):
            session.run(y, {x: given["x"]})
            return {"y": session.run(y, {x: given["x"]})}

        return run
"""

RISING = np.arange(6, dtype=np.float32).reshape(1, 6)[:, :3]


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with what is recorded of the functions of STRANGERS, and the arrays in that file."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "strangers.py").write_text("\n".join(line[4:] for line in STRANGERS.splitlines()))
    namespace: dict[str, Any] = {}
    exec((folder / "strangers.py").read_text(), namespace)
    two = {"x": uniform(0, 2, 3), "mask": np.ones((2, 4), np.float32), "ids": np.array([2, 0], np.int32)}
    every = called("strangers:every", "", two, "y", steps=2)
    every["given"] = [{0: uniform(0, 2, 3), 1: uniform(1, 2, 3)}, {0: two["mask"]}, {0: two["ids"]}]
    x = {"x": uniform(0, 2, 3)}
    both = {"root": "root:0", "product": "product:0"}
    requests = {
        "every": every,
        "recurrent": called("strangers:recurrent", "", {"x": uniform(0, 2, 30, 4)}, "y"),
        "increasing": called("strangers:increasing", "", {"x": RISING}, "y"),
        "idle": called("strangers:idle", "", x, "y"),
        "fed_alone": called("strangers:fed_alone", "", x, "y"),
        "sessions": called("strangers:sessions", "", x, "y", layers=both),
        "counting": called("strangers:counting", "", x, "y"),
    }
    run(folder, {"without": called("strangers:without", "", x, "y", layers={"a": "b"})})
    run(folder, requests)
    # Last, so that what these functions store themselves is of a run that nobody watches.
    run(folder, {f"{name} unwatched": request for name, request in requests.items()}, before=UNWATCHED)
    another = """
        import sys, tensorflow.python.framework as framework
        from tensorflow.python.framework import op_callbacks
        del framework.op_callbacks
        sys.modules["tensorflow.python.framework.op_callbacks"] = None
    """
    run(folder, {"another": requests["every"]}, before=another)
    odd = """
        from tensorflow.python.framework import op_callbacks
        add = op_callbacks.add_op_callback
        op_callbacks.add_op_callback = lambda one: (add(lambda kind, *more: one(kind, None, *more[1:])), add(one))
    """
    run(folder, {"odd": requests["every"]}, before=odd)
    return folder, namespace


@needs("tensorflow")
@pytest.mark.parametrize("name", ["every", "recurrent", "increasing", "idle", "fed_alone", "sessions", "counting"])
def test_whatever_is_found_inside_outputs_are_the_same(strangers: tuple[Path, Any], name: str) -> None:
    watched, alone = Recorded(strangers[0], name), Recorded(strangers[0], f"{name} unwatched")

    assert alone.members
    for member, array in alone.members.items():
        np.testing.assert_array_equal(watched.members[member], array, strict=True)


@needs("tensorflow")
def test_an_operation_is_a_layer_where_data_meets_what_is_none(strangers: tuple[Path, Any]) -> None:
    """
    Of the second step. Data is what numpy makes of what is fed, what is the same in reverse, and the state; variables
    and arrays are not. A loop of twenty steps is one layer, one of three is three; a function that cannot be looked
    into is one by its name.
    """
    folder, own = strangers
    recorded = Recorded(folder, "every")
    w, bias, table, deep, look, cell = (own[name] for name in ("W", "BIAS", "TABLE", "DEEP", "LOOK", "CELL"))
    state = np.zeros((2, 4), np.float32)
    for step in range(2):
        product = (uniform(step, 2, 3) * 2) @ w
        added = product + bias
        sought = table[[2, 0]]
        bent = np.maximum(added + sought, 0)
        once = bent @ deep
        twice = once @ deep
        seen = state @ look.T
        y = twice + seen * 0.5
        before, state = state, np.tanh(y)
    steps = []
    for _ in range(20):
        steps.append((y, y @ cell))
        y = np.tanh(y @ cell)
    square = w[:1] * np.ones((4, 1), np.float32)
    last = [y, y @ square, y @ square @ square, y @ square @ square @ square]
    given, computed = (np.stack(side) for side in zip(*steps, strict=True))
    expected: list[tuple[str, list[str], list[Any], Any, Any]] = [
        ("first/MatMul", ["w"], [w], uniform(1, 2, 3) * 2, product),
        ("first/AddV2", [""], [bias], product, added),
        ("GatherV2", [""], [table], None, sought),
        ("MatMul", [""], [deep], bent, once),
        ("MatMul_1", ["look"], [look], before, seen),
        ("MatMul_2", [""], [cell], given, computed),
        *((f"MatMul_{22 + i}", ["w"], [w], last[i], last[i + 1]) for i in range(3)),
    ]

    assert recorded.report["notes"] == []
    assert [layer["operation"] for layer in recorded.layers] == [row[0] for row in expected]
    for layer, (_, names, variables, first, end) in zip(recorded.layers, expected, strict=True):
        assert [variable["name"] for variable in layer["variables"]] == names
        assert digests(layer) == of(*variables)
        recorded.check(layer["output"], end)
        if first is None:
            assert layer["input"] is None
        else:
            recorded.check(layer["input"], first)
    assert walk.MAX_REPEATED == 16


@needs("tensorflow", "keras", "tf_keras")
def test_a_recurrent_layer_of_either_keras_is_one_layer(strangers: tuple[Path, Any]) -> None:
    """Both ways of a bidirectional one; the cell of the older Keras, too."""
    recorded = Recorded(strangers[0], "recurrent")
    with np.load(strangers[0] / "recurrent.npz") as stored:
        made = dict(stored)

    assert recorded.report["notes"] == []
    assert [layer["kind"] for layer in recorded.layers] == ["GRU", "GRU", "LSTM"]
    forward, backward, old = recorded.layers
    for layer, way in ((forward, "forward"), (backward, "backward")):
        kept = {name: value for name, value in made.items() if way in name}
        assert set(digests(layer)) == set(of(*kept.values()))
        recorded.check(layer["input"], made["x"])
    recorded.check(forward["output"], made["steps"][:, :, :3])
    recorded.check(backward["output"], made["steps"][:, ::-1, 3:])
    assert [variable["name"] + ":0" in made for variable in old["variables"]] == [True] * 3
    assert digests(old) == of(*(made[variable["name"] + ":0"] for variable in old["variables"]))
    recorded.check(old["input"], made["steps"])
    recorded.check(old["output"], made["last"])


@needs("tensorflow")
def test_sessions_of_a_function_are_looked_into_one_by_one(strangers: tuple[Path, Any]) -> None:
    """One with constants, one with a variable; names are found in either."""
    folder, own = strangers
    recorded = Recorded(folder, "sessions")
    product = uniform(0, 2, 3) @ own["W"]
    first, second = recorded.layers

    assert recorded.report["notes"] == []
    assert recorded.operations() == ["product", "sum"]
    assert (digests(first), digests(second)) == (of(own["W"]), of(own["BIAS"]))
    assert second["variables"][0]["name"] == "bias"
    recorded.check(first["input"], uniform(0, 2, 3))
    recorded.check(first["output"], product)
    recorded.check(second["input"], np.abs(product))
    recorded.check(second["output"], np.abs(product) + own["BIAS"])
    recorded.check(recorded.report["named"]["product"], product)
    recorded.check(recorded.report["named"]["root"], np.abs(product))


@needs("tensorflow")
@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "without",
            [
                "what verify's layers name is not recorded: only a graph of TensorFlow's has names, and the function "
                "does not use it",
            ],
        ),
        (
            "idle",
            [
                "no layers are recorded: TensorFlow runs nothing in the function, neither by itself nor in a session",
            ],
        ),
        ("fed_alone", ["no layers are recorded: no variable goes into what is computed from the inputs"]),
        (
            "increasing",
            [
                "no layers are recorded: which arrays depend on the inputs cannot be told, as it fails with their "
                "values in reverse order: what strangers:increasing returned failed: {folder}/strangers.py:59: "
                "ValueError: they must increase",
            ],
        ),
        (
            "counting",
            [
                "no layers are recorded: its session runs more than once in a step, and a run changes its variables: "
                "looking into one run would change the next",
            ],
        ),
        (
            "another",
            [
                "no layers are recorded: import of tensorflow.python.framework.op_callbacks halted; None in "
                "sys.modules",
            ],
        ),
        ("odd", ["no layers are recorded: 'NoneType' object is not iterable"]),
    ],
)
def test_a_function_that_cannot_be_looked_into_is_a_note(
    strangers: tuple[Path, Any], name: str, notes: list[str]
) -> None:
    recorded = Recorded(strangers[0], name)

    assert recorded.report["notes"] == [note.format(folder=strangers[0]) for note in notes]
    assert recorded.layers == []
    assert recorded.members.keys() >= {"0_0"}
    if name in {"another", "odd"}:
        np.testing.assert_array_equal(recorded.members["0_1"], Recorded(strangers[0], "every").members["0_1"])


# --- tflite ---

CONVERTED = """
    import sys, numpy as np, tensorflow as tf, tf_keras, keras
    folder, resnet = sys.argv[1:]
    made = {}
    image = np.load(folder + "/image.npy")
    model = tf_keras.models.load_model(resnet, compile=False)
    for layer in model.layers:
        made[f"resnet {layer.name}"] = tf_keras.Model(model.input, layer.output)(image, training=False).numpy()
    made["resnet logits"] = made["resnet flatten"] @ model.get_layer("dense").get_weights()[0]
    made["resnet logits"] += model.get_layer("dense").get_weights()[1]
    made["resnet kernel"] = model.get_layer("dense").get_weights()[0]

    keras.utils.set_random_seed(1)
    given = np.load(folder + "/x.npy")
    conv, dense = keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Dense(5)
    small = keras.Sequential([keras.Input((8, 8, 3), batch_size=2), conv, keras.layers.Flatten(), dense])
    made["small conv"] = conv(given).numpy()
    made["small kernel"], made["small matrix"] = conv.get_weights()[0], dense.get_weights()[0]
    def converted(name, converter):
        with open(f"{folder}/{name}.tflite", "wb") as file:
            file.write(converter.convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(small)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[given]]
    converted("int8", converter)
    converter = tf.lite.TFLiteConverter.from_keras_model(small)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    converted("float16", converter)

    class State(tf.Module):
        def __init__(self):
            self.kept, self.w = tf.Variable(tf.zeros((1, 4))), tf.constant(np.load(folder + "/w.npy"))
        @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
        def step(self, x):
            y = tf.matmul(x + self.kept, self.w)
            self.kept.assign(tf.tanh(y))
            return {"y": y}
    state = State()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([state.step.get_concrete_function()], state)
    converter.experimental_enable_resource_variables = True
    converted("state", converter)
    np.savez(folder + "/made.npz", **made)
"""


def interpreter_of(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    return Interpreter(str(path))


@pytest.fixture(scope="session")
def lites(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with what is recorded of .tflite files, and what Keras and numpy know of them."""
    folder = tmp_path_factory.mktemp("lites")
    np.save(folder / "image.npy", uniform(0, 1, 32, 32, 3) * 255)
    np.save(folder / "x.npy", uniform(1, 2, 8, 8, 3))
    np.save(folder / "w.npy", uniform(2, 4, 4))
    made = other_way(folder, CONVERTED, shared_data / f"{RESNET}.h5")
    given = {"resnet": {0: uniform(0, 1, 32, 32, 3) * 255}, "kws": {0: uniform(0, 1, 49, 10, 1)}}
    given |= {"int8": {0: uniform(1, 2, 8, 8, 3)}, "float16": {0: uniform(1, 2, 8, 8, 3)}}
    given["state"] = {0: uniform(0, 1, 4), 1: uniform(1, 1, 4)}
    paths = {name: folder / f"{name}.tflite" for name in ("int8", "float16", "state")}
    paths |= {"resnet": shared_data / f"{RESNET}.tflite", "kws": shared_data / KWS}
    requests: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        interpreter = interpreter_of(path)
        (first,), (last,) = interpreter.get_input_details(), interpreter.get_output_details()
        requests[name] = {"kind": "tflite", "path": str(path), "given": [given[name]], "steps": len(given[name])}
        requests[name] |= {"feed": {"x": first["name"]}, "fetch": {"y": last["name"]}}
    requests["resnet"]["layers"] = {"pool": "model/average_pooling2d/AvgPool", "end": "Identity"}
    requests["wrong"] = requests["resnet"] | {"layers": {"pool": "model/average_pooling2d"}}
    run(folder, requests)
    run(folder, {f"{name} unwatched": request for name, request in requests.items()}, before=UNWATCHED)
    another = """
        from ai_edge_litert.interpreter import Interpreter
        del Interpreter._get_ops_details
    """
    run(folder, {"another": requests["resnet"]}, before=another)
    return folder, made


tflite = needs("ai_edge_litert", "tensorflow", "tf_keras", "keras")


@tflite
@pytest.mark.parametrize("name", ["resnet", "kws", "int8", "float16", "state"])
def test_a_tflite_that_is_looked_into_computes_what_it_does_alone(
    lites: tuple[Path, dict[str, Any]], name: str
) -> None:
    watched, alone = Recorded(lites[0], name), Recorded(lites[0], f"{name} unwatched")

    assert "layers" not in alone.report
    for member, array in alone.members.items():
        np.testing.assert_array_equal(watched.members[member], array, strict=True)


@tflite
def test_layers_of_a_tflite_are_what_keras_gives_for_them(lites: tuple[Path, dict[str, Any]]) -> None:
    """Batch norm and ReLU are in the convolutions; the operation's name says where each ends."""
    recorded, made = Recorded(lites[0], "resnet"), lites[1]

    assert recorded.report["notes"] == []
    assert [layer["kind"] for layer in recorded.layers] == ["CONV_2D"] * 9 + ["FULLY_CONNECTED"]
    for layer in recorded.layers:
        name = "logits" if layer["kind"] == "FULLY_CONNECTED" else layer["operation"].split("/")[1]
        expected = made[f"resnet {name}"]
        assert layer["output"]["shape"] == list(expected.shape)
        values = expected.reshape(-1)[samples.positions(expected.size)]
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(recorded.members[layer["output"]["member"]], values, rtol=0, atol=atol)
    first, last = recorded.layers[0], recorded.layers[-1]
    recorded.check(first["input"], uniform(0, 1, 32, 32, 3) * 255)
    assert digests(last)[0] == samples.digest(made["resnet kernel"])
    assert last["variables"][0]["name"] == "model/dense/MatMul"
    assert [one["operation"] for one in last["after"]] == ["Identity"]
    named = recorded.report["named"]
    recorded.check(named["end"], recorded.members["0_0"])
    assert named["pool"]["shape"] == [1, 1, 1, 64]
    pooled = made["resnet flatten"].reshape(-1)
    np.testing.assert_allclose(recorded.members[named["pool"]["member"]], pooled, rtol=0, atol=1e-4 * pooled.max())


@tflite
def test_integers_of_a_quantised_tflite_are_told_as_what_they_stand_for(lites: tuple[Path, dict[str, Any]]) -> None:
    recorded, made = Recorded(lites[0], "int8"), lites[1]
    interpreter = interpreter_of(lites[0] / "int8.tflite")
    interpreter.allocate_tensors()
    (kernel,) = [one for one in interpreter.get_tensor_details() if list(one["shape"]) == [4, 3, 3, 3]]
    scales = kernel["quantization_parameters"]["scales"]
    stands_for = interpreter.get_tensor(kernel["index"]) * scales[:, None, None, None]
    conv, dense = recorded.layers

    assert recorded.report["notes"] == []
    assert (conv["kind"], dense["kind"]) == ("CONV_2D", "FULLY_CONNECTED")
    assert digests(conv)[0] == samples.digest(stands_for.astype(np.float32))
    np.testing.assert_allclose(stands_for.transpose(1, 2, 3, 0), made["small kernel"], rtol=0, atol=scales.max())
    values = made["small conv"].reshape(-1)[samples.positions(made["small conv"].size)]
    np.testing.assert_allclose(recorded.members[conv["output"]["member"]], values, rtol=0, atol=0.05)
    given = uniform(1, 2, 8, 8, 3).reshape(-1)[samples.positions(384)]
    np.testing.assert_allclose(recorded.members[conv["input"]["member"]], given, rtol=0, atol=0.01)
    assert dense["input"]["shape"] == [2, 144]


@tflite
def test_halves_of_a_tflite_count_as_the_constants_behind_what_widens_them(
    lites: tuple[Path, dict[str, Any]],
) -> None:
    recorded, made = Recorded(lites[0], "float16"), lites[1]
    conv, dense = recorded.layers

    assert recorded.report["notes"] == []
    assert digests(conv)[0] == samples.digest(made["small kernel"].astype(np.float16))
    assert digests(dense) == of(made["small matrix"].astype(np.float16))


@tflite
def test_the_state_of_a_tflite_is_that_of_the_last_step(lites: tuple[Path, dict[str, Any]]) -> None:
    """And no constant."""
    recorded, w = Recorded(lites[0], "state"), uniform(2, 4, 4)
    (layer,) = recorded.layers
    given = uniform(1, 1, 4) + np.tanh(uniform(0, 1, 4) @ w)

    assert recorded.report["notes"] == []
    assert digests(layer) == of(w)
    recorded.check(layer["input"], given)
    recorded.check(layer["output"], given @ w)


@tflite
def test_a_tensor_that_a_tflite_does_not_have_is_the_mappings_fault(lites: tuple[Path, dict[str, Any]]) -> None:
    report = json.loads((lites[0] / "wrong.json").read_text())

    assert (report["kind"], report["message"]) == (
        "names",
        "layers pool: the model has no tensor model/average_pooling2d",
    )
    assert "model/average_pooling2d/AvgPool" in report["candidates"]


@tflite
def test_an_interpreter_that_does_not_tell_its_operations_is_a_note(lites: tuple[Path, dict[str, Any]]) -> None:
    recorded = Recorded(lites[0], "another")
    told = "'Interpreter' object has no attribute '_get_ops_details'"

    assert recorded.report["notes"] == [
        f"no layers are recorded: {told}",
        f"what verify's layers name is not recorded: {told}",
    ]
    np.testing.assert_array_equal(recorded.members["0_0"], Recorded(lites[0], "resnet").members["0_0"])
