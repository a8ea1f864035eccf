"""
What t2t survives: files that change under it, no memory, no space, signals, odd places for its output.

The numbers are those of the fault catalogue (60-69: changing files, memory, system; 101-110: output). Every function
below asserts the exit status, one line of reason without a traceback, that nothing is left in the folder, and that what
stood there is still the same.

Not here, or not whole, and why:

    61   a map of a file that shrinks ends the process: only `view` maps, and it is tested with the reader
    62   a stale NFS handle: an I/O error of another kind stands in for it
    104  no space at fsync or close: it needs a file system of its own
    106  names that collide when they are made harmless: names are written as they are, or refused
    107  the checksums of the read-back are tested here, a newer header format than the library's cannot be had
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import stat
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from t2t import api, checkpoints
from t2t.problems import T2TError
from t2t.writers import Entry, atomic, safetensors
from tests.checkpoints.writing import Tensor, bundle
from tests.commands import Done, Project, Trial, python, server, small, store, t2t

#: Layers of a model whose checkpoint has 67 MB: reading, writing and syncing each take a part of the time.
LARGE = (2048,) * 5
#: Any variable of the small model but the first: what is read ahead is read already when progress is told.
LATER = r"dense_(?:0/bias|1/kernel|1/bias)"
#: A module of one buffer, which a file can't hold or whose name it can't.
BUFFER = """\
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("{name}", torch.zeros(3, dtype=torch.{dtype}))
"""


def refused(done: Done, code: int, line: str, project: Project, before: Sequence[str]) -> None:
    """The command ended with `code` and says one line beside its notes; the folder is as before."""
    told = [text for text in (done.out + done.err).splitlines() if not text.startswith("note: T2T700 ")]

    assert (done.code, told) == (code, [line])
    assert project.listing() == list(before)


def problem_of(call: Callable[[], object]) -> str:
    """The text of the T2TError that the call raises."""
    with pytest.raises(T2TError) as raised:
        call()
    return str(raised.value)


def full_device(folder: Path) -> str:
    """
    A device like /dev/full, on which every write fails for want of space.

    Root gets one of its own: a t2t that replaced it would damage the machine that tests it.
    """
    if os.getuid():
        return "/dev/full"
    os.mknod(folder / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    return "full"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, for what runs in this process; the model that it imports doesn't stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("small", None)


# --- 60-69: changing files, memory, system ---


def a_checkpoint_rewritten_while_it_is_read(folder: Path) -> None:
    """The same bytes are written again: only the time of modification tells."""
    project = small(folder)
    before = project.listing()

    def rewrite(nbytes: int) -> None:
        overwrite(project.data, project.data.read_bytes())

    message = problem_of(lambda: api.convert("small.yaml", progress=rewrite))

    assert message == (
        "small.ckpt.data-00000-of-00001: T2T609: the file changed while it was read; wait until the save is complete"
    )
    assert project.listing() == before


def overwrite(path: Path, data: bytes) -> None:
    """In place: whoever reads meanwhile never finds the file shorter."""
    with open(path, "r+b") as file:
        file.write(data)


def a_checkpoint_replaced_while_it_is_read(folder: Path) -> None:
    """Another save's bytes, in the same place: the checksum tells, whatever the times say."""
    project = small(folder)
    before = project.listing()
    times = project.data.stat().st_atime_ns, project.data.stat().st_mtime_ns

    def replace(nbytes: int) -> None:
        overwrite(project.data, bytes(project.data.stat().st_size))
        os.utime(project.data, ns=times)

    message = problem_of(lambda: api.convert("small.yaml", progress=replace))

    assert re.fullmatch(
        rf"{project.data.name}: T2T608: {LATER}: checksum mismatch, shard 0, offset \d+ \(stored 0x[0-9a-f]{{8}}, "
        r"computed 0x[0-9a-f]{8}\); the file is damaged: copy it again",
        message,
    )
    assert project.listing() == before


def a_data_file_truncated_while_it_is_read(folder: Path) -> None:
    project = small(folder)
    before = project.listing()

    message = problem_of(lambda: api.convert("small.yaml", progress=lambda nbytes: os.truncate(project.data, 20)))

    assert re.fullmatch(
        rf"{project.data.name}: T2T607: {LATER}: the file ends at byte \d+, but had more when it was opened", message
    )
    assert project.listing() == before


def a_data_file_deleted_while_it_is_open(folder: Path) -> None:
    """The open checkpoint still reads it; a conversion refuses, because what it read is there no longer."""
    project = small(folder)
    with checkpoints.open("small.ckpt") as checkpoint:
        first, *others = checkpoint.inventory.variables.values()
        checkpoint.read(first)
        kept = project.data.read_bytes()
        project.data.unlink()
        for ref in others:
            assert checkpoint.read(ref).tobytes() == kept[ref.offset : ref.offset + ref.nbytes]
    project.data.write_bytes(kept)
    before = project.listing()

    message = problem_of(
        lambda: api.convert("small.yaml", progress=lambda nbytes: project.data.unlink(missing_ok=True))
    )

    assert message == (
        "small.ckpt.data-00000-of-00001: T2T609: the file changed while it was read: no such file or directory"
    )
    assert project.listing() == [name for name in before if name != project.data.name]


def an_input_error_in_the_middle(folder: Path) -> None:
    """The open data file becomes one that the system cannot read: a process's memory, where nothing is mapped."""
    project = small(folder)
    before = project.listing()

    def break_it(nbytes: int) -> None:
        broken = os.open("/proc/self/mem", os.O_RDONLY)
        for name in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{name}") == str(project.data.resolve()):
                os.dup2(broken, int(name))
        os.close(broken)

    message = problem_of(lambda: api.convert("small.yaml", progress=break_it))

    assert re.fullmatch(rf"{project.data.name}: T2T602: {LATER}: cannot be read: input/output error", message)
    assert project.listing() == before


def not_enough_memory(folder: Path) -> None:
    """The largest parameter has 64 MiB, and 48 MiB are allowed: already the constructor's allocation is refused."""
    project = small(folder, (4096, 4096))
    before = project.listing()

    done = server().run("small.yaml", cwd=folder, limits={"as": 48 * 2**20})

    told = [text for text in (done.out + done.err).splitlines() if not text.startswith("note: T2T700 ")]
    assert (done.code, len(told)) == (1, 1)
    assert told[0].startswith("small.yaml:2:8: T2T703 small:Small cannot be built: ")
    assert "memory" in told[0]
    assert project.listing() == before
    assert server().run("small.yaml", cwd=folder).code == 0


#: Prints how far the peak of memory rises during a conversion, in bytes; what the imports took is not in it.
PEAK = """
import re
import t2t.api, t2t.module, t2t.execute, t2t.writers.safetensors, t2t.proof.recording

def status(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"{key}:\\s+(\\d+) kB", file.read())[1]) * 1024

t2t.convert("warm.yaml")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
t2t.convert("small.yaml")
print(status("VmHWM") - before)
"""


def peak_memory(folder: Path) -> None:
    """Twice the largest tensor and 64 MB, however many there are."""
    small(folder, (4096, 4096, 4096, 4096))
    (folder / "warm").mkdir()
    warm = small(folder / "warm")
    (folder / "warm.yaml").write_text(warm.mapping.read_text().replace("small.ckpt", "warm/small.ckpt"))

    done = python("-c", PEAK, cwd=folder)

    assert (done.code, done.err) == (0, "")
    assert int(done.out) <= 2 * 4096 * 4096 * 4 + 64_000_000
    assert int(done.out) > 4096 * 4096 * 4, "less than a transposed copy needs: the figure is wrong"


def five_thousand_shards(folder: Path) -> None:
    """200 of them are read with 64 open files allowed: they are opened when they are needed, and closed again."""
    layers = 100
    project = small(folder, (1,) * (layers + 1))
    random_numbers = np.random.default_rng(0).random((layers, 2), np.float32)
    tensors = {}
    for i, (kernel, bias) in enumerate(random_numbers):
        tensors[f"dense_{i}/kernel"] = Tensor(1, (1, 1), kernel.tobytes(), shard=50 * i)
        tensors[f"dense_{i}/bias"] = Tensor(1, (1,), bias.tobytes(), shard=50 * i + 49)
    bundle(folder / "small.ckpt", tensors, shards=5000)
    project.data.unlink()

    done = server().run("small.yaml", cwd=folder, limits={"nofile": 64})

    assert (done.code, done.err) == (0, "note: T2T700 importing small:Small\n")
    written = load_file(project.output)
    assert [written[f"layers.{i}.bias"].item() for i in range(layers)] == random_numbers[:, 1].tolist()


def trials(project: Project, number: signal.Signals) -> list[tuple[Done, bool, list[str]]]:
    """
    Twenty conversions that get a signal, at moments spread over the time that one takes.

    Each replaces an older output. For each: how it ended, whether the output is the new one (else it is the old one,
    bit for bit), and the temporary files that it leaves.
    """
    new_text = project.mapping.read_text()
    project.mapping.write_text(f"# older\n{new_text}")
    assert server().run("small.yaml", cwd=project.folder).code == 0
    older = project.folder / "older"
    os.link(project.output, older)
    old = digest(older)
    project.mapping.write_text(new_text)
    runs = [server().run("small.yaml", cwd=project.folder) for _ in range(3)]
    assert [run.code for run in runs] == [0, 0, 0]
    new = digest(project.output)
    assert new != old
    usual = min(run.seconds for run in runs)
    moments = random.Random(0)
    found = []
    for step in range(20):
        project.output.unlink()
        os.link(older, project.output)
        delay = usual * (step + moments.random()) / 20
        done = server().run("small.yaml", cwd=project.folder, signal=number, delay=delay)
        is_new = not project.output.samefile(older)
        left = [name for name in project.listing() if name.endswith(".tmp")]
        if is_new:
            assert digest(project.output) == new
        assert "Traceback" not in done.err
        if number == signal.SIGKILL:
            after = server().run("small.yaml", cwd=project.folder)
            removed = f"T2T806: removed {left[0]}, left by process " if left else ""
            assert (after.code, removed in after.err, "T2T806" in after.err) == (0, True, bool(left))
            assert digest(project.output) == new
            assert not [name for name in project.listing() if name.endswith(".tmp")]
        found.append((done, is_new, left))
    assert digest(older) == old
    return found


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def interrupted(folder: Path) -> None:
    found = trials(small(folder, LARGE), signal.SIGINT)

    for done, is_new, left in found:
        assert done.code in {0, 130}
        assert left == [], done
        assert is_new or done.code == 130
        assert done.code == 0 or done.err.endswith("t2t: interrupted; no file is half written\n")
    assert sum(done.code == 130 for done, _, _ in found) > 5


def terminated(folder: Path) -> None:
    """Before t2t has begun, SIGTERM ends the process as it ends any other."""
    found = trials(small(folder, LARGE), signal.SIGTERM)

    for done, is_new, left in found:
        assert done.code in {0, 143, -signal.SIGTERM}
        assert left == [], done
        assert is_new or done.code != 0
        assert done.code != 143 or done.err.endswith("t2t: terminated; no file is half written\n")
    assert sum(done.code == 143 for done, _, _ in found) > 5


def interrupted_in_a_call_of_the_system(folder: Path) -> None:
    """The signal comes while the call runs, and is raised when it has returned: its result is not known yet."""
    project = small(folder)
    for name in ("open", "ftruncate", "pwrite", "fsync", "rename"):
        api.convert("small.yaml", folder / "output")
        before = sorted(os.listdir())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, and_then_interrupt(getattr(os, name)))
            with pytest.raises(KeyboardInterrupt):
                api.convert("small.yaml", folder / "output")

        assert sorted(os.listdir()) == before, name
        assert load_file("output").keys() == project.state.keys()


def and_then_interrupt(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call; on the temporary file, Ctrl-C comes while it runs."""

    def wrapped(first: Any, *more: Any, **named: Any) -> Any:
        is_ours = ".tmp" in (os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first))
        result = call(first, *more, **named)
        if is_ours:
            signal.raise_signal(signal.SIGINT)
        return result

    return wrapped


def interrupted_while_importing(folder: Path) -> None:
    """Ctrl-C while the model is imported, and while t2t itself is."""
    project = small(folder)
    (folder / "small.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n{(folder / 'small.py').read_text()}"
    )
    before = project.listing()
    while_t2t_is = textwrap.dedent("""
        import sys

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "numpy":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Interrupting())
        import t2t.__main__
        sys.argv = ["t2t", "small.yaml"]
        sys.exit(t2t.__main__.main())
    """)

    done = server().run("small.yaml", cwd=folder)
    refused(done, 130, "t2t: interrupted; no file is half written", project, before)
    done = python("-c", while_t2t_is, cwd=folder)
    assert (done.code, done.out, done.err, project.listing()) == (130, "", "", before)


def killed(folder: Path) -> None:
    found = trials(small(folder, LARGE), signal.SIGKILL)

    assert sum(done.code == -signal.SIGKILL for done, _, _ in found) > 5
    assert any(left for _, _, left in found), "no moment fell inside the writing: nothing was tested"


def nobody_reads_the_output(folder: Path) -> None:
    """A reader that has gone, before and after the first line: the end is quiet, whatever was to be said."""
    small(folder)
    (folder / "bad.yaml").write_text("t2t: 2\n")
    for arguments in (["inspect", "small.ckpt"], ["check", "small.yaml"], ["bad.yaml"], ["small.yaml"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        done = t2t(*arguments, cwd=folder, stdout=write)
        os.close(write)

        assert (done.code, done.err.replace("note: T2T700 importing small:Small\n", "")) == (141, ""), arguments


def closed_streams(folder: Path) -> None:
    """What a caller closed stays closed; no file that is written gets its number."""
    for streams in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        project = small(folder)
        done = t2t("small.yaml", cwd=folder, before=["sh", "-c", f'exec "$@" {streams}', "sh"])

        assert done.code == 0, streams
        assert "T2T700" not in done.out
        assert "wrote" not in done.err
        written = load_file(project.output)
        assert all(np.array_equal(written[name], array) for name, array in project.state.items())
        project.output.unlink()


def a_full_standard_output(folder: Path) -> None:
    """What was to be said is lost, and the status says so."""
    small(folder)
    with open(full_device(folder), "wb") as full:
        done = t2t("inspect", "small.ckpt", cwd=folder, stdout=full)

    assert (done.code, done.err) == (3, "t2t: standard output cannot be written: No space left on device\n")


def plain_terminals_and_locales(folder: Path) -> None:
    """Names beyond the encoding of the terminal are escaped; TERM=dumb and LANG=C are places like any other."""
    small(folder)
    store(folder, {"größe/[0]/kernel": np.zeros(2, np.float32)})
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb"}

    done = t2t("inspect", "small.ckpt", cwd=folder, env=ascii_only)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split(maxsplit=1) == ["gr\\xf6\\xdfe/[0]/kernel", "float32  [2]           2   8 B"]


def two_runs_at_once(folder: Path) -> None:
    """Whoever is last wins; the file is whole, and nobody takes the other's temporary file for a dead process's."""
    project = small(folder)
    for _ in range(10):
        for done in server().together(*[Trial(["small.yaml"], folder)] * 3):
            assert (done.code, done.err) == (0, "note: T2T700 importing small:Small\n")
        written = load_file(project.output)
        assert all(np.array_equal(written[name], array) for name, array in project.state.items())
        assert not [name for name in project.listing() if name.endswith(".tmp")]


# --- 101-110: the output ---


def no_place_for_the_output(folder: Path) -> None:
    """The place is tried before any variable is read: the checkpoint is damaged, and that is not what is told."""
    project = small(folder)
    project.data.write_bytes(bytes(project.data.stat().st_size))
    (folder / "file").write_text("not a directory")
    long = "x" * 300
    before = project.listing()
    reasons = {
        "missing/out.safetensors": "T2T802: cannot be written: No such file or directory; make its directory first",
        "file/out.safetensors": "T2T802: cannot be written: Not a directory; its directory is a file",
        long: "T2T802: cannot be written: File name too long; choose a shorter name",
    }
    for place, reason in reasons.items():
        done = server().run("small.yaml", "-o", place, cwd=folder)

        refused(done, 3, f"{place}: {reason}", project, before)


def a_directory_that_may_not_be_written(folder: Path) -> None:
    """Whoever is root first gives up the right to write everywhere."""
    project = small(folder)
    closed = folder / "closed"
    closed.mkdir()
    shutil.copy(folder / "small.yaml", closed / "old.safetensors")
    (closed / "old.safetensors").chmod(0)
    closed.chmod(0o500)
    before = project.listing()
    drop = "-dac_override,-dac_read_search"
    powerless: list[str] = []
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv to give that up with")
        powerless = ["setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}"]
    for place in ("closed/new.safetensors", "closed/old.safetensors"):
        done = t2t("small.yaml", "-o", place, cwd=folder, before=powerless)

        reason = "T2T802: cannot be written: Permission denied; choose another place"
        refused(done, 3, f"{place}: {reason}", project, before)
    closed.chmod(0o700)


def a_file_that_stands_there(folder: Path) -> None:
    """A file of ours is replaced, any other only with --force; its mode is that of a new file."""
    project = small(folder)
    project.output.write_text("somebody's work")
    before = project.listing()

    done = server().run("small.yaml", cwd=folder)

    reason = "a file that t2t did not write stands there; give --force to replace it, or choose another place"
    refused(done, 3, f"small.safetensors: T2T801: {reason}", project, before)
    assert project.output.read_text() == "somebody's work"
    for umask, flags in ((0o022, ["--force"]), (0o027, []), (0o077, []), (0, [])):
        project.output.chmod(0o600)
        assert server().run("small.yaml", *flags, cwd=folder, umask=umask).code == 0
        assert stat.S_IMODE(project.output.stat().st_mode) == 0o666 & ~umask
    assert project.listing() == before


def a_symbolic_link(folder: Path) -> None:
    """What it points to is replaced, or made; the link stays."""
    project = small(folder)
    (folder / "elsewhere").mkdir()
    for real in ("elsewhere/real.safetensors", "elsewhere/new.safetensors"):
        project.output.unlink(missing_ok=True)
        project.output.symlink_to(real)
        for _ in range(2):
            assert server().run("small.yaml", cwd=folder).code == 0
        assert os.readlink(project.output) == real
        assert not (folder / real).is_symlink()
        assert load_file(folder / real).keys() == project.state.keys()
    project.output.unlink()
    project.output.symlink_to("small.safetensors")
    before = project.listing()
    done = server().run("small.yaml", cwd=folder)

    reason = "T2T802: cannot be written: Too many levels of symbolic links; nothing was written"
    refused(done, 3, f"small.safetensors: {reason}", project, before)


def what_is_no_file(folder: Path) -> None:
    project = small(folder)
    os.mkfifo(folder / "fifo")
    (folder / "directory").mkdir()
    device = full_device(folder)
    before = project.listing()
    other = "something that is not a regular file"
    reasons = {device: other, "fifo": other, "directory": "a directory"}
    for place, what in reasons.items():
        done = server().run("small.yaml", "--force", "-o", place, cwd=folder)

        refused(done, 3, f"{place}: T2T801: {what} stands there; name a file", project, before)


def no_space(folder: Path) -> None:
    """A limit on the size of files stands in for a full disk; a disk that is too small is seen beforehand."""
    project = small(folder, (512, 512))
    assert server().run("small.yaml", cwd=folder).code == 0
    project.edit("t2t: 1", "# changed\nt2t: 1")
    old, before = project.output.read_bytes(), project.listing()

    for limit in (0, 100, len(old) - 1):
        done = server().run("small.yaml", cwd=folder, limits={"fsize": max(limit, 4096)})

        reason = "T2T803: no space: File too large; nothing was written"
        refused(done, 3, f"small.safetensors: {reason}", project, before)
        assert project.output.read_bytes() == old
    message = problem_of(lambda: atomic.replacing("x", 2**62, lambda path: True).__enter__())
    assert re.fullmatch(
        rf"x: T2T803: no space: the file needs {2**62} bytes, \d+ are free; free some, or choose another place",
        message,
    )
    assert project.listing() == before
    assert server().run("small.yaml", cwd=folder, limits={"fsize": len(old)}).code == 0
    assert project.output.read_bytes() != old


def an_output_that_is_an_input(folder: Path) -> None:
    """By its own name, by a link, by another way to write it; --force or not."""
    project = small(folder)
    (folder / "link").symlink_to(project.data.name)
    os.link(project.mapping, folder / "hard")
    (folder / "small.ckpt.meta").write_bytes(b"")
    before = project.listing()
    contents = {name: (folder / name).read_bytes() for name in before}
    inputs = {
        project.data.name: f"./{project.data.name}",
        "small.ckpt.index": "small.ckpt.index",
        "small.ckpt.meta": "small.ckpt.meta",
        "small.yaml": "hard",
    }
    for name, place in {**inputs, project.data.name: "link"}.items():
        for flags in ([], ["--force"]):
            done = server().run("small.yaml", *flags, "-o", place, cwd=folder)

            line = f"T2T001 the output {place} is an input: {name}; choose another output with -o"
            refused(done, 2, line, project, before)
    assert {name: (folder / name).read_bytes() for name in before} == contents


def what_the_format_cannot_hold(folder: Path) -> None:
    """Before anything is written: a name that the format keeps for itself, a dtype, a header over its limit."""
    project = small(folder)
    project.mapping.write_text(
        "t2t: 1\nmodel: small:Small\nsource: {checkpoint: small.ckpt}\nmap:\n- {tf: v, torch: NAME}\n"
    )
    refusals = {
        ("__metadata__", "float32"): ("safetensors cannot hold a tensor named '__metadata__'; rename it in the module"),
        ("v", "complex128"): "v: safetensors cannot hold complex128; leave it out of the module, or cast it",
    }
    for (name, dtype), reason in refusals.items():
        (folder / "small.py").write_text(BUFFER.format(name=name, dtype=dtype))
        number = {"float32": 1, "complex128": 18}[dtype]
        bundle(folder / "small.ckpt", {"v": Tensor(number, (3,), bytes(3 * np.dtype(dtype).itemsize))})
        text = project.mapping.read_text()
        project.mapping.write_text(text.replace("NAME", name))
        before = project.listing()
        done = server().run("small.yaml", cwd=folder)
        project.mapping.write_text(text)

        refused(done, 3, f"small.safetensors: T2T804: {reason}", project, before)
    before = project.listing()
    long = [Entry("x" * 1000, "float32", (1,))]
    assert safetensors.MAX_HEADER == 100_000_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors, "MAX_HEADER", 1000)
        message = problem_of(lambda: safetensors.write("long.safetensors", long, {}, lambda room: ()))

    assert message == "long.safetensors: T2T804: the header has 1072 bytes, safetensors allows 1000"
    assert project.listing() == before


def a_disk_that_gives_back_something_else(folder: Path) -> None:
    """One bit of what was written changes, before the file is read back."""
    project = small(folder)
    api.convert("small.yaml")
    old, before = project.output.read_bytes(), project.listing()

    def flip_and_sync(fd: int) -> None:
        length = int.from_bytes(os.pread(fd, 8, 0), "little")
        # Behind the header lie the 12 bytes of layers.0.bias, then layers.0.weight.
        (byte,) = os.pread(fd, 1, 8 + length + 12)
        os.pwrite(fd, bytes([byte ^ 1]), 8 + length + 12)
        patch.undo()
        os.fsync(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", flip_and_sync)
        message = problem_of(lambda: api.convert("small.yaml"))

    assert message.startswith("small.safetensors: T2T805: layers.0.weight reads back as ('F32', [3, 4]) with checksum ")
    assert ", written was ('F32', [3, 4]) with " in message
    assert message.endswith("; the disk may be failing")
    assert project.output.read_bytes() == old
    assert project.listing() == before


def the_same_bytes_everywhere(folder: Path) -> None:
    """Whatever the seed of Python's hashes, the locale, the current directory and the time zone are."""
    project = small(folder, (7, 5, 3, 2))
    (folder / "below").mkdir()
    places = [
        (folder, "small.yaml", {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0"}),
        (folder / "below", "../small.yaml", {"PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}),
    ]
    written = []
    for cwd, mapping, env in places:
        done = t2t(mapping, "-o", "out.safetensors", cwd=cwd, env={**env, "PYTHONPATH": path_with(folder)})
        assert (done.code, done.out[-6:]) == (0, "ction\n"), done
        written.append((cwd / "out.safetensors").read_bytes())

    assert written[0] == written[1]
    again = server().run("small.yaml", cwd=folder)
    assert (again.code, project.output.read_bytes()) == (0, written[0])


def path_with(folder: Path) -> str:
    """PYTHONPATH with this folder in front of what is there."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def transposed_and_tied_results(folder: Path) -> None:
    """Views and shared storage never reach the file: what is written is C order, and tied names are both there."""
    project = small(folder, (5, 4, 5))
    (folder / "small.py").write_text(f"{(folder / 'small.py').read_text()}        self.again = self.layers[0]\n")
    rows = "- {torch: again.weight, tie: layers.0.weight}\n- {torch: again.bias, tie: layers.0.bias}\n"
    project.mapping.write_text(project.mapping.read_text() + rows)

    assert server().run("small.yaml", cwd=folder).code == 0

    written = load_file(project.output)
    first = {f"again.{name}": project.state[f"layers.0.{name}"] for name in ("weight", "bias")}
    expected = {**project.state, **first}
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(written[name], array), name
        assert written[name].flags.c_contiguous, name


def nothing_to_convert(folder: Path) -> None:
    project = small(folder, (4, 2))
    ignored = "ignore: [{tf: '**', why: a test}]\n"
    header = project.mapping.read_text().partition("map:")[0]
    before = project.listing()
    fills = "map:\n- {torch: layers.0.weight, fill: 0}\n- {torch: layers.0.bias, fill: 0}\n"
    lines = {
        fills: "5:1: T2T209 no row reads a variable of the checkpoint; write a row with tf and torch",
        "map: []\n": "5:6: T2T106 map: expected a list of 1 or more, got a list of 0",
    }
    for rows, line in lines.items():
        project.mapping.write_text(header + rows + ignored)
        done = server().run("small.yaml", cwd=folder)

        assert done.code == 1
        assert f"small.yaml:{line}" in done.out.splitlines()
        assert project.listing() == before


FAULTS: dict[int, tuple[Callable[[Path], None], ...]] = {
    60: (a_checkpoint_rewritten_while_it_is_read, a_checkpoint_replaced_while_it_is_read),
    61: (a_data_file_truncated_while_it_is_read,),
    62: (a_data_file_deleted_while_it_is_open, an_input_error_in_the_middle),
    63: (not_enough_memory,),
    64: (peak_memory,),
    65: (five_thousand_shards,),
    66: (interrupted, terminated, interrupted_in_a_call_of_the_system, interrupted_while_importing),
    67: (killed,),
    68: (nobody_reads_the_output, closed_streams, a_full_standard_output, plain_terminals_and_locales),
    69: (two_runs_at_once,),
    101: (no_place_for_the_output, a_directory_that_may_not_be_written),
    102: (a_file_that_stands_there,),
    103: (a_symbolic_link, what_is_no_file),
    104: (no_space,),
    105: (an_output_that_is_an_input,),
    106: (what_the_format_cannot_hold,),
    107: (a_disk_that_gives_back_something_else,),
    108: (the_same_bytes_everywhere,),
    109: (transposed_and_tied_results,),
    110: (nothing_to_convert,),
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=f"{number:03}") for number, steps in FAULTS.items()])
def test_fault(steps: Sequence[Callable[[Path], None]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one of them, each in a folder of its own, with the module imported anew."""
    for step in steps:
        own = folder / step.__name__
        own.mkdir()
        monkeypatch.chdir(own)
        sys.modules.pop("small", None)
        step(own)
        shutil.rmtree(own)
