"""
Record what the original computes: prepare the request, run `original.py` in a child process, take what it stored.

TensorFlow can abort, hang and print; none of that may reach whoever asked for a recording.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from t2t import __version__
from t2t.checkpoints import Checkpoint
from t2t.checkpoints.child import signal_name
from t2t.checkpoints.files import is_address
from t2t.names import did_you_mean, shown
from t2t.problems import MappingError, ModuleError, OriginalError, Problem
from t2t.proof import arrays
from t2t.proof.arrays import Array
from t2t.proof.layers import recognised
from t2t.proof.origin import labels, original_digest, parts
from t2t.proof.recording import Draw, Recording, check_labels, runs
from t2t.proof.weights import check_training, folded
from t2t.verification import Reference, Verify
from t2t.writers.atomic import output_error

#: A line or two of what the child printed help, a thousand don't.
NOISE_LINES = 10

#: Where no name is close, so many are listed.
LISTED = 8

#: What has to be installed for each kind of original, as far as it can be known beforehand; the first one does.
NEEDS: dict[str, tuple[str, ...]] = {
    "graph": ("tensorflow",),
    "frozen": ("tensorflow",),
    "saved_model": ("tensorflow",),
    "keras": ("tensorflow",),
    "tflite": ("ai_edge_litert", "tensorflow"),
    "onnx": ("onnxruntime",),
    "call": (),
}

#: Which extra of t2t brings a library.
EXTRAS = {"tensorflow": "tf", "keras": "tf", "tf_keras": "keras2", "ai_edge_litert": "lite", "onnxruntime": "onnx"}

_CRASHED = (
    "the library that it runs crashed, not t2t: --format full shows what it printed last; try another version of it, "
    "or describe the original in another way"
)

#: What to do about a child that died of a signal; where it is none of these, somebody sent it.
DEATHS: dict[int, str] = {
    signal.SIGKILL: "the usual cause is the system, which was out of memory: make verify's inputs smaller, or end what "
    "else needs memory",
    signal.SIGABRT: _CRASHED,
    signal.SIGSEGV: _CRASHED,
    signal.SIGBUS: _CRASHED,
    signal.SIGFPE: _CRASHED,
    signal.SIGILL: "the library that it runs is built for another processor: install a build for this one",
}

_CHILD = Path(__file__).with_name("original.py")


def record(
    verify: Verify,
    checkpoint_path: str,
    source_digest: str,
    *,
    original: str | None = None,
    timeout: float = 600,
    allow_import: Sequence[str] = (),
    note: Callable[[Problem], None] = lambda _: None,
    weights: Checkpoint | None = None,
) -> Recording:
    """
    Run the original on the mapping's inputs. `original` replaces the path of its file; `timeout` is in seconds.

    With `weights`, the open checkpoint, an original that brings its own is first held against it: T2T905. Its layers'
    variables are recognised by it, too.
    Raises OriginalError: T2T901 without the library that runs it, T2T902 when it fails or dies, T2T903 when it takes
    too long; MappingError (T2T503) for names that the original does not have, for inputs and labels that don't fit,
    and for empty outputs; ModuleError (T2T705) for a function that `allow_import` leaves out; CheckpointError (T2T904)
    for an input's file that cannot be read; OutputError (T2T802, T2T803) where nothing can be written to the temporary
    directory.
    """
    reference = verify.reference
    original = reference.written if reference.kind == "call" else original or reference.path
    needed = NEEDS[reference.kind]
    if needed and not any(map(importlib.util.find_spec, needed)):
        raise OriginalError(Problem("T2T901", f"{needed[0]} is not installed", verify.at, _install(needed[0])))
    _check_there(verify, original, allow_import)
    if weights is not None:
        check_training(verify, original, weights)
    if reference.kind == "call":
        note(Problem("T2T700", f"importing {shown(original)}", severity="note"))
    truth, given = labels(verify), runs(verify)
    try:
        result, stored = _computed(verify, original, checkpoint_path, given, timeout=timeout, allow_import=allow_import)
    except OSError as error:
        # tempfile knows no directory where it found none that can be written to.
        raise output_error(tempfile.tempdir or "TMPDIR", error) from None
    for text in result["notes"]:
        note(Problem("T2T906", _line(text), verify.at, severity="note"))
    draws = tuple(
        Draw(draw, {name: stored[f"{i}_{j}"] for i, name in enumerate(reference.fetch)}) for j, draw in enumerate(given)
    )
    for j, draw in enumerate(draws):
        for name, array in draw.outputs.items():
            if array.size == 0:
                text = f"{shown(name)}: {_who(reference)} computes {list(array.shape)} in {_run_name(verify, j)}"
                raise MappingError(Problem("T2T503", text, verify.at, "an empty output proves nothing"))
    made_by = {"t2t": __version__, **result["versions"]}
    generated = frozenset(entry.name for entry in verify.inputs if not entry.path)
    # What can be imported and is no file goes by its name alone.
    digest = original_digest(reference, original) or hashlib.sha256(reference.written.encode()).hexdigest()
    made_from = {**parts(verify, source_digest), "graph": digest}
    scaled = folded(verify, original, weights) if weights is not None else {}
    inside = recognised(result, stored, verify.layers, weights, scaled)
    recording = Recording(made_from, draws, truth, made_by, generated, verify.steps, inside)
    check_labels(verify, recording)
    return recording


def _check_there(verify: Verify, original: str, allow_import: Sequence[str]) -> None:
    """Raises OriginalError (T2T902) where no original is, ModuleError (T2T705) for one that may not be imported."""
    kind = verify.reference.kind
    if kind == "call":
        module = original.partition(":")[0]
        if allow_import and not any(f"{module}.".startswith(f"{prefix}.") for prefix in allow_import):
            allowed = ", ".join(map(shown, allow_import))
            text = f"{shown(original)} may not be imported: {shown(module)} is not under {allowed}"
            raise ModuleError(Problem("T2T705", text, verify.at, f"--allow-import {shown(module)} allows it"))
    elif is_address(original):
        text = f"the original is run from files on this machine, but it is {shown(original)}"
        hint = "copy it beside the checkpoint, and give --checkpoint"
        raise OriginalError(Problem("T2T902", text, verify.at, hint))
    elif kind == "saved_model" and not os.path.isfile(os.path.join(original, "saved_model.pb")):
        raise OriginalError(Problem("T2T902", f"no saved_model.pb in {shown(original)}", verify.at))
    elif kind != "saved_model" and not os.path.isfile(original):
        raise OriginalError(Problem("T2T902", f"no {_NOUNS[kind]} at {shown(original)}", verify.at))


_NOUNS = {"graph": "graph", "frozen": "graph", "keras": "Keras model", "tflite": "model", "onnx": "model"}


def _who(reference: Reference) -> str:
    """What computes, in a message."""
    if reference.kind == "call":
        return shown(reference.written)
    return {"tflite": "the tflite model", "onnx": "the onnx model"}.get(reference.kind, "tensorflow")


def _run_name(verify: Verify, run: int) -> str:
    draw, step = divmod(run, verify.steps)
    return f"draw {draw}" + (f", step {step}" if verify.steps > 1 else "")


def _install(library: str) -> str:
    return (
        f"in the clone of t2t, run pip install -e '.[{EXTRAS[library]}]'"
        if library in EXTRAS
        else f"run pip install {library}"
    )


def _computed(
    verify: Verify,
    original: str,
    checkpoint: str,
    given: list[dict[str, Array]],
    *,
    timeout: float,
    allow_import: Sequence[str],
) -> tuple[dict[str, Any], dict[str, Array]]:
    """
    What the child reports, and its outputs as `<position in fetch>_<run>`.

    Raises OSError where the temporary directory cannot be made or written to, and what `record` says.
    """
    reference = verify.reference
    feed, fetch = dict(reference.feed), dict(reference.fetch)
    changing = {entry.name for entry in verify.inputs if not entry.path}
    with tempfile.TemporaryDirectory(prefix="t2t-") as directory:
        paths = {name: os.path.join(directory, name) for name in ("inputs.npz", "outputs.npz", "result.json", "noise")}
        members = {
            f"{i}_{j}": run[name]
            for j, run in enumerate(given)
            for i, name in enumerate(feed)
            if not j or name in changing
        }
        np.savez(paths["inputs.npz"], **members)  # type: ignore[arg-type]
        request = {
            "kind": reference.kind,
            "path": original if reference.kind == "call" else os.path.abspath(original),
            "checkpoint": os.path.abspath(checkpoint),
            "signature": reference.signature,
            "feed": feed,
            "fetch": fetch,
            "draws": verify.draws,
            "steps": verify.steps,
            "layers": dict(verify.layers),
            "allow_import": list(allow_import),
            "inputs": paths["inputs.npz"],
            "outputs": paths["outputs.npz"],
            "result": paths["result.json"],
        }
        Path(directory, "request.json").write_text(json.dumps(request), encoding="utf-8")
        try:
            code = _run(os.path.join(directory, "request.json"), paths["noise"], timeout, verify)
            result = _result(code, paths["result.json"], paths["noise"], verify)
        except OriginalError as error:
            # The outputs are what a recording is for, and they were whole before anything was looked at inside.
            stored = _stored_before(paths["result.json"])
            if stored is None:
                raise
            note = f"no layers are recorded: {error.problems[0].message}"
            result = {**stored, "notes": [*stored["notes"], note]}
        return result, arrays.read_all(paths["outputs.npz"])


def _stored_before(path: str) -> dict[str, Any] | None:
    """What the child reported before it looked inside, where that was the last of it."""
    try:
        report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return report if report.get("inside") == "begun" else None


def _run(request: str, noise: str, timeout: float, verify: Verify) -> int:
    """
    Run the child and give its exit status; what it prints goes to the file `noise`.

    Its standard input is a pipe that is never written: the child ends when its other end closes, however this process
    ends. Raises OriginalError (T2T903) after `timeout` seconds.
    """
    # oneDNN and TF32 compute other last digits than the plain float32 that is to be proven.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
    environment |= {"KERAS_BACKEND": "tensorflow"}
    with open(noise, "wb") as output:
        child = subprocess.Popen(  # noqa: S603 - the command is this interpreter and a file beside this one.
            [sys.executable, "-P", str(_CHILD), request],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        with child:
            try:
                return child.wait(timeout)
            except subprocess.TimeoutExpired:
                text = f"{_who(verify.reference)} did not finish within {timeout:g} s"
                hint = "--timeout gives it more seconds, smaller inputs need fewer"
                raise OriginalError(Problem("T2T903", text, verify.at, hint, details=_last_lines(noise))) from None
            finally:
                child.kill()


def _result(code: int, path: str, noise: str, verify: Verify) -> dict[str, Any]:
    """What the child reports. Raises what its exit status or its report stands for."""
    if code < 0:
        text = f"{_who(verify.reference)} died with {signal_name(-code)}"
        hint = DEATHS.get(-code, "somebody ended it: record again")
        raise OriginalError(Problem("T2T902", text, verify.at, hint, details=_last_lines(noise)))
    try:
        report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        # On a full disk the file can be there without its content.
        text = f"{_who(verify.reference)} ended with exit status {code} and no result"
        hint = "what it runs ended the process: --format full shows what it printed last"
        raise OriginalError(Problem("T2T902", text, verify.at, hint, details=_last_lines(noise))) from None
    if code == 0 and "inside" not in report:
        return report
    if report.get("inside") == "begun":
        text = f"{_who(verify.reference)} ended with exit status {code}"
        raise OriginalError(Problem("T2T902", text, verify.at, details=_last_lines(noise)))
    message, kind = _line(report["message"]), report["kind"]
    if kind == "disk":
        raise OSError(report["errno"], message)
    if kind == "missing":
        raise OriginalError(Problem("T2T901", message, verify.at, _install(report["name"])))
    if kind == "import":
        raise ModuleError(Problem("T2T705", message, verify.at, _line(report["hint"])))
    if kind == "names":
        known = report["candidates"]
        listed = f"it has {', '.join(map(shown, known))}" if 0 < len(known) <= LISTED else ""
        hint = _line(report["hint"]) or did_you_mean(report["name"], known) or listed
        raise MappingError(Problem("T2T503", message, verify.at, hint))
    hint = (
        "name it in verify's inputs and in reference's feed"
        if "must feed a value" in message
        else _line(report["hint"])
    )
    raise OriginalError(Problem("T2T902", message, verify.at, hint, details=_last_lines(noise)))


def _line(text: str) -> str:
    """A text of the child as a message may hold it; unlike one name, it may have the length of a few."""
    parts = [shown(text[start : start + 100]) for start in range(0, min(len(text), 500), 100)]
    return "".join(parts)


def _last_lines(path: str) -> tuple[str, ...]:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 8192))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return tuple(shown(line) for line in lines if line.strip())[-NOISE_LINES:]
