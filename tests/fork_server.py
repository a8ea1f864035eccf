"""
Runs t2t in forks of one process that has imported everything: a trial takes milliseconds, an import takes seconds.

Each line on stdin is a list of trials, which run at the same time; each line on stdout has their [exit code, seconds].
`tests/commands.py` is the other side.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any

import t2t.__main__
import t2t.api
import t2t.cli
import t2t.execute
import t2t.module
import t2t.proof.compare
import t2t.proof.recording
import t2t.writers.safetensors

LIMITS = {"fsize": resource.RLIMIT_FSIZE, "nofile": resource.RLIMIT_NOFILE, "as": resource.RLIMIT_AS}


def fork(trial: dict[str, Any]) -> int:
    """Starts one trial and gives its process id, as soon as it is about to call `main`."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        return pid
    status = 99
    os.close(ready)
    try:
        for fd, path in ((1, trial["out"]), (2, trial["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
        os.chdir(trial["cwd"])
        os.umask(trial["umask"])
        for name, limit in trial["limits"].items():
            # Memory is what the trial may have beyond what importing took.
            value = limit + _address_space() if name == "as" else limit
            resource.setrlimit(LIMITS[name], (value, value))
        sys.argv = ["t2t", *trial["arguments"]]
        os.close(tell)
        status = t2t.__main__.main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the command ends with a status, whatever happens; this is a fault to be shown
        traceback.print_exc()
    finally:
        os._exit(status)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        trials = json.loads(line)
        pids = [fork(trial) for trial in trials]
        start = time.monotonic()
        for pid, trial in zip(pids, trials, strict=True):
            if trial["signal"]:
                time.sleep(max(0.0, trial["delay"] - (time.monotonic() - start)))
                os.kill(pid, trial["signal"])
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps([[code, time.monotonic() - start] for code in codes]), file=answers, flush=True)


if __name__ == "__main__":
    serve()
