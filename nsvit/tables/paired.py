"""Every method against the untouched and the plainly finetuned model, on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsvit import statistics
from nsvit.config import ArmKind
from nsvit.errors import NsvitError
from nsvit.records import Paths, read_table_scores
from nsvit.specs import TableSpec, of_everything
from nsvit.statistics import Comparison, Resampled
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import doubted_cells
from nsvit.tables.accuracy_notes import DOUBTED, doubt_notes
from nsvit.tables.sheet import GAP, Cell, Part, Sheet, number, signed

if TYPE_CHECKING:
    import pandas as pd

AVERAGE = "average"
#: What methods are compared with: the first arm of each kind.
REFERENCES: tuple[ArmKind, ...] = ("none", "plain")
#: Fixed decimals of the csv; points, except p.
DECIMALS = {
    **dict.fromkeys(("effect", "low", "high", "detectable"), 2),
    **dict.fromkeys(("p", "p_holm"), 6),
}
MARK = "*"
#: Lines of doubts under a table that is not of accuracies: those tables have them all.
MOST_DOUBTS = 3
#: In the column `note`.
UNKNOWN_SPREAD = "one seed, and no arm has several: the spread between seeds is unknown"


def table_paired(
    records: pd.DataFrame | Paths, spec: TableSpec, doubts: Sequence[Doubt] = ()
) -> pd.DataFrame:
    """Paired differences of every method against `none` and `plain`, long, in points (per cent).

    See `statistics.compare` for how. The paper has no such table.

    Args:
        records: records of finished runs, or the files they are in.
        spec: models, arms, conditions, robust sets, and how to make intervals.
        doubts: of these records.

    Returns:
        Columns model, method, versus, column (slugs; "average" last), effect (positive: the
        method is better, errors included), low, high, p, p_holm (over the whole table),
        detectable, n (pictures), seeds, note (why a row is empty, if it should not be, or what
        it leaves out), doubts (how many concern the difference).

    Raises:
        NsvitError: a file is missing or half-written, or the records name a model, arm or
            condition that the spec does not.
    """
    import pandas as pd

    resampled = statistics.resample(read_table_scores(records, spec), spec.statistics)
    doubted = doubted_cells(doubts, of_everything(spec))
    rows = [
        {
            "model": model,
            "method": method,
            "versus": versus,
            "column": column,
            **_compared(resampled, spec, model, method, versus, column),
            "doubts": doubts_on(doubted, spec, model, (method, versus), column),
        }
        for model, method, versus in _pairs(spec)
        for column in table_columns(spec)
    ]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame = frame.astype({"n": "Int64", "seeds": "Int64", "p": float})
    frame["p_holm"] = statistics.holm(frame["p"].to_numpy(dtype=float))
    return frame


_COLUMNS = ["model", "method", "versus", "column", "effect", "low", "high", "p", "p_holm"]
_COLUMNS += ["detectable", "n", "seeds", "note", "doubts"]


def doubts_on(
    doubted: Mapping[tuple[str, str, str], int],
    spec: TableSpec,
    model: str,
    arms: tuple[str, str],
    column: str,
) -> int:
    """How many doubts concern the difference of two arms on a column.

    Args:
        doubted: from `doubted_cells` with the spec `of_everything`.
        spec: of the table.
        model: slug.
        arms: both.
        column: slug, or "average" for that over the columns that both arms have.
    """
    wanted = spec.averaged(model, *arms) if column == AVERAGE else (column,)
    return sum(doubted.get((model, arm, one), 0) for arm in arms for one in wanted)


def table_columns(spec: TableSpec) -> tuple[str, ...]:
    """Conditions, robust sets, and the Average."""
    return (*spec.conditions, *spec.robust, AVERAGE)


def _pairs(spec: TableSpec) -> list[tuple[str, str, str]]:
    """(model, method, versus), in the order of the configuration."""
    out = []
    for model in spec.models:
        arms = spec.arms_of(model)
        for method in arms:
            for kind in REFERENCES:
                versus = next((slug for slug in arms if spec.arms[slug].kind == kind), None)
                # Of none and plain themselves one comparison is enough.
                if versus not in (None, method) and spec.arms[method].kind != "none":
                    out.append((model, method, str(versus)))
    return out


def _compared(
    resampled: Resampled, spec: TableSpec, model: str, method: str, versus: str, column: str
) -> dict[str, Any]:
    wanted = spec.averaged(model, method, versus) if column == AVERAGE else (column,)
    try:
        found = statistics.compare(
            resampled, (model, method), (model, versus), wanted, untrained=spec.untrained
        )
    except NsvitError as error:  # the other cells stand on their own
        return {"note": str(error)}
    if found is None:
        return {"note": ""}
    return {**points(found), "note": UNKNOWN_SPREAD if found.unknown_spread else ""}


def points(found: Comparison) -> dict[str, float | int]:
    """A comparison of fractions as points."""
    names = ("effect", "low", "high", "detectable")
    scaled = {name: round(100.0 * getattr(found, name), 6) for name in names}
    return {**scaled, "p": found.p, "n": found.n, "seeds": found.seeds}


# --- to read --------------------------------------------------------------------------------


def paired_sheet(frame: pd.DataFrame, spec: TableSpec, doubts: Sequence[Doubt] = ()) -> Sheet:
    """The paired table to read: a part for each model, marks where Holm leaves significance.

    Args:
        frame: from `table_paired`.
        spec: the same spec.
        doubts: the same doubts, for the notes.
    """
    columns = table_columns(spec)
    parts = [
        Part(spec.models[str(model)].label, tuple(_rows(part, spec, columns)))
        for model, part in frame.groupby("model", sort=False)
    ]
    header = ("Method − versus", *(_label(spec, column) for column in columns), "Seeds")
    notes = (*_notes(frame, spec), *doubt_notes(doubts, of_everything(spec), MOST_DOUBTS))
    return Sheet("Paired differences, in points", header, tuple(parts), notes)


def _label(spec: TableSpec, column: str) -> str:
    if column == AVERAGE:
        return "Average"
    return spec.robust[column].label if column in spec.robust else spec.conditions[column].label


def _rows(part: pd.DataFrame, spec: TableSpec, columns: Sequence[str]) -> list[tuple[Cell, ...]]:
    rows = []
    alpha = 1.0 - spec.statistics.confidence
    for (method, versus), own in part.groupby(["method", "versus"], sort=False):
        cells = {row["column"]: row for row in own.to_dict("records")}
        name = f"{spec.arms[str(method)].label} − {spec.arms[str(versus)].label}"
        shown = [
            Cell(_text(cells[column], alpha), mark=DOUBTED if cells[column]["doubts"] else "")
            for column in columns
        ]
        seeds = own["seeds"].dropna()
        rows.append((Cell(name), *shown, Cell(str(seeds.max()) if len(seeds) else GAP)))
    largest = part.groupby("column")["detectable"].max()
    found = [Cell(number(float(largest[column])), style="paper") for column in columns]
    rows.append((Cell("detectable, at most", style="paper"), *found, Cell("")))
    return rows


def _text(row: dict[Any, Any], alpha: float) -> str:
    sure = not math.isnan(row["p_holm"]) and row["p_holm"] < alpha
    return signed(row["effect"]) + (MARK if sure else "")


def _notes(frame: pd.DataFrame, spec: TableSpec) -> list[str]:
    tested = int(frame["p"].notna().sum())
    level = f"{100 * (1.0 - spec.statistics.confidence):g} %"
    notes = [
        "Differences on the same pictures, seeds paired; positive: the method is better, also for "
        "errors. Average: over the columns that count and that both have. Intervals and p-values "
        "are in the csv.",
        f"{MARK}: significant at {level} after Holm's correction over all {tested} comparisons of "
        "this table. Unmarked is undecided, not equal.",
        "Detectable: the smallest true difference that would be found with 80 % power before "
        "that correction; the largest of the rows.",
    ]
    unknown = frame["note"] == UNKNOWN_SPREAD
    if unknown.any():
        pairs = frame[unknown][["model", "method", "versus"]].drop_duplicates()
        named = "; ".join(
            f"{spec.models[m].label}: {spec.arms[a].label} − {spec.arms[b].label}"
            for m, a, b in pairs.itertuples(index=False, name=None)
        )
        notes.append(f"Of runs, not of methods ({UNKNOWN_SPREAD}): {named}.")
    elif any(len(arm.seeds) == 1 for s, arm in spec.arms.items() if s not in spec.untrained):
        notes.append(
            "An arm that is trained with one seed is taken to vary between seeds as those with "
            "several do on average, which widens its intervals."
        )
    lost = list(dict.fromkeys(text for text in frame["note"][~unknown] if text))
    return [*notes, *(f"Not compared: {text}." for text in lost)]
