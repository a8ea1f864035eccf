"""
A BERT-shaped checkpoint to safetensors: t2t, t2t --locked, the script people write without it, and `cp`, side by side.

    python -m benchmarks.convert [--size small|large] [--runs N] [--keep DIR]

The four take turns, so that whatever else the machine does hits them alike; what counts are the ratios. Before the
first measured turn all but `cp` run once: that warms the caches, and their outputs must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Run, median, python, run, table

#: Layers, width and vocabulary; `large` is BERT-large, 1.34 GB.
SIZES = {"small": (6, 256, 30522), "large": (24, 1024, 30522)}

Row = tuple[str, str, list[int], str]

LOCKED = "t2t --locked"
#: t2t, which must end without having imported torch.
WITHOUT_TORCH = """\
import sys
from t2t.cli import main
sys.exit(main(sys.argv[1:]) or ("torch" in sys.modules and "torch was imported"))
"""


@dataclass(slots=True)
class Measured:
    """What one contender gave, run by run: as a whole process, and (t2t and the usual script) without its imports."""

    whole: list[Run] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    growth: list[int] = field(default_factory=list)


def rows(layers: int, hidden: int, vocabulary: int) -> list[Row]:
    """Variable, parameter, the variable's shape and its axes ("" for one dimension), as Google published BERT."""
    found: list[Row] = []

    def add(tf: str, torch: str, shape: list[int], axes: str = "") -> None:
        found.append((tf, torch, shape, axes))

    def dense(tf: str, torch: str, inputs: int, outputs: int) -> None:
        add(f"{tf}/kernel", f"{torch}.weight", [inputs, outputs], "i o -> o i")
        add(f"{tf}/bias", f"{torch}.bias", [outputs])

    def layer_norm(tf: str, torch: str) -> None:
        add(f"{tf}/LayerNorm/gamma", f"{torch}.LayerNorm.weight", [hidden])
        add(f"{tf}/LayerNorm/beta", f"{torch}.LayerNorm.bias", [hidden])

    for name, size in (("word", vocabulary), ("position", 512), ("token_type", 2)):
        tf, torch = f"bert/embeddings/{name}_embeddings", f"bert.embeddings.{name}_embeddings.weight"
        add(tf, torch, [size, hidden], "v d -> v d")
    layer_norm("bert/embeddings", "bert.embeddings")
    for i in range(layers):
        tf, torch = f"bert/encoder/layer_{i}", f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            dense(f"{tf}/attention/self/{name}", f"{torch}.attention.self.{name}", hidden, hidden)
        dense(f"{tf}/attention/output/dense", f"{torch}.attention.output.dense", hidden, hidden)
        layer_norm(f"{tf}/attention/output", f"{torch}.attention.output")
        dense(f"{tf}/intermediate/dense", f"{torch}.intermediate.dense", hidden, 4 * hidden)
        dense(f"{tf}/output/dense", f"{torch}.output.dense", 4 * hidden, hidden)
        layer_norm(f"{tf}/output", f"{torch}.output")
    dense("bert/pooler/dense", "bert.pooler.dense", hidden, hidden)
    add("cls/predictions/output_bias", "cls.predictions.bias", [vocabulary])
    dense("cls/predictions/transform/dense", "cls.predictions.transform.dense", hidden, hidden)
    layer_norm("cls/predictions/transform", "cls.predictions.transform")
    add("cls/seq_relationship/output_weights", "cls.seq_relationship.weight", [2, hidden], "o i -> o i")
    add("cls/seq_relationship/output_bias", "cls.seq_relationship.bias", [2])
    return found


def mapping(found: list[Row], layers: int, hidden: int, vocabulary: int) -> str:
    """The mapping's text, one row a variable."""
    lines = [
        "t2t: 1",
        "model: benchmarks.bert_shaped:BertShaped",
        f"with: {{layers: {layers}, hidden: {hidden}, vocabulary: {vocabulary}}}",
        "source: {checkpoint: bert_model.ckpt}",
        "map:",
    ]
    for tf, torch, _, axes in found:
        lines.append(f"- {{tf: {tf}, torch: {torch}{f', axes: {axes}' if axes else ''}}}")
    return "\n".join(lines) + "\n"


def prepare(directory: Path, size: str) -> int:
    """Writes the mapping, the usual script's table of names and, where it is not there, the checkpoint: its bytes."""
    found = rows(*SIZES[size])
    (directory / "bert.yaml").write_text(mapping(found, *SIZES[size]))
    names = {torch: (tf, axes == "i o -> o i") for tf, torch, _, axes in found}
    (directory / "names.json").write_text(json.dumps(names))
    shapes = json.dumps({tf: shape for tf, _, shape, _ in found})
    shapes_file, data = directory / "shapes.json", directory / "bert_model.ckpt.data-00000-of-00001"
    if not (data.exists() and shapes_file.exists() and shapes_file.read_text() == shapes):
        shapes_file.write_text(shapes)
        python("-m", "benchmarks.write_checkpoint", directory / "bert_model.ckpt", shapes_file)
    with data.open("rb") as file:
        while file.read(1 << 24):  # Into the page cache: no contender pays for the first read.
            pass
    return data.stat().st_size


def after_imports(side: str, into: Measured, *arguments: Path) -> None:
    result = json.loads(python("-m", "benchmarks.after_imports", side, *arguments).stdout)
    into.seconds.append(result["seconds"])
    into.growth.append(result["bytes"])


def measure(directory: Path, work: Path, runs: int) -> dict[str, Measured]:
    """Lets the contenders take turns; each output is removed before the next one starts."""
    checkpoint, yaml, names = directory / "bert_model.ckpt", directory / "bert.yaml", directory / "names.json"
    ours, locked = work / "t2t.safetensors", work / "locked.safetensors"
    usual, copy = work / "usual.safetensors", work / "copy"
    t2t_command = ("-m", "t2t", yaml, "-o", ours)
    locked_arguments = (yaml, "-o", locked, "--locked")
    usual_command = ("-m", "benchmarks.usual", checkpoint, names, usual)
    data = f"{checkpoint}.data-00000-of-00001"

    def clear() -> None:
        for path in (ours, locked, usual, copy):
            path.unlink(missing_ok=True)
        os.sync()  # No contender waits for what another one left to be written.

    python("-m", "t2t", "lock", yaml)
    python(*t2t_command)
    python("-c", WITHOUT_TORCH, *locked_arguments)
    run("cmp", ours, locked)
    python(*usual_command)
    print(f"{python('-m', 'benchmarks.compare', ours, usual).stdout.strip()} tensors, equal in both outputs\n")
    measured = {name: Measured() for name in ("t2t", LOCKED, "usual", "cp")}
    for _ in range(runs):
        clear()
        measured["t2t"].whole.append(python(*t2t_command))
        clear()
        measured[LOCKED].whole.append(python("-m", "t2t", *locked_arguments))
        clear()
        measured["usual"].whole.append(python(*usual_command))
        clear()
        measured["cp"].whole.append(run("sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", data, copy))
        clear()
        after_imports("t2t", measured["t2t"], yaml, ours)
        clear()
        after_imports("usual", measured["usual"], checkpoint, names, usual)
    clear()
    return measured


def report(measured: dict[str, Measured], largest: int) -> str:
    """Medians, then ratios with their targets. MB are 10**6 bytes."""
    lines = [("median of the runs", "whole process", "its peak", "after imports", "growth")]
    whole, peak, seconds, growth = ({} for _ in range(4))
    for name, m in measured.items():
        whole[name] = median(run.seconds for run in m.whole)
        peak[name] = median(run.peak for run in m.whole)
        seconds[name] = median(m.seconds) if m.seconds else whole[name]
        growth[name] = median(m.growth) if m.growth else 0.0
        inner = (f"{seconds[name]:.2f} s", f"{growth[name] / 1e6:.0f} MB") if m.seconds else ("", "")
        lines.append((name, f"{whole[name]:.2f} s", f"{peak[name] / 1e6:.0f} MB", *inner))
    allowed = (2 * largest + 64 * 2**20) / 1e6
    ratios = [
        ("ratio", "measured", "target"),
        ("whole process, usual / t2t", f"{whole['usual'] / whole['t2t']:.1f}", ">= 5"),
        ("whole process, usual / t2t --locked", f"{whole['usual'] / whole[LOCKED]:.1f}", ">= 8"),
        ("peak memory, t2t / usual", f"{peak['t2t'] / peak['usual']:.2f}", "<= 0.20"),
        ("after imports, usual / t2t", f"{seconds['usual'] / seconds['t2t']:.1f}", "-"),
        ("after imports, t2t / cp", f"{seconds['t2t'] / seconds['cp']:.2f}", "<= 2"),
        ("beyond imports, t2t, MB", f"{growth['t2t'] / 1e6:.0f}", f"<= {allowed:.0f}"),
    ]
    return f"{table(lines)}\n\n{table(ratios)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convert", description="t2t, t2t --locked, the usual script, cp."
    )
    parser.add_argument("--size", choices=SIZES, default="large", help="large is 1.34 GB, small 51 MB (default: large)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured turns (default: 5)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the checkpoint is kept, or taken from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="t2t-benchmark-") as temporary:
        work = Path(temporary)
        directory = options.keep.resolve() if options.keep else work
        directory.mkdir(parents=True, exist_ok=True)
        size = prepare(directory, options.size)
        _, hidden, vocabulary = SIZES[options.size]
        print(f"{size / 1e6:.0f} MB of float32, {os.cpu_count()} CPUs, {options.runs} runs in turn")
        print(report(measure(directory, work, options.runs), largest=4 * hidden * vocabulary))


if __name__ == "__main__":
    main()
