"""What figures of noise have in common: panels by quantity and model, points with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit.errors import NsvitError
from nsvit.figures.style import new_figure
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def models_in(frame: pd.DataFrame, name: str) -> list[str]:
    """The models of a table of noise, in its order.

    Raises:
        NsvitError: the table is empty.
    """
    models = [str(model) for model in frame["model"].drop_duplicates()]
    if not models:
        raise NsvitError(f"figure of {name}: there are no rows")
    return models


def quantity_panels(
    frame: pd.DataFrame,
    spec: TableSpec,
    quantities: Mapping[str, str],
    draw: Callable[[Axes, pd.DataFrame, str], None],
    name: str,
    xlabel: str,
) -> tuple[Figure, np.ndarray]:
    """A row of panels for each quantity, a column for each model.

    Args:
        frame: a table of noise.
        spec: labels of the models.
        quantities: column -> label of the y axis, which a row shares.
        draw: fills the panel of one model's rows and one quantity.
        name: of the figure, for errors.
        xlabel: below the lowest panels.

    Returns:
        The figure, and its axes (quantities, models).

    Raises:
        NsvitError: the frame is empty.
    """
    models = models_in(frame, name)
    figure = new_figure(height=4.3)
    grid = figure.subplots(len(quantities), len(models), squeeze=False, sharey="row")
    for column, model in enumerate(models):
        for row, quantity in enumerate(quantities):
            draw(grid[row, column], frame[frame["model"] == model], quantity)
        grid[0, column].set_title(spec.models[model].label)
        grid[-1, column].set_xlabel(xlabel)
    for row, label in enumerate(quantities.values()):
        grid[row, 0].set_ylabel(label)
    figure.align_ylabels()
    return figure, grid


def points(
    axes: Axes, x: NDArray[np.float64], frame: pd.DataFrame, quantity: str, **look: Any
) -> None:
    """Values of a quantity at x (R,) with the intervals that the table gives them."""
    y = frame[quantity].to_numpy(dtype=float)
    ends = frame[[f"{quantity}_low", f"{quantity}_high"]].to_numpy(dtype=float)
    bars = np.clip(np.abs(ends.T - y), 0, None)
    axes.errorbar(x, y, yerr=bars, elinewidth=0.8, capsize=1.5, capthick=0.8, **look)
