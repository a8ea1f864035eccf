"""
Where the original's graph lies, if it is on this machine. To know that there is none costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from t2t.checkpoints.files import is_address
from t2t.mapping import Mapping as MappingFile

if TYPE_CHECKING:
    from t2t.checkpoints.graph import Kind


def graph_file(mapping: MappingFile, checkpoint: str, original: str) -> tuple[Kind, str, bool] | None:
    """The graph's kind and file, and whether verify names it; None where there is none on this machine."""
    verify = mapping.verify
    if verify is not None and original and not is_address(original):
        kind: Kind | None = next(
            (kind for kind in ("graph", "saved_model", "frozen") if kind == verify.reference.kind), None
        )
        path = os.path.join(original, "saved_model.pb") if kind == "saved_model" else original
        if kind and os.path.isfile(path):
            return kind, path, True
    if is_address(checkpoint):
        return None
    if os.path.isfile(f"{checkpoint}.meta"):
        return "graph", f"{checkpoint}.meta", False
    folder, name = os.path.split(checkpoint)
    saved_model = os.path.join(os.path.dirname(folder), "saved_model.pb")
    if name == "variables" and os.path.basename(folder) == "variables" and os.path.isfile(saved_model):
        return "saved_model", saved_model, False
    return None
