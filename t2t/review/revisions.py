"""
Mappings and their locks as they are in a directory, or as they were in a revision of its git repository.

A revision is read through git's own plumbing (`ls-tree`, `cat-file`): nothing is checked out, no hook and no filter
runs, nothing is fetched. All names come from git as bytes between NULs. Links are not followed in a revision, and what
goes through one is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from t2t.checkpoints.files import open_regular, reason, refusal
from t2t.document import MAX_BYTES as MAX_MAPPING
from t2t.names import shown
from t2t.problems import CheckpointError, Problem, UsageError
from t2t.review import lock as locks
from t2t.review.paths import ENDINGS, FOLDER

#: Seconds that git may take; it reads a few small files.
TIMEOUT = 60

#: What git must not do for a repository of a stranger's, whatever its configuration says: fetch what is missing, by
#: whatever program that names, or ask for a password. (Older versions know the second of these alone.)
_QUIET = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

#: Modes of a tree's entries (Documentation/technical/index-format): what leads elsewhere.
_ELSEWHERE = {b"120000": "a symbolic link", b"160000": "a submodule"}


@dataclass(frozen=True, slots=True)
class Version:
    """A mapping as it stands somewhere: its name for people, its bytes, and its lock's (None where there is none)."""

    name: str
    data: bytes
    lock: bytes | None


class Directory:
    """The files as they are now."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """The mappings in a folder below the root, by their paths from the root; none where there is no such folder."""
        whole = os.path.join(self.root, folder)
        try:
            found = os.listdir(whole)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise refusal("T2T602", f"cannot be listed: {reason(error)}", whole) from None
        return [os.path.normpath(os.path.join(folder, name)) for name in sorted(found) if name.endswith(ENDINGS)]

    def identity(self, path: str) -> tuple[str | None, str | None]:
        """What git would call the mapping and its lock, None for one that is not there. Raises CheckpointError."""
        whole = os.path.join(self.root, path)
        blobs = [_blob(_content(one)) if os.path.lexists(one) else None for one in (whole, locks.place(whole))]
        return blobs[0], blobs[1]

    def version(self, path: str) -> Version | None:
        """The mapping at a path from the root, None where there is none. Raises CheckpointError (T2T602)."""
        whole = os.path.join(self.root, path)
        if not os.path.lexists(whole):
            return None
        lock = locks.place(whole)
        return Version(whole, _content(whole), _content(lock) if os.path.lexists(lock) else None)


def _content(path: str) -> bytes:
    limit = locks.MAX_BYTES if path.endswith(locks.ENDING) else MAX_MAPPING
    with open(open_regular(path)[0], "rb") as file:
        try:
            return file.read(limit + 1)  # one more than there may be: whoever parses it says so
        except OSError as error:
            raise refusal("T2T602", f"cannot be read: {reason(error)}", path) from None


def _blob(data: bytes) -> str:
    """What git calls a file of these bytes: the sha1 of a header and the content (Pro Git, Git Objects)."""
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


class Revision:
    """The files of a commit, by paths from the current directory."""

    def __init__(self, name: str, commit: str) -> None:
        self.name = name
        self.commit = commit
        self._entries: dict[str, Mapping[str, _Entry]] = {}

    def since(self, other: Revision) -> Revision:
        """Where the history of this commit and that of another one last met. Raises UsageError (T2T001)."""
        done = _git("merge-base", self.commit, other.commit, may_fail=1)
        if done is None:
            message = f"{shown(self.name)} and {shown(other.name)} have no commit in common here"
            raise UsageError(Problem("T2T001", message, None, "of a shallow clone: git fetch --unshallow"))
        return Revision(self.name, done.decode().strip())

    def names(self, folder: str) -> list[str]:
        """The mappings in a folder, by their paths from the current directory."""
        return sorted(path for path in self._in(folder) if path.endswith(ENDINGS))

    def identity(self, path: str) -> tuple[str | None, str | None]:
        """What git calls the mapping and its lock, None for one that is not there. Raises CheckpointError."""
        entries = [self._entry(one) for one in (path, locks.place(path))]
        mapping, lock = (entry.blob if entry else None for entry in entries)
        return mapping, lock

    def version(self, path: str) -> Version | None:
        """The mapping at a path from the current directory, None where the commit has none. Raises CheckpointError."""
        entry, lock = self._entry(path), self._entry(locks.place(path))
        if entry is None:
            return None
        data = self._read(path, entry, MAX_MAPPING)
        held = self._read(locks.place(path), lock, locks.MAX_BYTES) if lock is not None else None
        return Version(f"{self.name}:{path}", data, held)

    def _entry(self, path: str) -> _Entry | None:
        entry = self._in(os.path.dirname(path)).get(path)
        if entry is not None and entry.mode in _ELSEWHERE:
            message = f"{_ELSEWHERE[entry.mode]}, which is not followed in a revision"
            raise refusal("T2T602", message, f"{self.name}:{path}", "compare the file that it leads to")
        return entry

    def _in(self, folder: str) -> Mapping[str, _Entry]:
        """What lies right in a folder, by path, but for folders."""
        folder = os.path.normpath(folder or ".")
        if folder not in self._entries:
            found = self._listed(f"{folder}/" if folder != "." else ".")
            if not found:
                self._refuse_elsewhere(folder)
            self._entries[folder] = found
        return self._entries[folder]

    def _refuse_elsewhere(self, folder: str) -> None:
        """A folder that seems empty may be a link, or lie behind one."""
        parts = folder.split("/")
        for path, entry in self._listed(*("/".join(parts[:end]) for end in range(1, len(parts) + 1))).items():
            if entry.mode in _ELSEWHERE:
                message = f"{shown(path)} is {_ELSEWHERE[entry.mode]} in {shown(self.name)}, which is not followed"
                raise UsageError(Problem("T2T001", message, None, "name the folder that it leads to"))

    def _listed(self, *paths: str) -> dict[str, _Entry]:
        found = {}
        for line in _git("ls-tree", "-z", "--long", self.commit, "--", *paths).split(b"\0"):
            about, tab, path = line.partition(b"\t")
            mode, kind, blob, size = about.split() if tab else (b"", b"tree", b"", b"")
            if kind != b"tree":
                size = b"0" if size == b"-" else size
                found[os.path.normpath(os.fsdecode(path))] = _Entry(mode, blob.decode(), int(size))
        return found

    def _read(self, path: str, entry: _Entry, limit: int) -> bytes:
        if entry.size > limit:
            message = f"it has {entry.size} bytes, the most is {limit}"
            raise refusal("T2T110", message, f"{self.name}:{path}")
        return _git("cat-file", "blob", entry.blob)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a commit: its mode, the object that holds it, its size in bytes."""

    mode: bytes
    blob: str
    size: int


Tree = Directory | Revision


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Mappings in two versions, those that differ by a byte at least; `same` counts the others.

    `left_out` are those that cannot be read on one side, `problems` say why.
    """

    differing: tuple[tuple[str, Version | None, Version | None], ...]
    same: int
    left_out: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def pairs(base: str, head: str | None, paths: Sequence[str] = (), *, merge_base: bool = False) -> Pairs:
    """
    The mappings of both sides, by path: two files, two directories, or those in `paths` (files or directories, FOLDER
    where none is named) as they were in a revision. Without a head it is what is there now.

    With `merge_base` the base is where the two histories last met. Raises UsageError (T2T001) for anything else.
    """
    kinds = [_kind(side) for side in (base, head)]
    if merge_base and kinds[0] != "revision":
        message = f"--merge-base with {shown(base)}, which is a {kinds[0]}"
        raise UsageError(Problem("T2T001", message, None, "the base must be a revision"))
    if "revision" in kinds:
        return _of_revisions(base, head, kinds, paths, merge_base=merge_base)
    if head is None or kinds[0] != kinds[1]:
        message = f"{shown(base)} is a {kinds[0]}" + (f", {shown(head)} is a {kinds[1]}" if head else "")
        hint = "name two mappings, two directories, or a revision" if head else "name what to compare it with"
        raise UsageError(Problem("T2T001", message, None, hint))
    if paths:
        message = f"{shown(paths[0])} stands behind two {'files' if kinds[0] == 'file' else 'directories'}"
        raise UsageError(Problem("T2T001", message, None, "paths are those of a revision"))
    if kinds[0] == "file":
        both = Directory()
        return _compared(both, both, [(base, head)])
    return _all(Directory(base), Directory(head), [""])


def _of_revisions(
    base: str, head: str | None, kinds: Sequence[str], paths: Sequence[str], *, merge_base: bool
) -> Pairs:
    given = [side for side, kind in zip((base, head), kinds, strict=True) if side and kind in {"file", "directory"}]
    old, new = (
        revision(side) if side is not None and kind == "revision" else Directory()
        for side, kind in zip((base, head), kinds, strict=True)
    )
    if merge_base and isinstance(old, Revision):
        old = old.since(new if isinstance(new, Revision) else revision("HEAD"))
    return _all(old, new, [os.path.relpath(path) for path in (*given, *paths)] or [FOLDER])


def _kind(side: str | None) -> str:
    if side is None:
        return "working tree"
    return "directory" if os.path.isdir(side) else "file" if os.path.lexists(side) else "revision"


def _all(base: Tree, head: Tree, folders: Sequence[str]) -> Pairs:
    names: dict[str, None] = {}
    for folder in folders:
        own = [folder] if folder.endswith(ENDINGS) else sorted({*base.names(folder), *head.names(folder)})
        if not own:
            what = f"no mappings in {shown(folder)}" if folder else "no mappings"
            raise UsageError(Problem("T2T001", f"there are {what}, on neither side", None, "name where they are"))
        names.update(dict.fromkeys(own))
    return _compared(base, head, [(name, name) for name in names])


def _compared(base: Tree, head: Tree, names: Sequence[tuple[str, str]]) -> Pairs:
    differing: list[tuple[str, Version | None, Version | None]] = []
    left_out: list[str] = []
    problems: list[Problem] = []
    for old, new in names:
        try:
            if base.identity(old) == head.identity(new) != (None, None):
                continue
            before, after = base.version(old), head.version(new)
        except CheckpointError as error:
            left_out.append(new)
            problems += error.problems
            continue
        if before is None and after is None:
            raise UsageError(Problem("T2T001", f"there is no {shown(new)}, on neither side"))
        # Git may have other names for what is here: those of a repository with sha256 objects.
        if before is None or after is None or (before.data, before.lock) != (after.data, after.lock):
            differing.append((new, before, after))
    same = len(names) - len(differing) - len(left_out)
    return Pairs(tuple(differing), same, tuple(left_out), tuple(problems))


def revision(name: str) -> Revision:
    """The revision that git knows by this name, here. Raises UsageError (T2T001) where it knows none."""
    known = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", may_fail=1)
    if known is None:
        message = f"{shown(name)} is neither a file, nor a directory, nor a revision of the git repository here"
        raise UsageError(Problem("T2T001", message, None, "name two mappings, two directories, or a revision: main"))
    return Revision(name, known.decode().strip())


@overload
def _git(*arguments: str) -> bytes: ...
@overload
def _git(*arguments: str, may_fail: int) -> bytes | None: ...
def _git(*arguments: str, may_fail: int = 0) -> bytes | None:
    """
    What git prints; None where it ends with the status `may_fail`, which says no and is no failure.

    Raises UsageError (T2T001) with what it says where it fails.
    """
    import subprocess  # two files are compared without git

    command = ["git", "--no-optional-locks", "--literal-pathspecs", *arguments]
    problem = f"git {arguments[0]} failed"
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments that it cannot take for flags
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
            env={**os.environ, **_QUIET},
        )
    except FileNotFoundError:
        raise UsageError(Problem("T2T001", "git is not installed", None, "name two files or directories")) from None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise UsageError(Problem("T2T001", f"{problem}: {shown(str(error))}")) from None
    if done.returncode and done.returncode == may_fail:
        return None
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
        why = next((line for line in told if line.startswith(("fatal: ", "error: "))), told[0])
        raise UsageError(Problem("T2T001", f"{problem}: {shown(why)}"))
    return done.stdout
