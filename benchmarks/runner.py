"""Cases and how they are timed. Nothing here knows what is measured."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from benchmarks.memory import peak_of
from nsvit.errors import NsvitError
from nsvit.runtime import progress

log = logging.getLogger("benchmarks")

Clock = Literal["cpu", "wall", "reported"]
CLOCKS: dict[Clock, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


@dataclass(frozen=True)
class Case:
    """The same work done by several sides.

    Attributes:
        name: what is done, in words.
        sides: by label, a function that does all of the work and returns its result.
        check: from the results of all sides to a line that says how far they agree.
            Raises `NsvitError` where they should and do not.
        baselines: the labels of the sides that the others are compared with.
        items: how many pictures (or whatever `unit` says) are worked on.
        unit: of the items.
        repeats: at most so many against the clock; 0 takes the time of the first run, in which
            the sides are also checked.
        threads: torch's; None leaves them.
        targets: by side, how many times faster than the first baseline it should be.
        limits: by side, the seconds that it should take at most.
        extras: by side, the part of its time that an extra should take at most; how much it took
            is the attribute `share` of each result.
        flat: two sides, of which the second should need no more memory than the first.
        flops: by side, floating-point operations of one item, for the share of the machine's
            ceiling.
        shares: by side, the part of the machine's ceiling that it should reach at least.
        tokens: patch tokens of one item that go through the network; 0: not told.
        clock: "cpu" is steadier on a busy machine; "wall" for work outside this process;
            "reported" takes the attribute `seconds` of each result.
    """

    name: str
    sides: Mapping[str, Callable[[], Any]]
    check: Callable[[Mapping[str, Any]], str]
    baselines: Sequence[str] = ()
    items: int = 1
    unit: str = "picture"
    clock: Clock = "cpu"
    repeats: int | None = None
    threads: int | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    extras: Mapping[str, float] = field(default_factory=dict)
    flat: tuple[str, str] | None = None
    flops: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0


@dataclass(frozen=True)
class Measured:
    """Times of one case.

    Attributes:
        case: what was timed.
        agreement: what its check said.
        seconds: by clock and side, one number for each repeat.
        memory: by side, MiB that the first run took at its peak on top of what was there before,
            None where that cannot be told.
        extras: by side of `Case.extras`, what was found, one number for each repeat.
    """

    case: Case
    agreement: str
    seconds: Mapping[str, Mapping[str, list[float]]]
    memory: Mapping[str, float | None]
    extras: Mapping[str, list[float]] = field(default_factory=dict)

    def milliseconds(self, side: str) -> float:
        """Median over the repeats, for one item."""
        return 1000.0 * statistics.median(self.seconds[self.case.clock][side]) / self.case.items

    def ratio(self, side: str, baseline: str) -> tuple[float, float, float]:
        """How many times faster than a baseline: median, smallest and largest over the repeats.

        Taken within each repeat, where both ran one after the other.
        """
        own = self.seconds[self.case.clock]
        ratios = [a / b for a, b in zip(own[baseline], own[side], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def measure(
    cases: Sequence[Case], repeats: int, refused: list[str] | None = None
) -> list[Measured]:
    """Runs every case once to see that its sides agree, then `repeats` times against the clock.

    The sides of a case take turns, every other repeat in reverse, and all cases have had their
    n-th repeat before one has its next, so that what else the machine does spreads over all.

    Args:
        cases: what to measure.
        repeats: at most.
        refused: told which cases' sides disagree, and how; the other cases are measured then.

    Raises:
        NsvitError: sides disagree, and nobody is to be told; names the case.
    """
    found = []
    for case in progress(cases, "checks"):
        try:
            found.append(_checked(case))
        except NsvitError as error:
            if refused is None:
                raise
            log.error("%s", error)
            refused.append(str(error))
    most = [repeats if one.case.repeats is None else one.case.repeats for one in found]
    for repeat in progress(range(min(max(most, default=0), repeats)), "repeats"):
        for one in (one for one, own in zip(found, most, strict=True) if repeat < own):
            sides = list(one.case.sides.items())
            for label, work in reversed(sides) if repeat % 2 else sides:
                _timed(one, label, work)
    return found


def _timed(one: Measured, label: str, work: Callable[[], Any]) -> Any:
    """Does the work of one side and notes its times."""
    with threads(one.case.threads):
        _wait()
        before = {name: clock() for name, clock in CLOCKS.items()}
        result = work()
        _wait()
        for name, clock in CLOCKS.items():
            one.seconds[name][label].append(clock() - before[name])
    if one.case.clock == "reported":
        one.seconds["reported"][label].append(result.seconds)
    if label in one.extras:
        one.extras[label].append(result.share)
    return result


def _checked(case: Case) -> Measured:
    clocks = dict.fromkeys((*CLOCKS, case.clock))
    memory: dict[str, float | None] = {}
    seconds: dict[str, dict[str, list[float]]] = {
        clock: {label: [] for label in case.sides} for clock in clocks
    }
    one = Measured(case, "", seconds, memory, {label: [] for label in case.extras})
    results = {}
    log.info("checking that all sides agree: %s", case.name)
    try:
        for label, work in case.sides.items():
            with peak_of(memory, label):
                results[label] = _timed(one, label, work)
        agreement = case.check(results)
    except NsvitError as error:
        raise NsvitError(f"benchmark {case.name!r}: {error}") from None
    if case.repeats != 0:  # the first run warms up, and is not counted
        for found in (*one.seconds.values(), one.extras):
            for own in found.values():
                own.clear()
    return replace(one, agreement=agreement)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Inside, torch has so many threads; None leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
