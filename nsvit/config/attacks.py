"""Attacks on pixels in [0, 1], one section for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from nsvit.config.base import PositiveFloat, PositiveInt, Radius, Section, Slug

#: Classes that the loss of a part of AutoAttack needs, where more than two: differences of logits
#: are divided by that of the first and the third largest, for a target by that of the first and the
#: mean of the third and the fourth.
MIN_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


class FgsmConfig(Section):
    """One step along the sign of the gradient (linf)."""

    name: Literal["fgsm"]
    radius: Radius


class _Bounded(Section):
    """An attack in the linf or the l2 ball."""

    norm: Literal["linf", "l2"] = "linf"
    radius: Radius | PositiveFloat = Field(
        description="linf: k/255 of the pixel range; l2: root of summed squares, pixel units"
    )

    @model_validator(mode="after")
    def _radius_fits_norm(self) -> _Bounded:
        if self.norm == "linf" and not isinstance(self.radius, str):
            raise ValueError("a linf radius is written k/255 with k a whole number from 0 to 255")
        if self.norm == "l2" and isinstance(self.radius, str):
            raise ValueError("an l2 radius is a positive number in pixel units, such as 0.5")
        return self

    @model_validator(mode="after")
    def _step_fits_pixels(self) -> _Bounded:
        step = getattr(self, "step_size", None)
        if self.norm == "linf" and step is not None and step > 1.0:
            raise ValueError(
                f"step_size {step:g} is larger than any change: pixels are in [0, 1], 2/255 is "
                "0.00784"
            )
        return self


class PgdConfig(_Bounded):
    """Projected gradient steps."""

    name: Literal["pgd"]
    steps: PositiveInt = Field(10, description="gradient steps per start")
    step_size: PositiveFloat | None = Field(
        None, description="units of the radius as a number (2/255 is 0.00784); null: 2.5 r / steps"
    )
    restarts: PositiveInt = 1
    random_start: bool = Field(True, description="start anywhere in the ball")
    seed: int = Field(0, ge=0)


class MiFgsmConfig(_Bounded):
    """Momentum steps on another model's gradients (a transfer attack)."""

    name: Literal["mi_fgsm"]
    source: Slug = Field(description="a key of evaluate.sources: the model that is followed")
    steps: PositiveInt = 10
    step_size: PositiveFloat | None = Field(
        None, description="units of the radius as a number; null: radius / steps"
    )
    decay: float = Field(1.0, ge=0, description="share of the momentum kept per step")


class CwConfig(Section):
    """Smallest l2 change by search over c (Carlini and Wagner)."""

    name: Literal["cw"]
    norm: Literal["l2"] = "l2"
    radius: PositiveFloat | None = Field(
        None, description="larger changes do not count, pixel units; null: any size counts"
    )
    binary_search_steps: PositiveInt = Field(9, description="values of c tried")
    steps: PositiveInt = Field(1000, description="Adam steps per c")
    confidence: float = Field(0.0, ge=0, description="by how much another logit must exceed")
    lr: PositiveFloat = Field(0.01, description="of Adam, arctanh units")
    initial_c: PositiveFloat = 1e-3


class PatchFoolConfig(Section):
    """A few patches, chosen by attention, filled with anything (METHOD.md section 6)."""

    name: Literal["patch_fool"]
    norm: Literal["linf", "l2"] = "linf"
    radius: Radius | PositiveFloat | None = Field(
        None, description="bound of the mild variants inside the patch; null: none"
    )
    patches: PositiveInt = 1
    layer: int = Field(4, ge=0, description="block whose attention chooses, at most the last")
    mode: Literal["ce", "attention"] = Field("ce", description="attention: with its loss, PCGrad")
    attention_weight: float = Field(0.002, ge=0)
    lr: PositiveFloat = Field(0.22, description="of Adam, normalised units")
    steps: int = Field(250, ge=0, description="iterations")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _radius_fits_norm(self) -> PatchFoolConfig:
        if self.norm == "linf" and isinstance(self.radius, float):
            raise ValueError("a linf radius is written k/255 with k a whole number from 0 to 255")
        if self.norm == "l2" and not isinstance(self.radius, float):
            raise ValueError("norm l2 needs a radius: a positive number in pixel units")
        return self


class AutoAttackConfig(_Bounded):
    """The AutoAttack ensemble."""

    name: Literal["autoattack"]
    parts: tuple[Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"], ...] = Field(
        ("apgd-ce", "apgd-t", "fab-t", "square"), min_length=1
    )
    steps: PositiveInt = Field(100, description="of APGD and FAB")
    queries: PositiveInt = Field(5000, description="of the square attack")
    targets: PositiveInt = Field(9, description="target classes, at most classes - 1")
    together: bool = Field(
        False, description="a batch in one call: faster, but results depend on the batch size"
    )
    seed: int = Field(0, ge=0)


#: An attack on pixels in [0, 1].
AttackConfig = Annotated[
    FgsmConfig | PgdConfig | MiFgsmConfig | CwConfig | PatchFoolConfig | AutoAttackConfig,
    Field(discriminator="name"),
]
