"""Versions of a small mapping over a fixed checkpoint, with locks as `t2t lock` would write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from t2t import mapping as mapping_file
from t2t import plan as planning
from t2t.mapping import Mapping as MappingFile
from t2t.review import locking
from t2t.review.diff import MappingDiff, compare
from t2t.review.lock import Figures, Proof
from t2t.review.revisions import Version
from t2t.tensors import CheckpointInventory, ModuleInventory, ParameterRef, TensorRef
from tests.given import lines

#: What the checkpoint holds, all of it float32.
SHAPES: dict[str, tuple[int, ...]] = {
    "b": (8,),
    "c": (8,),
    "sq": (4, 4),
    "sq2": (4, 4),
    "w": (6, 4),
    "k": (3, 3, 4, 4),
    "d": (24, 5),
    "emb/0": (3, 4),
    "emb/1": (3, 4),
    **{f"layer_{i}/kernel": (4, 4) for i in range(3)},
    **{f"layer_{i}/bias": (4,) for i in range(3)},
    **{f"bn/{name}": (4,) for name in ("gamma", "beta", "moving_mean", "moving_variance")},
}

#: Each row adds up with the other rows of its test: what it does not read is ignored.
END = 'ignore:\n- {tf: "**", why: not of this test}\n'

PROVEN = Proof("", {"source": "0" * 64}, {"logits": Figures(1.3e-05, 18.0, 1.8e-04)})


def inventory(dtype: str = "float32", shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> CheckpointInventory:
    """The checkpoint's variables, of which checksums are known."""
    refs = {
        name: TensorRef(name, dtype, shape, crc32c=number, key=name)
        for number, (name, shape) in enumerate(shapes.items())
    }
    return CheckpointInventory(refs)


def mapping(rows: Sequence[str], more: str = "", head: str = "model: a:A\nsource: {checkpoint: c}\n") -> str:
    """The file of these rows, which stand from line 5 on."""
    return "\n".join([f"t2t: 1\n{head}map:", *(f"- {row}" for row in rows)]) + "\n" + more + END


def read(text: str) -> MappingFile:
    """A mapping without a problem of its own."""
    found, problems = mapping_file.read(text.encode(), "m.yaml")

    assert lines(problems) == []
    assert found is not None

    return found


def lock(
    text: str, module: Mapping[str, tuple[int, ...]], *, dtype: str = "float32", proof: Proof = PROVEN, **more: object
) -> bytes:
    """The lock of a mapping that fits; of the module those parameters are given that no variable gives a shape."""
    made = read(text)
    checkpoint = inventory(dtype) if "checkpoint" not in more else more["checkpoint"]
    assert isinstance(checkpoint, CheckpointInventory)
    plan, _ = planning.make(made, checkpoint, None)
    steps = {step.target: step for step in plan.steps if step.target not in module}
    shapes = {**{name: step.shape for name, step in steps.items()}, **module}
    dtypes = {name: step.dtype for name, step in steps.items()}
    ties = {rule.target: rule.tie for rule in made.rules}
    refs = {n: ParameterRef(n, dtypes.get(n, dtype), s, tied_to=ties.get(n)) for n, s in shapes.items()}
    plan, problems = planning.make(made, checkpoint, ModuleInventory(refs))

    # Who else reads what is no matter here.
    errors = [problem for problem in problems if problem.severity == "error"]
    assert lines(problem for problem in errors if problem.code not in {"T2T205", "T2T206"}) == []

    outputs = dict.fromkeys(refs, 0)
    own = locking.made("", plan, ModuleInventory(refs), outputs=outputs, require={}, proof=proof, made_by={"t2t": "1"})
    return locking.text(own)


def compared(before: str, after: str, locks_of: tuple[bytes | None, bytes | None] = (None, None)) -> MappingDiff:
    """What changed, where both versions can be read."""
    versions = [
        Version(name, text.encode(), held)
        for name, text, held in zip(("old/m.yaml", "m.yaml"), (before, after), locks_of, strict=True)
    ]
    found, problems = compare("m.yaml", *versions)

    assert lines(problems) == []
    assert found is not None

    return found


def locked(before: str, after: str, module: Mapping[str, tuple[int, ...]] | None = None) -> MappingDiff:
    """What changed, each version with its own lock."""
    return compared(before, after, (lock(before, module or {}), lock(after, module or {})))
