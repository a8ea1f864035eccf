"""
t2t gets weights out of TensorFlow and into PyTorch, by a mapping file that can be reviewed, and proves the result.

    >>> import t2t
    >>> model = t2t.load("mappings/madry.yaml")      # built, filled, proven, in eval()

The names below are the public API; everything else may change. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from t2t.api import (
        check,
        convert,
        diff,
        explain,
        iter_tensors,
        load,
        load_into,
        lock,
        mutate,
        open_checkpoint,
        record,
        report,
        verify,
    )
    from t2t.problems import (
        CheckpointError,
        Location,
        MappingError,
        ModuleError,
        OriginalError,
        OutputError,
        Problem,
        T2TError,
        UsageError,
    )

#: Where each public name lives. They are imported when first used: `import t2t` alone must not wait for numpy.
_HOMES = {
    **dict.fromkeys(
        (
            "check",
            "convert",
            "diff",
            "explain",
            "iter_tensors",
            "load",
            "load_into",
            "lock",
            "mutate",
            "open_checkpoint",
            "record",
            "report",
            "verify",
        ),
        "t2t.api",
    ),
    **dict.fromkeys(
        (
            "CheckpointError",
            "Location",
            "MappingError",
            "ModuleError",
            "OriginalError",
            "OutputError",
            "Problem",
            "T2TError",
            "UsageError",
        ),
        "t2t.problems",
    ),
}

__all__ = [
    "CheckpointError",
    "Location",
    "MappingError",
    "ModuleError",
    "OriginalError",
    "OutputError",
    "Problem",
    "T2TError",
    "UsageError",
    "check",
    "convert",
    "diff",
    "explain",
    "iter_tensors",
    "load",
    "load_into",
    "lock",
    "mutate",
    "open_checkpoint",
    "record",
    "report",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 't2t' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
