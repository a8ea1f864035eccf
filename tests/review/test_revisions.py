"""Mappings as they were in a revision of a real git repository, and nothing of that repository's that runs."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from t2t import api, document
from t2t.names import shown
from t2t.problems import CheckpointError, UsageError
from t2t.review import revisions
from t2t.review.revisions import Pairs, pairs
from tests.review import repository
from tests.review.repository import GIT, Repository

#: A mapping, without and with something else in it.
ONE = b"t2t: 1\n"
TWO = b"t2t: 1 # again\n"


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's; what git finds by its variables would be another repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in GIT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository on the branch main, which is the current directory."""
    folder = tmp_path / "repo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Repository(folder)
    made.git("init", "-q", "-b", "main")
    return made


def put(repo: Repository, files: dict[str, bytes], message: str = "more") -> None:
    """Writes files, and commits them."""
    for name, data in files.items():
        place = repo.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert repo.commit(message).code == 0


def differing(found: Pairs) -> list[tuple[str, bytes | None, bytes | None]]:
    assert (found.left_out, found.problems) == ((), ())
    return [(path, old.data if old else None, new.data if new else None) for path, old, new in found.differing]


def refused(*arguments: object, **more: bool) -> str:
    with pytest.raises(UsageError) as caught:
        pairs(*arguments, **more)  # type: ignore[arg-type]
    return str(caught.value)


# --- which versions ---


def test_a_revision_and_what_is_here(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "mappings/b.yml": ONE, "mappings/c.yaml": ONE, "mappings/note.txt": ONE})
    (repo.folder / "mappings/b.yml").write_bytes(TWO)
    (repo.folder / "mappings/c.yaml").unlink()
    (repo.folder / "mappings/d.yaml").write_bytes(ONE)

    found = pairs("HEAD", None)

    assert differing(found) == [
        ("mappings/b.yml", ONE, TWO),
        ("mappings/c.yaml", ONE, None),
        ("mappings/d.yaml", None, ONE),
    ]
    assert found.same == 1
    assert [(old.name if old else "", new.name if new else "") for _, old, new in found.differing] == [
        ("HEAD:mappings/b.yml", "mappings/b.yml"),
        ("HEAD:mappings/c.yaml", ""),
        ("", "mappings/d.yaml"),
    ]


def test_what_is_here_and_a_revision(repo: Repository) -> None:
    """The other way round, by the folder."""
    put(repo, {"mappings/a.yaml": ONE})
    (repo.folder / "mappings/a.yaml").write_bytes(TWO)

    assert differing(pairs("mappings", "HEAD")) == [("mappings/a.yaml", TWO, ONE)]


def test_two_revisions_and_a_tag(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    repo.git("tag", "-a", "v1", "-m", "one")
    put(repo, {"mappings/a.yaml": TWO})
    (repo.folder / "mappings/a.yaml").write_bytes(b"not committed")

    for base in ("v1", "HEAD~1", "main^", repo.git("rev-parse", "HEAD~1").strip()):
        assert differing(pairs(base, "main")) == [("mappings/a.yaml", ONE, TWO)]


def test_a_lock_is_read_with_its_mapping_and_counts(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "mappings/a.lock.json": b"1", "mappings/b.yaml": ONE})
    (repo.folder / "mappings/a.lock.json").write_bytes(b"2")
    (repo.folder / "mappings/b.lock.json").write_bytes(b"3")

    found = pairs("HEAD", None)

    assert [(path, old and old.lock, new and new.lock) for path, old, new in found.differing] == [
        ("mappings/a.yaml", b"1", b"2"),
        ("mappings/b.yaml", None, b"3"),
    ]


def test_the_merge_base_leaves_out_what_only_the_base_has_done(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "mappings/b.yaml": ONE})
    repo.git("switch", "-q", "-c", "mine")
    put(repo, {"mappings/a.yaml": TWO})
    repo.git("switch", "-q", "main")
    put(repo, {"mappings/b.yaml": TWO})
    theirs = [("mappings/a.yaml", ONE, TWO), ("mappings/b.yaml", TWO, ONE)]

    assert differing(pairs("main", "mine")) == theirs
    assert differing(pairs("main", "mine", merge_base=True)) == theirs[:1]
    repo.git("switch", "-q", "mine")
    assert differing(pairs("main", None, merge_base=True)) == theirs[:1]
    assert differing(pairs("main", "mappings/a.yaml", merge_base=True)) == theirs[:1]


def test_no_commit_in_common(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    repo.git("switch", "-q", "--orphan", "other")
    put(repo, {"mappings/a.yaml": TWO})

    assert refused("main", None, merge_base=True) == (
        "T2T001 main and HEAD have no commit in common here; of a shallow clone: git fetch --unshallow"
    )
    assert differing(pairs("main", None)) == [("mappings/a.yaml", ONE, TWO)]


def test_a_shallow_clone(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commits that it lacks are no commits here; nothing is fetched."""
    put(repo, {"mappings/a.yaml": ONE})
    put(repo, {"mappings/a.yaml": TWO})
    first = repo.git("rev-parse", "HEAD~1").strip()
    repo.git("switch", "-q", "-c", "mine", "HEAD~1")
    put(repo, {"mappings/b.yaml": ONE})
    clone = tmp_path / "clone"
    repo.git("clone", "-q", "--depth", "1", "--no-single-branch", repo.folder.as_uri(), str(clone))
    monkeypatch.chdir(clone)

    assert differing(pairs("origin/main", "origin/mine", ["mappings/a.yaml"])) == [("mappings/a.yaml", TWO, ONE)]
    assert refused("origin/main", "origin/mine", merge_base=True).startswith(
        "T2T001 origin/main and origin/mine have no commit in common here; "
    )
    assert refused(first, None).startswith(f"T2T001 {first} is neither a file, nor a directory, nor a revision ")


def test_two_files_and_two_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any repository."""
    for name, data in {"old/a.yaml": ONE, "old/b.yaml": ONE, "new/a.yaml": TWO, "new/b.yaml": ONE}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)

    assert differing(pairs("old/a.yaml", "new/b.yaml")) == []
    assert differing(pairs("old/a.yaml", "new/a.yaml")) == [("new/a.yaml", ONE, TWO)]
    found = pairs("old/", str(tmp_path / "new"))
    assert (differing(found), found.same) == ([("a.yaml", ONE, TWO)], 1)


# --- where ---


def test_paths_are_those_from_the_current_directory(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repo, {"models/mappings/a.yaml": ONE, "models/a.yaml": ONE, "mappings/a.yaml": ONE})
    for path in ("models/mappings/a.yaml", "models/a.yaml", "mappings/a.yaml"):
        (repo.folder / path).write_bytes(TWO)
    monkeypatch.chdir(repo.folder / "models")

    def changed(*paths: str) -> list[str]:
        return [path for path, _, _ in differing(pairs("HEAD", None, paths))]

    assert changed() == ["mappings/a.yaml"]
    assert changed(".") == changed("./") == changed("../models") == changed(str(repo.folder / "models")) == ["a.yaml"]
    assert changed("../mappings") == ["../mappings/a.yaml"]
    assert changed("a.yaml", "./mappings//a.yaml", "mappings/") == ["a.yaml", "mappings/a.yaml"]
    assert [path for path, _, _ in differing(pairs("HEAD", "a.yaml", ["../mappings"]))] == [
        "a.yaml",
        "../mappings/a.yaml",
    ]


def test_a_folder_of_the_name_of_a_branch_is_the_folder(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    repo.git("branch", "mappings")
    (repo.folder / "mappings/a.yaml").write_bytes(TWO)

    assert differing(pairs("mappings", "HEAD")) == [("mappings/a.yaml", TWO, ONE)]
    assert differing(pairs("refs/heads/mappings", None)) == [("mappings/a.yaml", ONE, TWO)]


NAMES = ["two words.yaml", "quote'\".yaml", "tab\tline\n.yaml", "\u00fc.yaml", "*.yaml", ":x.yaml", "-x.yaml"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.yaml")], ids=ascii)
def test_any_name(repo: Repository, name: str) -> None:
    put(repo, {f"mappings/{name}": ONE, f"{name[:-5]}/{name}": ONE})
    (repo.folder / "mappings" / name).write_bytes(TWO)
    (repo.folder / name[:-5] / name).write_bytes(TWO)

    assert differing(pairs("HEAD", None)) == [(f"mappings/{name}", ONE, TWO)]
    assert differing(pairs("HEAD", None, [f"mappings/{name}"])) == [(f"mappings/{name}", ONE, TWO)]
    assert differing(pairs("HEAD", None, [name[:-5]])) == [(f"{name[:-5]}/{name}", ONE, TWO)]


def test_the_same_bytes_are_the_same_however_they_are_named(repo: Repository, tmp_path: Path) -> None:
    """A repository of sha256 objects has other names for them."""
    other = Repository(tmp_path / "sha256")
    other.folder.mkdir()
    if other.run("git", "init", "-q", "-b", "main", "--object-format=sha256").code:
        pytest.skip("this git knows no sha256 objects")
    put(other, {"mappings/a.yaml": ONE, "mappings/b.yaml": ONE})
    (other.folder / "mappings/b.yaml").write_bytes(TWO)
    os.chdir(other.folder)

    found = pairs("HEAD", None)

    assert differing(found) == [("mappings/b.yaml", ONE, TWO)]
    assert found.same == 1


# --- what is refused ---


def test_what_is_no_revision(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    more = "is neither a file, nor a directory, nor a revision of the git repository here"
    hint = "name two mappings, two directories, or a revision: main"

    for name in ("nowhere", "--help", "-p", "--output=x", "HEAD:mappings", "HEAD..main", "mapings/a.yaml", ""):
        assert refused(name, None) == f"T2T001 {name} {more}; {hint}"
        assert refused("HEAD", name, []) == f"T2T001 {name} {more}; {hint}"
    assert refused("a\nb", None) == f"T2T001 a\\nb {more}; {hint}"
    assert not (repo.folder / "x").exists()


def test_a_revision_that_begins_with_a_dash(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    repo.git("update-ref", "refs/tags/-x", "HEAD")
    (repo.folder / "mappings/a.yaml").write_bytes(TWO)

    assert differing(pairs("-x", None)) == [("mappings/a.yaml", ONE, TWO)]


def test_what_does_not_go_together(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "other/a.yaml": ONE})

    assert refused("mappings", None) == "T2T001 mappings is a directory; name what to compare it with"
    assert refused("mappings", "mappings/a.yaml") == (
        "T2T001 mappings is a directory, mappings/a.yaml is a file; name two mappings, two directories, or a revision"
    )
    assert (
        refused("mappings", "other", ["x"]) == "T2T001 x stands behind two directories; paths are those of a revision"
    )
    assert refused("mappings", "other", merge_base=True) == (
        "T2T001 --merge-base with mappings, which is a directory; the base must be a revision"
    )


def test_where_there_is_nothing_to_compare(repo: Repository, tmp_path: Path) -> None:
    put(repo, {"other/note.txt": ONE})
    nothing = "name where they are"

    assert refused("HEAD", None) == f"T2T001 there are no mappings in mappings, on neither side; {nothing}"
    assert refused("HEAD", None, ["other"]) == f"T2T001 there are no mappings in other, on neither side; {nothing}"
    assert refused("HEAD", None, ["a.yaml"]) == "T2T001 there is no a.yaml, on neither side"
    assert refused("other", "other") == f"T2T001 there are no mappings, on neither side; {nothing}"
    outside = refused("HEAD", None, [str(tmp_path)])
    assert outside.startswith("T2T001 git ls-tree failed: fatal: ")
    assert "outside repository" in outside


def test_a_revision_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert refused("main", None) == (
        "T2T001 git rev-parse failed: fatal: not a git repository (or any of the parent directories): .git"
    )


def test_a_repository_of_somebody_else(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git refuses it (safe.directory), and says so itself."""
    put(repo, {"mappings/a.yaml": ONE})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    told = shown(f"fatal: detected dubious ownership in repository at '{repo.folder}'")  # a long path is cut
    assert refused("main", None) == f"T2T001 git rev-parse failed: {told}"


def test_no_git(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(repo, {"mappings/a.yaml": ONE, "other/a.yaml": ONE})
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    assert refused("main", None) == "T2T001 git is not installed; name two files or directories"
    assert differing(pairs("mappings", "other")) == []


def test_git_that_hangs_or_says_nothing(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(revisions, "TIMEOUT", 0.2)

    program(folder / "git", "exec sleep 60")
    assert refused("main", None).startswith("T2T001 git rev-parse failed: Command '['git', ")
    program(folder / "git", "exit 9")
    assert refused("main", None) == "T2T001 git rev-parse failed: it says nothing"


def program(place: Path, script: str) -> None:
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)


# --- what cannot be read: the others are ---


def left_out(found: Pairs) -> tuple[list[str], list[str], list[str]]:
    return [path for path, _, _ in found.differing], list(found.left_out), list(map(str, found.problems))


def test_a_link_in_a_revision_is_not_followed_and_said(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "mappings/b.yaml": ONE, "mappings/c.yaml": ONE, "elsewhere.json": b"1"})
    (repo.folder / "mappings/a.yaml").unlink()
    (repo.folder / "mappings/a.yaml").symlink_to("c.yaml")
    (repo.folder / "mappings/b.lock.json").symlink_to("../elsewhere.json")
    assert repo.commit("links").code == 0
    (repo.folder / "mappings/c.yaml").write_bytes(TWO)

    assert left_out(pairs("HEAD", None)) == (
        ["mappings/c.yaml"],
        ["mappings/a.yaml", "mappings/b.yaml"],
        [
            "HEAD:mappings/a.yaml: T2T602: a symbolic link, which is not followed in a revision; "
            "compare the file that it leads to",
            "HEAD:mappings/b.lock.json: T2T602: a symbolic link, which is not followed in a revision; "
            "compare the file that it leads to",
        ],
    )
    assert left_out(pairs("HEAD~1", "HEAD"))[:2] == ([], ["mappings/a.yaml", "mappings/b.yaml"])


@pytest.mark.parametrize("path", ["link", "link/below", "link/below/a.yaml"])
def test_a_folder_behind_a_link_is_refused(repo: Repository, path: str) -> None:
    """What is here follows it: the mappings would all seem new."""
    put(repo, {"real/a.yaml": ONE, "real/below/a.yaml": ONE})
    (repo.folder / "link").symlink_to("real")
    assert repo.commit("a link").code == 0

    assert refused("HEAD", None, [path]) == (
        "T2T001 link is a symbolic link in HEAD, which is not followed; name the folder that it leads to"
    )


def test_a_folder_in_a_submodule_is_refused(repo: Repository, tmp_path: Path) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    commit = repo.git("rev-parse", "HEAD").strip()
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    repo.git("commit", "-q", "-m", "a submodule")

    assert refused("HEAD", None, ["sub/mappings"]) == (
        "T2T001 sub is a submodule in HEAD, which is not followed; name the folder that it leads to"
    )


def test_a_link_that_is_here_is_followed(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "b.yaml": ONE})
    (repo.folder / "mappings/a.yaml").unlink()
    (repo.folder / "mappings/a.yaml").symlink_to("../b.yaml")

    assert differing(pairs("HEAD", None)) == []


def test_a_file_over_the_limit_is_not_read(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """On either side it is only told; of what is here whoever parses it says so."""
    large = b"#" * (document.MAX_BYTES + 1)
    put(
        repo,
        {"mappings/a.yaml": large, "mappings/b.yaml": ONE, "mappings/c.yaml": ONE, "mappings/c.lock.json": b"0" * 99},
    )
    (repo.folder / "mappings/a.yaml").write_bytes(ONE)
    (repo.folder / "mappings/b.yaml").write_bytes(large + large)
    (repo.folder / "mappings/c.yaml").write_bytes(TWO)
    monkeypatch.setattr("t2t.review.lock.MAX_BYTES", 98)
    found = pairs("HEAD", None)

    assert left_out(found) == (
        ["mappings/b.yaml"],
        ["mappings/a.yaml", "mappings/c.yaml"],
        [
            "HEAD:mappings/a.yaml: T2T110: it has 1048577 bytes, the most is 1048576",
            "HEAD:mappings/c.lock.json: T2T110: it has 99 bytes, the most is 98",
        ],
    )
    assert [len(new.data) for _, _, new in found.differing if new] == [document.MAX_BYTES + 1]


def test_what_is_no_regular_file_is_left_out(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE, "mappings/b.yaml": ONE, "mappings/c.yaml": ONE})
    for name in "abc":
        (repo.folder / f"mappings/{name}.yaml").unlink()
    os.mkfifo("mappings/a.yaml")
    (repo.folder / "mappings/b.yaml").symlink_to("b.yaml")
    (repo.folder / "mappings/d.yaml").mkdir()

    assert left_out(pairs("HEAD", None)) == (
        ["mappings/c.yaml"],
        ["mappings/a.yaml", "mappings/b.yaml", "mappings/d.yaml"],
        [
            "mappings/a.yaml: T2T602: not a regular file",
            "mappings/b.yaml: T2T602: cannot be opened: too many levels of symbolic links",
            "mappings/d.yaml: T2T602: not a regular file",
        ],
    )


def test_a_folder_that_cannot_be_listed(repo: Repository) -> None:
    put(repo, {"mappings/a.yaml": ONE})
    (repo.folder / "loop").symlink_to("loop")

    with pytest.raises(CheckpointError) as caught:
        pairs("HEAD", None, ["loop"])
    assert str(caught.value) == "loop: T2T602: cannot be listed: too many levels of symbolic links"


# --- what a stranger's repository may not do ---


def test_nothing_that_a_repository_configures_is_run(repo: Repository, tmp_path: Path) -> None:
    """Each of its programs would leave a mark; that each can be run at all is tested, too."""
    put(repo, {"mappings/a.yaml": ONE, "mappings/b.yaml": ONE})
    mark = tmp_path / "marks"
    mark.mkdir()
    bad = tmp_path / "bad"
    program(bad, f'touch "{mark}/${{T2T_MARK:-any}}"; cat')
    settings = {
        "core.fsmonitor": bad,
        "core.hooksPath": tmp_path / "hooks",
        "core.pager": bad,
        "pager.ls-tree": "true",
        "pager.cat-file": "true",
        "core.editor": bad,
        "core.sshCommand": bad,
        "core.askPass": bad,
        "core.gitProxy": bad,
        "diff.external": bad,
        "diff.bad.textconv": bad,
        "diff.bad.command": bad,
        "filter.bad.clean": bad,
        "filter.bad.smudge": bad,
        "filter.bad.process": bad,
        "filter.bad.required": "true",
        "merge.bad.driver": bad,
        "credential.helper": bad,
        "alias.ls-tree": f"!{bad}",
        "alias.rev-parse": f"!{bad}",
        "remote.origin.url": f"ext::{bad}",
        "remote.origin.uploadpack": bad,
        "protocol.ext.allow": "always",
    }
    (tmp_path / "hooks").mkdir()
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"):
        program(tmp_path / "hooks" / hook, f"exec {bad}")
    (repo.folder / ".gitattributes").write_text("*.yaml filter=bad diff=bad merge=bad text eol=crlf\n")
    for name, value in settings.items():
        repo.git("config", name, str(value))
    (repo.folder / "mappings/a.yaml").write_bytes(TWO)

    assert differing(pairs("HEAD", None)) == [("mappings/a.yaml", ONE, TWO)]
    assert differing(pairs("main", "HEAD", merge_base=True)) == []
    assert list(mark.iterdir()) == []

    for command in (
        ["status"],
        ["diff"],
        ["show", "HEAD:mappings/a.yaml", "--textconv"],
        ["cat-file", "--filters", "HEAD:mappings/a.yaml"],
    ):
        assert not list(mark.iterdir())
        repo.run("git", *command)
        assert list(mark.iterdir()), command
        for one in mark.iterdir():
            one.unlink()


def test_a_partial_clone_fetches_nothing(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing would come from a remote by whatever program the repository names."""
    put(repo, {"mappings/a.yaml": ONE})
    put(repo, {"mappings/a.yaml": TWO})
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = Repository(tmp_path / "clone")
    repo.git("clone", "-q", "--no-local", "--filter=blob:none", repo.folder.as_uri(), str(clone.folder))
    mark = tmp_path / "mark"
    program(tmp_path / "bad", f'touch {mark}; exec git-upload-pack "$@"')
    clone.git("config", "remote.origin.uploadpack", str(tmp_path / "bad"))
    monkeypatch.chdir(clone.folder)

    message = refused("HEAD~1", None)

    assert message.startswith(("T2T001 git ls-tree failed: fatal: ", "T2T001 git cat-file failed: fatal: "))
    assert not mark.exists()
    assert clone.git("cat-file", "blob", "HEAD~1:mappings/a.yaml") == ONE.decode()  # git itself fetches it, by that
    assert mark.exists()
    assert differing(pairs("HEAD~1", None)) == [("mappings/a.yaml", ONE, TWO)]


def test_a_query_asks_for_no_lock_of_the_index(repo: Repository) -> None:
    """Nothing is written: a repository that cannot be written to is read all the same."""
    put(repo, {"mappings/a.yaml": ONE})
    before = {path: path.stat().st_mtime_ns for path in (repo.folder / ".git").rglob("*")}

    pairs("HEAD", None)
    pairs("HEAD", "HEAD", merge_base=True)

    assert {path: path.stat().st_mtime_ns for path in (repo.folder / ".git").rglob("*")} == before


# --- from Python ---


def test_a_diff_of_a_team_s_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = repository.make(tmp_path / "team", checkpoints=False)
    made.edit("dense", "torch: out.weight, axes: i o -> o i", "torch: out.weight, axes: i o -> i o")
    monkeypatch.chdir(made.folder)

    found = api.diff("main")

    assert (found.base, found.head, found.same, found.left_out, found.problems) == ("main", "what is here", 2, (), ())
    (one,) = found.mappings
    assert [(change.target, change.facets) for change in one.changes] == [
        ("out.weight", (type(one.changes[0].facets[0])("axes", "i o -> o i", "i o -> i o"),))
    ]
    assert subprocess.run(["git", "diff", "--quiet"], check=False).returncode == 1
