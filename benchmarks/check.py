"""
`t2t check` on a mapping of 200 rows, against importing what it cannot do without.

    python -m benchmarks.check [--runs N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.measure import median, python, table

LAYERS, WIDTH = 100, 16


def prepare(directory: Path) -> Path:
    """Writes the mapping of a hundred dense layers and their checkpoint; the mapping's path."""
    lines = ["t2t: 1", "model: some.module:Model", "source: {checkpoint: model.ckpt}", "map:"]
    shapes: dict[str, list[int]] = {}
    for i in range(LAYERS):
        shapes |= {f"layer_{i}/kernel": [WIDTH, WIDTH], f"layer_{i}/bias": [WIDTH]}
        lines.append(f"- {{tf: layer_{i}/kernel, torch: layers.{i}.weight, axes: i o -> o i}}")
        lines.append(f"- {{tf: layer_{i}/bias, torch: layers.{i}.bias}}")
    (directory / "shapes.json").write_text(json.dumps(shapes))
    python("-m", "benchmarks.write_checkpoint", directory / "model.ckpt", directory / "shapes.json")
    mapping = directory / "model.yaml"
    mapping.write_text("\n".join(lines) + "\n")
    return mapping


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description="t2t check against its imports.")
    parser.add_argument("--runs", type=int, default=11, metavar="N", help="measured turns (default: 11)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="t2t-benchmark-") as temporary:
        check = ("-m", "t2t", "check", prepare(Path(temporary)))
        imports = ("-c", "import numpy, yaml, jsonschema")
        python(*check)  # Warms the caches, as the imports of it do for the other one.
        turns = [(python(*check).seconds, python(*imports).seconds) for _ in range(runs)]
    ours, theirs = (median(column) for column in zip(*turns, strict=True))
    print(
        table(
            [
                (f"median of {runs} runs in turn", "measured", "target"),
                (f"t2t check, {2 * LAYERS} rows", f"{ours * 1e3:.0f} ms", ""),
                ("import numpy, yaml, jsonschema", f"{theirs * 1e3:.0f} ms", ""),
                ("ratio", f"{ours / theirs:.2f}", "<= 2"),
            ]
        )
    )


if __name__ == "__main__":
    main()
