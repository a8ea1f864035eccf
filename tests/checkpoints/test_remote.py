"""Checkpoints at addresses: which bytes are asked for, what changes are noticed, what servers can do wrong."""

from __future__ import annotations

import builtins
import http.server
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from t2t import checkpoints
from t2t.checkpoints import files, remote
from t2t.checkpoints.locate import Found, locate
from t2t.problems import CheckpointError, UsageError
from tests import commands
from tests.checkpoints.http_server import Asked, Server
from tests.checkpoints.writing import Tensor, bundle, floats

INDEX, DATA = "small.ckpt.index", "small.ckpt.data-00000-of-00001"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy stands between a test and its server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's files in memory, none of them before and none after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def refused(path: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.open(path)
    (problem,) = caught.value.problems
    return str(problem)


def uploaded(system: Any, folder: Path, to: str) -> None:
    for path in folder.iterdir():
        system.pipe_file(f"{to}/{path.name}", path.read_bytes())


# Which bytes are asked for.


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> commands.Project:
    """A mapping whose checkpoint also has an optimizer's slots, between the variables; and a graph beside it."""
    made = commands.small(tmp_path_factory.mktemp("remote"), (300, 200, 10))
    random = np.random.default_rng(0)
    variables: dict[str, np.ndarray] = {}
    for name in ("dense_0/bias", "dense_0/kernel", "dense_1/bias", "dense_1/kernel"):
        layer, kind = name.split("/")
        parameter = made.state[f"layers.{layer[-1]}.{'bias' if kind == 'bias' else 'weight'}"]
        variables[name] = np.ascontiguousarray(parameter.T)
        variables[f"{name}/Adam"] = random.random(parameter.T.shape, np.float32)
        variables[f"{name}/Adam_1"] = random.random(parameter.T.shape, np.float32)
    commands.store(made.folder, variables)
    (made.folder / "small.ckpt.meta").write_bytes(b"\x12\5graph")
    made.edit("map:\n", "ignore: [{slots: true, why: training}]\nmap:\n")
    return made


@pytest.mark.parametrize("command", [("inspect",), ("check", "small.yaml", "--checkpoint")])
def test_inspect_and_check_fetch_the_index_only(project: commands.Project, command: tuple[str, ...]) -> None:
    with Server(project.folder) as server:
        done = commands.t2t(*command, f"{server.address}/small.ckpt", cwd=project.folder)

    assert done.code == 0, done.err
    size = (project.folder / INDEX).stat().st_size
    assert [each for each in server.asked if each.method == "GET"] == [Asked("GET", INDEX, 0, size)]
    assert {each.name for each in server.asked} == {INDEX, DATA}


def test_convert_fetches_each_byte_of_a_mapped_variable_once(project: commands.Project) -> None:
    with checkpoints.open(str(project.folder / "small.ckpt")) as checkpoint:
        refs = checkpoint.inventory.variables.values()
        mapped = sorted((ref.offset, ref.offset + ref.nbytes) for ref in refs if ref.slot_of is None)
    assert len(mapped) == 4

    with Server(project.folder) as server:
        address = f"{server.address}/small.ckpt"
        done = commands.t2t("convert", "small.yaml", "--checkpoint", address, cwd=project.folder)

    assert done.code == 0, done.err
    assert sorted(server.parts(DATA)) == mapped
    assert server.parts(INDEX) == [(0, (project.folder / INDEX).stat().st_size)]
    from safetensors.numpy import load_file

    found = load_file(project.output)
    assert all(np.array_equal(found[name], array) for name, array in project.state.items())


def test_a_mapping_may_name_an_address(project: commands.Project, tmp_path: Path) -> None:
    with Server(project.folder) as server:
        for name in ("small.py", "small.yaml"):
            shutil.copy(project.folder / name, tmp_path)
        text = (tmp_path / "small.yaml").read_text().replace("small.ckpt", f'"{server.address}/small.ckpt"')
        (tmp_path / "small.yaml").write_text(text)
        done = commands.t2t("check", str(tmp_path / "small.yaml"), cwd=project.folder)

    assert done.code == 0, done.err + done.out
    assert server.parts(INDEX)


def test_a_large_variable_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.RemoteFile, "piece", 1000)
    values = np.arange(600, dtype=np.float32)
    bundle(tmp_path / "x", {"a": floats(1), "b": Tensor(1, (600,), values.tobytes())})

    with Server(tmp_path) as server, checkpoints.open(f"{server.address}/x") as checkpoint:
        assert np.array_equal(checkpoint.read(checkpoint.inventory.variables["b"]), values)
        view = checkpoint.view(checkpoint.inventory.variables["a"])
        assert (view.tolist(), view.flags.writeable) == ([1.0], False)

    assert server.parts("x.data-00000-of-00001") == [(4, 1004), (1004, 2004), (2004, 2404), (0, 4)]


def test_a_stream_fetches_no_block_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1000)
    content = np.random.default_rng(0).bytes(10_500)
    (tmp_path / "x").write_bytes(content)
    random = np.random.default_rng(1)

    with Server(tmp_path) as server:
        file = files.open_file(f"{server.address}/x")
        with file.stream() as stream:
            for at in random.integers(0, 11_000, 200):
                size = int(random.integers(0, 3000))
                assert stream.seek(int(at)) == at
                assert stream.read(size) == content[at : at + size]
            assert stream.seek(-3, io.SEEK_END) == 10_497
            assert stream.read() == content[-3:]
        file.close()

    covered = np.zeros(len(content), int)
    for start, end in server.parts("x"):
        covered[start:end] += 1
    assert covered.max() == 1


def test_a_stream_keeps_no_more_than_its_blocks(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK", 10)
    monkeypatch.setattr(remote, "BLOCKS", 3)
    memory.pipe_file("/x", bytes(range(200)))
    blocks = remote._Blocks(remote.RemoteFile("memory://x"))

    for at in (0, 50, 100, 0, 150, 199, 3):
        blocks.seek(at)
        assert blocks.read(1) == bytes([at])
        assert len(blocks._kept) <= 3
    assert set(blocks._kept) == {0, 15, 19}
    blocks.seek(0)
    assert blocks.read() == bytes(range(200))


def test_other_formats_are_read_where_they_lie(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"a": np.arange(300_000.0), "b/c": np.ones((2, 3), np.int8)}
    np.savez(tmp_path / "w", **arrays)

    with Server(tmp_path) as server, checkpoints.open(f"{server.address}/w.npz") as checkpoint:
        found = {name: checkpoint.read(ref) for name, ref in checkpoint.inventory.variables.items()}
        checkpoint.check_unchanged()

    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_an_hdf5_file_is_read_where_it_lies(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["w"] = values

    with Server(tmp_path) as server, checkpoints.open(f"{server.address}/w.h5") as checkpoint:
        (ref,) = checkpoint.inventory.variables.values()
        assert np.array_equal(checkpoint.read(ref), values)
        checkpoint.check_unchanged()


# What an address means.


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    bundle(tmp_path / "x", {"a": floats(1)})

    assert locate(f"file://{tmp_path}/x") == Found("bundle", f"{tmp_path}/x")


def test_folders_and_state_files_are_found_in_a_store(memory: Any, tmp_path: Path) -> None:
    bundle(tmp_path / "x-7", {"a": floats(1)})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/x-7"')
    uploaded(memory, tmp_path, "/d")
    uploaded(memory, tmp_path, "/m/variables")
    memory.pipe_file("/m/saved_model.pb", b"")
    memory.mv("/m/variables/x-7.index", "/m/variables/variables.index")
    memory.rm("/m/variables/checkpoint")

    text = "the state file names /gone/x-7, which is in another place; memory://d/x-7 is read instead"
    for path in ("memory://d", "memory://d/checkpoint"):
        found = locate(path)
        assert found.path == "memory://d/x-7"
        assert [str(note) for note in found.notes] == [f"memory://d/checkpoint: T2T610: {text}"]
    for path in ("memory://m", "memory://m/variables", "memory://m/saved_model.pb"):
        assert locate(path) == Found("bundle", "memory://m/variables/variables")
    with checkpoints.open("memory://d/x-7") as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["a"]).tolist() == [1.0]
        assert checkpoint.files == ("memory://d/x-7.index", "memory://d/x-7.data-00000-of-00001")


def test_a_saved_model_and_a_state_file_are_found_on_a_server_that_lists_nothing(tmp_path: Path) -> None:
    for prefix in ("m/variables/variables", "d/x"):
        (tmp_path / prefix).parent.mkdir(parents=True)
        bundle(tmp_path / prefix, {"a": floats(1)})
    (tmp_path / "d/checkpoint").write_text('model_checkpoint_path: "x"')

    with Server(tmp_path) as server:
        base = server.address
        assert locate(f"{base}/m") == Found("bundle", f"{base}/m/variables/variables")
        assert locate(f"{base}/d/") == locate(f"{base}/d/checkpoint") == Found("bundle", f"{base}/d/x")
        text = "no checkpoint there: neither nothing.index nor nothing exists"
        assert refused(f"{base}/nothing") == f"{base}/nothing: T2T601: {text}"


def test_a_web_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"<!DOCTYPE html>")

    with Server(tmp_path) as server:
        text = "this is an HTML page; download the file itself"
        assert refused(f"{server.address}/x") == f"{server.address}/x: T2T603: {text}"


def test_a_missing_shard_and_the_nearest_names_are_told(memory: Any, tmp_path: Path) -> None:
    bundle(tmp_path / "x-7", {"a": floats(1)})
    uploaded(memory, tmp_path, "/d")
    text = "no checkpoint there: neither x-8.index nor x-8 exists; did you mean memory://d/x-7"
    assert refused("memory://d/x-8") == f"memory://d/x-8: T2T601: {text}"

    memory.rm("/d/x-7.data-00000-of-00001")
    text = "shard 0 of 1 missing: x-7.data-00000-of-00001; the save or the copy is incomplete"
    assert refused("memory://d/x-7") == f"memory://d/x-7.data-00000-of-00001: T2T607: {text}"


def test_tensorflow_does_not_read_addresses(memory: Any, tmp_path: Path) -> None:
    bundle(tmp_path / "x", {"a": floats(1)})
    uploaded(memory, tmp_path, "/d")

    with pytest.raises(UsageError) as caught:
        checkpoints.open("memory://d/x", reader="tensorflow")

    message = "TensorFlow reads local files only, and this is an address: memory://d/x"
    hint = "copy the checkpoint here, or leave it to t2t's own reader"
    assert str(caught.value.problems[0]) == f"T2T001 {message}; {hint}"


# What changes meanwhile.


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    bundle(tmp_path / "x", {"a": floats(1)})
    data = tmp_path / "x.data-00000-of-00001"

    with Server(tmp_path) as server:
        file = f"{server.address}/{data.name}"
        with checkpoints.open(f"{server.address}/x") as checkpoint:
            checkpoint.check_unchanged()
            time.sleep(0.01)
            data.write_bytes(data.read_bytes())
            with pytest.raises(CheckpointError) as caught:
                checkpoint.check_unchanged()
            text = "the file changed while it was read; wait until the save is complete"
            assert str(caught.value.problems[0]) == f"{file}: T2T609: {text}"
            with pytest.raises(CheckpointError) as caught:
                checkpoint.read(checkpoint.inventory.variables["a"])
            assert str(caught.value.problems[0]) == f"{file}: T2T609: {text}"
            data.unlink()
            with pytest.raises(CheckpointError) as caught:
                checkpoint.check_unchanged()
            text = "the file changed while it was read: there is no such file"
            assert str(caught.value.problems[0]) == f"{file}: T2T609: {text}"


def test_a_file_that_gets_shorter_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))

    with Server(tmp_path) as server:
        file = files.open_file(f"{server.address}/x")
        (tmp_path / "x").write_bytes(bytes(60))
        with pytest.raises(CheckpointError) as caught:
            file.read(50, 50)

    text = "bytes 50 to 100 are needed, but the file ends at 60; the file is cut off: copy it again"
    assert str(caught.value.problems[0]) == f"{server.address}/x: T2T607: {text}"


# What servers and libraries can do wrong.


def test_a_small_file_is_fetched_whole_from_a_server_without_ranges(tmp_path: Path) -> None:
    bundle(tmp_path / "x", {"a": floats(1), "b": floats(2, 3)})

    with Server(tmp_path, ranges=False) as server, checkpoints.open(f"{server.address}/x") as checkpoint:
        assert checkpoint.read(checkpoint.inventory.variables["b"]).tolist() == [2.0, 3.0]


def test_a_large_file_is_not_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_WHOLE", 11)
    bundle(tmp_path / "x", {"a": floats(1), "b": floats(2, 3)})

    with (
        Server(tmp_path, ranges=False) as server,
        checkpoints.open(f"{server.address}/x") as checkpoint,
        pytest.raises(CheckpointError) as caught,
    ):
        checkpoint.read(checkpoint.inventory.variables["b"])

    text = "the server gives no parts of files, and the file has 12 bytes, but at most 11 are fetched whole"
    hint = "download the file, and give the copy"
    assert str(caught.value.problems[0]) == f"{server.address}/x.data-00000-of-00001: T2T602: {text}; {hint}"


def answers(status: int) -> Callable[[http.server.BaseHTTPRequestHandler], bool]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> bool:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    return answer


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "x: T2T602: the server answers 403 Forbidden"),
        (401, "x: T2T602: the server answers 401 Unauthorized"),
        (500, "x.index: T2T602: the server answers 500 Internal Server Error"),
        (410, "x: T2T601: no checkpoint there: neither x.index nor x exists"),
    ],
)
def test_what_a_server_answers_is_told(tmp_path: Path, status: int, text: str) -> None:
    with Server(tmp_path, answer=answers(status)) as server:
        assert refused(f"{server.address}/x") == f"{server.address}/{text}"


def test_a_server_that_says_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "READ_PATIENCE", 0.2)

    def silent(_: http.server.BaseHTTPRequestHandler) -> bool:
        time.sleep(1)
        return True

    with Server(tmp_path, answer=silent) as server:
        text = "the server gives no answer (SocketTimeoutError)"
        assert refused(f"{server.address}/x") == f"{server.address}/x.index: T2T602: {text}"


def test_a_server_that_sends_less_than_it_says_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(100))

    def cut(request: http.server.BaseHTTPRequestHandler) -> bool:
        if "Range" in request.headers:
            request.send_response(206)
            request.send_header("Content-Length", "50")
            request.send_header("Content-Range", "bytes 50-99/100")
            request.end_headers()
            request.wfile.write(bytes(20))
            request.close_connection = True
        return "Range" in request.headers

    with Server(tmp_path, answer=cut) as server:
        file = files.open_file(f"{server.address}/x")
        with pytest.raises(CheckpointError) as caught:
            file.read(50, 50)

    start = f"{server.address}/x: T2T602: cannot be read: ClientPayloadError: "
    assert str(caught.value.problems[0]).startswith(start)


@pytest.mark.parametrize("code", ["T2T602", "T2T609"])
def test_a_server_that_is_not_there_is_told(code: str) -> None:
    address = "http://127.0.0.1:1/x"

    with pytest.raises(CheckpointError) as caught:
        files.state_of(address, code)

    (problem,) = caught.value.problems
    changed = "the file changed while it was read: " if code == "T2T609" else ""
    start = f"{address}: {code}: {changed}cannot be read: ClientConnectorError: Cannot connect to host 127.0.0.1:1 "
    assert str(problem).startswith(start)


@pytest.mark.parametrize(("scheme", "library"), [("gs", "gcsfs"), ("s3", "s3fs"), ("https", "aiohttp")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str, library: str) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(f"no {library}")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    for module in (library, f"fsspec.implementations.{'http' if scheme == 'https' else 'none'}"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)

    text = f"{scheme}://bucket/x.index: T2T619: {scheme}:// needs {library}; pip install {library}"
    assert refused(f"{scheme}://bucket/x") == text


def test_an_unknown_scheme_is_refused() -> None:
    text = "cannot be read: ValueError: Protocol not known: foo"
    assert refused("foo://bucket/x") == f"foo://bucket/x.index: T2T602: {text}"


def test_whatever_a_library_raises_is_a_refusal(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/x", bytes(100))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(type(memory), "open", broken)
    file = files.open_file("memory://x")
    with pytest.raises(CheckpointError) as caught:
        file.read(0, 1)
    assert str(caught.value.problems[0]) == "memory://x: T2T602: cannot be read: RuntimeError: first line"

    monkeypatch.setattr(type(memory), "info", broken)
    for ask in (files.exists, files.state_of, files.open_file):
        with pytest.raises(CheckpointError) as caught:
            ask("memory://x")
        assert str(caught.value.problems[0]) == "memory://x: T2T602: cannot be read: RuntimeError: first line"
