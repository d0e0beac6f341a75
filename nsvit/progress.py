"""How far a job is: a bar on a terminal, a line now and then in a log, and a sign of life.

Loops say what they do through `progress`. On a terminal that is a bar. In a log a thread writes
one line every `LINE_SECONDS` about the innermost loop, however long one step of it takes, and
touches the log's time every `BEAT_SECONDS`: that is how `nsvit status` knows, from any machine
that sees the disk, that a job is alive. The last line of a log says how the job ended.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from nsvit import launcher

T = TypeVar("T")

log = logging.getLogger(__name__)
_log = logging.getLogger("nsvit")

#: Seconds between two lines in a log; NSVIT_PROGRESS_SECONDS sets another number.
LINE_SECONDS = 30.0
#: Seconds between two touches of a log.
BEAT_SECONDS = 10.0

#: The first and the last line of a log of a job begin so; `nsvit.status` looks for them.
STARTED, FINISHED, FAILED = "started on", "finished in", "failed after"


class Loop(Generic[T]):
    """An iterable that knows how far it is.

    Attributes:
        description: what the loop does.
        total: how many items there are, None where that is not known.
        done: how many are finished.
        notes: numbers worth watching, by name.
    """

    def __init__(self, items: Iterable[T], description: str, total: int | None) -> None:
        self._items = items
        self.description = description
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.done = 0
        self.notes: dict[str, float] = {}
        self._began = time.monotonic()
        self._bar: Any = None

    def note(self, **values: float) -> None:
        """Shows numbers beside the progress, such as the distance that noise has reached."""
        self.notes = values
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)

    def __iter__(self) -> Iterator[T]:
        self._began = time.monotonic()
        _loops.append(self)
        try:
            for item in self._shown():
                yield item
                self.done += 1
        finally:
            if self in _loops:
                _loops.remove(self)

    def _shown(self) -> Iterable[T]:
        if not (sys.stderr.isatty() and launcher.is_first()):
            return self._items
        from tqdm import tqdm

        self._bar = tqdm(
            self._items,
            desc=f"{_stage.text}{self.description}",
            total=self.total,
            leave=False,
            dynamic_ncols=True,
        )
        return self._bar

    def line(self) -> str:
        """How far it is, in words."""
        seconds = time.monotonic() - self._began
        of = "" if self.total is None else f" of {self.total}"
        text = f"{self.description}: {self.done}{of}"
        if self.done:
            text += f", {rate(self.done / max(seconds, 1e-9))}"
            if self.total is not None:
                left = seconds / self.done * max(self.total - self.done, 0)
                text += f", {duration(left)} left"
        if self.notes:
            text += "; " + ", ".join(f"{name} {value:.3g}" for name, value in self.notes.items())
        return text


class _Stage:
    """Where in the whole job the loops are, such as the round of a finetuning."""

    def __init__(self) -> None:
        self.text = ""
        self.total = 0
        self._first: tuple[int, float] | None = None
        self._done = 0

    def set(self, text: str, done: int, total: int) -> None:
        if self._first is None or total != self.total or done < self._done:
            self._first = done, time.monotonic()
        self.text, self.total, self._done = f"{text}: " if text else "", total, done

    def left(self) -> str:
        """The time that the rest of the stages may take, by those that this process has seen."""
        if self._first is None or self._done <= self._first[0]:
            return ""
        seconds = time.monotonic() - self._first[1]
        each = seconds / (self._done - self._first[0])
        return f"; {duration(each * (self.total - self._done))} left in all"


_loops: list[Loop[Any]] = []
_stage = _Stage()


def stage(text: str, done: int = 0, total: int = 0) -> None:
    """Says in which of several equal parts of a job the loops are from now on.

    Args:
        text: goes before every line, such as "vit_s NS seed 0, round 3/20".
        done: parts that are finished.
        total: all parts; with 0 nothing is said about the time that is left in all.
    """
    _stage.set(text, done, total)


def rate(per_second: float) -> str:
    """A rate in the unit that has a readable number."""
    if per_second >= 1:
        return f"{per_second:.3g} a second"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.3g} a minute"
    return f"{per_second * 3600:.3g} an hour"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min 30 s, 3 h 5 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def current_line() -> str | None:
    """How far the innermost loop is; None where nothing loops."""
    try:
        innermost = _loops[-1]
    except IndexError:
        return None
    return f"{_stage.text}{innermost.line()}{_stage.left() if _stage.total else ''}"


@contextmanager
def alive() -> Iterator[None]:
    """Writes progress into the log meanwhile, keeps its time fresh, and at the end says how it was.

    Does nothing on a terminal. Of several processes of one job only the first writes lines, and
    whoever started them says how it was.

    Raises:
        NsvitError: NSVIT_PROGRESS_SECONDS is no number of seconds.
    """
    if sys.stderr.isatty():
        yield
        return
    begun, over = time.monotonic(), threading.Event()
    first, tells = launcher.is_first(), launcher.is_first() and not launcher.launched()
    if tells:
        _log.info("%s %s", STARTED, _where())
    thread, word, level = None, FAILED, logging.ERROR
    try:
        every = launcher.seconds("NSVIT_PROGRESS_SECONDS", LINE_SECONDS)
        asked = (over, _log_file(), first, every)
        thread = threading.Thread(target=_tell, args=asked, daemon=True)
        thread.start()
        yield
        word, level = FINISHED, logging.INFO
    finally:
        stage("")
        over.set()
        if thread is not None:
            thread.join(timeout=BEAT_SECONDS)
        if tells:
            _log.log(level, "%s %s", word, duration(time.monotonic() - begun))


def _where() -> str:
    """The machine, the process, and the job of a cluster that runs it."""
    number = os.environ.get("SLURM_JOB_ID")
    slurm = f", SLURM job {number}" if number else ""
    return f"{socket.gethostname()}, process {os.getpid()}{slurm}"


def _log_file() -> int | None:
    """The file that standard error goes to, None where it goes elsewhere."""
    try:
        number = sys.stderr.fileno()
        return number if stat.S_ISREG(os.fstat(number).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None


def _tell(over: threading.Event, file: int | None, first: bool, every: float) -> None:
    told = time.monotonic()
    while not over.wait(min(BEAT_SECONDS, every)):
        if file is not None:
            try:
                os.utime(file)
            except (OSError, TypeError):
                file = None
        if first and time.monotonic() - told >= every and (line := current_line()):
            log.info("%s", line)
            told = time.monotonic()
