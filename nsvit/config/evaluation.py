"""Conditions, statistics and studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from nsvit.config.attacks import AttackConfig
from nsvit.config.base import PositiveFloat, PositiveInt, Probability, Section, Slug, radius_value
from nsvit.config.method import NoiseConfig
from nsvit.config.models import ModelConfig


class ConditionConfig(Section):
    """One column of the evaluation matrix."""

    label: str
    set: Slug
    attack: AttackConfig | None = None
    metric: Literal["accuracy", "corruption_error", "mce"] = Field(
        "accuracy",
        description="mce: corruption errors divided by AlexNet's, on the published 1000-class tree",
    )
    images: int | None = Field(None, ge=1, description="first n pictures of every class in turn")
    restricted: bool = Field(
        True, description="false: predict among all classes even where the set lists only some"
    )
    models: tuple[Slug, ...] | None = Field(None, description="null: every model")
    arms: tuple[Slug, ...] | None = Field(None, description="null: every arm")
    job: Slug = Field("main", description="conditions with the same name share a job")
    average: bool = Field(True, description="counts in the Average column")
    paper: str | None = Field(None, description="this column's name in the paper's tables")

    @property
    def is_error(self) -> bool:
        """Whether its number is an error: lower is better."""
        return self.metric != "accuracy"


class RobustConfig(Section):
    """Robust accuracy: the share of pictures that are right under every one of the conditions."""

    label: str
    conditions: tuple[Slug, ...] = Field(
        min_length=2, description="of one set; counted over the pictures of the smallest"
    )


class EvaluateConfig(Section):
    """The evaluation matrix."""

    batch_size: PositiveInt = 250
    together: bool = Field(
        False, description="all seeds of an arm in one job: less start-up, less side by side"
    )
    conditions: dict[Slug, ConditionConfig]
    robust: dict[Slug, RobustConfig] = Field(
        default_factory=dict, description="named sets of attacks, a column each"
    )
    sources: dict[Slug, ModelConfig] = Field(
        default_factory=dict, description="models that transfer attacks follow, never under test"
    )


#: Tables that have a rule of their own; `tables` cannot use their names.
OWN_TABLES = ("attacks", "claims", "closure", "cost", "influence", "lambda", "nullity", "paired")


class TableConfig(Section):
    """One table of accuracies: which rows and columns, null meaning all."""

    title: str
    models: tuple[Slug, ...] | None = None
    arms: tuple[Slug, ...] | None = None
    conditions: tuple[Slug, ...] | None = Field(
        None, description="conditions and robust sets, in this order"
    )
    against: tuple[Slug, ...] = Field(
        (), description="also show the paired differences of the other arms to these"
    )


class StatisticsConfig(Section):
    """Intervals."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: PositiveInt = 2000
    seed: int = Field(0, ge=0)


class NullspaceConfig(Section):
    """The exact nullspace and its demonstration (METHOD.md section 2)."""

    rtol: PositiveFloat = Field(1e-6, description="singular values below rtol * largest are zero")
    images: PositiveInt = Field(64, description="pictures of val on which invariance is measured")
    peak: Probability = Field(0.5, description="largest absolute pixel value of the noise")
    architectures: tuple[str, ...] = Field((), description="timm names in the nullity table")


class InfluenceConfig(Section):
    """Learned, permuted and Gaussian noise at every block."""

    models: tuple[Slug, ...]
    images: PositiveInt = Field(500, description="held-out pictures (dev)")
    draws: PositiveInt = Field(3, description="noises per block, each with controls of its own")
    limits: tuple[PositiveFloat, ...] = Field(
        (), description="limit per block, the last for all deeper ones; none: noise.limit"
    )
    noise: NoiseConfig = NoiseConfig()


class DynamicsConfig(Section):
    """Evaluation of every round of some runs: the training-dynamics figure, never a choice."""

    models: tuple[Slug, ...]
    arms: tuple[Slug, ...]
    seed: int = Field(0, ge=0)
    images: PositiveInt = Field(200, description="pictures per set and condition")
    corrupted_images: PositiveInt = Field(20, description="pictures per corruption and severity")
    adversarial: tuple[Slug, ...] = Field(
        min_length=1, description="conditions averaged as adversarial"
    )
    ood: tuple[Slug, ...] = Field(
        min_length=1, description="conditions averaged as out of distribution"
    )
    clean: Slug = "clean"


def attack_series(
    conditions: Mapping[str, ConditionConfig],
) -> list[tuple[tuple[Slug, ...], Slug | None]]:
    """Conditions that attack the same pictures in the same way with different radii.

    Returns:
        For every attack with two radii or more: the slugs by radius, and the clean condition on
        the same set (None where there is none). Its pictures may be more than those attacked.
    """
    found: dict[str, dict[float, Slug]] = {}
    for slug, condition in conditions.items():
        attack = condition.attack
        if attack is None or attack.radius is None:
            continue
        # The step goes with the radius: attacks that differ in both are one attack still.
        same = attack.model_dump_json(exclude={"radius", "step_size"})
        key = f"{condition.set} {condition.images} {condition.restricted} {same}"
        radius = attack.radius
        value = radius_value(radius) if isinstance(radius, str) else radius
        found.setdefault(key, {}).setdefault(value, slug)
    series = []
    for by_radius in found.values():
        if len(by_radius) > 1:
            slugs = tuple(by_radius[radius] for radius in sorted(by_radius))
            series.append((slugs, clean_on(conditions, conditions[slugs[0]])))
    return series


def clean_on(conditions: Mapping[str, ConditionConfig], attacked: ConditionConfig) -> Slug | None:
    """The clean condition with all the pictures of an attacked one."""
    for slug, condition in conditions.items():
        same = (condition.set, condition.restricted) == (attacked.set, attacked.restricted)
        enough = condition.images is None or (
            attacked.images is not None and attacked.images <= condition.images
        )
        if condition.attack is None and condition.metric == "accuracy" and same and enough:
            return slug
    return None
