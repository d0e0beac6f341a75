"""Training dynamics, as the paper's Figure 4: every score relative to its start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import paper, statistics
from nsvit.config import DynamicsConfig
from nsvit.errors import NsvitError
from nsvit.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION, new_figure, style
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from nsvit.statistics import Resampled

#: Colour and marker of every curve; names as in the paper's figure.
LOOKS = {
    "clean": (BLUE, "o"),
    "adversarial": (VERMILION, "s"),
    "ood": (GREEN, "^"),
    "average": (BLACK, "D"),
    "noise_norm": (ORANGE, "v"),
}
#: In the panel of a run whose records or history are missing or damaged.
GAP = "no usable data"
LABELS = {"ood": "OOD", "noise_norm": "noise norm"}


@dataclass(frozen=True)
class Curve:
    """Values relative to the first, with their interval, against optimiser steps."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def figure_dynamics(
    records: pd.DataFrame, histories: Sequence[Mapping[str, Any]], spec: TableSpec
) -> Figure:
    """Clean, adversarial, OOD and average scores and the noise norm against steps.

    Every curve is divided by its value before the first step (the norm by that of the first
    noise, which is learned there). Errors count as 1 - error. Bands: percentile bootstrap of the
    ratio, with the same pictures above and below the line. One panel per run, empty where there
    are no records of it, and the paper's curves (digitised, approximate) in a panel of their own.

    Args:
        records: kind "records" with the rounds of one or more runs, round 0 the start.
        histories: history.json of the same runs.
        spec: must have `dynamics`: which conditions are averaged.

    Raises:
        NsvitError: no dynamics in the config, a run lacks its history, its round 0, or a
            condition.
    """
    if spec.dynamics is None:
        raise NsvitError("figure of dynamics: the config has no section `dynamics`")
    rounds = records[records["round"] >= 0]
    _check_known(rounds, spec)
    scores = statistics.picture_scores(rounds, normalised=spec.normalised)
    resampled = statistics.resample(scores, spec.statistics)
    there = {(model, arm) for model, arm, _ in resampled.groups()}
    asked = {(model, arm) for model in spec.dynamics.models for arm in spec.dynamics.arms}
    runs = list(there | asked)
    runs.sort(key=lambda run: (list(spec.models).index(run[0]), list(spec.arms).index(run[1])))
    panels = {
        _title(run, runs, spec): _curves(
            resampled, run, _history(histories, run, spec.dynamics.seed), spec
        )
        if run in there
        else {}
        for run in runs
    }
    panels["paper, ViT-S (digitised)"] = paper_curves()
    with style():
        return _draw(panels)


def _title(run: tuple[str, str], runs: list[tuple[str, str]], spec: TableSpec) -> str:
    model, arm = spec.models[run[0]].label, spec.arms[run[1]].label
    return model if len({other for _, other in runs}) == 1 else f"{model}, {arm}"


def _check_known(records: pd.DataFrame, spec: TableSpec) -> None:
    for model, arm in records[["model", "arm"]].drop_duplicates().itertuples(index=False):
        if model not in spec.models or arm not in spec.arms:
            raise NsvitError(f"figure of dynamics: run {model}/{arm} is not in the config")


def _history(
    histories: Sequence[Mapping[str, Any]], run: tuple[str, str], seed: int
) -> list[dict[str, Any]]:
    for history in histories:
        made = history["spec"]
        if (made["model"], made["arm"], made["seed"]) == (*run, seed):
            return list(history["rounds"])
    raise NsvitError(f"figure of dynamics: no history of {run[0]}/{run[1]}/seed{seed} was given")


def score_groups(dynamics: DynamicsConfig) -> dict[str, tuple[str, ...]]:
    """Which conditions each curve is the mean of."""
    everything = (dynamics.clean, *dynamics.adversarial, *dynamics.ood)
    return {
        "clean": (dynamics.clean,),
        "adversarial": dynamics.adversarial,
        "ood": dynamics.ood,
        "average": everything,
    }


def _curves(
    resampled: Resampled, run: tuple[str, str], history: list[dict[str, Any]], spec: TableSpec
) -> dict[str, Curve]:
    assert spec.dynamics is not None
    rounds = sorted(number for model, arm, number in resampled.groups() if (model, arm) == run)
    if rounds[0] != 0:
        raise NsvitError(f"dynamics of {run[0]}/{run[1]}: round 0 is missing from the records")
    step_of = {int(row["round"]): float(row["step"]) for row in history}
    absent = sorted(set(rounds) - set(step_of))
    if absent:
        raise NsvitError(f"dynamics of {run[0]}/{run[1]}: history lacks rounds {absent}")
    steps = np.array([step_of[number] for number in rounds])
    curves = {}
    for name, conditions in score_groups(spec.dynamics).items():
        combined = [resampled.combine((*run, number), conditions) for number in rounds]
        found = [entry for entry in combined if entry is not None]
        if len(found) < len(rounds):
            wanted = ", ".join(conditions)
            raise NsvitError(f"dynamics of {run[0]}/{run[1]}: a round lacks one of {wanted}")
        curves[name] = _relative(steps, found, spec)
    norm = noise_curve(history)
    return {**curves, **({"noise_norm": norm} if norm else {})}


def _relative(
    steps: NDArray[np.float64],
    found: Sequence[tuple[float, NDArray[np.float64], int, int]],
    spec: TableSpec,
) -> Curve:
    """Values over the first, with paired percentile intervals of the ratio."""
    start, start_replicates = found[0][:2]
    if start == 0:
        raise NsvitError("dynamics: a score is 0 at the start, nothing can be relative to it")
    values = np.array([entry[0] / start for entry in found])
    ends = []
    for entry in found:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = entry[1] / start_replicates
        ends.append(
            statistics.percentiles(
                np.where(np.isfinite(ratio), ratio, np.nan), spec.statistics.confidence
            )
        )
    low, high = np.array(ends).T
    return Curve(steps, values, low, high)


def noise_curve(history: Sequence[Mapping[str, Any]]) -> Curve | None:
    """Norms of the learned noises over the first, each at the step it was learned at.

    The noise of round r is learned before its first step, on the weights that round r - 1 left.
    """
    step_of = {int(row["round"]): float(row["step"]) for row in history}
    pairs = [
        (step_of[int(row["round"]) - 1], float(row["noise_norm"]))
        for row in history
        if row.get("noise_norm") is not None and int(row["round"]) - 1 in step_of
    ]
    if not pairs or pairs[0][1] == 0:
        return None
    steps, norms = np.array(pairs).T
    return Curve(steps, norms / norms[0])


def paper_curves() -> dict[str, Curve]:
    """The paper's training dynamics (ViT-S, digitised, approximate)."""
    points = paper.table("figures")
    points = points[points["figure"] == "training_dynamics"]
    curves = {}
    for name in LOOKS:
        part = points[points["series"] == name].sort_values("x")
        curves[name] = Curve(part["x"].to_numpy(dtype=float), part["y"].to_numpy(dtype=float))
    return curves


# --- drawing --------------------------------------------------------------------------------


def _draw(panels: Mapping[str, Mapping[str, Curve]]) -> Figure:
    figure = new_figure(height=0.35 + 1.45 * math.ceil(len(panels) / 2) + 0.25)
    rows = math.ceil(len(panels) / 2)
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in grid[1 : len(panels) - 1]:  # the paper's changes are too large for one scale
        axes.sharey(grid[0])
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        _panel(axes, curves, dashed=title.startswith("paper"))
        axes.set_title(title, fontsize=6.5 if len(title) > 20 else None)
    shown: dict[str, Any] = {}
    for axes in grid[: len(panels) - 1]:  # not the paper's: its lines are dashed
        shown |= {n: h for h, n in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles, names = list(shown.values()), list(shown)
    for axes in grid[len(panels) :]:
        axes.axis("off")
        axes.legend(handles, names, loc="center", title="bands: intervals", title_fontsize=6.5)
    if len(panels) == len(grid):
        figure.legend(handles, names, loc="outside upper center", ncols=3)
    figure.supxlabel("optimiser steps", fontsize=7.0)
    figure.supylabel("relative to step 0", fontsize=7.0)
    return figure


def _panel(axes: Axes, curves: Mapping[str, Curve], dashed: bool) -> None:
    axes.axhline(1.0, color=GREY, lw=0.6, zorder=1)
    for name, curve in curves.items():
        colour, marker = LOOKS[name]
        look: dict[str, Any] = {"ls": "--", "lw": 0.8} if dashed else {"marker": marker, "ms": 2.4}
        axes.plot(curve.steps, curve.values, color=colour, label=LABELS.get(name, name), **look)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
    if not curves:
        axes.text(0.5, 0.5, GAP, transform=axes.transAxes, ha="center", va="bottom", color=GREY)
        axes.set_xticks([])
        return
    axes.margins(x=0.03)
    axes.locator_params(axis="x", nbins=5)
