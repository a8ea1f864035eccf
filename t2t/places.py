"""
Where lies what a mapping speaks of: its own file, the checkpoint, the original.
"""

from __future__ import annotations

import errno
import os
import stat

from t2t import mapping as mapping_file
from t2t.checkpoints import Checkpoint
from t2t.checkpoints.files import is_address
from t2t.document import MAX_BYTES
from t2t.mapping import Mapping
from t2t.problems import CheckpointError, Location, Problem


def read_mapping(path: str | os.PathLike[str]) -> tuple[Mapping | None, list[Problem]]:
    """The mapping file. Raises CheckpointError (T2T602) where it cannot be read."""
    name = os.fspath(path)
    return mapping_file.read(mapping_bytes(name), name)


def mapping_bytes(name: str) -> bytes:
    """A mapping's file, of one that is too large its beginning. Raises CheckpointError (T2T602)."""
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a FIFO or a device may have no end
            raise OSError(errno.EINVAL, "Not a regular file")
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "name a mapping, a .yaml file" if error.errno in {errno.ENOENT, errno.EINVAL, errno.EISDIR} else ""
        problem = Problem("T2T602", f"the mapping cannot be read: {error.strerror}", Location(name, 1, 1), hint)
        raise CheckpointError(problem) from None


def checkpoint_path(mapping: Mapping, replaced: str | None) -> str:
    """The checkpoint to open. Raises CheckpointError (T2T601) where nothing names one."""
    path = replaced or mapping.checkpoint
    if not path:
        raise CheckpointError(
            Problem("T2T601", "the mapping names no checkpoint", Location(mapping.path, 1, 1), "give --checkpoint")
        )
    return path


def original_path(mapping: Mapping, checkpoint: Checkpoint | None, given: str | None) -> str:
    """
    The original's file or directory. What belongs to the checkpoint follows the `given` one: the checkpoint itself, its
    own .meta, and what lies beside or below it, which is looked for at the same place beside or below the given one.

    An address is looked for from the given checkpoint as it stands to the mapping's, whatever the way.
    """
    assert mapping.verify is not None
    path = mapping.verify.reference.path
    own = _plain(mapping.checkpoint).removesuffix(".index")
    if given is None or checkpoint is None or not path or not own:
        return path
    plain, whole = _plain(path), whole_path(checkpoint)
    if plain in (own, own.removesuffix(SAVED_VARIABLES)):
        return whole
    if plain == f"{own}.meta":
        return f"{checkpoint.path}.meta"
    if plain.startswith(f"{own}/"):  # the mapping names a directory
        folder = whole if whole != checkpoint.path else os.path.dirname(checkpoint.path)
        return os.path.join(folder, plain.removeprefix(f"{own}/"))
    if is_address(plain) != is_address(own) or os.path.isabs(plain) != os.path.isabs(own):
        return path
    way = os.path.relpath(_from_root(plain), os.path.dirname(_from_root(own.removesuffix(SAVED_VARIABLES))))
    if way.startswith("..") and not is_address(plain):
        return path
    stands = _plain(given) if os.path.isdir(given) else whole
    return os.path.normpath(os.path.join(os.path.dirname(stands), way))


#: Where a SavedModel's variables lie in it, as a prefix.
SAVED_VARIABLES = "/variables/variables"


def whole_path(checkpoint: Checkpoint) -> str:
    """The checkpoint as its own library takes it: a SavedModel's directory, else the path that was found."""
    folder = checkpoint.path.removesuffix(SAVED_VARIABLES)
    return folder if os.path.isfile(os.path.join(folder, "saved_model.pb")) else checkpoint.path


def _plain(path: str) -> str:
    """The path without what makes no difference; an address loses its last slashes only."""
    return path.rstrip("/") if is_address(path) or not path else os.path.normpath(path)


def _from_root(path: str) -> str:
    """An address as if its scheme and host were directories, so that a way between two of them can be told."""
    scheme, _, rest = path.partition("://")
    return f"/{scheme}/{rest}" if is_address(path) else path
