"""
Which mappings the words of a command line mean: files, the directories that they lie in, the locks beside them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from t2t.names import shown
from t2t.problems import Problem, UsageError
from t2t.review.lock import ENDING

#: What a mapping's name ends in.
ENDINGS = (".yaml", ".yml")

#: Where mappings lie, if nothing else is said.
FOLDER = "mappings"


def mappings(paths: Sequence[str]) -> list[str]:
    """
    The mappings that these paths mean, each once: a directory stands for every .yaml and .yml file in it, a lock for
    the mapping that it lies beside; none at all for every such file under mappings/.

    Raises UsageError (T2T001) for a directory that has none.
    """
    found: list[str] = []
    for path in paths or [FOLDER]:
        if path.endswith(ENDING):
            beside = [path.removesuffix(ENDING) + ending for ending in ENDINGS]
            found += [name for name in beside if os.path.lexists(name)] or beside[:1]
        elif os.path.isdir(path) or not paths:
            inside = sorted(name for name in os.listdir(path) if name.endswith(ENDINGS)) if os.path.isdir(path) else []
            if not inside:
                message = f"there are no mappings under {shown(os.path.join(path, ''))}"
                raise UsageError(Problem("T2T001", message, None, "name the mappings"))
            found += [os.path.join(path, name) for name in inside]
        else:
            found.append(path)
    return list(dict.fromkeys(found))
