"""
What most jobs begin with: a mapping, and everything that it names, opened and planned.

    mapping -> checkpoint -> module (no weights) -> plan

and the steps that they go on with: tensors, filling the module, the proof.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

import t2t
from t2t import checkpoints, execute
from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.checkpoints import Checkpoint
from t2t.checkpoints.files import is_address
from t2t.document import MAX_BYTES
from t2t.mapping import Mapping as MappingFile
from t2t.names import shown
from t2t.problems import CheckpointError, Location, MappingError, Problem, T2TError, in_file_order
from t2t.proof.values import Values
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
    `load_into` leaves its module where it is.
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
    note: Note
    progress: Progress


def silent(_: object) -> None:
    """What is worth knowing goes nowhere, unless somebody asks."""


class Job:
    """
    A mapping with everything that it names open and planned: mapping, checkpoint, module, plan.

    All that is wrong with them is collected before anything is raised, as far as one can be seen without the other.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options, module: nn.Module | None = None) -> None:
        from t2t import module as modules
        from t2t.require import unmet

        refuse_unknown(options)
        modules.check_device(options.get("device", "cpu"))
        self.options = options
        self.note = options.get("note", silent)
        self.unproven = ""
        read, problems = read_mapping(path)
        if read is None:
            raise MappingError(problems)
        self.mapping = read
        errors = list(problems)
        failures: list[T2TError] = []
        inventory: ModuleInventory | None = None
        opened: Checkpoint | None = None
        try:
            # Where the mapping's own source has a problem, that one is told and enough.
            if read.checkpoint or path_option(options, "checkpoint") or not errors:
                opened = checkpoints.open(
                    checkpoint_path(read, path_option(options, "checkpoint")),
                    checksums=options.get("checksums", True),
                    reader=options.get("reader", "t2t"),
                    names=read.names,
                )
        except CheckpointError as error:
            failures.append(error)
        try:
            if not any(problem.at == read.model_at for problem in problems) and read.arguments is not None:
                self.module = module if module is not None else self._build(read)
                inventory = self.inventory = modules.inventory(self.module, read.model_at)
                errors += unmet(self.module, read.require)
        except T2TError as error:
            failures.append(error)
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
        if errors or failures:
            if opened is not None:
                opened.close()
            if not errors and len(failures) == 1:
                raise failures[0]
            raise MappingError(in_file_order([*errors, *(p for failure in failures for p in failure.problems)]))

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.checkpoint.close()

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
        """The plan's tensors in blocks, as `execute.blocks` gives them; then a note of what looks wrong in them."""
        values = Values(self.inventory)
        options = {"dtype": dtype, "seen": values.see, **self._values()}
        yield from execute.blocks(self.plan, self.checkpoint, self._kept(), room, **options)
        for problem in values.problems():
            self.note(problem)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """The plan's tensors whole, as `execute.tensors` gives them; then a note of what looks wrong in them."""
        values = Values(self.inventory)
        yield from execute.tensors(self.plan, self.checkpoint, self._kept(), seen=values.see, **self._values())
        for problem in values.problems():
            self.note(problem)

    def _kept(self) -> dict[str, Array]:
        """What the module was built with, for the rows that keep it."""
        from t2t import module as modules

        return modules.values(self.module, [step.target for step in self.plan.steps if step.rule.keep])

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
        original = original_path(self.mapping, self.checkpoint, self.options)
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
        original = original_path(self.mapping, self.checkpoint, self.options)
        for problem in lint.findings(self.plan, self.checkpoint.path, original, settings):
            self.note(problem)
        options: dict[str, Any] = {"tried": tried, "note": self.note}
        return diagnosis.diagnose(self.module, self.plan, self.checkpoint, recording, verify, **options)

    def metadata(self, recording: Recording | None) -> dict[str, str]:
        """
        What the file says of itself: versions, which mapping made it from which weights, and whether that is proven.

        It holds no figure that another machine would compute otherwise: the same input gives the same bytes.
        """
        import torch

        return {
            "format": "pt",
            "t2t": t2t.__version__,
            "t2t.mapping": self.mapping.digest,
            "t2t.model": self.mapping.model,
            "t2t.proof": "proven" if recording is not None else f"not proven: {self.unproven}",
            "t2t.source": self.checkpoint.inventory.digest,
            "t2t.torch": torch.__version__,
            **({"t2t.recording": recording.key} if recording is not None else {}),
        }


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


def read_mapping(path: str | os.PathLike[str]) -> tuple[MappingFile | None, list[Problem]]:
    """The mapping file. Raises CheckpointError (T2T602) where it cannot be read."""
    name = os.fspath(path)
    try:
        mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a FIFO or a device may have no end
            raise OSError(errno.EINVAL, "Not a regular file")
        with open(name, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "name a mapping, a .yaml file" if error.errno in {errno.ENOENT, errno.EINVAL, errno.EISDIR} else ""
        problem = Problem("T2T602", f"the mapping cannot be read: {error.strerror}", Location(name, 1, 1), hint)
        raise CheckpointError(problem) from None
    return mapping_file.read(data, name)


def checkpoint_path(mapping: MappingFile, replaced: str | None) -> str:
    """The checkpoint to open. Raises CheckpointError (T2T601) where nothing names one."""
    path = replaced or mapping.checkpoint
    if not path:
        raise CheckpointError(
            Problem("T2T601", "the mapping names no checkpoint", Location(mapping.path, 1, 1), "give --checkpoint")
        )
    return path


def original_path(mapping: MappingFile, checkpoint: Checkpoint, options: Options) -> str:
    """
    The original's file or directory. What belongs to the checkpoint follows --checkpoint: the checkpoint itself, its
    own .meta, and what lies beside or below it, which is looked for at the same place beside or below the given one.

    An address is looked for from the given checkpoint as it stands to the mapping's, whatever the way.
    """
    assert mapping.verify is not None
    path, given = mapping.verify.reference.path, path_option(options, "checkpoint")
    own = _plain(mapping.checkpoint).removesuffix(".index")
    if given is None or not path or not own:
        return path
    plain, whole = _plain(path), whole_path(checkpoint)
    if plain in (own, own.removesuffix(SAVED_VARIABLES)):
        return whole
    if plain == f"{own}.meta":
        return f"{checkpoint.path}.meta"
    if plain.startswith(f"{own}/"):  # the mapping names a directory
        folder = whole if whole != checkpoint.path else os.path.dirname(checkpoint.path)
        return os.path.join(folder, plain.removeprefix(f"{own}/"))
    if is_address(plain) != is_address(own) or os.path.isabs(plain) != os.path.isabs(own):
        return path
    way = os.path.relpath(_from_root(plain), os.path.dirname(_from_root(own.removesuffix(SAVED_VARIABLES))))
    if way.startswith("..") and not is_address(plain):
        return path
    stands = _plain(given) if os.path.isdir(given) else whole
    return os.path.normpath(os.path.join(os.path.dirname(stands), way))


#: Where a SavedModel's variables lie in it, as a prefix.
SAVED_VARIABLES = "/variables/variables"


def whole_path(checkpoint: Checkpoint) -> str:
    """The checkpoint as its own library takes it: a SavedModel's directory, else the path that was found."""
    folder = checkpoint.path.removesuffix(SAVED_VARIABLES)
    return folder if os.path.isfile(os.path.join(folder, "saved_model.pb")) else checkpoint.path


def _plain(path: str) -> str:
    """The path without what makes no difference; an address loses its last slashes only."""
    return path.rstrip("/") if is_address(path) or not path else os.path.normpath(path)


def _from_root(path: str) -> str:
    """An address as if its scheme and host were directories, so that a way between two of them can be told."""
    scheme, _, rest = path.partition("://")
    return f"/{scheme}/{rest}" if is_address(path) else path
