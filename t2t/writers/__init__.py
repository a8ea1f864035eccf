"""Writers: one file per format, found in this table by the name that a mapping's `output.format` gives."""

from __future__ import annotations

from t2t.writers import safetensors

WRITERS = {"safetensors": safetensors.write}
