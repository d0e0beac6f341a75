"""The tables of the lambda study and of closure, to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsvit.specs import TableSpec
from nsvit.tables.sheet import GAP, Cell, Part, Sheet, estimate_cell, number

if TYPE_CHECKING:
    import pandas as pd

_PERMUTED = (
    "Permuted: the learned noise's entries in random order, so of the same norm. Agreement: share "
    "of predictions that stay. Confidence MSE: mean squared change of the probability of the class "
    "that is predicted without noise."
)


def lambda_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The table of `table_lambda` to read: a part for each model."""
    header = ("λ", "Noise", "Agreement %", "Paper ≈", "Confidence MSE", "Paper ≈", "Norm")
    parts = tuple(
        Part(
            spec.models[str(model)].label,
            tuple(_lambda_cells(row) for row in part.to_dict("records")),
        )
        for model, part in frame.groupby("model", sort=False)
    )
    notes = [
        "Noise at the output of the patch embedding, learned with the loss E‖f(u+v) − f(u)‖ − "
        f"λ log‖v‖. {_sizes(frame, spec)}",
        _PERMUTED,
    ]
    if frame[["paper_agreement", "paper_confidence_mse", "paper_norm"]].notna().any(axis=None):
        notes.append(
            "Paper ≈: points digitised from its Figure 3, approximate; another data set, model "
            "and budget of steps, so only the direction compares, never the level. Which λ the "
            "norms of its right panel belong to is inferred."
        )
    return Sheet("Noise learned with every lambda", (*header, "Paper ≈"), parts, tuple(notes))


def _lambda_cells(row: dict[Any, Any]) -> tuple[Cell, ...]:
    learned = row["noise"] == "learned"
    return (
        Cell(f"{row['lambda']:g}"),
        Cell(row["noise"]),
        _estimate(row, "agreement", 1),
        _paper(row, "agreement", 1),
        _estimate(row, "confidence_mse", 4),
        _paper(row, "confidence_mse", 4),
        Cell(number(row["norm"], 1)) if learned else Cell(""),
        _paper(row, "norm", 1) if learned else Cell(""),
    )


def closure_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The table of `table_closure` to read: a part for each model."""
    header = ("Made of two noises", "Noise", "Agreement %", "Confidence MSE", "Norm")
    parts = tuple(
        Part(
            spec.models[str(model)].label,
            tuple(_closure_cells(row) for row in part.to_dict("records")),
        )
        for model, part in frame.groupby("model", sort=False)
    )
    weights = ", ".join(f"{value:g}" for value in sorted(frame["lambda"].unique()))
    notes = (
        f"Two noises learned with λ = {weights} from different starts. Multiples: both noises. "
        f"{_sizes(frame, spec)}",
        _PERMUTED + " Mixtures of permuted noises mix the permutations.",
    )
    return Sheet("Multiples and mixtures of learned noises", header, parts, notes)


def _closure_cells(row: dict[Any, Any]) -> tuple[Cell, ...]:
    factor = row["factor"]
    made = {
        "scaled": f"{factor:g} · v",
        "combined": f"{factor:g} · v1 + {1 - factor:g} · v2",
        "added": "v1 + v2",
    }[row["kind"]]
    return (
        Cell(made),
        Cell(row["noise"]),
        _estimate(row, "agreement", 1),
        _estimate(row, "confidence_mse", 4),
        Cell(number(row["norm"], 1)),
    )


def _estimate(row: dict[Any, Any], name: str, decimals: int) -> Cell:
    return estimate_cell(row[name], row[f"{name}_low"], row[f"{name}_high"], decimals)


def _paper(row: dict[Any, Any], name: str, decimals: int) -> Cell:
    text = number(row[f"paper_{name}"], decimals)
    return Cell("" if text == GAP else text, style="paper")


def _sizes(frame: pd.DataFrame, spec: TableSpec) -> str:
    sizes = ", ".join(sorted({str(n) for n in frame["n"]}))
    draws = " or ".join(sorted({str(n) for n in frame["draws"]}))
    return (
        f"{sizes} held-out pictures; noises per row: {draws}; brackets: "
        f"{100 * spec.statistics.confidence:g} % intervals, Wilson's for the agreement of one "
        "noise, else bootstrap over noises and pictures; they say nothing of other starts where "
        "there is one."
    )
