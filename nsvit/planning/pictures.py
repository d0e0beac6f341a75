"""How many pictures every set of an experiment has, before any of them is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nsvit import config as c
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES
from nsvit.data.published import PUBLISHED

#: Corruptions times severities.
CELLS = len(CORRUPTIONS) * len(SEVERITIES)


@dataclass(frozen=True)
class Sizes:
    """The sizes of the sets.

    Attributes:
        sets: pictures by set; in a corruption set those of one corruption and severity.
        corrupted: the sets of layout `corruption`, which have `CELLS` times as many.
        unknown: sets of which nobody said how many pictures they have; counted as empty.
    """

    sets: Mapping[str, int]
    corrupted: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = field(default=())

    def of(self, name: str, first: int | None = None) -> int:
        """Files of a set, or of its first n pictures (of every corruption and severity)."""
        count = self.sets.get(name, 0)
        count = count if first is None else min(first, count) if name in self.sets else first
        return count * (CELLS if name in self.corrupted else 1)


def sizes_of(exp: c.Experiment) -> Sizes:
    """The sizes as the configuration tells them: drawn, made, published, or `pictures`."""
    drawn = exp.data.menagerie.counts.model_dump() if exp.data.menagerie else {}
    found: dict[str, int] = {}
    for name, own in exp.data.sets.items():
        if own.pictures is not None:
            found[name] = own.pictures
        elif own.published is not None:
            found[name] = PUBLISHED[own.published].pictures
        elif name in drawn:
            found[name] = drawn[name]
    for name, own in exp.data.sets.items():
        if own.corrupt is not None and own.corrupt.source in found:
            found[name] = min(own.corrupt.images, found[own.corrupt.source])
        elif own.corrupt is not None:
            found[name] = own.corrupt.images
    corrupted = frozenset(n for n, own in exp.data.sets.items() if own.layout == "corruption")
    return Sizes(found, corrupted, tuple(n for n in exp.data.sets if n not in found))
