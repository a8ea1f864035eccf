"""
The `verify` section of a mapping, as frozen values: inputs, the original that computes the reference, the torch side.

It says how a result is proven, and nothing of how it is converted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from t2t import axes as notation
from t2t.axes import Axes, AxesError
from t2t.checkpoints.files import is_address
from t2t.document import Document
from t2t.names import shown
from t2t.problems import Location, Problem

#: What can compute the reference: the key of `reference` that names it.
Kind = Literal["graph", "saved_model", "keras", "tflite", "onnx", "frozen", "call"]

#: Draws times steps: so many runs of the original prove as much as any number.
MAX_RUNS = 1000


@dataclass(frozen=True, slots=True)
class Input:
    """
    One input of the comparison, in TensorFlow's layout: an array in a file, a constant, or drawn by a seed.

    `range` draws uniformly from [low, high), `values` picks from a list. `path` is absolute or relative to the current
    directory; `file` is as written.
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    range: tuple[float, float] | None = None
    values: tuple[float, ...] | None = None
    seed: int = 0
    value: float | bool | None = None
    file: str = ""
    path: str = ""
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """
    The original: `path` of its file or directory, as written in `written`, and how it names inputs and outputs.

    For the kind "call" `written` is an import path, and `path` is empty. `signature` is "" where none is named.
    """

    written: str
    path: str
    feed: Dict[str, str]
    fetch: Dict[str, str]
    kind: Kind = "graph"
    signature: str = ""


@dataclass(frozen=True, slots=True)
class OutputAt:
    """Where one output stands in what forward() returns ("" is the whole), and TensorFlow's axes -> torch's."""

    at: str = ""
    axes: Axes | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """True labels, and the metric that they give on both sides."""

    file: str
    path: str
    member: str | None
    metric: Literal["accuracy"]
    output: str


@dataclass(frozen=True, slots=True)
class Verify:
    """
    How the result is proven. It holds when max|Δ| <= abs + rel x max|TF| for every output and draw.

    `arguments` are input names in forward()'s order, or by its keywords. `axes` and `outputs` describe other layouts.
    Each draw runs `steps` times in a row, and both sides keep their state from step to step.
    `layers` names tensors of the original by the torch module whose output they are.
    """

    at: Location
    inputs: tuple[Input, ...]
    reference: Reference
    arguments: Sequence[str] | Dict[str, str]
    axes: Dict[str, Axes]
    outputs: Dict[str, OutputAt]
    draws: int
    rel: float
    abs: float
    labels: Labels | None
    recording: str
    steps: int = 1
    layers: Dict[str, str] = field(default_factory=dict)


def read(document: Document) -> tuple[Verify, list[Problem]]:
    """The section, which the schema has accepted, and the names in it that don't fit each other."""
    tree = document.tree["verify"]
    problems: list[Problem] = []
    inputs = tuple(_input(document.path, name, given) for name, given in tree["inputs"].items())
    names = [entry.name for entry in inputs]
    reference = tree["reference"]
    fetch = reference["fetch"]
    torch = tree.get("torch", {})
    arguments = torch.get("arguments", names)

    def known(name: str, among: Sequence[str], what: str, *path: str | int) -> None:
        if name not in among:
            text = f"{shown(name)} is not among the {what}: {', '.join(map(shown, among))}"
            problems.append(Problem("T2T503", text, document.at("verify", *path)))

    def layouts(section: str, given: dict[str, Any]) -> dict[str, Axes]:
        parsed = {}
        for name, text in given.items():
            try:
                parsed[name] = notation.parse(text)
            except AxesError as error:
                at = document.at("verify", "torch", section, name, "axes")  # an input's axes stand right there
                problems.append(Problem(error.code, error.cause, at, error.hint))
        return parsed

    kind: Kind = next(kind for kind in get_args(Kind) if kind in reference)
    feed = reference.get("feed", {name: name for name in names})
    for name in feed:
        known(name, names, "inputs", "reference", "feed", name)
    for name in names:
        known(name, list(feed), "tensors to feed", "inputs", name)
    if "signature" in reference and kind not in {"saved_model", "tflite"}:
        text = f"signature stands beside {kind}, which has none"
        problems.append(Problem("T2T503", text, document.at("verify", "reference", "signature"), "remove it"))
    draws, steps = tree.get("draws", 1), tree.get("steps", 1)
    if draws * steps > MAX_RUNS:
        text = f"{draws} draws of {steps} steps are {draws * steps} runs, the limit is {MAX_RUNS}"
        problems.append(Problem("T2T503", text, document.at("verify", "steps"), "fewer prove as much"))
    for position, name in enumerate(arguments) if isinstance(arguments, list) else arguments.items():
        known(name, names, "inputs", "torch", "arguments", position)
    for name in torch.get("axes", {}):
        known(name, names, "inputs", "torch", "axes", name)
    for name in torch.get("outputs", {}):
        known(name, list(fetch), "outputs", "torch", "outputs", name)
    given = torch.get("outputs", {})
    output_axes = layouts("outputs", {name: entry["axes"] for name, entry in given.items() if "axes" in entry})
    labels = None
    if "labels" in tree:
        output = tree["labels"].get("output", next(iter(fetch)))
        known(output, list(fetch), "outputs", "labels", "output")
        if "output" not in tree["labels"] and len(fetch) > 1:
            text = f"labels do not say which of the outputs they belong to: {', '.join(map(shown, fetch))}"
            problems.append(Problem("T2T503", text, document.at("verify", "labels"), "write output: NAME in labels"))
        file = tree["labels"]["file"]
        member = tree["labels"].get("member")
        labels = Labels(file, resolved(document.path, file), member, tree["labels"]["metric"], output)
    stem = os.path.splitext(os.path.basename(document.path))[0]
    verify = Verify(
        at=document.at_key("verify"),
        inputs=inputs,
        reference=Reference(
            written=reference[kind],
            path="" if kind == "call" else resolved(document.path, reference[kind]),
            feed=feed,
            fetch=fetch,
            kind=kind,
            signature=reference.get("signature", ""),
        ),
        arguments=arguments,
        axes=layouts("axes", torch.get("axes", {})),
        outputs={name: OutputAt(given.get(name, {}).get("at", ""), output_axes.get(name)) for name in fetch},
        draws=draws,
        rel=tree.get("rel", 1e-5),
        abs=tree.get("abs", 1e-6),
        labels=labels,
        recording=resolved(document.path, tree.get("recording", os.path.join("recordings", f"{stem}.npz"))),
        steps=steps,
        layers=tree.get("layers", {}),
    )
    return verify, problems


def _input(base: str, name: str, given: dict[str, Any]) -> Input:
    return Input(
        name=name,
        shape=tuple(given["shape"]) if "shape" in given else None,
        dtype=given.get("dtype", "float32"),
        range=tuple(given["range"]) if "range" in given else None,
        values=tuple(given["values"]) if "values" in given else None,
        seed=given.get("seed", 0),
        value=given.get("value"),
        file=given.get("file", ""),
        path=resolved(base, given.get("file")),
        member=given.get("member"),
    )


def resolved(base: str, path: Any) -> str:
    """A path from the file at `base`, seen from the current directory, or an address; "" where it gives none."""
    if not isinstance(path, str):
        return ""
    return path if is_address(path) else os.path.join(os.path.dirname(base), path)
