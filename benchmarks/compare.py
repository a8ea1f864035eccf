"""
Fails unless two safetensors files hold the same tensors: `python -m benchmarks.compare A B`.
"""

from __future__ import annotations

import sys

import torch
from safetensors import safe_open


def main(left: str, right: str) -> None:
    with safe_open(left, "pt") as a, safe_open(right, "pt") as b:
        names = set(a.keys()) | set(b.keys())
        both = set(a.keys()) & set(b.keys())
        different = sorted((names - both) | {n for n in both if not same(a.get_tensor(n), b.get_tensor(n))})
    if different:
        sys.exit(f"{len(different)} of {len(names)} tensors differ, among them {', '.join(different[:3])}")
    print(len(names))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


if __name__ == "__main__":
    main(*sys.argv[1:])
