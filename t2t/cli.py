"""
The command line: words -> calls of the API, results -> the console, errors -> exit codes. Nothing is decided here.

0 all well, 1 findings, 2 usage, 3 an input or output that could not be read or written, 70 a bug in t2t, 130 and 143
interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import t2t
from t2t import console
from t2t.commands import COMMANDS, WITHOUT_FINDINGS
from t2t.interrupts import Terminated
from t2t.names import did_you_mean, shown
from t2t.problems import OutputError, Problem, T2TError, UsageError
from t2t.proof.precision import PRECISIONS

#: Adds a command by its name, and what it does in a line.
Command = Callable[[str, str], argparse.ArgumentParser]

#: What a first day needs, in its order; --help shows them before the others.
FIRST_DAY = ("inspect", "check", "record", "convert", "verify")

_EPILOG = """\
t2t help COMMAND, or CODE, says more. A mapping alone is converted: t2t m.yaml"""


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    try:
        console.open_closed_streams()
        status = _status(arguments)
        console.flush()
    except BrokenPipeError:
        # Whoever read our output has gone: there is nobody to tell.
        console.discard()
        return 141
    except OutputError as error:
        console.discard()
        console.failure(f"t2t: {error.problems[0].message}")
        return error.exit_code
    except KeyboardInterrupt:
        console.failure("t2t: interrupted; no file is half written")
        return 130
    except Terminated:
        console.failure("t2t: terminated; no file is half written")
        return 143
    return status


def _status(arguments: Sequence[str]) -> int:
    """The exit status of one command, when all that there is to say is said."""
    screen = console.Console("concise")
    debug = False
    try:
        options = _parsed(_with_command(arguments))
        debug = options.debug
        screen = console.Console(options.format or os.environ.get("T2T_FORMAT") or None, show_all=options.all)
        if screen.format == "sarif" and options.command in WITHOUT_FINDINGS:
            message = f"{options.command} looks for no problems, and sarif holds nothing else"
            raise UsageError(Problem("T2T001", message, None, "use --format json"))
        return int(COMMANDS[options.command](options, screen))
    except SystemExit as end:  # argparse has said what it had to say
        return int(end.code or 0)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - what is none of the first two is a bug in t2t, and says so
        if debug:
            console.traceback()
        if isinstance(error, T2TError):
            screen.problems(error.problems)
            return error.exit_code
        if isinstance(error, MemoryError):
            console.failure("t2t: out of memory; nothing was written")
            return 3
        console.failure(f"t2t: this is a bug in t2t: {type(error).__name__}: {error}; --debug shows where")
        return 70


def _with_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with `convert` before a mapping that stands where a command would."""
    words = list(arguments)
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return words
    if not os.path.lexists(words[0]) and not words[0].endswith((".yaml", ".yml")):
        message = f"{shown(words[0])} is neither a command nor a file"
        hint = did_you_mean(words[0], COMMANDS, 1) or "t2t help lists the commands"
        raise UsageError(Problem("T2T001", message, None, hint))
    return ["convert", *words]


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """The flags. Of any number of words, argparse takes those before the next flag and leaves the rest."""
    parser = _parser()
    options, rest = parser.parse_known_args(words)
    if rest:
        if not hasattr(options, "patterns") or any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.patterns = [*options.patterns, *rest]
    return options


# --- the flags ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="t2t",
        usage="t2t [-h] [--version] COMMAND ...",
        description="Gets weights out of TensorFlow into PyTorch by a mapping file, and proves it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    if sys.version_info >= (3, 14):
        parser.color = False  # help is told by the console, too, which lets no control character through
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"t2t {t2t.__version__}", help=argparse.SUPPRESS)
    shown_below = {"metavar": "COMMAND", "help": argparse.SUPPRESS}
    commands = parser.add_subparsers(dest="command", required=True, prog="t2t", **shown_below)

    summaries: dict[str, str] = {}

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        summaries[name] = summary
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(parser=parser)
        formats = added.add_argument_group("what is shown")
        formats.add_argument("--format", choices=console.FORMATS, help="default: full on a terminal, else concise")
        formats.add_argument("--all", action="store_true", help="show every problem, every variable")
        formats.add_argument("--debug", action="store_true", help="show the traceback of what went wrong")
        return added

    _conversion(command)
    _review(command)
    _proof(command)
    _about(command)
    parser.epilog = _overview(summaries)
    return parser


def _conversion(command: Command) -> None:
    """The way from a checkpoint to a file."""
    added = command("convert", "convert a checkpoint, prove the result, and write it")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("-o", "--output", metavar="FILE", help="default: <mapping>.safetensors (or .pt) here")
    added.add_argument("--unproven", action="store_true", help="write the file without a proof; its metadata says so")
    added.add_argument("--force", action="store_true", help="replace a file that t2t did not write")
    added.add_argument("--locked", action="store_true", help="refuse whatever differs from the mapping's lock")
    _source_flags(added)
    _reader_flag(added)
    _module_flags(added)

    added = command("inspect", "list a checkpoint's variables")
    added.add_argument("checkpoint", metavar="CHECKPOINT", help="a prefix, one of its files, or its directory")
    added.add_argument(
        "patterns", metavar="GLOB", nargs="*", default=[], help="only these variables: conv*/kernel, **/bias"
    )
    added.add_argument("--sort", choices=("name", "size"), default="name", help="default: name")
    added.add_argument("--names", choices=("key", "full_name"), default="key", help="the file's names, or the model's")
    added.add_argument(
        "--values", metavar="GLOB", action="append", default=[], help="figures of these variables' values (repeatable)"
    )
    added.add_argument("--checksums", action="store_true", help="read every variable and test its checksum")
    added.add_argument("--strict", action="store_true", help="warnings count as errors")
    added.add_argument("-v", "--verbose", action="store_true", help="show files, and where each variable lies")
    added.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    added.add_argument("--cross-check", action="store_true", help="compare every byte with TensorFlow's reader")

    added = command("diff", "say what changed between mappings or revisions, per parameter")
    added.add_argument("base", metavar="BASE", help="a mapping, a directory, or a revision of the git repository here")
    about = "the same (default: the files as they are now); then paths in a revision (default: mappings)"
    added.add_argument("patterns", metavar="HEAD", nargs="*", default=[], help=about)
    added.add_argument(
        "--merge-base", action="store_true", help="compare with the last commit that both have in common"
    )
    added.add_argument("--markdown", action="store_true", help="as a comment on a pull request")
    added.add_argument("--exit-code", action="store_true", help="exit with 1 where something changed")

    added = command("explain", "say where a parameter comes from")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("parameter", metavar="PARAMETER")
    added.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")

    added = command("recipes", "print the built-in recipes, or what one does to variables")
    _recipe_flags(added)


def _review(command: Command) -> None:
    """What a mapping goes through in a pull request."""
    added = command("check", "find everything that can be known to be wrong without the weights")
    added.add_argument("mapping", metavar="PATH", nargs="*", help="mappings or directories; default: mappings/")
    added.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")
    added.add_argument("--strict", action="store_true", help="warnings count as errors")
    added.add_argument("--locked", action="store_true", help="refuse a mapping without a lock")
    added.add_argument("--fix", action="store_true", help="write what has one answer: a misspelt key or name")

    added = command("fmt", "write mappings with one row a line, its names in columns")
    added.add_argument(
        "mapping", metavar="PATH", nargs="*", help="a mapping or a directory of them; default: mappings/"
    )
    added.add_argument("--check", action="store_true", help="write nothing, list what would change")

    added = command("lock", "write down beside a mapping what it means, and how it was proven")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("-o", "--output", metavar="FILE", help="default: <mapping>.lock.json beside it")
    added.add_argument("--unproven", action="store_true", help="write it without a proof; it says so")
    added.add_argument(
        "--names-only", action="store_true", help="without values and proof: the checkpoint's index is enough"
    )
    added.add_argument("--force", action="store_true", help="replace a file that is no lock")
    _source_flags(added)
    _reader_flag(added)
    _module_flags(added)


def _proof(command: Command) -> None:
    """How it is known that a mapping is right."""
    added = command("record", "run the original in TensorFlow and store its inputs and outputs")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("--force", action="store_true", help="replace a file that is no recording")
    added.add_argument("--timeout", metavar="SECONDS", type=float, default=600.0, help="default: 600")
    _import_flag(added)
    _source_flags(added)

    added = command("verify", "compare the torch module with the recording")
    _proof_flags(added)
    _verify_flags(added)

    added = command("report", "write an HTML page: verdict, coverage, every row drawn, layers")
    added.add_argument("-o", "--output", metavar="FILE", help="default: <mapping>.html here")
    added.add_argument("--unproven", action="store_true", help="leave the proof out; the page says so")
    added.add_argument("--force", action="store_true", help="replace a file that is no report")
    _proof_flags(added)
    _diagnosis_flag(added)

    added = command("mutate", "count the mistakes in a mapping that its recording would catch")
    _mutate_flags(added)
    _proof_flags(added)


def _about(command: Command) -> None:
    """What helps to write mappings, and commands."""
    added = command("schema", "print the JSON schema that editors read, with a model's names")
    added.add_argument("mapping", metavar="MAPPING", nargs="?", help="whose names it has; default: no names")
    added.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    added.add_argument("--force", action="store_true", help="replace a file that is no such schema")
    added.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")

    added = command("completion", "print what completes t2t's words in a shell")
    added.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")

    added = command("help", "explain a code, or show a command's flags")
    added.add_argument("topic", metavar="TOPIC", nargs="?", help="a code, T2T305, or a command")


def _overview(commands: Mapping[str, str]) -> str:
    """Every command in a line each, those of a first day first."""
    width = max(map(len, commands)) + 2
    others = [name for name in commands if name not in FIRST_DAY]
    first, then = ([f"  {name:{width}}{commands[name]}" for name in names] for names in (FIRST_DAY, others))
    return "\n".join(["at first:", *first, "and then:", *then, "", _EPILOG])


def _recipe_flags(added: argparse.ArgumentParser) -> None:
    added.add_argument("recipe", metavar="NAME", nargs="?")
    added.add_argument(
        "shapes", metavar="VARIABLE=SHAPE", nargs="*", default=[], help="its variables' shapes: kernel=3,3,16,32"
    )
    added.add_argument(
        "--with", dest="given", metavar="LETTER=VALUE", action="append", default=[], help="what its letters stand for"
    )
    added.add_argument("--dims", metavar="AXIS=SIZE", action="append", default=[], help="sizes of axes: h=7")


def _proof_flags(added: argparse.ArgumentParser) -> None:
    added.add_argument("mapping", metavar="MAPPING")
    _source_flags(added)
    _reader_flag(added)
    _module_flags(added)


def _verify_flags(added: argparse.ArgumentParser) -> None:
    _diagnosis_flag(added)
    added.add_argument(
        "--dtype", choices=tuple(PRECISIONS), help="cast the module and its inputs first; default: its own dtypes"
    )


def _diagnosis_flag(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--no-diagnosis",
        dest="diagnosis",
        action="store_false",
        help="only the verdict: don't look for the first layer that differs, and for what would have passed",
    )


def _mutate_flags(added: argparse.ArgumentParser) -> None:
    added.add_argument("--limit", metavar="N", type=int, default=200, help="make at most N mistakes; default: 200")
    added.add_argument("--seed", metavar="N", type=int, default=0, help="which, if there are more; default: 0")


def _source_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the weights")
    group.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")
    group.add_argument("--recording", metavar="FILE", help="instead of the mapping's")
    group.add_argument(
        "--checksums", action=argparse.BooleanOptionalAction, default=True, help="test what is read (the default)"
    )


def _reader_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reader", choices=("t2t", "tensorflow"), default="t2t", help="who reads the values; default: t2t"
    )


def _import_flag(group: Any) -> None:
    allowed = [prefix for prefix in os.environ.get("T2T_ALLOW_IMPORT", "").split(os.pathsep) if prefix]
    group.add_argument(
        "--allow-import",
        metavar="PREFIX",
        action="append",
        default=allowed,
        help="import only modules under this prefix (repeatable; also T2T_ALLOW_IMPORT)",
    )


def _module_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the module")
    _import_flag(group)
    group.add_argument("--allow-nonfinite", action="store_true", help="let NaN and Inf through")
    group.add_argument("--device", default="cpu", help="where the module is proven: cpu, cuda, cuda:1; default: cpu")
