"""Several files that are there together or not at all, whenever a run is stopped and by whatever."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from t2t.problems import OutputError, Problem
from t2t.writers.atomic import Temporary
from t2t.writers.together import replacing_together
from tests.commands import ROOT, python

#: The calls of the system by which files change; each may be the last one.
CALLS = ("mkdir", "open", "ftruncate", "close", "pwrite", "fsync", "rename", "unlink", "rmdir")


def put(
    folder: Path, files: Mapping[str, bytes], older: Sequence[str] = (), ours: bool = True, **options: Any
) -> dict[str, Temporary]:
    """Puts these files there together, the index last; `older` are names that go."""
    sizes = {name: len(content) for name, content in files.items()}
    place = str(folder / "m.x")
    with replacing_together(place, sizes, lambda: older, lambda path: ours, **options) as temporaries:
        for name, content in files.items():
            temporaries[name].write(content, 0)
    return temporaries


OLD = {"m-1-of-3.x": b"old 1", "m-2-of-3.x": b"old 2", "m-3-of-3.x": b"old 3", "m.x.index.json": b"old"}
NEW = {"m-1-of-2.x": b"new 1", "m-2-of-2.x": b"new 2", "m-1-of-3.x": b"new 3", "m.x.index.json": b"new"}


def lay(folder: Path, files: Mapping[str, bytes] = OLD) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace(folder: Path, **options: Any) -> None:
    """The new files take the place of the old ones."""
    put(folder, NEW, ("m.x.index.json", "m-1-of-3.x", "m-2-of-3.x", "m-3-of-3.x"), **options)


# --- what is there afterwards ---


def test_the_files_are_what_was_written_and_the_older_ones_are_gone(tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "else").write_bytes(b"else")

    replace(tmp_path)

    assert content(tmp_path) == {**NEW, "else": b"else"}


def test_until_the_end_the_old_files_stand_and_the_new_ones_lie_together(tmp_path: Path) -> None:
    lay(tmp_path)
    sizes = dict.fromkeys(NEW, 5)
    with replacing_together(str(tmp_path / "m.x"), sizes, lambda: list(OLD), lambda path: True) as temporaries:
        temporaries["m-1-of-2.x"].write(b"new 1", 0)
        temporaries["m-1-of-2.x"].sync()
        folder = os.path.dirname(temporaries["m-1-of-2.x"].path)

        assert {name: data for name, data in content(tmp_path / folder).items() if any(data)} == {
            "m-1-of-2.x": b"new 1"
        }
        assert sorted(os.listdir(folder)) == sorted(NEW)
        assert {os.path.dirname(temporary.path) for temporary in temporaries.values()} == {folder}
        assert re.fullmatch(rf"\.m\.x\.t2t-{os.getpid()}-[0-9a-f]{{8}}\.tmp", os.path.basename(folder))
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert {name: (tmp_path / name).read_bytes() for name in OLD} == OLD

    assert content(tmp_path).keys() == NEW.keys()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_their_modes_are_any_new_files(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        put(tmp_path, NEW)
    finally:
        os.umask(before)

    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in NEW} == {mode}


def test_few_files_are_open_however_many_are_written(tmp_path: Path) -> None:
    files = {f"{number}": b"x" for number in range(200)}
    before = os.listdir("/proc/self/fd")
    sizes = dict.fromkeys(files, 1)
    with replacing_together(str(tmp_path / "m.x"), sizes, lambda: (), lambda path: True) as temporaries:
        assert len(os.listdir("/proc/self/fd")) == len(before)
        for name, data in files.items():
            temporaries[name].write(data, 0)
            temporaries[name].rest()
        assert len(os.listdir("/proc/self/fd")) == len(before)

    assert content(tmp_path) == files
    assert os.listdir("/proc/self/fd") == before


def test_every_step_is_synced_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file before it moves; the directory when the older files are out of it, the new ones in it, the index."""
    lay(tmp_path)
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def noted(first: Any, *more: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
            parts = Path(path).relative_to(tmp_path.parent).parts
            done.append(f"{name} {'/'.join('tmp' if part.endswith('.tmp') else part for part in parts[1:])}".strip())
            return call(first, *more)

        return noted

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noting(name))
    replace(tmp_path)

    assert done == [
        *(f"fsync tmp/{name}" for name in NEW),
        *(f"rename {name}" for name in ("m.x.index.json", "m-1-of-3.x", "m-2-of-3.x", "m-3-of-3.x")),
        "fsync",
        *(f"rename tmp/{name}" for name in ("m-1-of-2.x", "m-2-of-2.x", "m-1-of-3.x")),
        "fsync",
        "rename tmp/m.x.index.json",
        "fsync",
    ]


# --- what is refused before anything is written ---


def told(folder: Path, ours: bool = True, **options: Any) -> str:
    before = sorted(os.listdir(folder))
    with pytest.raises(OutputError) as caught:
        put(folder, NEW, ours=ours, **options)
    assert sorted(os.listdir(folder)) == before
    return str(caught.value)


TAKEN = "T2T801: a file that t2t did not write stands there; give --force to replace it, or choose another place"


@pytest.mark.parametrize("name", ["m-1-of-2.x", "m-2-of-2.x", "m.x.index.json", "m.x"])
def test_a_file_that_is_not_ours_is_replaced_with_force_only(tmp_path: Path, name: str) -> None:
    """At any of the new names, and at that of the place itself."""
    (tmp_path / name).write_bytes(b"theirs")

    assert told(tmp_path, ours=False) == f"{tmp_path}/{name}: {TAKEN}"

    put(tmp_path, NEW, [name], ours=False, force=True)
    assert content(tmp_path) == NEW


@pytest.mark.parametrize("name", ["m-2-of-2.x", "m.x.index.json", "m.x"])
def test_a_link_is_never_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "real").write_bytes(b"theirs")
    (tmp_path / name).symlink_to("real")
    text = "T2T801: a symbolic link stands there, and an output of several files follows none"

    for force in (False, True):
        assert told(tmp_path, force=force) == f"{tmp_path}/{name}: {text}; remove it, or choose another place"


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_at_a_name_is_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "m-2-of-2.x").mkdir()

    assert told(tmp_path, force=force) == f"{tmp_path}/m-2-of-2.x: T2T801: a directory stands there; name a file"


def test_a_place_that_cannot_be_is_refused_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        put(tmp_path / "missing", NEW)

    reason = "T2T802: cannot be written: No such file or directory; make its directory first"
    assert str(caught.value) == f"{tmp_path}/missing/m.x: {reason}"


def test_more_than_is_free_is_refused_before_it_is_written(tmp_path: Path) -> None:
    """All of them together."""
    sizes = {"a": 2**61, "b": 2**61}
    with (
        pytest.raises(OutputError) as caught,
        replacing_together(str(tmp_path / "m.x"), sizes, lambda: (), lambda path: True),
    ):
        pytest.fail("nothing may be written")

    said = f"{tmp_path}/m.x: T2T803: no space: the file needs {2**62} bytes, "
    assert re.fullmatch(re.escape(said) + r"\d+ are free; free some, or choose another place", str(caught.value))
    assert os.listdir(tmp_path) == []


# --- what goes wrong on the way ---


class Interrupt(BaseException):
    """As a signal's handler raises it."""


def stopping_at(number: int, after: bool, stop: Callable[[], None]) -> pytest.MonkeyPatch:
    """`stop` is called before or after the call of the system with this number."""
    count = 0
    patch = pytest.MonkeyPatch()

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and not after:
                stop()
            try:
                return call(*arguments, **named)
            finally:
                if count == number and after:
                    stop()

        return counted

    for name in CALLS:
        patch.setattr(os, name, wrapped(getattr(os, name)))
    return patch


def interrupt() -> None:
    raise Interrupt


def test_an_interrupt_at_any_call_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    """Whole, with nothing beside them."""
    ends: Counter[str] = Counter()
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        lay(folder)
        patch = stopping_at(number, True, interrupt)
        try:
            replace(folder)
        except Interrupt:
            ends["stopped"] += 1
        else:
            break
        finally:
            patch.undo()
        found = content(folder)
        assert found in (OLD, NEW), number
        ends["old" if found == OLD else "new"] += 1
    assert min(ends["old"], ends["new"]) > 2
    assert ends["stopped"] > 30


def content_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_any_rename_leaves_the_old_files(tmp_path: Path, number: int) -> None:
    rename = os.rename
    for failing in range(1, 100):
        folder = tmp_path / str(failing)
        folder.mkdir()
        lay(folder)
        count = 0

        def fail(source: str, target: str, failing: int = failing) -> None:
            nonlocal count
            count += 1
            if count == failing:
                raise OSError(number, os.strerror(number))
            rename(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "rename", fail)
            try:
                replace(folder)
            except OutputError as error:
                said = str(error)
            else:
                break
        text = {
            errno.EIO: "T2T802: cannot be written: Input/output error; nothing was written",
            errno.ENOSPC: "T2T803: no space: No space left on device; nothing was written",
        }[number]
        assert said == f"{folder}/m.x: {text}"
        assert content(folder) == OLD
    assert failing == 4 + 4 + 1


def test_a_disk_that_fails_while_the_directory_is_synced_leaves_the_old_files(tmp_path: Path) -> None:
    """Once, and each time: also what puts them back is synced."""
    fsync = os.fsync
    for failing in (1, 2, 3):
        for more in (1, 9):
            folder = tmp_path / f"{failing}-{more}"
            folder.mkdir()
            lay(folder)
            count = 0

            def fail(fd: int, failing: int = failing, more: int = more) -> None:
                nonlocal count
                count += stat.S_ISDIR(os.fstat(fd).st_mode)
                if stat.S_ISDIR(os.fstat(fd).st_mode) and failing <= count < failing + more:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                fsync(fd)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", fail)
                with pytest.raises(OutputError) as caught:
                    replace(folder)

            assert str(caught.value) == f"{folder}: T2T802: cannot be written: Input/output error; nothing was written"
            assert content(folder) == OLD


def test_what_cannot_be_put_back_is_kept_and_told_where(tmp_path: Path) -> None:
    """The disk fails in the middle, and goes on failing."""
    lay(tmp_path)
    rename = os.rename
    count = 0

    def fail(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count > 6:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(OutputError) as caught:
            replace(tmp_path)

    (folder,) = tmp_path.glob(".*.tmp")
    assert str(caught.value) == (
        f"{tmp_path}/m.x: T2T802: cannot be written: Read-only file system; the older output is in {folder}"
    )
    assert {name: (folder / f"{name}.older").read_bytes() for name in OLD} == OLD
    assert not (tmp_path / "m.x.index.json").exists()


#: Kills a run at each call in turn, before it and after it, and prints what is there then and after another run.
KILLING = """
import json, os, signal, sys
from pathlib import Path
from tests.writers.test_together import CALLS, NEW, OLD, content_of_files, lay, replace, stopping_at

root = Path(sys.argv[1])
found = []
for number in range(1, 1000):
    folder = root / str(number)
    folder.mkdir()
    lay(folder)
    pid = os.fork()
    if pid == 0:
        stopping_at(number, False, lambda: os.kill(os.getpid(), signal.SIGKILL))
        replace(folder)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    then = {name: data.decode() for name, data in content_of_files(folder).items()}
    left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
    notes = []
    replace(folder, note=lambda note: notes.append(str(note)))
    found.append((os.waitstatus_to_exitcode(status), then, left, notes, sorted(os.listdir(folder))))
    if status == 0:
        break
print(json.dumps(found))
"""


def test_a_run_that_is_killed_at_any_call_never_leaves_an_index_over_a_mixture(tmp_path: Path) -> None:
    """SIGKILL before each call of the system in turn. The next run removes what is left."""
    done = python("-c", KILLING, str(tmp_path), cwd=ROOT)
    assert (done.code, done.err) == (0, "")
    ends: Counter[str] = Counter()
    for code, then, left, notes, after in json.loads(done.out):
        files = {name: data.encode() for name, data in then.items()}
        index = files.get("m.x.index.json")
        named = {None: {}, b"old": OLD, b"new": NEW}[index]
        assert named.items() <= files.items()
        ends["none" if index is None else index.decode()] += code != 0
        assert [note.partition("removed ")[2].partition(",")[0] for note in notes] == left
        assert after == sorted(NEW)
    assert code == 0
    assert ends["old"] > 20
    assert ends["none"] > 5
    assert ends["new"] > 2


def test_runs_put_their_files_in_place_one_after_the_other(tmp_path: Path) -> None:
    """While another holds the directory's lock nothing moves; what is replaced is looked up when it is free."""
    lay(tmp_path)
    looked: list[bool] = []
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    def older() -> list[str]:
        looked.append(True)
        return list(reversed(OLD))

    def run() -> None:
        sizes = {name: len(data) for name, data in NEW.items()}
        with replacing_together(str(tmp_path / "m.x"), sizes, older, lambda path: True) as temporaries:
            for name, data in NEW.items():
                temporaries[name].write(data, 0)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.5)
    assert (thread.is_alive(), looked, content_of_files(tmp_path)) == (True, [], OLD)
    os.close(other)
    thread.join(20)
    assert (thread.is_alive(), looked, content(tmp_path)) == (False, [True], NEW)


def test_runs_at_once_leave_the_files_of_one(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.writers.test_together import put
        files = {f"m-{n}-of-4.x": sys.argv[2].encode() * 5 for n in range(4)} | {"m.x.index.json": sys.argv[2].encode()}
        for _ in range(20):
            put(Path(sys.argv[1]), files, sorted(files, reverse=True))
    """)
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), letter], cwd=ROOT) for letter in ("1", "2")]

    assert [process.wait() for process in running] == [0, 0]
    found = content(tmp_path)
    letter = found.pop("m.x.index.json")
    assert found == {f"m-{n}-of-4.x": letter * 5 for n in range(4)}


def test_a_directory_of_a_living_process_stays(tmp_path: Path) -> None:
    (tmp_path / f".m.x.t2t-{os.getpid()}-0123abcd.tmp").mkdir()
    notes: list[Problem] = []

    put(tmp_path, NEW, note=notes.append)

    assert notes == []
    assert len(os.listdir(tmp_path)) == len(NEW) + 1
