"""
A mapping that stands for 20 000 rows, read and planned, against jsonschema validating those rows; and the plan of ten
slices of a variable of 10 GB against that of ten slices of a small one.

    python -m benchmarks.expand [--runs N]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import jsonschema

from benchmarks.measure import median, table
from t2t import grammar, mapping, plan
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef

BLOCKS, LAYERS = 200, 50
HEAD = "t2t: 1\nmodel: m:M\nsource: {checkpoint: c}\n"
DENSE = (
    f"{HEAD}for: {{i: 0..{BLOCKS - 1}, j: 0..{LAYERS - 1}}}\n"
    "map:\n- {tf: 'block_<i>/layer_<j>', torch: 'blocks.<i>.layers.<j>', use: dense}\n"
)


def dense() -> tuple[CheckpointInventory, ModuleInventory]:
    """Both sides of 10 000 dense layers."""
    variables, parameters = {}, {}
    for i in range(BLOCKS):
        for j in range(LAYERS):
            for name, to, shape in (("kernel", "weight", (3, 4)), ("bias", "bias", (4,))):
                source = TensorRef(f"block_{i}/layer_{j}/{name}", "float32", shape)
                target = ParameterRef(f"blocks.{i}.layers.{j}.{to}", "float32", shape[::-1])
                variables[source.name], parameters[target.name] = source, target
    return CheckpointInventory(variables), ModuleInventory(parameters)


def planned(text: str, checkpoint: CheckpointInventory, module: ModuleInventory) -> plan.Plan:
    read, problems = mapping.read(text.encode(), "m.yaml")
    assert read is not None
    made, found = plan.make(read, checkpoint, module)
    assert not [*problems, *found]
    return made


def seconds(job: Callable[[], object], times: int = 1) -> float:
    """How long the job takes, on the average of so many times one after the other."""
    gc.collect()  # nobody pays for what somebody else left behind
    start = time.perf_counter()
    for _ in range(times):
        job()
    return (time.perf_counter() - start) / times


def sliced(rows: int) -> Callable[[], object]:
    """The plan of ten slices of `rows` rows of 256 float32 each."""
    row = f"{{tf: k, torch: 'p<i>', slice: ['<{rows}i>:<{rows}i+{rows}>'], axes: a b -> b a}}"
    text = f"{HEAD}for: {{i: 0..9}}\nmap:\n- {row}\n"
    checkpoint = CheckpointInventory({"k": TensorRef("k", "float32", (10 * rows, 256))})
    module = ModuleInventory({f"p{i}": ParameterRef(f"p{i}", "float32", (256, rows)) for i in range(10)})
    return lambda: planned(text, checkpoint, module)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expand", description="Expansion and planning.")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured turns (default: 5)")
    runs = parser.parse_args().runs
    checkpoint, module = dense()
    rows = [
        {"tf": rule.source, "torch": rule.target, **({"axes": str(rule.axes[0])} if rule.axes else {})}
        for rule in planned(DENSE, checkpoint, module).mapping.rules
    ]
    tree = {"t2t": 1, "model": "m:M", "source": {"checkpoint": "c"}, "map": rows}
    validator = jsonschema.Draft7Validator(grammar.schema())
    turns = [
        (
            seconds(lambda: planned(DENSE, checkpoint, module)),
            seconds(lambda: list(validator.iter_errors(tree))),
            seconds(sliced(10**6), 50),
            seconds(sliced(1), 50),
        )
        for _ in range(runs)
    ]
    ours, theirs, large, small = (median(column) for column in zip(*turns, strict=True))
    print(
        table(
            [
                (f"median of {runs} runs in turn", "measured", "target"),
                (f"{len(rows)} rows: expanded and planned", f"{ours:.2f} s", ""),
                ("the same rows: jsonschema", f"{theirs:.2f} s", ""),
                ("ratio", f"{ours / theirs:.2f}", "< 2"),
                ("ten slices of 10.24 GB: planned", f"{large * 1e3:.2f} ms", ""),
                ("ten slices of 10 kB: planned", f"{small * 1e3:.2f} ms", ""),
                ("ratio", f"{large / small:.2f}", "about 1"),
            ]
        )
    )


if __name__ == "__main__":
    main()
