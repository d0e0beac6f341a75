"""The exact nullspace in one picture, as the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit.errors import NsvitError
from nsvit.figures.style import GREEN, GREY, VERMILION, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

ARRAYS = ("image", "noise", "noisy", "random_noisy", "predictions", "confidences")


def figure_nullspace(
    arrays: Mapping[str, NDArray[Any]],
    sidecar: Mapping[str, Any],
    names: Sequence[str] | None = None,
    label: str | None = None,
) -> Figure:
    """Clean picture + nullspace noise = noisy picture; beside it random noise of the same norm.

    Args:
        arrays: of a nullspace artefact: example_image, example_noise, example_noisy,
            example_random_noisy (3, H, W) pixels; example_predictions (3,) class indices and
            example_confidences (3,), for clean, noisy and random.
        sidecar: of the same artefact; its metrics have rank, nullity, images and the largest
            logit differences under both noises.
        names: class names by index; "class 3" where not given.
        label: the model's name for the caption; its slug if not given.

    Raises:
        NsvitError: the artefact has no example (a model of nullity 0).
    """
    absent = [name for name in ARRAYS if f"example_{name}" not in arrays]
    if absent:
        raise NsvitError(
            f"nullspace of {_slug(sidecar)}: no example_{absent[0]}; the nullspace is empty or "
            "the file is of an older nsvit"
        )
    found = {name: np.asarray(arrays[f"example_{name}"]) for name in ARRAYS}
    texts = _predictions(found, names)
    metrics = sidecar["metrics"]
    with style():
        figure = new_figure(height=1.5)
        panels = figure.subplots(1, 4, gridspec_kw={"wspace": 0.16})
        same, other = (
            GREEN if found["predictions"][i] == found["predictions"][0] else VERMILION
            for i in (1, 2)
        )
        _panel(panels[0], found["image"], "clean", texts[0], GREY)
        noise, gain = _around_grey(found["noise"])
        _panel(panels[1], noise, "nullspace noise", f"shown × {gain:.1f}\naround grey", GREY)
        null, random = (
            f"\nΔ {scientific(metrics[f'{kind}_max_logit_difference'])}"
            for kind in ("nullspace", "random")
        )
        _panel(panels[2], found["noisy"], "noisy", texts[1] + null, same)
        _panel(panels[3], found["random_noisy"], "random noise", texts[2] + random, other)
        for axes, sign in ((panels[1], "+"), (panels[2], "="), (panels[3], "vs")):
            at = {"transform": axes.transAxes, "ha": "center", "va": "center", "fontsize": 6.5}
            axes.text(-0.13, 0.5, sign, clip_on=False, **at)
        figure.supxlabel(_caption(metrics, label or _slug(sidecar)), fontsize=6.0, color=GREY)
    return figure


def _slug(sidecar: Mapping[str, Any]) -> str:
    return str(sidecar.get("spec", {}).get("model", "the model"))


def _predictions(found: Mapping[str, NDArray[Any]], names: Sequence[str] | None) -> list[str]:
    texts = []
    for index, confidence in zip(found["predictions"], found["confidences"], strict=True):
        name = names[int(index)] if names else f"class {int(index)}"
        texts.append(f"{name}\n{100 * float(confidence):.1f} %")
    return texts


def _around_grey(noise: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Noise as a picture: zero is grey, the largest value black or white; and the factor."""
    peak = float(np.abs(noise).max()) or 1.0
    return 0.5 + noise / (2 * peak), 1 / (2 * peak)


def _panel(axes: Axes, image: NDArray[Any], title: str, below: str, colour: str) -> None:
    axes.imshow(np.clip(np.moveaxis(image, 0, -1), 0.0, 1.0))
    axes.set_title(title, fontsize=6.5, pad=3)
    axes.set_xlabel(below, fontsize=6.5, labelpad=3)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=1.2)


def scientific(value: float) -> str:
    """A number in a few characters: 7.4, or 3.1·10⁻⁶ where it is small."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{raised}"


def _caption(metrics: Mapping[str, Any], label: str) -> str:
    return (
        f"{label}: rank {metrics['rank']}, nullity {metrics['nullity']} per patch; equal "
        f"norms.\nΔ: largest change of any logit over {metrics['images']} pictures"
    )
