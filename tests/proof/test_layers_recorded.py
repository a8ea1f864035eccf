"""
The layers that are recorded: which operations of an original they are, in which order, and what goes through them.

What is recorded of a tensor is what TensorFlow gives for the tensor of this name, in a process that knows nothing of
t2t: a session's run of it, or a Keras model that ends there. Where nothing else can ask for a tensor (inside the
functions of a SavedModel) numpy computes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t.proof.originals import run as child
from t2t.proof.originals import samples
from t2t.proof.originals.original import MAX_LAYERS, Layer, Leaf, Original
from tests.proof.test_record import until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
QUIET = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
QUIET |= {"KERAS_BACKEND": "tensorflow"}

DTLN = "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model"
KWS = "mlperf-tiny/mlcommons+tiny/keyword_spotting/trained_models/kws_ref_model"
RESNET = "mlperf-tiny/mlcommons+tiny/image_classification/trained_models/pretrainedResnet.h5"
HALF = "tf-testdata/tensorflow+serving/saved_model_half_plus_two_cpu/00000123"
COUNTER = "tf-testdata/tensorflow+serving/saved_model_counter/00000123"
FSRCNN = "fsrcnn/Saafke+FSRCNN_Tensorflow"
GPT2 = "toy-transformers/CyberZHG+keras-gpt-2/toy_checkpoint/model.ckpt"
XLNET = "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_tune/xlnet_model.ckpt"
HAR = "v1-single-file/KennyCandy+HAR/_module123/HAR_v4_2/model.ckpt"


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not here")


class Recorded:
    """What the child reported of one request, and the samples that it stored."""

    def __init__(self, folder: Path, name: str) -> None:
        self.report: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        self.layers: list[dict[str, Any]] = self.report.get("layers", [])
        with np.load(folder / f"{name}.out.npz") as stored:
            self.members = dict(stored)

    def operations(self) -> list[str]:
        return [layer["operation"] for layer in self.layers]

    def variables(self) -> list[list[str]]:
        return [[variable["name"] for variable in layer["variables"]] for layer in self.layers]

    def layer(self, operation: str) -> dict[str, Any]:
        (found,) = [layer for layer in self.layers if layer["operation"] == operation]
        return found

    def near(self, operation: str) -> tuple[list[str], list[str]]:
        """The operations whose tensors lie before and after a layer."""
        layer = self.layer(operation)
        return [one["operation"] for one in layer["before"]], [one["operation"] for one in layer["after"]]

    def check(self, tensor: dict[str, Any] | None, expected: Any) -> None:
        """What is recorded of a tensor is this one."""
        assert tensor is not None
        assert tensor["shape"] == list(expected.shape)
        flat = np.asarray(expected, np.float32).reshape(-1)
        assert tensor["scale"] == pytest.approx(np.abs(flat).max(), rel=1e-5)
        values = self.members[tensor["member"]]
        assert values.dtype == np.float32
        atol = 1e-6 * max(1.0, float(np.abs(flat).max()))
        np.testing.assert_allclose(values, flat[samples.positions(flat.size)], rtol=1e-5, atol=atol)


def run(
    folder: Path, requests: dict[str, dict[str, Any]], environment: dict[str, str] | None = None, before: str = ""
) -> None:
    """
    Run requests, one after the other in one process: TensorFlow starts slowly.

    `given` are the arrays of each input by their step. The lines `before` come first.
    """
    for name, request in requests.items():
        given = dict(enumerate(request["given"]))
        arrays = {f"{position}_{step}": array for position, values in given.items() for step, array in values.items()}
        np.savez(folder / f"{name}.in.npz", **arrays)
        whole = {"checkpoint": "", "signature": "", "draws": 1, "steps": 1, "layers": {}, "allow_import": []}
        whole |= {key: value for key, value in request.items() if key != "given"}
        paths = {"inputs": f"{name}.in.npz", "outputs": f"{name}.out.npz", "result": f"{name}.json"}
        (folder / f"{name}.request").write_text(json.dumps(whole | paths))
    script = textwrap.dedent(before)
    script += "\nimport sys; from t2t.proof import original; [original.main(path) for path in sys.argv[1:]]"
    # The child would end with the other end of its standard input.
    stdin, held = os.pipe()
    ran = subprocess.run(
        [sys.executable, "-c", script, *(f"{name}.request" for name in requests)],
        cwd=folder,
        env=QUIET | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    os.close(stdin)
    os.close(held)
    assert ran.returncode == 0, ran.stderr[-3000:]


def other_way(folder: Path, script: str, *arguments: str | Path) -> dict[str, Any]:
    """What a script stores in `made.npz`, in a process without t2t."""
    (folder / "script.py").write_text(textwrap.dedent(script))
    command = [sys.executable, str(folder / "script.py"), str(folder), *map(str, arguments)]
    ran = subprocess.run(command, env=QUIET, timeout=300, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    with np.load(folder / "made.npz") as made:
        return dict(made)


def uniform(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def whole(seed: int, below: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.int32)


def test_nothing_inside_is_looked_at_where_the_request_does_not_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    own = Original(lambda given: given, lambda: None, {}, (), lambda given: looked.append("layers") or [])  # type: ignore[func-returns-value]
    monkeypatch.setitem(child.KINDS, "call", lambda request: contextlib.nullcontext(own))
    np.savez(tmp_path / "in.npz", **{"0_0": uniform(0, 3)})
    request: dict[str, Any] = {"kind": "call", "feed": {"x": "x"}, "fetch": {"x": "x"}, "draws": 1, "steps": 1}
    request |= {"inputs": str(tmp_path / "in.npz"), "outputs": str(tmp_path / "x.out.npz")}
    request |= {"result": str(tmp_path / "x.json")}
    child._run(request)
    assert Recorded(tmp_path, "x").report.keys() == {"versions", "notes"}
    assert looked == []
    child._run({**request, "layers": {}})
    assert Recorded(tmp_path, "x").report.keys() == {"versions", "notes", "layers", "named"}
    assert looked == ["layers"]
    assert sorted(os.listdir(tmp_path)) == ["in.npz", "x.json", "x.out.npz"]


# --- samples ---


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000, 10**6, 10**10])
def test_samples_are_all_of_a_little_and_lie_evenly_in_much(size: int) -> None:
    found = samples.positions(size)

    assert found.dtype == np.int64
    assert np.array_equal(found, np.unique(found))
    if size <= samples.COUNT:
        assert found.tolist() == list(range(size))
    else:
        assert 200 < len(found) <= samples.COUNT
        assert found[0] >= 0
        assert found[-1] < size
        assert np.diff(found).max() <= 3 * size / len(found)


def test_samples_are_where_they_were() -> None:
    """A recording keeps no positions: they may never move."""
    golden = (Decimal(5).sqrt() - 1) / 2
    for size in (257, 1000, 10**9):
        assert samples.positions(size).tolist() == sorted({int(k * golden % 1 * size) for k in range(1, 257)})


def test_a_digest_is_of_the_sorted_values() -> None:
    values = np.array([[3, -1.5], [0.25, 7]], np.float32)
    packed = np.array([-1.5, 0.25, 3, 7], "<f4").tobytes()

    assert samples.digest(values) == hashlib.sha256(b"4 " + packed).hexdigest()
    assert samples.digest(values.astype(np.float64)) == (
        hashlib.sha256(b"4 " + np.array([-1.5, 0.25, 3, 7], "<f8").tobytes()).hexdigest()
    )
    for same in (values.T, values[::-1], values.reshape(4), values.astype(np.float16), values.astype(">f4")):
        assert samples.digest(same) == samples.digest(values)
    for other in (values[:1], values + 0.25, values.astype(np.float64)):
        assert samples.digest(other) != samples.digest(values)


def test_a_digest_tells_no_zeros_and_no_nans_apart() -> None:
    """Sorting leaves them in any order."""
    nan = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    first, second = np.array([0.0, -0.0, nan[0], nan[1]]), np.array([nan[1], -0.0, 0.0, nan[0]])

    assert samples.digest(first) == samples.digest(second)
    assert samples.digest(np.zeros(0, np.float32)) == hashlib.sha256(b"0 ").hexdigest()
    assert samples.digest(np.float32(2)) == samples.digest(np.array([2]))


# --- the pass that records them ---


def inside(layers: Any = None, named: Any = None, wanted: Any = None) -> tuple[dict[str, Any], list[str]]:
    """What is reported of an original that has these functions."""
    original = Original(lambda given: given, lambda: None, {}, (), layers, named)
    return child._inside({"kind": "onnx", "steps": 1, "layers": wanted or {}}, original, lambda _: {})


def test_the_last_step_is_run_anew_from_the_start() -> None:
    told: list[str] = []
    original = Original(
        lambda given: told.append(f"run {given['step']}") or {},  # type: ignore[func-returns-value]
        lambda: told.append("restart"),
        {},
        layers=lambda given: told.append(f"layers {given['step']}") or [],  # type: ignore[func-returns-value]
        named=lambda given, wanted: dict.fromkeys(wanted, given["step"]),
    )
    request = {"kind": "call", "steps": 3, "layers": {"conv": "c"}}
    report, notes = child._inside(request, original, lambda step: {"step": np.array(step)})

    assert told == ["restart", "run 0", "run 1", "layers 2", "restart", "run 0", "run 1"]
    assert notes == []
    assert report["named"] == {"conv": {"shape": [], "scale": 2.0, "member": "named_0"}}
    np.testing.assert_array_equal(report["members"]["named_0"], np.array([2], np.float32), strict=True)


def test_a_tensor_is_recorded_by_its_samples_and_its_largest_finite_value() -> None:
    """float64 as it is, what is narrower as float32; what is no floating number, or not there, as nothing."""
    wide, narrow = np.arange(600.0).reshape(20, 30), np.array([[np.nan, -3, np.inf]], np.float16)
    leaf, name = Leaf("w", wide.astype(np.float32)), Leaf("b")
    layers = [
        Layer("one", "MatMul", (leaf, name), wide, narrow, (("start", narrow), ("ids", np.array([3])), ("x", wide))),
        Layer("two", "Gather", (leaf,), None, np.array([3]), after=(("end", np.array([1, 2], np.float32)),)),
        Layer("three", "Add", (), np.zeros((0, 2), np.float32), np.array(-2, np.float32)),
    ]
    report, notes = inside(lambda _: layers)
    weights = {"name": "w", "digest": samples.digest(leaf.values), "shape": [20, 30]}

    assert notes == []
    assert report["layers"] == [
        {
            "operation": "one",
            "kind": "MatMul",
            "variables": [weights, {"name": "b", "digest": "", "shape": []}],
            "input": {"shape": [20, 30], "scale": 599.0, "member": "layer_0_input"},
            "output": {"shape": [1, 3], "scale": 3.0, "member": "layer_0_output"},
            # What is recorded already is not recorded again.
            "before": [
                {"operation": "start", "shape": [1, 3], "scale": 3.0, "member": "layer_0_output"},
                {"operation": "x", "shape": [20, 30], "scale": 599.0, "member": "layer_0_input"},
            ],
            "after": [],
        },
        {
            "operation": "two",
            "kind": "Gather",
            "variables": [weights],
            "input": None,
            "output": None,
            "before": [],
            "after": [{"operation": "end", "shape": [2], "scale": 2.0, "member": "layer_1_after_0"}],
        },
        {
            "operation": "three",
            "kind": "Add",
            "variables": [],
            "input": {"shape": [0, 2], "scale": 0.0, "member": "layer_2_input"},
            "output": {"shape": [], "scale": 2.0, "member": "layer_2_output"},
            "before": [],
            "after": [],
        },
    ]
    expected = {
        "layer_0_input": wide.reshape(-1)[samples.positions(600)],
        "layer_0_output": np.array([np.nan, -3, np.inf], np.float32),
        "layer_1_after_0": np.array([1, 2], np.float32),
        "layer_2_input": np.zeros(0, np.float32),
        "layer_2_output": np.array([-2], np.float32),
    }
    assert list(report["members"]) == list(expected)
    for member, array in expected.items():
        np.testing.assert_array_equal(report["members"][member], array, strict=True)


def test_whatever_fails_inside_is_a_note() -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError("Unable to allocate 9 GiB\nfor an array")

    report, notes = inside(fails, fails, {"conv": "c"})

    assert report == {"layers": [], "named": {}, "members": {}}
    assert notes == [
        "no layers are recorded: Unable to allocate 9 GiB",
        "what verify's layers name is not recorded: Unable to allocate 9 GiB",
    ]
    assert inside()[1] == []
    assert inside(wanted={"conv": "c"})[1] == [
        "what verify's layers name is not recorded: nothing inside an original of kind onnx has a name"
    ]


#: An original that doubles what it is given; `layers` is the lines that its second run is.
DOUBLES = """
    import contextlib, os, resource, signal, sys, time
    import numpy as np
    from t2t.proof.originals import run
    from t2t.proof.originals.original import Layer, Original

    def layers(given):
        open("begun", "w").close()
        {layers}

    own = Original(lambda given: {{"y": given["x"] * 2}}, lambda: None, {{"lib": "1"}}, ("opened so",), layers)
    run.KINDS["call"] = lambda request: contextlib.nullcontext(own)
    sys.exit(run.main(sys.argv[1]))
"""


def doubled(folder: Path, layers: str, *, kill: bool = False) -> int:
    """The exit status of a process that records DOUBLES as `x`; with `kill` it is ended in its second run."""
    np.savez(folder / "x.in.npz", **{"0_0": np.float32([1, -2]), "0_1": np.float32([3, 4])})  # type: ignore[arg-type]
    request = {"kind": "call", "feed": {"x": "x"}, "fetch": {"y": "y"}, "draws": 2, "steps": 1, "layers": {}}
    request |= {"inputs": "x.in.npz", "outputs": "x.out.npz", "result": "x.json"}
    (folder / "request").write_text(json.dumps(request))
    command = [sys.executable, "-c", textwrap.dedent(DOUBLES.format(layers=layers)), "request"]
    with subprocess.Popen(
        command, cwd=folder, env=QUIET | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        if kill:
            assert until((folder / "begun").exists)
            child.kill()
        return child.wait(60)


@pytest.mark.parametrize(
    ("layers", "status"),
    [
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os._exit(3)", 3),
        ("raise SystemExit(4)", 4),
        ("time.sleep(600)", -signal.SIGKILL),
    ],
)
def test_outputs_are_whole_when_the_pass_inside_brings_the_process_down(
    tmp_path: Path, layers: str, status: int
) -> None:
    assert doubled(tmp_path, layers, kill=status == -signal.SIGKILL) == status
    found = Recorded(tmp_path, "x")

    assert found.report == {
        "versions": {"lib": "1", "numpy": np.__version__},
        "notes": ["opened so"],
        "inside": "begun",
    }
    assert found.members.keys() == {"0_0", "0_1"}
    np.testing.assert_array_equal(found.members["0_0"], np.array([2, -4], np.float32), strict=True)
    np.testing.assert_array_equal(found.members["0_1"], np.array([6, 8], np.float32), strict=True)


def test_layers_that_do_not_fit_on_the_disk_are_a_note(tmp_path: Path) -> None:
    """The kernel refuses files over 4 kB from then on, as it does without space."""
    limited = "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    many = "[Layer(str(i), 'Add', (), np.ones(200), np.ones(200)) for i in range(9)]"

    assert doubled(tmp_path, f"{limited}; return {many}") == 0
    found = Recorded(tmp_path, "x")
    versions = {"lib": "1", "numpy": np.__version__}
    notes = ["opened so", "no layers are recorded: File too large"]
    assert found.report == {"versions": versions, "notes": notes}
    assert found.members.keys() == {"0_0", "0_1"}


# --- a graph of every kind of thing ---

SMALL = """
    import sys, numpy as np, tensorflow as tf
    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    folder = sys.argv[1]
    random = np.random.default_rng(5)
    def made(*shape):
        return random.standard_normal(shape).astype(np.float32)
    def variable(name, *shape, **more):
        return v1.get_variable(name, initializer=made(*shape), **{"use_resource": False, **more})
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        ids = v1.placeholder(tf.int32, [None], name="ids")
        training = v1.placeholder(tf.bool, [], name="training")
        # One variable twice, one that is a resource, one in two parts, a number that is no variable.
        w, b = variable("w", 3, 3), variable("b", 3, use_resource=True)
        first = tf.nn.bias_add(tf.matmul(x, w, name="first"), b, name="biased")
        second = tf.matmul(tf.nn.relu(first, name="bent"), w, name="second")
        second = tf.multiply(second, 2.0, name="doubled")
        parts = v1.get_variable("parts", [4, 3], initializer=v1.random_uniform_initializer(-1, 1, seed=1),
                                partitioner=v1.fixed_size_partitioner(2), use_resource=False)
        joined = tf.matmul(second, tf.transpose(tf.convert_to_tensor(parts)), name="joined")
        sought = tf.gather(variable("table", 5, 4, use_resource=True), ids, name="sought")
        # A bias whose form depends on the batch.
        wide = tf.broadcast_to(variable("wide", 4), tf.shape(sought))
        sought = tf.add(sought, wide, name="widened")
        # Batch norm by hand, as Keras does it.
        mean, gamma, beta = variable("mean", 4), variable("gamma", 4), variable("beta", 4)
        spread = v1.get_variable("spread", initializer=np.abs(made(4)) + 1, use_resource=False)
        factor = tf.math.rsqrt(spread + 1e-3) * gamma
        y = tf.add(joined, sought, name="mixed")
        y = tf.add(tf.multiply(y, factor, name="scaled"), beta - mean * factor, name="shifted")
        # Batch norm with a flag.
        image = tf.reshape(y, [-1, 1, 1, 4], name="image")
        def normed(name, is_training):
            more = {} if is_training else {"mean": mean, "variance": spread}
            return v1.nn.fused_batch_norm(image, gamma, beta, is_training=is_training, name=name, **more)[0]
        chosen = v1.cond(training, lambda: normed("batch", True), lambda: normed("moving", False))
        y = tf.reshape(tf.identity(chosen, name="chosen"), [-1, 4])
        # A loop.
        inner = variable("inner", 4, 4)
        _, y = v1.while_loop(
            lambda i, _: i < 3, lambda i, z: (i + 1, tf.tanh(tf.matmul(z, inner, name="turn"))), (0, y))
        tf.identity(y, name="turned")
        # A function.
        deep = variable("deep", 4, 2, use_resource=True)
        @tf.function(autograph=False)
        def called(z):
            return tf.matmul(z, deep, name="inside")
        y = tf.identity(called(y), name="called")
        # States: a reference and a resource.
        kept = v1.get_variable("kept", initializer=np.zeros(2, np.float32), trainable=False, use_resource=False)
        total = v1.get_variable("total", initializer=np.zeros(2, np.float32), trainable=False, use_resource=True)
        before = tf.add(kept.read_value(), total.read_value(), name="before")
        with tf.control_dependencies([before]):
            new = [v1.assign(kept, tf.reduce_sum(y, 0)), v1.assign_add(total, tf.reduce_mean(y, 0))]
        y = y + tf.matmul(tf.reshape(before, [1, 2], name="row"), variable("look", 2, 2), name="remembered")
        unused = tf.matmul(x, variable("unused", 3, 3), name="only_waited_for")
        with tf.control_dependencies([*new, unused]):
            tf.identity(y, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.export_meta_graph(folder + "/g.meta")
        saver = v1.train.Saver()
        saver.save(session, folder + "/ckpt", write_meta_graph=False)
        made = {}
        inputs = np.load(folder + "/inputs.npz")
        names = "first biased bent second doubled joined sought widened mixed scaled shifted image chosen".split()
        names += ["turned", "called", "row", "remembered"]
        for flag in (False, True):
            saver.restore(session, folder + "/ckpt")
            for step in range(3):
                feed = {x: inputs[f"x{step}"], ids: inputs[f"ids{step}"], training: flag}
                fetched = session.run(["y:0"] + [name + ":0" for name in names], feed)
            made |= {f"{flag}_{name}": value for name, value in zip(names, fetched[1:])}
    with tf.Graph().as_default(), v1.Session() as session:
        # An evaluation graph: its Saver reads averages.
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=np.eye(3, dtype=np.float32), use_resource=False)
        tf.matmul(x, w, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver({"w/ExponentialMovingAverage": w}).save(session, folder + "/averaged")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        y, one = x, v1.get_variable("one", initializer=np.float32(1), use_resource=False)
        for number in range(2003):
            y = tf.add(y, one, name=f"step_{number}")
        tf.identity(y, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, folder + "/long")
    np.savez(folder + "/made.npz", **made)
"""

#: What each layer of SMALL is, in the order of execution: its type, its variables, and what TensorFlow calls its input.
SMALL_LAYERS: list[tuple[str, str, list[str], str | None]] = [
    ("first", "MatMul", ["w"], "x"),
    ("biased", "BiasAdd", ["b"], "first"),
    ("second", "MatMul", ["w"], "bent"),
    ("joined", "MatMul", ["parts"], "doubled"),
    ("sought", "ResourceGather", ["table"], None),
    ("widened", "AddV2", ["wide"], "sought"),
    ("scaled", "Mul", ["spread", "gamma"], "mixed"),
    ("shifted", "AddV2", ["beta", "mean", "spread", "gamma"], "scaled"),
    ("cond/moving", "FusedBatchNormV3", ["gamma", "beta", "mean", "spread"], "image"),
    ("while/turn", "MatMul", ["inner"], None),
    ("inside", "MatMul", ["deep"], "turned"),
    ("remembered", "MatMul", ["look"], "row"),
]

#: What SMALL calls the outputs that are inside something.
OUTSIDE = {"cond/moving": "chosen", "cond/batch": "chosen", "cond/Merge": "chosen", "inside": "called"}
OUTSIDE |= {"cond/moving/Switch": "image", "cond/batch/Switch": "image"}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with what is recorded of SMALL, and what TensorFlow computes there."""
    folder = tmp_path_factory.mktemp("small")
    xs, ids = {step: uniform(step, 2, 3) for step in range(3)}, {step: whole(step, 5, 2) for step in range(3)}
    np.savez(folder / "inputs.npz", **{f"x{s}": x for s, x in xs.items()}, **{f"ids{s}": i for s, i in ids.items()})
    made = other_way(folder, SMALL)
    feed = {"x": "x:0", "ids": "ids:0", "training": "training:0"}
    base = {"kind": "graph", "path": "g.meta", "checkpoint": "ckpt", "feed": feed, "fetch": {"y": "y:0"}, "steps": 3}
    own = {"a": "first:0", "b": "inside:0", "c": "cond/moving:0", "ids": "ids:0"}
    flags = {flag: {0: np.array(flag)} for flag in (False, True)}
    requests = {
        "moving": base | {"given": [xs, ids, flags[False]], "layers": own},
        "batch": base | {"given": [xs, ids, flags[True]]},
        "unknown": base | {"given": [xs, ids, flags[True]], "layers": {"conv": "frist:0"}},
        "inside a loop": base | {"given": [xs, ids, flags[True]], "layers": {"conv": "while/turn:0"}},
    }
    for name in ("averaged", "long"):
        requests[name] = base | {"path": f"{name}.meta", "checkpoint": name, "given": [xs], "feed": {"x": "x:0"}}
    run(folder, requests)
    return folder, made | {"x": xs[2], "ids": ids[2]}


@needs("tensorflow")
@pytest.mark.parametrize("flag", [False, True])
def test_layers_are_what_variables_go_into_as_tensorflow_computes_it(
    small: tuple[Path, dict[str, Any]], flag: bool
) -> None:
    """Of the third step, with what the first two left behind; in the branch that the flag takes."""
    folder, made = small
    recorded = Recorded(folder, "batch" if flag else "moving")
    expected = [
        ("cond/batch", kind, ["gamma", "beta"], given) if flag and operation == "cond/moving" else row
        for row in SMALL_LAYERS
        for operation, kind, _, given in [row]
    ]

    assert recorded.report["notes"] == []
    assert [(layer["operation"], layer["kind"]) for layer in recorded.layers] == [row[:2] for row in expected]
    assert recorded.variables() == [row[2] for row in expected]
    for layer, (operation, _, _, given) in zip(recorded.layers, expected, strict=True):
        assert all(variable["digest"] == "" for variable in layer["variables"])
        if operation == "while/turn":
            assert (layer["input"], layer["output"]) == (None, None)
            continue
        recorded.check(layer["output"], made[f"{flag}_{OUTSIDE.get(operation, operation)}"])
        if given is None:
            assert layer["input"] is None
        else:
            recorded.check(layer["input"], made.get(given, made.get(f"{flag}_{given}")))


#: Of some layers of SMALL: the operations whose tensors lie before and after, as TensorFlow calls them outside.
SMALL_NEAR = {
    "first": (["x"], []),
    "biased": (["first"], ["bent"]),
    "second": (["bent", "biased"], ["doubled"]),
    "joined": (["doubled", "second"], ["mixed"]),
    "sought": ([], []),
    "scaled": (["mixed"], []),
    "shifted": (["scaled"], ["image", "cond/{branch}/Switch"]),
    "cond/{branch}": (["cond/{branch}/Switch", "image", "shifted"], ["cond/Merge", "chosen", "Reshape"]),
    # Nothing of a loop can be fetched, and what lies around it is too far.
    "while/turn": ([], []),
    "remembered": (["row", "before"], ["add_1", "y"]),
}


@needs("tensorflow")
@pytest.mark.parametrize("flag", [False, True])
def test_around_a_layer_are_tensors_that_everything_passes(small: tuple[Path, dict[str, Any]], flag: bool) -> None:
    """The branch that the flag takes is one of them, the other one is nowhere."""
    folder, made = small
    branch = "batch" if flag else "moving"
    recorded = Recorded(folder, branch)

    for name, sides in SMALL_NEAR.items():
        expected = tuple([one.format(branch=branch) for one in side] for side in sides)
        assert recorded.near(name.format(branch=branch)) == expected
    for layer in recorded.layers:
        for tensor in (*layer["before"], *layer["after"]):
            name = tensor["operation"]
            if f"{flag}_{OUTSIDE.get(name, name)}" in made or name == "x":
                recorded.check(tensor, made["x"] if name == "x" else made[f"{flag}_{OUTSIDE.get(name, name)}"])


@needs("tensorflow")
def test_tensors_that_verify_names_are_recorded(small: tuple[Path, dict[str, Any]]) -> None:
    """By the graph's name, by a layer's where it is inside something; integers, too."""
    folder, made = small
    recorded = Recorded(folder, "moving")
    named = recorded.report["named"]

    assert list(named) == ["a", "b", "c", "ids"]
    recorded.check(named["a"], made["False_first"])
    recorded.check(named["b"], made["False_called"])
    recorded.check(named["c"], made["False_chosen"])
    recorded.check(named["ids"], made["ids"])


@needs("tensorflow")
def test_a_tensor_that_verify_names_and_the_graph_does_not_have_is_the_mappings_fault(
    small: tuple[Path, dict[str, Any]],
) -> None:
    report = json.loads((small[0] / "unknown.json").read_text())

    assert (report["kind"], report["message"], report["name"]) == (
        "names",
        "layers conv: the graph has no tensor frist:0",
        "frist:0",
    )
    assert "first:0" in report["candidates"]


@needs("tensorflow")
def test_a_tensor_that_cannot_be_fetched_is_told_and_the_rest_recorded(small: tuple[Path, dict[str, Any]]) -> None:
    recorded = Recorded(small[0], "inside a loop")

    assert recorded.report["notes"] == [
        "what verify's layers name is not recorded: while/turn:0 cannot be fetched; "
        "nothing inside a loop, or in the branch of a condition that is not taken, can be"
    ]
    assert len(recorded.layers) == len(SMALL_LAYERS)
    assert recorded.members["0_2"].shape == (2, 2)


@needs("tensorflow")
def test_a_variable_goes_by_the_name_that_the_graphs_saver_reads(small: tuple[Path, dict[str, Any]]) -> None:
    recorded = Recorded(small[0], "averaged")

    assert recorded.variables() == [["w/ExponentialMovingAverage"]]


@needs("tensorflow")
def test_no_more_than_so_many_layers_are_recorded(small: tuple[Path, dict[str, Any]]) -> None:
    recorded = Recorded(small[0], "long")

    assert recorded.operations() == [f"step_{number}" for number in range(MAX_LAYERS)]


# --- real graphs ---

REAL = """
    import sys, json, numpy as np, tensorflow as tf
    v1 = tf.compat.v1
    folder, asked = sys.argv[1], json.load(open(sys.argv[2]))
    made = {}
    for name, (path, feed, operations, near) in asked.items():
        with tf.Graph().as_default() as graph, v1.Session() as session:
            v1.train.import_meta_graph(path + ".meta", clear_devices=True).restore(session, path)
            given = np.load(f"{folder}/{name}.in.npz")
            feed = {tensor: given[f"{position}_0"] for position, tensor in enumerate(feed)}
            for operation, index in operations:
                into = graph.get_operation_by_name(operation).inputs[index]
                values = session.run([into, operation + ":0"], feed)
                made[f"{name} {operation} in"], made[f"{name} {operation}"] = values
            for operation, value in session.run({one: one + ":0" for one in near}, feed).items():
                made[f"{name} near {operation}"] = value
    np.savez(folder + "/made.npz", **made)
"""

#: The graph whose operations of this kind have the variable in front.
SECOND = ("fsrcnn", "Mul")

MADRY = ["Conv2D", "add", "Conv2D_1", "add_1", "MatMul", "add_2", "MatMul_1", "add_3"]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with what is recorded of real graphs, and what a session gives for the tensors that they name."""
    folder = tmp_path_factory.mktemp("real")
    graphs: dict[str, tuple[str, dict[str, Any], str]] = {
        "madry": ("madry/checkpoint-700", {"Placeholder:0": uniform(0, 4, 784)}, "add_3:0"),
        "fsrcnn": (
            f"{FSRCNN}/CKPT_dir/x2/fsrcnn_ckpt",
            {"IteratorGetNext:0": uniform(0, 1, 9, 11, 1)},
            "NHWC_output:0",
        ),
        "gpt2": (GPT2, {"Placeholder:0": whole(0, 356, 16, 20)}, "model/Reshape_1:0"),
        "xlnet": (
            XLNET,
            {
                "Placeholder:0": whole(0, 31, 5, 2),
                "Placeholder_1:0": whole(1, 2, 5, 2),
                "Placeholder_2:0": whole(2, 2, 5, 2).astype(np.float32),
                "Placeholder_3:0": uniform(3, 5, 2, 6),
                "Placeholder_4:0": uniform(4, 5, 2, 6),
                "Placeholder_5:0": whole(5, 2, 5, 5, 2).astype(np.float32),
            },
            "model/transformer/dropout_2/Identity:0",
        ),
        "har": (HAR, {"Placeholder:0": uniform(0, 2, 32, 36)}, "add_6:0"),
    }
    requests: dict[str, dict[str, Any]] = {
        name: {
            "kind": "graph",
            "path": str(shared_data / f"{path}.meta"),
            "checkpoint": str(shared_data / path),
            "feed": {f"x{i}": tensor for i, tensor in enumerate(feed)},
            "fetch": {"y": fetched},
            "given": [{0: array} for array in feed.values()],
        }
        for name, (path, feed, fetched) in graphs.items()
    }
    requests["frozen"] = requests["fsrcnn"] | {
        "kind": "frozen",
        "path": str(shared_data / FSRCNN / "models/FSRCNN_x2.pb"),
    }
    run(folder, requests)
    asked = {}
    for name, (path, feed, _) in graphs.items():
        found = Recorded(folder, name).layers
        # What these two subtract from and multiply is their second input.
        operations = [
            (layer["operation"], int(layer["operation"].endswith("batchnorm/sub") or (name, layer["kind"]) == SECOND))
            for layer in found
        ]
        near = {one["operation"] for layer in found for side in ("before", "after") for one in layer[side]}
        asked[name] = (str(shared_data / path), list(feed), operations, sorted(near))
    (folder / "asked.json").write_text(json.dumps(asked))
    return folder, other_way(folder, REAL, folder / "asked.json")


@needs("tensorflow")
@pytest.mark.parametrize(("name", "layers"), [("madry", 8), ("fsrcnn", 23), ("gpt2", 41), ("xlnet", 35), ("har", 46)])
def test_layers_of_real_graphs_are_what_a_session_gives(
    real: tuple[Path, dict[str, Any]], name: str, layers: int
) -> None:
    recorded = Recorded(real[0], name)
    assert recorded.report["notes"] == []
    assert len(recorded.layers) == layers
    for layer in recorded.layers:
        recorded.check(layer["output"], real[1][f"{name} {layer['operation']}"])
        given = real[1][f"{name} {layer['operation']} in"]
        if layer["kind"] == "GatherV2":
            assert layer["input"] is None
        else:
            recorded.check(layer["input"], given)
        for tensor in (*layer["before"], *layer["after"]):
            recorded.check(tensor, real[1][f"{name} near {tensor['operation']}"])


@needs("tensorflow")
def test_around_a_real_graphs_layers_are_what_wholes_take_and_give(real: tuple[Path, dict[str, Any]]) -> None:
    """PReLU of five operations and a layer norm of more: what goes into each, and what comes out."""
    fsrcnn, gpt2 = (Recorded(real[0], name) for name in ("fsrcnn", "gpt2"))
    x, prelu = (real[1][f"fsrcnn near {name}"] for name in ("add", "add_1"))
    given, normed = (real[1][f"gpt2 near {name}"] for name in ("model/add_1", "model/h0/ln_1/mul"))

    assert fsrcnn.near("conv1") == (["IteratorGetNext"], [])
    assert fsrcnn.near("mul") == (["sub", "add"], ["mul_1", "add_1"])
    assert fsrcnn.near("conv8") == (["add_13", "add_12"], ["DepthToSpace"])
    np.testing.assert_allclose(prelu[x >= 0], x[x >= 0], rtol=1e-6)
    for channel in range(x.shape[-1]):
        slopes = (prelu / x)[..., channel][x[..., channel] < -1e-3]
        assert np.ptp(slopes) < 1e-3
    assert gpt2.near("model/h0/ln_1/mul_1") == (["model/h0/ln_1/mul", "model/add_1"], [])
    assert gpt2.near("model/h0/ln_1/add_1") == (["model/h0/ln_1/mul_1"], ["model/h0/attn/c_attn/Reshape"])
    spread = (given - given.mean(-1, keepdims=True)) / np.sqrt(given.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normed, spread, rtol=1e-3, atol=1e-5)
    # Queries, keys and values are three tensors of one operation: none is what everything passes.
    assert gpt2.near("model/h0/attn/c_attn/add")[1] == [
        "model/h0/attn/c_attn/Reshape_2", "model/h0/attn/MatMul_1", "model/h0/attn/transpose_3",
    ]  # fmt: skip


@needs("tensorflow")
def test_a_real_graphs_layers_come_as_they_are_computed(real: tuple[Path, dict[str, Any]]) -> None:
    """Each variable of the checkpoint that the outputs depend on, and an embedding that is the head, too."""
    madry, gpt2, har = (Recorded(real[0], name) for name in ("madry", "gpt2", "har"))
    block = [["ln_1/g"], ["ln_1/b"], ["attn/c_attn/w"], ["attn/c_attn/b"], ["attn/c_proj/w"], ["attn/c_proj/b"]]
    block += [["ln_2/g"], ["ln_2/b"], ["mlp/c_fc/w"], ["mlp/c_fc/b"], ["mlp/c_proj/w"], ["mlp/c_proj/b"]]
    blocks = [[f"model/h{i}/{name}" for name in names] for i in range(3) for names in block]

    assert madry.operations() == MADRY
    assert madry.variables() == [["Variable"], *([f"Variable_{number}"] for number in range(1, 8))]
    assert [layer["kind"] for layer in madry.layers[:2]] == ["Conv2D", "Add"]
    assert gpt2.variables() == [
        ["model/wte"], ["model/wpe"], *blocks, ["model/ln_f/g"], ["model/ln_f/b"], ["model/wte"],
    ]  # fmt: skip
    cell = "RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear/Matrix"
    assert har.variables().count([cell]) == 8


@needs("tensorflow")
def test_constants_of_a_frozen_graph_are_its_variables(real: tuple[Path, dict[str, Any]]) -> None:
    """By their values, those of one element among them; a number alone is none."""
    graph, frozen = (Recorded(real[0], name) for name in ("fsrcnn", "frozen"))
    stored = other_way(
        real[0],
        """
        import sys, numpy as np, tensorflow as tf
        reader = tf.train.load_checkpoint(sys.argv[2])
        names = [name for name in reader.get_variable_to_shape_map() if "/" not in name]
        np.savez(sys.argv[1] + "/made.npz", **{name: reader.get_tensor(name) for name in names})
        """,
        json.loads((real[0] / "asked.json").read_text())["fsrcnn"][0],
    )

    assert frozen.operations() == graph.operations()
    for layer, one in zip(frozen.layers, graph.layers, strict=True):
        (variable,), (named,) = layer["variables"], one["variables"]
        assert variable["digest"] == samples.digest(stored[named["name"]])
        assert variable["shape"] == list(stored[named["name"]].shape)
        assert layer["output"]["shape"] == one["output"]["shape"]
        np.testing.assert_allclose(
            frozen.members[layer["output"]["member"]], graph.members[one["output"]["member"]], rtol=1e-4, atol=1e-5
        )


# --- SavedModels and Keras models ---

MODELS = """
    import sys, numpy as np, tensorflow as tf, tf_keras, keras
    folder, dtln, kws, resnet = sys.argv[1:]
    made = {}
    for name, path in (("dtln", dtln), ("kws", kws)):
        loaded = tf.saved_model.load(path)
        function = loaded.signatures["serving_default"]
        made |= {f"{name} {variable.name[:-2]}": variable.numpy() for variable in function.variables}
    image = np.load(folder + "/image.npy")
    model = tf_keras.models.load_model(resnet, compile=False)
    for layer in model.layers:
        if layer.weights:
            ends = tf_keras.Model(model.input, [layer.input, layer.output])
            made[f"resnet {layer.name} in"], made[f"resnet {layer.name}"] = map(np.asarray, ends(image, training=False))

    keras.utils.set_random_seed(3)
    number = keras.Input((4,), batch_size=2, name="number")
    token = keras.Input((), batch_size=2, dtype="int32", name="token")
    embedded = keras.layers.Embedding(5, 3, name="embedding")(token)
    together = keras.layers.Reshape((1, 7), name="together")(keras.layers.Concatenate()([number, embedded]))
    state = keras.layers.LSTM(6, stateful=True, name="state")(together)
    norm = keras.layers.BatchNormalization(
        name="norm", moving_mean_initializer="random_normal", gamma_initializer="random_normal")(state)
    same = keras.layers.Dense(6, name="same")
    twice = same(same(keras.layers.Dropout(0.5)(norm)))
    model = keras.Model([number, token], {"y": keras.layers.Softmax(name="y")(twice)})
    model.save(folder + "/model.keras")
    given = np.load(folder + "/tokens.npz")
    for step in range(3):
        ends = [together, state, norm, twice, embedded]
        arguments = [given[f"number{step}"], given[f"token{step}"]]
        values = keras.Model([number, token], ends)(arguments, training=False)
    names = ["together", "state", "norm", "twice", "embedded"]
    made |= {f"keras {name}": np.asarray(value) for name, value in zip(names, values)}
    made |= {f"keras {variable.path}": variable.numpy() for variable in model.variables}
    np.savez(folder + "/made.npz", **made)
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with what is recorded of SavedModels and Keras models, and what their libraries know of them."""
    folder = tmp_path_factory.mktemp("models")
    image, mfcc = uniform(0, 3, 32, 32, 3), uniform(1, 3, 49, 10, 1)
    frames = {step: uniform(step, 1, 512) for step in range(3)}
    numbers, tokens = {step: uniform(step, 2, 4) for step in range(3)}, {step: whole(step, 5, 2) for step in range(3)}
    np.save(folder / "image.npy", image)
    given = {f"number{step}": array for step, array in numbers.items()}
    given |= {f"token{step}": array for step, array in tokens.items()}
    np.savez(folder / "tokens.npz", **given)
    made = other_way(folder, MODELS, shared_data / DTLN, shared_data / KWS, shared_data / RESNET)
    kws: dict[str, Any] = {"kind": "saved_model", "path": str(shared_data / KWS), "feed": {"x": "input_1"}}
    kws |= {"fetch": {"y": "dense"}, "given": [{0: mfcc}]}
    dtln: dict[str, Any] = {"kind": "saved_model", "path": str(shared_data / DTLN), "feed": {"x": "input_1"}}
    dtln |= {"fetch": {"y": "conv1d_1"}, "given": [frames], "steps": 3, "layers": {"d": "model/dense/BiasAdd:0"}}
    resnet: dict[str, Any] = {"kind": "keras", "path": str(shared_data / RESNET), "feed": {"x": "input_1"}}
    resnet |= {"fetch": {"y": "y"}, "given": [{0: image}], "layers": {"layer1.conv": "conv2d_1"}}
    own: dict[str, Any] = {"kind": "keras", "path": "model.keras", "feed": {"x": "number", "t": "token"}}
    own |= {"fetch": {"y": "y"}, "given": [numbers, tokens], "steps": 3, "layers": {"bn": "norm", "lstm": "state"}}
    unknown = own | {"layers": {"bn": "nrom"}}
    half = kws | {"path": str(shared_data / HALF), "feed": {"x": "x"}, "fetch": {"y": "y"}, "layers": {"h": "Mul:0"}}
    half |= {"given": [{0: uniform(0, 3, 1)}]}
    counter = half | {"path": str(shared_data / COUNTER), "signature": "incr_counter_by", "feed": {"x": "delta"}}
    counter |= {"fetch": {"y": "output"}, "layers": {}, "given": [{0: np.float32(2)}]}
    run(folder, {"dtln": dtln, "kws": kws, "resnet": resnet, "keras": own, "unknown": unknown})
    run(folder, {"half": half, "counter": counter})
    # With tf_keras TensorFlow knows the optimizer that lies in it.
    (folder / "hidden").mkdir()
    (folder / "hidden" / "tf_keras.py").write_text("raise ImportError('hidden')")
    run(folder, {"kws in a session": kws}, {"PYTHONPATH": f"{folder}/hidden{os.pathsep}{ROOT}"})
    another = """
        import sys, tensorflow.python.grappler as grappler
        from tensorflow.python.grappler import tf_optimizer
        del grappler.tf_optimizer
        sys.modules["tensorflow.python.grappler.tf_optimizer"] = None
    """
    run(folder, {"another tensorflow": kws}, before=another)
    return folder, made


def check_variables(recorded: Recorded, values: dict[str, Any]) -> None:
    """Each variable is described by its full name and its values."""
    for variable in (variable for layer in recorded.layers for variable in layer["variables"]):
        assert variable["shape"] == list(values[variable["name"]].shape)
        assert variable["digest"] == samples.digest(values[variable["name"]])


@needs("tensorflow", "tf_keras", "keras")
def test_layers_of_a_saved_model_are_those_inside_its_functions(models: tuple[Path, dict[str, Any]]) -> None:
    """Of the third frame of a stream; what is elementwise, and products of what is recorded whole, numpy computes."""
    recorded = Recorded(models[0], "dtln")
    values = {name.removeprefix("dtln "): array for name, array in models[1].items() if name.startswith("dtln ")}
    half = ["Mul", "AddV2", "While", "While", "MatMul", "BiasAdd"]

    assert recorded.report["notes"] == []
    assert [layer["kind"] for layer in recorded.layers] == [*half, "Conv2D", *half, "Conv2D"]
    cells = [f"lstm_{i}/lstm_cell_{i}".replace("_0", "") for i in range(4)]
    lstms = [[f"{cell}/{name}" for name in ("kernel", "recurrent_kernel", "bias")] for cell in cells]
    norms = ["instant_layer_normalization", "instant_layer_normalization_1"]
    assert recorded.variables() == [
        [f"{norms[0]}/gamma"], [f"{norms[0]}/beta"], *lstms[:2], ["dense/kernel"], ["dense/bias"], ["conv1d/kernel"],
        [f"{norms[1]}/gamma"], [f"{norms[1]}/beta"], *lstms[2:], ["dense_1/kernel"], ["dense_1/bias"],
        ["conv1d_1/kernel"],
    ]  # fmt: skip
    check_variables(recorded, values)
    for layer in recorded.layers:
        if layer["kind"] == "While":
            continue
        given, computed = (recorded.members[layer[side]["member"]] for side in ("input", "output"))
        weights = values[layer["variables"][0]["name"]]
        size = layer["output"]["shape"][-1]
        if layer["kind"] == "Mul":
            expected = given * weights[samples.positions(size)]
        elif layer["kind"] in {"AddV2", "BiasAdd"}:
            expected = given + weights[samples.positions(size)]
        elif len(given) == layer["input"]["shape"][-1]:
            expected = (given @ weights.reshape(-1, size))[samples.positions(size)]
        else:
            continue
        np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)
    # What goes into the first loop was normalised before, and what comes out of the last goes into a product.
    norm, loop, _, product = recorded.layers[8], recorded.layers[9], recorded.layers[10], recorded.layers[11]
    assert (loop["kind"], loop["input"]["shape"], loop["output"]["shape"]) == ("While", [1, 1, 256], [1, 1, 128])
    same = recorded.members[norm["output"]["member"]]
    np.testing.assert_array_equal(recorded.members[loop["input"]["member"]], same)
    loop = recorded.layers[10]
    same = recorded.members[product["input"]["member"]]
    np.testing.assert_array_equal(recorded.members[loop["output"]["member"]], same)
    last = recorded.members[recorded.layers[-1]["output"]["member"]]
    np.testing.assert_allclose(last, recorded.members["0_2"].reshape(-1)[samples.positions(512)], rtol=0, atol=1e-6)
    dense = recorded.layers[5]
    assert dense["operation"] == "model/dense/BiasAdd"
    named = recorded.report["named"]["d"]
    assert named["shape"] == dense["output"]["shape"]
    same = recorded.members[dense["output"]["member"]]
    np.testing.assert_allclose(recorded.members[named["member"]], same, rtol=1e-5, atol=1e-5)


@needs("tensorflow", "tf_keras", "keras")
def test_a_saved_model_has_the_same_layers_in_a_session(models: tuple[Path, dict[str, Any]]) -> None:
    eager, session = Recorded(models[0], "kws"), Recorded(models[0], "kws in a session")

    assert len(eager.layers) == 29
    # What lies between the two is not the same: a function that is called is entered by operations of its own.
    values = {"input": 0, "output": 0, "before": 0, "after": 0}
    assert [layer | values for layer in session.layers] == [layer | values for layer in eager.layers]
    check_variables(eager, {name.removeprefix("kws "): array for name, array in models[1].items()})
    assert eager.variables()[2] == [
        f"batch_normalization/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")
    ]
    for one, other in zip(eager.layers, session.layers, strict=True):
        for side in ("input", "output"):
            assert one[side]["shape"] == other[side]["shape"]
            np.testing.assert_allclose(
                eager.members[one[side]["member"]], session.members[other[side]["member"]], rtol=1e-4, atol=1e-5
            )
    logits = eager.members[eager.layers[-1]["output"]["member"]].reshape(3, 12)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(eager.members["0_0"], softmax, rtol=1e-5, atol=1e-6)


@needs("tensorflow", "tf_keras", "keras")
def test_layers_of_a_saved_model_of_tensorflow_1_are_those_of_its_graph(models: tuple[Path, dict[str, Any]]) -> None:
    """TensorFlow 2 loads it; its variables are operations of the graph, half and two."""
    recorded = Recorded(models[0], "half")
    x = uniform(0, 3, 1)
    product, total = recorded.layers

    assert recorded.report["notes"] == []
    assert (recorded.operations(), recorded.variables()) == (["Mul", "Add"], [["a"], ["b"]])
    assert product["variables"][0]["digest"] == samples.digest(np.float32(0.5))
    assert total["variables"][0] == {"name": "b", "digest": samples.digest(np.float32(2)), "shape": []}
    recorded.check(product["input"], x)
    recorded.check(total["input"], x / 2)
    recorded.check(total["output"], x / 2 + 2)
    recorded.check(recorded.report["named"]["h"], x / 2)


@needs("tensorflow", "tf_keras", "keras")
def test_a_model_without_layers_is_a_note(models: tuple[Path, dict[str, Any]]) -> None:
    """A counter is a state, no weight."""
    recorded = Recorded(models[0], "counter")

    assert recorded.report["notes"][1:] == [
        "no layers are recorded: no variable goes into what is computed from the inputs"
    ]
    assert recorded.layers == []
    assert recorded.members["0_0"] == 2


@needs("tensorflow", "tf_keras", "keras")
def test_layers_of_a_keras_2_model_are_what_a_model_gives_that_ends_there(models: tuple[Path, dict[str, Any]]) -> None:
    recorded = Recorded(models[0], "resnet")
    kinds = [layer["kind"] for layer in recorded.layers]

    assert recorded.report["notes"] == []
    assert (kinds.count("Conv2D"), kinds.count("FusedBatchNormV3"), kinds.count("MatMul"), len(kinds)) == (9, 7, 1, 27)
    for layer in recorded.layers:
        _, name, operation = layer["operation"].split("/")
        assert {variable["name"].split("/")[0] for variable in layer["variables"]} == {name}
        if operation in {"Conv2D", "MatMul", "FusedBatchNormV3"}:
            recorded.check(layer["input"], models[1][f"resnet {name} in"])
        if operation == "FusedBatchNormV3" or (operation == "BiasAdd" and name != "dense"):
            recorded.check(layer["output"], models[1][f"resnet {name}"])
    recorded.check(recorded.report["named"]["layer1.conv"], models[1]["resnet conv2d_1"])


@needs("tensorflow", "tf_keras", "keras")
def test_layers_of_a_keras_3_model_with_state_are_those_of_the_last_step(models: tuple[Path, dict[str, Any]]) -> None:
    """An embedding, a loop, batch norm in single operations, one layer that is called twice; no dropout."""
    recorded = Recorded(models[0], "keras")
    made = {name.removeprefix("keras "): array for name, array in models[1].items() if name.startswith("keras ")}
    operations = [operation.partition("/")[2] for operation in recorded.operations()]
    same = [["same/kernel"], ["same/bias"]] * 2

    assert recorded.report["notes"] == []
    assert [layer["kind"] for layer in recorded.layers] == [
        "GatherV2", "While", "Mul", "AddV2", "MatMul", "BiasAdd", "MatMul", "BiasAdd",
    ]  # fmt: skip
    assert operations[1] == "state_1/while"
    assert recorded.variables() == [
        ["embedding/embeddings"],
        ["state/lstm_cell/kernel", "state/lstm_cell/recurrent_kernel", "state/lstm_cell/bias"],
        ["norm/moving_variance", "norm/gamma"],
        ["norm/beta", "norm/moving_mean", "norm/moving_variance", "norm/gamma"],
        *same,
    ]
    check_variables(recorded, made)
    gather, loop, scale, shift, product, bias, again, last = recorded.layers
    assert gather["input"] is None
    recorded.check(gather["output"], made["embedded"])
    recorded.check(loop["input"], made["together"])
    recorded.check(loop["output"], made["state"])
    recorded.check(scale["input"], made["state"])
    recorded.check(shift["output"], made["norm"])
    recorded.check(product["input"], made["norm"])
    recorded.check(bias["output"], made["norm"] @ made["same/kernel"] + made["same/bias"])
    recorded.check(again["input"], made["norm"] @ made["same/kernel"] + made["same/bias"])
    recorded.check(last["output"], made["twice"])
    recorded.check(recorded.report["named"]["bn"], made["norm"])
    recorded.check(recorded.report["named"]["lstm"], made["state"])


@needs("tensorflow", "tf_keras", "keras")
def test_a_layer_that_verify_names_and_the_model_does_not_have_is_the_mappings_fault(
    models: tuple[Path, dict[str, Any]],
) -> None:
    report = json.loads((models[0] / "unknown.json").read_text())

    assert (report["kind"], report["message"]) == ("names", "layers bn: the model has no layer nrom")
    assert "norm" in report["candidates"]


@needs("tensorflow", "tf_keras", "keras")
def test_what_another_tensorflow_lacks_is_a_note_and_outputs_are_recorded(models: tuple[Path, dict[str, Any]]) -> None:
    """What replaces calls of functions is no public part of TensorFlow."""
    recorded = Recorded(models[0], "another tensorflow")

    assert recorded.report["notes"] == [
        "no layers are recorded: import of tensorflow.python.grappler.tf_optimizer halted; None in sys.modules"
    ]
    assert recorded.layers == []
    np.testing.assert_array_equal(recorded.members["0_0"], Recorded(models[0], "kws").members["0_0"])


# --- onnx ---


@needs("onnxruntime", "torch")
def test_layers_of_an_onnx_model_are_its_nodes(tmp_path: Path, shared_data: Path) -> None:
    """The authors' own weights in torch say what goes in, and numpy what batch norm makes of it."""
    import torch

    place = shared_data / "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/models"
    request: dict[str, Any] = {
        "kind": "onnx",
        "path": str(place / "onnx/version-RFB-320_without_postprocessing.onnx"),
        "feed": {"x": "input"},
        "fetch": {"scores": "scores", "boxes": "boxes"},
        "given": [{0: uniform(0, 1, 3, 240, 320)}],
    }
    requests = {
        "rfb": request | {"layers": {"end": "boxes", "first": "245"}},
        "scores": request | {"fetch": {"scores": "scores"}},
        "wrong": request | {"layers": {"a": "b"}},
    }
    run(tmp_path, requests)
    recorded, scores = Recorded(tmp_path, "rfb"), Recorded(tmp_path, "scores")
    weights = torch.load(place / "pretrained/version-RFB-320.pth", map_location="cpu", weights_only=True)
    kinds = [layer["kind"] for layer in recorded.layers]

    assert recorded.report["notes"] == []
    check_variables(recorded, {name: tensor.numpy() for name, tensor in weights.items()})
    used = {variable["name"] for layer in recorded.layers for variable in layer["variables"]}
    assert used == {name for name in weights if not name.endswith("num_batches_tracked")}
    kernels, means = sum(one.ndim == 4 for one in weights.values()), sum("running_mean" in name for name in weights)
    assert (kinds.count("Conv"), kinds.count("BatchNormalization"), len(kinds)) == (kernels, means, 87)
    assert recorded.variables()[0] == ["base_net.0.0.weight"]
    assert scores.variables() == [names for names in recorded.variables() if "regression" not in names[0]]
    assert recorded.layers[0]["input"]["shape"] == [1, 3, 240, 320]
    for layer in recorded.layers:
        if layer["kind"] != "BatchNormalization":
            continue
        given, computed = (recorded.members[layer[side]["member"]] for side in ("input", "output"))
        shape = layer["output"]["shape"]
        channel = np.unravel_index(samples.positions(int(np.prod(shape))), shape)[1]
        gamma, beta, mean, variance = (weights[one["name"]].numpy()[channel] for one in layer["variables"])
        expected = (given - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)
        assert recorded.near(layer["operation"])[0] == [recorded.layers[recorded.layers.index(layer) - 1]["operation"]]
    # What comes out of the first batch norm goes through a ReLU.
    (bent,) = recorded.layers[1]["after"]
    computed = recorded.members[recorded.layers[1]["output"]["member"]]
    np.testing.assert_array_equal(recorded.members[bent["member"]], np.maximum(computed, 0))
    recorded.check(recorded.report["named"]["end"], recorded.members["1_0"])
    assert recorded.report["named"]["first"]["shape"] == recorded.layers[0]["output"]["shape"]
    first = recorded.members[recorded.layers[0]["output"]["member"]]
    np.testing.assert_array_equal(recorded.members[recorded.report["named"]["first"]["member"]], first)
    report = json.loads((tmp_path / "wrong.json").read_text())
    assert (report["kind"], report["message"]) == ("names", "layers a: the model has no tensor b")


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, *contents: int | str | bytes) -> bytes:
    """A protobuf's field, as often as there are contents."""
    written = b""
    for content in contents:
        data = content.encode() if isinstance(content, str) else content
        written += (
            varint(number << 3) + varint(data)
            if isinstance(data, int)
            else (varint(number << 3 | 2) + varint(len(data)) + data)
        )
    return written


def node(kind: str, inputs: str, outputs: str, name: str = "", attributes: bytes = b"") -> bytes:
    """A node of a graph; - stands for what is left out."""
    names = [[text.strip("-") for text in side.split()] for side in (inputs, outputs)]
    return field(
        1, field(1, *names[0]) + field(2, *names[1]) + field(3, *[name] * bool(name)) + field(4, kind) + attributes
    )


def onnx_model(nodes: bytes, constants: dict[str, Any], shape: tuple[int, ...], outputs: list[str]) -> bytes:
    """A model of opset 17 that takes x."""
    tensors = b"".join(
        field(5, field(1, *array.shape) + field(2, 1) + field(8, name) + field(9, array.tobytes()))
        for name, array in constants.items()
    )
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    x = field(11, field(1, "x") + field(2, field(1, field(1, 1) + field(2, sizes))))
    graph = nodes + field(2, "g") + tensors + x + field(12, *(field(1, name) for name in outputs))
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


@needs("onnxruntime")
def test_around_an_onnx_models_layers_is_what_onnxruntime_gives(tmp_path: Path) -> None:
    """A layer norm of many nodes, and an LSTM that leaves out an output, before a Clip that leaves out an input."""
    axes = field(5, field(1, "axes") + field(8, 2) + field(20, 7))
    size = field(5, field(1, "hidden_size") + field(3, 5) + field(20, 2))
    nodes = b"".join(
        [
            node("ReduceMean", "x", "mean", attributes=axes),
            node("Sub", "x mean", "centred"),
            node("Mul", "centred centred", "squares"),
            node("ReduceMean", "squares", "variance", attributes=axes),
            node("Add", "variance small", "more"),
            node("Sqrt", "more", "spread"),
            node("Div", "centred spread", "normed", "norm/div"),
            node("Mul", "normed gamma", "scaled", "norm/gamma"),
            node("Add", "scaled beta", "shifted", "norm/beta"),
            node("Relu", "shifted", "bent"),
            node("LSTM", "bent w r", "- h", attributes=size),
            node("Clip", "h - one", "clipped", "clip"),
            node("Neg", "clipped", "y"),
        ]
    )
    constants = {"gamma": uniform(1, 4), "beta": uniform(2, 4), "w": uniform(3, 1, 20, 4), "r": uniform(4, 1, 20, 5)}
    constants |= {"small": np.array(1e-3, np.float32), "one": np.array(0.1, np.float32)}
    inside = ["centred", "normed", "scaled", "shifted", "bent", "h", "clipped", "y"]
    x = uniform(0, 3, 2, 4)
    for name, outputs in (("m", ["y"]), ("all", inside)):
        (tmp_path / f"{name}.onnx").write_bytes(onnx_model(nodes, constants, x.shape, outputs))
    request = {"kind": "onnx", "path": "m.onnx", "feed": {"x": "x"}, "fetch": {"y": "y"}, "given": [{0: x}]}
    run(tmp_path, {"small": request})
    made = other_way(
        tmp_path,
        """
        import sys, numpy as np, onnxruntime
        session = onnxruntime.InferenceSession(sys.argv[1] + "/all.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        with np.load(sys.argv[1] + "/small.in.npz") as given:
            np.savez(sys.argv[1] + "/made.npz", **dict(zip(names, session.run(names, {"x": given["0_0"]}))))
        """,
    )
    made |= {"x": x, "norm/div": made["normed"], "norm/gamma": made["scaled"], "norm/beta": made["shifted"]}
    made |= {"clip": made["clipped"]}
    recorded = Recorded(tmp_path, "small")

    assert recorded.report["notes"] == []
    assert [(layer["operation"], layer["kind"]) for layer in recorded.layers] == [
        ("norm/gamma", "Mul"),
        ("norm/beta", "Add"),
        ("h", "LSTM"),
    ]
    assert recorded.variables() == [["gamma"], ["beta"], ["w", "r"]]
    assert recorded.near("norm/gamma") == (["norm/div", "centred", "x"], [])
    assert recorded.near("norm/beta") == (["norm/gamma"], ["bent"])
    assert recorded.near("h") == (["bent", "norm/beta"], ["clip", "y"])
    for layer in recorded.layers:
        recorded.check(layer["output"], made[layer["operation"]])
        for tensor in (*layer["before"], *layer["after"]):
            recorded.check(tensor, made[tensor["operation"]])
