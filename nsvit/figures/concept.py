"""The method in one picture: exact nullspace, approximate nullspace, finetuning (Figure 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit.figures.style import BLACK, BLUE, GREEN, GREY, VERMILION, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PALE = "#D6E6F2"
_SMALL = 5.8
#: Behind text that lies on lines.
_PLAIN = {"fc": "white", "ec": "none", "pad": 0.8}


def figure_concept() -> Figure:
    """A schematic: (a) pictures and (b) tokens that the model cannot tell apart, (c) the loop.

    Of METHOD.md sections 2, 4 and 5; nothing in it is measured.
    """
    with style():
        figure = new_figure(height=2.85)
        grid = figure.add_gridspec(2, 2, height_ratios=(1.5, 1.0))
        _inputs(_canvas(figure, grid[0, 0], "(a) input space: exact, linear"))
        _tokens(_canvas(figure, grid[0, 1], "(b) token space: approximate"))
        _loop(_canvas(figure, grid[1, :], "(c) finetuning with the noise"))
    return figure


def _canvas(figure: Figure, place: Any, title: str) -> Axes:
    axes = figure.add_subplot(place)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.set_title(title, loc="left", fontsize=6.8, pad=3)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#B8B8B8", linewidth=0.5)
    return axes


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, **look: Any
) -> None:
    props = {"arrowstyle": "-|>", "color": colour, "lw": 1.0, "mutation_scale": 6, **look}
    props |= {"shrinkA": look.get("shrinkA", 0), "shrinkB": look.get("shrinkB", 0)}
    axes.annotate("", end, start, arrowprops=props)


def _inputs(axes: Axes) -> None:
    """Parallel lines: along each, the patch embedding gives the same tokens."""
    axes.set(xlim=(0, 10), ylim=(0, 10))
    slope = 0.55
    for offset in np.arange(-4.5, 10.5, 1.5):
        axes.plot([0, 10], [offset, offset + 10 * slope], color="#DDDDDD", lw=0.7, zorder=1)
    base = 1.5
    axes.plot([0, 10], [base, base + 10 * slope], color=BLUE, lw=1.4, zorder=2)
    x, moved = (2.2, base + 2.2 * slope), (6.8, base + 6.8 * slope)
    _arrow(axes, x, moved, BLACK, lw=1.2, mutation_scale=7)
    axes.plot(*x, "o", color=BLACK, ms=4, zorder=4)
    axes.plot(*moved, "o", color=GREEN, ms=4, zorder=4)
    axes.text(2.4, 1.6, "picture x", ha="left", va="top", fontsize=6.5, zorder=5, bbox=_PLAIN)
    axes.text(6.4, 5.9, "x + v", ha="right", va="bottom", fontsize=6.5, color=GREEN, bbox=_PLAIN)
    axes.text(4.7, 3.5, "v", ha="left", va="top", fontsize=7, bbox=_PLAIN)
    _note(axes, 0.3, 9.7, "along a line: W v = 0,\nW is the patch embedding", "left", "top")
    _note(axes, 9.7, 0.3, "same tokens,\nsame logits", "right", "bottom")


def _tokens(axes: Axes) -> None:
    """A curved band: inside, the predictions are within epsilon of those of u."""
    axes.set(xlim=(0, 10), ylim=(0, 10))
    x = np.linspace(0, 10, 200)
    centre = 2.2 + 4.6 * np.sin((x - 1.0) / 9.2 * np.pi / 1.55) ** 2
    for level in (-3.4, -2.3, 2.3, 3.4):
        axes.plot(x, centre + level, color="#DDDDDD", lw=0.7, zorder=1)
    axes.fill_between(x, centre - 1.0, centre + 1.0, color=_PALE, lw=0, zorder=1.5)
    for edge in (-1.0, 1.0):
        axes.plot(x, centre + edge, color=BLUE, lw=0.9, zorder=2)
    at = {point: float(np.interp(point, x, centre)) for point in (1.6, 7.4)}
    u, found, start = (1.6, at[1.6]), (7.4, at[7.4] - 0.9), (9.2, 1.5)
    steps = np.array([start, (8.9, 2.6), (8.2, 3.3), (8.0, 4.3), (7.6, 4.8), found])
    axes.plot(steps[:, 0], steps[:, 1], ":", color=VERMILION, lw=1.0, zorder=3)
    axes.plot(steps[1:-1, 0], steps[1:-1, 1], ".", color=VERMILION, ms=2.5, zorder=3)
    _arrow(axes, u, found, BLACK, lw=1.2, mutation_scale=7)
    axes.plot(*u, "o", color=BLACK, ms=4, zorder=4)
    axes.plot(*start, "x", color=VERMILION, ms=4, mew=1.2, zorder=4)
    axes.plot(*found, "o", color=GREEN, ms=4, zorder=4)
    axes.text(1.5, at[1.6] - 1.15, "tokens u", ha="left", va="top", fontsize=6.5, bbox=_PLAIN)
    axes.text(7.3, found[1] + 0.35, "u + ṽ", ha="center", va="bottom", fontsize=6.5, color=GREEN)
    axes.text(4.75, 4.1, "ṽ", ha="right", va="bottom", fontsize=7)
    _note(axes, 8.9, 1.1, "random start", "right", "top", VERMILION)
    _note(axes, 0.3, 9.7, "in the band: predictions\nmove by less than ε", "left", "top")


def _loop(axes: Axes) -> None:
    """Noise for the weights, steps with the noise, and again."""
    axes.set(xlim=(0, 20), ylim=(0, 6.4))
    left = "learn noise ṽ\nweights fixed\none ṽ for all pictures\nstop: predictions move by < ε"
    right = "train weights\nṽ fixed\nsome steps on\nCE(f(u), y) + CE(f(u + ṽ), y)"
    _box(axes, 0.4, 2.1, 8.6, 3.9, left, GREEN)
    _box(axes, 11.0, 2.1, 8.6, 3.9, right, BLUE)
    _arrow(axes, (9.05, 4.05), (10.95, 4.05), BLACK)
    axes.text(10.0, 4.3, "ṽ", ha="center", va="bottom", fontsize=7)
    axes.plot([15.3, 15.3, 4.7], [2.05, 0.75, 0.75], color=BLACK, lw=1.0)
    _arrow(axes, (4.7, 0.75), (4.7, 2.05), BLACK)
    label: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": _SMALL}
    axes.text(10.0, 0.75, "next round: new weights, fresh noise", bbox=_PLAIN, **label)


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str
) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.35"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=shape, fc="white", ec=colour, lw=1.2)
    )
    head, rest = text.split("\n", 1)
    middle, up = x + width / 2, y + height
    axes.text(middle, up - 0.4, head, ha="center", va="top", fontsize=6.5, weight="bold")
    axes.text(middle, up - 1.45, rest, ha="center", va="top", fontsize=_SMALL, linespacing=1.3)


def _note(axes: Axes, x: float, y: float, text: str, ha: str, va: str, colour: str = GREY) -> None:
    look: dict[str, Any] = {"fontsize": _SMALL, "color": colour, "linespacing": 1.15}
    axes.text(x, y, text, ha=ha, va=va, zorder=6, bbox=_PLAIN, **look)
