"""
From what somebody typed to the checkpoint that is meant.

    model.ckpt-700                        a prefix
    model.ckpt-700.index, .meta, .data-*  one of its files
    DIR/checkpoint                        a state file, which names the newest prefix beside it
    DIR                                   with a state file; or a SavedModel (DIR/variables); or DIR = .../variables
    model.ckpt, weights.h5, m.keras, ...  a file of another format, told by its content and never by its name
    model.ckpt-?????-of-00002             all parts of a V1 checkpoint; one of them, or its name without -00000-of-00002

Each may be an address, scheme://... Every name is taken literally: `*` and `[` are characters like others, and so is
`?` but for those at the end of a V1 checkpoint's name where no file has them.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from t2t.checkpoints import state, table
from t2t.checkpoints.files import (
    File,
    exists,
    has_scheme,
    is_address,
    is_file,
    is_folder,
    names_in,
    open_file,
    reason,
    refusal,
    state_of,
)
from t2t.checkpoints.signatures import HEAD_SIZE, READ, described, is_cut_off
from t2t.names import nearest, shown
from t2t.problems import CheckpointError, Location, Problem

STATE_FILE = "checkpoint"
GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")

_ENDING = re.compile(r"\.(?:index|meta|data-[0-9]{5,}-of-[0-9]{5,})\Z")
_V1_PATTERN = re.compile(r"-\?{5}-of-([0-9]{5,})\Z")
_V1_PART = re.compile(r"-[0-9]{5,}-of-([0-9]{5,})\Z")
#: Endings of files that a hint may propose; what a file is, its content says.
_ENDINGS = (".h5", ".hdf5", ".keras", ".npz", ".weights.json")
#: How many of the prefixes in a directory a message lists.
_LISTED = 5

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: An HDF5 file begins at one of these places; before it, there is what somebody else put there.
HDF5_STARTS = (0, *(512 * 2**power for power in range(7)))
#: A list of files, in JSON, is not longer.
MAX_LISTING = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint to open: its format (a key of READERS), its path as that reader wants it, what there is to say."""

    format: str
    path: str
    notes: tuple[Problem, ...] = ()


def locate(path: str) -> Found:
    """The checkpoint that `path` means; raises CheckpointError T2T601 to T2T607, T2T610, T2T611 or T2T619."""
    if not path or "\0" in path:
        raise refusal("T2T601", "the path is empty" if not path else "the path holds a NUL character", shown(path))
    if path.startswith("file:///"):
        path = path.removeprefix("file://")
    if exists(f"{path}.index"):
        return Found("bundle", path)
    ending = _ENDING.search(path)
    if ending and exists(path[: ending.start()] + ".index"):
        return Found("bundle", path[: ending.start()])
    if ending and ending[0] == ".meta" and is_file(path[: ending.start()]):
        return _by_content(path[: ending.start()], None)
    folder, is_there = _at_address(path) if is_address(path) else _at_path(path)
    if folder:
        return _in_folder(path)
    if not is_there:
        if parts := _v1_parts(path):
            return parts
        raise _nothing_there(path[: ending.start()] if ending else path)
    if os.path.basename(path) == STATE_FILE:
        return _from_state(path)
    if os.path.basename(path) in GRAPH_FILES:
        return _in_folder(os.path.dirname(path) or ".")
    return _by_content(path, ending)


def _at_path(path: str) -> tuple[bool, bool]:
    """Whether a directory is there, and whether anything is."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            message = f"a symbolic link to {shown(os.readlink(path))}, which does not exist"
            raise refusal("T2T602", message, path) from error
        return False, False
    except OSError as error:
        raise refusal("T2T602", f"cannot be opened: {reason(error)}", path) from error
    return stat.S_ISDIR(mode), True


def _at_address(path: str) -> tuple[bool, bool]:
    is_there = is_file(path)
    if is_folder(path):
        # A web server shows a directory as a page, if at all: that it is one shows by what lies in it.
        return not is_there or bool(_in(path)), True
    if not is_there and (has_members := bool(_in(path))):
        return has_members, True
    if not is_there:
        try:
            state_of(path)
        except CheckpointError as error:
            if error.problems[0].code != "T2T601":
                raise  # there may be something, but not for us
    return False, is_there


def _in(folder: str) -> list[str]:
    """The checkpoints that a directory stands for: its state file, the variables of a SavedModel."""
    state_file = os.path.join(folder, STATE_FILE)
    saved_model = os.path.join(folder, "variables", "variables")
    candidates = []
    if is_file(state_file):
        candidates.append(state_file)
    if exists(f"{saved_model}.index"):
        candidates.append(saved_model)
    itself = folder.rstrip("/") if is_address(folder) else os.path.abspath(folder)
    if os.path.basename(itself) == "variables" and exists(os.path.join(folder, "variables.index")):
        candidates.append(os.path.join(folder, "variables"))
    return candidates


def _in_folder(folder: str) -> Found:
    candidates = _in(folder)
    if len(candidates) > 1:
        message = f"the directory holds several checkpoints: {', '.join(map(shown, candidates))}"
        raise refusal("T2T601", message, folder, "give one of them")
    if candidates:
        is_state = candidates[0] == os.path.join(folder, STATE_FILE)
        return _from_state(candidates[0]) if is_state else Found("bundle", candidates[0])
    if any(exists(os.path.join(folder, name)) for name in GRAPH_FILES):
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
    if os.path.isabs(target) or has_scheme(target):
        if _is_beside(target, folder):
            prefix = target
        else:
            prefix = os.path.join(folder, os.path.basename(target))
            notes = (_read_instead(path, target, prefix),)
    if exists(f"{prefix}.index"):
        return Found("bundle", prefix, notes)
    if is_file(prefix):
        return _by_content(prefix, None, notes)
    if parts := _v1_parts(prefix, notes):
        return parts
    message = f"the state file names {shown(target)}, which does not exist"
    raise refusal("T2T610", message, path, _prefixes_hint(folder))


def _is_beside(target: str, folder: str) -> bool:
    if has_scheme(target) or is_address(folder):
        return os.path.dirname(target) == folder
    return os.path.dirname(os.path.realpath(target)) == os.path.realpath(folder or ".")


def _read_instead(path: str, target: str, prefix: str) -> Problem:
    """The note that what lies beside the state file is read; raises CheckpointError where what it names exists."""
    why = "which does not exist"
    if has_scheme(target) or is_address(path):
        # Another computer's path, or an address that nobody here has given: neither is looked at.
        why = "which is in another place"
    elif exists(f"{target}.index") or exists(target):
        message = f"the state file names {shown(target)}, which is in another directory"
        raise refusal("T2T610", message, path, "give that path itself as the checkpoint")
    message = f"the state file names {shown(target)}, {why}; {shown(prefix)} is read instead"
    return Problem("T2T610", message, Location(path), severity="note")


def _nothing_there(prefix: str) -> CheckpointError:
    folder, base = os.path.split(prefix)
    try:
        names = names_in(folder)
    except CheckpointError as error:
        if is_address(folder) and error.problems[0].code != "T2T601":
            return error
        return refusal("T2T601", f"there is no directory {shown(folder)}", prefix)
    data = [name for name in names if name.startswith(f"{base}.data-") and _ENDING.search(name)]
    if data:
        message = f"{shown(base)}.index is missing, but {shown(data[0])} is there"
        return refusal("T2T601", message, prefix, "the save or the copy is incomplete")
    close = nearest(base, _prefixes(names) + [name for name in names if name.endswith(_ENDINGS)])
    hint = f"did you mean {', '.join(shown(os.path.join(folder, name)) for name in close)}" if close else ""
    message = f"no checkpoint there: neither {shown(base)}.index nor {shown(base)} exists"
    return refusal("T2T601", message, prefix, hint)


def _prefixes(names: list[str]) -> list[str]:
    return [name.removesuffix(".index") for name in names if name.endswith(".index")]


def _prefixes_hint(folder: str) -> str:
    names = names_in(folder)
    found = _prefixes(names) + [name for name in names if name.endswith(_ENDINGS)]
    if not found and not is_address(folder):
        found = [name for name in names if any(exists(os.path.join(folder, name, graph)) for graph in GRAPH_FILES)]
    listed = ", ".join(shown(name) for name in found[:_LISTED])
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"give one of those that it holds: {listed}{more}" if found else "nothing that looks like one lies there"


def _v1_parts(path: str, notes: tuple[Problem, ...] = ()) -> Found | None:
    """The V1 checkpoint whose parts a pattern or a prefix names, None where there is none of them."""
    folder, base = os.path.split(path)
    pattern = _V1_PATTERN.search(base)
    prefix = base[: pattern.start()] if pattern else base
    try:
        names = names_in(folder)
    except CheckpointError:
        return None
    if pattern and not names:  # a directory that cannot be listed
        names = [f"{prefix}-00000-of-{pattern[1]}"]
    parts: dict[str, str] = {}
    for name in names:
        part = _V1_PART.search(name)
        if part and name[: part.start()] == prefix and (not pattern or part[1] == pattern[1]):
            parts.setdefault(f"{os.path.join(folder, prefix)}-?????-of-{part[1]}", os.path.join(folder, name))
    if len(parts) > 1:
        message = f"{shown(base)} has parts of several saves: {', '.join(map(shown, parts))}"
        raise refusal("T2T601", message, path, "give one of them")
    for part_path in parts.values():
        return _by_content(part_path, None, notes) if exists(part_path) else None
    return None


def _by_content(path: str, ending: re.Match[str] | None, notes: tuple[Problem, ...] = ()) -> Found:
    """What a file is; raises CheckpointError T2T603 for what t2t does not read."""
    file = open_file(path)
    try:
        head = file.read(0, min(HDF5_STARTS[-1] + len(HDF5_SIGNATURE), file.size))
        tail = file.read(max(file.size - len(table.MAGIC), 0), min(len(table.MAGIC), file.size))
        if tail == table.MAGIC:
            part = _V1_PART.search(path)
            return Found("v1", f"{path[: part.start()]}-?????-of-{part[1]}" if part else path, notes)
        if head.startswith(HDF5_SIGNATURE):
            return Found("hdf5", path, notes)
        if head.startswith((b"PK\3\4", b"PK\5\6")) and (format_ := _format_of_zip(file)):
            return Found(format_, path, notes)
        if head.lstrip().startswith(b"{") and file.size <= MAX_LISTING and b'"weight_map"' in file.read(0, file.size):
            return Found("keras_shards", path, notes)
    finally:
        file.close()
    if not head:
        raise refusal("T2T603", "empty file", path)
    if ending and ending[0] != ".index":
        raise _nothing_there(path[: ending.start()])
    if known := described(head[:HEAD_SIZE]):
        raise refusal("T2T603", f"this is {known[0]}", path, known[1])
    if any(head.startswith(HDF5_SIGNATURE, start) for start in HDF5_STARTS):
        return Found("hdf5", path, notes)
    if is_cut_off(head):
        message = "this begins as a TensorFlow checkpoint does, but does not end as one"
        raise refusal("T2T604", message, path, "the file is cut off: copy it again")
    raise refusal("T2T603", "not a checkpoint that t2t knows", path, READ)


def _format_of_zip(file: File) -> str:
    """The format of a zip archive by the names of its members, "" for none that t2t reads."""
    names = [name for name in _members(file) if not name.endswith("/")]
    if any(name.endswith(".weights.h5") or name == "model.weights.npz" for name in names):
        return "keras"
    if {"config.json", "metadata.json"} <= set(names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "keras" if sum(name.endswith((".npz", ".h5", ".hdf5")) for name in names) == 1 else ""


def _members(file: File) -> list[str]:
    from t2t.checkpoints.archive import Members  # zipfile is slow to import, and most checkpoints are none

    with file.stream() as stream:
        members = Members(stream, file.size, file.path)
        members.close()
        return list(members.infos)
