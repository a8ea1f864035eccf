"""Every file that Keras writes, with every layer's weights under the names that Keras knows them by."""

from __future__ import annotations

import base64
import json
import marshal
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t2t.checkpoints import keras
from t2t.checkpoints.hdf5 import HDF5
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.reader import Reader
from t2t.checkpoints.shards import Shards
from t2t.tensors import TensorRef

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}

#: What no file says without the model's description: whether gamma or beta is the one that is missing.
AMBIGUOUS = {"bn/beta", "bn/moving_mean", "bn/moving_variance", "no_beta/gamma"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which Keras wrote its files."""
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).with_name("with_keras_files.py")
    done = subprocess.run(
        [sys.executable, script, folder],
        check=False,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


def opened(path: Path) -> Reader:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return HDF5(str(path), member="model.weights.h5", config=archive.read("config.json"))
    return Shards(str(path)) if path.suffix == ".json" else HDF5(str(path))


def named(reader: Reader) -> dict[str, Any]:
    refs = reader.inventory.variables.values()
    return {ref.full_name: reader.read(ref).astype(np.float32) for ref in refs if ref.full_name}


def nameless(reader: Reader) -> list[str]:
    return [ref.name for ref in reader.inventory.variables.values() if not ref.full_name and ref.slot_of is None]


FILES = [
    *(f"{model}.{ending}" for model in ("everything", "special", "trained") for ending in ("keras", "h5")),
    *(f"{model}.weights.{ending}" for model in ("everything", "special", "trained") for ending in ("h5", "json")),
    *("low.keras", "low.weights.h5"),
]


@pytest.mark.parametrize("file", FILES)
def test_each_full_name_has_the_values_that_keras_layer_has(written: Path, file: str) -> None:
    model = file.partition(".")[0]
    with np.load(written / "values.npz") as values:
        expected = {key[len(model) + 1 :]: values[key] for key in values.files if key.startswith(f"{model}/")}
    assert expected
    with opened(written / file) as reader:
        # An .h5 has the whole path that Keras has, with the model's own name where that is in it.
        found = {key.removeprefix(f"{model}/"): value for key, value in named(reader).items()}
        unknown = AMBIGUOUS if file.startswith("everything.weights") else set()
        assert set(found) == set(expected) - unknown
        assert len(nameless(reader)) == len(unknown)
        for name, value in found.items():
            assert np.array_equal(value, expected[name]), name
        reader.check_unchanged()


def test_names_of_what_a_person_wrote_are_not_taken_for_classes(written: Path) -> None:
    with np.load(written / "values.npz") as values, opened(written / "own.weights.h5") as reader:
        found = named(reader)
        # A Dense without bias as the attribute `embedding`: it has a kernel, not embeddings.
        assert nameless(reader) == ["embedding/vars/0"]
        assert len(found) == 6
        for name, value in found.items():
            assert np.array_equal(value, values[f"own/{name}"]), name
        assert reader.inventory.variables["first/vars/0"].full_name == f"{_layer(found, 'dense')}/kernel"


def _layer(found: dict[str, Any], start: str) -> str:
    return min(name.split("/")[0] for name in found if name.startswith(start))


def test_bfloat16_is_read_as_what_it_is(written: Path) -> None:
    with opened(written / "low.keras") as reader:
        dtypes = {ref.dtype for ref in reader.inventory.variables.values()}
        assert dtypes == {"bfloat16", "float32"}


def test_an_optimizers_variables_are_slots(written: Path) -> None:
    with opened(written / "trained.h5") as reader:
        slots = {ref.name: ref.slot_of for ref in reader.inventory.variables.values() if ref.slot_of is not None}
        kernels = [ref.name for ref in reader.inventory.variables.values() if ref.name.endswith("/kernel")]
        assert slots["optimizer_weights/adam/iteration"] == slots["optimizer_weights/adam/learning_rate"] == ""
        moments = sorted(of for name, of in slots.items() if name.endswith("kernel_momentum") and of is not None)
        assert moments == sorted(kernels)
    with opened(written / "trained.weights.h5") as reader:
        slots = {ref.name: ref.slot_of for ref in reader.inventory.variables.values() if ref.slot_of is not None}
        assert slots == {f"optimizer/vars/{i}": "" for i in range(10)}


def notes(reader: Reader) -> list[str]:
    return [f"{note.code} {note.severity}: {note.message}; {note.hint}" for note in reader.notes]


RESET = (
    "T2T615 warning: the GRU before has reset_after=false, but torch's GRU resets after the product; "
    "map it with the recipe gru.reset_before onto t2t.nn.GRU"
)


def test_layers_that_torch_computes_otherwise_are_named(written: Path) -> None:
    for file in ("special.h5", "special.keras"):
        with opened(written / file) as reader:
            reset, *others = notes(reader)
            assert reset == RESET
            assert len(others) == 2
            for other in others:
                assert other.startswith("T2T615 warning: the LSTM ")
                assert other.endswith(
                    ' has recurrent_activation="hard_sigmoid", but torch has sigmoid; '
                    "t2t.nn.LSTM and t2t.nn.GRU take a recurrent_activation"
                )
    with opened(written / "special.weights.h5") as reader:
        assert notes(reader) == [
            "T2T615 warning: the GRU before/gru_cell has a bias of 6, hence reset_after=false, "
            "but torch's GRU resets after the product; "
            "map it with the recipe gru.reset_before onto t2t.nn.GRU"
        ]
    with opened(written / "everything.keras") as reader:
        assert reader.notes == ()


# What Keras of today does not write any more


def dataset(path: str, *shape: int) -> keras.Dataset:
    return keras.Dataset(path, "float32", shape, 4 * int(np.prod(shape)), 0, "")


def variables(
    paths: Mapping[str, tuple[int, ...]], attributes: keras.Attributes, config: Any = None
) -> list[TensorRef]:
    datasets = {path: dataset(path, *shape) for path, shape in paths.items()}
    text = None if config is None else json.dumps(config).encode()
    return list(keras.layout(datasets, attributes, text).variables)


def test_lists_of_names_may_be_in_pieces() -> None:
    attributes: keras.Attributes = {
        "": {"layer_names0": ["a"], "layer_names1": ["b"]},
        "a": {"weight_names0": ["a_W"], "weight_names1": ["a_b"]},
        "b": {"weight_names": []},
    }
    found = variables({"a/a_W": (2, 3), "a/a_b": (3,)}, attributes)
    assert [(ref.name, ref.full_name) for ref in found] == [("a/a_W", "a_W"), ("a/a_b", "a_b")]


def test_slots_of_keras_2_belong_to_the_variable_whose_name_they_have() -> None:
    attributes = {"model_weights": {"layer_names": ["d"]}, "model_weights/d": {"weight_names": ["d/kernel:0"]}}
    paths = {
        "model_weights/d/d/kernel:0": (2, 3),
        "optimizer_weights/Adam/iter:0": (),
        "optimizer_weights/Adam/d/kernel/m:0": (2, 3),
    }
    found = {ref.name: (ref.full_name, ref.slot_of) for ref in variables(paths, attributes)}
    assert found == {
        "d/d/kernel": ("d/kernel", None),
        "optimizer_weights/Adam/iter": (None, ""),
        "optimizer_weights/Adam/d/kernel/m": (None, "d/d/kernel"),
    }


def test_keras_2_13_calls_the_list_of_layers_otherwise() -> None:
    config = {
        "class_name": "Functional",
        "config": {"name": "m", "layers": [{"class_name": "Dense", "config": {"name": "head"}}]},
    }
    paths = {"_layer_checkpoint_dependencies/dense/vars/0": (2, 3), "_layer_checkpoint_dependencies/dense/vars/1": (3,)}
    assert [ref.full_name for ref in variables(paths, {}, config)] == ["head/kernel", "head/bias"]
    assert [ref.full_name for ref in variables(paths, {})] == [None, None]
    assert [ref.slot_of for ref in variables({**paths, "metrics/mean/vars/0": ()}, {})] == [None, None, ""]


def test_a_quantized_or_unusual_layer_has_no_names() -> None:
    attributes = {"layers/dense/vars": {"name": "head"}}
    assert [ref.full_name for ref in variables({"layers/dense/vars/0": (2, 3)}, attributes)] == ["head/kernel"]
    for path in ("layers/dense/vars/1", "layers/dense/vars/0"):
        assert [ref.full_name for ref in variables({path: (3,)}, attributes)] == [None]
    integers = {"layers/dense/vars/0": keras.Dataset("layers/dense/vars/0", "int8", (2, 3), 6, 0, "")}
    assert [ref.full_name for ref in keras.layout(integers, attributes).variables] == [None]


def test_cudnn_layers_are_named_by_their_description_or_their_shapes() -> None:
    expected = (
        "lstm is a CuDNNLSTM, whose bias is torch's bias_ih and then bias_hh: 8 parts, where Keras' LSTM has others"
    )
    config = {"class_name": "Sequential", "config": [{"class_name": "CuDNNLSTM", "config": {"name": "lstm"}}]}
    said = keras.layout({}, {}, json.dumps(config).encode())
    assert [finding.message for finding in said.findings] == [expected]
    attributes = {
        "": {"layer_names": ["l"]},
        "l": {"weight_names": [f"lstm/{n}" for n in ("kernel", "recurrent_kernel", "bias")]},
    }
    paths = {"l/lstm/kernel": (3, 8), "l/lstm/recurrent_kernel": (2, 8), "l/lstm/bias": (16,)}
    seen = keras.layout({path: dataset(path, *shape) for path, shape in paths.items()}, attributes)
    assert [finding.message for finding in seen.findings] == [expected]


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[" * 100_000, b'{"class_name": 1}', b'{"class_name": "x", "config": 3}']
)
def test_a_description_that_is_none_is_no_description(config: bytes) -> None:
    assert keras.layout({}, {}, config) == keras.Layout(())


def test_code_in_a_description_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = base64.b64encode(marshal.dumps(compile(f"open({str(canary)!r}, 'w')", "x", "exec"))).decode()
    for function in ({"class_name": "__lambda__", "config": {"code": code}}, [code, None, None]):
        layer = {"class_name": "Lambda", "config": {"name": "run", "function": function}}
        config = {"class_name": "Sequential", "config": {"layers": [layer]}}
        assert keras.layout({}, {}, json.dumps(config).encode()) == keras.Layout(())
    assert not canary.exists()


def test_a_full_name_that_values_share_is_nobodys() -> None:
    attributes = {"": {"layer_names": ["a", "b"]}, "a": {"weight_names": ["w"]}, "b": {"weight_names": ["w"]}}
    datasets = {path: dataset(path, 2) for path in ("a/w", "b/w")}
    layout = keras.layout(datasets, attributes)
    differ = layout.inventory(lambda ref: len(ref.name) + ord(ref.name[0]))
    assert differ.shared_names == {"w": ("a/w", "b/w")}
    assert [ref.full_name for ref in differ.variables.values()] == [None, None]
    alike = layout.inventory(lambda ref: 0)
    assert alike.shared_names == {}
    assert [ref.full_name for ref in alike.variables.values()] == ["w", "w"]


@pytest.mark.parametrize(
    ("paths", "attributes", "message"),
    [
        (
            [],
            {"": {"layer_names": ["d"]}, "d": {"weight_names": ["k:0"]}},
            "d names the weight k:0, but there is no dataset d/k:0",
        ),
        (["d/k"], {"": {"layer_names": ["d"]}, "d": {"weight_names": ["k", "k"]}}, "d names the weight k twice"),
        ([], {"": {"layer_names": ["d"]}}, "d has no attribute weight_names"),
        ([], {"": {"layer_names": None}}, "the attribute layer_names of the file's root is not a list of names"),
        (["a", "a:0"], {}, "the datasets a and a:0 have one name"),
    ],
)
def test_names_that_do_not_fit_the_file_are_refused(
    paths: list[str], attributes: keras.Attributes, message: str
) -> None:
    with pytest.raises(Corrupt) as caught:
        keras.layout({path: dataset(path, 1) for path in paths}, attributes)
    assert (caught.value.code, str(caught.value)) == ("T2T605", message)
