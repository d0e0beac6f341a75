"""Forest plot of the claims: effect, interval and verdict of every test, the paper's beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nsvit.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from nsvit.figures.style import BLACK, BLUE, GREY, VERMILION, figure_of_text, new_figure, style
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Colour and marker of every verdict; the markers tell them apart without colour.
LOOKS = {SUPPORTED: (BLUE, "o"), CONTRADICTED: (VERMILION, "s"), UNDECIDED: (GREY, "D")}
MARGIN = "#E4E4E4"
#: Inches per row, and the widest axis in points; what lies beyond is drawn as an arrow.
ROW = 0.125
WIDEST = 15.0


def figure_claims(frame: pd.DataFrame, spec: TableSpec) -> Figure:
    """Every tested comparison in points, a panel for each model.

    To the right of zero is what the claim says. Grey bands: where a claim with a margin
    puts the effect. Hollow circles: the paper's effect. Arrows: beyond the axis. Tests
    in other units (norms) are in the table only.

    Args:
        frame: the csv of `table_claims`.
        spec: labels of the models.
    """
    shown = frame[(frame["level"] == "test") & frame["verdict"].isin(list(LOOKS))]
    shown = shown[shown["unit"] == "points"]
    if not len(shown):
        return figure_of_text("no claim could be tested")
    panels = {str(model): part for model, part in shown.groupby("model", sort=False)}
    heights = [len(part) + 1.0 for part in panels.values()]
    limit = _limit(shown)
    with style():
        figure = new_figure(height=ROW * sum(heights) + 0.3 * len(panels) + 0.65)
        grid = figure.subplots(
            len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
        ).ravel()
        for axes, (model, part) in zip(grid, panels.items(), strict=True):
            _panel(axes, part, limit)
            label = spec.models[model].label if model in spec.models else model
            axes.set_title(label, loc="left", fontweight="bold")
        grid[-1].set_xlabel("points, right: as claimed")
        grid[-1].locator_params(axis="x", nbins=6, prune="both")  # labels stay on the page
        figure.legend(handles=_legend(shown), loc="outside upper center", ncols=3)
    return figure


def _limit(shown: pd.DataFrame) -> float:
    """Half the width of the axis: what holds everything, at most `WIDEST`."""
    largest = float(shown[["effect", "low", "high", "paper", "margin"]].abs().max().max())
    return min(WIDEST, math.ceil(1.05 * largest))


def _panel(axes: Axes, part: pd.DataFrame, limit: float) -> None:
    rows = part.to_dict("records")
    axes.axvline(0.0, color=BLACK, lw=0.6, zorder=1)
    for y, row in enumerate(rows):
        _draw(axes, y, row, limit)
    axes.set_yticks(range(len(rows)), [row["comparison"] for row in rows], fontsize=5.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-limit, limit)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for y in range(1, len(rows)):
        if rows[y]["claim"] != rows[y - 1]["claim"]:
            axes.axhline(y - 0.5, color=MARGIN, lw=0.5, zorder=0)


def _draw(axes: Axes, y: int, row: dict[Any, Any], limit: float) -> None:
    colour, marker = LOOKS[row["verdict"]]
    edge = 0.97 * limit
    if not math.isnan(row["margin"]):
        right = limit if row.get("test") == "not_worse" else row["margin"]
        axes.barh(y, right + row["margin"], 0.8, -row["margin"], color=MARGIN, zorder=0)
    if not math.isnan(row["low"]):
        low, high = (min(max(row[end], -edge), edge) for end in ("low", "high"))
        axes.plot([low, high], [y, y], color=colour, lw=0.9, zorder=3)
        for beyond, inside, arrow in (
            (row["low"] < -edge, -edge, "<"),
            (row["high"] > edge, edge, ">"),
        ):
            if beyond:
                axes.plot(inside, y, arrow, color=colour, ms=3.0, mew=0, zorder=3)
    if not math.isnan(row["paper"]):
        at = min(max(row["paper"], -edge), edge)
        shape = "o" if at == row["paper"] else ">" if at > 0 else "<"
        axes.plot(at, y, shape, mfc="white", mec=BLACK, mew=0.6, ms=3.2, zorder=2)
    if abs(row["effect"]) <= edge:
        axes.plot(row["effect"], y, marker, color=colour, ms=3.0, mew=0, zorder=4)


def _legend(shown: pd.DataFrame) -> list[Line2D]:
    from matplotlib.lines import Line2D  # late, as in every figure: a start needs none of it

    handles = [
        Line2D([], [], color=colour, marker=marker, ms=3.0, lw=0.9, label=verdict)
        for verdict, (colour, marker) in LOOKS.items()
    ]
    if shown["paper"].notna().any():
        look: dict[str, Any] = {"mfc": "white", "mec": BLACK, "mew": 0.6, "ms": 3.2, "lw": 0}
        handles.append(Line2D([], [], marker="o", label="paper", **look))
    if shown["margin"].notna().any():
        handles.append(Line2D([], [], color=MARGIN, lw=5, label="margin"))
    return handles
