"""
Ctrl-C and SIGTERM end the command, wherever they come.

Python raises what a signal stands for at its next step. Where that step is in a `__del__`, in the callback of a weak
reference (each import that ends has one), or in other code that nobody waits for, Python prints "Exception ignored in"
and runs on. Here it is raised once more, in the code that was under way when the other one was called.

For the command line alone: a program that uses the API has its own signals.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM, as an exception: what is under way cleans up after itself."""


def install() -> None:
    """From here on SIGTERM raises Terminated, and neither that nor a KeyboardInterrupt is lost."""
    others = sys.unraisablehook

    def found(lost: sys.UnraisableHookArgs) -> None:
        for kind in (KeyboardInterrupt, Terminated):
            if issubclass(lost.exc_type, kind):
                # At Python's end nothing is under way, and there is nothing to interrupt.
                if under_way := sys._getframe().f_back:
                    _raise_in(under_way, kind)
                return
        others(lost)

    sys.unraisablehook = found
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def _raise_in(under_way: FrameType, kind: type[BaseException]) -> None:
    """
    Raises it when the frame takes its next step, as a debugger would stop there.

    Not before: until then, more callbacks may be called, where it would be lost again and they would not be run.
    """
    step = under_way.f_lasti

    def trace(frame: FrameType, *_: object) -> None:
        if frame is under_way or under_way.f_lasti != step:
            raise kind  # and Python takes this function away again

    under_way.f_trace = trace
    sys.settrace(trace)
