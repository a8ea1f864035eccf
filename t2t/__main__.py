"""`python -m t2t`, the same as the console script `t2t`."""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Runs the command line and returns the exit status."""
    # `python -m` puts the current directory first: a stray yaml.py there must not win over the real one. It stays
    # importable, at the end, because that is where a mapping's model usually is.
    try:
        here = os.getcwd()
    except OSError:
        sys.stderr.write("t2t: the current directory does not exist any more\n")
        return 2
    if not sys.flags.safe_path and sys.path and sys.path[0] in {"", here}:
        sys.path.append(sys.path.pop(0))
    from t2t import interrupts

    interrupts.install()
    # What modules make lives until the end: to search it for cycles over and over takes an eighth of a short command.
    gc.disable()
    try:
        from t2t import cli
    except KeyboardInterrupt:  # from here on cli sees to both
        return 130
    except interrupts.Terminated:
        return 143
    gc.freeze()
    gc.enable()
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
