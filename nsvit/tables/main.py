"""Table 1: every model and arm under every condition, beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import paper, statistics
from nsvit.errors import NsvitError
from nsvit.records import read_scores
from nsvit.specs import TableSpec
from nsvit.statistics import Estimate
from nsvit.tables.sheet import GAP, Cell, Part, Sheet, estimate_cell, number

if TYPE_CHECKING:
    import pandas as pd

AVERAGE = "average"
#: Fixed decimals of the csv; per cent.
DECIMALS = {"value": 2, "low": 2, "high": 2, "paper": 2}


def table1(
    records: pd.DataFrame | Sequence[str | Path],
    spec: TableSpec,
) -> pd.DataFrame:
    """The main table, long, in per cent (the paper's Table 1).

    Args:
        records: records of finished runs, or the parquet files they are in.
        spec: models, arms and conditions, in table order, and how to make intervals. Differs
            from the paper where a corruption condition has the metric corruption_error: C is
            then the unnormalised mean corruption error, not mCE.

    Returns:
        Columns model, method, column (slugs; column "average" last), value, low, high, n
        (pictures), seeds, paper. Where there are no records value is NaN.

    Raises:
        NsvitError: a file is missing or half-written, the records name a model, arm or
            condition that the spec does not, or seeds differ in their pictures.
    """
    import pandas as pd

    scores = read_scores(records, normalised=spec.normalised)
    _check_known(scores, spec)
    resampled = statistics.resample(scores, spec.statistics)
    averaged = average_columns(spec)
    rows = []
    for model, arm in _pairs(spec):
        for column in (*spec.conditions, AVERAGE):
            wanted = averaged if column == AVERAGE else (column,)
            found = resampled.estimate((model, arm, -1), wanted)
            rows.append({
                "model": model,
                "method": arm,
                "column": column,
                **_per_cent(found),
                "paper": _paper_value(spec, model, arm, column),
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.astype({"n": "Int64", "seeds": "Int64", "paper": float})


def average_columns(spec: TableSpec) -> tuple[str, ...]:
    """The conditions that count in the Average column."""
    return tuple(slug for slug, condition in spec.conditions.items() if condition.average)


def _pairs(spec: TableSpec) -> list[tuple[str, str]]:
    return [
        (model, slug)
        for model in spec.models
        for slug, arm in spec.arms.items()
        if arm.models is None or model in arm.models
    ]


def _check_known(scores: pd.DataFrame, spec: TableSpec) -> None:
    known: dict[str, Mapping[str, Any]] = {
        "model": spec.models,
        "arm": spec.arms,
        "condition": spec.conditions,
    }
    for key, among in known.items():
        odd = sorted({str(value) for value in scores[key].unique()} - set(among))
        if odd:
            raise NsvitError(
                f"records name {key} {', '.join(odd)}; the config has {', '.join(among)}"
            )


def _per_cent(found: Estimate | None) -> dict[str, float | int | None]:
    if found is None:
        return {"value": None, "low": None, "high": None, "n": None, "seeds": None}
    shares = {key: round(100.0 * getattr(found, key), 2) for key in ("value", "low", "high")}
    return {**shares, "n": found.n, "seeds": found.seeds}


def _paper_value(spec: TableSpec, model: str, arm: str, column: str) -> float | None:
    row = spec.models[model].paper, spec.arms[arm].paper
    if column == AVERAGE:
        columns = [spec.conditions[slug].paper for slug in average_columns(spec)]
        return paper.average(*row, columns)
    return paper.row(*row).get(spec.conditions[column].paper or "")


# --- to read --------------------------------------------------------------------------------


def table1_sheet(frame: pd.DataFrame, spec: TableSpec, normalised: bool = False) -> Sheet:
    """The main table to read: a part for each model, the paper's rows beside ours in italics.

    Args:
        frame: from `table1`.
        spec: the same spec.
        normalised: whether corruption errors were divided by AlexNet's.
    """
    parts = [_part(frame[frame["model"] == model], model, spec) for model in spec.models]
    return Sheet(
        title="Table 1: accuracy per condition, in per cent",
        header=("Method", *(_label(spec, c) for c in (*spec.conditions, AVERAGE)), "Seeds"),
        parts=tuple(part for part in parts if part.rows),
        notes=tuple(_notes(frame, spec, normalised)),
    )


def _label(spec: TableSpec, column: str) -> str:
    if column == AVERAGE:
        return "Average"
    return spec.conditions[column].label + (" ↓" if _is_error(spec, column) else "")


def _is_error(spec: TableSpec, column: str) -> bool:
    return column != AVERAGE and spec.conditions[column].is_error


def _part(frame: pd.DataFrame, model: str, spec: TableSpec) -> Part:
    columns = (*spec.conditions, AVERAGE)
    cells = {(row["method"], row["column"]): row for row in frame.to_dict("records")}
    best = {column: _best(frame, spec, column) for column in columns}
    rows = []
    for arm in (slug for name, slug in _pairs(spec) if name == model):
        found = [cells[arm, column] for column in columns]
        rows.append((
            Cell(spec.arms[arm].label),
            *(_cell(row, best[row["column"]]) for row in found),
            Cell(_seeds(found)),
        ))  # fmt: skip
        printed = [number(row["paper"]) for row in found]
        if set(printed) != {GAP}:
            name = f"paper: {spec.arms[arm].paper}"
            texts = [name, *(text if text != GAP else "" for text in printed), ""]
            rows.append(tuple(Cell(text, style="paper") for text in texts))
    sizes = [_sizes(frame[frame["column"] == column]["n"]) for column in columns]
    rows.append((Cell("pictures"), *(Cell(text) for text in sizes), Cell("")))
    return Part(spec.models[model].label, tuple(rows))


def _best(frame: pd.DataFrame, spec: TableSpec, column: str) -> float:
    values = frame[frame["column"] == column]["value"]
    return float(values.min() if _is_error(spec, column) else values.max())


def _cell(row: dict[Any, Any], best: float) -> Cell:
    cell = estimate_cell(row["value"], row["low"], row["high"])
    return replace(cell, style="best") if row["value"] == best else cell


def _seeds(rows: list[dict[Any, Any]]) -> str:
    return _sizes([row["seeds"] for row in rows])


def _sizes(values: Any) -> str:
    import pandas as pd

    known = sorted({int(value) for value in values if not pd.isna(value)})
    if not known:
        return GAP
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _notes(frame: pd.DataFrame, spec: TableSpec, normalised: bool) -> list[str]:
    s = spec.statistics
    averaged = average_columns(spec)
    labels = ", ".join(spec.conditions[slug].label for slug in averaged)
    notes = [
        f"Brackets: {100 * s.confidence:g} % intervals; Wilson for the accuracy of a single run, "
        f"else percentile bootstrap ({s.resamples} resamples) over pictures, and over seeds "
        "where there are several. Bold: best value of the model in its column, not a test.",
        f"Average: mean of {labels}; errors count as 100 - error. Pictures of conditions that "
        "share a set are resampled together.",
    ]
    if any(_is_error(spec, column) for column in spec.conditions):
        how = "divided by AlexNet's (mCE)" if normalised else "not normalised, so not an mCE"
        notes.append(
            f"Corruption error (↓ lower is better): mean over corruptions and severities, {how}; "
            "each picture is shown in every corruption and severity."
        )
    if frame["paper"].notna().any():
        notes += _paper_notes(spec)
    missing = missing_cells(frame, spec)
    notes += _seed_notes(spec)
    return [*notes, *([f"Missing: {'; '.join(missing)}."] if missing else [])]


def _paper_notes(spec: TableSpec) -> list[str]:
    notes = [
        "Italics: the paper's printed numbers (arXiv 2403.10476; single runs, ImageNet-1k and its "
        "siblings; its C is an mCE). On other pictures, such as Menagerie, levels cannot be "
        "compared with them, only the sign of a difference."
    ]
    columns = {spec.conditions[slug].paper for slug in average_columns(spec)}
    if columns != set(paper.COLUMNS):
        notes.append(
            "The paper's averages are recomputed over the columns that count here; it prints "
            "them over eleven columns."
        )
    return notes


def _seed_notes(spec: TableSpec) -> list[str]:
    """Models that the configuration gives fewer seeds than the arms have, for time."""
    most = max(len(arm.seeds) for arm in spec.arms.values())
    few = {m.label: m.max_seeds for m in spec.models.values() if (m.max_seeds or most) < most}
    if not few:
        return []
    named = "; ".join(f"{label}: at most {seeds}" for label, seeds in few.items())
    return [f"Fewer seeds where time forbids more: {named}."]


def missing_cells(frame: pd.DataFrame, spec: TableSpec) -> list[str]:
    """What the table lacks, in words: rows without records, columns, seeds."""
    out = []
    for (model, arm), part in frame.groupby(["model", "method"], sort=False):
        name = f"{spec.models[str(model)].label}, {spec.arms[str(arm)].label}"
        gaps = part[part["value"].isna()]
        expected = len(spec.arms[str(arm)].seeds[: spec.models[str(model)].max_seeds])
        fewer = part[part["seeds"].notna() & (part["seeds"] < expected)]
        if len(gaps) == len(part):
            out.append(f"{name} (no records)")
            continue
        if len(gaps):
            out.append(f"{name}: {', '.join(_label(spec, str(c)) for c in gaps['column'])}")
        if len(fewer):
            out.append(f"{name}: {int(fewer['seeds'].min())} of {expected} seeds")
    return out
