"""
What t2t says of HDF5 files, Keras archives and NumPy archives that are damaged, or made to do harm.

The numbers are those of the fault catalogue (111-119); how each is tested is told in `test_faults_checkpoints.py`. HDF5
files are read in a child of the command, which may take what the command may.

Not here, or not whole, and why:

    111  a file that the HDF5 library dies of, and one that it never finishes: tests/test_fuzzing.py
"""

from __future__ import annotations

import io
import json
import marshal
import os
import pickle
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.commands import server
from tests.test_faults_checkpoints import Step, Variables, inspected, listed, not_converted, project, refused, run

DAMAGED = "the file is damaged: copy it again"
CUT_OFF = "the file is cut off: copy it again"
MODEL: Variables = {"dense/dense/bias": ("float32", [3]), "dense/dense/kernel": ("float32", [2, 3])}
#: What Keras 3 describes a model with, here one of no layers.
CONFIG = {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": []}}

Members = Sequence[tuple[str | zipfile.ZipInfo, bytes]]


def model(file: h5py.File) -> None:
    """One dense layer, as Keras 2 saves it."""
    layer = file.create_group("dense")
    layer["dense/kernel:0"] = np.ones((2, 3), np.float32)
    layer["dense/bias:0"] = np.zeros(3, np.float32)
    layer.attrs["weight_names"] = np.array([b"dense/kernel:0", b"dense/bias:0"])
    file.attrs["layer_names"] = np.array([b"dense"])
    file.attrs["backend"] = "tensorflow"
    file.attrs["keras_version"] = "2.11.0"


def hdf5(folder: Path, *builds: Callable[[h5py.File], object]) -> None:
    """x, an HDF5 file that these built one after the other."""
    with h5py.File(folder / "x", "w") as file:
        for build in builds:
            build(file)


def weights() -> bytes:
    """A model.weights.h5 as Keras 3 saves it."""
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened["layers/dense/vars/0"] = np.ones((2, 3), np.float32)
    return file.getvalue()


WEIGHTS: Variables = {"layers/dense/vars/0": ("float32", [2, 3])}


def archive(folder: Path, members: Members, method: int = zipfile.ZIP_STORED) -> None:
    """x, a zip archive of these members, in this order."""
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "x", "w", method) as file:
        warnings.simplefilter("ignore")  # names that stand twice are what is wanted
        for name, content in members:
            file.writestr(name, content)


def keras(folder: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
    """x, a .keras archive with these members beside the two that say what it is."""
    archive(folder, [("metadata.json", b"{}"), ("config.json", json.dumps(CONFIG).encode()), *members])


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: bytes, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """The beginning of a .npy, with any text where its dictionary would be."""
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", length or len(text)) + text


# --- 111-115: HDF5 ---


def damaged_hdf5(folder: Path) -> None:
    """Cut off anywhere; then with some bytes changed: it is read, or it is refused in one line."""
    hdf5(folder, model)
    data = (folder / "x").read_bytes()
    listed(folder, MODEL)
    for size in (len(data) - 1, 100, 9):
        (folder / "x").write_bytes(data[:size])
        done = run(folder, "inspect", "x")
        start, end = ("T2T604", DAMAGED) if size == 9 else ("T2T607", CUT_OFF)
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert done.err.startswith(f"x: {start}: the HDF5 library: ")
        assert done.err.endswith(f"; {end}\n")
    random = np.random.default_rng(0)
    for _ in range(4):
        # The superblock, and what comes behind it: most of the file is room that nothing uses.
        changed = bytearray(data)
        for at in (*random.integers(8, 200, 1), *random.integers(200, 3000, 8)):
            changed[at] ^= 1 << int(random.integers(8))
        (folder / "x").write_bytes(changed)
        done = run(folder, "inspect", "--checksums", "x")
        assert done.code in (0, 3), done
        assert done.err.count("\n") == (done.code == 3), done
        assert "Traceback" not in done.err


def linked(link: object, file: h5py.File) -> None:
    """One more member of the layer's group."""
    file["dense"]["more"] = link


def links_and_loops(folder: Path) -> None:
    secret = folder / "secret"
    with h5py.File(secret, "w") as file:
        file["w"] = np.ones(3)
    for link, text in (
        (h5py.ExternalLink(str(secret), "/w"), "dense/more is a link to another file, which t2t does not follow"),
        (h5py.ExternalLink("/etc/passwd", "/"), "dense/more is a link to another file, which t2t does not follow"),
        (h5py.SoftLink("/dense/dense"), "dense/more is a soft link, which t2t does not follow"),
    ):
        hdf5(folder, model, partial(linked, link))
        refused(folder, f"x: T2T606: {text}")
    hdf5(folder, model, lambda file: linked(file["dense"], file))
    refused(folder, "x: T2T606: the group dense/more is dense once more, a loop or a second name")
    hdf5(folder, model, lambda file: linked(file["/"], file))
    refused(folder, "x: T2T606: the group dense/more is the file's root once more, a loop or a second name")


def values_that_lie_elsewhere(folder: Path) -> None:
    """They are listed and never read, and neither is what needs a plugin: that is code."""
    (folder / "secret").write_bytes(b"secret!!")
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret"), "w", (2,))

    def filtered(file: h5py.File) -> None:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((2,))
        created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2,)), created)

    for build, text in (
        (
            lambda file: file.create_dataset("a", (2,), "f4", external=[(str(folder / "secret"), 0, 8)]),
            "its values lie in other files (external storage)",
        ),
        (
            lambda file: file.create_virtual_dataset("a", layout),
            "its values lie in other datasets (a virtual dataset)",
        ),
        (filtered, "it is stored with the HDF5 filter 32015, which t2t does not use"),
    ):
        hdf5(folder, build)
        (ref,) = inspected(folder)["variables"]
        assert (ref["name"], ref["unreadable"]) == ("a", text)
        project(folder, {"a": ("float32", [2])})
        not_converted(folder, f"x.yaml:6:8: T2T406 a (float32) cannot become a parameter: {text}", code=1)


def bombs(folder: Path) -> None:
    """A small file that would fill any memory, of three kinds."""
    hdf5(folder, lambda file: file.create_dataset("a", (2**40,), "f4", chunks=(1024,)))
    assert (folder / "x").stat().st_size < 12_000
    refused(folder, f"x: T2T605: a would be {2**42} bytes, but only 0 are stored")

    archive(folder, [("config.json", b"{}"), ("model.weights.h5", bytes(2**27))], zipfile.ZIP_DEFLATED)
    size = zipfile.ZipFile(folder / "x").getinfo("model.weights.h5").compress_size
    text = f"member model.weights.h5: {size} bytes are to become {2**27}; at most 100 times as many are read"
    refused(folder, f"x: T2T611: {text}")

    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n"
    archive(folder, [("a.npy", header(head))])
    refused(folder, f"x: T2T605: a: 0 bytes are stored, but float32 [{2**40}] needs {2**42}")


def odd_datasets(folder: Path) -> None:
    """Numbers of either byte order are read; anything else is listed, with the reason why it is not."""

    def build(file: h5py.File) -> None:
        file["big"] = np.arange(3, dtype=">f8") / 7
        file["little"] = np.arange(3, dtype="<f8") / 7
        file["scalar"] = np.float32(2)
        file["many"] = np.zeros((1,) * 12, np.int8)
        file.create_dataset("lists", (2,), h5py.vlen_dtype("f4"))
        file.create_dataset("records", (2,), np.dtype([("a", "f4")]))
        file.create_dataset("references", (2,), h5py.ref_dtype)
        file["null"] = h5py.Empty("f4")
        file["text"] = "hello"
        file["enum"] = np.array([0], h5py.enum_dtype({"a": 0}, "i4"))

    hdf5(folder, build)
    variables = inspected(folder)["variables"]
    assert {ref["name"]: ref["unreadable"] for ref in variables} == {
        **dict.fromkeys(("big", "little", "scalar", "many"), None),
        "lists": "it holds lists of varying length",
        "records": "it holds records",
        "references": "it holds references to other members",
        "null": "it has no values at all (a null dataspace)",
        "text": "it holds text",
        "enum": "it holds an enumeration",
    }
    project(folder, {"big": ("float64", [3]), "little": ("float64", [3]), "scalar": ("float32", [])})
    names = ("enum", "lists", "many", "'null'", "records", "references", "text")
    rest = "ignore:\n" + "".join(f"- {{tf: {name}, why: a test}}\n" for name in names)
    (folder / "x.yaml").write_text((folder / "x.yaml").read_text() + rest)
    assert server().run("x.yaml", cwd=folder).code == 0
    values = load_file(folder / "x.safetensors")
    assert values["big"].tolist() == values["little"].tolist() == [0, 1 / 7, 2 / 7]
    assert values["scalar"] == 2


def lists_of_names(folder: Path) -> None:
    def name(*names: object, key: str = "weight_names") -> Callable[[h5py.File], None]:
        def build(file: h5py.File) -> None:
            file["dense"].attrs[key] = np.array(names) if isinstance(names[0], bytes) else list(names)

        return build

    def one_layer_more(file: h5py.File) -> None:
        file.attrs["layer_names"] = np.array([b"dense", b"gone"])

    def nothing(file: h5py.File) -> None:
        del file["dense"].attrs["weight_names"]

    right: list[list[Callable[[h5py.File], object]]] = [
        [name("dense/kernel:0", "dense/bias:0")],
        [nothing, name(b"dense/kernel:0", key="weight_names0"), name(b"dense/bias:0", key="weight_names1")],
    ]
    for builds in right:
        hdf5(folder, model, *builds)
        listed(folder, MODEL)
    gone = "dense names the weight dense/gone:0, but there is no dataset dense/dense/gone:0"
    for build, text in (
        (nothing, "dense has no attribute weight_names; the file is not one that Keras wrote whole"),
        (name(b"dense/kernel:0", b"dense/gone:0"), f"{gone}; the save or the copy is incomplete"),
        (name(b"dense/kernel:0", b"dense/kernel:0"), "dense names the weight dense/kernel:0 twice"),
        (one_layer_more, "gone has no attribute weight_names; the file is not one that Keras wrote whole"),
    ):
        hdf5(folder, model, build)
        refused(folder, f"x: T2T605: {text}")


# --- 116-119: archives ---


def odd_archives(folder: Path) -> None:
    link = zipfile.ZipInfo("model.weights.h5")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    right = ("model.weights.h5", weights())
    keras(folder, right)
    listed(folder, WEIGHTS)
    none = "none of its 2 members is model.weights.h5 or model.weights.npz, nor another .h5 or .npz"
    for members, line in (
        ([], f"T2T605: {none}"),
        ([right, right], "T2T605: two members are named model.weights.h5"),
        ([right, ("../evil", b"")], "T2T605: member ../evil: its name leads out of the archive"),
        ([right, ("a/../../evil", b"")], "T2T605: member a/../../evil: its name leads out of the archive"),
        ([right, ("/etc/evil", b"")], "T2T605: member /etc/evil: its name leads out of the archive"),
        ([(link, b"/etc/passwd")], "T2T605: member model.weights.h5 is a symbolic link"),
        ([("inner.keras", b"PK\3\4")], "T2T606: the archive holds another one: inner.keras; unpack it first"),
        (
            [("a.h5", weights()), ("b.h5", weights())],
            "T2T605: several members may be the weights: a.h5, b.h5; give the file of weights itself",
        ),
    ):
        keras(folder, *members)
        refused(folder, f"x: {line}")
    keras(folder, right)
    data = bytearray((folder / "x").read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1  # the flag of the last member's record in the directory
    (folder / "x").write_bytes(data)
    refused(folder, "x: T2T606: member model.weights.h5 is encrypted; decrypt it first")
    (folder / "x").write_bytes(data[: len(data) // 2])
    refused(folder, f"x: T2T604: the zip archive is damaged: File is not a zip file; {DAMAGED}")


def code_in_a_model(folder: Path) -> None:
    """A Lambda layer's code, a class from anywhere, a pickle: nothing of it runs."""
    canary = folder / "canary"
    code = compile(f"__import__('os').system('touch {canary}')", "lambda", "exec")
    evil = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": "sequential",
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": "Lambda",
                    "config": {"name": "evil", "function": marshal.dumps(code).hex()},
                },
                {"module": "os", "class_name": "system", "config": f"touch {canary}", "registered_name": "evil"},
                {"module": "builtins", "class_name": "eval", "config": f"__import__('os').system('touch {canary}')"},
            ],
        },
    }

    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {canary}",)

    trap = pickle.dumps(Trap())
    archive(
        folder,
        [
            ("metadata.json", b"{}"),
            ("config.json", json.dumps(evil).encode()),
            ("model.weights.h5", weights()),
            ("assets/evil.pkl", trap),
        ],
    )
    listed(folder, WEIGHTS)
    hdf5(folder, model, lambda file: file.attrs.__setitem__("model_config", json.dumps(evil)))
    listed(folder, MODEL)
    assert not canary.exists()
    pickle.loads(trap)
    assert canary.exists()


def shards_that_lead_elsewhere(folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones(3)
    (folder / "d").mkdir()
    for name in ("../secret.h5", "../../etc/passwd", "http://example.com/x.h5", str(folder / "secret.h5"), "sub/x.h5"):
        shards = {"metadata": {"total_size": 1}, "weight_map": {"/layers/dense/vars": [name]}}
        (folder / "d/x.weights.json").write_text(json.dumps(shards))
        text = f"/layers/dense/vars lies in {name}, which is no name of a file beside this one"
        hint = "t2t follows only names of files in the same directory"
        refused(folder, f"d/x.weights.json: T2T605: {text}; {hint}", path="d/x.weights.json")


def odd_arrays(folder: Path) -> None:
    canary = folder / "canary"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {canary}",)

    objects = npy(np.array([Trap()], object))
    array = npy(np.ones(2))
    rule = "its header is not a dictionary of descr, fortran_order and shape"
    for members, line in (
        (
            [("a.npy", objects)],
            "T2T606: a: an array of Python objects (a pickle), which t2t never reads; save it as an array of numbers",
        ),
        ([("a.npy", array), ("a.npy", array)], "T2T605: two members are named a.npy"),
        (
            [("a.npy", header(b"{" * 100, (2, 0), 2**31))],
            f"T2T611: a: its header has {2**31} bytes, but at most 65536 are read",
        ),
        (
            [("a.npy", header(b"{" * 100, (3, 0), 2**32 - 1))],
            f"T2T611: a: its header has {2**32 - 1} bytes, but at most 65536 are read",
        ),
        ([("a.npy", header(b"(" * 60_000, (2, 0)))], f"T2T605: a: {rule}"),
        ([("a.npy", header(b"__import__('os').system('touch canary')"))], f"T2T605: a: {rule}"),
        (
            [("a.npy", b"\x93NUMPY\7\0")],
            "T2T605: a: its .npy version is 7.0, but there are only 1.0, 2.0 and 3.0",
        ),
    ):
        archive(folder, members)
        refused(folder, f"x: {line}")
    assert not canary.exists()

    fortran = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    archive(folder, [("a.npy", npy(fortran))])
    project(folder, {"a": ("float32", [2, 3])})
    assert server().run("x.yaml", cwd=folder).code == 0
    assert load_file(folder / "x.safetensors")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


FAULTS: dict[int, tuple[Step, ...]] = {
    111: (damaged_hdf5,),
    112: (links_and_loops, values_that_lie_elsewhere),
    113: (bombs,),
    114: (odd_datasets,),
    115: (lists_of_names,),
    116: (odd_archives,),
    117: (code_in_a_model,),
    118: (shards_that_lead_elsewhere,),
    119: (odd_arrays,),
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Step], tmp_path: Path) -> None:
    """Every one of them, each in a folder of its own."""
    for step in steps:
        own = tmp_path / step.__name__
        own.mkdir()
        step(own)
