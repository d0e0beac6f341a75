"""What noise does at every block: learned against permuted and Gaussian of the same norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nsvit.figures.noises import points, quantity_panels
from nsvit.figures.style import BLUE, ORANGE, VERMILION, style
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour, marker, line style and sideways shift (blocks) of every kind of noise.
LOOKS = {
    "learned": (BLUE, "o", "-", -0.08),
    "permuted": (VERMILION, "s", "--", 0.0),
    "gaussian": (ORANGE, "^", ":", 0.08),
}
QUANTITIES = {
    "agreement": "agreement (%)",
    "logit_distance": "logit distance",
    "norm": "norm (same for all)",
}


def figure_influence(frame: pd.DataFrame, spec: TableSpec) -> Figure:
    """Agreement, logit distance and norm against the block, a column of panels per model.

    Args:
        frame: from `tables.table_influence`, one row per model, block, noise.
        spec: labels of the models.

    Raises:
        NsvitError: the frame is empty.
    """
    with style():
        name, xlabel = "influence", "block (0: patch embedding)"
        figure, grid = quantity_panels(frame, spec, QUANTITIES, _panel, name, xlabel)
        _limits(grid, frame)
        handles, names = grid[0, 0].get_legend_handles_labels()
        if frame["censored"].any():
            hollow = grid[-1, 0].plot([], [], "o", mfc="white", mec=BLUE, mew=0.8)[0]
            handles, names = [*handles, hollow], [*names, "censored"]
        figure.legend(handles, names, loc="outside upper center", ncols=4, columnspacing=1.2)
    return figure


def _panel(axes: Axes, frame: pd.DataFrame, quantity: str) -> None:
    for noise, (colour, marker, line, shift) in LOOKS.items():
        part = frame[frame["noise"] == noise].sort_values("block")
        if part.empty or (quantity == "norm" and noise != "learned"):
            continue  # the controls have the norm of the learned noise
        x = part["block"].to_numpy(dtype=float) + (0 if quantity == "norm" else shift)
        look = {"color": colour, "marker": marker, "ls": line, "label": _name(noise)}
        points(axes, x, part, quantity, **look)
        if quantity == "norm":
            censored = part["censored"].to_numpy(dtype=bool)
            y = part[quantity].to_numpy(dtype=float)
            axes.plot(x[censored], y[censored], "o", mfc="white", mec=colour, mew=0.8, zorder=5)
    blocks = sorted(int(b) for b in frame["block"].unique())
    step = max(1, len(blocks) // 6)
    axes.set_xticks(blocks[::step])
    axes.set_xlim(blocks[0] - 0.4, blocks[-1] + 0.4)


def _name(noise: str) -> str:
    return "Gaussian" if noise == "gaussian" else noise


def _limits(grid: np.ndarray, frame: pd.DataFrame) -> None:
    """Agreement up to 100 %, the others from zero; shared along each row."""
    lowest = float(frame["agreement_low"].min())
    grid[0, 0].set_ylim(max(0.0, lowest - 4), 102)
    for row, quantity in ((1, "logit_distance"), (2, "norm")):
        grid[row, 0].set_ylim(0, 1.08 * float(frame[f"{quantity}_high"].max()))
