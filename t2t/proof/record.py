"""
Record what TensorFlow computes: prepare the request, run `original.py` in a child process, take what it stored.

TensorFlow can abort, hang and print; none of that may reach whoever asked for a recording.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from t2t import __version__
from t2t.names import did_you_mean, shown
from t2t.problems import MappingError, OriginalError, Problem
from t2t.proof import arrays
from t2t.proof.arrays import Array
from t2t.proof.recording import Draw, Recording, check_labels, graph_digest, inputs, labels, parts
from t2t.verification import Verify
from t2t.writers.atomic import output_error

#: A line or two of what the child printed help, a thousand don't.
NOISE_LINES = 10

_CHILD = Path(__file__).with_name("original.py")
_INSTALL = "run pip install -e '.[tf]'"


def record(
    verify: Verify, checkpoint_path: str, source_digest: str, *, graph: str | None = None, timeout: float = 600
) -> Recording:
    """
    Run the original on the mapping's inputs. `graph` replaces the mapping's .meta file; `timeout` is in seconds.

    Raises OriginalError: T2T901 without TensorFlow, T2T902 when it fails or dies, T2T903 when it takes too long;
    MappingError (T2T503) for tensors that the graph does not have, for inputs and labels that don't fit, and for empty
    outputs; CheckpointError (T2T904) for an input's file that cannot be read; OutputError (T2T802, T2T803) where
    nothing can be written to the temporary directory.
    """
    graph = graph or verify.reference.path
    if importlib.util.find_spec("tensorflow") is None:
        raise OriginalError(Problem("T2T901", "tensorflow is not installed", hint=_INSTALL))
    if not os.path.isfile(graph):
        raise OriginalError(Problem("T2T902", f"no graph at {shown(graph)}", verify.at))
    truth, given = labels(verify), [inputs(verify, draw) for draw in range(verify.draws)]
    try:
        result, stored = _computed(verify, graph, checkpoint_path, given, timeout)
    except OSError as error:
        # tempfile knows no directory where it found none that can be written to.
        raise output_error(tempfile.tempdir or "TMPDIR", error) from None
    draws = tuple(
        Draw(draw, {name: stored[f"{i}_{j}"] for i, name in enumerate(verify.reference.fetch)})
        for j, draw in enumerate(given)
    )
    for j, draw in enumerate(draws):
        for name, array in draw.outputs.items():
            if array.size == 0:
                text = f"{shown(name)}: tensorflow computes {list(array.shape)} in draw {j}"
                raise MappingError(Problem("T2T503", text, verify.at, "an empty output proves nothing"))
    made_by = {"t2t": __version__, "tensorflow": result["tensorflow"], "numpy": np.__version__}
    generated = frozenset(entry.name for entry in verify.inputs if not entry.path)
    made_from = {**parts(verify, source_digest), "graph": graph_digest(graph)}
    recording = Recording(made_from, draws, truth, made_by, generated)
    check_labels(verify, recording)
    return recording


def _computed(
    verify: Verify, graph: str, checkpoint: str, given: list[dict[str, Array]], timeout: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """
    What the child reports, and its outputs as `<position in fetch>_<draw>`.

    Raises OSError where the temporary directory cannot be made or written to, and what `record` says.
    """
    feed, fetch = dict(verify.reference.feed), dict(verify.reference.fetch)
    with tempfile.TemporaryDirectory(prefix="t2t-") as directory:
        paths = {name: os.path.join(directory, name) for name in ("inputs.npz", "outputs.npz", "result.json", "noise")}
        members = {f"{i}_{j}": draw[name] for j, draw in enumerate(given) for i, name in enumerate(feed)}
        np.savez(paths["inputs.npz"], **members)  # type: ignore[arg-type]
        request = {
            "graph": os.path.abspath(graph),
            "checkpoint": os.path.abspath(checkpoint),
            "feed": feed,
            "fetch": fetch,
            "draws": verify.draws,
            "inputs": paths["inputs.npz"],
            "outputs": paths["outputs.npz"],
            "result": paths["result.json"],
        }
        Path(directory, "request.json").write_text(json.dumps(request), encoding="utf-8")
        code = _run(os.path.join(directory, "request.json"), paths["noise"], timeout)
        result = _result(code, paths["result.json"], paths["noise"], verify)
        return result, arrays.read_all(paths["outputs.npz"])


def _run(request: str, noise: str, timeout: float) -> int:
    """
    Run the child and give its exit status; what it prints goes to the file `noise`.

    Its standard input is a pipe that is never written: the child ends when its other end closes, however this process
    ends. Raises OriginalError (T2T903) after `timeout` seconds.
    """
    # oneDNN and TF32 compute other last digits than the plain float32 that is to be proven.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}
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
                text = f"tensorflow did not finish within {timeout:g} s"
                raise OriginalError(Problem("T2T903", text, details=_last_lines(noise))) from None
            finally:
                child.kill()


def _result(code: int, path: str, noise: str, verify: Verify) -> dict[str, Any]:
    """What the child reports. Raises what its exit status or its report stands for."""
    if code < 0:
        text = f"tensorflow died with {signal.Signals(-code).name}"
        raise OriginalError(Problem("T2T902", text, details=_last_lines(noise)))
    try:
        report: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        # On a full disk the file can be there without its content.
        text = f"tensorflow ended with exit status {code} and no result"
        raise OriginalError(Problem("T2T902", text, details=_last_lines(noise))) from None
    if code == 0:
        return report
    message, kind = _line(report["message"]), report["kind"]
    if kind == "disk":
        raise OSError(report["errno"], message)
    if kind == "tensorflow":
        raise OriginalError(Problem("T2T901", message, hint=_INSTALL))
    if kind == "names":
        hint = _line(report["hint"]) or did_you_mean(report["name"], report["candidates"])
        raise MappingError(Problem("T2T503", message, verify.at, hint))
    hint = "name it in verify's inputs and in reference's feed" if "must feed a value" in message else ""
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
