"""The lambda study and the closure of what it learned (METHOD.md section 3)."""

from __future__ import annotations

from pydantic import Field, model_validator

from nsvit.config.base import PositiveFloat, PositiveInt, Probability, Section, Slug


class ClosureConfig(Section):
    """Whether multiples and mixtures of learned noises are null too (paper, appendix A.5)."""

    at: PositiveFloat = Field(0.3, description="the lambda whose noises are used, one of `lambdas`")
    images: PositiveInt = Field(250, description="held-out pictures, among those of the study")
    factors: tuple[float, ...] = Field(
        (-2, -1, 0.5, 1, 2, 3), min_length=1, description="multiples of a noise"
    )
    weights: tuple[Probability, ...] = Field(
        (0.25, 0.5, 0.75), min_length=1, description="w in w v1 + (1 - w) v2; v1 + v2 is added"
    )


class LambdaConfig(Section):
    """Noise that trades its size against its effect, for several lambdas.

    The paper names neither optimiser nor steps nor lr; see docs/deviations.md.
    """

    models: tuple[Slug, ...]
    lambdas: tuple[PositiveFloat, ...] = Field(
        (0.01, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0), min_length=1
    )
    draws: PositiveInt = Field(1, description="noises per lambda, each from a start of its own")
    limit: PositiveFloat = Field(0.3, description="noise starts as U(-limit, limit), token units")
    lr: PositiveFloat = Field(0.05, description="of AdamW without decay; falls to 0 as a cosine")
    steps: PositiveInt = Field(500, description="optimiser steps, without early stop")
    pool: PositiveInt = Field(12_800, description="training pictures the noise is learned on")
    batch_size: PositiveInt = 128
    images: PositiveInt = Field(500, description="held-out pictures (dev)")
    closure: ClosureConfig = ClosureConfig()

    @model_validator(mode="after")
    def _closure_is_sound(self) -> LambdaConfig:
        if len(set(self.lambdas)) != len(self.lambdas):
            raise ValueError(f"lambdas {list(self.lambdas)} contain a repetition")
        if self.closure.at not in self.lambdas:
            raise ValueError(
                f"closure.at {self.closure.at} is not among lambdas {list(self.lambdas)}"
            )
        if self.closure.images > self.images:
            raise ValueError(f"closure.images {self.closure.images} is above images {self.images}")
        return self
