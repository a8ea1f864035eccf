"""
Completion for shells: the parser's commands, flags and choices, as a script that bash, zsh or fish reads.

The three scripts are made from one list. What a value may be is told by its choices or by its metavar.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

#: Values that are names of files, by metavar: how they end. Of others nothing is known.
FILES = {
    **dict.fromkeys(("MAPPING", "PATH", "BASE", "HEAD"), (".yaml", ".yml")),
    **dict.fromkeys(("CHECKPOINT", "FILE"), ("",)),
}


@dataclass(frozen=True, slots=True)
class Value:
    """What can stand there: one of some words, or a file whose name ends so ("" is any); `repeats` if several can."""

    words: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag by all its names; `value` is None where it takes none."""

    names: tuple[str, ...]
    about: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its flags, and what stands beside them, in order."""

    name: str
    about: str
    flags: tuple[Flag, ...]
    values: tuple[Value, ...]


def parsers(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Each command's own parser, and what it does in a line."""
    (group,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    about = {action.dest: action.help or "" for action in group._choices_actions}
    return {name: (own, about[name]) for name, own in group.choices.items()}


def commands(parser: argparse.ArgumentParser, words: Mapping[str, Sequence[str]]) -> tuple[Command, ...]:
    """What the parser takes. `words` are, by metavar, what a value can be where the parser knows no choices."""
    found = []
    for name, (own, about) in parsers(parser).items():
        formatter = own._get_formatter()
        flags = [
            Flag(
                tuple(action.option_strings),
                formatter._expand_help(action) if action.help else "",
                _value(action, words) if action.nargs != 0 else None,
            )
            for action in own._actions
            if action.option_strings
        ]
        values = [_value(action, words) for action in own._actions if not action.option_strings]
        found.append(Command(name, about, tuple(flags), tuple(values)))
    return tuple(found)


def script(shell: str, found: Sequence[Command]) -> list[str]:
    """The script's lines, for one of SHELLS."""
    return list(SHELLS[shell](found))


def _value(action: argparse.Action, words: Mapping[str, Sequence[str]]) -> Value:
    metavar = str(action.metavar or "")
    known = tuple(map(str, action.choices or words.get(metavar, ())))
    return Value(known, FILES.get(metavar, ()), action.nargs in {"*", "+"})


# --- bash ---

_BASH = """\
# Completion of t2t for bash: eval "$(t2t completion bash)"
_t2t() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="" command="" flags="" taking="" at=0 i word line
    COMPREPLY=()
    # bash takes --flag=value apart
    if [[ $current == "=" ]]; then current=""; previous="${COMP_WORDS[COMP_CWORD-1]}"
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == "=" ]]; then previous="${COMP_WORDS[COMP_CWORD-2]}"
    else previous="${COMP_WORDS[COMP_CWORD-1]}"; fi
    if (( COMP_CWORD == 1 )); then
        _t2t_words "COMMANDS -h --help --version"
        if [[ $current != -* ]]; then _t2t_files ENDINGS; fi
        return
    fi
    command="${COMP_WORDS[1]}"
    case " COMMANDS " in *" $command "*) i=2 ;; *) command=convert; i=1 ;; esac
    case "$command" in
TABLE
    esac
    case " $taking " in *" $previous "*) _t2t_value "$command" "$previous"; return ;; esac
    if [[ $current == -* ]]; then _t2t_words "$flags"; return; fi
    for (( ; i < COMP_CWORD; i++ )); do
        word="${COMP_WORDS[i]}"
        if [[ $word == "=" || ${COMP_WORDS[i-1]} == "=" || $word == -* ]]; then continue; fi
        case " $taking " in *" ${COMP_WORDS[i-1]} "*) continue ;; esac
        at=$(( at + 1 ))
    done
    _t2t_value "$command" "$at"
}
_t2t_words() {
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -W "$1" -- "$current")
}
_t2t_files() {
    local ending
    compopt -o filenames 2>/dev/null
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        if [[ -z $1 ]]; then compgen -f -- "$current"; return; fi
        for ending in "$@"; do compgen -f -X "!*$ending" -- "$current"; done
        compgen -d -- "$current"
    )
}
_t2t_value() {
    case "$1 $2" in
VALUES
    esac
}
complete -F _t2t t2t"""


def _bash(found: Sequence[Command]) -> Iterator[str]:
    """Positions of values count from 0; the last one's case has * where it repeats."""
    table, values = [], []
    for command in found:
        flags = " ".join(name for flag in command.flags for name in flag.names)
        taking = " ".join(name for flag in command.flags if flag.value for name in flag.names)
        table.append(f'        {command.name}) flags="{flags}"; taking="{taking}" ;;')
        for flag in command.flags:
            if flag.value and (action := _bash_value(flag.value)):
                values += [f'        "{command.name} {name}") {action} ;;' for name in flag.names]
        for at, value in enumerate(command.values):
            if action := _bash_value(value):
                values.append(f'        "{command.name} "{"[0-9]*" if value.repeats else at}) {action} ;;')
    endings = " ".join(map(_quoted, FILES["MAPPING"]))
    filled = _BASH.replace("COMMANDS", " ".join(command.name for command in found)).replace("ENDINGS", endings)
    yield from filled.replace("TABLE", "\n".join(table)).replace("VALUES", "\n".join(values)).splitlines()


def _bash_value(value: Value) -> str:
    if value.words:
        return f'_t2t_words "{" ".join(value.words)}"'
    return " ".join(["_t2t_files", *map(_quoted, value.endings)]) if value.endings else ""


# --- zsh ---


def _zsh(found: Sequence[Command]) -> Iterator[str]:
    yield "#compdef t2t"
    yield "# Completion of t2t for zsh: source <(t2t completion zsh), after compinit; or as _t2t in a folder of $fpath"
    yield "_t2t() {"
    yield "    local -a names=("
    yield from (f"        {_quoted(f'{command.name}:{command.about}')}" for command in found)
    yield "    )"
    yield "    if (( CURRENT == 2 )); then"
    yield "        if [[ $PREFIX == -* ]]; then compadd -- -h --help --version; return; fi"
    yield "        _describe -t commands command names"
    yield f"        _files -g {_quoted(_zsh_glob(FILES['MAPPING']))}"
    yield "        return"
    yield "    fi"
    yield "    local name=${words[2]}"
    yield "    if [[ -n ${(M)names:#${name}:*} ]]; then"
    yield "        shift words"
    yield "        (( CURRENT-- ))"
    yield "    else"
    yield "        name=convert"
    yield "    fi"
    yield "    case $name in"
    for command in found:
        yield f"        {command.name})"
        specs = [spec for flag in command.flags for spec in _zsh_flag(flag)]
        specs += [f"{'*' if value.repeats else at + 1}:{_zsh_value(value)}" for at, value in enumerate(command.values)]
        yield "            _arguments -S \\"
        yield " \\\n".join(f"                {_quoted(spec)}" for spec in specs)
        yield "            ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _t2t ]]; then _t2t "$@"; else compdef _t2t t2t; fi'


def _zsh_flag(flag: Flag) -> Iterator[str]:
    about = re.sub(r"[\[\]:]", r"\\\g<0>", flag.about)
    for name in flag.names:
        takes = f":{_zsh_value(flag.value)}" if flag.value else ""
        yield f"*{name}{'=' if takes and name.startswith('--') else ''}[{about}]{takes}"


def _zsh_value(value: Value) -> str:
    """What _arguments has after a flag or a position: a message, and an action."""
    if value.words:
        return f"value:({' '.join(value.words)})"
    if value.endings:
        return f'file:_files -g "{_zsh_glob(value.endings)}"' if any(value.endings) else "file:_files"
    return "value: "


def _zsh_glob(endings: Sequence[str]) -> str:
    return f"*({'|'.join(endings)})" if any(endings) else "*"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish ---

_FISH = """\
# Completion of t2t for fish: t2t completion fish | source
function __t2t_in
    set -l given (commandline -opc)[2..-1]
    if test (count $given) -eq 0
        test $argv[1] = ""
    else if contains -- $given[1] COMMANDS
        test $argv[1] = $given[1]
    else
        test $argv[1] = convert
    end
end
complete -c t2t -f
complete -c t2t -n "__t2t_in ''" -s h -l help -d 'show what there is'
complete -c t2t -n "__t2t_in ''" -l version -d 'show the version'
"""


def _fish(found: Sequence[Command]) -> Iterator[str]:
    """Values are offered at any position, as in fish's own completions."""
    yield from _FISH.replace("COMMANDS", " ".join(command.name for command in found)).splitlines()
    yield f"complete -c t2t -n \"__t2t_in ''\" {_fish_value(Value(endings=FILES['MAPPING']))}"
    for command in found:
        yield f"complete -c t2t -n \"__t2t_in ''\" -a {command.name} -d {_fish_quoted(command.about)}"
    for command in found:
        here = f"complete -c t2t -n '__t2t_in {command.name}'"
        for flag in command.flags:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
            # -x: no files beside what is offered.
            takes = f" {'-r' if flag.value.endings else '-x'} {_fish_value(flag.value)}" if flag.value else ""
            yield f"{here} {names} -d {_fish_quoted(flag.about)}{takes}".rstrip()
        for value in command.values:
            if action := _fish_value(value):
                yield f"{here} {action}"


def _fish_value(value: Value) -> str:
    if value.words:
        return f"-a {_fish_quoted(' '.join(value.words))}"
    if any(value.endings):
        return f"-k -a '(__fish_complete_suffix {value.endings[0]})'"
    return "-F" if value.endings else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[Sequence[Command]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
