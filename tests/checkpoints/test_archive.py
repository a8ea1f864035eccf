"""Which member of a zip is the checkpoint, and which zips are refused."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from t2t.checkpoints import archive
from t2t.checkpoints.archive import Archive
from t2t.problems import CheckpointError
from tests.checkpoints.test_npz import npy, packed, patched

AROUND = [("metadata.json", b"{}"), ("config.json", b"{}"), ("assets/other.npz", b"")]
VALUES = np.arange(6, dtype="f4").reshape(2, 3)


def npz_bytes(folder: Path, **arrays: np.ndarray) -> bytes:
    np.savez(folder / "inner.npz", **arrays)  # type: ignore[arg-type]
    return (folder / "inner.npz").read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Archive(str(path)).close()
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


# --- .npz within ---


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize(
    "around",
    [[], [("metadata.json", b"{}"), ("config.json", b"{}"), ("assets/other.npz", b"")]],
    ids=["alone", "keras"],
)
def test_arrays_within_an_archive_are_read(tmp_path: Path, around: list[tuple[str, bytes]], method: int) -> None:
    inner = npz_bytes(tmp_path, w=VALUES, large=np.arange(300_000))
    name = "model.weights.npz" if around else "folder/some.npz"
    path = packed(tmp_path / "x.keras", *around, (name, inner), method=method)

    with Archive(str(path)) as checkpoint:
        assert (checkpoint.path, checkpoint.files) == (str(path), (str(path),))
        variables = checkpoint.inventory.variables
        assert list(variables) == ["large", "w"]
        assert np.array_equal(checkpoint.read(variables["w"]), VALUES)
        assert np.array_equal(checkpoint.read(variables["large"]), np.arange(300_000))


def test_damage_within_names_both(tmp_path: Path) -> None:
    inner = npz_bytes(tmp_path, w=VALUES)
    path = packed(tmp_path / "x.keras", ("model.weights.npz", inner[:-10]))

    assert refused(path) == (
        "x.keras: model.weights.npz: T2T604: the zip archive is damaged: File is not a zip file; "
        "the file is damaged: copy it again"
    )


def test_a_compressed_member_has_to_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = npz_bytes(tmp_path, w=VALUES)
    monkeypatch.setattr(archive, "MAX_IN_MEMORY", len(inner) - 1)
    path = packed(tmp_path / "x.zip", ("some.npz", inner), method=zipfile.ZIP_DEFLATED)

    assert refused(path) == (
        f"x.zip: T2T611: member some.npz has {len(inner)} bytes, but at most {len(inner) - 1} are read"
    )


# --- HDF5 within ---


def test_every_real_archive_is_read_as_h5py_reads_it(shared_data: Path) -> None:
    h5py = pytest.importorskip("h5py")
    paths = [path for path in sorted((shared_data / "keras-zip").rglob("*.keras")) if zipfile.is_zipfile(path)]
    assert paths
    for path in paths:
        with Archive(str(path)) as checkpoint, zipfile.ZipFile(path) as outer, outer.open("model.weights.h5") as member:
            assert checkpoint.files == (str(path),)
            variables = checkpoint.inventory.variables
            assert variables
            with h5py.File(member) as file:
                for ref in variables.values():
                    assert np.array_equal(checkpoint.read(ref), file[ref.key][()]), ref.name


# --- what is refused ---

NO_WEIGHTS = "is model.weights.h5 or model.weights.npz, nor another .h5 or .npz"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["config.json"], f"T2T605: none of its 1 members {NO_WEIGHTS}"),
        ([], f"T2T605: none of its 0 members {NO_WEIGHTS}"),
        (
            ["a.npz", "b.h5"],
            "T2T605: several members may be the weights: a.npz, b.h5; give the file of weights itself",
        ),
        (
            ["model.weights.h5", "model.weights.npz"],
            "T2T605: several members may be the weights: model.weights.h5, model.weights.npz; "
            "give the file of weights itself",
        ),
        (["inner.keras"], "T2T606: the archive holds another one: inner.keras; unpack it first"),
        (["model.weights.h5", "../x"], "T2T605: member ../x: its name leads out of the archive"),
        (["model.weights.h5", "a/../../x"], "T2T605: member a/../../x: its name leads out of the archive"),
        (["/etc/x", "model.weights.h5"], "T2T605: member /etc/x: its name leads out of the archive"),
        (["C:/x", "model.weights.h5"], "T2T605: member C:/x: its name leads out of the archive"),
        (["..\\x", "model.weights.h5"], "T2T605: member ..\\x: its name leads out of the archive"),
        (["model.weights.h5", "model.weights.h5"], "T2T605: two members are named model.weights.h5"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_without_one_checkpoint_is_refused(tmp_path: Path, members: Iterable[str], message: str) -> None:
    path = packed(tmp_path / "x.keras", *((name, npy(VALUES)) for name in members))

    assert refused(path) == f"x.keras: {message}"


def test_a_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as outer:
        info = zipfile.ZipInfo("model.weights.h5")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        outer.writestr(info, "/etc/passwd")

    assert refused(tmp_path / "x.keras") == "x.keras: T2T605: member model.weights.h5 is a symbolic link"


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = patched(packed(tmp_path / "x.keras", ("model.weights.h5", b"abc")), flags=(8, "<H", 1))

    assert refused(path) == "x.keras: T2T606: member model.weights.h5 is encrypted; decrypt it first"


def test_a_member_of_too_many_megabytes_of_config_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_CONFIG", 10)
    inner = npz_bytes(tmp_path, w=VALUES)
    path = packed(tmp_path / "x.keras", ("config.json", bytes(11)), ("model.weights.npz", inner))

    assert refused(path) == "x.keras: T2T611: member config.json has 11 bytes, but at most 10 are read"


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    path = packed(tmp_path / "x.keras", *((f"{i}.npz", b"") for i in range(3)))

    assert refused(path) == "x.keras: T2T611: 3 members, but at most 2 are read"
