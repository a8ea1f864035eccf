"""
What is said of locks and of what changed: lines for a person, values for a program.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from t2t.names import SHOWN_LENGTH, shown
from t2t.problems import as_json
from t2t.review.diff import Change, Diff, Facet, Kind, MappingDiff
from t2t.review.lock import Lock, Proof


def lock(made: Lock) -> list[str]:
    """What a lock that was written holds, and whether it is proven."""
    variables, parameters = len(made.checkpoint.variables), len(made.module.parameters)
    lines = [f"wrote {shown(made.path)}: {parameters} parameters, {variables} variables"]
    if made.proof.unproven:
        return [*lines, f"not proven: {shown(made.proof.unproven)}"]
    for name, own in made.proof.outputs.items():
        lines.append(f"{shown(name)}: max|Δ| {own.max_delta:g} <= {own.tolerance:g}, where max|TF| is {own.scale:g}")
    return [*lines, "proven"]


def lock_json(made: Lock) -> dict[str, Any]:
    """The same for programs."""
    proof = made.proof
    outputs = {name: {"max_delta": own.max_delta, "tolerance": own.tolerance} for name, own in proof.outputs.items()}
    return {
        "lock": made.path,
        "parameters": len(made.module.parameters),
        "variables": len(made.checkpoint.variables),
        "proof": {"unproven": proof.unproven} if proof.unproven else {"outputs": outputs},
    }


# --- what changed ---

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
#: Of a whole mapping that is new or gone.
_WHOLE = {"added": "new", "removed": "removed"}


def diff(found: Diff) -> list[str]:
    """A line for each mapping, and under it one for each entry and each fact that differs."""
    lines = []
    for one in found.mappings:
        lines.append(f"{shown(one.path)}: {_summary(one)}")
        lines += [f"  {_change(change)}" for change in one.changes]
        lines += [f"  {_SIGNS[_kind(fact)]} {_facet(fact)}" for fact in one.facts]
        lines += [f"  {line}" for line in _proof(one, shown)]
    return [*lines, _total(found)]


def _total(found: Diff) -> str:
    total = len(found.mappings) + found.same + len(found.left_out)
    changed = sum(not one.is_same for one in found.mappings)
    left_out = f", {len(found.left_out)} could not be compared" if found.left_out else ""
    return f"{changed} of {_count(total, 'mapping')} changed{left_out}"


def _summary(one: MappingDiff) -> str:
    if one.kind != "changed":
        return f"{_WHOLE[one.kind]}, {_count(one.assignments, 'assignment')}"
    counts = {kind: sum(change.kind == kind for change in one.changes) for kind in _SIGNS}
    same = one.assignments - counts["added"] - counts["changed"]
    told = [f"{count} {kind}" for kind, count in counts.items() if count]
    told.append(f"{_count(same, 'assignment')} identical")
    if one.as_written and one.is_locked:
        told.append(f"{one.as_written} compared as written (rows that do not fit the lock)")
    elif one.as_written:
        told.append("compared as written (no lock knows the shapes)")
    return ", ".join(told)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _change(change: Change) -> str:
    facets = "; ".join(_facet(facet, of=change.kind) for facet in change.facets)
    where = "" if change.kind == "removed" else f" (line {change.at.line})"
    return f"{_SIGNS[change.kind]} {shown(change.target)}{where}: {facets}"


def _kind(facet: Facet) -> Kind:
    return "added" if facet.before is None else "removed" if facet.after is None else "changed"


def _facet(facet: Facet, of: Kind | None = None) -> str:
    """`axes i o -> o i => i o -> i o`; of what was added or removed as a whole, the one side that it has."""
    before, after = _both(facet)
    kind = of or _kind(facet)
    texts = [after] if kind == "added" else [before] if kind == "removed" else [before, after]
    return f"{shown(facet.name)} {' => '.join(text or '(none)' for text in texts)}"


def _both(facet: Facet) -> tuple[str, str]:
    """Before and after, as messages show them; of two long texts from shortly before where they part."""
    before, after = facet.before or "", facet.after or ""
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))))
    if before and after and alike > SHOWN_LENGTH // 2 and max(len(before), len(after)) > SHOWN_LENGTH:
        before, after = (f"...{text[alike - SHOWN_LENGTH // 4 :]}" for text in (before, after))
    return shown(before), shown(after)


def _proof(one: MappingDiff, name: Callable[[str], str]) -> list[str]:
    """The figures of both versions' locks, where the weights or what proves them may have changed; in a line."""
    before, after = one.proof
    if (before is None and after is None) or (one.is_same and not one.is_stale and before == after):
        return []
    told = [_figures(before, name), _figures(after, name)]
    told = told[1:] if one.kind == "added" else told[:1] if one.kind == "removed" else told
    stale = ", but the lock is stale" if one.is_stale else ""
    return [f"proof {' => '.join(dict.fromkeys(told))}{stale}"]


def _figures(proof: Proof | None, name: Callable[[str], str]) -> str:
    if proof is None:
        return "not locked"
    if proof.unproven:
        return f"not proven: {name(proof.unproven)}"
    return ", ".join(
        f"{name(output)} max|Δ| {own.max_delta:g} <= {own.tolerance:g}" for output, own in proof.outputs.items()
    )


def diff_json(found: Diff) -> dict[str, Any]:
    """The same for programs."""
    return {
        "base": found.base,
        "head": found.head,
        "same": found.same,
        "mappings": [
            {
                "path": one.path,
                "kind": "same" if one.is_same else one.kind,
                "assignments": one.assignments,
                "as_written": one.as_written,
                "locked": one.is_locked,
                "changes": [
                    {
                        "parameter": change.target,
                        "kind": change.kind,
                        "line": change.at.line,
                        "facets": [_facet_json(facet) for facet in change.facets],
                    }
                    for change in one.changes
                ],
                "facts": [_facet_json(fact) for fact in one.facts],
                "proof": {
                    "before": _proof_json(one.proof[0]),
                    "after": _proof_json(one.proof[1]),
                    "stale": one.is_stale,
                },
            }
            for one in found.mappings
        ],
        "left_out": list(found.left_out),
        "problems": [as_json(problem) for problem in found.problems],
    }


def _facet_json(facet: Facet) -> dict[str, Any]:
    return {"name": facet.name, "before": facet.before, "after": facet.after}


def _proof_json(proof: Proof | None) -> dict[str, Any] | None:
    if proof is None:
        return None
    if proof.unproven:
        return {"unproven": proof.unproven}
    outputs = {name: {"max_delta": own.max_delta, "tolerance": own.tolerance} for name, own in proof.outputs.items()}
    return {"outputs": outputs}


# --- in Markdown ---


def diff_markdown(found: Diff) -> list[str]:
    """
    The same as a comment on a pull request: a paragraph for each mapping, a table of what differs.

    Whatever comes from a mapping stands as code: there no name is mentioned, linked, or read as markup.
    """
    lines = [f"### Weights: {_code(found.base)} → {_code(found.head)}", ""]
    for one in found.mappings:
        lines += [f"**{_code(one.path)}**: {_escaped(_summary(one))}", ""]
        rows = [(change.kind, change.target, facet) for change in one.changes for facet in change.facets]
        rows += [(_kind(fact), "", fact) for fact in one.facts]
        if rows:
            lines += ["| | parameter | what | before | after |", "|---|---|---|---|---|"]
            lines += [
                f"| {' | '.join([kind, *map(_code, (target, facet.name, *_both(facet)))])} |"
                for kind, target, facet in rows
            ]
            lines.append("")
        lines += [line for text in _proof(one, _code) for line in (text.replace("|Δ|", _escaped("|Δ|")), "")]
    told = ["".join(map(shown, str(problem))) for problem in found.problems]  # whole, however long
    lines += [f"- <code>{_escaped(text)}</code>" for text in told]
    return [*lines, *([""] if found.problems else []), _total(found)]


def _code(text: str) -> str:
    """Text as code that may stand anywhere in a line, in a cell of a table too; nothing for none."""
    return f"<code>{_escaped(shown(text))}</code>" if text else ""


def _escaped(text: str) -> str:
    return text.translate(_MARKUP).replace("www.", "www&#46;")


#: Characters that mean something to HTML, to a table, to Markdown or to what makes links of addresses, as entities.
_MARKUP = {ord(character): f"&#{ord(character)};" for character in "&<>|*_`[]~\\@#:"}
