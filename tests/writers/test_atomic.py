"""A file that is there whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from t2t.problems import OutputError, Problem
from t2t.writers import atomic
from t2t.writers.atomic import output_error, replacing


def ours(path: str) -> bool:
    """As if t2t had written whatever stands there."""
    return True


def not_ours(path: str) -> bool:
    return False


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def put(place: Path | str, data: bytes = b"new", force: bool = False) -> None:
    with replacing(str(place), len(data), not_ours if force else ours, force=force) as temporary:
        temporary.write(data, 0)


def told(place: Path | str, is_ours: Callable[[str], bool] = ours, size: int = 3, force: bool = False) -> str:
    """What stands against writing there; the block is not entered."""
    with pytest.raises(OutputError) as caught, replacing(str(place), size, is_ours, force=force):
        pytest.fail("nothing may be written")
    assert caught.value.exit_code == 3
    return str(caught.value)


def finished_pid() -> int:
    """The number of a process that is gone."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return int(done.stdout)


# --- what is there afterwards ---


def test_the_file_is_what_was_written_and_nothing_else_is_there(tmp_path: Path) -> None:
    with replacing(str(tmp_path / "f"), 8, ours) as temporary:
        temporary.write(b"456", 3)
        temporary.write(b"", 0)
        temporary.write(np.frombuffer(b"12", np.uint8), 1)

    assert (tmp_path / "f").read_bytes() == b"\x0012456\0\0"
    assert os.listdir(tmp_path) == ["f"]


def test_until_the_end_the_old_file_stands(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")

    with replacing(str(place), 3, ours) as temporary:
        temporary.write(b"new", 0)
        temporary.sync()

        assert place.read_bytes() == b"old"
        assert os.path.dirname(temporary.path) == str(tmp_path)
        assert re.fullmatch(rf"\.f\.t2t-{os.getpid()}-[0-9a-f]{{8}}\.tmp", os.path.basename(temporary.path))
        assert temporary.place == str(place)

    assert place.read_bytes() == b"new"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_its_mode_is_any_new_files(tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o400)
    umask(mask)

    put(tmp_path / "f")

    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/real")
    (tmp_path / "dangling").symlink_to("there/to come")

    put(tmp_path / "link")
    put(tmp_path / "dangling")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "real").read_bytes() == b"new"
    assert (tmp_path / "there" / "to come").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path / "there")) == ["real", "to come"]


def test_a_name_without_a_directory_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    put("größe [1] *.bin")

    assert os.listdir(tmp_path) == ["größe [1] *.bin"]


def test_a_hard_links_other_name_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "other").hardlink_to(tmp_path / "f")

    put(tmp_path / "f")

    assert (tmp_path / "other").read_bytes() == b"old"


# --- what is refused before anything is written ---


def test_a_file_that_is_not_ours_is_replaced_with_force_only(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")

    assert told(place, not_ours) == (
        f"{place}: T2T801: a file that t2t did not write stands there; "
        "give --force to replace it, or choose another place"
    )
    assert place.read_bytes() == b"old"

    put(place, force=True)

    assert place.read_bytes() == b"new"


def test_whose_it_is_is_asked_of_what_a_link_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    asked: list[str] = []

    def look(path: str) -> bool:
        asked.append(path)
        return False

    told(tmp_path / "link", look)

    assert asked == [str(tmp_path / "real")]


def make_directory(place: Path) -> None:
    place.mkdir()


def make_fifo(place: Path) -> None:
    os.mkfifo(place)


def make_device(place: Path) -> None:
    place.symlink_to("/dev/full")


def make_loop(place: Path) -> None:
    place.symlink_to(place.name)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (make_directory, "T2T801: a directory stands there; name a file"),
        (make_fifo, "T2T801: something that is not a regular file stands there; name a file"),
        (make_device, "T2T801: something that is not a regular file stands there; name a file"),
        (make_loop, "T2T802: cannot be written: Too many levels of symbolic links; nothing was written"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_never_replaced(
    tmp_path: Path, make: Callable[[Path], None], text: str, force: bool
) -> None:
    place = tmp_path / "f"
    make(place)

    assert told(place, ours, force=force) == f"{place}: {text}"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing/f", "cannot be written: No such file or directory; make its directory first"),
        ("file/f", "cannot be written: Not a directory; its directory is a file"),
        ("x" * 300, "cannot be written: File name too long; choose a shorter name"),
        # The temporary file's name is longer than its own.
        ("x" * 250, "cannot be written: File name too long; choose a shorter name"),
    ],
    ids=["missing", "file", "300", "250"],
)
def test_a_place_that_cannot_be_is_refused_by_its_own_name(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = tmp_path / name

    assert told(place) == f"{place}: T2T802: {text}"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_looked_into_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")

    def unreadable(path: str) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    assert told(place, unreadable) == (f"{place}: T2T802: cannot be written: Permission denied; choose another place")


def test_a_file_that_goes_while_it_is_looked_at_is_not_in_the_way(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")

    def gone(path: str) -> bool:
        os.unlink(path)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    with replacing(str(place), 3, gone) as temporary:
        temporary.write(b"new", 0)

    assert place.read_bytes() == b"new"


def test_more_than_is_free_is_refused_before_it_is_written(tmp_path: Path) -> None:
    said = f"{tmp_path}/f: T2T803: no space: the file needs {2**80} bytes, "
    pattern = re.escape(said) + r"\d+ are free; free some, or choose another place"

    assert re.fullmatch(pattern, told(tmp_path / "f", size=2**80))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "T2T803: no space: No space left on device; nothing was written"),
        (errno.EDQUOT, "T2T803: no space: Disk quota exceeded; nothing was written"),
        (errno.EFBIG, "T2T803: no space: File too large; nothing was written"),
        (errno.ENOENT, "T2T802: cannot be written: No such file or directory; make its directory first"),
        (errno.ENOTDIR, "T2T802: cannot be written: Not a directory; its directory is a file"),
        (errno.EACCES, "T2T802: cannot be written: Permission denied; choose another place"),
        (errno.EROFS, "T2T802: cannot be written: Read-only file system; choose another place"),
        (errno.ENAMETOOLONG, "T2T802: cannot be written: File name too long; choose a shorter name"),
        (errno.EIO, "T2T802: cannot be written: Input/output error; nothing was written"),
    ],
)
def test_what_the_system_says_has_a_way_out(number: int, text: str) -> None:
    assert str(output_error("f", OSError(number, os.strerror(number)))) == f"f: {text}"


def test_an_error_without_a_number_is_told_as_it_is() -> None:
    assert str(output_error("f", OSError("odd"))) == "f: T2T802: cannot be written: odd; nothing was written"


# --- what goes wrong on the way ---


class Interrupt(BaseException):
    """As a signal's handler raises it."""


@pytest.mark.parametrize(
    "error", [Interrupt(), KeyboardInterrupt(), ValueError("x"), OutputError(Problem("T2T805", "x"))]
)
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")

    def torn() -> None:
        with replacing(str(place), 3, ours) as temporary:
            temporary.write(b"new", 0)
            raise error

    with pytest.raises(type(error)):
        torn()

    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []

    put(tmp_path / "f")
    with pytest.raises(ValueError, match="x"), replacing(str(tmp_path / "f"), 3, ours):
        raise ValueError("x")

    assert (os.listdir("/proc/self/fd") if before else []) == before


def test_a_place_that_becomes_a_directory_is_refused_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "f"

    with pytest.raises(OutputError) as caught, replacing(str(place), 3, ours):
        place.mkdir()

    assert str(caught.value) == f"{place}: T2T802: cannot be written: Is a directory; nothing was written"
    assert os.listdir(tmp_path) == ["f"]


def test_a_directory_that_goes_away_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def gone() -> None:
        with replacing(str(folder / "f"), 3, ours) as temporary:
            os.unlink(temporary.path)
            folder.rmdir()

    with pytest.raises(OutputError) as caught:
        gone()

    assert str(caught.value) == (
        f"{folder}/f: T2T802: cannot be written: No such file or directory; make its directory first"
    )


LIMITED = """
import os, resource, sys
from t2t.problems import OutputError
from t2t.writers.atomic import replacing

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
size, position = int(sys.argv[1]), int(sys.argv[2])
try:
    with replacing("f", size, lambda path: True) as temporary:
        temporary.write(b"x" * 600, 0)
        temporary.write(b"x" * 600, position)
except OutputError as error:
    print(error)
print(open("f").read(), os.listdir("."))
"""


@pytest.mark.parametrize(("size", "position"), [(1001, 0), (600, 600), (600, 2000)])
def test_a_limit_on_the_files_size_leaves_the_old_file(tmp_path: Path, size: int, position: int) -> None:
    """At once, in the middle of a write, and at its first byte."""
    (tmp_path / "f").write_bytes(b"old")
    command = [sys.executable, "-c", LIMITED, str(size), str(position)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment())

    assert done.stdout.splitlines() == ["f: T2T803: no space: File too large; nothing was written", "old ['f']"]


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(root)}


def test_a_sync_that_fails_in_the_background_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk tells an error once: the sync at the end finds nothing wrong any more."""
    place = tmp_path / "f"
    place.write_bytes(b"old")
    calls: list[int] = []

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(atomic, "SYNC_EVERY", 4)
    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(OutputError) as caught:
        put(place, b"12345")

    assert str(caught.value) == f"{place}: T2T802: cannot be written: Input/output error; nothing was written"
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_syncs_in_the_background_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "SYNC_EVERY", 2)
    data = bytes(range(100))

    with replacing(str(tmp_path / "f"), 100, ours) as temporary:
        for start in range(0, 100, 3):
            temporary.write(data[start : start + 3], start)

    assert (tmp_path / "f").read_bytes() == data


def test_the_file_and_its_directory_are_synced_the_file_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, list[str]]] = []

    def fsync(fd: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(fd).st_mode), os.listdir(tmp_path)))

    monkeypatch.setattr(os, "fsync", fsync)
    put(tmp_path / "f")

    assert [is_directory for is_directory, _ in synced] == [False, True]
    assert synced[0][1] != ["f"]
    assert synced[1][1] == ["f"]


@pytest.mark.parametrize(("number", "is_told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_directory_that_cannot_be_synced_is_no_error_unless_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_told: bool
) -> None:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    found = ""
    try:
        put(tmp_path / "f")
    except OutputError as error:
        found = str(error)

    expected = f"{tmp_path}: T2T802: cannot be written: Input/output error; nothing was written"
    assert found == (expected if is_told else "")
    assert (tmp_path / "f").read_bytes() == b"new"


# --- what a killed run left ---


def test_what_a_dead_process_left_goes_with_a_note(tmp_path: Path) -> None:
    pid = finished_pid()
    (tmp_path / f".f.t2t-{pid}-0123abcd.tmp").write_bytes(b"half")
    notes: list[Problem] = []

    with replacing(str(tmp_path / "f"), 0, ours, note=notes.append):
        pass

    assert [(str(note), note.severity) for note in notes] == [
        (f"{tmp_path}: T2T806: removed .f.t2t-{pid}-0123abcd.tmp, left by process {pid}, which is gone", "note")
    ]
    assert os.listdir(tmp_path) == ["f"]


def test_what_is_not_surely_left_stays(tmp_path: Path) -> None:
    """Of a living process, of another place, of nobody: only our own pattern goes."""
    pid = finished_pid()
    names = {
        f".f.t2t-{os.getpid()}-0123abcd.tmp",
        ".f.t2t-1-0123abcd.tmp",
        f".f.t2t-{2**80}-0123abcd.tmp",
        f".g.t2t-{pid}-0123abcd.tmp",
        f".f.t2t-{pid}-0123abcd.tmp.txt",
        f".f.t2t-{pid}-0123ABCD.tmp",
        f".f.t2t-{pid}-0123abc.tmp",
        f"x.f.t2t-{pid}-0123abcd.tmp",
        ".f.tmp",
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")

    put(tmp_path / "f")

    assert set(os.listdir(tmp_path)) == {*names, "f"}


def test_a_killed_run_leaves_the_old_file_and_the_next_tidies_up(tmp_path: Path) -> None:
    place = tmp_path / "f"
    place.write_bytes(b"old")
    code = """
import os, signal
from t2t.writers.atomic import replacing
with replacing("f", 5, lambda path: True) as temporary:
    temporary.write(b"half", 0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, env=environment())

    assert killed.returncode == -9
    assert place.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2

    put(place)

    assert place.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_many_at_once_write_whole_files_and_leave_nothing(tmp_path: Path) -> None:
    """Four processes, each replacing the same file 50 times: at any moment it is one of theirs, whole."""
    code = """
import sys
from t2t.writers.atomic import replacing
data = sys.argv[1].encode() * 5000
for _ in range(50):
    with replacing("f", len(data), lambda path: True) as temporary:
        temporary.write(data, 0)
"""
    (tmp_path / "f").write_bytes(b"0" * 5000)
    running = [
        subprocess.Popen([sys.executable, "-c", code, letter], cwd=tmp_path, env=environment()) for letter in "1234"
    ]
    seen = set()
    while any(process.poll() is None for process in running):
        data = (tmp_path / "f").read_bytes()
        assert len(data) == 5000
        assert len(set(data)) == 1
        seen.add(data[:1])

    assert [process.wait() for process in running] == [0] * 4
    assert os.listdir(tmp_path) == ["f"]
    assert len(seen) > 1
