"""
Several files that are there together or not at all: the shards of one output, and the index that names them.

They are built in a directory beside their place, `.<name>.t2t-<pid>-<random>.tmp`, under the names that they will have,
and what is proven is what lies there. A few renames then put them in place:

    1   the older output's files go into the directory, its index first
    2   the new files go to their places, the index last

On an error or a signal everything is put back. A process that is killed between the first rename and the last leaves no
index: there may be shards of both outputs then, but never an index over such a mixture. Before that moment the older
output is whole, and after it the new one is. A directory that a killed process left is removed by the next one that
writes to the same place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from t2t.names import shown
from t2t.problems import Location, OutputError, Problem
from t2t.writers.atomic import (
    NEW,
    Temporary,
    output_error,
    refuse_bytes,
    refuse_occupied,
    remove_directory,
    sync_directory,
    temporary_path,
)

#: What a file of the older output is called while it is out of the way.
_OLDER = ".older"


@contextmanager
def replacing_together(
    place: str,
    sizes: Mapping[str, int],
    older: Callable[[], Sequence[str]],
    is_ours: Callable[[str], bool],
    *,
    force: bool = False,
    note: Callable[[Problem], None] = lambda problem: None,
) -> Iterator[dict[str, Temporary]]:
    """
    A temporary file for each name in `sizes` (bytes; zeros, until written); they take their places when the block ends.

    The names are in the directory of `place`, the last one is the index. `older` lists, at that moment, the files there
    that the new ones replace, the index first; whatever stands at `place` itself or at a new name must be ours, or be
    given up with `force`. The files rest (see `Temporary.rest`) until they are written to.

    Raises OutputError, before anything is written where the place can't be used.
    """
    refuse_bytes(place)
    above, name = os.path.split(place)
    directory = os.path.realpath(above)
    for new in (name, *sizes):
        _refuse_link(os.path.join(above, new))
        refuse_occupied(os.path.join(above, new), os.path.join(directory, new), is_ours, force)
    folder = temporary_path(place, os.path.join(directory, name), sum(sizes.values()), note)
    index = list(sizes)[-1]
    try:
        with ExitStack() as files:
            temporaries: dict[str, Temporary] = {}
            try:
                os.mkdir(folder, 0o700)
                for new, size in sizes.items():
                    path = os.path.join(folder, new)
                    fd = os.open(path, NEW, 0o666)  # the mode that any other program's new file has
                    os.ftruncate(fd, size)
                    os.close(fd)
                    temporaries[new] = Temporary(-1, path, os.path.join(above, new))
                    files.callback(temporaries[new].close)
            except OSError as error:
                raise output_error(place, error) from None
            yield temporaries
            for temporary in temporaries.values():
                temporary.rest()
        try:
            with _alone(directory):
                _swap(folder, directory, list(sizes), older())
        except OSError as error:
            problem = output_error(place, error).problems[0]
            if _is_last_copy(folder, index):
                problem = replace(problem, hint=f"the older output is in {shown(folder)}")
            raise OutputError(problem) from None
    finally:
        if not _is_last_copy(folder, index):
            try:
                _remove(folder)
            except BaseException:
                _remove(folder)
                raise


def _refuse_link(path: str) -> None:
    # One file may be replaced where a link points to; several that belong together may not be strewn about.
    if os.path.islink(path):
        message = "a symbolic link stands there, and an output of several files follows none"
        raise OutputError(Problem("T2T801", message, Location(path), "remove it, or choose another place"))


@contextmanager
def _alone(directory: str) -> Iterator[None]:
    """No other t2t puts files in place in this directory meanwhile, where the file system knows locks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _swap(folder: str, directory: str, names: Sequence[str], older: Sequence[str]) -> None:
    """Exchanges the older files for the new ones. A signal may come at any moment: the disk is asked how far it was."""
    try:
        for name in older:
            with suppress(FileNotFoundError):
                os.rename(os.path.join(directory, name), os.path.join(folder, name + _OLDER))
        sync_directory(directory)
        for name in names[:-1]:
            os.rename(os.path.join(folder, name), os.path.join(directory, name))
        sync_directory(directory)
        os.rename(os.path.join(folder, names[-1]), os.path.join(directory, names[-1]))
        sync_directory(directory)
    except BaseException:
        for name in reversed(names):
            if not os.path.lexists(os.path.join(folder, name)):
                os.rename(os.path.join(directory, name), os.path.join(folder, name))
        with suppress(OutputError):  # a disk that fails is what may have led here
            sync_directory(directory)
        for name in reversed(older):
            if os.path.lexists(os.path.join(folder, name + _OLDER)):
                os.rename(os.path.join(folder, name + _OLDER), os.path.join(directory, name))
        raise


def _is_last_copy(folder: str, index: str) -> bool:
    """Whether the directory has what is left of an older output that could not be put back."""
    return os.path.lexists(os.path.join(folder, index)) and any(n.endswith(_OLDER) for n in os.listdir(folder))


def _remove(folder: str) -> None:
    with suppress(OSError):
        remove_directory(folder)
