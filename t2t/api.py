"""
One function per job. This is the only place that knows the order of things:

    mapping -> checkpoint -> module (no weights) -> plan -> tensors -> file -> module -> comparison -> the file's place

Everything raises a T2TError with all the problems that it found, and prints nothing. What is worth knowing on the way
goes to `note`, the bytes of each variable that is read to `progress`; both are optional everywhere. Frameworks are
imported where a job needs them; those in t2t.static import neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

import t2t
from t2t import checkpoints
from t2t import plan as planning
from t2t.checkpoints import Checkpoint
from t2t.checkpoints.files import is_address
from t2t.explanation import Explanation
from t2t.job import (
    Array,
    Job,
    Options,
    path_option,
    refuse_unknown,
    silent,
)
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.places import checkpoint_path, original_path, read_mapping, whole_path
from t2t.plan import Plan
from t2t.problems import (
    Location,
    MappingError,
    ModuleError,
    OriginalError,
    OutputError,
    Problem,
    UsageError,
    in_file_order,
)
from t2t.static import apply_recipe, check, diff, explain, fix, fmt, recipes, schema

if TYPE_CHECKING:
    from torch import nn

    from t2t.proof.compare import Comparison
    from t2t.proof.mutate import Mutations
    from t2t.proof.recording import Recording
    from t2t.review.lock import Lock
    from t2t.review.report import Report


__all__ = [
    "Checkpoint",
    "Conversion",
    "Explanation",
    "Options",
    "apply_recipe",
    "check",
    "convert",
    "diff",
    "explain",
    "fix",
    "fmt",
    "iter_tensors",
    "load",
    "load_into",
    "lock",
    "mutate",
    "open_checkpoint",
    "recipes",
    "record",
    "report",
    "schema",
    "verify",
]


@dataclass(frozen=True, slots=True)
class Conversion:
    """
    What `convert` did: the file and its size in bytes, the plan, and the proof (None where nothing was compared).

    Of an output in shards the file is their index, and the size that of all files; `shards` counts them.
    """

    path: str
    nbytes: int
    plan: Plan
    comparison: Comparison | None
    unproven: str = ""
    shards: int = 0


# --- the jobs ---


def open_checkpoint(path: str | os.PathLike[str], *, checksums: bool = True) -> Checkpoint:
    """An open checkpoint: its inventory, and its tensors on demand. Raises CheckpointError."""
    return checkpoints.open(os.fspath(path), checksums=checksums)


def lock(
    mapping: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    names_only: bool = False,
    **options: Unpack[Options],
) -> Lock:
    """
    Writes the mapping's lock, beside it or at `out`: what it means with everything at hand, and the proof's figures.

    The module is built, filled and proven as by `load`, and nothing is written where that fails. With `names_only` no
    value is read and nothing is proven: the checkpoint's index is enough. Raises T2TError.
    """
    import torch

    from t2t.require import met
    from t2t.review import locking
    from t2t.review.lock import Proof, place

    with Job(mapping, options, names_only=names_only) as job:
        path = os.fspath(out) if out is not None else place(job.mapping.path)
        _refuse_own_input(path, job.mapping, job.checkpoint, job.recording_place)
        recording = None if names_only else job.recording()
        outputs = {} if names_only else job.checksums()
        proof = Proof(unproven="names and shapes alone" if names_only else job.unproven)
        if recording is not None:
            job.fill(job.torch_tensors())
            proof = locking.proof(recording, job.prove(recording))
        required = met(job.module, job.mapping.require)
        made_by = {"t2t": t2t.__version__, "torch": torch.__version__, "numpy": np.__version__}
        own: dict[str, Any] = {"outputs": outputs, "require": required, "proof": proof, "made_by": made_by}
        made = locking.made(path, job.plan, job.inventory, **own)
        locking.save(made, force=options.get("force", False), note=options.get("note", silent))
        return made


def convert(
    mapping: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, **options: Unpack[Options]
) -> Conversion:
    """
    Converts the checkpoint into a file that is known to be right (or several, with an index), or writes nothing.

    What is written is synced and read back under a temporary name; the module is filled from that very file and run
    against the recording; only then the file takes its place. Raises T2TError.
    """
    from t2t.writers import Entry, shards, writer

    with Job(mapping, options) as job:
        place = os.fspath(out) if out is not None else _default_output(job.mapping)
        output = job.mapping.output
        _refuse_other_ending(place, output.format)
        steps = {step.target: step for step in job.plan.steps}
        entries = [
            Entry(name, planning.stored(steps[name], output.dtype), steps[name].shape, steps[name].rule.tie)
            for name in job.inventory.parameters
        ]
        for path in shards.places(place, entries, output.shard_size):
            _refuse_own_input(path, job.mapping, job.checkpoint, job.recording_place)
        recording = job.recording()
        comparison: Comparison | None = None

        def prove(path: str) -> None:
            nonlocal comparison
            if recording is not None:
                from t2t import module as modules

                job.fill(modules.read_file(path, output.format))
                comparison = job.prove(recording, from_file=True)

        written = writer(output.format)(
            place,
            entries,
            job.metadata(recording),
            lambda room: job.blocks(room, output.dtype),
            shard_size=output.shard_size,
            force=options.get("force", False),
            prove=prove,
            note=options.get("note", silent),
        )
        return Conversion(written.path, written.nbytes, job.plan, comparison, job.unproven, written.shards)


def load(mapping: str | os.PathLike[str], **options: Unpack[Options]) -> nn.Module:
    """
    The mapping's module: built, filled, proven, in eval(), trainable, its tensors its own.

    Raises T2TError; unproven results only come with `verify=False`.
    """
    with Job(mapping, options) as job:
        recording = job.recording()
        job.fill(job.torch_tensors())
        if recording is not None:
            job.prove(recording)
        return job.module.eval()


def load_into(module: nn.Module, mapping: str | os.PathLike[str], **options: Unpack[Options]) -> None:
    """
    Copies the weights into a module that exists; its strides, devices, dtypes, ties and requires_grad stay.

    Every name, shape, dtype and value is tested before the first copy. When the proof fails, the old values are put
    back before the error is raised. The mapping's `model` is not imported. Raises T2TError.
    """
    from t2t import module as modules

    with Job(mapping, options, module) as job:
        recording = job.recording()
        tensors = job.torch_tensors()
        before = {name: value.detach().clone() for name, value in module.state_dict().items() if recording}
        modules.copy_into(module, tensors)
        if recording is not None:
            try:
                job.prove(recording)
            except BaseException:
                modules.copy_into(module, before)
                raise


def iter_tensors(mapping: str | os.PathLike[str], **options: Unpack[Options]) -> Iterator[tuple[str, Array]]:
    """
    Each entry of the module's state_dict with its converted values, in the checkpoint's file order. Nothing is proven.

    The arrays are the caller's own. Raises T2TError.
    """
    with Job(mapping, options) as job:
        yield from job.tensors()


def verify(
    mapping: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    diagnose: bool = True,
    tried: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[Options],
) -> Comparison:
    """
    Runs the filled module against the recording. A difference is a result, not an error: see `Comparison.proven`.

    Where they differ, `Comparison.diagnosis` says which layer is the first, and which rows would have passed;
    `diagnose=False` leaves that out. `tried` hears how many changes have been tried, and of how many at most. `dtype`
    ("bfloat16") casts the module and its inputs first; what then holds is in t2t.proof.precision, and nothing is
    diagnosed. Raises T2TError where the two cannot be compared.
    """
    from t2t.proof import precision

    if dtype is not None:
        precision.check_dtype(dtype)
    with Job(mapping, options) as job:
        recording = job.recording(required=True)
        assert recording is not None
        job.fill(job.torch_tensors())
        comparison = job.comparison(recording, dtype)
        if comparison.proven or dtype is not None or not diagnose:
            return comparison
        return _diagnosed(job, recording, comparison, tried)


def _diagnosed(job: Job, recording: Recording, comparison: Comparison, tried: Callable[[int, int], None]) -> Comparison:
    """The comparison with its diagnosis. The verdict stands, whatever stands in the way of its explanation."""
    try:
        return replace(comparison, diagnosis=job.diagnosis(recording, tried))
    except (MappingError, ModuleError) as error:
        for problem in error.problems:
            job.note(replace(problem, severity="warning"))
        return comparison


def report(
    mapping: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    diagnose: bool = True,
    tried: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[Options],
) -> tuple[str, Report]:
    """
    Writes one HTML page about the mapping: the verdict, coverage, every row drawn, layers. Returns its path and facts.

    It is `<mapping>.html` in the current directory, or `out`. A difference is a result, and so is a recording that
    there is not: see `Report.problems`. `diagnose` and `tried` are those of `verify`. Raises T2TError.
    """
    from t2t.review import page
    from t2t.review import report as reports

    notes: list[Problem] = []

    def note(problem: Problem) -> None:
        options.get("note", silent)(problem)
        notes.append(problem)

    with Job(mapping, {**options, "note": note}) as job:
        place = os.fspath(out) if out is not None else f"{_stem(job.mapping)}.html"
        _refuse_own_input(place, job.mapping, job.checkpoint, job.recording_place)
        recording, missing = _recording_or_why(job)
        found = None
        if recording is not None:
            assert job.mapping.verify is not None
            job.fill(job.torch_tensors())
            found = reports.evidence(
                job.module,
                job.plan,
                recording,
                job.mapping.verify,
                diagnosed=lambda known: _diagnosed(job, recording, known, tried) if diagnose else known,
                note=note,
            )
        facts = reports.Surroundings(job.checkpoint, job.recording_place, recording, job.unproven, tuple(notes))
        made = reports.make(job.plan, job.inventory, found, facts, missing=missing)
        reports.save(place, page.html(made), force=options.get("force", False), note=options.get("note", silent))
        return place, made


def _recording_or_why(job: Job) -> tuple[Recording | None, tuple[Problem, ...]]:
    """The recording or, where it is missing or of something else, the problems (T2T502) that say so."""
    try:
        return job.recording(), ()
    except MappingError as error:
        if any(problem.code != "T2T502" for problem in error.problems):
            raise
        return None, error.problems


def mutate(
    mapping: str | os.PathLike[str],
    *,
    limit: int = 200,
    seed: int = 0,
    tried: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[Options],
) -> Mutations:
    """
    How many plausible mistakes of the mapping its recording catches, each made in the filled module and compared.

    At most `limit` mistakes are made; of more, `seed` picks them. `tried` hears how many are done, and of how many.
    Raises T2TError; MappingError (T2T501) where the mapping itself is not proven.
    """
    from t2t.proof import mutate as mutations

    if limit < 1:
        raise UsageError(Problem("T2T001", f"limit is {limit}: that makes no mistake", None, "give 1 or more"))
    with Job(mapping, options) as job:
        recording = job.recording(required=True)
        assert recording is not None
        assert job.mapping.verify is not None
        job.fill(job.torch_tensors())
        job.prove(recording)
        verify = job.mapping.verify
        return mutations.mutate(job.module, job.plan, recording, verify, limit=limit, seed=seed, tried=tried)


def record(
    mapping: str | os.PathLike[str], *, timeout: float = 600, **options: Unpack[Options]
) -> tuple[str, Recording]:
    """
    Runs the original in a child process and stores its inputs and outputs. Returns the recording's path and itself.

    `timeout` is in seconds. Raises T2TError; OriginalError where the original fails.
    """
    from t2t.proof import record as recorder
    from t2t.proof import recording as recordings

    refuse_unknown(options)
    read, problems = read_mapping(mapping)
    if read is None or problems:
        raise MappingError(in_file_order(problems))
    if read.verify is None:
        message = "there is no verify section: nothing says which original to run"
        raise MappingError(Problem("T2T503", message, Location(read.path), "add verify with inputs and reference"))
    place = path_option(options, "recording") or read.verify.recording
    with checkpoints.open(
        checkpoint_path(read, path_option(options, "checkpoint")),
        checksums=options.get("checksums", True),
        names=read.names,
    ) as opened:
        for problem in opened.notes:
            options.get("note", silent)(problem)
        if is_address(opened.path):
            message = f"the original is run from files on this machine, but the checkpoint is {shown(opened.path)}"
            raise OriginalError(Problem("T2T902", message, read.verify.at, "copy it here, or record where it is"))
        original = original_path(read, opened, path_option(options, "checkpoint"))
        if path_option(options, "checkpoint") and not path_option(options, "recording") and not options.get("force"):
            _refuse_others_recording(place, opened)
        _refuse_own_input(place, read, opened, original)
        made = recorder.record(
            read.verify,
            whole_path(opened) if read.verify.reference.kind == "call" else opened.path,
            opened.inventory.digest,
            original=original,
            timeout=timeout,
            allow_import=options.get("allow_import", ()),
            note=options.get("note", silent),
            weights=opened,
        )
        # TensorFlow read the files by itself: what it computed must not go by the digest of other weights.
        opened.check_unchanged()
        recordings.save(place, made, force=options.get("force", False))
    return place, made


# --- where things are ---


def _refuse_others_recording(place: str, checkpoint: Checkpoint) -> None:
    """The mapping's own recording belongs to the mapping's own checkpoint, and is not replaced by another one's."""
    from t2t.proof import origin

    if os.path.exists(place) and origin.stored_parts(place)["checkpoint"] != checkpoint.inventory.digest:
        message = "the recording of another checkpoint stands there"
        hint = "give --recording FILE to keep both, or --force to replace it"
        raise OutputError(Problem("T2T801", message, Location(place), hint))


#: What names of files of each format end in, and what is then inside.
_ENDINGS = {"safetensors": (".pt", ".pth", ".bin", ".ckpt", ".h5", ".npz"), "pt": (".safetensors", ".h5", ".npz")}


def _refuse_other_ending(place: str, written: str) -> None:
    """A name that promises another format: whoever opens the file by it would be told that it is damaged."""
    for ending in _ENDINGS[written]:
        if place.endswith(ending):
            message = f"the output {shown(place)} ends in {ending}, but its format is {written}"
            other = "pt" if written == "safetensors" and ending in {".pt", ".pth", ".bin"} else ""
            hint = f"write output: {{format: {other}}} in the mapping, or choose" if other else "choose"
            raise UsageError(Problem("T2T001", message, None, f"{hint} a name that ends in .{written}"))


def _default_output(mapping: MappingFile) -> str:
    return mapping.output.path or f"{_stem(mapping)}.{mapping.output.format}"


def _stem(mapping: MappingFile) -> str:
    return os.path.splitext(os.path.basename(mapping.path))[0]


def _refuse_own_input(place: str, mapping: MappingFile, checkpoint: Checkpoint, *more: str) -> None:
    """A file that the job reads must not be written over, not even with --force."""
    if not os.path.exists(place):
        return
    inputs = [mapping.path, *checkpoint.files, *more]
    if verify := mapping.verify:
        inputs += [verify.reference.path, *(entry.path for entry in verify.inputs)]
        inputs += [verify.labels.path] if verify.labels else []
    for path in inputs:
        if path and os.path.exists(path) and os.path.samefile(place, path):
            message = f"the output {shown(place)} is an input: {shown(path)}"
            raise UsageError(Problem("T2T001", message, None, "choose another output with -o"))
