"""
With `locked`, what the lock does not say is refused, and what it says is not asked again: no torch, no import.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

import t2t
from t2t import api
from t2t.problems import MappingError, OutputError, Problem, T2TError, UsageError
from t2t.review import lock as locks
from t2t.review import locking
from tests.commands import Project, locked_small, python, small, store
from tests.commands import t2t as run
from tests.proof.test_mutate import folder as proven_folder
from tests.proof.test_mutate import record, write
from tests.review.test_stale import HEAD, ROWS, drawn, net
from tests.test_api import fresh, same, values
from tests.test_imports import WATCHED, first_on_path, poison

__all__ = ["proven_folder"]  # the fixture

MEANT = "; if that is meant, run t2t lock small.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """small.yaml in the current directory, and small.lock.json beside it."""
    yield from locked_small(tmp_path, monkeypatch)


@pytest.fixture
def proven(proven_folder: Path) -> Path:
    """m.yaml with a recording, proven and locked."""
    weights = drawn()
    write("m", "Net", HEAD + ROWS, weights)
    record("m", lambda x: net(weights, x))
    api.lock("m.yaml")
    sys.modules.pop("models", None)
    return proven_folder


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> list[str]:
    with pytest.raises(T2TError) as error:
        call(*arguments, locked=True, **options)
    return str(error.value).splitlines()


def consumed(mapping: str, **options: Any) -> dict[str, Any]:
    return dict(t2t.iter_tensors(mapping, **options))


# --- the same, without what is not needed ---


def test_what_is_written_is_byte_for_byte_the_same(project: Project) -> None:
    t2t.convert("small.yaml", "plain.safetensors")
    sys.modules.pop("small", None)
    notes: list[Problem] = []
    t2t.convert("small.yaml", "locked.safetensors", locked=True, note=notes.append)

    assert Path("plain.safetensors").read_bytes() == Path("locked.safetensors").read_bytes()
    assert notes == []  # nothing was imported
    assert "small" not in sys.modules


def test_so_it_is_as_a_pt_file_in_another_dtype_and_with_a_tie(project: Project) -> None:
    project.edit("map:", "output: {format: pt, dtype: bfloat16}\nmap:")
    with Path("small.py").open("a") as file:
        file.write("        self.again = nn.Linear(4, 3, bias=False)\n")
        file.write("        self.again.weight = self.layers[0].weight\n")
        file.write("        self.register_buffer('table', self.again.weight.new_zeros(4).detach())\n")
    with project.mapping.open("a") as file:
        file.write("- {torch: again.weight, tie: layers.0.weight}\n- {torch: table, fill: 7}\n")
    importlib.invalidate_caches()
    api.lock("small.yaml")

    t2t.convert("small.yaml", "plain.pt")
    t2t.convert("small.yaml", "locked.pt", locked=True)

    assert Path("plain.pt").read_bytes() == Path("locked.pt").read_bytes()
    ref = locks.read("small.lock.json").module.parameters
    assert (ref["again.weight"].tied_to, ref["table"].kind) == ("layers.0.weight", "buffer")


def test_a_proven_conversion_is_the_same_too_and_is_proven(proven: Path) -> None:
    plain = t2t.convert("m.yaml", "plain.safetensors")
    locked = t2t.convert("m.yaml", "locked.safetensors", locked=True)

    assert plain.comparison is not None
    assert locked.comparison is not None
    assert locked.comparison.proven
    assert Path("plain.safetensors").read_bytes() == Path("locked.safetensors").read_bytes()


def test_the_jobs_that_give_a_module_give_the_same(project: Project) -> None:
    module = fresh()
    t2t.load_into(module, "small.yaml", locked=True)

    assert same(values(module), project.state)
    assert same(values(t2t.load("small.yaml", locked=True)), project.state)
    assert same(consumed("small.yaml", locked=True), project.state)


def test_verify_compares_with_a_lock(proven: Path) -> None:
    assert t2t.verify("m.yaml", locked=True).proven


def frameworks(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    done = python("-c", WATCHED.format(before="", frameworks=("torch", "tensorflow")), *arguments, cwd=folder)
    return done.code, (folder / "imported.txt").read_text().split()


def test_torch_is_imported_where_something_is_proven_or_kept_and_only_there(project: Project, tmp_path: Path) -> None:
    assert frameworks(tmp_path, "small.yaml", "--locked") == (0, [])
    assert frameworks(tmp_path, "check", "small.yaml", "--locked") == (0, [])
    assert frameworks(tmp_path, "explain", "small.yaml", "layers.0.bias") == (0, [])
    assert frameworks(tmp_path, "small.yaml") == (0, ["torch"])
    keep = "{torch: layers.1.bias, keep: init, why: as it is}"
    project.edit("{tf: dense_1/bias, torch: layers.1.bias}", keep)
    project.edit("map:", "ignore: [{tf: dense_1/bias, why: kept}]\nmap:")
    with Path("small.py").open("a") as file:
        file.write("        nn.init.zeros_(self.layers[1].bias)\n")
    api.lock("small.yaml")

    assert frameworks(tmp_path, "small.yaml", "--locked") == (0, ["torch"])


def test_torch_is_imported_for_a_proof_and_not_without_one(proven: Path) -> None:
    assert frameworks(proven, "m.yaml", "--locked") == (0, ["torch"])
    assert frameworks(proven, "m.yaml", "--locked", "--unproven") == (0, [])


def test_it_runs_where_torch_cannot_be_imported(project: Project) -> None:
    poison(project.folder / "poison", "torch", "tensorflow")
    env = {"PYTHONPATH": first_on_path(project.folder / "poison")}

    locked = run("small.yaml", "--locked", cwd=project.folder, env=env)
    plain = run("small.yaml", cwd=project.folder, env=env)

    assert (locked.code, locked.err) == (0, "")
    assert project.output.exists()
    assert "a stray module was imported" in plain.err


def test_a_device_that_is_not_there_is_refused_all_the_same(project: Project) -> None:
    with pytest.raises(UsageError):
        t2t.convert("small.yaml", locked=True, device="cuda:99")


# --- what is refused ---

JOBS: dict[str, Callable[..., Any]] = {
    "convert": t2t.convert,
    "load": t2t.load,
    "load_into": lambda mapping, **options: t2t.load_into(fresh(), mapping, **options),
    "iter_tensors": consumed,
}
every_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


@every_job
def test_no_lock(project: Project, job: Callable[..., Any]) -> None:
    Path("small.lock.json").unlink()

    assert refusal(job, "small.yaml") == [
        "small.yaml: T2T509: there is no lock at small.lock.json; run t2t lock small.yaml"
    ]
    assert not project.output.exists()
    assert "small" not in sys.modules  # no code of the mapping's was run instead


@every_job
def test_a_lock_of_names_and_shapes_alone(project: Project, job: Callable[..., Any]) -> None:
    api.lock("small.yaml", names_only=True)
    sys.modules.pop("small", None)

    assert refusal(job, "small.yaml") == [
        "small.yaml:4:1: T2T502 values not checked: the lock is of names and shapes alone; "
        "run t2t lock small.yaml where the weights are"
    ]
    assert not project.output.exists()


@every_job
def test_a_lock_that_was_edited(project: Project, job: Callable[..., Any]) -> None:
    path = Path("small.lock.json")
    tree = json.loads(path.read_text())
    tree["variables"]["dense_0/bias"][2] = "00000000"
    path.write_text(json.dumps(tree))

    assert refusal(job, "small.yaml") == [
        "small.lock.json: T2T620: its variables are not those that its source is the digest of: somebody edited the "
        "lock; write it again with t2t lock"
    ]
    assert not project.output.exists()


@every_job
def test_a_row_that_was_edited(project: Project, job: Callable[..., Any]) -> None:
    project.edit("dense_0/bias, torch: layers.0.bias}", "dense_0/bias, torch: layers.0.bias, flip: [0]}")

    assert refusal(job, "small.yaml") == [
        f"small.yaml:7:3: T2T508 layers.0.bias is not what it was when it was locked{MEANT}"
    ]
    assert not project.output.exists()


@every_job
def test_other_weights(project: Project, job: Callable[..., Any]) -> None:
    """One element of one variable is another; and where it is another checkpoint that was asked for."""
    (project.folder / "other").mkdir()
    other = small(project.folder / "other")
    with t2t.open_checkpoint(project.folder / "small.ckpt") as opened:
        arrays = {name: opened.read(ref) for name, ref in opened.inventory.variables.items()}
    arrays["dense_1/kernel"][0, 0] += 1
    store(other.folder, arrays)
    told = [f"small.yaml:4:1: T2T508 the lock is of other weights: dense_1/kernel differs{MEANT}"]

    assert refusal(job, "small.yaml", checkpoint="other/small.ckpt") == told
    store(project.folder, arrays)
    assert refusal(job, "small.yaml") == told
    assert not project.output.exists()


@every_job
def test_a_checksum_that_differs(project: Project, job: Callable[..., Any]) -> None:
    """The lock says that other bytes come out: of one entry, the last to be known."""
    path = Path("small.lock.json")
    tree = json.loads(path.read_text())
    was = tree["parameters"]["layers.1.weight"][3]
    tree["parameters"]["layers.1.weight"][3] = "00000000"
    path.write_text(json.dumps(tree))

    assert refusal(job, "small.yaml") == [
        "small.yaml:5:1: T2T508 what comes out is not what was locked: layers.1.weight "
        f"(crc32c {was}, locked 00000000){MEANT}"
    ]
    assert not project.output.exists()


@every_job
@pytest.mark.parametrize("dtype", ["", "output: {dtype: float16}\n"], ids=["as it is", "float16"])
def test_values_that_changed_in_a_format_without_checksums(
    project: Project, job: Callable[..., Any], dtype: str
) -> None:
    with t2t.open_checkpoint("small.ckpt") as opened:
        arrays = {name: opened.read(ref) for name, ref in opened.inventory.variables.items()}

    def stored() -> None:
        with h5py.File("small.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array

    stored()
    project.edit("small.ckpt", "small.h5")
    project.edit("map:", f"{dtype}map:")
    api.lock("small.yaml")
    job("small.yaml", locked=True)
    project.output.unlink(missing_ok=True)
    arrays["dense_1/bias"][1] += 1
    stored()

    (told,) = refusal(job, "small.yaml")

    assert told == f"small.yaml:4:1: T2T508 the lock is of other weights: dense_1/bias differs{MEANT}"
    assert not project.output.exists()


def test_a_module_that_changed_is_refused_where_it_is_built(project: Project) -> None:
    """Where nothing needs it, it is not built, and the file is what was locked."""
    text = Path("small.py").read_text()
    Path("small.py").write_text(text.replace("nn.Linear(i, o)", "nn.Linear(i, o, dtype=torch.float64)"))
    Path("small.py").write_text("import torch\n" + Path("small.py").read_text())
    importlib.invalidate_caches()
    told = [
        "small.yaml:2:8: T2T508 the lock is of another small:Small: layers.0.weight, layers.0.bias, layers.1.weight "
        f"and 1 more differ{MEANT}"
    ]

    assert refusal(t2t.load, "small.yaml") == told
    into, *_ = refusal(lambda mapping, **more: t2t.load_into(fresh().double(), mapping, **more), "small.yaml")
    assert [into] == told
    t2t.convert("small.yaml", locked=True)
    assert project.output.exists()


def test_a_module_that_changed_is_refused_before_it_is_proven(proven: Path) -> None:
    models = Path("models.py").read_text()
    Path("models.py").write_text(
        models.replace("nn.Linear(3, 3), nn.Linear(3, 3)", "nn.Linear(3, 3), nn.Linear(3, 3, bias=False)")
    )
    importlib.invalidate_caches()

    assert refusal(t2t.convert, "m.yaml") == [
        "m.yaml:2:8: T2T508 the lock is of another models:Net: second.bias differs; "
        "if that is meant, run t2t lock m.yaml"
    ]
    assert not Path("m.safetensors").exists()


def test_what_load_into_refuses_leaves_the_module_as_it_was(project: Project) -> None:
    module = fresh()
    before = values(module)
    test_a_checksum_that_differs(project, lambda mapping, **more: t2t.load_into(module, mapping, **more))

    assert same(values(module), before)


def test_a_requirement_that_the_locked_module_does_not_meet(proven: Path) -> None:
    text = Path("m.yaml").read_text()
    Path("m.yaml").write_text(text.replace("in_features: 3", "in_features: 4"))

    assert refusal(t2t.convert, "m.yaml", verify=False) == [
        "m.yaml:6:31: T2T505 first.in_features was 3 when it was locked, but require says 4; "
        "build it so and run t2t lock m.yaml"
    ]


def test_everything_that_is_wrong_is_told_at_once(project: Project) -> None:
    project.edit("model: small:Small", "model: small:Smaller")
    project.edit("small.ckpt", "nowhere.ckpt")

    assert refusal(t2t.convert, "small.yaml") == [
        f"small.yaml:2:8: T2T508 the lock is of the model small:Small, the mapping says small:Smaller{MEANT}",
        f"small.yaml:4:1: T2T508 the lock is of the checkpoint small.ckpt, the mapping names nowhere.ckpt{MEANT}",
        "nowhere.ckpt: T2T601: no checkpoint there: neither nowhere.ckpt.index nor nowhere.ckpt exists",
    ]


# --- making one ---


def test_a_lock_is_not_written_where_the_proof_fails(proven: Path) -> None:
    before = Path("m.lock.json").read_bytes()
    text = Path("m.yaml").read_text()
    Path("m.yaml").write_text(text.replace("first.weight, axes: i o -> o i", "first.weight, axes: i o -> i o"))

    with pytest.raises(MappingError) as error:
        api.lock("m.yaml")

    assert [problem.code for problem in error.value.problems] == ["T2T501"]
    assert Path("m.lock.json").read_bytes() == before


def test_an_unproven_lock_says_so(proven: Path) -> None:
    made = api.lock("m.yaml", "elsewhere.json", verify=False)

    assert (made.path, made.proof.unproven) == ("elsewhere.json", "--unproven")
    assert locks.read("elsewhere.json").steps == locks.read("m.lock.json").steps


@pytest.mark.parametrize("place", ["small.yaml", "small.ckpt.index"])
def test_a_lock_is_not_written_over_what_it_is_made_from(project: Project, place: str) -> None:
    before = Path(place).read_bytes()

    with pytest.raises(UsageError) as error:
        api.lock("small.yaml", place, force=True)

    told = f"T2T001 the output {place} is an input: {place}; choose another output with -o"
    assert (str(error.value), Path(place).read_bytes()) == (told, before)


def test_the_command_says_what_it_wrote(project: Project, proven: Path) -> None:
    plain = run("lock", "small.yaml", cwd=project.folder)
    own = run("lock", "m.yaml", cwd=proven)

    assert (plain.code, plain.out.splitlines()) == (
        0,
        ["wrote small.lock.json: 4 parameters, 4 variables", "not proven: the mapping has no verify section"],
    )
    names = run("lock", "m.yaml", "--names-only", "-o", "names.json", cwd=proven)
    assert (names.code, names.out.splitlines()) == (
        0,
        ["wrote names.json: 4 parameters, 4 variables", "not proven: names and shapes alone"],
    )
    wrote, figures, verdict = own.out.splitlines()
    assert (own.code, wrote, verdict) == (0, "wrote m.lock.json: 4 parameters, 4 variables", "proven")
    assert figures.startswith("y: max|Δ| ")


def test_a_module_that_is_given_is_no_way_round_what_it_was_built_with(project: Project) -> None:
    import small as models  # type: ignore[import-not-found]

    module = models.Small([4, 3, 2])
    project.edit("sizes: [4, 3, 2]", "sizes: [4, 3, 2, 9]")

    told = f"small.yaml:2:8: T2T508 the lock is of a model built with another sizes{MEANT}"
    assert refusal(t2t.load_into, module, "small.yaml") == [told]


def test_a_lock_that_nobody_could_read_is_not_written(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path("small.lock.json").read_bytes()
    monkeypatch.setattr(locking, "MAX_BYTES", 100)

    with pytest.raises(OutputError) as error:
        api.lock("small.yaml")

    told = f"small.lock.json: T2T804: the lock would have {len(before)} bytes, the most that one has is 100"
    assert str(error.value) == f"{told}; go without a lock"
    assert Path("small.lock.json").read_bytes() == before
