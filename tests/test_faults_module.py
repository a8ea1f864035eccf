"""
What t2t says of torch modules that cannot be imported, built or filled, and that they don't disturb it.

The numbers are those of the fault catalogue (91-100). Every refusal below is one command in a process of its own: its
exit status, the whole of what it says, the folder as it was before (an older output is in it), a few seconds. What
only `load` and `load_into` do is done in this process.

Not here, or not whole, and why:

    91   the traceback that --debug adds is Python's own
    92   a module is trusted code: one that ends the process itself (os._exit, a crash), that takes the standard streams
         or Python's own functions away, or whose thread never ends, does so; a KeyboardInterrupt of its own is one
    93   a t2t.py in the current directory is what `python -m t2t` runs: that is Python's own rule
    95   a DTensor needs a process group: another subclass of Tensor stands in for it; what t2t can write, complex
         numbers too, is filled
    96   tied parameters are written once, and tied (DESIGN.md): mapping two names is refused, whatever the values
    100  a device that is not there is tried where it is not there
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from t2t import api
from t2t.problems import T2TError
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import Done, server, t2t
from tests.test_faults_checkpoints import Step, contents, run

IMPORTING = "note: T2T700 importing small:Small"

HEAD = """\
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
"""

#: What every constructor below has, if it has nothing else, and the row that fills it.
PARAMETER = "self.p = nn.Parameter(torch.zeros(2))"
ROW = "- {tf: v, torch: p}"


def write(folder: Path, text: str) -> None:
    """small.py anew; Python would take two texts of one length and one second for the same."""
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "small.py").write_text(text)


def small(
    folder: Path, lines: str = PARAMETER, *rows: str, methods: str = "", more: str = "", **variables: np.ndarray
) -> None:
    """A module whose constructor has these lines, a mapping of these rows (from line 5 on), its checkpoint."""
    body = textwrap.indent(lines, " " * 8) + "\n" + textwrap.indent(methods, " " * 4)
    write(folder, HEAD + body)
    arrays = variables or {"v": np.array([1, 2], np.float32)}
    numbers = {"float32": 1, "complex64": 8, "float16": 19}
    tensors = {name: Tensor(numbers[a.dtype.name], a.shape, a.tobytes()) for name, a in arrays.items()}
    bundle(folder / "small.ckpt", tensors)
    mapping = "\n".join(["t2t: 1", "model: small:Small", "source: {checkpoint: small.ckpt}", "map:", *(rows or [ROW])])
    (folder / "small.yaml").write_text(f"{mapping}\n{more}")


def project(folder: Path) -> Done:
    """A module that is all right, and what converting it says; its result stays."""
    small(folder)
    done = server().run("small.yaml", cwd=folder)
    assert (done.code, done.err) == (0, f"{IMPORTING}\n")
    return done


def refused(folder: Path, *lines: str, notes: Sequence[str] | None = (), code: int = 1) -> None:
    """The module gives these lines, after small.yaml; `notes` stand beside that of the import, None for any."""
    done = run(folder, "small.yaml")

    found = [line.removeprefix("small.yaml:") for line in done.out.splitlines()]
    assert (done.code, found) == (code, list(lines))
    assert "Traceback" not in done.err
    if notes is not None:
        assert done.err.splitlines() == [IMPORTING, *(f"note: small.yaml:2:8: T2T706 {note}" for note in notes)]


def unfilled(folder: Path, lines: str, *facts: str, methods: str = "", notes: Sequence[str] | None = ()) -> None:
    """The module is refused for these reasons (T2T704)."""
    small(folder, lines, methods=methods)
    refused(folder, *(f"2:8: T2T704 {fact}" for fact in facts), notes=notes)


# --- 91-93: importing and building ---


def modules_that_cannot_be_imported(folder: Path) -> None:
    project(folder)
    path, subject = folder / "small.py", "small:Small cannot be imported"
    for text, fault in {
        "def broken(:\n    pass\n": f"T2T701 {subject}: {path}:1: SyntaxError: invalid syntax",
        f"{HEAD}\0": f"T2T701 {subject}: SyntaxError: source code string cannot contain null bytes",
        "import gone\n": f"T2T701 {subject}: {path}:1: ModuleNotFoundError: No module named 'gone'",
        "import small.gone\n": f"T2T701 {subject}: {path}:1: ModuleNotFoundError: No module named 'small.gone'; "
        "'small' is not a package",
        "x = 1\nx / 0\n": f"T2T701 {subject}: {path}:2: ZeroDivisionError: division by zero",
        "raise ValueError('one\\ntwo')\n": f"T2T701 {subject}: {path}:1: ValueError: one two",
        "raise SystemExit(0)\n": f"T2T701 {subject}: {path}:1: SystemExit: 0",
        "class Panic(BaseException): pass\nraise Panic('unwrap')\n": f"T2T701 {subject}: {path}:2: Panic: unwrap",
        "class Smal: pass\n": f"T2T702 small:Small cannot be found: there is no attribute Small in {path}; "
        "did you mean Smal",
        "Small = {}\n": "T2T702 small:Small is a dict, not a class or function",
        "class Small: pass\n": "T2T702 small:Small is not a torch.nn.Module; name a module's class, or a function that "
        "returns one",
        "def Small(): return {}\n": "T2T702 small:Small returns a dict, not a torch.nn.Module",
    }.items():
        write(folder, text)
        refused(folder, f"2:8: {fault}")
    path.unlink()
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    hint = "run t2t in the directory that it can be imported from, or name that directory in PYTHONPATH"
    refused(folder, f"2:8: T2T701 {subject}: there is no module small; {hint}")


def modules_that_cannot_be_built(folder: Path) -> None:
    project(folder)
    subject = "2:8: T2T703 small:Small cannot be built"
    for lines, cause in {
        "raise ValueError('odd')": "ValueError: odd",
        "assert False, 'x' * 500": f"AssertionError: {'x' * 117}...",
        "import sys; sys.exit(0)": "SystemExit: 0",
        "raise SystemExit('bye')": "SystemExit: bye",
        "raise GeneratorExit": "GeneratorExit",
    }.items():
        small(folder, lines)
        refused(folder, f"{subject}: {folder}/small.py:8: {cause}")
    write(folder, HEAD.replace("(self)", "(self, size)"))
    missing = "TypeError: Small.__init__() missing 1 required positional argument: 'size'"
    refused(folder, f"{subject}: {missing}")
    (folder / "small.yaml").write_text((folder / "small.yaml").read_text().replace("map:", "with: {siez: 3}\nmap:"))
    refused(folder, f"{subject}: TypeError: Small.__init__() got an unexpected keyword argument 'siez'")
    small(folder, "raise KeyboardInterrupt")
    done = run(folder, "small.yaml")
    assert (done.code, done.out) == (130, "")
    assert done.err == f"{IMPORTING}\nt2t: interrupted; no file is half written\n"
    small(folder, "raise ValueError('odd')")
    done = run(folder, "small.yaml", "--debug")
    assert (done.code, done.out) == (1, f"small.yaml:{subject}: {folder}/small.py:8: ValueError: odd\n")
    assert "Traceback (most recent call last)" in done.err


#: Each of them in the constructor, and at the top of the file.
DISTURBANCES = {
    "os.chdir('/')": "",
    "torch.set_default_dtype(torch.float64)": "",
    "torch.set_default_device('meta')": "",
    "torch.set_grad_enabled(False)": "",
    "warnings.simplefilter('error')": "",
    "np.seterr(all='raise')": "",
    "torch.manual_seed(5), random.seed(5), np.random.seed(5)": "",
    "sys.path.clear()": "",
    "os.environ.clear()": "",
    "threading.Thread(target=threading.Event().wait, daemon=True).start()": "",
    "print('x' * 3_000_000)": "x" * 3_000_000 + "\n",
    "sys.stderr.write('said\\n')": "said\n",
}


def modules_that_disturb(folder: Path) -> None:
    """The file, the answer and the exit status are those of a module that does nothing else; prints go to stderr."""
    imports = "import os, random, sys, threading, warnings\nimport numpy as np\nimport torch\n"
    buffer = "self.register_buffer('noise', torch.rand(3, dtype=torch.float32, device='cpu'))"
    parameter = "self.p = nn.Parameter(torch.zeros(2, dtype=torch.float32))"
    rows = (ROW, "- {torch: noise, keep: init, why: a test}")
    small(folder, f"{buffer}\n{parameter}", *rows)
    plain = server().run("small.yaml", cwd=folder)
    written = (folder / "small.safetensors").read_bytes()
    before = contents(folder)
    own = (folder / "small.py").read_text()

    assert plain.code == 0
    for line, said in DISTURBANCES.items():
        in_constructor = own.replace(parameter, f"{parameter}\n        {line}")
        for text in (f"{imports}{line}\n{own}", imports + in_constructor):
            write(folder, text)
            done = server().run("small.yaml", cwd=folder)
            assert (done.code, done.out, done.err) == (0, plain.out, f"{IMPORTING}\n{said}"), line
            assert (folder / "small.safetensors").read_bytes() == written, line
            assert contents(folder).keys() == before.keys()


def strays(folder: Path) -> None:
    """Neither in the current directory nor beside the module is another torch taken for the real one."""
    small(folder)
    (folder / "nets").mkdir()
    (folder / "small.py").rename(folder / "nets" / "small.py")
    for name in ("torch", "yaml", "numpy", "json", "safetensors"):
        for place in (folder, folder / "nets"):
            (place / f"{name}.py").write_text("open('canary', 'w')\nraise SystemExit('the wrong one')\n")
    mapping = folder / "small.yaml"
    mapping.write_text(mapping.read_text().replace("small:Small", "nets.small:Small"))
    names = set(contents(folder))
    done = t2t("small.yaml", cwd=folder)

    assert (done.code, done.err) == (0, "note: T2T700 importing nets.small:Small\n")
    assert set(contents(folder)) == {*names, "small.safetensors"}


# --- 94-95: what can be filled ---


def tensors_on_meta(folder: Path) -> None:
    """load_state_dict says that all keys match, and fills nothing."""
    for lines in ("self.p = nn.Parameter(torch.zeros(2, device='meta'))", f"{PARAMETER}\nself.to('meta')"):
        small(folder, lines)
        sys.modules.pop("small", None)
        loaded: Any = api.load("small.yaml")
        assert (loaded.p.device.type, loaded.p.tolist()) == ("cpu", [1, 2])
        assert server().run("small.yaml", cwd=folder).code == 0
        assert load_file(folder / "small.safetensors")["p"].tolist() == [1, 2]
    told = "small:Small was built with its weights: {} is computed from a parameter"
    unfilled(
        folder,
        "self.register_buffer('p', torch.zeros(2, device='meta'))",
        "p is a buffer that the constructor leaves on the meta device",
        notes=[told.format("p")],
    )
    unfilled(
        folder,
        f"{PARAMETER}\nself.register_buffer('q', torch.zeros(2, device='meta'), persistent=False)",
        "q is a buffer on the meta device and outside the state_dict",
        notes=[told.format("q")],
    )
    small(folder)
    module = nn.Module()
    module.p = nn.Parameter(torch.zeros(2, device="meta"))
    assert problem_of(lambda: api.load_into(module, "small.yaml")) == (
        "T2T704 p cannot be copied: one side is on the meta device"
    )


def what_is_no_plain_tensor(folder: Path) -> None:
    project(folder)
    lazy = "has no shape before the first forward pass; give the lazy layer its sizes"
    by_state_dict = "is made by its state_dict and is neither a parameter nor a buffer"
    unfilled(folder, "self.l = nn.LazyLinear(3)", f"l.weight {lazy}", f"l.bias {lazy}")
    unfilled(folder, "self.register_buffer('p', torch.eye(2).to_sparse())", "p is sparse_coo, not a plain tensor")
    sparse = "self.p = nn.Parameter(torch.eye(2).to_sparse(), requires_grad=False)"
    unfilled(folder, sparse, "p is sparse_coo, not a plain tensor")
    unfilled(
        folder,
        "class Mine(torch.Tensor): pass\nself.p = nn.Parameter(torch.ones(2).as_subclass(Mine))",
        "p is a Mine, not a plain tensor",
    )
    quantised = "self.register_buffer('p', torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))"
    unfilled(folder, quantised, "p is quantised, not a plain tensor", notes=None)
    nested = "self.p = nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))"
    unfilled(folder, nested, "p is nested, not a plain tensor", notes=None)
    half = "self.p = nn.Parameter(torch.ones(2, dtype=torch.complex32))"
    unfilled(folder, half, "p has dtype complex32, which t2t does not write", notes=None)
    extra = "def get_extra_state(self): return {'x': 1}\n"
    unfilled(folder, PARAMETER, f"_extra_state {by_state_dict}", methods=extra)
    for method, cause in {
        "def state_dict(self): return {}": (
            "TypeError: Small.state_dict() got an unexpected keyword argument 'keep_vars'"
        ),
        "def state_dict(self, **_): return None": "AttributeError: 'NoneType' object has no attribute 'items'",
        "def state_dict(self, **_): raise ValueError('no')": f"{folder}/small.py:9: ValueError: no",
        "def state_dict(self, **_): raise SystemExit(0)": f"{folder}/small.py:9: SystemExit: 0",
    }.items():
        unfilled(folder, PARAMETER, f"the module's state_dict cannot be read: {cause}", methods=f"{method}\n")
    keys = "def state_dict(self, **_): return {5: self.p}\n"
    left_out = "p is a parameter that its state_dict leaves out"
    unfilled(folder, PARAMETER, f"5 {by_state_dict}", left_out, methods=keys)

    # What a parametrization computes is no parameter; its originals are, and are asked for.
    small(folder, "self.l = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))", "- {tf: v, torch: l.bias}")
    refused(
        folder,
        *(
            f"4:1: T2T204 parameter l.parametrizations.weight.{name} is written by no row; "
            "map it, or give it fill or keep"
            for name in ("original0 (float32 [2, 1])", "original1 (float32 [2, 2])")
        ),
        notes=["small:Small was built with its weights: l.parametrizations.weight is a ParametrizationList"],
    )
    small(folder, "self.register_buffer('p', torch.ones(2), persistent=False)")
    refused(folder, "5:18: T2T202 p is not a parameter or persistent buffer of the module")


def complex_numbers_and_buffers_beside(folder: Path) -> None:
    """They are filled; what is not persistent stays as it was built, and out of the file."""
    lines = "self.p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))\n"
    lines += "self.register_buffer('q', torch.ones(2), persistent=False)"
    values = np.array([1 + 2j, -0.5j], np.complex64)
    small(folder, lines, v=values)
    loaded: Any = api.load("small.yaml")

    assert server().run("small.yaml", cwd=folder).code == 0
    assert {k: v.tolist() for k, v in load_file(folder / "small.safetensors").items()} == {"p": values.tolist()}
    assert (loaded.p.tolist(), loaded.q.tolist()) == (values.tolist(), [1, 1])


# --- 96-98: ties and shapes ---


def ties(folder: Path) -> None:
    tied = f"{PARAMETER}\nself.q = self.p"
    values = np.array([1, 2], np.float32)
    small(folder, tied, ROW, "- {torch: q, tie: p}")
    assert server().run("small.yaml", cwd=folder).code == 0
    written = load_file(folder / "small.safetensors")
    assert {name: array.tolist() for name, array in written.items()} == {"p": [1, 2], "q": [1, 2]}
    loaded: Any = api.load("small.yaml")
    assert loaded.q is loaded.p

    small(folder, tied)
    hint = "it is the same Parameter as p: write tie: p"
    refused(folder, f"4:1: T2T204 parameter q (float32 [2]) is written by no row; {hint}")
    same = "6:18: T2T203 q is the same Parameter as p, which line 5 writes; write tie: p in one of the rows"
    for other in (values, -values):
        small(folder, tied, ROW, "- {tf: w, torch: q}", v=values, w=other)
        refused(folder, same)
    small(folder, f"{tied}\nself.r = nn.Parameter(torch.zeros(2))", ROW, "- {tf: w, torch: r}", "- {torch: q, tie: r}",
          v=values, w=values)  # fmt: skip
    hint = "tie names that share one Parameter; map it instead"
    refused(folder, f"7:19: T2T404 q is not the same Parameter as r in the module; {hint}")
    small(folder, tied, ROW, "- {torch: q, tie: pp}")
    refused(folder, "6:19: T2T202 pp is not a parameter or persistent buffer of the module; did you mean p")
    # One memory under two Parameters would be written twice, and whoever is last would win.
    shared = "shares memory with p and is another object; tie them by assigning the Parameter itself"
    unfilled(
        folder,
        f"{PARAMETER}\nself.q = nn.Parameter(self.p.data)",
        f"q {shared}",
        notes=None,
    )


def odd_strides(folder: Path) -> None:
    """Channels-last is filled as anything else; what lies in less memory than it has elements is refused."""
    values = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    lines = "self.p = nn.Parameter(torch.zeros(3, 2, 2, 2).to(memory_format=torch.channels_last))"
    small(folder, lines, "- {tf: v, torch: p, axes: h w i o -> o i h w}", v=values)
    assert server().run("small.yaml", cwd=folder).code == 0
    assert np.array_equal(load_file(folder / "small.safetensors")["p"], values.transpose(3, 2, 0, 1))
    expanded = "p is expanded: shape [2] lies in less memory; use .clone() where the constructor expands it"
    for make in ("nn.Parameter(torch.zeros(1).expand(2))", "nn.Buffer(torch.zeros(1).expand(2))"):
        unfilled(folder, f"self.p = {make}", expanded)


def shapes_that_would_broadcast(folder: Path) -> None:
    project(folder)
    for shape, given, axes, line in (
        ((5,), (1,), "", "5:3: T2T304 p: v [1], but the parameter is [5]"),
        ((1,), (), "", "5:3: T2T304 p: v [], but the parameter is [1]"),
        ((), (1,), "", "5:3: T2T304 p: v [1], but the parameter is []"),
        (
            (1, 3),
            (3, 1),
            ", axes: i o -> i o",
            "5:27: T2T304 p: axes 'i o -> i o' turn v [3, 1] into [i=3, o=1], but the parameter is [1, 3]",
        ),
        (
            (3, 3),
            (3, 1),
            ", axes: i o -> i o",
            "5:27: T2T304 p: axes 'i o -> i o' turn v [3, 1] into [i=3, o=1], but the parameter is [3, 3]",
        ),
        (
            (0, 3),
            (3, 0),
            ", axes: i o -> i o",
            "5:27: T2T304 p: axes 'i o -> i o' turn v [3, 0] into [i=3, o=0], but the parameter is [0, 3]",
        ),
    ):
        values = np.ones(given, np.float32)
        small(folder, f"self.p = nn.Parameter(torch.zeros({shape}))", f"- {{tf: v, torch: p{axes}}}", v=values)
        refused(folder, line)
    # A unit axis that is meant is written down.
    small(
        folder,
        "self.p = nn.Parameter(torch.zeros(1))",
        "- {tf: v, torch: p, axes: '-> 1'}",
        v=np.full((), 3, np.float32),
    )
    assert server().run("small.yaml", cwd=folder).code == 0
    assert load_file(folder / "small.safetensors")["p"].tolist() == [3]


# --- 99-100: a module in use ---


def problem_of(call: Callable[[], object]) -> str:
    """The text of the T2TError that the call raises."""
    with pytest.raises(T2TError) as raised:
        call()
    return str(raised.value)


class Used(nn.Module):
    """Parameters of odd strides, tied, of half precision and frozen; and hooks, which say that they ran."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3, 2).t())
        self.again = self.first
        self.last = nn.Parameter(torch.zeros(2, dtype=torch.float16), requires_grad=False)
        self.ran: list[str] = []
        hook: Any = lambda *_: self.ran.append("a hook")  # noqa: E731 - torch types no hooks
        for register in (
            self.first.register_hook,
            self.first.register_post_accumulate_grad_hook,
            self.register_forward_hook,
            self.register_load_state_dict_post_hook,
            self.register_load_state_dict_pre_hook,
        ):
            any_register: Any = register
            any_register(hook)

    def forward(self) -> torch.Tensor:
        return self.first.sum()


FIRST = np.arange(6, dtype=np.float32).reshape(2, 3)
LAST = np.array([1, 2], np.float32)
USED_ROWS = (
    "- {tf: v, torch: first, axes: i o -> i o}",
    "- {torch: again, tie: first}",
    "- {tf: w, torch: last, dtype: float16}",
)


def an_error_in_the_last_parameter(folder: Path) -> None:
    """Of its shape, its values or its bytes: the first one is as it was. torch's load_state_dict fills it."""
    cases: Mapping[str, tuple[np.ndarray, str]] = {
        "shape": (
            np.ones(3, np.float32),
            "small.yaml:7:3: T2T304 last: w [3], but the parameter is [2]",
        ),
        "overflow": (
            np.array([1, 1e5], np.float32),
            "small.yaml:7:31: T2T402 last: float16 cannot hold 1 of 2 values of w (float32), the largest is 100000; "
            "choose a wider dtype",
        ),
        "nan": (
            np.array([1, np.nan], np.float32),
            "small.yaml:7:8: T2T403 w holds 1 NaN and 0 Inf among 2 elements; if that is meant, give --allow-nonfinite",
        ),
    }
    for values, line in cases.values():
        small(folder, PARAMETER, *USED_ROWS, v=FIRST, w=values)
        module = Used()
        assert problem_of(lambda module=module: api.load_into(module, "small.yaml")) == line  # type: ignore[misc]
        assert not any(tensor.any() for tensor in module.state_dict().values())
    small(folder, PARAMETER, *USED_ROWS, v=FIRST, w=LAST)
    data = folder / "small.ckpt.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[-1] ^= 1
    data.write_bytes(damaged)
    module = Used()
    assert problem_of(lambda: api.load_into(module, "small.yaml")).startswith(
        "small.ckpt.data-00000-of-00001: T2T608: w: checksum mismatch"
    )
    assert not any(tensor.any() for tensor in module.state_dict().values())
    with pytest.raises(RuntimeError, match="size mismatch for last"):
        module.load_state_dict({"first": torch.ones(2, 3), "again": torch.ones(2, 3), "last": torch.ones(3)})
    assert module.first.all()


def what_a_module_in_use_keeps(folder: Path) -> None:
    """Objects, memory, strides, dtypes, requires_grad, ties, gradients, the mode; and no hook runs."""
    small(folder, PARAMETER, *USED_ROWS, v=FIRST, w=LAST)
    module = Used()
    module.forward().backward()  # type: ignore[no-untyped-call]
    first, last, gradient, ran = module.first, module.last, module.first.grad, list(module.ran)
    memory, strides = first.data_ptr(), first.stride()
    api.load_into(module, "small.yaml")

    assert (module.first is first, module.again is first, module.last is last) == (True, True, True)
    assert (first.data_ptr(), first.stride()) == (memory, strides)
    assert first.stride() == (1, 2)
    assert (first.tolist(), last.tolist()) == (FIRST.tolist(), LAST.tolist())
    assert (first.requires_grad, last.requires_grad, last.dtype) == (True, False, torch.float16)
    assert first.grad is gradient
    assert first.grad_fn is None
    assert (module.ran, module.training) == (ran, True)


def devices(folder: Path) -> None:
    project(folder)
    done = run(folder, "small.yaml", "--device", "meta")
    assert (done.code, done.out, done.err) == (2, "", "T2T001 device meta holds no values\n")
    absent = "hpu" if torch.cuda.is_available() else "cuda"
    done = run(folder, "small.yaml", "--device", absent)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"T2T001 device {absent} cannot be used: ")


FAULTS: dict[int, tuple[Step, ...]] = {
    91: (modules_that_cannot_be_imported, modules_that_cannot_be_built),
    92: (modules_that_disturb,),
    93: (strays,),
    94: (tensors_on_meta,),
    95: (what_is_no_plain_tensor, complex_numbers_and_buffers_beside),
    96: (ties,),
    97: (odd_strides,),
    98: (shapes_that_would_broadcast,),
    99: (an_error_in_the_last_parameter,),
    100: (what_a_module_in_use_keeps, devices),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what runs in this process; what it imports, and where from, doesn't stay."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("small", None)


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Step], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them, each in a folder of its own, with the module imported anew."""
    for step in steps:
        own = folder / step.__name__
        own.mkdir()
        monkeypatch.chdir(own)
        sys.modules.pop("small", None)
        step(own)
