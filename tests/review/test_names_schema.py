"""
The schema with a model's names: what jsonschema makes of it, which nobody here wrote; an editor is another test's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from benchmarks.gallery import CHECKPOINTS
from t2t import api, checkpoints, grammar, mapping, plan
from t2t.problems import CheckpointError, OutputError
from t2t.review import names_schema
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from tests.commands import ROOT, Project, server, small
from tests.gallery.shared import MAPPINGS, data
from tests.given import HEAD, lines, parameters, read, variables

CHECKPOINT = variables(
    TensorRef("conv/kernel", "float32", (3, 3, 1, 8)),
    TensorRef("conv/bias", "float32", (8,)),
    TensorRef("conv/bias/Adam", "float32", (8,), slot_of="conv/bias"),
    TensorRef("step", "int64", (), slot_of=""),
    TensorRef("words", "string", (2,), unreadable="strings are not read"),
)
MODULE = parameters(
    ParameterRef("conv.weight", "float32", (8, 1, 3, 3)),
    ParameterRef("conv.bias", "float32", (8,)),
    ParameterRef("head.bias", "float32", (8,), tied_to="conv.bias"),
    ParameterRef("seen", "int64", (), kind="buffer"),
)
MANY = "and no name with an index <i>"
NO_VARIABLE = f"none of the checkpoint's 5 variables, {MANY}"
NO_PARAMETER = f"none of the module's 4 parameters and buffers, {MANY}"


def schema(
    head: str = HEAD,
    checkpoint: CheckpointInventory = CHECKPOINT,
    module: ModuleInventory | None = MODULE,
    rows: str = "- {torch: a, fill: 0}",
) -> dict[str, Any]:
    made = names_schema.named(read(head + rows), checkpoint, module)
    jsonschema.Draft7Validator.check_schema(made)
    return made


def said(made: dict[str, Any], text: str) -> list[str]:
    """What an editor shows for each place that the schema refuses: `errorMessage` where there is one."""
    errors = jsonschema.Draft7Validator(made).iter_errors(yaml.safe_load(text))
    return [error.schema.get("errorMessage", error.message) for error in errors]


def offered(made: dict[str, Any], kind: str) -> dict[str, str]:
    (_, offer) = made["definitions"][f"offered_{kind}"]["anyOf"]
    return dict(zip(offer["enum"], offer["enumDescriptions"], strict=True))


def test_it_refuses_nothing_else_and_allows_nothing_more() -> None:
    """Every mapping of the gallery, and each of the ways to write a row wrong: as with the language's own schema."""
    own = jsonschema.Draft7Validator(grammar.schema())
    made = jsonschema.Draft7Validator(schema())
    row = {"tf": "conv/bias", "torch": "conv.bias"}
    wrong: list[dict[str, Any]] = [
        {**row, "why": "x"},
        {**row, "fill": 0},
        {"tf": 1, "torch": "conv.bias"},
        {"tf": ["conv/bias"], "torch": "conv.bias"},
        {"tf": "conv", "torch": "conv", "use": ""},
        {"tf": "conv", "torch": "conv", "use": "conv2d", "axes": "a -> a"},
        {"torch": "seen", "keep": "init"},
        {"tf": "conv/bias"},
        {**row, "unknown": 1},
        row,
    ]
    head = {"t2t": 1, "model": "m:M", "source": {"checkpoint": "c"}}

    for one in wrong:
        tree = {**head, "map": [one]}
        assert own.is_valid(tree) == made.is_valid(tree), one
        recipe = {**head, "map": [row], "recipes": {"r": [one]}}
        assert own.is_valid(recipe) == made.is_valid(recipe), one


FREE_OR_KNOWN = [
    "map: [{tf: conv/kernel, torch: conv.weight}]",
    "map: [{tf: conv/bias/Adam, torch: conv.bias}]",
    "map: [{tf: 'conv<_i>/kernel', torch: 'block<i>.weight'}]",
    "map: [{tf: [conv/bias, 'conv<i>/bias'], torch: conv.bias, join: v, axes: v -> v}]",
    "map: [{tf: conv, torch: conv, use: conv2d}]",
    "map: [{tf: '', torch: '', use: mine}]",
    "map: [{tf: conv/kernel, torch: conv.weight, use: mine}]",
    "map: [{tf: nowhere, torch: nothing, optional: true}]",
    "map: [{torch: seen, fill: 0}, {torch: head.bias, tie: conv.bias}]",
    "map: [{torch: seen, fill: 0}]\nignore: [{tf: '**/Adam', why: x}, {tf: step, why: x}, {slots: true, why: x}]",
    "map: [{torch: seen, fill: 0}]\ndrop: [{tf: conv/bias, slice: ['1:'], why: x}]",
    "map: [{torch: seen, fill: 0}]\nrequire: [{torch: pool, stride: 2}]",
    "map: [{torch: seen, fill: 0}]\nrecipes: {mine: [{tf: whatever, torch: it.writes}]}",
]
FLAGGED = {
    "map: [{tf: conv/kernal, torch: conv.weight}]": [NO_VARIABLE],
    "map: [{tf: conv, torch: conv.weight}]": [NO_VARIABLE],
    "map: [{tf: 'conv/kernel:0', torch: conv.weight}]": [NO_VARIABLE],
    "map: [{tf: [conv/bias, conv/bia], torch: conv.bias, join: v, axes: v -> v}]": [NO_VARIABLE],
    "map: [{tf: conv/bias, torch: conv.bais}]": [NO_PARAMETER],
    "map: [{tf: conv/bias, torch: conv}]": [NO_PARAMETER],
    "map: [{torch: head.bias, tie: conv.bais}]": [NO_PARAMETER],
    "map: [{torch: sean, fill: 0}]": [NO_PARAMETER],
    "map: [{tf: cnv, torch: cov, use: conv2d}]": [
        f"no variable of the checkpoint lies in it, {MANY}",
        f"no parameter of the module lies in it, {MANY}",
    ],
    "map: [{torch: seen, fill: 0}]\nignore: [{tf: stop, why: x}]": [
        "none of the checkpoint's 5 variables, and no glob with a *"
    ],
    "map: [{torch: seen, fill: 0}]\ndrop: [{tf: conv, slice: ['1:'], why: x}]": [NO_VARIABLE],
}


@pytest.mark.parametrize("text", FREE_OR_KNOWN)
def test_names_that_are_there_or_stand_for_many_are_none_of_its_business(text: str) -> None:
    assert said(schema(), HEAD.replace("map:\n", "") + text) == []


@pytest.mark.parametrize(("text", "messages"), FLAGGED.items(), ids=FLAGGED)
def test_a_name_that_is_not_there_is_flagged(text: str, messages: list[str]) -> None:
    text = HEAD.replace("map:\n", "") + text

    assert said(schema(), text) == messages
    assert said(grammar.schema(), text) == []


@pytest.mark.parametrize("text", FLAGGED)
def test_what_it_flags_check_refuses_too(text: str) -> None:
    """An alarm for what is right would teach to look away."""
    made, problems = mapping.read((HEAD.replace("map:\n", "") + text).encode(), "m.yaml")
    assert made is not None
    problems += plan.make(made, CHECKPOINT, MODULE)[1]

    assert {problem.code for problem in problems} & {"T2T109", "T2T201", "T2T202", "T2T208", "T2T212", "T2T215"}


def test_of_an_unknown_module_nothing_is_flagged() -> None:
    made = schema(module=None)

    assert said(made, HEAD + "- {tf: conv/bias, torch: whatever}\n- {tf: conv, torch: any, use: conv2d}") == []
    assert said(made, HEAD + "- {tf: conv/bais, torch: whatever}") == [NO_VARIABLE]
    assert made["definitions"]["offered_parameter"] == {"allOf": [{}], "anyOf": [{}]}


def test_a_name_is_offered_with_its_shape_and_what_it_is() -> None:
    made = schema()

    assert offered(made, "variable") == {
        "conv/kernel": "float32 [3, 3, 1, 8]",
        "conv/bias": "float32 [8]",
        "step": "int64 []",
        "words": "string [2], strings are not read",
    }
    assert offered(made, "parameter") == {
        "conv.weight": "float32 [8, 1, 3, 3]",
        "conv.bias": "float32 [8]",
        "head.bias": "float32 [8], the same Parameter as conv.bias",
        "seen": "int64 [], buffer",
    }
    assert offered(made, "group") == {
        "conv": "holds kernel float32 [3, 3, 1, 8]; bias float32 [8]; bias/",
        "conv/bias": "holds Adam float32 [8]",
    }
    assert offered(made, "module") == {
        "conv": "holds weight float32 [8, 1, 3, 3]; bias float32 [8]",
        "head": "holds bias float32 [8], the same Parameter as conv.bias",
    }


def test_more_than_four_names_in_one_are_not_all_told() -> None:
    many = variables(*(TensorRef(f"layer/{n}", "float32", ()) for n in range(6)))

    assert offered(schema(checkpoint=many), "group") == {
        "layer": "holds 0 float32 []; 1 float32 []; 2 float32 []; 3 float32 []; ..."
    }


def test_the_recipes_are_offered_with_their_rows_and_the_files_own_by_name() -> None:
    rows = "- {tf: conv, torch: conv, use: mine}\nrecipes: {mine: [{tf: kernel, torch: weight}]}"
    found = offered(schema(rows=rows), "recipe")

    assert found["mine"] == "a recipe of this file"
    assert found["dense"].startswith("dense:\n- {tf: kernel, torch: weight, axes: i o -> o i}\n")
    assert next(iter(found)) == "mine"


def test_examples_of_another_model_are_not_offered() -> None:
    made = schema()
    row = made["definitions"]["own_row"]["properties"]

    assert [key for key in ("tf", "torch", "tie", "use") if "examples" in row[key]] == []
    assert "examples" in row["axes"]
    for named in ("dropped", "ignored"):
        assert "examples" not in made["definitions"][named]["properties"]["tf"]


def test_with_select_a_row_reads_what_is_averaged() -> None:
    checkpoint = variables(
        TensorRef("a", "float32", (2,)), TensorRef("a/EMA", "float32", (2,)), TensorRef("b/EMA", "float32", (3,))
    )
    head = HEAD.replace("{checkpoint: c}", "{checkpoint: c, select: /EMA}")
    made = schema(head, checkpoint)

    assert offered(made, "variable") == {
        "a": "float32 [2], of a/EMA",
        "a/EMA": "float32 [2]",
        "b/EMA": "float32 [3]",
        "b": "float32 [3], of b/EMA",
    }
    assert said(made, head + "- {tf: b, torch: conv.bias}\n- {tf: a, torch: conv.bias, select: none}") == []


def test_the_title_is_the_languages_and_the_files_name() -> None:
    assert schema()["title"] == "t2t mapping, version 1: m.yaml"


def test_a_checkpoint_without_variables_makes_a_schema_all_the_same() -> None:
    made = schema(checkpoint=variables(), module=parameters())

    assert said(made, HEAD + "- {tf: a, torch: b}") == [
        f"none of the checkpoint's 0 variables, {MANY}",
        f"none of the module's 0 parameters and buffers, {MANY}",
    ]


HOSTILE = ["a\x1b[31m", "b\nc", "`rm`", "$(rm)", "${1:x}", "a b", "\u202etxt", "\ud800", "%s", "<b>", "]]>", '"']


def test_names_of_any_characters_are_text_and_nothing_else() -> None:
    checkpoint = variables(*(TensorRef(f"{name}/{name}", "float32", (2,)) for name in HOSTILE))
    made = schema(checkpoint=checkpoint, module=None)
    text = names_schema.text(made)

    assert text.isascii()
    assert {c for c in text if not c.isprintable()} == {"\n"}
    assert json.loads(text) == made
    assert [*offered(made, "variable")] == [f"{name}/{name}" for name in HOSTILE]
    plain = [about for about in offered(made, "group").values() if not about.isprintable()]
    assert plain == []
    tree = {"t2t": 1, "model": "m:M", "source": {}, "map": [{"tf": "b\nc/b\nc", "torch": "x"}]}
    assert jsonschema.Draft7Validator(made).is_valid(tree)


def test_names_that_no_editor_could_do_with_are_refused() -> None:
    """A name of 64k parts lies in 64k others: their text would be two gigabytes."""
    deep = variables(TensorRef("a/" * 2**16, "float32", ()))
    long = variables(*(TensorRef(f"{n}" * 2**16, "float32", ()) for n in range(10, 90)))

    for checkpoint, count in ((deep, 1), (long, 80)):
        with pytest.raises(CheckpointError) as refused:
            schema(checkpoint=checkpoint)
        assert lines(refused.value.problems) == [
            f" T2T611: {count} names have more than 4194304 characters, the most that a schema has; "
            "use the language's own schema: t2t schema"
        ]


def test_a_schema_of_600_variables_stays_below_a_megabyte() -> None:
    names = [
        f"model/encoder/transformer/layer_{i}/{layer}/{variable}"
        for i in range(38)
        for layer in ("attention/query", "attention/key", "attention/value", "attention/output/dense",
                      "attention/output/LayerNorm", "intermediate/dense", "output/dense", "output/LayerNorm")
        for variable in ("kernel", "bias")
    ]  # fmt: skip
    checkpoint = variables(*(TensorRef(name, "float32", (1024, 1024)) for name in names))
    module = parameters(*(ParameterRef(name.replace("/", "."), "float32", (1024, 1024)) for name in names))

    assert len(names) == 608
    assert len(names_schema.text(schema(checkpoint=checkpoint, module=module))) < 1_000_000


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_no_right_mapping_is_flagged(name: str) -> None:
    """The gallery's mappings with weights, each against its checkpoint's and its module's own names."""
    from t2t import module as modules

    path = MAPPINGS / f"{name}.yaml"
    made, problems = mapping.read(path.read_bytes(), str(path))
    assert made is not None
    assert not problems
    place = str(data(CHECKPOINTS[name])) if CHECKPOINTS[name] else made.checkpoint
    with checkpoints.open(place, names=made.names) as opened:
        inventory = opened.inventory
    built = modules.build(made.model, made.arguments or {}, at=made.model_at, allow_import=(), weights=False)
    named = names_schema.named(made, inventory, modules.inventory(built.module, made.model_at))

    assert said(named, path.read_text("utf-8")) == []


def test_it_is_saved_over_a_schema_and_over_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "m.schema.json"
    text = names_schema.text(schema())
    names_schema.save(str(place), grammar.text())
    names_schema.save(str(place), text)
    assert place.read_text() == text
    mine = tmp_path / "m.yaml"
    mine.write_text("t2t: 1\n")

    with pytest.raises(OutputError) as refused:
        names_schema.save(str(mine), text)

    (problem,) = refused.value.problems
    assert str(problem) == (
        f"{mine}: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place"
    )
    assert mine.read_text() == "t2t: 1\n"
    names_schema.save(str(mine), text, force=True)
    assert mine.read_text() == text


# --- the command ---


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return small(tmp_path)


def test_without_a_mapping_it_is_the_languages_own_byte_for_byte(project: Project) -> None:
    own = (ROOT / "schemas" / "mapping.schema.json").read_text("utf-8")

    for flags in ((), ("--format", "json"), ("--format", "github")):
        done = server().run("schema", *flags, cwd=project.folder)
        assert (done.code, done.out, done.err) == (0, own, "")
    assert api.schema() == own


def test_with_a_mapping_it_has_the_checkpoints_names_and_with_its_lock_the_modules(project: Project) -> None:
    done = server().run("schema", "small.yaml", cwd=project.folder)
    assert (done.code, done.err) == (0, "")
    assert done.out == api.schema(project.mapping)
    made = json.loads(done.out)
    assert offered(made, "variable")["dense_0/kernel"] == "float32 [4, 3]"
    assert said(made, project.mapping.read_text()) == []
    assert said(made, project.mapping.read_text().replace("layers.0.weight", "layers.0.wieght")) == []

    assert server().run("lock", "small.yaml", "--unproven", cwd=project.folder).code == 0
    project.data.unlink()
    project.data.with_name("small.ckpt.index").unlink()
    made = json.loads(server().run("schema", "small.yaml", cwd=project.folder).out)

    assert offered(made, "variable")["dense_0/kernel"] == "float32 [4, 3]"
    assert offered(made, "parameter")["layers.0.weight"] == "float32 [3, 4]"
    assert said(made, project.mapping.read_text().replace("layers.0.weight", "layers.0.wieght")) == [
        f"none of the module's 4 parameters and buffers, {MANY}"
    ]


def test_it_is_made_of_a_mapping_that_is_being_written(project: Project) -> None:
    """Rows with problems are why somebody wants completion."""
    project.edit("torch: layers.0.weight", "torhc: layers.0.weight")

    assert offered(json.loads(api.schema(project.mapping)), "variable")["dense_0/bias"] == "float32 [3]"


def test_it_is_written_to_a_file_and_over_a_schema_only(project: Project) -> None:
    done = server().run("schema", "small.yaml", "-o", "small.schema.json", cwd=project.folder)
    assert (done.code, done.out, done.err) == (0, "wrote small.schema.json\n", "")
    assert (project.folder / "small.schema.json").read_text() == api.schema(project.mapping)

    done = server().run("schema", "-o", "small.schema.json", "--format", "json", cwd=project.folder)
    assert (done.code, json.loads(done.out)) == (0, {"output": "small.schema.json"})
    before = project.mapping.read_text()

    done = server().run("schema", "-o", "small.yaml", cwd=project.folder)
    assert (done.code, done.out) == (3, "")
    assert done.err == (
        "small.yaml: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place\n"
    )
    assert project.mapping.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.yaml",), 3, "nowhere.yaml:1:1: T2T602 the mapping cannot be read: No such file or directory; "
         "name a mapping, a .yaml file\n"),
        (("broken.yaml",), 1, "broken.yaml:2:1: T2T101 not YAML: while parsing a flow mapping, "
         "did not find expected ',' or '}'\n"),
        (("small.yaml", "--checkpoint", "other.ckpt"), 3, "other.ckpt: T2T601: no checkpoint there: "
         "neither other.ckpt.index nor other.ckpt exists\n"),
        (("--checkpoint", "small.ckpt"), 2, "T2T001 --checkpoint without a mapping; name the mapping, too\n"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_told(arguments: tuple[str, ...], code: int, said: str, project: Project) -> None:
    (project.folder / "broken.yaml").write_text("{t2t: 1\n")
    done = server().run("schema", *arguments, cwd=project.folder)

    assert (done.code, done.out + done.err) == (code, said)
