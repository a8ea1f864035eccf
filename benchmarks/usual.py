"""
The script that people write without t2t: `python -m benchmarks.usual PREFIX NAMES.json OUT`.

NAMES.json maps each parameter to its variable and to whether that is a kernel, which torch keeps transposed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tensorflow as tf
import torch
from safetensors.torch import save_file


def convert(prefix: str, names_file: str, out: str) -> None:
    names = json.loads(Path(names_file).read_text())
    reader = tf.train.load_checkpoint(prefix)
    state_dict = {}
    for parameter, (variable, is_kernel) in names.items():
        tensor = torch.from_numpy(reader.get_tensor(variable))
        state_dict[parameter] = tensor.t().contiguous() if is_kernel else tensor
    save_file(state_dict, out)
    with open(out, "rb+") as file:
        os.fsync(file.fileno())  # t2t's output is on the disk when it ends, so this one must be too.


if __name__ == "__main__":
    convert(*sys.argv[1:])
