"""
The original's run: the child process of `t2t.proof.record`, the only one in which TensorFlow computes.

    python -P original.py REQUEST.json

It imports nothing of t2t, so that it runs from wherever this file lies without a word about paths: the folder
`originals` beside it is a package of its own here. The request and the result are described in `originals/run.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

#: The name of the folder beside this file as a package that has nothing above it.
_PACKAGE = "t2t_originals"


def main(request_path: str) -> int:
    """Run the request; 0 when every output is stored, 1 when the result says why not."""
    if _PACKAGE not in sys.modules:
        folder = Path(__file__).resolve().with_name("originals")
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    run = importlib.import_module(f"{_PACKAGE}.run")
    code: int = run.main(request_path)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
