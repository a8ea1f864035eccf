"""
What needs neither weights nor torch, against importing what it cannot do without: check, explain, fmt --check and diff,
on a mapping of 200 rows and, of the gallery's, on the largest that has a lock and on the largest of all.

    python -m benchmarks.check [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from benchmarks.measure import ROOT, median, python, table

LAYERS, WIDTH = 100, 16

#: The gallery's mapping of the most assignments, and of those with a lock.
LARGEST, LOCKED = (ROOT / "mappings" / name for name in ("inception_v3.yaml", "ultralight_rfb.yaml"))


def prepare(directory: Path) -> Path:
    """Writes the mapping of a hundred dense layers and their checkpoint; the mapping's path."""
    lines = ["t2t: 1", "model: some.module:Model", "source: {checkpoint: model.ckpt}", "", "map:"]
    shapes: dict[str, list[int]] = {}
    for i in range(LAYERS):
        shapes |= {f"layer_{i}/kernel": [WIDTH, WIDTH], f"layer_{i}/bias": [WIDTH]}
        for name, own in (("kernel", f"layers.{i}.weight, axes: i o -> o i"), ("bias", f"layers.{i}.bias")):
            variable = f"layer_{i}/{name},"
            lines.append(f"- {{tf: {variable:16} torch: {own}}}")
    (directory / "shapes.json").write_text(json.dumps(shapes))
    python("-m", "benchmarks.write_checkpoint", directory / "model.ckpt", directory / "shapes.json")
    mapping = directory / "model.yaml"
    mapping.write_text("\n".join(lines) + "\n")
    return mapping


def altered(mapping: Path, directory: Path) -> Path:
    """The mapping with a comment, so that both have to be read to the end."""
    other = directory / f"altered_{mapping.name}"
    other.write_text(f"{mapping.read_text()}# the end\n")
    return other


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description="t2t check against its imports.")
    parser.add_argument("--runs", type=int, default=11, metavar="N", help="measured turns (default: 11)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="t2t-benchmark-") as temporary:
        directory = Path(temporary)
        # Modules are compiled once, as they are anywhere, even where nothing may be written beside them.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "pycache")
        mapping = prepare(directory)
        python("-m", "t2t", "fmt", mapping)
        commands: dict[str, tuple[str | Path, ...]] = {}
        parameters = {mapping: "layers.7.weight", LOCKED: "base_net.0.0.weight"}
        for of in (mapping, LOCKED, LARGEST):
            name = of.name if of != mapping else f"{2 * LAYERS} rows"
            if of in parameters:  # without a checkpoint or a lock nothing is known of variables
                commands[f"t2t check, {name}"] = ("check", of)
                commands[f"t2t explain, {name}"] = ("explain", of, parameters[of])
            commands[f"t2t fmt --check, {name}"] = ("fmt", "--check", of)
            commands[f"t2t diff, {name}"] = ("diff", of, altered(of, directory))
        measured: dict[str, list[float]] = {name: [] for name in commands}
        imports: list[float] = []
        for turn in range(runs + 1):
            for name, command in commands.items():
                seconds = python("-m", "t2t", *command).seconds
                measured[name] += [seconds] if turn else []  # The first turn warms the caches.
            seconds = python("-c", "import numpy, yaml, jsonschema").seconds
            imports += [seconds] if turn else []
    theirs = median(imports)
    rows = [(f"median of {runs} runs in turn", "measured", "ratio", "target")]
    rows.append(("import numpy, yaml, jsonschema", f"{theirs * 1e3:.0f} ms", "", ""))
    for name, seconds_of in measured.items():
        ours = median(seconds_of)
        rows.append((name, f"{ours * 1e3:.0f} ms", f"{ours / theirs:.2f}", "<= 2"))
    print(table(rows))


if __name__ == "__main__":
    main()
