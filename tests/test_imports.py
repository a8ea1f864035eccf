"""
What is imported, and what is not: no framework where none is needed, TensorFlow nowhere, nothing by accident.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, ROOT, Done, Project, python, small, t2t

FRAMEWORKS = ("torch", "tensorflow")
#: What any import of numpy, yaml or torch would run, were it found before the real one.
STRAY = "raise SystemExit('a stray module was imported')\n"
#: Runs a command and writes the frameworks that it imported to imported.txt.
WATCHED = """\
import atexit, sys
{before}
from t2t.__main__ import main
try:
    status = main()
finally:
    with open("imported.txt", "w") as file:
        file.write(" ".join(name for name in {frameworks} if name in sys.modules))
sys.exit(status)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small(tmp_path)


def imported(project: Project, *arguments: str, before: str = "") -> tuple[Done, list[str]]:
    done = python("-c", WATCHED.format(before=before, frameworks=FRAMEWORKS), *arguments, cwd=project.folder)
    return done, (project.folder / "imported.txt").read_text().split()


WITHOUT = {
    "check": ["check", "small.yaml"],
    "inspect": ["inspect", "small.ckpt"],
    "explain": ["explain", "small.yaml", "layers.0.weight"],
    "help": ["--help"],
    "help of a code": ["help", "T2T305"],
    "schema": ["schema", "small.yaml"],
    "completion": ["completion", "bash"],
    "a mapping that cannot be read": ["check", "nowhere.yaml"],
}


@pytest.mark.parametrize("arguments", WITHOUT.values(), ids=WITHOUT)
def test_the_command_imports_no_framework(project: Project, arguments: list[str]) -> None:
    done, frameworks = imported(project, *arguments)

    assert done.code == (3 if "nowhere.yaml" in arguments else 0)
    assert done.err == ""
    assert frameworks == []


def test_the_test_above_can_fail(project: Project) -> None:
    """One import of torch, anywhere in what runs, is seen; and convert, which needs torch, imports that alone."""
    _, by_accident = imported(project, "check", "small.yaml", before="import torch")
    done, needed = imported(project, "small.yaml")

    assert by_accident == ["torch"]
    assert (done.code, needed) == (0, ["torch"])


@pytest.mark.parametrize("arguments", WITHOUT.values(), ids=WITHOUT)
def test_the_command_runs_where_neither_framework_can_be_imported(project: Project, arguments: list[str]) -> None:
    poison(project.folder / "poison", *FRAMEWORKS)

    done = t2t(*arguments, cwd=project.folder, env={"PYTHONPATH": first_on_path(project.folder / "poison")})

    assert done.code == (3 if "nowhere.yaml" in arguments else 0)
    assert "a stray module" not in done.err


def poison(folder: Path, *packages: str) -> None:
    for name in packages:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(STRAY)


def first_on_path(folder: Path) -> str:
    return ":".join(filter(None, [str(folder), ENVIRONMENT.get("PYTHONPATH")]))


def test_a_proven_conversion_never_imports_tensorflow(tmp_path: Path) -> None:
    """The example is converted and verified with a tensorflow in front of the real one that ends whoever imports it."""
    poison(tmp_path / "poison", "tensorflow")
    (tmp_path / "mappings").symlink_to(ROOT / "mappings")
    env = {"PYTHONPATH": first_on_path(tmp_path / "poison")}

    for arguments in (["mappings/madry.yaml"], ["verify", "mappings/madry.yaml"]):
        done = t2t(*arguments, cwd=tmp_path, env=env)
        assert (done.code, done.out.splitlines()[-1]) == (0, "proven"), done
    stopped = python("-c", "import tensorflow", cwd=tmp_path, env=env)
    assert (stopped.code, stopped.err) == (1, "a stray module was imported\n")


SCRIPT = Path(sys.executable).with_name("t2t")


@pytest.mark.parametrize("name", ["yaml", "numpy", "torch", "json"])
def test_a_stray_module_in_the_current_directory_changes_nothing(project: Project, name: str) -> None:
    """Python's own too: the current directory comes after everything else."""
    (project.folder / f"{name}.py").write_text(STRAY)

    for arguments in (["check", "small.yaml"], ["small.yaml"]):
        done = t2t(*arguments, cwd=project.folder)
        assert (done.code, "a stray module" in done.err) == (0, False), done


def test_a_stray_module_changes_nothing_for_the_console_script(project: Project) -> None:
    if not SCRIPT.exists():
        pytest.skip("t2t is not installed as a script")
    for name in ("yaml", "numpy", "torch", "json", "t2t"):
        (project.folder / f"{name}.py").write_text(STRAY)

    for arguments in (["check", "small.yaml"], ["small.yaml"]):
        done = python(str(SCRIPT), *arguments, cwd=project.folder)
        assert (done.code, "a stray module" in done.err) == (0, False), done


def test_a_model_beside_a_stray_module_is_still_found(project: Project) -> None:
    """The current directory is importable, at the end: the model lives there, and a package of its own too."""
    (project.folder / "models").mkdir()
    shutil.move(project.folder / "small.py", project.folder / "models" / "dense.py")
    (project.folder / "yaml.py").write_text(STRAY)
    project.edit("small:Small", "models.dense:Small")

    done = t2t("small.yaml", cwd=project.folder)

    assert (done.code, done.err) == (0, "note: T2T700 importing models.dense:Small\n")


HEAVY = "sorted({'torch', 'tensorflow', 'numpy', 'yaml', 'jsonschema', 'rich', 'safetensors'} & set(sys.modules))"


def test_while_a_command_runs_cycles_are_collected_but_in_what_was_imported(project: Project) -> None:
    script = (
        "import gc, sys; from t2t.__main__ import main; main(); print(gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )

    done = python("-c", script, "check", "small.yaml", cwd=project.folder)

    assert done.out.splitlines()[-1] == "True True"


def test_importing_t2t_imports_nothing_heavy(tmp_path: Path) -> None:
    done = python("-c", f"import sys, t2t\ndir(t2t)\nprint({HEAVY})", cwd=tmp_path)
    used = python("-c", f"import sys, t2t\nt2t.check\nprint('numpy' in {HEAVY})", cwd=tmp_path)

    assert (done.out, used.out) == ("[]\n", "True\n")


def test_every_public_name_is_there_and_only_those(tmp_path: Path) -> None:
    import t2t as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=r"^module 't2t' has no attribute 'convret'$"):
        _ = package.convret
