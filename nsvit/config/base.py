"""What every section is made of, and the recipe numbers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

#: One number per rule, raised when what the rule computes changes its meaning. Snakemake does
#: not see edits inside the package; these travel in each rule's params instead.
RECIPES: dict[str, int] = {
    "render": 1,
    "render_transfer": 1,
    "corrupt": 1,
    "scan": 2,
    "contact_sheet": 1,
    "pretrain_model": 1,
    "prepare_model": 1,
    "nullspace": 1,
    "nullity": 1,
    "learn_noise": 1,
    "influence": 1,
    "lambda_study": 1,
    "finetune": 1,
    "evaluate": 2,
    "dynamics": 1,
    "scores": 1,
    "table": 5,
    "table_attacks": 2,
    "table_claims": 6,
    "table_cost": 1,
    "table_influence": 1,
    "table_lambda": 1,
    "table_closure": 1,
    "table_nullity": 1,
    "table_paired": 4,
    "figure_nullspace": 1,
    "figure_influence": 1,
    "figure_dynamics": 2,
    "figure_claims": 2,
    "figure_concept": 1,
    "figure_lambda": 1,
    "figure_closure": 1,
    "figure_corruptions": 2,
    "figure_radius": 2,
    "plan": 1,
    "report": 3,
}

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Triple = tuple[float, float, float]

#: How training pictures are varied (nsvit.data.augment).
Augmentation = Literal["light", "imagenet", "crop", "none"]


def _check_radius(text: str) -> str:
    match = re.fullmatch(r"(0|[1-9]\d{0,2})/255", text)
    if not match or int(match[1]) > 255:
        raise ValueError("a radius is written k/255 with k a whole number from 0 to 255")
    return text


Radius = Annotated[str, AfterValidator(_check_radius)]


def radius_value(radius: str) -> float:
    """The radius "k/255" as a fraction of the pixel range [0, 1]."""
    return int(_check_radius(radius).split("/")[0]) / 255.0


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot be changed."""

    # Checks are built when a section is first used: a verb uses few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
