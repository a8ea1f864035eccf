"""
One conversion without its imports.

    python -m benchmarks.after_imports t2t MAPPING OUT
    python -m benchmarks.after_imports usual PREFIX NAMES.json OUT

Imports everything first, then converts, and prints the seconds and the growth of peak memory in bytes as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

#: What each side imports sooner or later, the model's module included.
IMPORTS = {
    "t2t": (
        "numpy",
        "torch",
        "yaml",
        "jsonschema",
        "t2t.api",
        "t2t.execute",
        "t2t.module",
        "t2t.checkpoints",
        "t2t.writers.safetensors",
        "benchmarks.bert_shaped",
    ),
    "usual": ("benchmarks.usual",),
}


def memory(field: str) -> int:
    """`VmRSS` (resident now) or `VmHWM` (its peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def main(side: str, *arguments: str) -> None:
    modules = [importlib.import_module(name) for name in IMPORTS[side]]
    convert = importlib.import_module("t2t").convert if side == "t2t" else modules[0].convert
    before = memory("VmRSS")
    start = time.perf_counter()
    convert(*arguments)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
