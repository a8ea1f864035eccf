"""
What t2t says where TensorFlow is missing, dies, hangs or reads otherwise, and where t2t itself has a bug.

The numbers are those of the fault catalogue (120-124). Every refusal below is one command in a process of its own: its
exit status, the whole of what it says, the folder as it was before, nothing left in the temporary directory, and no
process left. Packages named tensorflow, first on the path, stand in for the real one; each writes down the number of
every process that imports it.

Not here, or not whole, and why:

    120  the words are `--cross-check` and `--reader tensorflow` (DESIGN.md); what is missing is exit 3, not 7
    121  dying and hanging are exit 3, too; the limit of 60 s is made shorter here. A library that computes for ever and
         lets no other thread of its process run while it reads outlives a t2t that was killed by SIGKILL
    122  what two readers differ in is told; which of them is right, t2t does not know
    123  a TensorFlow that lists no dtypes and dies of one value stands in for an old one, which does both
    124  the temporary directory of `record` stays when SIGKILL ends it: nobody is left to remove it
"""

from __future__ import annotations

import importlib.util
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.checkpoints.writing import Tensor, bundle, floats
from tests.commands import ENVIRONMENT, ROOT, Done, python, server, small, t2t
from tests.proof.test_record import is_running, until
from tests.test_faults_checkpoints import MODULE, Step, contents
from tests.test_faults_checkpoints import run as run_in_fork

IMPORTING = "note: T2T700 importing holder:Holder"
DAMAGED = "the file is damaged, or that library is"
WRONG = "one of the two readers is wrong: please report it"

MAPPING = """\
t2t: 1
model: holder:Holder
with: {buffers: {a: [float32, [2]], b: [float32, [2]]}}
source: {checkpoint: x}
map:
- {tf: a, torch: a}
- {tf: b, torch: b}
"""

VERIFY = """\
verify:
  inputs: {i: {value: 1}}
  reference: {graph: x.meta, feed: {i: "i:0"}, fetch: {o: "o:0"}}
"""

#: Stands in TensorFlow's place; the lines of `before` run when it is imported, those of `got` before a value is given.
FAKE = """\
import os, signal, time
import numpy as np

with open(os.environ["FAKE_PROCESSES"], "a") as file:
    file.write(f"{{os.getpid()}}\\n")
{before}
__version__ = "0.0"
STORED = {stored}


class DType:
    def __init__(self, name):
        self.name = name


class Reader:
    def get_variable_to_shape_map(self):
        return {{key: list(value.shape) for key, value in STORED.items()}}

    def get_variable_to_dtype_map(self):
        {listing}
        return {{key: DType(value.dtype.name) for key, value in STORED.items()}}

    def get_tensor(self, key):
        {got}
        return STORED[key]


class train:
    @staticmethod
    def load_checkpoint(path):
        return Reader()


def as_dtype(given):
    name = given if isinstance(given, str) else given.name
    if name.startswith("float8"):
        raise TypeError(f"Cannot convert {{name}} to a TensorFlow DType.")
    dtype = DType(name)
    dtype.as_numpy_dtype = np.dtype(name)
    return dtype
"""

#: What `place` saves.
STORED = "{'a': np.array([1, 2], np.float32), 'b': np.array([3, 4], np.float32)}"


def place(folder: Path) -> Path:
    """The folder to work in, with x, x.yaml, original.yaml (to be recorded), their model; other folders beside it."""
    work = folder / "work"
    for name in ("work", "scratch", "path"):
        (folder / name).mkdir()
    (folder / "processes").touch()
    bundle(work / "x", {"a": floats(1, 2), "b": floats(3, 4)})
    (work / "x.meta").touch()
    (work / "holder.py").write_text(MODULE)
    (work / "x.yaml").write_text(MAPPING)
    (work / "original.yaml").write_text(MAPPING + VERIFY)
    return work


def fake(folder: Path, *, before: str = "", got: str = "pass", listing: str = "pass", stored: str = STORED) -> None:
    """A package named tensorflow, before the real one."""
    (folder / "path/tensorflow").mkdir(exist_ok=True)
    text = FAKE.format(before=before, got=got, listing=listing, stored=stored)
    (folder / "path/tensorflow/__init__.py").write_text(text)


def hidden(folder: Path, finder: str = "sys.modules['tensorflow'] = None") -> None:
    """What every Python that starts there does first: it takes TensorFlow away, wherever it is."""
    (folder / "path/sitecustomize.py").write_text(f"import importlib.machinery, sys\n{finder}\n")


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(folder / "path"), ENVIRONMENT.get("PYTHONPATH")]))
    return {
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(folder / "scratch"),
        "FAKE_PROCESSES": str(folder / "processes"),
    }


def processes(folder: Path) -> list[int]:
    """The processes that imported the fake."""
    return [int(line) for line in (folder / "processes").read_text().splitlines()]


def run(folder: Path, *arguments: str, code: str = "") -> Done:
    """The command (with some code run before it), which leaves nothing behind: no file and no process."""
    work = folder / "work"
    before = contents(work)

    if code:
        script = f"import sys\nimport t2t.cli\n{code}\nsys.exit(t2t.cli.main(sys.argv[1:]))"
        done = python("-c", script, *arguments, cwd=work, env=environment(folder))
    else:
        done = t2t(*arguments, cwd=work, env=environment(folder))

    assert contents(work) == before
    assert os.listdir(folder / "scratch") == []
    assert [number for number in processes(folder) if is_running(number)] == []
    assert ("Traceback" in done.err) == ("--debug" in arguments)
    return done


def refused(folder: Path, line: str, *arguments: str, status: int = 3, code: str = "") -> None:
    """The command says this line and, where it builds the module, that it imports it; nothing else."""
    done = run(folder, *arguments, code=code)

    imports = [IMPORTING] if arguments[0] == "convert" else []
    assert (done.code, (done.err + done.out).splitlines()) == (status, [*imports, line])
    assert line in (done.out if status == 1 else done.err)


CROSS_CHECK = ("inspect", "--cross-check", "x")
READER = ("convert", "--reader", "tensorflow", "x.yaml")
RECORD = ("record", "original.yaml")
#: Where `original.yaml` describes the original.
AT = "original.yaml:8:1"


# --- 120: TensorFlow is not there ---

#: How an empty folder of that name looks where nothing else has it: a package without a file.
FOLDER = """\
class Folder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "tensorflow":
            return importlib.machinery.ModuleSpec(name, None, is_package=True)
sys.meta_path.insert(0, Folder)"""


def tensorflow_is_not_installed(folder: Path) -> None:
    place(folder)
    line = "x: T2T614: TensorFlow is not installed; pip install tensorflow, or leave its reader out"
    for finder in ("sys.modules['tensorflow'] = None", FOLDER):
        hidden(folder, finder)
        refused(folder, line, *CROSS_CHECK)
    hidden(folder)
    refused(folder, line, *READER)
    line = f"{AT}: T2T901 tensorflow is not installed; in the clone of t2t, run pip install -e '.[tf]'"
    refused(folder, line, *RECORD)


def tensorflow_cannot_be_imported(folder: Path) -> None:
    """It is installed, but not whole."""
    place(folder)
    for before, why in {
        "import gone": "ModuleNotFoundError: No module named 'gone'",
        "raise ImportError('libcudart.so.12: cannot open\\nshared object file')": "ImportError: libcudart.so.12: "
        "cannot open",
    }.items():
        fake(folder, before=before)
        refused(folder, f"x: T2T614: TensorFlow says {why}", *CROSS_CHECK)
        cause = why.partition(": ")[2]
        refused(folder, f"{AT}: T2T902 tensorflow cannot be imported: {cause}", *RECORD)


def tensorflow_is_not_needed(folder: Path) -> None:
    """All else works without it, and where it is, it is left alone; whoever imports it would be written down."""
    work = place(folder)
    fake(folder, before="raise SystemExit('this was not to be imported')")
    for arguments in (
        ["inspect", "x"],
        ["inspect", "--checksums", "x"],
        ["check", "x.yaml"],
        ["explain", "x.yaml", "a"],
    ):
        assert (run(folder, *arguments).code, processes(folder)) == (0, [])
    done = t2t("x.yaml", cwd=work, env=environment(folder))
    assert (done.code, done.err, processes(folder)) == (0, f"{IMPORTING}\n", [])
    hidden(folder)
    written = (work / "x.safetensors").read_bytes()
    (work / "x.safetensors").unlink()
    done = t2t("x.yaml", cwd=work, env=environment(folder))
    assert (done.code, (work / "x.safetensors").read_bytes()) == (0, written)


def imports_are_seen(folder: Path) -> None:
    """What the test above rests on."""
    place(folder)
    fake(folder, before="raise SystemExit('this was not to be imported')")
    done = run(folder, "inspect", "x", code="try:\n    import tensorflow\nexcept SystemExit:\n    pass")

    assert (done.code, len(processes(folder))) == (0, 1)


# --- 121: TensorFlow's process ends, or does not ---


CRASHED = (
    "the library that it runs crashed, not t2t: --format full shows what it printed last; try another version of it, "
    "or describe the original in another way"
)
DEATHS = {
    "SIGABRT": CRASHED,
    "SIGSEGV": CRASHED,
    "SIGKILL": "the usual cause is the system, which was out of memory: make verify's inputs smaller, or end what else "
    "needs memory",
}


def tensorflow_dies(folder: Path) -> None:
    """At once, or when it reads one variable: then the others are compared all the same."""
    place(folder)
    for name, hint in DEATHS.items():
        end = f"os.write(2, b'F0000 check failed'); os.kill(os.getpid(), signal.{name})"
        fake(folder, before=end)
        refused(folder, f"x: T2T614: TensorFlow died with {name}; {DAMAGED}", *CROSS_CHECK)
        refused(folder, f"{AT}: T2T902 tensorflow died with {name}; {hint}", *RECORD)
    line = f"x: T2T614: a: TensorFlow died with SIGKILL; {DAMAGED}"
    fake(folder, got=f"if key == 'a': {end}")
    refused(folder, line, *READER)
    done = run(folder, *CROSS_CHECK)
    told = "1 variable equal in TensorFlow 0.0 (8 B), 1 problem, 0 not compared"
    assert (done.code, done.out.splitlines(), done.err) == (3, [line, told], "")
    fake(folder, before="print('said'); raise SystemExit(5)")
    refused(folder, f"x: T2T614: TensorFlow ended with status 5: said; {DAMAGED}", *CROSS_CHECK)
    line = "T2T902 tensorflow ended with exit status 5 and no result; what it runs ended the process: "
    refused(folder, f"{AT}: {line}--format full shows what it printed last", *RECORD)
    done = run(folder, *RECORD, "--format", "full")
    assert done.err.splitlines() == [f"{AT}: {line}--format full shows what it printed last", "    said"]


#: The limit of the beginning, or of every question, in seconds.
SHORT_START = "import t2t.checkpoints.via_tensorflow as via\nvia.ViaTensorFlow.__init__.__defaults__ = (1.0,)"
SHORT_ANSWERS = """\
from t2t.checkpoints.child import Child
ask = Child.ask
def hurried(self, *question):
    self._patience = 1.0
    return ask(self, *question)
Child.ask = hurried"""


def tensorflow_hangs(folder: Path) -> None:
    place(folder)
    fake(folder, before="signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    refused(folder, "x: T2T614: TensorFlow gave no answer for 1 s", *CROSS_CHECK, code=SHORT_START)
    line = "T2T903 tensorflow did not finish within 1 s; --timeout gives it more seconds, smaller inputs need fewer"
    refused(folder, f"{AT}: {line}", *RECORD, "--timeout", "1")
    fake(folder, got="if key == 'a': time.sleep(600)")
    done = run(folder, *CROSS_CHECK, code=SHORT_ANSWERS)
    line = "x: T2T614: a: TensorFlow gave no answer for 1 s"
    told = "1 variable equal in TensorFlow 0.0 (8 B), 1 problem, 0 not compared"
    assert (done.code, done.out.splitlines(), done.err) == (3, [line, told], "")


ENDS = {
    signal.SIGKILL: (-signal.SIGKILL, ""),
    signal.SIGINT: (130, "t2t: interrupted; no file is half written\n"),
    signal.SIGTERM: (143, "t2t: terminated; no file is half written\n"),
}


def t2t_ends_while_tensorflow_hangs(folder: Path) -> None:
    """Whatever ends t2t, the other process ends, too; all of this goes on at the same time."""
    told = "open(os.environ['FAKE_PROCESSES'] + '.hangs', 'w').close()"
    hang = f"signal.signal(signal.SIGINT, signal.SIG_IGN); {told}; time.sleep(600)"
    cases = [
        (number, arguments, fault)
        for number in ENDS
        for arguments, fault in ((CROSS_CHECK, "before"), (CROSS_CHECK, "got"), (RECORD, "before"))
    ]
    running = []
    for i, (_, arguments, fault) in enumerate(cases):
        own = folder / str(i)
        own.mkdir()
        work = place(own)
        fake(own, **{fault: hang})
        command = [sys.executable, "-m", "t2t", *arguments]
        env = {**ENVIRONMENT, **environment(own)}
        before = contents(work)
        parent = subprocess.Popen(command, cwd=work, env=env, stderr=subprocess.PIPE, encoding="utf-8")
        running.append((own, before, parent))
    try:
        for (number, arguments, _), (own, before, parent) in zip(cases, running, strict=True):
            assert until((own / "processes.hangs").exists)
            (child,) = processes(own)
            assert is_running(child)
            parent.send_signal(number)
            said = parent.communicate(timeout=60)[1]
            assert (parent.returncode, said) == ENDS[number], arguments
            assert until(lambda child=child: not is_running(child), 20), (number, arguments)  # type: ignore[misc]
            assert contents(own / "work") == before
            assert number == signal.SIGKILL or os.listdir(own / "scratch") == []
    finally:
        for own, _, parent in running:
            parent.kill()
            parent.communicate()
            for child in processes(own):
                if is_running(child):
                    os.kill(child, signal.SIGKILL)


# --- 122-123: TensorFlow reads otherwise, or not at all ---

#: A NaN with something in it, the same with another bit, a NaN that signals.
NAN, OTHER, SIGNALLING = 0x7FC00001, 0x7FC00003, 0x7F800001

THEIRS = f"""{{
    "bit": np.array([1, np.nextafter(np.float32(2), np.float32(3))], np.float32),
    "dtype": np.array([1, 2], np.int32),
    "equal": np.array([{NAN}, {SIGNALLING}], np.uint32).view(np.float32),
    "nan": np.array([{OTHER}, {SIGNALLING}], np.uint32).view(np.float32),
    "shape": np.ones((2, 1), np.float32),
    "size": np.ones(3, np.float32),
    "theirs": np.ones(7, np.float32),
}}"""


def tensorflow_reads_otherwise(folder: Path) -> None:
    """All of it is told at once: names, dtypes, shapes, one bit; the bytes of a NaN count."""
    work = place(folder)
    nan = Tensor(1, (2,), struct.pack("<II", NAN, SIGNALLING))
    ours = {name: floats(1, 2) for name in ("bit", "dtype", "ours", "shape", "size")}
    bundle(work / "x", {**ours, "equal": nan, "nan": nan})
    fake(folder, stored=THEIRS)
    done = run(folder, *CROSS_CHECK)
    report = f"{WRONG} with the checkpoint"

    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        f"x: T2T506: bit: 1 of 2 elements differ between t2t and TensorFlow; {report}",
        f"x: T2T506: dtype: t2t reads float32 [2], TensorFlow int32 [2]; {WRONG}",
        f"x: T2T506: nan: 1 of 2 elements differ between t2t and TensorFlow; {report}",
        "x: T2T506: ours: TensorFlow lists no such variable",
        f"x: T2T506: shape: t2t reads float32 [2], TensorFlow float32 [2, 1]; {WRONG}",
        f"x: T2T506: size: t2t reads float32 [2], TensorFlow float32 [3]; {WRONG}",
        "x: T2T506: theirs: only TensorFlow lists this variable (float32 [7])",
        "1 variable equal in TensorFlow 0.0 (8 B), 7 problems, 0 not compared",
    ]


def a_conversion_through_tensorflow_reads_otherwise(folder: Path) -> None:
    place(folder)
    fake(folder, stored=STORED.replace("[3, 4], np.float32", "[3, 4], np.float64"))
    refused(folder, f"x: T2T506: b: t2t reads float32 [2], TensorFlow float64 [2]; {WRONG}", *READER, status=1)


def a_dtype_that_tensorflow_does_not_know(folder: Path) -> None:
    """It says so, or it lists no dtypes at all and would die; what was not compared is never counted as equal."""
    work = place(folder)
    bundle(work / "x", {"a": floats(1, 2), "b": Tensor(25, (2,), b"\x11\x22")})
    told = ["1 variable equal in TensorFlow 0.0 (8 B), 1 not compared"]
    for faults, why in (
        (
            {"got": "if key == 'b': raise ValueError('no dtype: 25')"},
            "TensorFlow says ValueError: no dtype: 25",
        ),
        (
            {"got": "if key == 'b': os.abort()", "listing": "raise TypeError('25 is no DataType')"},
            "TensorFlow 0.0 does not know the dtype float8_e4m3fn",
        ),
    ):
        stored = STORED.replace("np.array([3, 4], np.float32)", "__import__('ml_dtypes').float8_e4m3fn(1).repeat(2)")
        fake(folder, stored=stored, **faults)
        done = run(folder, *CROSS_CHECK)
        assert (done.code, done.out.splitlines(), done.err) == (0, [f"b was not compared: {why}", *told], "")
    mapping = (work / "x.yaml").read_text()
    (work / "x.yaml").write_text(mapping.replace("b: [float32", "b: [float8_e4m3fn"))
    refused(folder, f"x: T2T606: b: {why}; leave it to t2t's own reader", *READER)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_tensorflow_itself_reads_the_same_bits(tmp_path: Path) -> None:
    """Every NaN as it is stored, and the dtypes that few have."""
    nan = Tensor(1, (4,), struct.pack("<4I", NAN, OTHER, SIGNALLING, 0xFF800000))
    few = {f"dtype_{number}": Tensor(number, (2,), b"\x01\x02") for number in (11, 24, 25, 29, 31)}
    bundle(tmp_path / "x", {"nan": nan, **few})
    done = t2t(*CROSS_CHECK, cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("6 variables equal in TensorFlow ")
    assert done.out.endswith(" (26 B), 0 not compared\n")


# --- 124: a bug in t2t ---

BUG = "t2t: this is a bug in t2t: ValueError: forced{}; --debug shows where"

#: A model whose import breaks t2t itself; the message counts the files that are being written.
BREAKING = """\
import os
{imports}


def forced(*_, **__):
    written = [name for name in os.listdir() if name.endswith(".tmp")]
    raise ValueError(f"forced with {{len(written)}} file under way")


{broken} = forced
"""


def bug(done: Done, line: str, notes: Sequence[str], *, debug: bool) -> None:
    """Exit 70 and one line; with --debug the traceback before it, which ends in what was raised."""
    lines = done.err.splitlines()

    assert (done.code, done.out, lines[-1]) == (70, "", line)
    if not debug:
        assert lines == [*notes, line]
    else:
        assert lines[: len(notes) + 1] == [*notes, "Traceback (most recent call last):"]
        assert any(text.endswith(", in forced") for text in lines)
        assert lines[-2].startswith("ValueError: forced")


def t2t_fails_while_it_converts(folder: Path) -> None:
    """When it plans, in the middle of the file, and when the whole file is proven: nothing of it stays."""
    (folder / "mappings").mkdir()
    for name in ("modules", "checkpoints", "recordings"):
        (folder / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    text = (ROOT / "mappings/madry.yaml").read_text("utf-8")
    (folder / "mappings/madry.yaml").write_text(text.replace("mappings.modules.madry:Madry", "breaking:Madry"))
    (folder / "madry.safetensors").write_bytes(b"an older output")
    project = small(folder)
    assert server().run("small.yaml", cwd=folder).code == 0
    project.edit("small:Small", "breaking:Small")
    for broken, mapping, count in (
        ("t2t.plan.make", "small.yaml", 0),
        ("t2t.checkpoints.bundle.Bundle.read", "small.yaml", 1),
        ("t2t.writers.safetensors._read_back", "small.yaml", 1),
        ("t2t.proof.compare.compare", "mappings/madry.yaml", 1),
    ):
        module = broken.rpartition(".")[0].removesuffix(".Bundle")
        model = "from mappings.modules.madry import Madry" if "madry" in mapping else "from small import Small"
        (folder / "breaking.py").write_text(BREAKING.format(imports=f"import {module}\n{model}", broken=broken))
        for flags in ([], ["--debug"]):
            done = run_in_fork(folder, mapping, "--force", *flags)
            name = model.rpartition(" ")[2]
            notes = [f"note: T2T700 importing breaking:{name}"]
            bug(done, BUG.format(f" with {count} file under way"), notes, debug=bool(flags))


def t2t_fails_beside_tensorflow(folder: Path) -> None:
    """Its process ends, and what it was given in the temporary directory is gone."""
    place(folder)
    fake(folder)
    for broken, arguments in (
        ("t2t.checkpoints.via_tensorflow.ViaTensorFlow._compared", CROSS_CHECK),
        ("t2t.proof.record._result", RECORD),
    ):
        module = broken.rpartition(".")[0].removesuffix(".ViaTensorFlow")
        forced = f"import {module}\ndef forced(*_):\n    raise ValueError('forced')\n{broken} = forced"
        for flags in ([], ["--debug"]):
            before = len(processes(folder))
            done = run(folder, *arguments, *flags, code=forced)
            bug(done, BUG.format(""), [], debug=bool(flags))
            assert len(processes(folder)) == before + 1


FAULTS: dict[int, tuple[Step, ...]] = {
    120: (tensorflow_is_not_installed, tensorflow_cannot_be_imported, tensorflow_is_not_needed, imports_are_seen),
    121: (tensorflow_dies, tensorflow_hangs, t2t_ends_while_tensorflow_hangs),
    122: (tensorflow_reads_otherwise, a_conversion_through_tensorflow_reads_otherwise),
    123: (a_dtype_that_tensorflow_does_not_know,),
    124: (t2t_fails_while_it_converts, t2t_fails_beside_tensorflow),
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Callable[[Path], None]], tmp_path: Path) -> None:
    """Every one of them, each in a folder of its own."""
    for step in steps:
        own = tmp_path / step.__name__
        own.mkdir()
        step(own)
