"""Being asked to end: SIGTERM from a scheduler, Ctrl-C from a person. No torch.

Work that can save what it has runs inside `deferred`: a signal then only sets a flag, and
`point`, called between two steps, raises `Stopped`. Everywhere else the command line raises it at
once. `Stopped` is not an `Exception`, so that nothing that mends errors swallows it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

#: What a scheduler sends before it kills.
ASKED = (signal.SIGTERM, signal.SIGINT)

_caught: int | None = None
_agree: Callable[[bool], bool] | None = None


class Stopped(BaseException):
    """The process was asked to end.

    Attributes:
        code: the exit status that says so, 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        self.code = 128 + number
        super().__init__(f"stopped by {self.signal.name}")


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, SIGTERM and SIGINT wait for the next `point`; a second SIGINT does not.

    If the work ends before it comes to a point, the signal is forgotten: there is nothing left to
    stop. In a thread that is not the main one nothing changes: Python handles signals elsewhere.
    """
    global _caught
    if not _main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in ASKED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _caught = None


def _main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _note(number: int, frame: FrameType | None) -> None:
    global _caught
    if _caught is not None and number == signal.SIGINT:
        raise KeyboardInterrupt
    _caught = number


def at_once() -> None:
    """SIGTERM raises `Stopped` where the process is, so that temporary files are swept.

    Only in this process: one that it forks is ended by SIGTERM as any other.
    """
    if not _main_thread():
        return
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def together(agree: Callable[[bool], bool]) -> Iterator[None]:
    """Inside, all processes of a job stop at the same point.

    Args:
        agree: collective; from whether this process was asked to whether any was.
    """
    global _agree
    before, _agree = _agree, agree
    try:
        yield
    finally:
        _agree = before


def point() -> None:
    """Raises `Stopped` if the process was asked to; all processes of a job come here alike."""
    asked = _caught is not None
    if asked if _agree is None else _agree(asked):
        raise Stopped(signal.SIGTERM if _caught is None else _caught)


def own_point() -> None:
    """As `point`, inside work that differs from process to process; not where several agree."""
    if _agree is None:
        point()
