"""A table of accuracies to read: a part for each model, conditions down, arms across.

So a table is as wide as it has arms, which fits a terminal and a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsvit.specs import AccuracySpec
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import AVERAGE, is_asked, is_error
from nsvit.tables.accuracy_notes import DOUBTED, column_label, notes
from nsvit.tables.sheet import GAP, NOT_ASKED, Cell, Part, Sheet, half_width, number, signed

if TYPE_CHECKING:
    import pandas as pd

#: One cell of the long table.
Row = dict[Any, Any]


def accuracy_sheet(frame: pd.DataFrame, spec: AccuracySpec, doubts: Sequence[Doubt] = ()) -> Sheet:
    """The table to read, the paper's numbers under ours in italics.

    Args:
        frame: from `accuracy_table`.
        spec: the same spec.
        doubts: the same doubts, for the notes.
    """
    parts = []
    for model in spec.models:
        mine = frame[frame["model"] == model]
        parts += [_numbers(mine[mine["minus"] == ""], model, spec)]
        parts += [_differences(mine[mine["minus"] != ""], model, spec)]
    return Sheet(
        title=f"{spec.title}, in per cent",
        header=("Condition", "n"),
        parts=tuple(part for part in parts if part.rows),
        notes=tuple(notes(frame, spec, doubts)),
    )


def _numbers(frame: pd.DataFrame, model: str, spec: AccuracySpec) -> Part:
    """The accuracies of one model."""
    arms = [arm for name, arm in spec.runs() if name == model]
    if not arms:
        return Part("", ())
    cells = {(row["method"], row["column"]): row for row in frame.to_dict("records")}
    rows: list[tuple[Cell, ...]] = []
    for column in (*spec.columns, AVERAGE):
        found = [cells[arm, column] for arm in arms]
        best = _best(found, is_error(spec, column))
        rows += _lines(column, found, spec, [_cell(row, best, spec) for row in found])
    seeds = [_sizes([cells[arm, column]["seeds"] for column in spec.columns]) for arm in arms]
    rows.append((Cell("runs (seeds)"), Cell(""), *map(Cell, seeds)))
    labels = (spec.arms[arm].label for arm in arms)
    return Part(spec.models[model].label, tuple(rows), ("Condition", "n", *labels))


def _differences(frame: pd.DataFrame, model: str, spec: AccuracySpec) -> Part:
    """The paired differences of one model."""
    if not len(frame):
        return Part("", ())
    pairs = list(dict.fromkeys(zip(frame["method"], frame["minus"], strict=True)))
    cells = {(r["method"], r["minus"], r["column"]): r for r in frame.to_dict("records")}
    rows: list[tuple[Cell, ...]] = []
    for column in (*spec.columns, AVERAGE):
        found = [cells[arm, base, column] for arm, base in pairs]
        rows += _lines(column, found, spec, [_difference(row, spec) for row in found])
    labels = (f"{spec.arms[arm].label} − {spec.arms[base].label}" for arm, base in pairs)
    heading = f"{spec.models[model].label}: differences on the same pictures, in points"
    return Part(heading, tuple(rows), ("Condition", "n", *labels))


def _lines(
    column: str, found: list[Row], spec: AccuracySpec, cells: list[Cell]
) -> list[tuple[Cell, ...]]:
    """The row of a column, and the paper's below it where it prints something."""
    size = _sizes([row["n"] for row in found])
    rows: list[tuple[Cell, ...]] = [(Cell(column_label(spec, column)), Cell(size), *cells)]
    shown = signed if found[0]["minus"] else number
    printed = [shown(row["paper"]) for row in found]
    if set(printed) != {GAP}:
        texts = ["paper (ImageNet)", "", *("" if text == GAP else text for text in printed)]
        rows.append(tuple(Cell(text, style="paper") for text in texts))
    return rows


def _best(rows: list[Row], lowest: bool) -> str:
    """The best number of a row of the table as it is shown; "" where nothing is to compare."""
    values = [float(row["value"]) for row in rows if _known(row)]
    if len(values) < 2:
        return ""
    return number(min(values) if lowest else max(values))


def _cell(row: Row, best: str, spec: AccuracySpec) -> Cell:
    if not _known(row):
        return _nothing(row, spec)
    text = number(row["value"])
    width = half_width(row["value"], row["low"], row["high"])
    return Cell(text, width, "best" if text == best else "plain", _mark(row))


def _difference(row: Row, spec: AccuracySpec) -> Cell:
    if not _known(row):
        return _nothing(row, spec)
    width = half_width(row["value"], row["low"], row["high"])
    return Cell(signed(row["value"]), width, mark=_mark(row))


def _known(row: Row) -> bool:
    return bool(row["value"] == row["value"])


def _nothing(row: Row, spec: AccuracySpec) -> Cell:
    """An empty cell says whether anything should be in it."""
    arms = [arm for arm in (row["method"], row["minus"]) if arm]
    asked = all(is_asked(spec, row["model"], arm, row["column"]) for arm in arms)
    return Cell("missing" if asked else NOT_ASKED)


def _mark(row: Row) -> str:
    return DOUBTED if row["doubts"] else ""


def _sizes(values: Sequence[Any]) -> str:
    import pandas as pd

    known = sorted({int(value) for value in values if not pd.isna(value)})
    if not known:
        return GAP
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
