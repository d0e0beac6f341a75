"""Whether learned noise stays null when it is multiplied, mixed or added (paper, A.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsvit.figures.lambda_study import LOOKS
from nsvit.figures.noises import models_in, points
from nsvit.figures.style import GREY, new_figure, style
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figure_closure(frame: pd.DataFrame, spec: TableSpec) -> Figure:
    """Agreement against the multiple, and against the weight of a mixture, per model.

    Args:
        frame: from `tables.table_closure`, one row per model, kind, factor, noise.
        spec: labels of the models.

    Raises:
        NsvitError: the frame is empty.
    """
    models = models_in(frame, "closure")
    with style():
        figure = new_figure(height=3.3)
        grid = figure.subplots(2, len(models), squeeze=False, sharey=True)
        for column, model in enumerate(models):
            mine = frame[frame["model"] == model]
            _multiples(grid[0, column], mine[mine["kind"] == "scaled"])
            _mixtures(grid[1, column], mine[mine["kind"] != "scaled"])
            grid[0, column].set_title(spec.models[model].label)
            grid[0, column].set_xlabel("factor a in a·v")
            grid[1, column].set_xlabel("weight w in w·v₁ + (1−w)·v₂")
        grid[0, 0].set_ylim(top=101)
        for row in (0, 1):
            grid[row, 0].set_ylabel("agreement (%)")
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def _multiples(axes: Axes, frame: pd.DataFrame) -> None:
    _curves(axes, frame, frame["factor"].to_numpy(dtype=float))
    axes.axvline(1.0, color=GREY, lw=0.6, zorder=1)
    low, high = frame["factor"].min(), frame["factor"].max()
    axes.set_xticks(np.arange(np.floor(low), np.ceil(high) + 1))


def _mixtures(axes: Axes, frame: pd.DataFrame) -> None:
    """The sum stands to the right of the mixtures, apart from them."""
    at = np.where(frame["kind"] == "added", 1.25, frame["factor"])
    _curves(axes, frame, at, apart=frame["kind"].to_numpy() == "added")
    weights = sorted(frame.loc[frame["kind"] == "combined", "factor"].unique())
    axes.set_xticks([*weights, 1.25], [*(f"{w:g}" for w in weights), "v₁ + v₂"])
    axes.axvline(1.05, color=GREY, lw=0.6, ls=":")
    axes.set_xlim(weights[0] - 0.15, 1.4)


def _curves(
    axes: Axes, frame: pd.DataFrame, at: np.ndarray, apart: np.ndarray | None = None
) -> None:
    """A line for each noise with its intervals; points that stand apart are not joined to it."""
    alone = np.zeros(len(frame), dtype=bool) if apart is None else apart
    for noise, (colour, marker, line) in LOOKS.items():
        for chosen, joined in ((~alone, line), (alone, "none")):
            wanted = (frame["noise"].to_numpy() == noise) & chosen
            part, x = frame[wanted], at[wanted]
            if part.empty:
                continue
            order = np.argsort(x)
            label = noise if joined != "none" else None
            look = {"color": colour, "marker": marker, "ls": joined, "label": label}
            points(axes, x[order], part.iloc[order], "agreement", **look)
