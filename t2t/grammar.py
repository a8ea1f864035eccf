"""
The mapping language's grammar: its JSON schema (draft-07), what that says of keys, and who holds a tree against it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from t2t import packaged

if TYPE_CHECKING:
    import jsonschema


@functools.cache
def schema() -> dict[str, Any]:
    """The schema."""
    loaded: dict[str, Any] = json.loads(text())
    return loaded


def text() -> str:
    """The schema as it is written."""
    return packaged.text("schemas/mapping.schema.json")


@functools.cache
def text_keys() -> frozenset[str]:
    """The keys whose value, or each of a list of values, the schema says is text and nothing else."""
    keys: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.get("properties", {}).items():
                given = resolved(value) if isinstance(value, dict) else {}
                kinds = given.get("type", [])
                kinds = {kinds} if isinstance(kinds, str) else set(kinds)
                if given.get("items", {}).get("type") == "string":
                    kinds.discard("array")
                    kinds.add("string")
                if kinds == {"string"}:
                    keys.add(key)
            for value in node.values():
                visit(value)

    visit(schema())
    return frozenset(keys)


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The part of the schema that a node refers to; the node itself where it refers to none."""
    reference = node.get("$ref", "")
    return schema()["definitions"][reference.rpartition("/")[2]] if reference else node


@functools.cache
def validator() -> Any:
    """What finds everything that the schema refuses in a tree: `iter_errors`."""
    import jsonschema  # a third of the start of commands that read no mapping

    # To JSON schema 7.0 is an integer; to whoever counts with it, it is not.
    types = jsonschema.Draft7Validator.TYPE_CHECKER.redefine("integer", lambda checker, value: type(value) is int)
    extend: Any = jsonschema.validators.extend
    keywords = {"items": _distinct_items(jsonschema.Draft7Validator.VALIDATORS["items"])}
    return extend(jsonschema.Draft7Validator, keywords, type_checker=types)(schema())


def _distinct_items(plain: Any) -> Any:
    """
    The keyword `items`, for which rows that are written alike are one: the first is looked at, for all those after it.

    Hundreds of rows differ in nothing but names, and to the schema one name is as good as another.
    """

    def items(validator: Any, each: Any, instance: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
        if each != {"$ref": "#/definitions/row"} or not isinstance(instance, list):
            yield from plain(validator, each, instance, schema)
            return
        sound: set[str] = set()
        for index, row in enumerate(instance):
            if (alike := _without_names(row)) in sound:
                continue
            errors = list(validator.descend(row, each, path=index))
            if not errors:
                sound.add(alike)
            yield from errors

    return items


def _without_names(row: Any) -> str:
    """What the schema judges a row by: the row as JSON, with one text for all that stand where any text may."""
    if isinstance(row, dict):
        free = _free_keys()
        row = {key: "any" if value and key in free and isinstance(value, str) else value for key, value in row.items()}
    return json.dumps(row)


#: What may stand in the schema of a key whose value may be any text, but none: of these only minLength is about text.
_FREE = {"type", "minLength", "minimum", "items", "minItems", "additionalProperties", "minProperties"}
_SAID = {"description", "examples"}


@functools.cache
def _free_keys() -> frozenset[str]:
    """The keys of a row whose value, where it is text, may be any text but none."""
    given: dict[str, list[dict[str, Any]]] = {}

    def visit(node: Any) -> None:
        for key, value in node.get("properties", {}).items() if isinstance(node, dict) else ():
            given.setdefault(key, []).append(value)
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(value)

    visit(resolved({"$ref": "row"}))
    return frozenset(
        key
        for key, schemas in given.items()
        if all(node.keys() <= _FREE | _SAID and node.get("minLength", 1) == 1 for node in schemas)
    )
