"""
What the YAML language server, as VS Code and others run it, makes of a schema with names: the gallery's first mapping,
as it stands, whose first line leads to the schema.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT, server
from tests.review.language_server import LanguageServer, command

MAPPING = ROOT / "mappings" / "madry.yaml"
TEXT = MAPPING.read_text("utf-8")
ROW = "- {tf: Variable_3, torch: conv2.bias}"
VARIABLES = {
    "Variable": "float32 [5, 5, 1, 32]",
    "Variable_1": "float32 [32]",
    "Variable_2": "float32 [5, 5, 32, 64]",
    "Variable_3": "float32 [64]",
    "Variable_4": "float32 [3136, 1024]",
    "Variable_5": "float32 [1024]",
    "Variable_6": "float32 [1024, 10]",
    "Variable_7": "float32 [10]",
    "beta1_power": "float32 []",
    "beta2_power": "float32 []",
    "global_step": "int64 []",
}
PARAMETERS = {
    "conv1.weight": "float32 [32, 1, 5, 5]",
    "conv1.bias": "float32 [32]",
    "conv2.weight": "float32 [64, 32, 5, 5]",
    "conv2.bias": "float32 [64]",
    "fc1.weight": "float32 [1024, 3136]",
    "fc1.bias": "float32 [1024]",
    "fc2.weight": "float32 [10, 1024]",
    "fc2.bias": "float32 [10]",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mapping in a folder of its own, where `../schemas/mapping.schema.json` has its names."""
    command()  # skips where there is no server
    folder = tmp_path_factory.mktemp("repository")
    (folder / "mappings").mkdir()
    (folder / "schemas").mkdir()
    shutil.copy(MAPPING, folder / "mappings")
    schema = folder / "schemas" / "mapping.schema.json"
    done = server().run("schema", "mappings/madry.yaml", "-o", str(schema), cwd=ROOT)
    assert (done.code, done.out, done.err) == (0, f"wrote {schema}\n", "")
    return folder / "mappings" / "madry.yaml"


@pytest.fixture(scope="module")
def editor(place: Path) -> Iterator[LanguageServer]:
    with LanguageServer(place.parents[1]) as started:
        yield started


def row(text: str) -> str:
    """The mapping with another row in line 10; | is where the cursor stands."""
    assert TEXT.count(ROW) == 1
    return TEXT.replace(ROW, text)


def flagged(editor: LanguageServer, place: Path, text: str) -> list[tuple[str, int, str]]:
    """What is underlined, its line, and why."""
    lines = text.splitlines()
    found = []
    for problem in editor.problems(place, text):
        start, end = problem["range"]["start"], problem["range"]["end"]
        found.append(
            (lines[start["line"]][start["character"] : end["character"]], start["line"] + 1, problem["message"])
        )
    return found


def test_nothing_is_flagged_in_the_mapping_as_it_stands(editor: LanguageServer, place: Path) -> None:
    assert flagged(editor, place, TEXT) == []


MANY = "and no name with an index <i>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{tf: Varable_3, torch: conv2.bias}", [("Varable_3", f"none of the checkpoint's 11 variables, {MANY}")]),
        (
            "{tf: Variable_3, torch: conv2.bais}",
            [("conv2.bais", f"none of the module's 8 parameters and buffers, {MANY}")],
        ),
        ("{tf: conv, torch: conv2, use: conv2d}", [("conv", f"no variable of the checkpoint lies in it, {MANY}")]),
        ("{tf: 'Variable_<i>', torch: conv2.bias}", []),
        ("{tf: 'conv<i>', torch: 'conv<i>', use: conv2d}", []),
        ("{tf: anything, torch: whatever, optional: true}", []),
    ],
)
def test_a_misspelt_name_is_flagged_and_one_for_many_is_not(
    text: str, found: list[tuple[str, str]], editor: LanguageServer, place: Path
) -> None:
    assert flagged(editor, place, row(f"- {text}")) == [(name, 10, why) for name, why in found]


@pytest.mark.parametrize(
    "text",
    [
        "- {tf: |, torch: conv2.bias}",
        "- {tf: Var|, torch: conv2.bias}",
        "- tf: |\n  torch: conv2.bias",
        "- {torch: conv2.bias, tf: |}",
    ],
)
def test_a_variables_name_is_completed_with_its_shape(text: str, editor: LanguageServer, place: Path) -> None:
    assert editor.completions(place, row(text)) == VARIABLES


def test_the_other_names_are_completed_too(editor: LanguageServer, place: Path) -> None:
    assert editor.completions(place, row("- {tf: Variable_3, torch: |}")) == PARAMETERS
    assert editor.completions(place, row("- {torch: conv2.bias, tie: |}")) == PARAMETERS
    modules = editor.completions(place, row("- {tf: x, torch: |, use: dense}"))
    assert modules["fc1"] == "holds weight float32 [1024, 3136]; bias float32 [1024]"
    assert list(modules) == ["conv1", "conv2", "fc1", "fc2"]
    recipes = editor.completions(place, row("- {tf: Variable_3, torch: conv2, use: |}"))
    assert recipes["dense"].startswith("dense:\n- {tf: kernel, torch: weight, axes: i o -> o i}")
    assert VARIABLES.items() <= editor.completions(place, row("- {tf: [Variable_3, |], torch: x}")).items()
    ignored = editor.completions(place, TEXT.replace("tf: global_step", "tf: |"))
    assert ignored == VARIABLES
    required = editor.completions(place, TEXT + "require:\n- {torch: |}\n")
    assert list(required)[:4] == ["conv1", "conv2", "fc1", "fc2"]  # then the server offers values of attributes


def test_a_names_shape_is_shown_over_it(editor: LanguageServer, place: Path) -> None:
    assert "\nfloat32 \\[64\\]\n" in editor.hover(place, row("- {tf: Var|iable_3, torch: conv2.bias}"))
    over = editor.hover(place, row("- {tf: Variable_3, torch: co|nv2.bias}"))
    assert "\nfloat32 \\[64\\]\n" in over
    assert "Allowed Values" not in over  # the 600 of a large model
    assert "The variable's name in the checkpoint" in editor.hover(place, row("- {tf: 'Var|<i>', torch: conv2.bias}"))
