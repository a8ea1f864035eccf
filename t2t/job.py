"""
What most jobs begin with: a mapping, and everything that it names, opened and planned.

    mapping -> checkpoint -> module (no weights) -> plan

and the steps that they go on with: tensors, filling the module, the proof.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import google_crc32c
import numpy as np

import t2t
from t2t import checkpoints, execute
from t2t import plan as planning
from t2t.at_hand import lock_of
from t2t.checkpoints import Checkpoint
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.places import checkpoint_path, original_path, read_mapping
from t2t.problems import CheckpointError, Location, MappingError, Problem, T2TError, in_file_order
from t2t.proof.values import Values
from t2t.review.stale import (
    blocks_held_against,
    other_module,
    stale,
    stale_checkpoint,
    stale_model,
    stale_source,
    tensors_held_against,
    unknown_values,
)
from t2t.review.stale_proof import stale_proof
from t2t.tensors import ModuleInventory

if TYPE_CHECKING:
    import torch
    from torch import nn

    from t2t.proof.compare import Comparison
    from t2t.proof.diagnosis import Diagnosis
    from t2t.proof.recording import Recording

Array = np.ndarray[Any, Any]
Note = Callable[[Problem], None]
Progress = Callable[[int], None]


class Options(TypedDict, total=False):
    """
    What a caller may ask for beside the mapping itself; each is a flag of the same name on the command line.

    `checkpoint` and `recording` replace the mapping's paths, relative to the current directory. `verify=False` lets an
    unproven result through. `checksums=False` skips them; `reader="tensorflow"` has TensorFlow read the values.
    `allow_import` are the module prefixes that may be imported, all where there are none. `allow_nonfinite` lets NaN
    and Inf through. `force` replaces a file that t2t did not write. `device` is where the module ends up and is proven;
    `load_into` leaves its module where it is. `locked` refuses whatever differs from the mapping's lock.
    """

    checkpoint: str | os.PathLike[str] | None
    recording: str | os.PathLike[str] | None
    verify: bool
    checksums: bool
    reader: Literal["t2t", "tensorflow"]
    allow_import: Sequence[str]
    allow_nonfinite: bool
    force: bool
    device: str
    locked: bool
    note: Note
    progress: Progress


def silent(_: object) -> None:
    """What is worth knowing goes nowhere, unless somebody asks."""


class Job:
    """
    A mapping with everything that it names open and planned: mapping, checkpoint, module, plan.

    All that is wrong with them is collected before anything is raised, as far as one can be seen without the other.
    With `names_only` no value is needed: a checkpoint's index alone will do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Options,
        module: nn.Module | None = None,
        *,
        names_only: bool = False,
    ) -> None:
        refuse_unknown(options)
        _check_device(options)
        self.options = options
        self.note = options.get("note", silent)
        self.unproven = ""
        read, problems = read_mapping(path)
        if read is None:
            raise MappingError(problems)
        self.mapping = read
        self._module = module
        with contextlib.ExitStack() as opened:
            self._open(read, problems, opened, names_only=names_only)
            self._closing = opened.pop_all()

    def _open(
        self, read: MappingFile, problems: Sequence[Problem], closing: contextlib.ExitStack, *, names_only: bool
    ) -> None:
        options = self.options
        errors = list(problems)
        failures: list[T2TError] = []
        inventory: ModuleInventory | None = None
        opened: Checkpoint | None = None
        self.lock = lock_of(read, errors, required=True) if options.get("locked", False) else None
        errors += unknown_values(read, self.lock, required=True) if self.lock is not None else ()
        try:
            # Where the mapping's own source has a problem, that one is told and enough.
            if read.checkpoint or path_option(options, "checkpoint") or not errors:
                opened = closing.enter_context(self._opened(read, names_only=names_only))
        except CheckpointError as error:
            failures.append(error)
        # Where the lock is missing or none, nothing is imported in its place.
        is_known = read.arguments is not None and (self.lock is not None or not options.get("locked", False))
        try:
            if is_known and not any(problem.at == read.model_at for problem in problems):
                inventory, found = self._inventory(read)
                errors += found
        except T2TError as error:
            failures.append(error)
        if inventory is not None:
            self.inventory = inventory
        if opened is not None:
            self.checkpoint = opened
            for problem in opened.notes:  # first: one of them may say why names are unknown
                self.note(problem)
            self.plan, found = planning.make(read, opened.inventory, inventory)
            # Without an inventory the module's own problem is among the errors already.
            errors += [problem for problem in found if problem.severity == "error"]
            for problem in found:
                if problem.severity == "warning" and all(problem.message != note.message for note in opened.notes):
                    self.note(problem)
            if self.lock is not None and not errors:
                errors += stale_source(read, self.lock, opened.inventory, by_value=True)
                found = [*stale(self.plan, self.lock), *stale_proof(read, self.lock)]
                errors += [problem for problem in found if problem.severity == "error"]
        if errors or failures:
            if not errors and len(failures) == 1:
                raise failures[0]
            raise MappingError(in_file_order([*errors, *(p for failure in failures for p in failure.problems)]))

    def _opened(self, read: MappingFile, *, names_only: bool) -> Checkpoint:
        options = self.options
        path = checkpoint_path(read, path_option(options, "checkpoint"))
        try:
            return checkpoints.open(
                path,
                checksums=options.get("checksums", True),
                reader=options.get("reader", "t2t"),
                names=read.names,
            )
        except CheckpointError as error:
            is_alone = names_only and read.names == "key" and checkpoints.are_missing(error.problems)
            alone = checkpoints.open_index(path) if is_alone else None
            if alone is None:
                raise
            return alone

    def _inventory(self, read: MappingFile) -> tuple[ModuleInventory | None, list[Problem]]:
        """What the module holds, and the requirements that it does not meet: by itself, or as the lock has it."""
        found = [*stale_model(read, self.lock), *stale_checkpoint(read, self.lock)]
        if self.lock is not None and (self._module is None or found):
            return (None if found else self.lock.module), found
        from t2t import module as modules
        from t2t.require import unmet

        module = self._module = self._module if self._module is not None else self._build(read)
        inventory = modules.inventory(module, read.model_at)
        found = unmet(module, read.require)
        return inventory, [*found, *(other_module(read, self.lock, inventory) if self.lock is not None else ())]

    @property
    def module(self) -> nn.Module:
        """The module; with a lock it is built when it is first needed, and refused where it is not the locked one."""
        if self._module is None:
            self._module = self._build(self.mapping)
            if found := self._inventory(self.mapping)[1]:
                raise MappingError(found)
        return self._module

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _build(self, read: MappingFile) -> nn.Module:
        """The module, without its weights unless a row keeps a parameter as it was built."""
        from t2t import module as modules

        assert read.arguments is not None
        for path in (read.model, *_imports(read.arguments)):
            self.note(Problem("T2T700", f"importing {shown(path)}", severity="note"))
        kept = {rule.target for rule in read.rules if rule.keep}

        def build(weights: bool) -> nn.Module:
            arguments, allowed = read.arguments or {}, self.options.get("allow_import", ())
            built = modules.build(read.model, arguments, at=read.model_at, allow_import=allowed, weights=weights)
            for problem in built.notes:
                self.note(problem)
            return built.module

        module = build(weights=False)
        names = module.named_parameters(remove_duplicate=False)
        needs_weights = any(name in kept and parameter.is_meta for name, parameter in names)
        return build(weights=True) if needs_weights else module

    def blocks(self, room: execute.Room, dtype: str | None) -> Iterator[execute.Block]:
        """
        The plan's tensors in blocks, as `execute.blocks` gives them; then a note of what looks wrong in them.

        With a lock: raises MappingError (T2T508) when all have come and are not what was locked.
        """
        values = Values(self.inventory)
        options = {"dtype": dtype, "seen": values.see, **self._values()}
        blocks = execute.blocks(self.plan, self.checkpoint, self._kept(), room, **options)
        yield from blocks if self.lock is None else blocks_held_against(self.lock, self.mapping, blocks)
        for problem in values.problems():
            self.note(problem)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """The same of the plan's tensors whole, as `execute.tensors` gives them."""
        values = Values(self.inventory)
        tensors = execute.tensors(self.plan, self.checkpoint, self._kept(), seen=values.see, **self._values())
        yield from tensors if self.lock is None else tensors_held_against(self.lock, self.plan, tensors)
        for problem in values.problems():
            self.note(problem)

    def checksums(self) -> dict[str, int]:
        """The crc32c of each entry's bytes, as they are stored (`output.dtype`). Nothing is kept."""
        crcs = dict.fromkeys(self.inventory.parameters, 0)
        buffer = np.empty(execute.BLOCK, np.uint8)

        for block in self.blocks(
            lambda _, __, count, dtype: buffer[: count * dtype.itemsize].view(dtype), self.mapping.output.dtype
        ):
            crcs[block.name] = google_crc32c.extend(crcs[block.name], block.values.view(np.uint8))
        return crcs

    def _kept(self) -> dict[str, Array]:
        """What the module was built with, for the rows that keep it."""
        kept = [step.target for step in self.plan.steps if step.rule.keep]
        if not kept:
            return {}
        from t2t import module as modules

        return modules.values(self.module, kept)

    def _values(self) -> dict[str, Any]:
        options = self.options
        return {
            "allow_nonfinite": options.get("allow_nonfinite", False),
            "progress": options.get("progress", silent),
        }

    @property
    def recording_place(self) -> str:
        """Where the recording is looked for, "" where there is nothing to prove."""
        own = self.mapping.verify.recording if self.mapping.verify else ""
        return path_option(self.options, "recording") or own

    def recording(self, *, required: bool = False) -> Recording | None:
        """
        The recording that proves this checkpoint; None where the mapping has no `verify` or the caller wants none.

        Raises MappingError (T2T502, T2T503) where a proof is asked for and cannot be had.
        """
        from t2t.proof import recording as recordings

        verify = self.mapping.verify
        if verify is None:
            self.unproven = "the mapping has no verify section"
            if required:
                message = "there is no verify section: nothing to compare with"
                hint = "add verify with inputs and reference"
                raise MappingError(Problem("T2T503", message, Location(self.mapping.path), hint))
            return None
        if not required and not self.options.get("verify", True):
            self.unproven = "--unproven"
            return None
        original = original_path(self.mapping, self.checkpoint, path_option(self.options, "checkpoint"))
        again = f"run t2t record {shown(self.mapping.path)}"
        if checkpoint := path_option(self.options, "checkpoint"):
            place = path_option(self.options, "recording") or "FILE"
            again += f" --checkpoint {shown(checkpoint)} --recording {shown(place)}"
        elif recording := path_option(self.options, "recording"):
            again += f" --recording {shown(recording)}"
        found = recordings.find(self.recording_place, verify, self.checkpoint.inventory.digest, original, again)
        if isinstance(found, Problem):
            raise MappingError(found)
        return found

    def torch_tensors(self) -> dict[str, torch.Tensor]:
        """All tensors in memory of their own, as torch has them."""
        from t2t import module as modules

        dtypes = {step.target: step.dtype for step in self.plan.steps}
        return {name: modules.to_torch(array, dtypes[name]) for name, array in self.tensors()}

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Gives the module that was built its values (`output.dtype` cast back to the parameter's) and its device."""
        from t2t import module as modules

        modules.assign(self.module, modules.cast_like(self.module, tensors))
        self.module.to(self.options.get("device", "cpu"))

    def prove(self, recording: Recording, *, from_file: bool = False) -> Comparison:
        """
        The comparison of the filled module; `from_file` if its values have been through the output's dtype.

        Raises MappingError (T2T501) when the two differ.
        """
        comparison = self.comparison(recording)
        if not comparison.proven:
            hint = self._hint(from_file=from_file)
            raise MappingError([replace(problem, hint=hint) for problem in comparison.problems()])
        return comparison

    def _hint(self, *, from_file: bool) -> str:
        """What finds out more; before it, what to look at first where the mapping itself may be why the two differ."""
        flags = {name: self.options.get(name) for name in ("checkpoint", "recording")}
        again = f"t2t verify {shown(self.mapping.path)}"
        again += "".join(f" --{name} {shown(os.fspath(path))}" for name, path in flags.items() if path)  # type: ignore[call-overload]
        usual = f"run {again}: it finds the first layer that differs, and what would have passed"
        dtype = self.mapping.output.dtype
        if (
            from_file
            and dtype
            and dtype != "float64"
            and any(planning.stored(s, dtype) != s.dtype for s in self.plan.steps)
        ):
            return f"the file's tensors are {dtype}: say in verify's rel how much that may change; {usual}"
        if self.mapping.select:
            what = f"source.select reads {self.mapping.select}, the original what its graph's Saver says"
            return f"{what}: record it with the graph that was saved for evaluation, or with call; {usual}"
        return usual

    def comparison(self, recording: Recording, dtype: str | None = None) -> Comparison:
        """The comparison of the filled module, whatever comes of it; with a `dtype` the module is cast to it first."""
        from t2t.proof import compare, precision

        verify = self.mapping.verify
        assert verify is not None
        if dtype is not None:
            precision.cast(self.module, dtype, verify)
            verify = precision.tolerant(verify, dtype)
        return compare.compare(self.module, recording, verify, dtype)

    def diagnosis(self, recording: Recording, tried: Callable[[int, int], None]) -> Diagnosis:
        """Why the filled module does not compute what was recorded."""
        from t2t.proof import diagnosis, lint

        verify = self.mapping.verify
        assert verify is not None
        # What the graph alone says of rows and of the module's settings, now that there is a difference to explain.
        settings = {path: lint.attributes(module) for path, module in self.module.named_modules()}
        original = original_path(self.mapping, self.checkpoint, path_option(self.options, "checkpoint"))
        for problem in lint.findings(self.plan, self.checkpoint.path, original, settings):
            self.note(problem)
        options: dict[str, Any] = {"tried": tried, "note": self.note}
        return diagnosis.diagnose(self.module, self.plan, self.checkpoint, recording, verify, **options)

    def metadata(self, recording: Recording | None) -> dict[str, str]:
        """
        What the file says of itself: versions, which mapping made it from which weights, and whether that is proven.

        It holds no figure that another machine would compute otherwise: the same input gives the same bytes.
        """
        return {
            "format": "pt",
            "t2t": t2t.__version__,
            "t2t.mapping": self.mapping.digest,
            "t2t.model": self.mapping.model,
            "t2t.proof": "proven" if recording is not None else f"not proven: {self.unproven}",
            "t2t.source": self.checkpoint.inventory.digest,
            **_torch(),
            **({"t2t.recording": recording.key} if recording is not None else {}),
        }


def _torch() -> dict[str, str]:
    """The version of torch that is installed; where nothing has imported it, asked without doing so."""
    import importlib.metadata

    if (torch := sys.modules.get("torch")) is not None:
        return {"t2t.torch": str(torch.__version__)}
    try:
        return {"t2t.torch": importlib.metadata.version("torch")}
    except importlib.metadata.PackageNotFoundError:
        return {}


def _check_device(options: Options) -> None:
    """Raises UsageError where torch has no such device. What a lock knows needs no torch, and every torch has a CPU."""
    device = options.get("device", "cpu")
    if device != "cpu" or not options.get("locked", False):
        from t2t import module as modules

        modules.check_device(device)


def refuse_unknown(options: Options) -> None:
    """Raises TypeError for an option that does not exist, as Python does for a keyword."""
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        raise TypeError(f"unknown option {unknown[0]!r}; options are {', '.join(Options.__annotations__)}")


def path_option(options: Options, name: Literal["checkpoint", "recording"]) -> str | None:
    """The option as text."""
    path = options.get(name)
    return None if path is None else os.fspath(path)


def _imports(argument: Any) -> Iterator[str]:
    """The import paths in the model's arguments, under `new` and `get`."""
    if isinstance(argument, dict):
        yield from (path for key, path in argument.items() if key in {"new", "get"} and isinstance(path, str))
    if isinstance(argument, dict | list):
        for inner in argument.values() if isinstance(argument, dict) else argument:
            yield from _imports(inner)
