"""Influence: what learned, permuted and Gaussian noise of one norm does, for every block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit.errors import NsvitError
from nsvit.records import read_records
from nsvit.specs import TableSpec
from nsvit.tables.noises import means_of, spread
from nsvit.tables.sheet import Cell, Part, Sheet, estimate_cell, number

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "model",
    "block",
    "draw",
    "noise",
    "sample",
    "agree",
    "logit_distance",
    "probability_distance",
    "norm",
    "limit",
    "steps",
    "epsilon_met",
)
NOISES = ("learned", "permuted", "gaussian")
#: Fixed decimals of the csv. Agreement and epsilon_met are per cent, distances are not.
DECIMALS = {
    **{f"agreement{end}": 2 for end in ("", "_low", "_high")},
    **{f"logit_distance{end}": 4 for end in ("", "_low", "_high")},
    **{f"probability_distance{end}": 5 for end in ("", "_low", "_high")},
    **{f"norm{end}": 3 for end in ("", "_low", "_high")},
    "limit": 3,
    "steps": 1,
    "epsilon_met": 1,
}


def read_influence(paths: Sequence[str | Path]) -> pd.DataFrame:
    """The influence frames of several models as one (see `nsvit.influence`).

    Raises:
        NsvitError: a file is missing, half-written or of another kind.
    """
    return read_records(paths, COLUMNS, kind="influence")


def table_influence(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Agreement, distances and norms per model, block and kind of noise.

    Args:
        frame: one row per model x block x draw x noise x sample (kind "influence").
        spec: models (order) and how to make intervals.

    Returns:
        One row per model, block, noise. Per cent: agreement, epsilon_met (share of draws).
        Means: logit_distance (L2), probability_distance (sum of squares), norm, limit, steps.
        `*_low`, `*_high`: bootstrap over draws and pictures; for norm the smallest and the
        largest draw. `censored`: some draw was inside epsilon before the first step, so its
        norm is only the starting norm. Then n (pictures) and draws.

    Raises:
        NsvitError: draws have different pictures, or a model is not in the spec.
    """
    import pandas as pd

    order = list(spec.models)
    odd = sorted({str(m) for m in frame["model"].unique()} - set(order))
    if odd:
        raise NsvitError(f"influence names model {', '.join(odd)}; the config has {order}")
    rows = []
    for (model, block, noise), part in frame.groupby(["model", "block", "noise"], observed=True):
        key = {"model": str(model), "block": int(str(block)), "noise": str(noise)}
        rows.append({**key, **_row(part, " ".join(map(str, key.values())), spec)})
    rows.sort(key=lambda r: (order.index(r["model"]), r["block"], NOISES.index(r["noise"])))
    return pd.DataFrame(rows)


def _row(part: pd.DataFrame, name: str, spec: TableSpec) -> dict[str, Any]:
    row: dict[str, Any] = {}
    scaled = {"agree": 100.0, "logit_distance": 1.0, "probability_distance": 1.0}
    found = means_of(part, list(scaled), f"influence {name}", spec.statistics)
    for column, factor in scaled.items():
        row |= spread("agreement" if column == "agree" else column, found[column], factor)
    each = part.groupby("draw")[["norm", "limit", "steps", "epsilon_met"]].first()
    return row | {
        "norm": float(each["norm"].mean()),
        "norm_low": float(each["norm"].min()),
        "norm_high": float(each["norm"].max()),
        "limit": float(each["limit"].mean()),
        "steps": float(each["steps"].mean()),
        "epsilon_met": 100.0 * float(each["epsilon_met"].mean()),
        "censored": bool((each["steps"] == 0).any()),
        "n": part["sample"].nunique(),
        "draws": len(each),
    }


# --- to read --------------------------------------------------------------------------------


def influence_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The influence table to read: a part for each model."""
    header: tuple[str, ...] = (
        "Block",
        "Noise",
        "Agreement %",
        "Logit distance",
        "Probability distance",
    )
    header += ("Norm", "Steps", "Within epsilon %")
    parts = tuple(
        Part(spec.models[str(model)].label, tuple(_cells(row) for row in part.to_dict("records")))
        for model, part in frame.groupby("model", sort=False)
    )
    sizes = ", ".join(sorted({str(n) for n in frame["n"]}))
    draws = ", ".join(sorted({str(n) for n in frame["draws"]}))
    notes = [
        f"{sizes} held-out pictures, {draws} noises per block; brackets: "
        f"{100 * spec.statistics.confidence:g} % bootstrap intervals over noises and pictures, "
        "for the norm its range over noises.",
        "Block 0 is the output of the patch embedding, block k the input of encoder block k. "
        "Permuted: the learned noise's entries in random order. Gaussian: normal noise of the "
        "same norm. Agreement: share of predictions that stay.",
    ]
    if frame["censored"].any():
        notes.append(
            "† A noise was within epsilon before its first step: the norm is the starting norm, "
            "larger noise would have passed too (raise influence.limits)."
        )
    notes.append(
        "Within epsilon: tested on one training batch at a time, where learning stops; the "
        "distances here are on held-out pictures and can be larger."
    )
    return Sheet("Influence of noise at every block", header, parts, tuple(notes))


def _cells(row: dict[Any, Any]) -> tuple[Cell, ...]:
    learned = row["noise"] == "learned"
    norm = estimate_cell(row["norm"], row["norm_low"], row["norm_high"])
    return (
        Cell(str(row["block"])),
        Cell(row["noise"]),
        estimate_cell(row["agreement"], row["agreement_low"], row["agreement_high"]),
        _mean(row, "logit_distance", 2),
        _mean(row, "probability_distance", 3),
        Cell(norm.text + ("†" if row["censored"] else ""), norm.interval),
        Cell(number(row["steps"], 0) if learned else ""),
        Cell(number(row["epsilon_met"], 0) if learned else ""),
    )


def _mean(row: dict[Any, Any], name: str, decimals: int) -> Cell:
    return estimate_cell(row[name], row[f"{name}_low"], row[f"{name}_high"], decimals)
