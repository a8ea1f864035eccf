"""The Python API: what is loaded is the caller's own, what is refused changes nothing, and nothing is printed."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import t2t
from t2t.problems import CheckpointError, MappingError, ModuleError, OutputError, Problem, T2TError, UsageError
from tests.commands import ROOT, Project, small, store

NOT_PROVEN = "mappings/wrong.yaml:20:1: T2T501 logits: max|Δ| "


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory; the models that are imported from it don't stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    sys.modules.pop("small", None)
    yield tmp_path
    sys.modules.pop("small", None)


@pytest.fixture
def project(folder: Path) -> Project:
    return small(folder)


@pytest.fixture
def example(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded example, and beside it the same with a plain transpose behind the Flatten."""
    monkeypatch.syspath_prepend(ROOT)
    shutil.copytree(ROOT / "mappings", folder / "mappings", ignore=shutil.ignore_patterns("__pycache__"))
    right = (folder / "mappings" / "madry.yaml").read_text()
    wrong = right.replace("axes: (h w c) o -> o (c h w), dims: {h: 7, w: 7}", "permute: [1, 0]")
    assert wrong != right
    wrong = wrong.replace("verify:\n", "verify:\n  recording: recordings/madry.npz\n")
    (folder / "mappings" / "wrong.yaml").write_text(wrong)
    return folder


def fresh(sizes: tuple[int, ...] = (4, 3, 2)) -> nn.Module:
    """What small.py has, built by hand."""
    module = nn.Module()
    module.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
    return module


def values(module: nn.Module) -> dict[str, Any]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def same(one: dict[str, Any], two: Any) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


# --- load ---


def test_load_gives_a_module_that_is_filled_and_in_eval(project: Project) -> None:
    module = t2t.load("small.yaml")

    assert same(values(module), project.state)
    assert not module.training
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in module.parameters())


def test_a_loaded_module_can_be_trained(project: Project) -> None:
    """Gradients flow and a step changes it: nothing of inference mode is left in its tensors."""
    module: Any = t2t.load("small.yaml").train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)

    module.layers[1](module.layers[0](torch.ones(5, 4))).sum().backward()
    optimizer.step()

    assert not any(np.array_equal(array, project.state[name]) for name, array in values(module).items())


def test_a_proven_module_can_be_trained(example: Path) -> None:
    module = t2t.load("mappings/madry.yaml")

    module(torch.rand(2, 784)).sum().backward()

    assert all(parameter.grad is not None for parameter in module.parameters())


def test_loaded_tensors_are_the_callers_own(project: Project) -> None:
    """Writing into one changes neither the checkpoint nor what is loaded next."""
    before = hashlib.sha256(project.data.read_bytes()).hexdigest()
    module = t2t.load("small.yaml")

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(7)

    assert hashlib.sha256(project.data.read_bytes()).hexdigest() == before
    assert same(values(t2t.load("small.yaml")), project.state)


def test_load_refuses_what_is_not_proven_unless_told(example: Path) -> None:
    with pytest.raises(MappingError) as error:
        t2t.load("mappings/wrong.yaml")

    assert str(error.value).startswith(NOT_PROVEN)
    assert (
        t2t.load("mappings/wrong.yaml", verify=False).state_dict().keys()
        == t2t.load("mappings/madry.yaml").state_dict().keys()
    )


def test_ties_stay_ties(folder: Path) -> None:
    project = small(folder, (3, 3))
    (folder / "small.py").write_text(
        f"{(folder / 'small.py').read_text()}        self.again = nn.Linear(3, 3)\n"
        "        self.again.weight = self.layers[0].weight\n"
    )
    rows = "- {torch: again.weight, tie: layers.0.weight}\n- {torch: again.bias, fill: 0}\n"
    project.mapping.write_text(project.mapping.read_text() + rows)

    module: Any = t2t.load("small.yaml")

    assert module.again.weight is module.layers[0].weight
    assert np.array_equal(module.again.weight.detach().numpy(), project.state["layers.0.weight"])


# --- load_into ---


def test_load_into_fills_a_module_that_exists(project: Project) -> None:
    """The mapping's own model is not even imported; grad flags, strides and the training flag stay."""
    (project.folder / "small.py").write_text("raise AssertionError\n")
    module: Any = fresh()
    module.layers[0].weight.requires_grad_(False)
    module.layers[1].weight = nn.Parameter(torch.zeros(3, 2).t())
    strides = module.layers[1].weight.stride()

    t2t.load_into(module, "small.yaml")

    assert same(values(module), project.state)
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, True, True, True]
    assert module.layers[1].weight.stride() == strides == (1, 2)
    assert module.training


def test_load_into_is_all_or_nothing_when_a_value_is_wrong(project: Project) -> None:
    """NaN in the variable that is read last: what is read first is not copied either."""
    variables = {
        f"dense_{i}/{kind}": np.ascontiguousarray(project.state[f"layers.{i}.{name}"].T)
        for i in (0, 1)
        for kind, name in (("kernel", "weight"), ("bias", "bias"))
    }
    variables["dense_1/bias"][1] = np.nan
    store(project.folder, variables)
    module = fresh()
    before = values(module)

    with pytest.raises(MappingError) as error:
        t2t.load_into(module, "small.yaml")

    assert str(error.value) == (
        "small.yaml:9:8: T2T403 dense_1/bias holds 1 NaN and 0 Inf among 2 elements; if that is meant, give "
        "--allow-nonfinite"
    )
    assert same(values(module), before)
    t2t.load_into(module, "small.yaml", allow_nonfinite=True)
    assert np.isnan(values(module)["layers.1.bias"][1])


def test_load_into_is_all_or_nothing_when_a_shape_is_wrong(project: Project) -> None:
    """torch's own load_state_dict would have overwritten the first layer by then."""
    module = fresh((4, 3, 5))
    before = values(module)

    with pytest.raises(MappingError) as error:
        t2t.load_into(module, "small.yaml")

    assert [problem.code for problem in error.value.problems] == ["T2T304", "T2T304"]
    assert same(values(module), before)


def test_load_into_is_all_or_nothing_when_the_bytes_are_damaged(project: Project) -> None:
    data = bytearray(project.data.read_bytes())
    data[-1] ^= 1
    project.data.write_bytes(data)
    module = fresh()
    before = values(module)

    with pytest.raises(CheckpointError, match="T2T608: dense_1/bias: checksum mismatch"):
        t2t.load_into(module, "small.yaml")

    assert same(values(module), before)


def test_load_into_puts_the_old_values_back_when_the_proof_fails(example: Path) -> None:
    module = t2t.load("mappings/madry.yaml").train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    before = values(module)
    objects = list(module.parameters())

    with pytest.raises(MappingError) as error:
        t2t.load_into(module, "mappings/wrong.yaml")

    assert str(error.value).startswith(NOT_PROVEN)
    assert same(values(module), before)
    assert all(one is two for one, two in zip(objects, module.parameters(), strict=True))
    assert module.training


def test_load_into_puts_the_old_values_back_when_the_user_interrupts(example: Path) -> None:
    """Ctrl-C in the forward pass, which comes after the copy."""
    module: Any = t2t.load("mappings/madry.yaml")
    with torch.no_grad():
        module.fc2.bias.add_(1)
    before = values(module)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    module.fc1.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        t2t.load_into(module, "mappings/madry.yaml")

    assert same(values(module), before)


# --- the others ---


def test_iter_tensors_gives_every_entry_with_memory_of_its_own(project: Project) -> None:
    found = dict(t2t.iter_tensors("small.yaml"))

    assert same(found, project.state)
    for array in found.values():
        array[...] = 0
    assert same(dict(t2t.iter_tensors("small.yaml")), project.state)


def test_iter_tensors_comes_in_the_checkpoints_order_and_may_be_left(project: Project) -> None:
    tensors = t2t.iter_tensors("small.yaml")

    assert next(tensors)[0] == "layers.0.weight"
    tensors.close()  # type: ignore[attr-defined]


def test_convert_says_what_it_did(project: Project) -> None:
    done = t2t.convert("small.yaml", project.folder / "out.safetensors")

    assert done.path == str(project.folder / "out.safetensors")
    assert done.nbytes == (project.folder / "out.safetensors").stat().st_size
    assert (done.comparison, done.unproven) == (None, "the mapping has no verify section")
    assert [step.target for step in done.plan.steps] == list(project.state)
    assert same(load_file(project.folder / "out.safetensors"), project.state)


def test_convert_tells_its_progress_in_bytes(project: Project) -> None:
    told: list[int] = []
    notes: list[Problem] = []

    t2t.convert("small.yaml", progress=told.append, note=notes.append)

    assert told == [48, 12, 24, 8]
    assert [str(note) for note in notes] == ["T2T700 importing small:Small"]


def test_what_is_converted_is_what_is_loaded(example: Path) -> None:
    """Into torch's own load_state_dict, strictly."""
    loaded = t2t.load("mappings/madry.yaml")
    done = t2t.convert("mappings/madry.yaml")

    assert done.path == "madry.safetensors"
    assert done.comparison is not None
    assert done.comparison.proven
    state = {name: torch.from_numpy(array) for name, array in load_file(done.path).items()}
    assert loaded.load_state_dict(state, strict=True).missing_keys == []
    assert same(values(loaded), load_file(done.path))


def test_verify_gives_a_difference_as_a_result(example: Path) -> None:
    right, wrong = t2t.verify("mappings/madry.yaml"), t2t.verify("mappings/wrong.yaml")

    assert (right.proven, wrong.proven) == (True, False)
    assert right.max_delta < 1e-3 < wrong.max_delta
    assert wrong.metric is not None
    assert (wrong.metric.reference > 0.9, wrong.metric.torch > 0.5) == (True, False)


def test_verify_says_where_it_first_differs_and_what_would_have_passed(example: Path) -> None:
    told: list[tuple[int, int]] = []
    right = t2t.verify("mappings/madry.yaml", tried=lambda done, total: told.append((done, total)))
    plain = t2t.verify("mappings/wrong.yaml", diagnose=False, tried=lambda done, total: told.append((done, total)))
    cast = t2t.verify("mappings/wrong.yaml", dtype="float64")

    assert (right.diagnosis, plain.diagnosis, cast.diagnosis, told) == (None, None, None, [])
    (problem,) = plain.problems()
    assert (str(problem.at), problem.hint) == (
        "mappings/wrong.yaml:20:1",
        "t2t verify without --no-diagnosis finds the first layer that differs, and what would have passed",
    )
    wrong = t2t.verify("mappings/wrong.yaml", tried=lambda done, total: told.append((done, total)))
    assert wrong.diagnosis is not None
    assert (wrong.diagnosis.place, wrong.diagnosis.passes, told) == ("fc1", True, [(1, 600)])
    assert (wrong.outputs, wrong.metric) == (plain.outputs, plain.metric)
    assert [str(problem.at) for problem in wrong.problems()] == ["mappings/wrong.yaml:11:3"]


def test_a_diagnosis_that_cannot_be_made_takes_no_verdict_away(example: Path) -> None:
    """A path of verify's layers that the module doesn't have is told, and the figures stand."""
    wrong = example / "mappings" / "wrong.yaml"
    wrong.write_text(wrong.read_text() + '  layers: {fc: "add_2:0"}\n', encoding="utf-8")
    notes: list[Problem] = []

    found = t2t.verify("mappings/wrong.yaml", note=notes.append)

    assert (found.proven, found.diagnosis) == (False, None)
    (told,) = [note for note in notes if note.code == "T2T503"]
    assert told.severity == "warning"
    assert "fc" in told.message


def test_check_returns_problems_and_raises_none(folder: Path) -> None:
    small(folder)
    (folder / "bad.yaml").write_text("t2t: 2\nmap: nothing\n")
    (folder / "gone.yaml").write_text((folder / "small.yaml").read_text().replace("small.ckpt", "gone.ckpt"))

    assert [problem.code for problem in t2t.check("small.yaml")] == ["T2T210"]
    assert [problem.code for problem in t2t.check("nowhere.yaml")] == ["T2T602"]
    assert [problem.code for problem in t2t.check("gone.yaml")] == ["T2T601"]
    assert {problem.code for problem in t2t.check("bad.yaml")} == {"T2T105", "T2T106", "T2T107"}
    assert t2t.check(folder / "small.yaml", checkpoint="gone.ckpt")[0].code == "T2T601"


def test_open_checkpoint_lists_and_reads(project: Project) -> None:
    with t2t.open_checkpoint(project.folder / "small.ckpt") as checkpoint:
        read = {name: checkpoint.read(ref) for name, ref in checkpoint.inventory.variables.items()}

    assert np.array_equal(read["dense_0/kernel"].T, project.state["layers.0.weight"])


def test_explain_gives_facts(project: Project) -> None:
    explanation = t2t.explain("small.yaml", "layers.0.weight")

    (rule,) = explanation.rules
    assert (rule.source, [str(axes) for axes in rule.axes]) == ("dense_0/kernel", ["i o -> o i"])
    assert explanation.step is not None
    assert explanation.step.shape == (3, 4)


@pytest.mark.parametrize("job", ["load", "convert", "verify", "record", "iter_tensors"])
def test_an_option_that_does_not_exist_is_a_type_error(project: Project, job: str) -> None:
    with pytest.raises(TypeError, match=r"^unknown option 'allow_nan'; options are checkpoint, recording, verify, "):
        list(getattr(t2t, job)("small.yaml", allow_nan=True) or [])
    with pytest.raises(TypeError, match=r"^unknown option 'allow_nan'"):
        t2t.load_into(fresh(), "small.yaml", allow_nan=True)  # type: ignore[call-arg]


def test_every_mistake_of_mapping_checkpoint_and_module_is_in_one_error(project: Project) -> None:
    project.edit("dense_1/bias, torch", "dense_1/bais, torch")
    project.edit("layers.0.bias", "layers.0.bais")

    with pytest.raises(MappingError) as error:
        t2t.load("small.yaml")

    assert [problem.code for problem in error.value.problems] == ["T2T202", "T2T201"]


def test_a_module_that_cannot_be_built_is_told_with_what_else_is_wrong(project: Project) -> None:
    project.edit("small:Small", "small:Smell")
    with pytest.raises(ModuleError) as alone:
        t2t.load("small.yaml")
    project.edit("dense_1/bias, torch", "dense_1/bais, torch")
    with pytest.raises(T2TError) as together:
        t2t.load("small.yaml")

    assert [problem.code for problem in alone.value.problems] == ["T2T702"]
    assert [problem.code for problem in together.value.problems] == ["T2T702", "T2T201"]


def test_the_api_says_nothing(example: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small(example)
    t2t.load("mappings/madry.yaml")
    t2t.convert("mappings/madry.yaml")
    t2t.verify("mappings/wrong.yaml")
    t2t.load("small.yaml")
    t2t.load_into(fresh(), "small.yaml")
    dict(t2t.iter_tensors("small.yaml"))
    t2t.check("small.yaml")
    t2t.explain("small.yaml", "layers.0.bias")
    with pytest.raises(T2TError):
        t2t.load("mappings/wrong.yaml")

    assert capfd.readouterr() == ("", "")


def test_paths_may_be_paths(project: Project, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        t2t.load(project.mapping, checkpoint=tmp_path / "gone", verify=False)

    assert error.value.problems[0].code == "T2T601"


def test_a_recording_never_goes_over_an_input(tmp_path: Path) -> None:
    """Not even with force: the images would be lost."""
    (tmp_path / "mappings").mkdir()
    for name in ("modules", "recordings", "madry.yaml"):
        (tmp_path / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    shutil.copytree(ROOT / "mappings" / "checkpoints", tmp_path / "mappings" / "checkpoints")
    images = tmp_path / "mappings" / "checkpoints" / "madry" / "test.npz"
    before = images.read_bytes()

    with pytest.raises(UsageError) as error:
        t2t.record(tmp_path / "mappings" / "madry.yaml", recording=images, force=True)

    assert error.value.problems[0].message == f"the output {images} is an input: {images}"
    assert images.read_bytes() == before


def test_the_mappings_own_recording_is_not_replaced_by_another_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "mappings").mkdir()
    for name in ("modules", "checkpoints", "madry.yaml"):
        (tmp_path / "mappings" / name).symlink_to(ROOT / "mappings" / name)
    shutil.copytree(ROOT / "mappings" / "recordings", tmp_path / "mappings" / "recordings")
    place = tmp_path / "mappings" / "recordings" / "madry.npz"
    other = ROOT / "tests" / "checkpoints" / "data" / "small"

    with pytest.raises(OutputError) as error:
        t2t.record(tmp_path / "mappings" / "madry.yaml", checkpoint=other)

    assert str(error.value) == (
        f"{place}: T2T801: the recording of another checkpoint stands there; "
        "give --recording FILE to keep both, or --force to replace it"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pt", "ends in .pt, but its format is safetensors; write output: {format: pt} in the mapping, or choose"),
        ("w.h5", "ends in .h5, but its format is safetensors; choose"),
    ],
)
def test_a_name_that_promises_another_format_is_refused(project: Project, name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        t2t.convert("small.yaml", name, verify=False)

    assert str(error.value) == f"T2T001 the output {name} {message} a name that ends in .safetensors"
    assert not (project.folder / name).exists()


def test_explain_of_a_module_says_what_it_holds(project: Project) -> None:
    with pytest.raises(
        MappingError, match=r"'layers.0' is written by no row; it holds layers.0.weight, layers.0.bias$"
    ):
        t2t.explain("small.yaml", "layers.0")
