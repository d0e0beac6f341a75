"""Figures, from records, tables and sidecars only, in one style. No torch.

Every figure is a function that returns a matplotlib figure; `save` writes it as svg and png.
"""

from nsvit.figures.closure import figure_closure
from nsvit.figures.concept import figure_concept
from nsvit.figures.corruptions import figure_corruptions
from nsvit.figures.dynamics import figure_dynamics
from nsvit.figures.forest import figure_claims
from nsvit.figures.influence import figure_influence
from nsvit.figures.lambda_study import figure_lambda
from nsvit.figures.nullspace import figure_nullspace
from nsvit.figures.radius import figure_radius
from nsvit.figures.style import save
from nsvit.figures.verbs import (
    write_claims,
    write_closure,
    write_concept,
    write_corruptions,
    write_dynamics,
    write_influence,
    write_lambda,
    write_nullspace,
    write_radius,
)

__all__ = [
    "figure_claims",
    "figure_closure",
    "figure_concept",
    "figure_corruptions",
    "figure_dynamics",
    "figure_influence",
    "figure_lambda",
    "figure_nullspace",
    "figure_radius",
    "save",
    "write_claims",
    "write_closure",
    "write_concept",
    "write_corruptions",
    "write_dynamics",
    "write_influence",
    "write_lambda",
    "write_nullspace",
    "write_radius",
]
