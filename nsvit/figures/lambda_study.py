"""The lambda study, as the paper's Figure 3: agreement, confidence MSE and norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsvit.figures.noises import points, quantity_panels
from nsvit.figures.style import BLUE, GREY, VERMILION, style
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour, marker and line style of each kind of noise.
LOOKS = {"learned": (BLUE, "o", "-"), "permuted": (VERMILION, "s", "--")}
QUANTITIES = {
    "agreement": "agreement (%)",
    "confidence_mse": "confidence MSE",
    "norm": "norm (both)",
}


def figure_lambda(frame: pd.DataFrame, spec: TableSpec) -> Figure:
    """Agreement, confidence MSE and norm against lambda, a column of panels per model.

    The paper's points (digitised, approximate) are grey, where the model has a name there.

    Args:
        frame: from `tables.table_lambda`, one row per model, lambda, noise.
        spec: labels of the models.

    Raises:
        NsvitError: the frame is empty.
    """
    with style():
        figure, grid = quantity_panels(frame, spec, QUANTITIES, _panel, "the lambda study", "λ")
        grid[0, 0].set_ylim(top=101)
        for row in (1, 2):
            grid[row, 0].set_ylim(bottom=0)
        handles, names = grid[0, 0].get_legend_handles_labels()
        # Ours in the left column, the paper's in the right one.
        pairs = sorted(zip(names, handles, strict=True), key=lambda pair: "paper" in pair[0])
        names, handles = [name for name, _ in pairs], [handle for _, handle in pairs]
        figure.legend(handles, names, loc="outside upper center", ncols=2, columnspacing=1.5)
    return figure


def _panel(axes: Axes, frame: pd.DataFrame, quantity: str) -> None:
    for noise, (colour, marker, line) in LOOKS.items():
        part = frame[frame["noise"] == noise].sort_values("lambda")
        if part.empty or (quantity == "norm" and noise != "learned"):
            continue  # a permutation has the norm of the learned noise
        x = part["lambda"].to_numpy(dtype=float)
        papers = part[f"paper_{quantity}"].to_numpy(dtype=float)
        if np.isfinite(papers).any():
            label = f"{noise}, paper (≈)"
            axes.plot(x, papers, color=GREY, ls=line, lw=0.8, zorder=1.5, label=label)
        points(axes, x, part, quantity, color=colour, marker=marker, ls=line, label=noise)
    lambdas = sorted(frame["lambda"].unique())
    axes.set_xscale("log")
    shown = [value for value in (0.01, 0.03, 0.1, 0.3, 1, 3) if value <= lambdas[-1]]
    axes.set_xticks(shown, [f"{value:g}" for value in shown])
    axes.set_xlim(lambdas[0] / 1.3, lambdas[-1] * 1.3)
