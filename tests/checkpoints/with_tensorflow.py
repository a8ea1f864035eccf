"""
The child process in which TensorFlow writes bundles and reads bundles, for the tests to compare with.

    python with_tensorflow.py FOLDER PREFIX...

It writes the bundles WRITTEN into FOLDER, and for each of them and each PREFIX what TensorFlow reads:
FOLDER/manifest.json and FOLDER/values.bin. Strings are stored as their length (8 bytes, little-endian) and their bytes;
a variant is listed without its value.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

#: Every dtype of which TensorFlow has tensors that a bundle can hold.
DTYPES = [
    *(tf.float32, tf.float64, tf.float16, tf.bfloat16),
    *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
    *(tf.bool, tf.complex64, tf.complex128, tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32),
    *(tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn),
    *(tf.dtypes.experimental.float8_e4m3fnuz, tf.dtypes.experimental.float8_e4m3b11fnuz),
    *(tf.dtypes.experimental.float8_e5m2fnuz, tf.dtypes.experimental.int4, tf.dtypes.experimental.uint4),
]

WRITTEN = ("dtypes", "shards", "many", "parts", "columns", "partitioner", "patchwork")


def save(prefix: Path, tensors: dict[str, Any], slices: dict[str, str] | None = None) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[(slices or {}).get(name, "") for name in tensors],
        tensors=list(tensors.values()),
    )


def every_dtype() -> dict[str, Any]:
    random = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for dtype in DTYPES:
        # A byte more before each tensor: every offset occurs that a dtype can have.
        tensors[f"{dtype.name}/odd"] = tf.constant(len(tensors) % 100, tf.int8)
        for name, shape in {"matrix": [3, 5], "scalar": [], "empty": [0], "empty3": [16, 0, 18], "one": [1]}.items():
            tensors[f"{dtype.name}/{name}"] = sample(dtype, shape, random)
    tensors["strings"] = tf.constant([[b"", b"a\0b\0"], [b"x" * 300, b"\xff\xfe"]])
    tensors["string"] = tf.constant(b"scalar")
    tensors["string/long"] = tf.constant(b"y" * 20_000)
    tensors["string/short"] = tf.constant([b"%d" % i for i in range(1000)])
    tensors["string/none"] = tf.constant([], tf.string)
    tensors["string/empty3"] = tf.zeros([2, 0, 3], tf.string)
    return tensors


def sample(dtype: tf.DType, shape: list[int], random: np.random.Generator) -> tf.Tensor:
    plain = {"qint8": tf.int8, "quint8": tf.uint8, "qint16": tf.int16, "quint16": tf.uint16, "qint32": tf.int32}
    if dtype.name in plain:
        return tf.bitcast(sample(plain[dtype.name], shape, random), dtype)
    values: Any = random.standard_normal(shape)
    if dtype.is_complex:
        values = values + 1j * random.standard_normal(shape)
    elif dtype == tf.bool:
        values = values > 0
    elif dtype.is_integer:
        lowest = {"int4": -8, "int8": -128, "int16": -(2**15), "int32": -(2**31), "int64": -(2**62)}.get(dtype.name, 0)
        values = random.integers(lowest, -lowest or 16, shape)
    return tf.constant(np.asarray(values).astype(dtype.as_numpy_dtype))


def write_all(folder: Path) -> None:
    save(folder / "dtypes", every_dtype())
    save(folder / "part0", {f"a/{i}": tf.fill([i, 3], float(i)) for i in range(5)})
    save(folder / "part1", {"nothing": tf.zeros([0])})
    save(folder / "part2", {f"b/{i}": tf.fill([i], i) for i in range(5)})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(folder / f"part{i}") for i in range(3)], destination_prefix=str(folder / "shards")
    )
    save(
        folder / "many", {f"{i}/a/name/whose/end/is/not/shared/with/the/next/name/{i}": [float(i)] for i in range(6000)}
    )
    # One variable in four parts, of which TensorFlow makes one entry and four parts.
    whole: Any = np.arange(60, dtype=np.float32).reshape(6, 10)
    for i, (rows, columns) in enumerate([(0, 0), (0, 4), (2, 0), (2, 4)]):
        height, width = (2 if rows == 0 else 4), (4 if columns == 0 else 6)
        spec = f"6 10 {rows},{height}:{columns},{width}"
        part = whole[rows : rows + height, columns : columns + width]
        save(
            folder / f"slice{i}", {"parted\0\xff": part, **({"plain": [1.0]} if i == 0 else {})}, {"parted\0\xff": spec}
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(folder / f"slice{i}") for i in range(4)], destination_prefix=str(folder / "parts")
    )

    # Parts along the second of three axes. (TensorFlow writes parts of strings, and cannot read them.)
    cut: Any = np.arange(12).reshape(2, 3, 2)
    for i, (start, length) in enumerate([(0, 1), (1, 2)]):
        save(
            folder / f"column{i}",
            {"columns": cut[:, start : start + length]},
            {"columns": f"2 3 2 -:{start},{length}:-"},
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(folder / f"column{i}") for i in range(2)], destination_prefix=str(folder / "columns")
    )
    write_partitioned(folder)


def write_partitioned(folder: Path) -> None:
    v1 = tf.compat.v1
    random = np.random.default_rng(1)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "scope/w",
            [10, 7],
            initializer=v1.random_normal_initializer(seed=1),
            partitioner=v1.fixed_size_partitioner(4),
        )
        v1.get_variable("step", [], tf.int64, initializer=v1.ones_initializer())
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "partitioner"), write_meta_graph=False, write_state=False)
    # TensorFlow cuts these into whatever fits into a file: irregular boxes, over many files.
    checkpoint = tf.train.Checkpoint(
        a=tf.Variable(random.standard_normal((60, 200)).astype(np.float32)),
        b=tf.Variable(random.standard_normal((7, 11, 13))),
        c=tf.Variable(random.integers(0, 99, 5)),
    )
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=8000)
    checkpoint.write(str(folder / "patchwork"), tf.train.CheckpointOptions(experimental_sharding_callback=policy))


def main(folder: Path, prefixes: list[str]) -> None:
    write_all(folder)
    manifest = {}
    with (folder / "values.bin").open("wb") as values:
        for prefix in [*prefixes, *(str(folder / name) for name in WRITTEN)]:
            reader = tf.train.load_checkpoint(prefix)
            dtypes = reader.get_variable_to_dtype_map()
            variables = {}
            for name, shape in reader.get_variable_to_shape_map().items():
                offset = size = None
                if dtypes[name] != tf.variant:
                    if dtypes[name] == tf.string:
                        (tensor,) = tf.raw_ops.RestoreV2(
                            prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[tf.string]
                        )
                        items = np.asarray(tensor.numpy(), object).reshape(-1)
                        data = b"".join(len(item).to_bytes(8, "little") + item for item in items)
                    else:
                        data = np.asarray(reader.get_tensor(name)).tobytes()
                    offset, size = values.tell(), len(data)
                    values.write(data)
                variables[name] = [dtypes[name].name, shape, offset, size]
            manifest[prefix] = variables
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
