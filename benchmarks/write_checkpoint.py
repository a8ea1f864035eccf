"""
Writes a TensorFlow checkpoint of random float32 variables: `python -m benchmarks.write_checkpoint PREFIX SHAPES.json`.

SHAPES.json maps names to shapes. The file is what TensorFlow 1's Saver writes; equal arguments give equal bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorflow as tf


def main(prefix: str, shapes_file: str) -> None:
    shapes = json.loads(Path(shapes_file).read_text())
    tensors = [0.02 * tf.random.stateless_normal(shape, seed=[0, i]) for i, shape in enumerate(shapes.values())]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(shapes), shape_and_slices=[""] * len(shapes), tensors=tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
