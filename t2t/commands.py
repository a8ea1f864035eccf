"""
One function per command: words -> calls of the API, results -> the console. Each returns its exit status.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from t2t import console, document, listing, results
from t2t.names import did_you_mean, proposing, shown
from t2t.problems import CODES, Problem, UsageError, exit_code, in_file_order


def _convert(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    with screen.progress("converting") as progress:
        done = api.convert(options.mapping, options.output, progress=progress, **_api_options(options, screen))
    results.conversion(screen, done)
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
        listing.cross_check(screen, checked)
        return exit_code(checked.problems)
    if options.values and options.patterns:
        message = f"globs and --values do not go together: {shown(options.patterns[0])} stands beside --values"
        raise UsageError(Problem("T2T001", message, None, "give each glob its own --values"))
    from t2t import checkpoints
    from t2t.checkpoints import inspection

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
        listing.inventory(screen, opened, found, verbose=options.verbose)
    return _strict([*found.notes, *(found.checked.problems if found.checked else ())], options)


def _check(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static
    from t2t.review import paths

    mappings = paths.mappings(options.mapping)
    problems: list[Problem] = []
    by_lock = 0
    for mapping in mappings:
        for problem in static.fix(mapping, checkpoint=options.checkpoint) if options.fix else ():
            told = f"{problem.fix[0]} -> {problem.fix[1]}" if problem.fix else problem.message
            screen.note(replace(problem, message=f"fixed: {shown(told)}", hint="", severity="note", fix=None))
        checked = static.checked(mapping, checkpoint=options.checkpoint, locked=options.locked)
        problems += checked.problems
        by_lock += checked.by_lock
    screen.findings(problems, mappings, by_lock)
    return _strict(problems, options)


def _fmt(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static
    from t2t.review import fmt

    done = static.fmt(options.mapping, check=options.check)
    problems = [problem for one in done for problem in one.problems]
    if options.check:
        problems = in_file_order([*problems, *(finding for one in done if (finding := one.finding()))])
        screen.findings(problems, [one.path for one in done])
    else:
        screen.result(fmt.lines(done), fmt.as_json(done), problems)
    return exit_code(problems)


def _lock(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api
    from t2t.review import told

    with screen.progress("locking") as progress:
        made = api.lock(
            options.mapping,
            options.output,
            names_only=options.names_only,
            progress=progress,
            **_api_options(options, screen),
        )
    screen.result(told.lock(made), told.lock_json(made))
    return 0


def _diff(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static
    from t2t.review import told

    head, *paths = options.patterns or [None]
    found = static.diff(options.base, head, paths, merge_base=options.merge_base)
    if options.markdown:  # it tells the problems itself, for whoever reads it elsewhere
        screen.result(told.diff_markdown(found), told.diff_json(found), found.problems)
    else:
        screen.result(told.diff(found), told.diff_json(found), found.problems, listed=True)
    return exit_code(found.problems) or int(options.exit_code and any(not one.is_same for one in found.mappings))


def _explain(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static

    results.explanation(screen, static.explain(options.mapping, options.parameter, checkpoint=options.checkpoint))
    return 0


def _recipes(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static

    known = static.recipes()
    if options.recipe is not None and options.recipe not in known:
        message = f"there is no built-in recipe {shown(options.recipe)}"
        raise UsageError(Problem("T2T001", message, None, did_you_mean(options.recipe, known)))
    if not options.shapes:
        results.recipes(screen, {options.recipe: known[options.recipe]} if options.recipe else known)
        return 0
    shapes = {name: _shape(name, text) for name, text in map(_pair, options.shapes)}
    values: dict[str, int | float | str] = {}
    for letter, text in map(_pair, options.given):
        number = document.number(text)
        values[letter] = text if number is None else number
    dims = {axis: _shape(axis, text)[0] for axis, text in map(_pair, options.dims)}
    results.recipe(screen, known[options.recipe], static.apply_recipe(options.recipe, shapes, values=values, dims=dims))
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
    results.recording(screen, place, recording)
    return 0


def _verify(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    given = _api_options(options, screen)
    with screen.counting("changes tried") as tried:
        own = {"dtype": options.dtype, "diagnose": options.diagnosis, "tried": tried}
        comparison = api.verify(options.mapping, **own, **given)
    problems = comparison.problems()
    results.comparison(screen, comparison, problems)
    return exit_code(problems)


def _mutate(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api

    given = _api_options(options, screen)
    with screen.counting("mistakes") as tried:
        done = api.mutate(options.mapping, limit=options.limit, seed=options.seed, tried=tried, **given)
    problems = done.problems()
    results.mutations(screen, done, problems)
    return exit_code(problems)


def _schema(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import static

    if options.checkpoint and not options.mapping:
        raise UsageError(Problem("T2T001", "--checkpoint without a mapping", None, "name the mapping, too"))
    text = static.schema(options.mapping, checkpoint=options.checkpoint, note=screen.note)
    if options.output:
        from t2t.review import names_schema

        names_schema.save(options.output, text, force=options.force)
        screen.result([f"wrote {options.output}"], {"output": options.output})
    else:
        screen.file(text)
    return 0


def _completion(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import completion, recipes

    known = {"NAME": recipes.texts(), "TOPIC": [*COMMANDS, *CODES]}
    found = completion.commands(options.parser, {metavar: tuple(words) for metavar, words in known.items()})
    screen.file("".join(f"{line}\n" for line in completion.script(options.shell, found)))
    return 0


def _help(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import codes, completion

    parsers = completion.parsers(options.parser)
    topic = options.topic
    if topic is None:
        about = {name: about for name, (_, about) in parsers.items()}
        screen.result(options.parser.format_help().splitlines(), {"commands": about, "codes": CODES})
        return 0
    if topic in parsers:
        text = parsers[topic][0].format_help()
        screen.result(text.splitlines(), {"command": topic, "help": text})
        return 0
    code = codes.find(topic)
    if code is None:
        message = f"there is no code and no command {shown(topic)}"
        hint = proposing(codes.nearest(topic)) or did_you_mean(topic, COMMANDS)
        hint = hint or "t2t help lists the commands"
        raise UsageError(Problem("T2T001", message, None, hint))
    screen.result(codes.lines(code), asdict(code))
    return 0


def _report(options: argparse.Namespace, screen: console.Console) -> int:
    from t2t import api
    from t2t.review import report

    given = _api_options(options, screen)
    with screen.counting("changes tried") as tried:
        own = {"diagnose": options.diagnosis, "tried": tried}
        place, made = api.report(options.mapping, options.output, **own, **given)
    screen.result(report.lines(made, place), report.as_json(made, place), made.problems, listed=True)
    return exit_code(made.problems)


COMMANDS: dict[str, Callable[[argparse.Namespace, console.Console], int]] = {
    "convert": _convert,
    "inspect": _inspect,
    "check": _check,
    "fmt": _fmt,
    "lock": _lock,
    "diff": _diff,
    "explain": _explain,
    "recipes": _recipes,
    "record": _record,
    "verify": _verify,
    "mutate": _mutate,
    "report": _report,
    "schema": _schema,
    "completion": _completion,
    "help": _help,
}

#: Commands that only say something: the format of problems would leave it all out.
WITHOUT_FINDINGS = frozenset(("completion", "explain", "help", "recipes", "schema"))


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
        "locked": "locked",
    }
    given = {name: getattr(options, flag) for name, flag in named.items() if hasattr(options, flag)}
    if hasattr(options, "unproven"):
        given["verify"] = not options.unproven
    given["note"] = screen.note
    return given
