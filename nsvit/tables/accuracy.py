"""Accuracies of models and arms under conditions: the numbers of Table 1 and its kin."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from nsvit import paper, statistics
from nsvit.records import Paths, images_of, read_scores
from nsvit.specs import AccuracySpec
from nsvit.statistics import Estimate
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    import pandas as pd

AVERAGE = "average"
#: Fixed decimals of the csv; per cent.
DECIMALS = {"value": 2, "low": 2, "high": 2, "paper": 2}
#: The `round` of finished runs.
_FINAL = -1


def accuracy_table(
    records: pd.DataFrame | Paths,
    spec: AccuracySpec,
    doubts: Sequence[Doubt] = (),
) -> pd.DataFrame:
    """One table of accuracies, long, in per cent.

    Args:
        records: records of finished runs, or the files they are in. Conditions that the table
            does not show are left out; models and arms that it does not show count in the spread
            between seeds, so that a difference has one interval in whatever table it stands.
        spec: models, arms and columns, in table order, and how to make intervals.
        doubts: of these records.

    Returns:
        Columns model, method, minus, column (slugs; column "average" last), value, low, high, n
        (pictures), seeds, paper, doubts (how many concern the number). `minus` is "" for the
        numbers themselves; after them come the paired differences to each arm of
        `spec.against`, with that arm in `minus` (each pair of arms once). Where nothing was
        evaluated value is NaN.

    Raises:
        NsvitError: a file is missing or half-written, members of a robust set or seeds differ in
            their pictures.
    """
    import pandas as pd

    resampled = statistics.resample(_scores(records, spec), spec.statistics)
    doubted = doubted_cells(doubts, spec)
    rows = []
    for model, arm, base in _lines(spec):
        for column in (*spec.columns, AVERAGE):
            arms = (arm, base) if base else (arm,)
            rows.append({
                "model": model,
                "method": arm,
                "minus": base,
                "column": column,
                **_per_cent(_estimate(resampled, spec, model, arms, column)),
                "paper": _paper_value(spec, model, arms, column),
                "doubts": sum(doubted.get((model, one, column), 0) for one in arms),
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    numbers = ["value", "low", "high", "paper"]
    return frame.astype({"n": "Int64", "seeds": "Int64", **dict.fromkeys(numbers, float)})


def _lines(spec: AccuracySpec) -> Iterator[tuple[str, str, str]]:
    """Model, arm, and the arm to subtract or ""."""
    runs = spec.runs()
    yield from ((model, arm, "") for model, arm in runs)
    for place, base in enumerate(spec.against):
        others = [run for run in runs if run[1] not in spec.against[: place + 1]]
        yield from ((model, arm, base) for model, arm in others if (model, base) in runs)


def _scores(records: pd.DataFrame | Paths, spec: AccuracySpec) -> pd.DataFrame:
    """Scores of the conditions that the table needs, with its robust sets added."""
    normalised = [slug for slug, one in spec.conditions.items() if one.metric == "mce"]
    scores = read_scores(records, normalised=normalised, conditions=list(spec.conditions))
    needed = scores[scores["condition"].isin(list(spec.conditions))]
    robust = {slug: one.conditions for slug, one in spec.robust.items()}
    return statistics.add_robust(needed, robust, images_of(spec.conditions))


def _estimate(
    resampled: statistics.Resampled,
    spec: AccuracySpec,
    model: str,
    arms: tuple[str, ...],
    column: str,
) -> Estimate | None:
    if not all(is_asked(spec, model, arm, column) for arm in arms):
        return None
    wanted = average_columns(spec, model) if column == AVERAGE else (column,)
    groups = [(model, arm, _FINAL) for arm in arms]
    if len(groups) > 1:
        error = is_error(spec, column)
        return _difference(resampled, groups[0][:2], groups[1][:2], wanted, error, spec.untrained)
    return resampled.estimate(groups[0], wanted)


def _difference(
    resampled: statistics.Resampled,
    row: tuple[str, str],
    base: tuple[str, str],
    conditions: Sequence[str],
    error: bool,
    untrained: Collection[str],
) -> Estimate | None:
    """Row - base with the interval of the paired test; of an error a negative one is better."""
    found = statistics.compare(resampled, row, base, conditions, untrained=untrained)
    if found is None:
        return None
    ends = (-found.high, -found.low) if error else (found.low, found.high)
    effect = -found.effect if error else found.effect
    return Estimate(effect, *ends, found.n, found.seeds)


def _per_cent(found: Estimate | None) -> dict[str, float | int | None]:
    if found is None:
        return {"value": None, "low": None, "high": None, "n": None, "seeds": None}
    shares = {key: round(100.0 * getattr(found, key), 6) for key in ("value", "low", "high")}
    return {**shares, "n": found.n, "seeds": found.seeds}


# --- which cells there are ------------------------------------------------------------------


def is_asked(spec: AccuracySpec, model: str, arm: str, column: str) -> bool:
    """Whether the configuration has the runs of an arm evaluated in a column."""
    if column == AVERAGE:
        return bool(average_columns(spec, model))
    if column in spec.robust:
        return all(is_asked(spec, model, arm, one) for one in spec.robust[column].conditions)
    own = spec.conditions[column]
    return model in (own.models or (model,)) and arm in (own.arms or (arm,))


def average_columns(spec: AccuracySpec, model: str) -> tuple[str, ...]:
    """The columns that a model's Average is taken over: the same for all of its arms.

    Those that count (`average`) and that every arm of the model in this table is evaluated in:
    an average over other columns could not be compared. Robust sets never count.
    """
    arms = [arm for name, arm in spec.runs() if name == model]
    return tuple(
        column
        for column in spec.columns
        if column in spec.conditions
        and spec.conditions[column].average
        and all(is_asked(spec, model, arm, column) for arm in arms)
    )


def is_error(spec: AccuracySpec, column: str) -> bool:
    """Whether lower is better in a column."""
    return column in spec.conditions and spec.conditions[column].is_error


def _paper_value(
    spec: AccuracySpec, model: str, arms: tuple[str, ...], column: str
) -> float | None:
    """What the paper prints, or the difference of what it prints for two arms."""
    found = [_printed(spec, model, arm, column) for arm in arms]
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return None
    # 71.1 - 55.95 is 15.15, also to floats.
    return round(known[0] - known[1], 6) if len(known) > 1 else known[0]


def _printed(spec: AccuracySpec, model: str, arm: str, column: str) -> float | None:
    row = spec.models[model].paper, spec.arms[arm].paper
    if column == AVERAGE:
        columns = [spec.conditions[slug].paper for slug in average_columns(spec, model)]
        return paper.average(*row, columns)
    if column in spec.robust:
        return None
    return paper.row(*row).get(spec.conditions[column].paper or "")


# --- doubts ---------------------------------------------------------------------------------


def doubted_cells(doubts: Sequence[Doubt], spec: AccuracySpec) -> dict[tuple[str, str, str], int]:
    """How many doubts concern each (model, arm, column), robust sets and Average included."""
    counts: dict[tuple[str, str, str], int] = {}
    for doubt in doubts:
        for cell in cells_of(doubt, spec):
            counts[cell] = counts.get(cell, 0) + 1
    return counts


def cells_of(doubt: Doubt, spec: AccuracySpec) -> list[tuple[str, str, str]]:
    """The cells (model, arm, column) of this table that a doubt concerns.

    A doubt about a run and a set, without a condition, concerns every attack on that set; one
    about a source model the attacks on the set that follow it, in all rows.
    """
    place = doubt.place()
    if place is None:
        return []
    runs = spec.runs() if place.source else [(place.model, place.arm)]
    named = {place.condition} if place.condition else _attacks(spec, place.set, place.source)
    return [
        (model, arm, column)
        for model, arm in runs
        if (model, arm) in spec.runs()
        for column in (*spec.columns, AVERAGE)
        if is_asked(spec, model, arm, column) and named.intersection(members(spec, model, column))
    ]


def _attacks(spec: AccuracySpec, set_name: str, source: str) -> set[str]:
    """The attacks on a set, or those that follow a source model."""
    return {
        slug
        for slug, one in spec.conditions.items()
        if one.set == set_name
        and one.attack is not None
        and source in ("", getattr(one.attack, "source", None))
    }


def members(spec: AccuracySpec, model: str, column: str) -> tuple[str, ...]:
    """The conditions that a column is made of."""
    if column == AVERAGE:
        return average_columns(spec, model)
    return spec.robust[column].conditions if column in spec.robust else (column,)
