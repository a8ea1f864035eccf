"""
Coverage-guided fuzzing of one target, or of all in turn, with atheris.

    python -m tests.fuzzing.run index --seconds 600
    python -m tests.fuzzing.run all --seconds 36000 --turn 120

Each target runs in a process of its own with bounded memory, in turns; what it learnt goes to FOLDER/corpus/TARGET, an
input that shows a bug to FOLDER/findings, and what was done so far to FOLDER/summary.txt. The exit status is 1 when
there is a finding.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

SEEDS = Path(__file__).with_name("corpus")
#: Seconds of processor time after which an input is a finding, and bytes of address space that a target may have.
MAX_SECONDS = 2.0
MAX_MEMORY = 2**30
MAX_INPUT = 16_384

#: These run libhdf5, which does not survive every file or comes to no end; t2t has it in a process of its own. Their
#: deaths are counted, and the inputs kept in FOLDER/library.
IN_A_LIBRARY = {"hdf5", "keras_archive"}
#: What a process ends with when a signal ended it, libFuzzer ended it after too long, or after a fatal signal.
DIED = {-signal.SIGKILL, 70, 77}
MAX_DEATHS = 50
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

_EXECUTIONS = re.compile(rb"number_of_executed_units: (\d+)")
_PROGRESS = re.compile(rb"^#(\d+)\s", re.MULTILINE)


def main() -> int:
    """Takes turns until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing.run", description=__doc__.splitlines()[1])
    parser.add_argument("target", help="a key of targets.TARGETS, or all")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--turn", type=int, default=120, help="seconds for one target before the next")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "t2t-fuzz"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        fuzz(options.target, options.folder, options.seconds)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "summary.json"
    totals: dict[str, dict[str, float]] = json.loads(record.read_text()) if record.exists() else {}
    end = time.monotonic() + options.seconds
    while (left := end - time.monotonic()) > 1:
        for target in _targets() if options.target == "all" else [options.target]:
            turn(target, options.folder, int(min(options.turn, max(left, 1))), totals)
            record.write_text(json.dumps(totals))
            (options.folder / "summary.txt").write_text(summary(totals, options.folder))
    sys.stdout.write(summary(totals, options.folder))
    return 1 if list((options.folder / "findings").iterdir()) else 0


def _targets() -> list[str]:
    # In a process of its own: what is fuzzed may change between two turns.
    code = "from tests.fuzzing.targets import TARGETS; print(*TARGETS)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        time.sleep(10)
    return found.stdout.split()


def turn(target: str, folder: Path, seconds: int, totals: dict[str, dict[str, float]]) -> None:
    """One target for some time; adds to its totals. A process that ends before the time is followed by another."""
    (folder / "findings").mkdir(exist_ok=True)
    total = totals.setdefault(target, dict.fromkeys(("executions", "seconds", "deaths"), 0))
    log = folder / f"{target}.log"
    start = time.monotonic()
    for _ in range(MAX_DEATHS):
        left = int(seconds - (time.monotonic() - start))
        if left < 1:
            break
        # libFuzzer ends its process without any cleaning up.
        with log.open("ab") as out, tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="t2t-fuzz-") as scratch:
            began = out.tell()
            command = [sys.executable, "-m", "tests.fuzzing.run", target, "--inside", "--seconds", str(left)]
            process = subprocess.Popen(
                [*command, "--folder", str(folder)],
                stdout=out,
                stderr=out,
                env={**os.environ, "TMPDIR": scratch},
                start_new_session=True,
            )
            try:
                code = process.wait(left + 120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
        with log.open("rb") as file:
            file.seek(began)
            said = file.read()
        count = [int(number) for number in (_EXECUTIONS.findall(said) or _PROGRESS.findall(said) or [b"0"])]
        total["executions"] += count[-1]
        if code == 0:
            break
        total["deaths"] += 1
        if target not in IN_A_LIBRARY or code not in DIED:
            (folder / "findings" / f"{target}-status{code}-{time.time_ns()}.txt").write_bytes(said[-20_000:])
    total["seconds"] += time.monotonic() - start


def summary(totals: dict[str, dict[str, float]], folder: Path) -> str:
    """Executions, seconds and findings of each target."""
    lines = [f"{'target':<14}{'executions':>12}{'seconds':>10}{'per second':>12}{'deaths':>8}{'findings':>10}"]
    for target, total in totals.items():
        findings = len(list((folder / "findings").glob(f"{target}-*.txt")))
        rate = total["executions"] / max(total["seconds"], 1)
        lines.append(
            f"{target:<14}{total['executions']:>12,.0f}{total['seconds']:>10,.0f}{rate:>12,.0f}"
            f"{total['deaths']:>8.0f}{findings:>10}"
        )
    lines.append(f"{'all':<14}{sum(total['executions'] for total in totals.values()):>12,.0f}")
    return "\n".join(lines) + "\n"


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Runs one target in this process until the time is over. Findings are kept, and it goes on."""
    import atheris

    with atheris.instrument_imports(include=["t2t"]):
        from tests.fuzzing import mutating, targets

        target = targets.TARGETS[name]
        scratch = Path(tempfile.mkdtemp())
        target(b"", scratch)  # what it imports when it is first called
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    findings = folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    died = folder / ("library" if name in IN_A_LIBRARY else "findings")
    died.mkdir(exist_ok=True)
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    (SEEDS / name).mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        start = time.process_time()
        try:
            target(data, scratch)
        except Exception as error:  # noqa: BLE001 - every one is a finding
            keep(data, error)
        took = time.process_time() - start
        if took > MAX_SECONDS:
            keep(data, TimeoutError(f"{took:.1f} s of processor time"))

    def keep(data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = [f"{Path(frame.filename).name}:{frame.name}:{frame.line}" for frame in frames[-3:]]
        digest = hashlib.sha256("\n".join([type(error).__name__, *place]).encode()).hexdigest()[:12]
        path = findings / f"{name}-{digest}"
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(
                "".join(traceback.format_exception(error))[-20_000:], errors="backslashreplace"
            )

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)

        def noise(part: bytes) -> bytes:
            if random.random() < 0.5:
                return mutating.edited(part, random)
            return bytes(atheris.Mutate(part or b"\0", max(len(part) + 64, 1)))

        return mutating.mutated(name, data, random, noise)[:max_size]

    arguments: list[Any] = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-timeout={5 if name in IN_A_LIBRARY else 30}",
        "-rss_limit_mb=800",
        "-print_final_stats=1",
        "-len_control=0",
        f"-artifact_prefix={died}/{name}-died-",
        str(corpus),
        str(SEEDS / name),
    ]
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
