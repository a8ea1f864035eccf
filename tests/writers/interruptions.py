"""What signals leave of an output, at moments spread over the time that a conversion takes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.commands import Done, Project, server, small, store

Loaded = Mapping[str, np.ndarray]

#: Layers of a model whose checkpoint has 17 MB: reading, writing and syncing each take a part of the time.
LARGE = (1024,) * 5


def writing(folder: Path, output: str) -> Project:
    """A project whose mapping has this `output` section."""
    project = small(folder, LARGE)
    project.edit("map:", f"output: {output}\nmap:")
    return project


def trials(
    project: Project, number: signal.Signals, load: Callable[[], Loaded | None], count: int
) -> list[tuple[Done, str]]:
    """
    `count` conversions over an older output with other values; each gets a signal, at another moment.

    For each: how it ended, and what can be loaded then: "old", "new" or "none". Anything else, a mixture of the two
    among it, is an error, and so is a temporary file that is left; a killed run may leave one, which the next removes.
    """
    new = project.state
    old = {name: values + 1 for name, values in new.items()}
    run = server().run
    times = [done.seconds for done in (run("small.yaml", cwd=project.folder) for _ in range(3)) if done.code == 0]
    moments = random.Random(0)
    found = []
    for step in range(count):
        checkpoint(project, old)
        assert run("small.yaml", cwd=project.folder).code == 0
        assert what(load(), {"old": old}) == "old"
        checkpoint(project, new)
        delay = min(times) * (step + moments.random()) / count
        done = run("small.yaml", cwd=project.folder, signal=number, delay=delay)
        state = what(load(), {"old": old, "new": new})
        left = [name for name in project.listing() if ".tmp" in name]
        assert "Traceback" not in done.err
        if number == signal.SIGKILL:
            after = run("small.yaml", cwd=project.folder)
            assert (after.code, "T2T806: removed .small" in after.err) == (0, bool(left)), after
            assert what(load(), {"new": new}) == "new"
        else:
            assert left == []
        assert [name for name in project.listing() if ".tmp" in name] == []
        found.append((done, state))
    return found


def checkpoint(project: Project, state: Loaded) -> None:
    """A checkpoint that is converted to this state."""
    kinds = {"weight": "kernel", "bias": "bias"}
    variables = {}
    for name, values in state.items():
        _, number, kind = name.split(".")
        variables[f"dense_{number}/{kinds[kind]}"] = np.ascontiguousarray(values.T)
    store(project.folder, variables)


def what(loaded: Loaded | None, known: Mapping[str, Loaded]) -> str:
    """Which of the known states was loaded; "none" where there was nothing."""
    if loaded is None:
        return "none"
    same = [
        kind
        for kind, state in known.items()
        if loaded.keys() == state.keys() and all(np.array_equal(loaded[name], state[name]) for name in state)
    ]
    assert len(same) == 1, "neither the one output nor the other"
    return same[0]
