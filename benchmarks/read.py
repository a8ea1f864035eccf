"""
Reading a BERT-shaped checkpoint with every checksum, and listing one of 5000 variables: t2t and TensorFlow, in turn.

    python -m benchmarks.read [--size small|large] [--runs N] [--keep DIR]

What is asked: 3 times the throughput of TensorFlow's reader once everything is imported, and a listing in a twentieth
of the time of a process that imports TensorFlow for it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.convert import SIZES, rows
from benchmarks.measure import median, python, table

#: Each reads every variable of the checkpoint and prints the seconds that it took, imports and warming up aside.
OURS = """
import sys, time
import numpy as np
from t2t import checkpoints
start = time.perf_counter()
with checkpoints.open(sys.argv[1]) as checkpoint:
    refs = checkpoint.inventory.variables.values()
    {reading}
print(time.perf_counter() - start)
"""
READINGS = {
    "t2t, read into one buffer": "buffer = np.empty(max(r.nbytes for r in refs), np.uint8)\n"
    "    for ref in sorted(refs, key=lambda r: (r.shard, r.offset)): checkpoint.read(ref, buffer)",
    "t2t, read into new arrays": "for ref in refs: checkpoint.read(ref)",
    "t2t, views of the file": "for ref in refs: checkpoint.view(ref)",
}
THEIRS = """
import sys, time
import tensorflow as tf
start = time.perf_counter()
reader = tf.train.load_checkpoint(sys.argv[1])
for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)
print(time.perf_counter() - start)
"""
LISTING = """
import sys
import tensorflow as tf
for name, shape in tf.train.list_variables(sys.argv[1]):
    print(name, shape)
"""


def prepare(directory: Path, size: str) -> None:
    """Writes both checkpoints, where they are not there yet."""
    contents = {
        f"{size}.ckpt": {tf: shape for tf, _, shape, _ in rows(*SIZES[size])},
        "many.ckpt": {f"scope_{i // 100}/layer_{i % 100}/kernel": [8, 8] for i in range(5000)},
    }
    for name, shapes in contents.items():
        if not (directory / f"{name}.index").exists():
            (directory / "shapes.json").write_text(json.dumps(shapes))
            python("-m", "benchmarks.write_checkpoint", directory / name, directory / "shapes.json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read", description="t2t's reader against TensorFlow's.")
    parser.add_argument("--size", choices=SIZES, default="large", help="default: large, 1.34 GB")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured turns (default: 5)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the checkpoints are, or are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="t2t-benchmark-") as temporary:
        directory = (options.keep or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        prepare(directory, options.size)
        prefix, many = directory / f"{options.size}.ckpt", directory / "many.ckpt"
        contenders = {
            **{name: ("-c", OURS.format(reading=reading), prefix) for name, reading in READINGS.items()},
            "TensorFlow's reader": ("-c", THEIRS, prefix),
        }
        python(*contenders["TensorFlow's reader"])  # Warms the caches.
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        listings: dict[str, list[float]] = {"t2t inspect": [], "tf.train.list_variables": []}
        for turn in range(options.runs):
            # Whoever comes first in a turn finds the processor busy with what came before: each does.
            order = [*contenders.items()]
            for name, command in order[turn % len(order) :] + order[: turn % len(order)]:
                seconds[name].append(float(python(*command).stdout))
            listings["t2t inspect"].append(python("-m", "t2t", "inspect", many).seconds)
            listings["tf.train.list_variables"].append(python("-c", LISTING, many).seconds)
        nbytes = Path(f"{prefix}.data-00000-of-00001").stat().st_size
    medians = {name: median(values) for name, values in (seconds | listings).items()}
    theirs = medians["TensorFlow's reader"]
    lines = [(f"median of {options.runs} runs in turn", "seconds", "GB/s", "ratio", "target")]
    for name in contenders:
        speed, ratio = nbytes / medians[name] / 1e9, theirs / medians[name]
        lines.append((name, f"{medians[name]:.3f}", f"{speed:.2f}", f"{ratio:.1f}", ">= 3" if "buffer" in name else ""))
    lines += [(name, f"{medians[name]:.3f}", "", "", "") for name in listings]
    ratio = medians["tf.train.list_variables"] / medians["t2t inspect"]
    lines.append(("listing 5000 variables, whole process", "", "", f"{ratio:.1f}", ">= 20"))
    print(table(lines))


if __name__ == "__main__":
    main()
