"""
Keras' layouts of HDF5 files: from groups, attributes and datasets to variables, their full names and what torch does
otherwise. Pure: nothing is read here, and a model's description is data, of which no code is ever made.

Keras 1 to 3, `.h5` (at the root, or in `model_weights` beside `optimizer_weights`):

    attribute layer_names = [dense, ...], of each layer's group weight_names = [dense/kernel:0, ...]
    dense/dense/kernel:0                the dataset: relative to the layer's group

Keras 3, `.weights.h5` (Keras 2.13 to 2.15 has `_layer_checkpoint_dependencies` for `layers`):

    layers/dense_1/vars/0               the group has its class' name; `vars` has its own as an attribute

A full name is what weight_names says; else the names of the layers from the outermost to the weight's, the model's own
left out, and the weight's name from a table of Keras' layers. Where no file says a name or a class, there is none.

https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving/legacy_h5_format.py
https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from t2t.checkpoints import otherwise
from t2t.checkpoints.protobuf import Corrupt
from t2t.checkpoints.slots import with_slots
from t2t.names import OUTPUT_SUFFIX, natural, shown
from t2t.problems import Problem
from t2t.tensors import CheckpointInventory, TensorRef

Attributes = Mapping[str, Mapping[str, Any]]

#: The group of a whole model's weights, and those of what only its training needs.
WEIGHTS = "model_weights"
OPTIMIZERS = ("optimizer_weights", "optimizer", "_optimizer")
_TRAINING = (*OPTIMIZERS, "metrics")
_LAYERS = ("layers", "_layer_checkpoint_dependencies")

#: How deep a model's description is followed.
MAX_DEPTH = 60

_VARIABLE = re.compile(r"(?:(.*)/)?vars/([0-9]+)")
_COUNTED = re.compile(r"_[0-9]+\Z")

#: The variables of a layer by its class (as its group is called), in Keras 3's order, each with its rank (0 is any) and
#: the option of the layer's configuration that leaves it out when it is false ("" for one that is always there).
#: There are no names where options are unknown and the count is neither that of all nor that of those always there.
_KERNEL_BIAS = (("bias", 1, "use_bias"),)
_SCALE_SHIFT = (("gamma", 1, "scale"), ("beta", 1, "center"))
VARIABLES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "dense": (("kernel", 2, ""), *_KERNEL_BIAS),
    "einsum_dense": (("kernel", 0, ""), ("bias", 0, "bias_axes")),
    **dict.fromkeys(("conv1d", "conv1d_transpose", "depthwise_conv1d"), (("kernel", 3, ""), *_KERNEL_BIAS)),
    **dict.fromkeys(("conv2d", "conv2d_transpose", "depthwise_conv2d"), (("kernel", 4, ""), *_KERNEL_BIAS)),
    **dict.fromkeys(("conv3d", "conv3d_transpose"), (("kernel", 5, ""), *_KERNEL_BIAS)),
    "separable_conv1d": (("depthwise_kernel", 3, ""), ("pointwise_kernel", 3, ""), *_KERNEL_BIAS),
    "separable_conv2d": (("depthwise_kernel", 4, ""), ("pointwise_kernel", 4, ""), *_KERNEL_BIAS),
    **dict.fromkeys(
        ("lstm_cell", "gru_cell", "simple_rnn_cell"),
        (("kernel", 2, ""), ("recurrent_kernel", 2, ""), ("bias", 0, "use_bias")),
    ),
    "batch_normalization": (*_SCALE_SHIFT, ("moving_mean", 1, ""), ("moving_variance", 1, "")),
    "layer_normalization": (("gamma", 0, "scale"), ("beta", 0, "center")),
    "group_normalization": _SCALE_SHIFT,
    "rms_normalization": (("scale", 0, ""),),
    "embedding": (("embeddings", 2, ""),),
    "p_re_lu": (("alpha", 0, ""),),
    "seed_generator": (("seed_generator_state", 1, ""),),
}

#: Groups that hold a list of layers, each called after its class. Other groups are attributes of a layer.
_LISTS = (*_LAYERS, "cells")

#: Attributes of Keras' own layers: (class of the layer, attribute) -> class of what lies there.
_OWN = {
    **{("multi_head_attention", f"{name}_dense"): "einsum_dense" for name in ("query", "key", "value", "output")},
    **{("multi_head_attention", f"_{name}_dense"): "einsum_dense" for name in ("query", "key", "value", "output")},
    **{(name, "cell"): f"{name}_cell" for name in ("lstm", "gru", "simple_rnn")},
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of an HDF5 file; `path` is without the leading slash, `offset` 0 where it lies in chunks."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int
    unreadable: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The variables that a file holds, unsorted, and what there is to say of its model (without a place)."""

    variables: tuple[TensorRef, ...]
    findings: tuple[Problem, ...] = ()

    def inventory(self, checksum: Callable[[TensorRef], int]) -> CheckpointInventory:
        """The variables by name. Full names that variables of different values share are taken from them."""
        refs = sorted(self.variables, key=lambda ref: natural(ref.name))
        by_full_name: dict[str, list[TensorRef]] = {}
        for ref in refs:
            if ref.full_name is not None:
                by_full_name.setdefault(ref.full_name, []).append(ref)
        shared = {
            full_name: tuple(ref.name for ref in same)
            for full_name, same in by_full_name.items()
            if len(same) > 1 and not _equal(same, checksum)
        }
        refs = [replace(ref, full_name=None) if ref.full_name in shared else ref for ref in refs]
        variables = with_slots({ref.name: ref for ref in refs})  # where no layout says it, the conventions do
        return CheckpointInventory(variables, shared_names=shared, checksum=checksum)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of a model's description: its class, its configuration, and the layers that are in it."""

    kind: str
    config: Mapping[str, Any]
    layers: tuple[_Layer, ...]

    @property
    def name(self) -> str | None:
        name = self.config.get("name")
        return name if isinstance(name, str) else None


def layout(datasets: Mapping[str, Dataset], attributes: Attributes, config: bytes | None = None) -> Layout:
    """
    The variables in an HDF5 file. `attributes` are those of its groups by path ("" is the root).

    `config` is the description of the model where it is not an attribute. Raises Corrupt T2T605.
    """
    text = config if config is not None else _joined(attributes.get("", {}), "model_config")
    model = _model(text)
    weights = attributes.get(WEIGHTS, {})
    if _has(weights, "layer_names"):
        variables = _legacy(datasets, attributes, f"{WEIGHTS}/")
    elif _has(attributes.get("", {}), "layer_names"):
        variables = _legacy(datasets, attributes, "")
    elif any(_VARIABLE.fullmatch(path) for path in datasets):
        variables = _positional(datasets, attributes, model)
    else:
        variables = {path: _ref(dataset, path, None) for path, dataset in datasets.items()}
    seen: dict[str, str] = {}
    for path, ref in variables.items():
        if (other := seen.setdefault(ref.name, path)) != path:
            raise Corrupt(f"the datasets {shown(other)} and {shown(path)} have one name", "T2T605")
    return Layout(tuple(variables.values()), tuple(_findings(model, variables.values())))


def _ref(dataset: Dataset, name: str, full_name: str | None, slot_of: str | None = None) -> TensorRef:
    return TensorRef(
        name.removesuffix(OUTPUT_SUFFIX),
        dataset.dtype,
        dataset.shape,
        offset=dataset.offset,
        nbytes=dataset.nbytes,
        slot_of=slot_of,
        unreadable=dataset.unreadable,
        key=dataset.path,
        full_name=full_name,
    )


def _equal(refs: list[TensorRef], checksum: Callable[[TensorRef], int]) -> bool:
    first, *others = refs
    if any(ref.unreadable or (ref.dtype, ref.shape) != (first.dtype, first.shape) for ref in refs):
        return False
    return all(checksum(ref) == checksum(first) for ref in others)


# Keras 1 to 3, .h5


def _legacy(datasets: Mapping[str, Dataset], attributes: Attributes, root: str) -> dict[str, TensorRef]:
    full_names: dict[str, str] = {}
    groups = [*_names(attributes, root.rstrip("/"), "layer_names"), "top_level_model_weights"]
    for layer in groups:
        group = f"{root}{layer}"
        if layer == groups[-1] and group not in attributes:
            continue
        for weight in _names(attributes, group, "weight_names"):
            path = f"{group}/{weight}"
            if path not in datasets:
                message = f"{shown(group)} names the weight {shown(weight)}, but there is no dataset {shown(path)}"
                raise Corrupt(message, "T2T605", "the save or the copy is incomplete")
            if path in full_names:
                raise Corrupt(f"{shown(group)} names the weight {shown(weight)} twice", "T2T605")
            full_names[path] = weight.removesuffix(OUTPUT_SUFFIX)
    variables = {}
    known = {full_name: path[len(root) :].removesuffix(OUTPUT_SUFFIX) for path, full_name in full_names.items()}
    for path, dataset in datasets.items():
        if path.split("/")[0] in OPTIMIZERS and path not in full_names:
            variables[path] = _ref(dataset, path, None, _slot(path, known))
        elif path.startswith(root):
            variables[path] = _ref(dataset, path[len(root) :], full_names.get(path))
    return variables


def _slot(path: str, known: Mapping[str, str]) -> str:
    """The variable that an optimizer's variable belongs to: the longest full name that its path has whole, or ""."""
    parts = path.removesuffix(OUTPUT_SUFFIX).split("/")
    for size in range(len(parts) - 1, 0, -1):
        for first in range(1, len(parts) - size + 1):
            if (name := known.get("/".join(parts[first : first + size]))) is not None:
                return name
    # Keras 3: dense_kernel_momentum, with the full name's slashes as underscores.
    flat = {full_name.replace("/", "_"): name for full_name, name in known.items()}
    return flat.get(parts[-1].rpartition("_")[0], "")


def _has(group: Mapping[str, Any], name: str) -> bool:
    return name in group or f"{name}0" in group


def _names(attributes: Attributes, path: str, name: str) -> list[str]:
    """An attribute that is a list of texts, and may be in pieces."""
    group = attributes.get(path, {})
    where = shown(path) or "the file's root"
    pieces = [group[name]] if name in group else []
    while name not in group and f"{name}{len(pieces)}" in group:
        pieces.append(group[f"{name}{len(pieces)}"])
    if not pieces:
        raise Corrupt(f"{where} has no attribute {name}", "T2T605", "the file is not one that Keras wrote whole")
    if not all(isinstance(piece, list) and all(isinstance(item, str) for item in piece) for piece in pieces):
        raise Corrupt(f"the attribute {name} of {where} is not a list of names", "T2T605")
    return [item for piece in pieces for item in piece]


def _joined(group: Mapping[str, Any], name: str) -> str | None:
    value = group.get(name)
    return value if isinstance(value, str) else None


# Keras 3, .weights.h5 and .keras


def _positional(datasets: Mapping[str, Dataset], attributes: Attributes, model: _Layer | None) -> dict[str, TensorRef]:
    described = dict(_groups(model, "")) if model else {}
    members: dict[str, dict[int, Dataset]] = {}
    for path, dataset in datasets.items():
        if match := _VARIABLE.fullmatch(path):
            members.setdefault(match[1] or "", {})[int(match[2])] = dataset
    names: dict[str, str] = {}
    for group, inside in members.items():
        chain = _chain(group, attributes, described)
        own = _variables(group, inside, attributes, described.get(_plain(group))) if chain else ()
        names.update({inside[i].path: "/".join((*chain, name)) for i, name in enumerate(own)})
    return {
        path: _ref(dataset, path, names.get(path), "" if path.split("/")[0] in _TRAINING else None)
        for path, dataset in datasets.items()
    }


def _chain(group: str, attributes: Attributes, described: Mapping[str, _Layer]) -> tuple[str, ...]:
    """The names of the layers from the outermost to the one whose group this is; () where one is not known."""
    names = []
    parts = group.split("/") if group else []
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        said = attributes.get(f"{path}/vars", {}).get("name")
        layer = described.get(_plain(path))
        name = said if isinstance(said, str) else layer.name if layer else None
        if name:
            names.append(name)
        elif end == len(parts) or not _is_list(path, attributes):
            return ()
    return tuple(names)


def _is_list(path: str, attributes: Attributes) -> bool:
    """Whether a group is a list of layers, and no layer. Where Keras writes names of layers, every layer has one."""
    named = "name" in attributes.get("vars", {})
    return path.rpartition("/")[2] in _LISTS or (named and "name" not in attributes.get(f"{path}/vars", {}))


def _plain(path: str) -> str:
    return "/".join(_LAYERS[0] if part in _LAYERS else part for part in path.split("/"))


def _variables(
    group: str, inside: Mapping[int, Dataset], attributes: Attributes, layer: _Layer | None
) -> tuple[str, ...]:
    """What the variables of a layer are called, in order; () where its class, or which of them it has, is not known."""
    kind = _kind(group, attributes)
    table = VARIABLES.get(kind, ())
    if layer is not None and _snake(layer.kind) == kind:
        # What is written null is left out as well: bias_axes.
        rows = tuple(row for row in table if not row[2] or layer.config.get(row[2], True) not in (False, None))
    else:
        rows = table if len(inside) == len(table) else tuple(row for row in table if not row[2])
    if sorted(inside) != list(range(len(rows))):
        return ()
    for i, (_, rank, _) in enumerate(rows):
        # Numbers that are not floats: a quantized layer, which has others.
        if (rank and len(inside[i].shape) != rank) or ("float" not in inside[i].dtype and kind != "seed_generator"):
            return ()
    return tuple(name for name, _, _ in rows)


def _kind(group: str, attributes: Attributes) -> str:
    """The class of the layer in a group, as Keras writes classes in paths; "" where nothing says it."""
    parent, _, last = group.rpartition("/")
    if parent and _is_list(parent, attributes):
        return _counted(last)
    if parent and (own := _OWN.get((_kind(parent, attributes), last))):
        return own
    # An attribute that whoever wrote the layer chose: only a name that Keras gave the layer tells its class.
    return _counted(str(attributes.get(f"{group}/vars", {}).get("name") or ""))


def _counted(name: str) -> str:
    return name if name in VARIABLES else _COUNTED.sub("", name)


def _snake(name: str) -> str:
    """A class' name as Keras writes it in paths. https://github.com/keras-team/keras/blob/master/keras/src/utils/naming.py"""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _groups(layer: _Layer, path: str) -> Iterator[tuple[str, _Layer]]:
    """Each layer of a model's description with the group that it has in the file."""
    used: dict[str, int] = {}
    for child in layer.layers:
        name = _snake(child.kind)
        used[name] = used.get(name, -1) + 1
        group = f"{path}layers/{name}" + (f"_{used[name]}" if used[name] else "")
        yield group, child
        yield from _groups(child, f"{group}/")


# The model's description


def _model(text: str | bytes | None) -> _Layer | None:
    """The model as its description says; None where there is none, or none that t2t understands."""
    if not text:
        return None
    try:
        return _layer(json.loads(text), 0)
    except (ValueError, RecursionError):
        # It only adds names and warnings: a file whose description is no JSON has its weights all the same.
        return None


def _layer(value: Any, depth: int) -> _Layer | None:
    if not isinstance(value, dict) or not isinstance(value.get("class_name"), str) or depth > MAX_DEPTH:
        return None
    config = value.get("config")
    # Keras 1 and early 2 give a Sequential's layers as its configuration.
    inside = config if isinstance(config, list) else config.get("layers") if isinstance(config, dict) else None
    children = [_layer(item, depth + 1) for item in inside] if isinstance(inside, list) else []
    own = config if isinstance(config, dict) else {}
    if "name" not in own and isinstance(value.get("name"), str):
        own = {**own, "name": value["name"]}
    return _Layer(value["class_name"], own, tuple(child for child in children if child))


def _findings(model: _Layer | None, variables: Iterable[TensorRef]) -> Iterator[Problem]:
    if model is None:
        yield from (problem for _, problem in otherwise.by_shape(variables))
        return
    for layer in _all(model, 0):
        name = shown(layer.name or "without a name")
        for kinds, option, value, does, hint in otherwise.OPTIONS:
            if layer.kind in kinds and option in layer.config and layer.config[option] == value:
                message = f"the {layer.kind} {name} has {option}={json.dumps(value)}, but {does}"
                yield Problem("T2T615", message, None, hint, "warning")
        if layer.kind in otherwise.CUDNN:
            yield otherwise.cudnn(name, layer.kind)


def _all(layer: _Layer, depth: int) -> Iterator[_Layer]:
    yield layer
    for child in layer.layers:
        yield from _all(child, depth + 1)
    # Wrappers (Bidirectional, TimeDistributed, RNN) have theirs in their configuration.
    if depth < MAX_DEPTH:
        cells = layer.config.get("cells")
        inside = [layer.config.get(key) for key in ("layer", "backward_layer", "cell")]
        for value in [*inside, *(cells if isinstance(cells, list) else [])]:
            if inner := _layer(value, depth + 1):
                yield from _all(inner, depth + 1)
