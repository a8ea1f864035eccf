"""An original that is a whole Keras model in a file, run by the Keras of its time: 3, or tf_keras for all before."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .functions import traced
from .original import Array, Layer, Original, OriginalFailedError, Port, Request, cause, check_fits, library, named


@contextmanager
def keras_file(request: Request) -> Iterator[Original]:
    """
    The model in a .keras or .h5 file, called with training=False.

    Keras 3 opens files of Keras 2, too, but computes some layers otherwise (hard_sigmoid, to name one) without a word.
    Code in a file (a Lambda layer) is never run.
    """
    path = request["path"]
    version, config = _description(path)
    is_old = not version.startswith("3.")
    if _holds_code(config):
        hint = "describe the original by call, in Python"
        raise OriginalFailedError("run", "the model has a Lambda layer, whose code lies in the file", hint)
    written = f"the file was written by Keras {version}" if version else "the file does not say which Keras wrote it"
    keras = library("tf_keras", f", and {written}") if is_old else library("keras")
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise OriginalFailedError("run", f"{keras.__name__} cannot load the model: {cause(error)}") from error
    library_versions = {keras.__name__: keras.__version__, "tensorflow": library("tensorflow").__version__}
    yield _original(request, model, library_versions)


def _description(path: str) -> tuple[str, Any]:
    """The version of Keras that wrote the file, "" where it doesn't say, and the model's configuration."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                metadata = json.loads(archive.read("metadata.json"))
                return str(metadata.get("keras_version", "")), json.loads(archive.read("config.json"))
        h5py = library("h5py")
        with h5py.File(path, "r") as file:
            version, config = file.attrs.get("keras_version", ""), file.attrs.get("model_config")
            if config is None:
                hint = "name a file that Keras saved with save(), or describe the original by call"
                raise OriginalFailedError("run", "the file holds weights, but no model", hint)
            return _text(version), json.loads(_text(config))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise OriginalFailedError("run", f"not a file that Keras wrote: {cause(error)}") from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _holds_code(config: Any) -> bool:
    """Whether a layer in it is code; safe_mode does not guard HDF5 files in every Keras."""
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("class_name") in {"Lambda", "__lambda__", "function"} and _is_lambda(node):
                return True
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return False


def _is_lambda(node: dict[str, Any]) -> bool:
    # A registered function goes by its name and is no code; everything else of the kind is.
    return node["class_name"] != "function" or not isinstance(node.get("config"), str)


def _original(request: Request, model: Any, library_versions: dict[str, str]) -> Original:
    tf = library("tensorflow")
    inputs, outputs = list(getattr(model, "inputs", None) or []), list(getattr(model, "output_names", None) or [])
    names = list(getattr(model, "input_names", None) or [_own_name(tensor) for tensor in inputs])
    ports = {own: Port(own, _dtype(tensor), _shape(tensor)) for own, tensor in zip(names, inputs, strict=True)}
    if not ports:
        raise OriginalFailedError("run", "the model does not say what its inputs are", "describe the original by call")
    feed = dict(request["feed"])
    if len(feed) == len(ports) == 1:
        feed = dict.fromkeys(feed, names[0])
    for name, own in feed.items():
        named("feed", name, own, ports, "the model has no input")
    for own in names:
        if own not in feed.values():
            raise OriginalFailedError("names", f"the model has an input {own}, which nothing is fed to")
    start = [(variable, variable.numpy()) for variable in model.variables]

    def restart() -> None:
        for variable, value in start:
            variable.assign(value)
        # The state of a recurrent layer is none of the model's variables.
        for layer in model._flatten_layers():
            reset = getattr(layer, "reset_state", None) or getattr(layer, "reset_states", None)
            if reset is not None and getattr(layer, "stateful", False):
                reset()

    def run(given: dict[str, Array]) -> dict[str, Array]:
        values = {}
        for name, own in feed.items():
            check_fits(name, ports[own], given[name])
            values[own] = tf.constant(given[name])
        try:
            computed = compute(*(values[own] for own in names))
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise OriginalFailedError("run", f"the model cannot be run: {cause(error)}") from error
        return {name: np.asarray(value) for name, value in zip(request["fetch"], computed, strict=True)}

    def compute(*arguments: Any) -> list[Any]:
        by_name = _by_name(model(arguments[0] if len(arguments) == 1 else list(arguments), training=False), outputs)
        if len(by_name) == len(request["fetch"]) == 1:
            return list(by_name.values())
        for name, own in request["fetch"].items():
            named("fetch", name, own, by_name, "the model has no output")
        return [by_name[own] for own in request["fetch"].values()]

    def layers(given: dict[str, Array]) -> list[Layer]:
        arrays = {own: given[name] for name, own in feed.items()}
        return traced(tf, compute, [arrays[own] for own in names]).layers()

    def outputs_of(given: dict[str, Array], wanted: dict[str, str]) -> dict[str, Array]:
        known = {layer.name: layer for layer in model._flatten_layers()}
        for path, own in wanted.items():
            named("layers", path, own, known, "the model has no layer")
        with _watched({own: known[own] for own in wanted.values()}) as computed:
            run(given)
        for path, own in wanted.items():
            if own not in computed:
                raise OriginalFailedError("names", f"layers {path}: the model never calls its layer {own}")
        return {path: np.asarray(computed[own]) for path, own in wanted.items()}

    return Original(run, restart, library_versions, (), layers, outputs_of)


@contextmanager
def _watched(layers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The first output of each layer's last call, by the layer's name; filled while the context is entered."""
    computed: dict[str, Any] = {}

    def watching(name: str, call: Any) -> Any:
        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            value = call(*args, **kwargs)
            computed[name] = next(iter(value.values()), None) if isinstance(value, dict) else value
            while isinstance(computed[name], list | tuple):
                computed[name] = computed[name][0]
            return value

        return watched

    before = {name: layer.call for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.call = watching(name, before[name])
        yield computed
    finally:
        for name, layer in layers.items():
            layer.call = before[name]


def _by_name(computed: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(computed, dict):
        return computed
    flat = list(computed) if isinstance(computed, list | tuple) else [computed]
    return dict(zip(names if len(names) == len(flat) else map(str, range(len(flat))), flat, strict=True))


def _own_name(tensor: Any) -> str:
    return str(tensor.name).partition(":")[0]


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape)
