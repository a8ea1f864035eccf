"""The mapping's JSON schema: whole, strict, and explained; editors show what stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from t2t import grammar
from t2t.rules import Rule
from t2t.tensors import DTYPES
from t2t.writers import WRITERS

ROOT = Path(__file__).resolve().parents[1]
SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "mapping.schema.json").read_text(encoding="utf-8"))


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The node with what its `$ref` brings; what stands beside it comes first."""
    if "$ref" not in node:
        return node
    return {**SCHEMA["definitions"][node["$ref"].removeprefix("#/definitions/")], **node}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that describes a value, with its path; conditions are not descriptions."""
    yield path, node
    for key in ("properties", "definitions"):
        for name, below in node.get(key, {}).items():
            yield from nodes(below, f"{path}/{key}/{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}/{key}")


PROPERTIES = [
    (path, node) for path, node in nodes(SCHEMA) if path.split("/")[-2:-1] in (["properties"], ["definitions"])
]


def test_it_is_a_draft_7_schema() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"

    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_it_is_what_the_program_uses() -> None:
    assert grammar.schema() == SCHEMA


def test_every_property_is_described_and_has_an_example() -> None:
    assert len(PROPERTIES) > 50
    assert [path for path, node in PROPERTIES if not resolved(node).get("description")] == []
    assert [path for path, node in PROPERTIES if not resolved(node).get("examples")] == []


@pytest.mark.parametrize(("path", "node"), PROPERTIES, ids=[path for path, _ in PROPERTIES])
def test_every_example_is_valid(path: str, node: dict[str, Any]) -> None:
    # Draft 7 looks at nothing beside a $ref.
    reference = {key: value for key, value in node.items() if "$ref" not in node or key == "$ref"}
    validator = jsonschema.Draft7Validator({**reference, "definitions": SCHEMA["definitions"]})

    for example in resolved(node)["examples"]:
        assert [error.message for error in validator.iter_errors(example)] == []


def test_no_object_takes_keys_that_nobody_described() -> None:
    """`argument` and what is required are open: they are the model's own."""
    for path, node in nodes(SCHEMA):
        if "object" in node.get("type", []) and path != "/definitions/argument":
            assert "additionalProperties" in node, path
            assert node["additionalProperties"] is False or isinstance(node["additionalProperties"], dict), path
        if "properties" in node and path != "/definitions/required":  # its attributes are the model's own
            assert node["additionalProperties"] is False, path


def test_every_reference_leads_somewhere_and_every_definition_is_used() -> None:
    text = json.dumps(SCHEMA)
    used = {name for name in SCHEMA["definitions"] if f'"#/definitions/{name}"' in text}

    assert used == set(SCHEMA["definitions"])
    assert text.count('"$ref": "#/definitions/') == text.count('"$ref"')


def test_its_dtypes_are_the_ones_that_torch_has() -> None:
    known = [name for name, dtype in DTYPES.items() if dtype.kind != "other"]

    assert SCHEMA["definitions"]["dtype"]["enum"] == known
    assert SCHEMA["definitions"]["floating"]["enum"] == [name for name in known if DTYPES[name].kind == "float"]
    assert set(SCHEMA["definitions"]["input"]["properties"]["dtype"]["enum"]) < set(known)


def test_its_formats_are_the_writers() -> None:
    assert SCHEMA["properties"]["output"]["properties"]["format"]["enum"] == sorted(WRITERS, reverse=True)


def test_a_rows_keys_are_a_rules() -> None:
    keys = set(SCHEMA["definitions"]["row"]["properties"]) - {"tf", "torch", "permute", "with", "select"}

    assert keys < set(Rule.__dataclass_fields__)


def test_a_strangers_validator_refuses_what_ours_refuses() -> None:
    """The rules between keys stand in the schema, so that an editor knows them too."""
    row = {"tf": "a", "torch": "b"}
    validator = jsonschema.Draft7Validator({**SCHEMA["definitions"]["row"], "definitions": SCHEMA["definitions"]})

    assert validator.is_valid(row)
    assert validator.is_valid({**row, "axes": "(a b) -> a b", "dims": {"a": 2}})
    assert not validator.is_valid({**row, "dims": {"a": 2}})
    assert not validator.is_valid({**row, "permute": [0], "dims": {"a": 2}})
    assert not validator.is_valid({**row, "permute": [0], "axes": "a -> a"})
    assert not validator.is_valid({**row, "why": "x"})
    assert not validator.is_valid({**row, "fill": 0})
    assert not validator.is_valid({"torch": "b", "fill": 0, "dtype": "int8"})
    assert not validator.is_valid({"torch": "b", "keep": "init"})


def test_no_expression_in_it_can_explode() -> None:
    """A quantifier within a quantified group is how an expression takes for ever."""
    for path, node in nodes(SCHEMA):
        if "pattern" in node:
            assert "(" not in node["pattern"], path


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.yaml")), ids=lambda path: path.name)
def test_the_mappings_that_come_with_t2t_are_valid_for_a_stranger(path: Path) -> None:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(tree)] == []
