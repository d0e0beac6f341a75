"""Figures, from records, tables and sidecars only, in one style. No torch.

Every figure is a function that returns a matplotlib figure; `save` writes it as svg and png.
"""

from nsvit.figures.dynamics import figure_dynamics
from nsvit.figures.forest import figure_claims
from nsvit.figures.influence import figure_influence
from nsvit.figures.nullspace import figure_nullspace
from nsvit.figures.style import save
from nsvit.figures.verbs import write_claims, write_dynamics, write_influence, write_nullspace

__all__ = [
    "figure_claims",
    "figure_dynamics",
    "figure_influence",
    "figure_nullspace",
    "save",
    "write_claims",
    "write_dynamics",
    "write_influence",
    "write_nullspace",
]
