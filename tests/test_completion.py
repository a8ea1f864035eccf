"""What the shells themselves offer, by the scripts that `t2t completion` prints."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from t2t import completion
from t2t.commands import COMMANDS
from t2t.problems import CODES
from t2t.recipes import texts
from tests.commands import ENVIRONMENT, server

#: What bash has called for a completion, without a terminal: the words, and the last one is completed.
BASH = """\
set -u
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
_t2t
printf '%s\\n' "${COMPREPLY[@]+"${COMPREPLY[@]}"}"
"""

#: fish completes a line by itself. (Its own folder of settings is not read.)
FISH = "source $argv[1]; complete -C $argv[2]"

#: zsh completes on a terminal alone: one of its own, on which it lists what it would offer.
ZSH = """\
zmodload zsh/zpty
zpty z zsh -f -i
say() { zpty -w z "$1" }
# Reading is what keeps the other side going; a file says when it has done something.
until_there() { local line; until [[ -e $1 ]]; do zpty -r -t z line || sleep 0.02; done }
say "PROMPT= RPS1= ; unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; source $1"
say 'compadd() {
    local -a found; local -A flags
    if [[ ${@[(I)-[OAD]]} -gt 0 || ${@[(I)-[OAD]*]} -gt 0 ]]; then builtin compadd "$@"; return; fi
    builtin compadd -O found "$@"
    local name; for name in $found; do print -r -- "offered:$name" >> $OFFERED; done
    builtin compadd "$@"
}'
say 'offer() { zle complete-word; : > $OFFERED.done }; zle -N offer; bindkey "^I" offer'
say 'zle-line-init() { : > $OFFERED.ready }; zle -N zle-line-init'
until_there $OFFERED.ready
zpty -n -w z "$2"$'\\t'
until_there $OFFERED.done
zpty -d z
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for shell in completion.SHELLS:
        done = server().run("completion", shell, cwd=folder)
        assert (done.code, done.err) == (0, "")
        (folder / f"t2t.{shell}").write_text(done.out)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.yaml", "model.ckpt.index", "my model.yml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "other.yaml").touch()
    return tmp_path


class Shell:
    """One shell: what it offers for the last of some words."""

    def __init__(self, name: str, scripts: Path, folder: Path) -> None:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"{name} is not installed")
        self.name, self.program, self.folder = name, program, folder
        self.script = str(scripts / f"t2t.{name}")

    def offers(self, *words: str) -> set[str]:
        line = " ".join(("t2t", *words))
        if self.name == "bash":
            # bash takes words apart at =, as COMP_WORDBREAKS says.
            words = tuple(part for word in words for part in re.split("(?<=.)(=)", word) if part or not word)
            return set(self._run("-c", BASH, "bash", self.script, "t2t", *words).splitlines()) - {""}
        if self.name == "fish":
            found = self._run("--no-config", "-c", FISH, self.script, line)
            # A flag's value comes with its flag, a folder with its slash.
            offers = {offer.partition("\t")[0] for offer in found.splitlines()}
            return {offer.rpartition("=")[2].removesuffix("/") for offer in offers}
        offered = self.folder / ".offered"
        offered.write_text("")
        for state in ("ready", "done"):
            self.folder.joinpath(f".offered.{state}").unlink(missing_ok=True)
        self._run("-f", "-c", ZSH, "zsh", self.script, line, OFFERED=str(offered))
        return {line.removeprefix("offered:").replace("\\ ", " ") for line in offered.read_text().splitlines()}

    def _run(self, *arguments: str, **more: str) -> str:
        environment = {**ENVIRONMENT, **more, "TERM": "dumb", "HOME": str(self.folder)}
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


MAPPINGS = {"model.yaml", "my model.yml", "mappings"}
FILES = MAPPINGS | {"notes.txt", "model.ckpt.index"}

#: Words, what is offered for the last one, and what is not.
CASES: dict[tuple[str, ...], tuple[set[str], set[str]]] = {
    ("",): ({*COMMANDS, *MAPPINGS}, {"--format"}),
    ("che",): ({"check"}, {"convert", *MAPPINGS}),
    ("-",): ({"--help", "--version"}, {"check"}),
    ("check", ""): (MAPPINGS, set(COMMANDS)),
    ("check", "my"): ({"my model.yml"}, {"model.yaml"}),
    ("check", "model.yaml", ""): (MAPPINGS, set(COMMANDS)),
    ("check", "--"): ({"--format", "--strict", "--checkpoint"}, {"--reader", "--device"}),
    ("check", "--format", ""): ({"full", "concise", "json"}, FILES),
    ("check", "--format", "j"): ({"json"}, {"full"}),
    ("check", "--format=j"): ({"json"}, {"full"}),
    ("check", "--format", "json", "m"): ({"model.yaml", "mappings"}, {"full", "json"}),
    ("check", "--checkpoint", ""): (FILES, set(COMMANDS)),
    ("inspect", ""): (FILES, set(COMMANDS)),
    ("convert", "model.yaml", "--reader", ""): ({"t2t", "tensorflow"}, FILES),
    ("model.yaml", "--re"): ({"--reader", "--recording"}, {"--format"}),
    ("record", "model.yaml", "--timeout", ""): (set(), FILES),
    ("verify", "--dtype", "b"): ({"bfloat16"}, {"float32"}),
    ("recipes", "conv2d"): ({name for name in texts() if name.startswith("conv2d")}, {"dense"}),
    ("help", "T2T60"): ({code for code in CODES if code.startswith("T2T60")}, {"T2T101", "check"}),
    ("help", "re"): ({"recipes", "record"}, {"check"}),
    ("completion", ""): (set(completion.SHELLS), FILES),
}


@pytest.fixture(params=sorted(completion.SHELLS))
def shell(request: pytest.FixtureRequest, scripts: Path, folder: Path) -> Shell:
    return Shell(request.param, scripts, folder)


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_a_shell_offers_what_can_stand_there(words: tuple[str, ...], shell: Shell) -> None:
    offered, not_offered = CASES[words]
    found = shell.offers(*words)

    assert offered - found == set()
    assert found & not_offered == set()


def test_files_in_folders_are_offered(shell: Shell) -> None:
    assert "other.yaml" in {Path(offer).name for offer in shell.offers("check", "mappings/o")}


def parser() -> argparse.ArgumentParser:
    """Of a program that grows: a command, its flags and choices; with words that a shell would read otherwise."""
    made = argparse.ArgumentParser(prog="t2t")
    added = made.add_subparsers(dest="command").add_parser("weigh", help='it\'s [done]: `rm` $(rm) \\ "100%%"')
    added.add_argument("what", metavar="FILE")
    added.add_argument("--unit", choices=("kg", "lb"), help="it's [one]: of `rm` $(rm) \\ %(choices)s, 100%%")
    added.add_argument("-n", "--number", metavar="N")
    return made


@pytest.mark.parametrize("name", sorted(completion.SHELLS))
def test_a_command_and_its_flags_appear_by_themselves(name: str, folder: Path) -> None:
    found = completion.commands(parser(), {})
    text = "\n".join(completion.script(name, found)) + "\n"
    (folder / f"t2t.{name}").write_text(text)
    shell = Shell(name, folder, folder)

    assert found[0].flags[1].about == "it's [one]: of `rm` $(rm) \\ kg, lb, 100%"
    assert "weigh" in shell.offers("w")
    assert {"--unit", "--number"} <= shell.offers("weigh", "--")
    assert shell.offers("weigh", "--unit", "") == {"kg", "lb"}
    assert shell.offers("weigh", "") >= FILES


def test_the_script_is_the_same_in_every_format(tmp_path: Path) -> None:
    """A shell evaluates it, whatever T2T_FORMAT says."""
    plain = server().run("completion", "bash", cwd=tmp_path)

    assert server().run("completion", "bash", "--format", "json", cwd=tmp_path).out == plain.out
    assert server().run("completion", "bash", "--format", "github", cwd=tmp_path).out == plain.out


def test_another_shell_is_a_usage_error(tmp_path: Path) -> None:
    done = server().run("completion", "tcsh", cwd=tmp_path)

    assert (done.code, done.out) == (2, "")
    said = done.err.replace("'", "")  # newer Pythons quote no choices
    assert said.endswith("argument SHELL: invalid choice: tcsh (choose from bash, zsh, fish)\n")
