"""
The language's JSON schema with the names of one model: an editor then completes them, and flags what is none of them.

Flagged is what the file cannot change: a name without an index that is no variable of the checkpoint, no parameter of
the module. What stands in the file itself (recipes, letters) changes while it is edited, and is never flagged.

It is draft 7, put so that the YAML language server stays quick and says what helps. A place for names has three parts:

    anyOf     an empty schema, and one with all names that nothing fits: their completion, which refuses nothing
    allOf     `if` it is one of the names of this shape, `else` its description: what is shown over a name. (An `enum`
              that may fit would show all of them; a `const` for each takes a quarter of a minute for 600 rows.)
    if, then  what is none of the names must stand for many. `errorMessage` says so, where all names would be listed
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from t2t import grammar, recipes
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.problems import CheckpointError, Location, Problem
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from t2t.writers.atomic import replacing

Schema = dict[str, Any]

#: What every schema of ours begins with, whoever's names it has.
_TITLE = b'"title": "t2t mapping, version '

#: The most characters of all names, with those that they lie in. (A thousand variables have some 100,000.)
MAX_CHARACTERS = 4 * 2**20

#: So many of the names that lie in another are told.
MAX_INSIDE = 4

#: What a name has that stands for many: an index; a star.
_INDEX, _STAR = "<", "[*]"


def named(mapping: MappingFile, checkpoint: CheckpointInventory, module: ModuleInventory | None) -> Schema:
    """
    The schema of this one mapping: the language's, with the names of its checkpoint and of its module. Where the
    module's inventory is not known, its names are free.

    Raises CheckpointError (T2T611) where the names are more than an editor can do with.
    """
    variables, slots = _variables(checkpoint, mapping.select)
    parameters = {ref.name: _parameter(ref) for ref in module.parameters.values()} if module else {}
    groups, modules = _groups(variables, "/", mapping), _groups(parameters, ".", mapping)
    schema = copy.deepcopy(grammar.schema())
    schema["title"] += f": {shown(os.path.basename(mapping.path))}"
    definitions = schema["definitions"]
    # A recipe's own name may be empty: then the row's is a whole name, which is known there, and not worth an offer.
    definitions["variable_names"] = _known(variables)
    definitions["group_names"] = _known(groups, "variable_names")
    definitions["parameter_names"] = _known(parameters)
    definitions["module_names"] = _known(modules, "parameter_names")
    definitions["offered_variable"] = _offered({name: variables[name] for name in variables if name not in slots})
    definitions["offered_group"] = _offered(groups)
    definitions["offered_parameter"] = _offered(parameters)
    definitions["offered_module"] = _offered(modules)
    definitions["offered_recipe"] = _offered(_recipes(mapping))
    definitions["own_row"] = _row(definitions["row"], checkpoint, module)
    schema["properties"]["map"]["items"] = {"$ref": "#/definitions/own_row"}
    none = f"none of the checkpoint's {len(checkpoint.variables)} variables"
    _put(definitions["dropped"], "tf", _names("variable", f"{none}, and no name with an index <i>"))
    _put(definitions["ignored"], "tf", _names("variable", f"{none}, and no glob with a *", _STAR))
    _put(definitions["required"], "torch", _names("module"))
    return schema


def text(schema: Schema) -> str:
    """The schema as a file has it; all of it ASCII, whatever the names are."""
    return json.dumps(schema, indent=1, ensure_ascii=True) + "\n"


def save(path: str, written: str, *, force: bool = False) -> None:
    """
    Writes a schema's text in one step.

    Raises OutputError: T2T801 where another kind of file is in the way (unless `force`), T2T802 or T2T803.
    """
    data = written.encode("ascii")
    with replacing(path, len(data), _is_schema, force=force) as temporary:
        temporary.write(data, 0)


def _is_schema(path: str) -> bool:
    with open(path, "rb") as file:
        return _TITLE in file.read(200)


def _row(row: Schema, checkpoint: CheckpointInventory, module: ModuleInventory | None) -> Schema:
    """A row of `map`. (Those of recipes have names of their own.)"""
    own = copy.deepcopy(row)
    many = "no name with an index <i>"
    no_variable = f"none of the checkpoint's {len(checkpoint.variables)} variables, and {many}"
    no_parameter = ""
    no_module = ""
    if module:
        no_parameter = f"none of the module's {len(module.parameters)} parameters and buffers, and {many}"
        no_module = f"no parameter of the module lies in it, and {many}"
    optional = {"tf": _names("variable"), "torch": _names("parameter")}
    uses = {
        "tf": _names("group", f"no variable of the checkpoint lies in it, and {many}"),
        "torch": _names("module", no_module),
    }
    plain = {
        "tf": _names("variable", no_variable),
        "torch": _names("parameter", no_parameter),
        "tie": _names("parameter", no_parameter),
    }
    for properties in (optional, plain):
        properties["tf"]["items"] = copy.deepcopy(properties["tf"])
    # What is said first is shown first: a name's shape, then what the key is for.
    for properties in (optional, uses, plain):
        for key, names in properties.items():
            names["description"] = row["properties"][key]["description"]
    for key in plain:
        del own["properties"][key]["description"], own["properties"][key]["examples"]
    _put(own, "use", _names("recipe"))
    own["if"] = {"required": ["use"]}
    own["then"] = {"properties": uses}
    # An optional row is left out where neither side has its name.
    own["else"] = {
        "if": {"required": ["optional"]},
        "then": {"properties": optional},
        "else": {"properties": plain},
    }
    return own


def _put(described: Schema, key: str, names: Schema) -> None:
    """Gives a property names in place of its examples, which are another model's."""
    described["properties"][key].pop("examples", None)
    described["properties"][key] |= names


def _names(kind: str, none: str = "", many: str = _INDEX) -> Schema:
    """Text that is completed; with `none`, what is said of text that is no such name, and does not stand for many."""
    names: Schema = {"allOf": [{"$ref": f"#/definitions/offered_{kind}"}]}
    if none:
        names["if"] = {"type": "string", "not": {"$ref": f"#/definitions/{kind}_names"}}
        names["then"] = {"pattern": many, "errorMessage": none}
    return names


def _known(names: Iterable[str], *others: str) -> Schema:
    own: Schema = {"enum": [*names] or [None]}  # which may not be empty
    return {"anyOf": [own, *({"$ref": f"#/definitions/{other}"} for other in others)]} if others else own


def _offered(names: Mapping[str, str]) -> Schema:
    """What refuses nothing, offers the names, and shows what is said of the one that is looked at."""
    told = {name: about for name, about in names.items() if name}
    alike: dict[str, list[str]] = {}
    for name, about in told.items():
        alike.setdefault(about, []).append(name)
    offer = {"not": {}, "type": "string", "enum": [*told], "enumDescriptions": [*told.values()]}
    shapes = [{"if": {"not": {"enum": same}}, "else": {"description": about}} for about, same in alike.items()]
    return {"allOf": shapes or [{}], "anyOf": [{}, *([offer] if told else [])]}


def _variables(checkpoint: CheckpointInventory, select: str) -> tuple[dict[str, str], set[str]]:
    """What is said of each name that a row can read, and which of them are an optimizer's slots."""
    refs = checkpoint.variables
    found = {name: _about(ref, *([ref.unreadable] if ref.unreadable else [])) for name, ref in refs.items()}
    if select:
        read = [name for name in refs if name.endswith(select) and name != select]
        found |= {name.removesuffix(select): f"{found[name]}, of {shown(name)}" for name in read}
    return found, {name for name, ref in refs.items() if ref.slot_of}


def _parameter(ref: ParameterRef) -> str:
    more = [ref.kind] if ref.kind == "buffer" else []
    return _about(ref, *more, *([f"the same Parameter as {shown(ref.tied_to)}"] if ref.tied_to else []))


def _about(ref: TensorRef | ParameterRef, *more: str) -> str:
    return ", ".join([f"{ref.dtype} {list(ref.shape)}", *more])


def _groups(names: Mapping[str, str], separator: str, mapping: MappingFile) -> dict[str, str]:
    """
    What lies in each part of the names up to a separator, and in all of it, "": what a row with a recipe can name.
    """
    inside: dict[str, dict[str, str]] = {"": {}}
    characters = 0
    for name, about in names.items():
        above, last = "", name
        for part in name.split(separator)[:-1]:
            group = f"{above}{separator}{part}" if above else part
            inside[above].setdefault(f"{part}{separator}", "")
            if group not in inside:
                inside[group] = {}
                characters += len(group)
            above, last = group, last.removeprefix(f"{part}{separator}")
            if characters > MAX_CHARACTERS:
                raise _too_many(mapping, names)
        inside[above][last] = about
        characters += len(name)
    if characters > MAX_CHARACTERS:
        raise _too_many(mapping, names)
    return {group: _told(within) for group, within in inside.items()}


def _told(within: Mapping[str, str]) -> str:
    first = [f"{shown(name)} {about}".rstrip() for name, about in list(within.items())[:MAX_INSIDE]]
    return f"holds {'; '.join(first)}{'; ...' if len(within) > MAX_INSIDE else ''}"


def _too_many(mapping: MappingFile, names: Iterable[str]) -> CheckpointError:
    message = f"{len(list(names))} names have more than {MAX_CHARACTERS} characters, the most that a schema has"
    hint = "use the language's own schema: t2t schema"
    return CheckpointError(Problem("T2T611", message, Location(mapping.path), hint))


def _recipes(mapping: MappingFile) -> dict[str, str]:
    """The built-in recipes, and those of the file that its rows use."""
    used = sorted({rule.use[3] for rule in mapping.rules if rule.use})
    return {**dict.fromkeys(used, "a recipe of this file"), **recipes.texts()}
