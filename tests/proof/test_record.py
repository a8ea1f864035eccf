"""The original's run: what TensorFlow computes is what is recorded, and however it fails, it fails cleanly."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t.problems import MappingError, OriginalError, OutputError, Problem, T2TError
from t2t.proof import origin, recording
from t2t.proof.record import record
from t2t.verification import Verify

VerifyOf = Callable[..., Verify]

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not here")

ROOT = Path(__file__).resolve().parents[2]
QUIET = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

#: Every kind of thing that a graph can hold and a checkpoint not.
GRAPH = """
    import sys, numpy as np, tensorflow as tf
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        v1.placeholder(tf.float32, [None, 4], name="wide")
        v1.placeholder(tf.int32, [None, 3], name="whole")
        flag = v1.placeholder(tf.bool, [], name="flag")
        w = v1.get_variable("w", initializer=np.arange(6, dtype=np.float32).reshape(3, 2) / 7, use_resource=False)
        b = v1.get_variable("b", initializer=np.float32([0.25, -1]), use_resource=True)
        parts = v1.get_variable("parts", [4, 2], initializer=v1.constant_initializer(0.5, tf.float32),
                                partitioner=v1.fixed_size_partitioner(2), use_resource=False)
        slot = v1.get_variable("slot", [2], use_resource=False)
        grown = v1.get_variable("grown", [2], use_resource=True)
        y = tf.add(x @ w, b, name="y")
        tf.identity(tf.convert_to_tensor(parts), name="p")
        tf.cast(y, tf.bfloat16, name="half")
        tf.identity(tf.cond(flag, lambda: y + 1, lambda: y), name="branch")
        tf.add(y, slot, name="lost")
        tf.add(y, grown, name="misfit")
        tf.as_string(y, name="text")
        tf.multiply(v1.placeholder(tf.float32, [], name="unfed"), 2.0, name="twice")
        session.run(v1.global_variables_initializer())
        v1.train.export_meta_graph(sys.argv[1] + "/g.meta")
        # What is stored under the name `grown` has another shape.
        names = {"w": w, "b": b, "parts": parts, "grown": v1.get_variable("other", initializer=np.ones(3, np.float32))}
        session.run(names["grown"].initializer)
        v1.train.Saver(names).save(session, sys.argv[1] + "/ckpt", write_meta_graph=False)
"""


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `g.meta` and the checkpoint `ckpt`, written by TensorFlow."""
    directory = tmp_path_factory.mktemp("graph")
    subprocess.run([sys.executable, "-c", textwrap.dedent(GRAPH), str(directory)], env=QUIET, check=True, timeout=300)
    return directory


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make `import tensorflow` run these lines, in this process and in its children."""

    def poison(lines: str) -> None:
        package = tmp_path / "poison" / "tensorflow"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(textwrap.dedent(lines))
        (tmp_path / "g.meta").touch()
        monkeypatch.syspath_prepend(package.parent)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return poison


def refusal(verify: Verify, timeout: float = 60) -> Problem:
    with pytest.raises(T2TError) as error:
        record(verify, "ckpt", "d0", timeout=timeout)
    assert len(error.value.problems) == 1
    return error.value.problems[0]


# --- what is recorded ---


@needs_tensorflow
def test_what_tensorflow_computes_is_recorded(
    verify_of: VerifyOf, graph: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """numpy says what it must be: a product, partitioned and resource variables, a flag, a bfloat16."""
    verify = verify_of(
        inputs="{x: {shape: [4, 3], range: [-2, 2], seed: 1}, flag: {value: true}}",
        reference=f'{{graph: {graph}/g.meta, feed: {{x: "x:0", flag: "flag:0"}}, '
        'fetch: {y: "y:0", p: "p:0", half: "half:0", branch: "branch:0"}}',
        draws="2",
    )
    made = record(verify, str(graph / "ckpt"), "d0")
    w, b = np.arange(6, dtype=np.float32).reshape(3, 2) / 7, np.array([0.25, -1], np.float32)

    assert made.made_from == {
        **origin.parts(verify, "d0"),
        "graph": origin.original_digest(verify.reference, verify.reference.path),
    }
    assert sorted(made.made_by) == ["numpy", "t2t", "tensorflow"]
    assert made.generated == {"x", "flag"}
    assert len(made.draws) == 2
    for number, draw in enumerate(made.draws):
        given = recording.inputs(verify, number)
        np.testing.assert_array_equal(draw.inputs["x"], given["x"], strict=True)
        np.testing.assert_allclose(draw.outputs["y"], given["x"] @ w + b, rtol=1e-6, atol=1e-6, strict=True)
        np.testing.assert_array_equal(draw.outputs["p"], np.full((4, 2), 0.5, np.float32), strict=True)
        np.testing.assert_array_equal(draw.outputs["branch"], draw.outputs["y"] + 1, strict=True)
        assert draw.outputs["half"].dtype == np.float32
        np.testing.assert_allclose(draw.outputs["half"], draw.outputs["y"], rtol=2**-8)
    assert capfd.readouterr() == ("", "")
    again = record(verify, str(graph / "ckpt"), "d0", original=str(graph / "g.meta"))
    for name, one in (("one.npz", made), ("two.npz", again)):
        recording.save(str(graph / name), one)
    assert (graph / "one.npz").read_bytes() == (graph / "two.npz").read_bytes()


@needs_tensorflow
def test_madrys_logits_are_recorded_as_they_were(verify_of: VerifyOf, shared_data: Path) -> None:
    """The graph of 2017, and outputs that another run of TensorFlow stored."""
    data = shared_data / "madry"
    verify = verify_of(
        inputs=f"{{x: {{file: {data}/golden.npz, member: x}}}}",
        reference=f'{{graph: {data}/checkpoint-700.meta, feed: {{x: "Placeholder:0"}}, fetch: {{logits: "add_3:0"}}}}',
        labels=f"{{file: {data}/golden.npz, member: labels, metric: accuracy}}",
    )
    made = record(verify, str(data / "checkpoint-700"), "d0")
    with np.load(data / "golden.npz") as golden:
        logits, labels = golden["logits"], golden["labels"]

    np.testing.assert_allclose(made.draws[0].outputs["logits"], logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert np.mean(made.draws[0].outputs["logits"].argmax(-1) == labels) == 0.944


# --- what the graph refuses ---

#: Changes of a request that runs, and the report that the child then writes: kind, message, hint.
REFUSALS: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "no such output": ({"fetch": {"y": "yy:0"}}, ("names", "fetch y: the graph has no tensor yy:0", "")),
    "an operation": ({"fetch": {"y": "y"}}, ("names", "fetch y: the graph has no tensor y", "write y:0")),
    "no such input": (
        {"feed": {"x": "x:1"}},
        (
            "names",
            "feed x: the graph has no tensor x:1",
            "its placeholders are x:0 float32 [?, 3], wide:0 float32 [?, 4], whole:0 int32 [?, 3], flag:0 bool [], "
            "unfed:0 float32 [], ...",
        ),
    ),
    "another dtype": (
        {"feed": {"x": "whole:0"}},
        ("names", "x is float32, but whole:0 is int32", "give the input dtype int32"),
    ),
    "another shape": ({"feed": {"x": "wide:0"}}, ("names", "x is [1, 3], but wide:0 is [?, 4]", "")),
    "text": ({"fetch": {"y": "text:0"}}, ("names", "y: text:0 is string, and only real numbers compare", "")),
    "not restored": (
        {"fetch": {"z": "y:0", "y": "lost:0"}},
        ("run", "y depends on variable slot, which was not restored: the checkpoint does not hold it", ""),
    ),
    "restored in another shape": (
        {"fetch": {"y": "misfit:0"}},
        (
            "run",
            "y depends on variable grown, which was not restored: it is [2] in the graph and [3] in the checkpoint",
            "",
        ),
    ),
    "not fed": (
        {"fetch": {"y": "twice:0"}},
        (
            "run",
            "the graph cannot be run: You must feed a value for placeholder tensor 'unfed' with dtype float",
            "",
        ),
    ),
    "no graph": (
        {"path": "ckpt.index"},
        (
            "run",
            "the graph cannot be imported: 'utf-8' codec can't decode byte 0x80 in position 22: invalid start byte",
            "",
        ),
    ),
    "no checkpoint": (
        {"checkpoint": "gone"},
        (
            "run",
            "tensorflow cannot open the checkpoint: Unsuccessful TensorSliceReader constructor: "
            "Failed to find any matching files for gone",
            "",
        ),
    ),
}


@pytest.fixture(scope="session")
def reports(graph: Path) -> dict[str, Any]:
    """What the child says to each of REFUSALS, one after the other in one process: TensorFlow starts slowly."""
    np.savez(graph / "inputs.npz", **{"0_0": np.zeros((1, 3), np.float32)})  # type: ignore[arg-type]
    runs = {"kind": "graph", "path": "g.meta", "checkpoint": "ckpt", "signature": "", "draws": 1, "steps": 1}
    runs |= {"feed": {"x": "x:0"}, "fetch": {"y": "y:0"}}
    paths = {"inputs": "inputs.npz", "outputs": "outputs.npz"}
    for number, (changes, _) in enumerate(REFUSALS.values()):
        request = runs | paths | changes | {"result": f"result{number}"}
        (graph / f"request{number}").write_text(json.dumps(request))
    script = "import sys; from t2t.proof import original; print([original.main(path) for path in sys.argv[1:]])"
    # The child would end with the other end of its standard input.
    stdin, held = os.pipe()
    ran = subprocess.run(
        [sys.executable, "-c", script, *(f"request{number}" for number in range(len(REFUSALS)))],
        cwd=graph,
        env=QUIET | {"PYTHONPATH": str(ROOT)},
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    os.close(stdin)
    os.close(held)
    assert ran.stdout == f"{[1] * len(REFUSALS)}\n"
    return {case: json.loads((graph / f"result{number}").read_text()) for number, case in enumerate(REFUSALS)}


@needs_tensorflow
@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_graph_cannot_do_is_reported(reports: dict[str, Any], case: str) -> None:
    report = reports[case]
    expected = REFUSALS[case][1]

    assert (report["kind"], report["message"], report["hint"]) == expected


@needs_tensorflow
def test_a_tensor_that_the_graph_does_not_have_is_the_mappings_fault(verify_of: VerifyOf, graph: Path) -> None:
    verify = verify_of(reference=f'{{graph: {graph}/g.meta, feed: {{x: "x:0"}}, fetch: {{y: "halff:0"}}}}')
    with pytest.raises(MappingError) as error:
        record(verify, str(graph / "ckpt"), "d0")

    assert str(error.value) == f"{verify.at}: T2T503 fetch y: the graph has no tensor halff:0; did you mean half:0"


@needs_tensorflow
def test_a_graph_that_cannot_run_is_the_originals_fault(verify_of: VerifyOf, graph: Path) -> None:
    verify = verify_of(reference=f'{{graph: {graph}/g.meta, feed: {{x: "x:0"}}, fetch: {{y: "lost:0"}}}}')
    with pytest.raises(OriginalError) as error:
        record(verify, str(graph / "ckpt"), "d0")

    assert str(error.value) == (
        f"{verify.at}: T2T902 y depends on variable slot, which was not restored: the checkpoint does not hold it"
    )


def test_a_graph_that_is_not_there_is_told_before_anything_runs(
    verify_of: VerifyOf, poison: Callable[[str], None], tmp_path: Path
) -> None:
    poison("import os; os.abort()")
    (tmp_path / "g.meta").unlink()
    verify = verify_of()

    assert refusal(verify) == Problem("T2T902", f"no graph at {tmp_path}/g.meta", verify.at)


@needs_tensorflow
def test_an_empty_output_is_refused_before_anybody_relies_on_it(verify_of: VerifyOf, graph: Path) -> None:
    verify = verify_of(
        inputs="{x: {shape: [0, 3], range: [0, 1]}}",
        reference=f'{{graph: {graph}/g.meta, feed: {{x: "x:0"}}, fetch: {{y: "y:0"}}}}',
    )
    with pytest.raises(MappingError) as error:
        record(verify, str(graph / "ckpt"), "d0")

    assert str(error.value) == (
        f"{verify.at}: T2T503 y: tensorflow computes [0, 2] in draw 0; an empty output proves nothing"
    )


# --- a disk that is full ---


@pytest.fixture
def little_space() -> Iterator[None]:
    """The kernel refuses files over 50 kB, in this process and in its children, as it does without space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; nothing may be left there."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.mark.usefixtures("little_space")
def test_inputs_that_do_not_fit_on_the_disk_are_told(
    verify_of: VerifyOf, poison: Callable[[str], None], scratch: Path
) -> None:
    poison("import os; os.abort()")
    found = refusal(verify_of(inputs="{x: {shape: [100, 784], range: [0, 1]}}"))

    assert str(found) == f"{scratch}: T2T803: no space: File too large; nothing was written"
    assert list(scratch.iterdir()) == []


@needs_tensorflow
@pytest.mark.usefixtures("little_space")
def test_outputs_that_do_not_fit_on_the_disk_are_told(verify_of: VerifyOf, graph: Path, scratch: Path) -> None:
    verify = verify_of(
        inputs="{x: {shape: [2000, 3], range: [0, 1]}}",
        reference=f'{{graph: {graph}/g.meta, feed: {{x: "x:0"}}, fetch: {{y: "y:0", z: "y:0", u: "y:0", v: "y:0"}}}}',
    )
    with pytest.raises(OutputError) as error:
        record(verify, str(graph / "ckpt"), "d0")

    assert str(error.value) == f"{scratch}: T2T803: no space: File too large; nothing was written"
    assert list(scratch.iterdir()) == []


def test_a_temporary_directory_that_is_gone_is_told(
    verify_of: VerifyOf, poison: Callable[[str], None], scratch: Path
) -> None:
    poison("import os; os.abort()")
    scratch.rmdir()

    assert str(refusal(verify_of())) == (
        f"{scratch}: T2T802: cannot be written: No such file or directory; make its directory first"
    )


# --- how TensorFlow fails ---

INSTALL = "in the clone of t2t, run pip install -e '.[tf]'"
CRASHED = (
    "the library that it runs crashed, not t2t: --format full shows what it printed last; try another version of it, "
    "or describe the original in another way"
)
ENDED = "what it runs ended the process: --format full shows what it printed last"


def dies(name: str) -> str:
    """Lines of code that end their process with this signal, and dump nothing."""
    return f"import os, signal; os.kill(os.getpid(), signal.{name})"


def test_without_tensorflow_it_says_how_to_install_it(verify_of: VerifyOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    verify = verify_of()

    assert refusal(verify) == Problem("T2T901", "tensorflow is not installed", verify.at, INSTALL)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'tensorflow'\", name='tensorflow')",
            Problem("T2T901", "tensorflow is not installed", hint=INSTALL),
        ),
        (
            "raise ImportError('libcuda.so: cannot open\\nmore')",
            Problem("T2T902", "tensorflow cannot be imported: libcuda.so: cannot open"),
        ),
        (
            "import no_such_dependency",
            Problem("T2T902", "tensorflow cannot be imported: No module named 'no_such_dependency'"),
        ),
        (
            "import os; os.write(2, b'F0000 Check failed: \\x1b[31mndims\\n\\n'); os.abort()",
            Problem(
                "T2T902",
                "tensorflow died with SIGABRT",
                hint=CRASHED,
                details=("F0000 Check failed: \\x1b[31mndims",),
            ),
        ),
        (
            dies("SIGKILL"),
            Problem(
                "T2T902",
                "tensorflow died with SIGKILL",
                hint="the usual cause is the system, which was out of memory: make verify's inputs smaller, or end "
                "what else needs memory",
            ),
        ),
        (dies("SIGSEGV"), Problem("T2T902", "tensorflow died with SIGSEGV", hint=CRASHED)),
        (dies("SIGBUS"), Problem("T2T902", "tensorflow died with SIGBUS", hint=CRASHED)),
        (dies("SIGFPE"), Problem("T2T902", "tensorflow died with SIGFPE", hint=CRASHED)),
        (
            dies("SIGILL"),
            Problem(
                "T2T902",
                "tensorflow died with SIGILL",
                hint="the library that it runs is built for another processor: install a build for this one",
            ),
        ),
        (
            dies("SIGTERM"),
            Problem("T2T902", "tensorflow died with SIGTERM", hint="somebody ended it: record again"),
        ),
        (
            "import sys\nfor i in range(99999): print(i)\nsys.exit(3)",
            Problem(
                "T2T902",
                "tensorflow ended with exit status 3 and no result",
                hint=ENDED,
                details=tuple(str(i) for i in range(99989, 99999)),
            ),
        ),
        (
            "import json, sys; open(json.load(open(sys.argv[1]))['result'], 'w').close(); sys.exit(1)",
            Problem("T2T902", "tensorflow ended with exit status 1 and no result", hint=ENDED),
        ),
        (
            "import sys; sys.exit(0)",
            Problem("T2T902", "tensorflow ended with exit status 0 and no result", hint=ENDED),
        ),
    ],
)
def test_a_tensorflow_that_fails_is_reported(
    verify_of: VerifyOf,
    poison: Callable[[str], None],
    lines: str,
    problem: Problem,
    capfd: pytest.CaptureFixture[str],
) -> None:
    poison(lines)
    verify = verify_of()
    found = refusal(verify)

    assert found == replace(problem, at=verify.at)
    assert capfd.readouterr() == ("", "")


#: It waits, or it computes and lets no other thread of its process run.
HANGS = ["time.sleep(600)", "re.match('(a+)+$', 'a' * 60 + 'b')"]


@pytest.mark.parametrize("hangs", HANGS)
def test_a_tensorflow_that_hangs_is_killed(verify_of: VerifyOf, poison: Callable[[str], None], hangs: str) -> None:
    poison(f"import re, time; print('waiting', flush=True); {hangs}")
    verify = verify_of()
    started = time.monotonic()

    assert refusal(verify, timeout=1.5) == Problem(
        "T2T903",
        "tensorflow did not finish within 1.5 s",
        verify.at,
        "--timeout gives it more seconds, smaller inputs need fewer",
        details=("waiting",),
    )
    assert time.monotonic() - started < 30


@pytest.fixture(params=HANGS)
def hanging(
    verify_of: VerifyOf, poison: Callable[[str], None], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that records with a TensorFlow that hangs, and the child's number."""
    poison(f"""
        import os, re, signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with open({str(tmp_path / "new")!r}, "w") as file:
            file.write(str(os.getpid()))
        os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "pid")!r})
        {request.param}
    """)
    verify_of()
    script = f"""
        from t2t import mapping
        from t2t.proof.record import record
        path = {str(tmp_path / "m.yaml")!r}
        read, problems = mapping.read(open(path, "rb").read(), path)
        record(read.verify, "ckpt", "d0")
    """
    (tmp_path / "m.yaml").write_text(
        "t2t: 1\nmodel: a:B\nsource: {checkpoint: c}\nmap: [{tf: a, torch: b}]\nverify:\n"
        '  inputs: {x: {value: 1}}\n  reference: {graph: g.meta, feed: {x: "x:0"}, fetch: {y: "y:0"}}\n'
    )
    # What a killed process leaves behind is left in the test's own directory.
    path = os.pathsep.join((os.environ["PYTHONPATH"], str(ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        assert until((tmp_path / "pid").exists)
        yield parent, int((tmp_path / "pid").read_text())
    finally:
        parent.kill()
        parent.wait()


def until(is_so: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether it becomes so within this time."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the child")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_child_ends_with_its_parent(hanging: tuple[subprocess.Popen[bytes], int], number: int) -> None:
    parent, child = hanging
    assert is_running(child)
    os.kill(parent.pid, number)
    parent.wait(60)

    assert until(lambda: not is_running(child))


#: An evaluation graph: its Saver restores each variable from its moving average.
AVERAGED = """
    import sys, numpy as np, tensorflow as tf
    v1 = tf.compat.v1
    folder = sys.argv[1]

    def net():
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        w = v1.get_variable("w", initializer=np.ones((3, 2), np.float32), use_resource=bool(int(sys.argv[2])))
        tf.identity(x @ w, name="y")
        return w

    with tf.Graph().as_default(), v1.Session() as session:
        w = net()
        average = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([w.assign_add(tf.ones((3, 2)))]):
            step = average.apply([w])
        session.run(w.initializer)
        session.run(v1.global_variables_initializer())
        session.run(step)
        v1.train.Saver().save(session, folder + "/ckpt", write_meta_graph=False)
        np.save(folder + "/average.npy", session.run(average.average(w)))
    with tf.Graph().as_default():
        net()
        average = tf.train.ExponentialMovingAverage(0.5)
        average.apply(v1.trainable_variables())
        v1.train.Saver(average.variables_to_restore()).export_meta_graph(folder + "/g.meta")
"""


@needs_tensorflow
@pytest.mark.parametrize("is_resource", ["0", "1"], ids=["reference variables", "resource variables"])
def test_a_graph_whose_saver_reads_averages_computes_with_averages(
    tmp_path: Path, verify_of: VerifyOf, is_resource: str
) -> None:
    """As import_meta_graph and its Saver's restore do: what somebody exported for evaluation is what is recorded."""
    command = [sys.executable, "-c", textwrap.dedent(AVERAGED), str(tmp_path), is_resource]
    subprocess.run(command, env=QUIET, check=True, timeout=300)
    notes: list[Problem] = []
    made = record(verify_of(), str(tmp_path / "ckpt"), "d0", note=notes.append)
    average = np.load(tmp_path / "average.npy")

    assert average.max() != 2  # the plain variable
    (draw,) = made.draws
    assert np.allclose(draw.outputs["y"], draw.inputs["x"] @ average, rtol=1e-6)
    assert [note.message for note in notes if note.code == "T2T906"] == [
        "the graph's own Saver restores 1 variables under other names: "
        "w is w/ExponentialMovingAverage of the checkpoint"
    ]


# --- what is looked at inside, when all outputs are there ---

ONCE = """
import os

def original(checkpoint):
    if os.path.exists("was_here"):
        {ends}
    open("was_here", "w").close()
    return lambda inputs: {{"y": inputs["x"] + 1}}
"""


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        ("os.abort()", "once:original died with SIGABRT"),
        ("import time; time.sleep(60)", "once:original did not finish within 10 s"),
        ("os._exit(3)", "once:original ended with exit status 3"),
    ],
)
def test_outputs_count_where_looking_inside_ends_the_original(
    ends: str, why: str, verify_of: VerifyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "once.py").write_text(ONCE.format(ends=ends))
    monkeypatch.chdir(tmp_path)
    notes: list[Problem] = []

    made = record(
        verify_of(reference="{call: 'once:original', fetch: {y: y}}"), "ckpt", "d0", timeout=10, note=notes.append
    )

    (draw,) = made.draws
    np.testing.assert_array_equal(draw.outputs["y"], draw.inputs["x"] + 1)
    assert made.inside.layers == ()
    assert [str(problem).partition("T2T906 ")[2] for problem in notes if problem.code == "T2T906"] == [
        f"no layers are recorded: {why}"
    ]
