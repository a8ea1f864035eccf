"""The torch module: imported, built without weights, listed, filled."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from t2t.module import assign, build, check_device, copy_into, inventory, to_torch
from t2t.problems import Location, ModuleError, UsageError
from t2t.tensors import DTYPES, ParameterRef
from t2t.usercode import resolve

Write = Callable[[str], Path]

#: What every module file below starts with.
HEAD = "import torch\nfrom torch import nn\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write `model_under_test.py` into a directory on sys.path; it is forgotten after the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "model_under_test.py"

    def write(text: str) -> Path:
        path.write_text(HEAD + textwrap.dedent(text))
        return path

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_under_test")]:
        del sys.modules[name]


@pytest.fixture
def net(write: Write) -> Callable[[str], str]:
    """A class `Net` whose constructor runs these lines after `super().__init__()`; its import path."""

    def net(lines: str) -> str:
        body = textwrap.indent(textwrap.dedent(lines), " " * 8)
        write(f"class Net(nn.Module):\n    def __init__(self, **kwargs):\n        super().__init__()\n{body}")
        return "model_under_test:Net"

    return net


def told(call: Callable[[], object]) -> str:
    """The text of the error that the call raises."""
    with pytest.raises(ModuleError) as caught:
        call()
    return str(caught.value)


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def filled(model: str, arguments: Mapping[str, object] | None = None) -> tuple[Any, Any]:
    """The same model twice: built by t2t and filled by `assign`, and by its own constructor and `load_state_dict`."""
    reference: Any = resolve(model, None)(**(arguments or {}))
    for index, tensor in enumerate(reference.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(
                torch.linspace(-1, 1, max(tensor.numel(), 1))[: tensor.numel()].reshape(tensor.shape) / (index + 1)
            )
    built = build(model, arguments or {})
    assert built.on_meta
    assert built.notes == ()
    assign(built.module, values_of(reference))
    return built.module.eval(), reference.eval()


# Importing.


def test_a_dotted_attribute_is_found() -> None:
    assert resolve("torch:nn.Linear", None) is nn.Linear


@pytest.mark.parametrize("path", ["os", "os:", ":path", "os.:path", "a b:c", "os:path.", "../evil:Net"])
def test_what_is_not_an_import_path_is_refused(path: str) -> None:
    assert told(lambda: resolve(path, Location("m.yaml", 2, 8))) == (
        f"m.yaml:2:8: T2T701 {path} is not an import path; write package.module:attribute"
    )


def test_a_missing_module_is_refused() -> None:
    assert told(lambda: resolve("no_such.module:Net", None)) == (
        "T2T701 no_such.module:Net cannot be imported: there is no module no_such; "
        "run t2t in the directory that it can be imported from, or name that directory in PYTHONPATH"
    )


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        ("import no_such_thing", 3, "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def broken(:\n    pass", 3, "SyntaxError: invalid syntax"),
        ("x = 1\nx / 0", 4, "ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", 3, "SystemExit: 0"),
        ("raise ValueError('one\\ntwo')", 3, "ValueError: one two"),
        ("raise ValueError", 3, "ValueError"),
        ("import json\njson.loads('{')", 4, "JSONDecodeError: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1)"),
    ],
)  # fmt: skip
def test_an_import_that_fails_shows_the_users_line(write: Write, text: str, line: int, cause: str) -> None:
    path = write(text)

    assert told(lambda: resolve("model_under_test:Net", None)) == (
        f"T2T701 model_under_test:Net cannot be imported: {path}:{line}: {cause}"
    )


def test_an_error_inside_a_package_shows_the_users_line(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "installed_under_test.py").write_text("def check(): raise ValueError('odd')")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    path = write("import installed_under_test\ninstalled_under_test.check()")

    assert told(lambda: resolve("model_under_test:Net", None)) == (
        f"T2T701 model_under_test:Net cannot be imported: {path}:4: ValueError: odd"
    )


def test_a_missing_attribute_names_the_file_and_the_nearest(write: Write) -> None:
    path = write("class Madry(nn.Module): pass")

    assert told(lambda: resolve("model_under_test:Madri", None)) == (
        f"T2T702 model_under_test:Madri cannot be found: there is no attribute Madri in {path}; did you mean Madry"
    )


def test_a_module_object_is_not_a_class(write: Write) -> None:
    write("net = nn.Linear(1, 1)")

    assert told(lambda: resolve("model_under_test:net", None)) == (
        "T2T702 model_under_test:net is a Linear, not a class or function"
    )


def test_the_current_directory_comes_after_everything_else(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    """A `yaml.py` in the current directory does not stand in for the real one, and a module there is found."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "yaml.py").write_text("raise SystemExit('the wrong yaml')")
    (elsewhere / "model_under_test.py").write_text("import yaml\ndef make(): return yaml.__file__\n")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])

    assert "elsewhere" not in str(resolve("model_under_test:make", None)())
    assert sys.path[-1] == str(elsewhere)


def test_only_what_is_under_an_allowed_prefix_is_imported(tmp_path: Path, write: Write) -> None:
    for name in ("good", "good_evil"):
        (tmp_path / "mappings_under_test" / name).mkdir(parents=True)
        (tmp_path / "mappings_under_test" / name / "net.py").write_text(HEAD + "import os\nclass Net(nn.Module): pass")
    allowed = ["mappings_under_test.good"]

    assert resolve("mappings_under_test.good.net:Net", None, allowed).__name__ == "Net"
    assert told(lambda: resolve("mappings_under_test.good_evil.net:Net", None, allowed)) == (
        "T2T705 mappings_under_test.good_evil.net:Net may not be imported: mappings_under_test.good_evil.net is not "
        "under mappings_under_test.good; --allow-import mappings_under_test.good_evil.net allows it"
    )
    assert "mappings_under_test.good_evil.net" not in sys.modules
    assert told(lambda: resolve("mappings_under_test.good.net:os.system", None, allowed)) == (
        "T2T705 mappings_under_test.good.net:os.system may not be imported: os is not under mappings_under_test.good; "
        "--allow-import os allows it"
    )


def test_arguments_are_under_the_allowed_prefixes_too() -> None:
    arguments = {"in_features": 1, "out_features": 1, "dtype": {"get": "os:sep"}}

    assert told(lambda: build("torch.nn:Linear", arguments, allow_import=["torch"])) == (
        "T2T705 os:sep may not be imported: os is not under torch; --allow-import os allows it"
    )


# Building.


def test_parameters_are_built_on_meta_and_buffers_for_real(net: Callable[[str], str]) -> None:
    built = build(
        net("""
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.register_buffer("steps", torch.arange(4.0) * 2)
        self.register_buffer("mask", torch.ones(2).cumsum(0), persistent=False)
        self.plain = torch.full((2,), 7.0)
        self.first = self.steps[1].item()
        """),
        {},
    )
    module: Any = built.module

    assert (built.on_meta, built.notes) == (True, ())
    assert module.weight.is_meta
    assert [module.steps.tolist(), module.mask.tolist(), module.plain.tolist(), module.first] == [
        [0, 2, 4, 6],
        [1, 2],
        [7, 7],
        2.0,
    ]
    assert inventory(module).parameters == {
        "weight": ParameterRef("weight", "float32", (3, 2)),
        "steps": ParameterRef("steps", "float32", (4,), "buffer"),
    }


@pytest.mark.parametrize(
    ("lines", "line", "cause"),
    [
        ("self.weight = nn.Parameter(torch.ones(2))\nself.first = self.weight[0].item()", 7,
         "RuntimeError: Tensor.item() cannot be called on meta tensors"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.weight.data = torch.zeros(2)", 7,
         "RuntimeError: Attempted to call `variable.set_data(tensor)`, but `variable` and `tensor` have incompatible "
         "tensor type."),
        ("self.weight = weight = nn.Parameter(torch.ones(2))\nself.copy = weight * 2", None,
         "copy is computed from a parameter"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.register_buffer('norm', self.weight.detach().norm())", None,
         "norm is computed from a parameter"),
        ("self.inner = nn.Linear(2, 2)\nself.inner.parts = {'a': self.inner.weight[0]}", None,
         "inner.parts is computed from a parameter"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.weight.register_hook(lambda gradient: gradient * 0)", None,
         "weight has a hook"),
        ("self.inner = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))", None,
         "inner.parametrizations.weight is a ParametrizationList"),
        ("self.inner = nn.utils.parametrizations.orthogonal(nn.Linear(2, 3))", None,
         "inner.parametrizations.weight is a ParametrizationList"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.state = [(n, p.clone()) for n, p in self.named_parameters()]",
         None, "state is computed from a parameter"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.state = {'k': [{self.weight * 2}]}", None,
         "state is computed from a parameter"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.state = [self.weight[0]]\nself.state.append(self.state)",
         None, "state is computed from a parameter"),
        ("self.weight = nn.Parameter(torch.ones(2))\nself.hidden = [nn.Linear(2, 2)]", None,
         "hidden is computed from a parameter"),
        ("w = torch.ones(2)\nself.weight = nn.Parameter(w[:1])\nself.other = nn.Parameter(w[1:])", None,
         "something else holds the memory of other"),
    ],
)  # fmt: skip
def test_a_constructor_that_needs_values_gets_them(
    net: Callable[[str], str], tmp_path: Path, lines: str, line: int | None, cause: str
) -> None:
    """The module is then built normally, a note says why, and filling it works all the same."""
    model = net(lines)
    built = build(model, {}, at=Location("m.yaml", 2))
    place = f"{tmp_path}/model_under_test.py:{line}: " if line else ""
    given = {name: torch.full_like(value, 0.5) for name, value in values_of(built.module).items()}
    assign(built.module, given)

    assert not built.on_meta
    assert [(str(note), note.severity) for note in built.notes] == [
        (f"m.yaml:2: T2T706 model_under_test:Net was built with its weights: {place}{cause}", "note")
    ]
    assert all(torch.equal(value, given[name]) for name, value in values_of(built.module).items())


@pytest.mark.parametrize(
    ("expression", "value", "cause"),
    [
        ("float(w.sum())", 2.0, "catches RuntimeError: Tensor.item() cannot be called on meta tensors"),
        ("int(w[0])", 1, "catches RuntimeError: Tensor.item() cannot be called on meta tensors"),
        ("bool((w > 0).all())", True, "catches RuntimeError: Tensor.item() cannot be called on meta tensors"),
        ("w.tolist()", [1.0, 1.0], "catches NotImplementedError: Cannot copy out of meta tensor; no data!"),
        ("w.detach().numpy().tolist()", [1.0, 1.0], "catches TypeError: can't convert meta device type tensor to "
         "numpy. Use Tensor.cpu() to copy the tensor to host memory first."),
        ("nn.functional.linear(torch.ones(2), w[None]).tolist()", [2.0], "computes with the content of a parameter"),
        ("torch.zeros(()).fill_(w[0].detach()).item()", 1.0, "computes with the content of a parameter"),
        ("w.data_ptr() == nn.Parameter(torch.ones(2)).data_ptr()", False, "computes with the content of a parameter"),
    ],
)  # fmt: skip
def test_a_value_that_the_constructor_reads_is_the_real_one(
    net: Callable[[str], str], expression: str, value: object, cause: str
) -> None:
    """It catches the error that meta raises, or there is none and meta gives another value."""
    model = net(f"""
        self.weight = w = nn.Parameter(torch.ones(2))
        try: self.found = {expression}
        except Exception: self.found = None
        """)
    built = build(model, {})

    assert built.module.found == value
    assert [note.message for note in built.notes] == [
        f"model_under_test:Net was built with its weights: its constructor {cause}"
    ]


def test_what_a_constructor_writes_into_its_parameters_needs_no_values(net: Callable[[str], str]) -> None:
    built = build(
        net("""
        self.weight = nn.Parameter(torch.ones(2, 2))
        with torch.no_grad():
            self.weight.copy_(torch.eye(2)).mul_(torch.ones(2))
            self.weight[0] = torch.ones(2)
        self.shape, self.like = self.weight.shape, torch.zeros_like(self.weight, device="cpu")
        try: torch.ones(2).view(3)
        except RuntimeError: self.caught = True
        """),
        {},
    )

    assert (built.on_meta, built.notes) == (True, ())
    assert built.module.caught


def test_looking_for_tensors_runs_no_code_of_the_module(net: Callable[[str], str]) -> None:
    built = build(
        net("""
        class Hostile(dict):
            def fail(self, *_): raise AssertionError("run")
            __iter__ = __eq__ = values = items = keys = __len__ = __class__ = property(fail)
        self.weight = nn.Parameter(torch.ones(2))
        self.held = [Hostile(a=1)]
        """),
        {},
    )

    assert (built.on_meta, built.notes) == (True, ())


def test_a_build_with_weights_is_asked_for_without_a_note(net: Callable[[str], str]) -> None:
    model = net("self.weight = nn.Parameter(torch.randn(3))")
    built = build(model, {}, weights=True)
    torch.manual_seed(0)

    assert (built.on_meta, built.notes) == (False, ())
    assert torch.equal(values_of(built.module)["weight"], torch.randn(3))
    assert not torch.equal(values_of(build(model, {}, weights=True, seed=1).module)["weight"], torch.randn(3))


def test_the_same_call_gives_the_same_random_buffers(net: Callable[[str], str]) -> None:
    model = net("""
        import random, numpy
        self.register_buffer("noise", torch.cat([torch.randn(2), torch.tensor([random.random(), numpy.random.rand()])]))
        """)
    first = values_of(build(model, {}).module)["noise"]
    random.random(), np.random.rand(), torch.randn(1)

    assert torch.equal(values_of(build(model, {}).module)["noise"], first)


def test_the_state_of_the_process_is_put_back(net: Callable[[str], str], tmp_path: Path) -> None:
    model = net("""
        import os, random, warnings
        import numpy as np
        os.chdir("/")
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.manual_seed(5); random.seed(5); np.random.seed(5)
        warnings.simplefilter("ignore")
        """)

    def state() -> list[object]:
        generators = [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # type: ignore[index]
        dtype, device = torch.get_default_dtype(), torch.get_default_device()
        return [os.getcwd(), dtype, device, torch.is_grad_enabled(), [*warnings.filters], *generators]

    before = state()
    build(model, {})

    assert state() == before
    assert nn.Linear(1, 1).weight.device.type == "cpu"


def test_the_hook_is_gone_after_a_constructor_that_fails(net: Callable[[str], str]) -> None:
    model = net("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        build(model, {})

    assert not nn.Linear(1, 1).weight.is_meta


def test_other_threads_build_for_real_meanwhile(write: Write) -> None:
    write("""
        def make(run):
            return nn.Sequential(nn.Linear(1, 1), run())
        """)
    found: list[nn.Linear] = []

    def run() -> nn.Module:
        thread = threading.Thread(target=lambda: found.append(nn.Linear(1, 1)))
        thread.start()
        thread.join()
        return nn.Identity()

    assert build("model_under_test:make", {"run": run}).on_meta
    assert [linear.weight.is_meta for linear in found] == [False]


def test_prints_go_to_stderr(net: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    build(net("print('hello')"), {})

    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("line", "cause"), [("raise SystemExit(0)", "SystemExit: 0"), ("[][1]", "IndexError: list index out of range")]
)
def test_a_constructor_that_fails_shows_the_users_line(
    net: Callable[[str], str], tmp_path: Path, line: str, cause: str
) -> None:
    model = net(line)

    assert told(lambda: build(model, {})) == (
        f"T2T703 model_under_test:Net cannot be built: {tmp_path}/model_under_test.py:6: {cause}"
    )


def test_a_missing_argument_is_named() -> None:
    assert told(lambda: build("torch.nn:Linear", {"in_features": 2})) == (
        "T2T703 torch.nn:Linear cannot be built: TypeError: Linear.__init__() missing 1 required positional argument: "
        "'out_features'"
    )


def test_what_is_not_a_torch_module_is_refused(write: Write) -> None:
    """A class is refused before it is constructed, a function's result after the call."""
    write("""
        class Net:
            def __init__(self): raise AssertionError("constructed")
        def make(): return {}
        """)

    assert told(lambda: build("model_under_test:Net", {})) == (
        "T2T702 model_under_test:Net is not a torch.nn.Module; name a module's class, or a function that returns one"
    )
    assert told(lambda: build("model_under_test:make", {})) == (
        "T2T702 model_under_test:make returns a dict, not a torch.nn.Module"
    )


def test_arguments_are_constructed_and_fetched_at_any_depth(write: Write) -> None:
    write("""
        class Config:
            def __init__(self, parts, dtype): self.parts, self.dtype = parts, dtype
        def make(config, sizes):
            module = nn.Sequential(*config.parts, nn.Linear(*sizes["in out"], dtype=config.dtype))
            return module
        """)
    part = {"new": "torch.nn:Linear", "with": {"in_features": 1, "out_features": 2}}
    config = {"parts": [part, {"new": "torch.nn:ReLU"}], "dtype": {"get": "torch:float16"}}
    arguments = {"config": {"new": "model_under_test:Config", "with": config}, "sizes": {"in out": [2, 3]}}
    refs = inventory(build("model_under_test:make", arguments).module).parameters

    assert [(ref.name, ref.dtype, ref.shape) for ref in refs.values()] == [
        ("0.weight", "float32", (2, 1)),
        ("0.bias", "float32", (2,)),
        ("2.weight", "float16", (3, 2)),
        ("2.bias", "float16", (3,)),
    ]


def test_new_names_a_class() -> None:
    assert told(lambda: build("torch.nn:Sequential", {"x": {"new": "os:system", "with": {"command": "exit 1"}}})) == (
        "T2T702 new: os:system is not a class; new: names a class, get: anything else"
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_two_gigabytes_are_built_in_fifty_megabytes() -> None:
    """
    The normal build of an eighth of it needs all of that, so the test can fail.

    VmHWM, because ru_maxrss of a child starts at what its parent had.
    """
    code = """
        import sys
        from pathlib import Path
        from t2t.module import build

        def peak():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

        def built(size, count):
            layer = {"new": "torch.nn:Linear", "with": {"in_features": size, "out_features": size, "bias": False}}
            return build("torch.nn:ModuleList", {"modules": [layer] * count}, weights=sys.argv[2] == "True")

        built(2, 1)
        before = peak()
        made = built(8192, int(sys.argv[1]))
        print(sum(p.nbytes for p in made.module.parameters()) >> 20, made.on_meta, peak() - before)
        """

    def measured(layers: int, weights: bool) -> list[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), str(layers), str(weights)]
        root = Path(__file__).resolve().parents[1]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout.split()

    size, on_meta, grown = measured(8, False)
    assert (size, on_meta) == ("2048", "True")
    assert int(grown) < 50
    assert int(measured(1, True)[2]) > 250


# The inventory.


def test_tied_parameters_name_their_first(write: Write) -> None:
    """The same Parameter: registered twice, assigned later from another module, inside a module under two names."""
    write("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.emb, self.decoder = nn.Embedding(5, 3), nn.Linear(3, 5)
                self.decoder.weight = self.emb.weight
                self.bias = self.decoder.bias
                self.again = self.decoder
                self.listed = nn.ParameterList([self.bias])
            def forward(self, x):
                return self.decoder(self.emb(x)) + self.listed[0]
        """)
    module, reference = filled("model_under_test:Net")
    refs = inventory(module).parameters
    x = torch.arange(5)

    assert {name: ref.tied_to for name, ref in refs.items()} == {
        "bias": None,
        "emb.weight": None,
        "decoder.weight": "emb.weight",
        "decoder.bias": "bias",
        "again.weight": "emb.weight",
        "again.bias": "bias",
        "listed.0": "bias",
    }
    assert torch.equal(module(x), reference(x))
    for _ in range(2):
        assert module.decoder.weight is module.emb.weight
        assert module.listed[0] is module.decoder.bias is module.bias
        module.to(torch.float64).to("cpu")


REFUSED = [
    ("self.layer = nn.LazyLinear(3)",
     ["layer.weight has no shape before the first forward pass; give the lazy layer its sizes",
      "layer.bias has no shape before the first forward pass; give the lazy layer its sizes"]),
    ("self.register_buffer('b', torch.ones(2, device='meta'))",
     ["b is a buffer that the constructor leaves on the meta device"]),
    ("self.register_buffer('b', torch.ones(2, device='meta'), persistent=False)",
     ["b is a buffer on the meta device and outside the state_dict"]),
    ("self.register_buffer('b', torch.zeros(2, 1).expand(2, 3))",
     ["b is expanded: shape [2, 3] lies in less memory; use .clone() where the constructor expands it"]),
    ("self.register_buffer('b', torch.eye(2).to_sparse())", ["b is sparse_coo, not a plain tensor"]),
    ("class Mine(nn.Parameter): pass\nself.w = Mine(torch.ones(2))", ["w is a Mine, not a plain tensor"]),
    ("self.register_buffer('b', torch.ones(2, dtype=torch.complex32))",
     ["b has dtype complex32, which t2t does not write"]),
    ("a = torch.ones(4)\nself.register_buffer('a', a)\nself.register_buffer('b', a[1:3])",
     ["b shares memory with a and is another object; tie them by assigning the Parameter itself"]),
    ("self.a = nn.Parameter(torch.ones(4))\nself.b = nn.Parameter(self.a.data)",
     ["b shares memory with a and is another object; tie them by assigning the Parameter itself"]),
    ("self.a = nn.Linear(1, 1, bias=False)\ntype(self).get_extra_state = lambda self: {}",
     ["_extra_state is made by its state_dict and is neither a parameter nor a buffer"]),
    ("self.a = nn.Parameter(torch.ones(1))\n"
     "self.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update(b=state.pop('a')))",
     ["b is made by its state_dict and is neither a parameter nor a buffer",
      "a is a parameter that its state_dict leaves out"]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(("lines", "facts"), REFUSED)
def test_what_cannot_be_filled_is_refused_by_name(net: Callable[[str], str], lines: str, facts: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = build(net(lines), {}).module

    assert told(lambda: inventory(module, Location("m.yaml", 2))) == "\n".join(
        f"m.yaml:2: T2T704 {fact}" for fact in facts
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_buffer_is_refused_by_name() -> None:
    module = nn.Module()
    module.register_buffer("q", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8))

    assert told(lambda: inventory(module)) == "T2T704 q is quantised, not a plain tensor"


def test_complex_scalar_and_empty_parameters_are_listed() -> None:
    module = nn.Module()
    module.c = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    module.s = nn.Parameter(torch.ones(()))
    module.e = nn.Parameter(torch.ones(0, 3))

    assert {name: (ref.dtype, ref.shape) for name, ref in inventory(module).parameters.items()} == {
        "c": ("complex64", (2,)),
        "s": ("float32", ()),
        "e": ("float32", (0, 3)),
    }


def test_parts_of_one_memory_that_do_not_overlap_are_fine() -> None:
    module = nn.Module()
    memory = torch.zeros(4)
    module.a, module.b = nn.Parameter(memory[:2]), nn.Parameter(memory[2:])
    copy_into(module, {"a": torch.ones(2), "b": torch.full((2,), 2.0)})

    assert memory.tolist() == [1, 1, 2, 2]


# Filling a module that was just built.


def test_an_lstm_computes_with_what_it_was_given() -> None:
    """nn.LSTM holds its weights a second time, in `_flat_weights`."""
    arguments = {"input_size": 3, "hidden_size": 4, "num_layers": 2, "bidirectional": True}
    module, reference = filled("torch.nn:LSTM", arguments)
    x = torch.linspace(-1, 1, 30).reshape(5, 2, 3)
    names = module._flat_weights_names

    assert torch.equal(module(x)[0], reference(x)[0])
    assert all(held is getattr(module, name) for held, name in zip(module._flat_weights, names, strict=True))


def test_a_list_that_holds_a_parameter_holds_the_filled_one(net: Callable[[str], str]) -> None:
    module, reference = filled(net("self.weight = nn.Parameter(torch.ones(3))\nself.held = [self.weight]"))

    assert module.held[0] is module.weight
    assert torch.equal(module.held[0], reference.weight)


def test_a_parameter_keeps_its_attributes_and_requires_grad(net: Callable[[str], str]) -> None:
    module, _ = filled(net("""
        self.weight = nn.Parameter(torch.ones(3), requires_grad=False)
        self.weight.no_decay = True
        self.number = nn.Parameter(torch.tensor(3), requires_grad=False)
        """))  # fmt: skip

    assert module.weight.no_decay
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False]
    assert type(module.weight) is nn.Parameter


def test_buffers_are_filled_and_non_persistent_ones_left(net: Callable[[str], str]) -> None:
    built = build(
        net("self.norm = nn.BatchNorm1d(2)\nself.register_buffer('mask', torch.ones(2), persistent=False)"), {}
    )
    module: Any = built.module
    given = {
        name: torch.full(ref.shape, 5, dtype=getattr(torch, ref.dtype))
        for name, ref in inventory(module).parameters.items()
    }
    assign(module, given)

    assert {name: value.tolist() for name, value in module.state_dict().items()} == {
        "norm.weight": [5, 5],
        "norm.bias": [5, 5],
        "norm.running_mean": [5, 5],
        "norm.running_var": [5, 5],
        "norm.num_batches_tracked": 5,
    }
    assert module.mask.tolist() == [1, 1]


def test_a_filled_module_trains() -> None:
    module, _ = filled("torch.nn:Linear", {"in_features": 2, "out_features": 1})
    module(torch.ones(1, 2)).sum().backward()

    assert module.weight.grad.tolist() == [[1, 1]]


def test_assign_takes_the_memory_over() -> None:
    array = np.zeros((1, 2), "f4")
    module: Any = build("torch.nn:Linear", {"in_features": 2, "out_features": 1, "bias": False}).module
    assign(module, {"weight": to_torch(array, "float32")})
    array[0, 1] = 3

    assert module.weight.tolist() == [[0, 3]]


def test_every_name_has_to_be_given_and_no_other() -> None:
    module = build("torch.nn:Linear", {"in_features": 2, "out_features": 1}).module

    assert told(lambda: assign(module, {"weight": torch.ones(1, 2), "bais": torch.ones(1)})) == (
        "T2T704 bias has no tensor to fill it\nT2T704 bais is not in the module's state_dict; did you mean bias"
    )
    assert all(parameter.is_meta for parameter in module.parameters())


def test_tied_names_with_different_values_are_refused(net: Callable[[str], str]) -> None:
    module = build(net("self.a = nn.Parameter(torch.ones(2))\nself.b = self.a"), {}).module

    assert told(lambda: assign(module, {"a": torch.ones(2), "b": torch.zeros(2)})) == (
        "T2T404 b and a are one tensor of the module, but their values differ"
    )
    nan = torch.tensor([float("nan"), 1.0])
    assign(module, {"a": nan, "b": nan.clone()})


def test_what_the_constructor_hides_is_named_not_forgotten(net: Callable[[str], str]) -> None:
    """A weak reference prevents filling the object in place, and the list beside it does not hear of the new one."""
    module = build(
        net("""
        import weakref
        self.weight = nn.Parameter(torch.ones(2))
        self.seen, self.held = weakref.ref(self.weight), [self.weight]
        """),
        {},
    ).module

    assert told(lambda: assign(module, {"weight": torch.ones(2)})) == "T2T704 held is still on the meta device"


# Filling a module in use.


def test_copy_into_keeps_strides_objects_and_requires_grad() -> None:
    conv = nn.Conv2d(2, 3, 2, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    conv.weight.requires_grad_(False)
    weight, pointer, strides = conv.weight, conv.weight.data_ptr(), conv.weight.stride()
    value = torch.arange(24.0).reshape(3, 2, 2, 2)
    copy_into(conv, {"weight": value})

    assert strides != value.stride()
    assert (conv.weight is weight, conv.weight.data_ptr(), conv.weight.stride()) == (True, pointer, strides)
    assert torch.equal(conv.weight, value)
    assert not conv.weight.requires_grad


def test_an_error_in_the_last_parameter_leaves_the_first_unchanged() -> None:
    """torch's own load_state_dict overwrites the first, which is why this one checks first."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = values_of(module)
    given = {name: torch.full_like(value, 9.0) for name, value in before.items()} | {"1.bias": torch.ones(1)}

    assert told(lambda: copy_into(module, given)) == (
        "T2T704 1.bias is float32 [2], but its tensor is float32 [1]; nothing is broadcast or cast here"
    )
    assert all(torch.equal(value, before[name]) for name, value in values_of(module).items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        module.load_state_dict(given)
    assert module.state_dict()["0.weight"].tolist() == [[9, 9], [9, 9]]


def test_nothing_is_broadcast_or_cast() -> None:
    module = nn.Linear(2, 1)
    given = {"weight": torch.ones(2, 1), "bias": torch.ones(1, dtype=torch.float64)}

    assert told(lambda: copy_into(module, given)) == (
        "T2T704 weight is float32 [1, 2], but its tensor is float32 [2, 1]; nothing is broadcast or cast here\n"
        "T2T704 bias is float32 [1], but its tensor is float64 [1]; nothing is broadcast or cast here"
    )


def test_a_copy_into_an_expanded_parameter_is_refused() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(1).expand(3))

    assert told(lambda: copy_into(module, {"weight": torch.ones(3)})) == (
        "T2T704 weight is expanded: shape [3] lies in less memory; use .clone() where the constructor expands it"
    )


def test_a_copy_onto_or_from_meta_is_refused() -> None:
    """torch makes it a silent no-op."""
    real, meta = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False, device="meta")
    text = "T2T704 weight cannot be copied: one side is on the meta device"

    assert told(lambda: copy_into(meta, {"weight": torch.ones(1, 1)})) == text
    assert told(lambda: copy_into(real, {"weight": torch.ones(1, 1, device="meta")})) == text


def test_a_parameter_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        module = nn.Linear(1, 1, bias=False)

    assert told(lambda: copy_into(module, {"weight": torch.ones(1, 1)})) == (
        "T2T704 weight was made in inference mode and cannot be written outside"
    )


def test_a_name_that_is_not_given_keeps_its_values() -> None:
    module = nn.Linear(1, 1)
    bias = module.bias.item()
    copy_into(module, {"weight": torch.ones(1, 1)})

    assert (module.weight.item(), module.bias.item()) == (1, bias)


# Arrays.


@pytest.mark.parametrize("dtype", [name for name, dtype in DTYPES.items() if dtype.kind != "other"])
@pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)])
def test_an_array_becomes_a_tensor_of_its_dtype(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, DTYPES[dtype].numpy)
    tensor = to_torch(array, dtype)

    assert (str(tensor.dtype), tuple(tensor.shape)) == (f"torch.{dtype}", shape)
    assert tensor.to(torch.complex128).eq(1).all()
    assert tensor.numel() == 0 or tensor.data_ptr() == array.ctypes.data


def test_bfloat16_keeps_its_bits() -> None:
    numbers = [1.5, -0.0, float("inf"), 3.0e38]

    assert (
        to_torch(np.array(numbers, ml_dtypes.bfloat16), "bfloat16").tolist()
        == torch.tensor(numbers, dtype=torch.bfloat16).tolist()
    )


def test_a_read_only_or_reversed_array_is_copied() -> None:
    """torch would let a caller write into read-only memory, with one warning per process."""
    array = np.arange(3, dtype="f4")
    array.flags.writeable = False
    tensor = to_torch(array, "float32")
    tensor[0] = 7

    assert (tensor.tolist(), array.tolist()) == ([7, 1, 2], [0, 1, 2])
    assert to_torch(np.arange(3, dtype="f4")[::-1], "float32").tolist() == [2, 1, 0]


# Models that others wrote.

SMALL_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
}
SMALL_GPT2 = {
    "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 100, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0
}  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize(
    ("name", "config", "with_", "output", "ties"),
    [
        (
            "BertForPreTraining",
            "BertConfig",
            SMALL_BERT,
            "prediction_logits",
            {
                "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
        ),
        ("GPT2LMHeadModel", "GPT2Config", SMALL_GPT2, "logits", {"lm_head.weight": "transformer.wte.weight"}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_transformer_computes_what_load_state_dict_gives(
    name: str, config: str, with_: dict[str, object], output: str, ties: dict[str, str]
) -> None:
    made = {"new": f"transformers:{config}", "with": with_}
    built = build(f"transformers:{name}", {"config": made})
    refs = inventory(built.module).parameters
    torch.manual_seed(1)
    values = {ref: torch.randn(r.shape) / 8 for ref, r in refs.items() if not r.tied_to}
    values |= {ref: values[r.tied_to] for ref, r in refs.items() if r.tied_to}
    assign(built.module, values)
    reference: Any = resolve(f"transformers:{name}", None)(resolve(f"transformers:{config}", None)(**with_))
    reference.load_state_dict(values, strict=True)
    x = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        ours, theirs = (getattr(module.eval()(input_ids=x), output) for module in (built.module, reference))

    assert built.on_meta
    assert {ref: r.tied_to for ref, r in refs.items() if r.tied_to} == ties
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, torch.zeros_like(ours))


def test_building_imports_nothing_that_takes_seconds() -> None:
    """torch's meta versions of random fills would import sympy: the fills are left out."""
    script = """
import sys
import torch
from t2t import module
for path, arguments in (
    ("torch.nn:Linear", {"in_features": 4, "out_features": 2}),
    ("torch.nn:Embedding", {"num_embeddings": 4, "embedding_dim": 2}),
    ("torch.nn:LayerNorm", {"normalized_shape": 4}),
    ("torch.nn:LSTM", {"input_size": 2, "hidden_size": 2}),
    ("torch.nn:Conv2d", {"in_channels": 1, "out_channels": 1, "kernel_size": 3}),
    ("torch.nn:MultiheadAttention", {"embed_dim": 4, "num_heads": 2}),
):
    assert module.build(path, arguments).on_meta, path
print("sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)

    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


class _OneTensorTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(3)
        self.a = nn.Parameter(w)
        self.b = nn.Parameter(w)


class _AliasOfAParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(3)
        self.a = nn.Parameter(w)
        self.cache = w


class _BufferOverAParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(3)
        self.a = nn.Parameter(w)
        self.register_buffer("b", w)


def test_a_buffer_over_a_parameter_is_refused() -> None:
    built = build(f"{__name__}:_BufferOverAParameter", {})

    assert built.notes[0].message.endswith("was built with its weights: something else holds the memory of a")
    assert told(lambda: inventory(built.module)) == (
        "T2T704 b shares memory with a and is another object; tie them by assigning the Parameter itself"
    )


def test_two_parameters_over_one_tensor_are_refused() -> None:
    """On meta they would come apart, and each would get its own values."""
    built = build(f"{__name__}:_OneTensorTwice", {})

    assert built.notes[0].message.endswith("was built with its weights: something else holds the memory of b")
    with pytest.raises(ModuleError) as error:
        inventory(built.module)
    assert [problem.message for problem in error.value.problems] == ["b shares memory with a and is another object"]


def test_an_alias_of_a_parameter_stays_one() -> None:
    built = build(f"{__name__}:_AliasOfAParameter", {})
    assign(built.module, {"a": torch.tensor([1.0, 2.0, 3.0])})

    assert built.notes[0].message.endswith("was built with its weights: something else holds the memory of a")
    assert isinstance(built.module.cache, torch.Tensor)
    assert built.module.cache.tolist() == [1.0, 2.0, 3.0]


# Devices.

OTHER_DEVICE = "leave it out to use the CPU, or install a torch that has it"


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("hpu", f"device hpu cannot be used: No module named 'torch.hpu'; {OTHER_DEVICE}"),
        (
            "privateuseone",
            f"device privateuseone cannot be used: No module named 'torch.privateuseone'; {OTHER_DEVICE}",
        ),
        (
            "vulkan",
            "device vulkan cannot be used: Could not run 'aten::empty.memory_format' with arguments from the 'Vulkan' "
            f"backend; {OTHER_DEVICE}",
        ),
        ("meta", "device meta holds no values"),
        ("meta:0", "device meta:0 holds no values"),
    ],
)
def test_a_device_that_cannot_hold_values_is_refused(device: str, text: str) -> None:
    with pytest.raises(UsageError) as error:
        check_device(device)
    assert str(error.value) == f"T2T001 {text}"


def test_the_cpu_is_a_device() -> None:
    check_device("cpu")
