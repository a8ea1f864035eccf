"""
The command line: words -> calls of the API, results -> the console, errors -> exit codes. Nothing is decided here.

0 all well, 1 findings, 2 usage, 3 an input or output that could not be read or written, 70 a bug in t2t, 130 and 143
interrupted.
"""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import t2t
from t2t import checkpoints, console, document
from t2t.checkpoints import inspection
from t2t.interrupts import Terminated
from t2t.names import did_you_mean, shown
from t2t.problems import OutputError, Problem, T2TError, UsageError, exit_code
from t2t.proof.precision import PRECISIONS

_EPILOG = """\
exit status: 0 all well, 1 findings, 2 usage, 3 an input or output that cannot be read or written,
70 a bug in t2t
A mapping right after t2t means convert:  t2t mappings/madry.yaml"""


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
        hint = did_you_mean(words[0], COMMANDS, 1) or f"commands are {', '.join(COMMANDS)}"
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


# --- the commands ---


def _convert(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    with screen.progress("converting") as progress:
        done = api.convert(options.mapping, options.output, progress=progress, **_api_options(options, screen))
    screen.conversion(done)
    return 0


def _inspect(options: argparse.Namespace, screen: console.Console) -> int:
    if options.cross_check:
        given = {"a glob": options.patterns, "--values": options.values, "--checksums": options.checksums}
        given["--names full_name"] = options.names == "full_name"
        if refused := next((flag for flag, is_given in given.items() if is_given), None):
            message = f"--cross-check compares every byte by the file's own names: {refused} says nothing to it"
            raise UsageError(Problem("T2T001", message, None, "leave it out"))
        from t2t.checkpoints.via_tensorflow import cross_check

        with screen.progress("comparing") as progress:
            checked = cross_check(options.checkpoint, progress=progress)
        screen.cross_check(checked)
        return exit_code(checked.problems)
    if options.values and options.patterns:
        message = f"globs and --values do not go together: {shown(options.patterns[0])} stands beside --values"
        raise UsageError(Problem("T2T001", message, None, "give each glob its own --values"))
    with checkpoints.open(options.checkpoint, names=options.names) as opened:
        inspect = partial(
            inspection.inspect,
            opened,
            options.patterns,
            sort=options.sort,
            values=options.values,
            checksums=options.checksums,
            files=options.verbose or screen.format == "json",
        )
        if options.values or options.checksums:
            is_all = not options.patterns and not options.values
            total = sum(ref.nbytes for ref in opened.inventory.variables.values()) if is_all else None
            with screen.progress("reading", total) as progress:
                found = inspect(progress=progress)
        else:
            found = inspect()
        screen.inventory(opened, found, verbose=options.verbose)
    return _strict([*found.notes, *(found.checked.problems if found.checked else ())], options)


def _check(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    mappings = options.mapping or sorted(glob.glob("mappings/*.yaml"))
    if not mappings:
        raise UsageError(Problem("T2T001", "there are no mappings under mappings/", None, "name the mappings to check"))
    problems = []
    for mapping in mappings:
        problems += api.check(mapping, checkpoint=options.checkpoint)
    screen.findings(problems, mappings)
    return _strict(problems, options)


def _explain(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    screen.explanation(api.explain(options.mapping, options.parameter, checkpoint=options.checkpoint))
    return 0


def _recipes(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    known = api.recipes()
    if options.recipe is not None and options.recipe not in known:
        message = f"there is no built-in recipe {shown(options.recipe)}"
        raise UsageError(Problem("T2T001", message, None, did_you_mean(options.recipe, known)))
    if not options.shapes:
        screen.recipes({options.recipe: known[options.recipe]} if options.recipe else known)
        return 0
    shapes = {name: _shape(name, text) for name, text in map(_pair, options.shapes)}
    values: dict[str, int | float | str] = {}
    for letter, text in map(_pair, options.given):
        number = document.number(text)
        values[letter] = text if number is None else number
    dims = {axis: _shape(axis, text)[0] for axis, text in map(_pair, options.dims)}
    screen.recipe(known[options.recipe], api.apply_recipe(options.recipe, shapes, values=values, dims=dims))
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(Problem("T2T001", f"'{shown(text)}' is not NAME=VALUE", None, "for example kernel=3,3,16,32"))
    return name, value


def _shape(name: str, text: str) -> tuple[int, ...]:
    sizes = text.split(",") if text else []
    if not all(size.isascii() and size.isdigit() and len(size) < 19 for size in sizes):
        hint = "sizes are separated by commas: kernel=3,3,16,32"
        raise UsageError(Problem("T2T001", f"{shown(name)}: '{shown(text)}' is not a shape", None, hint))
    return tuple(int(size) for size in sizes)


def _record(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    given = _api_options(options, screen)
    place, recording = api.record(options.mapping, timeout=options.timeout, **given)
    screen.recording(place, recording)
    return 0


def _verify(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    given = _api_options(options, screen)
    with screen.counting("changes tried") as tried:
        own = {"dtype": options.dtype, "diagnose": options.diagnosis, "tried": tried}
        comparison = api.verify(options.mapping, **own, **given)
    problems = comparison.problems()
    screen.comparison(comparison, problems)
    return exit_code(problems)


def _mutate(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    given = _api_options(options, screen)
    with screen.counting("mistakes") as tried:
        done = api.mutate(options.mapping, limit=options.limit, seed=options.seed, tried=tried, **given)
    problems = done.problems()
    screen.mutations(done, problems)
    return exit_code(problems)


COMMANDS: dict[str, Callable[[argparse.Namespace, console.Console], int]] = {
    "convert": _convert,
    "inspect": _inspect,
    "check": _check,
    "explain": _explain,
    "recipes": _recipes,
    "record": _record,
    "verify": _verify,
    "mutate": _mutate,
}


def _strict(problems: Sequence[Problem], options: argparse.Namespace) -> int:
    """The exit status of findings; with --strict warnings count as errors."""
    if options.strict and any(problem.severity == "warning" for problem in problems):
        return max(1, exit_code(problems))
    return exit_code(problems)


def _api_options(options: argparse.Namespace, screen: console.Console) -> dict[str, Any]:
    """The flags that are the API's options, by their names there; those that this command doesn't have are left out."""
    named = {
        "checkpoint": "checkpoint",
        "recording": "recording",
        "checksums": "checksums",
        "reader": "reader",
        "allow_import": "allow_import",
        "allow_nonfinite": "allow_nonfinite",
        "force": "force",
        "device": "device",
    }
    given = {name: getattr(options, flag) for name, flag in named.items() if hasattr(options, flag)}
    if hasattr(options, "unproven"):
        given["verify"] = not options.unproven
    given["note"] = screen.note
    return given


# --- the flags ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="t2t",
        description="Gets weights out of TensorFlow and into PyTorch by a reviewed mapping file, and proves it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"t2t {t2t.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        formats = added.add_argument_group("what is shown")
        formats.add_argument("--format", choices=console.FORMATS, help="default: full on a terminal, else concise")
        formats.add_argument("--all", action="store_true", help="show every problem, every variable")
        formats.add_argument("--debug", action="store_true", help="show the traceback of what went wrong")
        return added

    added = command("convert", "convert a checkpoint, prove the result, and write it")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("-o", "--output", metavar="FILE", help="default: <mapping>.safetensors (or .pt) here")
    added.add_argument("--unproven", action="store_true", help="write the file without a proof; its metadata says so")
    added.add_argument("--force", action="store_true", help="replace a file that t2t did not write")
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

    added = command("check", "find everything that can be known to be wrong without the weights")
    added.add_argument("mapping", metavar="MAPPING", nargs="*", help="default: every mapping under mappings/")
    added.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")
    added.add_argument("--strict", action="store_true", help="warnings count as errors")

    added = command("explain", "say where a parameter comes from")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("parameter", metavar="PARAMETER")
    added.add_argument("--checkpoint", metavar="CHECKPOINT", help="instead of the mapping's")

    added = command("recipes", "print the built-in recipes, or what one does to variables of these shapes")
    _recipe_flags(added)

    added = command("record", "run the original in TensorFlow and store its inputs and outputs")
    added.add_argument("mapping", metavar="MAPPING")
    added.add_argument("--force", action="store_true", help="replace a file that is no recording")
    added.add_argument("--timeout", metavar="SECONDS", type=float, default=600.0, help="default: 600")
    _import_flag(added)
    _source_flags(added)

    added = command("verify", "compare the torch module with the recording")
    _proof_flags(added)
    _verify_flags(added)

    added = command("mutate", "count the mistakes in a mapping that its recording would catch")
    _mutate_flags(added)
    _proof_flags(added)
    return parser


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
    added.add_argument(
        "--no-diagnosis",
        dest="diagnosis",
        action="store_false",
        help="only the verdict: don't look for the first layer that differs, and for what would have passed",
    )
    added.add_argument(
        "--dtype", choices=tuple(PRECISIONS), help="cast the module and its inputs first; default: its own dtypes"
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
