"""How finetuning changes the error of every corruption at every severity."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import statistics
from nsvit.config import ArmKind
from nsvit.figures.arms import difference, first_of_kind
from nsvit.figures.style import GREY, NothingToDrawError, new_figure, style
from nsvit.records import Paths, read_finished
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Kinds of the arms that are shown beside `none`.
KINDS: tuple[ArmKind, ...] = ("plain", "random", "nullspace")
#: Changes of this many points and more have the full colour.
FULL = 20.0
#: Blue for fewer errors, white for none, vermilion for more: the ends of Okabe and Ito's palette.
_COLOURS = ("#0072B2", "#FFFFFF", "#D55E00")
_SHORT = {
    **{"gaussian_noise": "gauss. noise", "elastic_transform": "elastic"},
    **{"jpeg_compression": "jpeg"},
}


@dataclass(frozen=True)
class Errors:
    """Corruption errors of finished runs.

    Attributes:
        cells: model, arm, seed, corruption, severity, error (a fraction).
        scores: errors per picture, see `statistics.picture_scores`.
    """

    cells: pd.DataFrame
    scores: pd.DataFrame


@dataclass(frozen=True)
class Change:
    """Change of the error, in points, of one arm of one model against its starting weights.

    Attributes:
        grid: (corruptions, severities), NaN where there are no records.
        mean, low, high: of the mean corruption error, with its paired interval.
    """

    grid: NDArray[np.float64]
    mean: float
    low: float
    high: float


def read_errors(paths: Paths, spec: TableSpec) -> Errors:
    """Corruption errors from records.

    Raises:
        NsvitError: a file is missing or damaged.
        NothingToDrawError: no run was evaluated on corruptions.
    """
    import pandas as pd

    named = {slug for slug, condition in spec.conditions.items() if condition.is_error}
    cells, scores = [], []
    for part in read_finished(paths, named):
        keys = ["model", "arm", "seed", "condition", "corruption", "severity"]
        right = part.groupby(keys, sort=False, observed=True)["correct"].mean()
        cells.append((1.0 - right).rename("error").reset_index().astype({"corruption": str}))
        scores.append(statistics.picture_scores(part))
    if not any(map(len, scores)):
        raise NothingToDrawError("figure of corruptions: no records of a corruption set")
    return Errors(pd.concat(cells, ignore_index=True), pd.concat(scores, ignore_index=True))


def figure_corruptions(errors: Errors, spec: TableSpec) -> Figure:
    """Change of the error in points: a row of heat maps per model, one per kind of finetuning.

    Args:
        errors: from `read_errors`. Seeds are averaged; all severities count equally.
        spec: models, arms and how to make intervals.

    Raises:
        NothingToDrawError: no model has both an arm of kind `none` and one that finetunes.
    """
    condition = str(errors.cells["condition"].iloc[0])  # of several corruption sets the first
    cells = errors.cells[errors.cells["condition"] == condition]
    scores = errors.scores[errors.scores["condition"] == condition]
    found = statistics.resample(scores, spec.statistics)
    types = list(cells["corruption"].drop_duplicates())
    levels = sorted(cells["severity"].unique())
    arms = first_of_kind(spec, ("none", *KINDS))
    changes = {}
    for model in spec.models:
        for arm in arms.values():
            change = _change(cells, found, (model, arm), arms.get("none"), condition, types, levels)
            if change is not None:
                changes[model, arm] = change
    if not changes:
        raise NothingToDrawError(
            "figure of corruptions: no model has records of an arm of kind none and of another one"
        )
    with style():
        return _draw(changes, types, levels, spec)


def _change(
    cells: pd.DataFrame,
    found: statistics.Resampled,
    run: tuple[str, str],
    baseline: str | None,
    condition: str,
    types: Sequence[str],
    levels: Sequence[int],
) -> Change | None:
    """The change of one run; None for the baseline itself and where either is missing."""
    model, arm = run
    if baseline is None or arm == baseline:
        return None
    means = [
        cells[(cells["model"] == model) & (cells["arm"] == one)]
        .groupby(["corruption", "severity"], observed=True)["error"]
        .mean()
        for one in (arm, baseline)
    ]
    own = difference(found, model, arm, baseline, condition)
    if own is None:
        return None
    grid = np.array([[_cell(means, t, level) for level in levels] for t in types])
    # More errors are worse, so that a comparison counts them the other way round.
    return Change(100 * grid, -100 * own.effect, -100 * own.high, -100 * own.low)


def _cell(means: Sequence[pd.Series], corruption: str, level: int) -> float:
    one, other = (float(mean.get((corruption, level), np.nan)) for mean in means)
    return one - other


# --- drawing --------------------------------------------------------------------------------


def _draw(
    changes: dict[tuple[str, str], Change],
    types: Sequence[str],
    levels: Sequence[int],
    spec: TableSpec,
) -> Figure:
    models = list(dict.fromkeys(model for model, _ in changes))
    arms = list(dict.fromkeys(arm for _, arm in changes))
    figure = new_figure(height=0.15 + len(models) * (0.45 + 0.113 * (len(types) + 1)))
    grid = figure.subplots(len(models), len(arms), squeeze=False, sharey=True)
    for row, model in zip(grid, models, strict=True):
        for axes, arm in zip(row, arms, strict=True):
            change = changes.get((model, arm))
            if change is None:
                axes.axis("off")
                continue
            _heat_map(axes, change, types, levels)
            interval = f"{_signed(change.mean)} [{_signed(change.low)}, {_signed(change.high)}]"
            axes.set_title(f"{spec.arms[arm].label}\n{interval}", fontsize=6.2, pad=2.5)
            if model == models[-1]:
                axes.set_xlabel("severity", fontsize=6.2, labelpad=1.5)
        _name(row[0], spec.models[model].label)
    return figure


def _name(axes: Axes, label: str) -> None:
    """The model's name beside the titles, above the names of the corruptions."""
    at: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    text = axes.annotate(
        textwrap.fill(label, 12), (0, 1), xytext=(-3, 3), ha="right", va="bottom",
        fontsize=6.2, linespacing=1.1, **at,
    )  # fmt: skip
    text.set_in_layout(False)


def _heat_map(axes: Axes, change: Change, types: Sequence[str], levels: Sequence[int]) -> None:
    """Cells with their number; the last row is the mean over corruptions."""
    from matplotlib.colors import LinearSegmentedColormap

    values = np.vstack([change.grid, np.nanmean(change.grid, axis=0)])
    colours = LinearSegmentedColormap.from_list("change", _COLOURS)
    axes.imshow(values, cmap=colours, vmin=-FULL, vmax=FULL, aspect="auto")
    # Inside the axes they need no room of their own; asking each what it takes is slow.
    at: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.75 * FULL
            axes.text(
                column, row, _whole(value), fontsize=5.2, color="white" if dark else "black", **at
            )
    axes.axhline(len(types) - 0.5, color="black", lw=0.6)
    axes.grid(False)
    names = [*(_SHORT.get(name, name).replace("_", " ") for name in types), "mean"]
    axes.set_yticks(range(len(names)), names, fontsize=5.8)
    axes.set_xticks(range(len(levels)), [str(level) for level in levels], fontsize=5.8)
    axes.tick_params(length=0, pad=1.5)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY)


def _whole(value: float) -> str:
    """Points without decimals, with a sign that is read without colour."""
    rounded = round(value)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "−")


def _signed(value: float) -> str:
    return "0.0" if round(value, 1) == 0 else f"{value:+.1f}".replace("-", "−")
