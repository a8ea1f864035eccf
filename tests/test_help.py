"""`t2t --help` and `t2t help`: what there is, on one screen; what a code means; a command's flags."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from t2t.commands import COMMANDS
from t2t.problems import CODES
from tests.commands import ENVIRONMENT, Done, server

#: A terminal of the usual size, of which the shell's prompt takes the last line.
COLUMNS, LINES = 80, 24

HELP = """\
usage: t2t [-h] [--version] COMMAND ...

Gets weights out of TensorFlow into PyTorch by a mapping file, and proves it.

at first:
  inspect     list a checkpoint's variables
  check       find everything that can be known to be wrong without the weights
  record      run the original in TensorFlow and store its inputs and outputs
  convert     convert a checkpoint, prove the result, and write it
  verify      compare the torch module with the recording
and then:
"""


def help_of(*arguments: str, cwd: Path) -> Done:
    done = server().run(*arguments, cwd=cwd)
    assert (done.code, done.err) == (0, "")
    return done


def test_help_is_one_screen_and_shows_a_first_day_first(tmp_path: Path) -> None:
    out = help_of("--help", cwd=tmp_path).out
    lines = out.splitlines()

    assert out.startswith(HELP)
    assert len(lines) < LINES
    assert max(map(len, lines)) < COLUMNS
    assert lines[-2:] == [
        "",
        "t2t help COMMAND, or CODE, says more. A mapping alone is converted: t2t m.yaml",
    ]
    assert help_of("-h", cwd=tmp_path).out == out
    assert help_of("help", cwd=tmp_path).out == out


def test_on_a_terminal_of_that_size_nothing_is_broken_or_scrolls_away(tmp_path: Path) -> None:
    """The real thing, on a terminal of its own: as many lines, and none is wrapped."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "t2t", "--help"], stdout=theirs, cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120
    )
    os.close(theirs)
    seen = b""
    while b"converted: t2t m.yaml" not in seen:
        seen += os.read(ours, 2**16)
    os.close(ours)

    assert done.returncode == 0
    lines = seen.decode().replace("\r\n", "\n").splitlines()
    assert len(lines) < LINES
    assert max(map(len, lines)) < COLUMNS


def test_every_command_is_in_help_once_with_a_line_of_its_own(tmp_path: Path) -> None:
    lines = help_of("--help", cwd=tmp_path).out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]

    assert sorted(listed) == sorted(COMMANDS)
    told = json.loads(help_of("help", "--format", "json", cwd=tmp_path).out)
    assert sorted(told["commands"]) == sorted(COMMANDS)
    assert told["codes"] == CODES
    for name, about in told["commands"].items():
        assert f"  {name:12}{about}" in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_its_own_help(command: str, tmp_path: Path) -> None:
    done = help_of("help", command, cwd=tmp_path)

    assert done.out == help_of(command, "--help", cwd=tmp_path).out
    assert done.out.startswith(f"usage: t2t {command} [-h]")
    assert max(map(len, done.out.splitlines())) <= COLUMNS


@pytest.mark.parametrize("name", ["T2T305", "t2t305", "305"])
def test_help_explains_a_code_with_a_wrong_and_a_right_example(name: str, tmp_path: Path) -> None:
    assert help_of("help", name, cwd=tmp_path).out == (
        "T2T305: no axes on a variable of rank 2 or more\n"
        "Shapes (exit 1)\n"
        "\n"
        "A square matrix fits either way. So a variable of two axes or more says how they move, "
        "even where they don't.\n"
        "\n"
        "Variables: `dense/kernel` float32 [3, 3]. Parameters: `weight` float32 [3, 3].\n"
        "\n"
        "wrong:\n"
        "    - {tf: dense/kernel, torch: weight}\n"
        "\n"
        "right:\n"
        "    - {tf: dense/kernel, torch: weight, axes: i o -> o i}\n"
    )


def test_a_code_for_programs_has_the_same(tmp_path: Path) -> None:
    assert json.loads(help_of("help", "T2T107", "--format", "json", cwd=tmp_path).out) == {
        "code": "T2T107",
        "meaning": "an unknown version of the language",
        "area": "The file (exit 1)",
        "text": "There is one version, 1. Files of a later one are not guessed at.",
        "language": "yaml",
        "wrong": "t2t: 2\n",
        "right": "t2t: 1\n",
    }


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("T2T350", "T2T001 there is no code and no command T2T350; did you mean T2T310, T2T309, T2T308\n"),
        ("299", "T2T001 there is no code and no command 299; did you mean T2T215, T2T214, T2T213\n"),
        (
            "T2T1000",
            "T2T001 there is no code and no command T2T1000; t2t help lists the commands\n",
        ),
        ("chekc", "T2T001 there is no code and no command chekc; did you mean check\n"),
        (
            "\x1b[31m",
            "T2T001 there is no code and no command \\x1b[31m; t2t help lists the commands\n",
        ),
    ],
)
def test_what_is_neither_is_a_usage_error_that_names_the_nearest(topic: str, said: str, tmp_path: Path) -> None:
    done = server().run("help", topic, cwd=tmp_path)

    assert (done.code, done.out, done.err) == (2, "", said)
