"""
The child process in which TensorFlow writes V1 checkpoints: `python with_tensorflow_v1.py FOLDER`.

One file for each dtype that it can store, `parts` with a partitioned variable, `shards-?????-of-00002`; and what was
stored, as TensorFlow has it, in FOLDER/values.npz (strings in strings.json).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

DTYPES = [
    *(tf.float32, tf.float64, tf.float16, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16),
    *(tf.bool, tf.complex64, tf.complex128, tf.qint8, tf.quint8, tf.qint32),
]
PLAIN = {"qint8": tf.int8, "quint8": tf.uint8, "qint32": tf.int32}
STRINGS = [b"", b"a\0\xff", b"x" * 300]


def sample(dtype: tf.DType, random: np.random.Generator) -> tf.Tensor:
    if dtype.name in PLAIN:
        return tf.bitcast(sample(PLAIN[dtype.name], random), dtype)
    if dtype.is_integer:
        extremes = [dtype.min, dtype.max, 0, 1, dtype.max // 2, dtype.min // 2]
        return tf.constant(np.array(extremes, dtype.as_numpy_dtype).reshape(2, 3))
    values = random.standard_normal((2, 3))
    return tf.cast(tf.constant(values + 1j * random.standard_normal((2, 3)) if dtype.is_complex else values), dtype)


def main(folder: Path) -> None:
    random = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}
    for dtype in DTYPES:
        tensor = sample(dtype, random)
        tensors = {"a": tensor, "scalar": tensor[0, 0], "empty": tensor[:0]}
        tf.raw_ops.Save(filename=str(folder / dtype.name), tensor_names=list(tensors), data=list(tensors.values()))
        for name, value in tensors.items():
            values[f"{dtype.name}/{name}"] = (
                tf.bitcast(value, PLAIN[dtype.name]).numpy() if dtype.name in PLAIN else value.numpy()
            )
    tf.raw_ops.Save(filename=str(folder / "string"), tensor_names=["a"], data=[tf.constant(STRINGS)])

    whole = tf.constant(random.standard_normal((8, 5)).astype("f4"))
    values["whole"] = whole.numpy()
    tf.raw_ops.SaveSlices(
        filename=str(folder / "parts"),
        tensor_names=["w", "w", "w", "step"],
        shapes_and_slices=["8 5 3,5:2,3", "8 5 0,3:-", "8 5 3,5:0,2", ""],
        data=[whole[3:, 2:], whole[:3], whole[3:, :2], tf.constant(7)],
    )
    for shard in range(2):
        tf.raw_ops.SaveSlices(
            filename=str(folder / f"shards-{shard:05}-of-00002"),
            tensor_names=["w", f"only_{shard}"],
            shapes_and_slices=[f"8 5 {4 * shard},4:-", ""],
            data=[whole[4 * shard : 4 * shard + 4], tf.constant([shard])],
        )
    many = {f"scope/with/a/long/name/variable_{i}/kernel": tf.fill([9], float(i)) for i in range(6000)}
    tf.raw_ops.Save(filename=str(folder / "many"), tensor_names=list(many), data=list(many.values()))
    np.savez(folder / "values.npz", **values)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
