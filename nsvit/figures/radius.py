"""Robust accuracy against the radius of an attack, a curve per arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import statistics
from nsvit.config import ArmKind, attack_series, radius_value
from nsvit.errors import NsvitError
from nsvit.figures.arms import difference, first_of_kind
from nsvit.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    NothingToDrawError,
    new_figure,
    style,
)
from nsvit.specs import TableSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Colour, marker and line style by kind of arm; lines differ without colour too.
LOOKS: dict[ArmKind, tuple[str, str, str]] = {
    "none": (BLACK, "o", "-"),
    "plain": (ORANGE, "s", "--"),
    "random": (GREEN, "^", "-."),
    "nullspace": (BLUE, "D", "-"),
    "madry": (VERMILION, "v", "--"),
    "trades": (PURPLE, "P", ":"),
}
NOTHING = "figure of radii: no records of an attack at two radii or more"
#: Names of attacks as people write them.
ATTACKS = {
    **{"fgsm": "FGSM", "pgd": "PGD", "mi_fgsm": "MI-FGSM", "cw": "CW"},
    **{"autoattack": "AutoAttack", "patch_fool": "Patch-Fool"},
}


@dataclass(frozen=True)
class Robustness:
    """Accuracy (per cent) of one arm against the radius, with intervals.

    Attributes:
        radii: in 255ths of the pixel range (linf) or in pixel units (l2); 0 without an attack.
        values, ends: accuracy (R,) and its interval (2, R), per cent.
        change, change_ends: the same of the paired difference to the baseline, in points; None
            for the baseline itself and where it is missing.
        n: pictures.
    """

    radii: NDArray[np.float64]
    values: NDArray[np.float64]
    ends: NDArray[np.float64]
    change: NDArray[np.float64] | None
    change_ends: NDArray[np.float64] | None
    n: int


def figure_radius(scores: pd.DataFrame, spec: TableSpec) -> Figure:
    """Accuracy against radius, and its difference to the starting weights: a row per model.

    Of each kind the first arm, where its runs have two radii or more. At radius 0 is the accuracy
    on the same pictures without an attack. Several attacks have their rows one after the other.

    Args:
        scores: one row per run x condition x picture, from `nsvit.scores`.
        spec: models, arms, conditions and how to make intervals.

    Raises:
        NothingToDrawError: no records are of an attack at several radii.
    """
    panels = []
    for slugs, clean in attack_series(spec.conditions):
        found = resampled(scores, slugs, clean, spec)
        for model in spec.models:
            curves = robustness(found, model, slugs, clean, spec) if found else {}
            if curves:
                panels.append((slugs, model, curves))
    if not panels:
        raise NothingToDrawError(NOTHING)
    with style():
        figure = new_figure(height=0.5 + 1.42 * len(panels))
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for (left, right), (slugs, model, curves) in zip(grid, panels, strict=True):
            _accuracies(left, curves, spec)
            _changes(right, curves, spec)
            left.set_title(spec.models[model].label, loc="left", fontsize=7.0, pad=3)
            for axes in (left, right):
                axes.set_xlabel(_unit(slugs, spec), labelpad=1.5)
                axes.set_xticks(next(iter(curves.values())).radii)
            left.set_ylabel("accuracy (%)")
            right.set_ylabel("difference (points)")
        handles, names = _legend(grid)
        figure.legend(handles, names, loc="outside upper center", ncols=4, columnspacing=1.2)
        figure.align_ylabels()
    return figure


def resampled(
    scores: pd.DataFrame, slugs: Sequence[str], clean: str | None, spec: TableSpec
) -> statistics.Resampled | None:
    """Every run under one attack, and without it on the same pictures; None if there is none.

    Args:
        scores: of all models and arms, as all say how much seeds differ.
        slugs: conditions by radius.
        clean: the condition at radius 0, of which only the attacked pictures count.
        spec: how to make intervals.
    """
    import pandas as pd

    attacked = scores[scores["condition"].isin(slugs)]
    if attacked.empty:
        return None
    pictures = attacked["picture"].unique()
    still = scores[(scores["condition"] == clean) & scores["picture"].isin(pictures)]
    return statistics.resample(pd.concat([attacked, still], ignore_index=True), spec.statistics)


def robustness(
    found: statistics.Resampled,
    model: str,
    slugs: Sequence[str],
    clean: str | None,
    spec: TableSpec,
) -> dict[str, Robustness]:
    """The curves of one model under one attack: the first arm of each kind.

    Args:
        found: from `resampled`.
        model: slug.
        slugs: conditions by radius.
        clean: the condition at radius 0.
        spec: arms and conditions.

    Raises:
        NsvitError: an arm has different numbers of pictures at different radii.
    """
    order = list(slugs) if clean is None else [clean, *slugs]
    arms = first_of_kind(spec, list(LOOKS))
    first = [arms["none"]] if "none" in arms else []
    curves = {}
    for arm in arms.values():
        estimates = {slug: found.estimate((model, arm, -1), [slug]) for slug in order}
        known = {slug: one for slug, one in estimates.items() if one is not None}
        if len(known.keys() & set(slugs)) < 2:
            continue
        sizes = {one.n for one in known.values()}
        if len(sizes) > 1:
            raise NsvitError(
                f"figure of radii: {model}/{arm} has different numbers of pictures at different "
                f"radii ({', '.join(map(str, sorted(sizes)))}); evaluate it again with one config"
            )
        pairs = [
            difference(found, model, arm, base, slug)
            for base in first
            for slug in known
            if arm != base
        ]
        whole = bool(pairs) and None not in pairs
        changes = 100 * np.array([(one.effect, one.low, one.high) for one in pairs if one])
        curves[arm] = Robustness(
            radii=np.array([0.0 if slug == clean else radius_of(slug, spec) for slug in known]),
            values=100 * np.array([one.value for one in known.values()]),
            ends=100 * np.array([(one.low, one.high) for one in known.values()]).T,
            change=changes[:, 0] if whole else None,
            change_ends=changes[:, 1:].T if whole else None,
            n=sizes.pop(),
        )
    return curves


def radius_of(slug: str, spec: TableSpec) -> float:
    """The radius of a condition: 255ths of the pixel range (linf) or pixel units (l2)."""
    attack = spec.conditions[slug].attack
    radius = None if attack is None else attack.radius
    assert radius is not None  # `attack_series` takes no others
    return 255 * radius_value(radius) if isinstance(radius, str) else float(radius)


def _accuracies(axes: Axes, curves: dict[str, Robustness], spec: TableSpec) -> None:
    for arm, curve in curves.items():
        look = _look(arm, spec)
        axes.fill_between(curve.radii, *curve.ends, color=look["color"], alpha=0.12, lw=0)
        axes.plot(curve.radii, curve.values, ms=2.4, lw=0.9, label=spec.arms[arm].label, **look)
    axes.set_ylim(bottom=0)
    sizes = ", ".join(str(n) for n in sorted({curve.n for curve in curves.values()}))
    axes.text(0.04, 0.05, f"n = {sizes}", transform=axes.transAxes, color=GREY, fontsize=6.5)


def _changes(axes: Axes, curves: dict[str, Robustness], spec: TableSpec) -> None:
    """Arms side by side at each radius, so that intervals do not cover each other."""
    shown = {arm: curve for arm, curve in curves.items() if curve.change is not None}
    axes.axhline(0.0, color=BLACK, lw=0.8)
    for place, (arm, curve) in enumerate(shown.items()):
        assert curve.change is not None
        assert curve.change_ends is not None
        gap = float(np.diff(curve.radii).min())
        shift = min(0.17, 0.8 / len(shown)) * gap * (place - (len(shown) - 1) / 2)
        bars = np.clip(np.abs(curve.change_ends - curve.change), 0, None)
        axes.errorbar(
            curve.radii + shift, curve.change, yerr=bars, ms=2.4, lw=0.7, elinewidth=0.7,
            capsize=1.2, capthick=0.7, **_look(arm, spec),
        )  # fmt: skip


def _look(arm: str, spec: TableSpec) -> dict[str, Any]:
    colour, marker, line = LOOKS[spec.arms[arm].kind]
    return {"color": colour, "marker": marker, "ls": line}


def _unit(slugs: Sequence[str], spec: TableSpec) -> str:
    attack = spec.conditions[slugs[0]].attack
    assert attack is not None
    unit = "/255" if isinstance(attack.radius, str) else "pixel units, l2"
    return f"{ATTACKS[attack.name]} radius ({unit})"


def _legend(grid: np.ndarray) -> tuple[list[Any], list[str]]:
    shown: dict[str, Any] = {}
    for axes in grid[:, 0]:
        shown |= {n: h for h, n in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(shown.values()), list(shown)
