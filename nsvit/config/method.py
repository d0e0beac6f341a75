"""Noise, finetuning and arms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nsvit.config.base import (
    Augmentation,
    PositiveFloat,
    PositiveInt,
    Probability,
    Radius,
    Section,
    Slug,
)

#: "auto": bf16 or fp32, by a measurement on the device when work begins.
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class NoiseConfig(Section):
    """Epsilon-approximate nullspace noise (METHOD.md section 4)."""

    limit: PositiveFloat = Field(3.0, description="noise starts as U(-limit, limit), token units")
    lr: PositiveFloat = 0.1
    weight_decay: float = Field(0.01, ge=0)
    epsilon: float = Field(
        0.03, ge=0, le=2, description="stop below this mean summed squared probability distance"
    )
    max_steps: PositiveInt = Field(3000, description="budget of optimiser steps")
    early_stop: bool = Field(
        True, description="false: all `max_steps` steps, inside epsilon or not; learned noise only"
    )
    pool: PositiveInt = Field(128_000, description="training pictures the noise is learned on")
    batch_size: PositiveInt = 128
    loss: Literal["squared", "unsquared"] = Field(
        "squared", description="logit distance: squared as the late code, unsquared as the paper"
    )
    precision: Precision = Field("fp32", description="of the model's passes; fp16 on GPUs only")
    compile: bool = Field(False, description="the model's blocks go through torch.compile")

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is as it always was is left out: noise learned before these keys stays valid."""
        return _unless(dump(self), precision="fp32", compile=False)


def _unless(dumped: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """A dump without the keys that have these values."""
    return {k: v for k, v in dumped.items() if k not in defaults or v != defaults[k]}


class RandomNoiseConfig(Section):
    """The random baseline (METHOD.md section 5.1): N(0, std^2), shrunk until inside epsilon."""

    std: PositiveFloat = 1.0
    shrink: Annotated[float, Field(gt=0, lt=1)] = 0.8


class AdversarialConfig(Section):
    """Adversarial training (METHOD.md section 5.2): the arms `madry` and `trades`."""

    radius: Radius = "8/255"
    step_size: Radius = "2/255"
    steps: PositiveInt = 10
    beta: PositiveFloat = Field(1.0, description="weight of the adversarial term")


class MixingConfig(Section):
    """Mixup and CutMix of the whole batch (METHOD.md section 5); both 0: neither."""

    mixup: float = Field(0.0, ge=0, description="alpha of Mixup's beta distribution; 0: never")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix's; 0: never")
    probability: Probability = Field(1.0, description="share of the batches that are mixed")
    switch: Probability = Field(0.5, description="share of those that are CutMix, where both are")

    @property
    def is_on(self) -> bool:
        """Whether anything is ever mixed."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


class FinetuneConfig(Section):
    """One finetuning (METHOD.md sections 5 and 12)."""

    rounds: int = Field(20, ge=0, description="0: the starting weights, untouched")
    steps: PositiveInt = Field(40, description="optimiser steps in a round")
    batch_size: PositiveInt = 128
    lr: PositiveFloat = 1e-5
    lr_min: float = Field(1e-6, ge=0, description="end of each round's cosine")
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: Probability = 0.1
    drop_path: Probability = 0.0
    augmentation: Augmentation = "imagenet"
    mixing: MixingConfig = MixingConfig()
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="of a moving average of the weights, which is the result"
    )
    block: int = Field(0, ge=0, description="where noise enters: 0 patch embedding, k block k")
    select: Literal["last", "dev"] = Field("last", description="never on a test set")
    precision: Precision = Field("fp32", description="of training's passes; fp16 on GPUs only")
    compile: bool = Field(False, description="in training blocks go through torch.compile")
    accumulate: PositiveInt = Field(
        1, description="passes that a process splits its part of a batch into, to save memory"
    )
    gradient_checkpointing: bool = Field(
        False, description="blocks are computed twice, to save memory"
    )
    noise: NoiseConfig = NoiseConfig()
    random: RandomNoiseConfig = RandomNoiseConfig()
    adversarial: AdversarialConfig = AdversarialConfig()

    @model_validator(mode="after")
    def _lr_falls(self) -> FinetuneConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min} is above lr {self.lr}")
        return self

    @model_validator(mode="after")
    def _pairs_can_be_mixed(self) -> FinetuneConfig:
        if self.mixing.is_on and self.batch_size % 2:
            raise ValueError(f"batch_size {self.batch_size} is odd; mixing needs pairs")
        return self

    @model_validator(mode="after")
    def _passes_have_pictures(self) -> FinetuneConfig:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} is above batch_size {self.batch_size}: passes would "
                "have no pictures"
            )
        return self

    def batches(self, kind: ArmKind) -> dict[str, int]:
        """Pictures in training's global batch (or a pass of it) and the noise's, by key."""
        found = {"finetune.batch_size": self.batch_size}
        if self.accumulate > 1:
            key = "finetune.batch_size / finetune.accumulate"
            found = {key: self.batch_size // self.accumulate}
        if kind in ("random", "nullspace"):
            found["finetune.noise.batch_size"] = self.noise.batch_size
        return found

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is as it always was is left out: runs made before these keys stay valid."""
        own = {"precision": "fp32", "accumulate": 1, "gradient_checkpointing": False}
        found = _unless(dump(self), **own, ema_decay=None, compile=False)
        return found if self.mixing.is_on else {k: v for k, v in found.items() if k != "mixing"}


#: How an arm finetunes: not at all, without noise, with noise, or on attacked pictures.
ArmKind = Literal["none", "plain", "random", "nullspace", "madry", "trades"]


class ArmConfig(Section):
    """One way to finetune."""

    label: str
    kind: ArmKind
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    models: tuple[Slug, ...] | None = Field(None, description="null: every model")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="keys of `finetune` that differ in this arm"
    )
    paper: str | None = Field(None, description="this method's name in the paper's tables")

    @model_validator(mode="after")
    def _seeds_differ(self) -> ArmConfig:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} contain a repetition")
        return self
