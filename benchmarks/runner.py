"""Cases and how they are timed. Nothing here knows what is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nsvit.errors import NsvitError
from nsvit.runtime import progress

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


@dataclass(frozen=True)
class Measured:
    """Times of one case.

    Attributes:
        case: what was timed.
        agreement: what its check said.
        seconds: by clock and side, one number for each repeat.
    """

    case: Case
    agreement: str
    seconds: Mapping[str, Mapping[str, list[float]]]

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


def measure(cases: Sequence[Case], repeats: int) -> list[Measured]:
    """Runs every case once to see that its sides agree, then `repeats` times against the clock.

    The sides of a case take turns, every other repeat in reverse, and all cases have had their
    n-th repeat before one has its next, so that what else the machine does spreads over all.

    Raises:
        NsvitError: sides disagree; names the case.
    """
    found = [_checked(case) for case in cases]
    for repeat in progress(range(repeats), "repeats"):
        for one in found:
            sides = list(one.case.sides.items())
            for label, work in reversed(sides) if repeat % 2 else sides:
                before = {name: clock() for name, clock in CLOCKS.items()}
                result = work()
                for name, clock in CLOCKS.items():
                    one.seconds[name][label].append(clock() - before[name])
                if one.case.clock == "reported":
                    one.seconds["reported"][label].append(result.seconds)
    return found


def _checked(case: Case) -> Measured:
    try:
        agreement = case.check({label: work() for label, work in case.sides.items()})
    except NsvitError as error:
        raise NsvitError(f"benchmark {case.name!r}: {error}") from None
    clocks = dict.fromkeys((*CLOCKS, case.clock))
    return Measured(
        case, agreement, {clock: {label: [] for label in case.sides} for clock in clocks}
    )
