"""
From what somebody typed to the checkpoint that is meant.

    model.ckpt-700                        a prefix
    model.ckpt-700.index, .meta, .data-*  one of its files
    DIR/checkpoint                        a state file, which names the newest prefix beside it
    DIR                                   with a state file; or a SavedModel (DIR/variables); or DIR = .../variables

Every name is taken literally: `*`, `?` and `[` are characters like others.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from t2t.checkpoints import state, table
from t2t.checkpoints.files import HEAD_SIZE, described, names_in, open_regular, reason, refusal
from t2t.names import nearest, shown
from t2t.problems import CheckpointError, Location, Problem

STATE_FILE = "checkpoint"
GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")

_ENDING = re.compile(r"\.(?:index|meta|data-[0-9]{5,}-of-[0-9]{5,})\Z")
_V1_PATTERN = re.compile(r"-\?{5}-of-[0-9]{5,}\Z")
#: How many of the prefixes in a directory a message lists.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint to open: its format (a key of READERS), its path as that reader wants it, what there is to say."""

    format: str
    path: str
    notes: tuple[Problem, ...] = ()


def locate(path: str) -> Found:
    """The checkpoint that `path` means; raises CheckpointError T2T601, T2T602, T2T603 or T2T610."""
    if not path or "\0" in path:
        raise refusal("T2T601", "the path is empty" if not path else "the path holds a NUL character", shown(path))
    if _is_there(f"{path}.index"):
        return Found("bundle", path)
    ending = _ENDING.search(path)
    if ending and _is_there(path[: ending.start()] + ".index"):
        return Found("bundle", path[: ending.start()])
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            message = f"a symbolic link to {shown(os.readlink(path))}, which does not exist"
            raise refusal("T2T602", message, path) from error
        raise _nothing_there(path[: ending.start()] if ending else path) from error
    except OSError as error:
        raise refusal("T2T602", f"cannot be opened: {reason(error)}", path) from error
    if stat.S_ISDIR(mode):
        return _in_folder(path)
    if os.path.basename(path) == STATE_FILE:
        return _from_state(path)
    if os.path.basename(path) in GRAPH_FILES:
        return _in_folder(os.path.dirname(path) or ".")
    raise _other(path, ending)


def _is_there(path: str) -> bool:
    # A dangling link counts: opening it then says what is wrong with it.
    return os.path.lexists(path)


def _in_folder(folder: str) -> Found:
    state_file = os.path.join(folder, STATE_FILE)
    saved_model = os.path.join(folder, "variables", "variables")
    candidates = []
    if os.path.isfile(state_file):
        candidates.append(state_file)
    if _is_there(f"{saved_model}.index"):
        candidates.append(saved_model)
    if os.path.basename(os.path.abspath(folder)) == "variables" and _is_there(os.path.join(folder, "variables.index")):
        candidates.append(os.path.join(folder, "variables"))
    if len(candidates) > 1:
        message = f"the directory holds several checkpoints: {', '.join(map(shown, candidates))}"
        raise refusal("T2T601", message, folder, "give one of them")
    if candidates:
        return _from_state(state_file) if candidates[0] == state_file else Found("bundle", candidates[0])
    if any(_is_there(os.path.join(folder, name)) for name in GRAPH_FILES):
        message = "the SavedModel has no variables (no variables/variables.index)"
        raise refusal("T2T601", message, folder, "its weights may be constants of its graph, which t2t does not read")
    message = "the directory has no file 'checkpoint' and is no SavedModel"
    raise refusal("T2T601", message, folder, _prefixes_hint(folder))


def _from_state(path: str) -> Found:
    """The checkpoint that a state file names, if it lies in the state file's directory."""
    target = state.newest(path)
    folder = os.path.dirname(path)
    if "\0" in target or ".." in target.split("/") or not os.path.basename(target):
        message = f"the state file names {shown(target)}, which t2t does not follow"
        raise refusal("T2T610", message, path, "give that path itself as the checkpoint")
    notes: tuple[Problem, ...] = ()
    prefix = os.path.join(folder, target)
    if os.path.isabs(target) and os.path.dirname(os.path.realpath(target)) != os.path.realpath(folder or "."):
        if _is_there(f"{target}.index") or _is_there(target):
            message = f"the state file names {shown(target)}, which is in another directory"
            raise refusal("T2T610", message, path, "give that path itself as the checkpoint")
        prefix = os.path.join(folder, os.path.basename(target))
        message = f"the state file names {shown(target)}, which does not exist; {shown(prefix)} is read instead"
        notes = (Problem("T2T610", message, Location(path), severity="note"),)
    if _is_there(f"{prefix}.index"):
        return Found("bundle", prefix, notes)
    if _V1_PATTERN.search(prefix):
        raise _v1(path)
    if os.path.isfile(prefix):
        raise _other(prefix, None)
    message = f"the state file names {shown(target)}, which does not exist"
    raise refusal("T2T610", message, path, _prefixes_hint(folder))


def _nothing_there(prefix: str) -> CheckpointError:
    folder, base = os.path.split(prefix)
    try:
        names = names_in(folder)
    except CheckpointError:
        return refusal("T2T601", f"there is no directory {shown(folder)}", prefix)
    data = [name for name in names if name.startswith(f"{base}.data-") and _ENDING.search(name)]
    if data:
        message = f"{shown(base)}.index is missing, but {shown(data[0])} is there"
        return refusal("T2T601", message, prefix, "the save or the copy is incomplete")
    close = nearest(base, _prefixes(names))
    hint = f"did you mean {', '.join(shown(os.path.join(folder, name)) for name in close)}" if close else ""
    message = f"no checkpoint there: neither {shown(base)}.index nor {shown(base)} exists"
    return refusal("T2T601", message, prefix, hint)


def _prefixes(names: list[str]) -> list[str]:
    return [name.removesuffix(".index") for name in names if name.endswith(".index")]


def _prefixes_hint(folder: str) -> str:
    found = _prefixes(names_in(folder))
    listed = ", ".join(shown(name) for name in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"give one of the prefixes that it holds: {listed}{more}" if found else "no prefix.index lies there"


def _other(path: str, ending: re.Match[str] | None) -> CheckpointError:
    """Why a file that exists is not what t2t reads."""
    fd, found = open_regular(path)
    with open(fd, "rb") as file:
        try:
            head = file.read(HEAD_SIZE)
            file.seek(max(found.st_size - len(table.MAGIC), 0))
            tail = file.read(len(table.MAGIC))
        except OSError as error:
            return refusal("T2T602", f"cannot be read: {reason(error)}", path)
    if not head:
        return refusal("T2T603", "empty file", path)
    if ending and ending[0] != ".index":
        return _nothing_there(path[: ending.start()])
    if tail == table.MAGIC:
        return _v1(path)
    if known := described(head):
        return refusal("T2T603", f"this is {known[0]}", path, known[1])
    return refusal("T2T603", "not a TensorFlow checkpoint", path, "this t2t reads TensorFlow V2 checkpoints")


def _v1(path: str) -> CheckpointError:
    message = "this is a TensorFlow V1 checkpoint, which is not supported yet"
    return refusal("T2T603", message, path, "this t2t reads TensorFlow V2 checkpoints")
