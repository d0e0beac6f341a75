"""One look for all figures: a text column wide, colour-blind-safe, text kept as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import artifacts
from nsvit.errors import NsvitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Width of a text column, inches (8.5 cm). Figures are drawn at this size: 7 pt stays 7 pt.
WIDTH = 8.5 / 2.54
#: Okabe and Ito's palette, safe for colour-blind readers.
BLACK = "#000000"
ORANGE = "#E69F00"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#6E6E6E"

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same layout everywhere
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "nsvit",  # else the ids of clip paths change with every run
    "image.interpolation": "nearest",
}


class NothingToDrawError(NsvitError):
    """The records are sound, but hold nothing that the figure shows."""


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for the length of a block; everything is put back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)  # type: ignore[arg-type]
        yield


def new_figure(height: float) -> Figure:
    """An empty figure a column wide and `height` inches high, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_of_text(text: str) -> Figure:
    """A line of text in place of a figure that cannot be drawn."""
    with style():
        figure = new_figure(height=0.6)
        figure.text(0.5, 0.5, textwrap.fill(text, 56), ha="center", va="center", color=GREY)
    return figure


def save(figure: Figure, *paths: str | Path) -> None:
    """Writes a figure to each path (.svg or .png), atomically and byte for byte reproducible.

    Raises:
        NsvitError: another suffix.
    """
    # No date in the file; it would make two runs differ.
    metadata = {".svg": {"Date": None, "Creator": None}, ".png": {"Software": None}}
    for path in paths:
        suffix = Path(path).suffix
        if suffix not in metadata:
            raise NsvitError(f"{path}: figures are written as .svg or .png")
    with style():
        _lay_out(figure)
        for path in map(Path, paths):
            with artifacts.atomic(path) as temporary:
                kind = path.suffix
                figure.savefig(temporary, format=kind[1:], metadata=metadata[kind])


def _lay_out(figure: Figure) -> None:
    """Places everything once, as for a drawing: quicker, and the same in every form.

    Left to `savefig`, the layout would cost a whole drawing that nobody sees.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    engine, dpi = figure.get_layout_engine(), figure.dpi
    if engine is not None and figure.axes:
        FigureCanvasSVG(figure)  # whose widths of texts count
        figure.dpi = 72
        engine.execute(figure)
        figure.dpi = dpi
    figure.set_layout_engine(None)
