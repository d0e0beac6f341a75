"""What a run was expected to compute and cost, beside what it did cost."""

from __future__ import annotations

from dataclasses import dataclass

from nsvit import planning
from nsvit.config import Experiment

#: The device that the report's estimate is for; `nsvit plan` makes one for another.
GPU = "a100"


@dataclass(frozen=True)
class Planned:
    """The plan as a table.

    Attributes:
        header: of its columns.
        rows: a stage each, then all together.
        notes: what the numbers rest on.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def planned(exp: Experiment) -> Planned:
    """The plan of an experiment for one device of the kind `GPU`."""
    plan = planning.make_plan(exp, planning.speed_of(GPU))
    rows = tuple(tuple(row) for row in planning.stage_rows(plan))
    return Planned(planning.HEADER, rows, tuple(planning.notes(plan)))
