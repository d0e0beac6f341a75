"""Models under test, and training one from scratch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    model_validator,
)

from nsvit.config.base import (
    Augmentation,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    Triple,
)

#: Endings of the weight files that are read.
CHECKPOINTS = (".safetensors", ".npz", ".pth", ".pth.tar", ".pt", ".bin")


class ModelConfig(Section):
    """One model under test."""

    label: str
    timm: str = Field(description="a timm name, or local-dir:FOLDER (relative to where you run)")
    pretrained: bool = True
    checkpoint: str | None = Field(
        None,
        description="local weights for that timm architecture: .safetensors, .npz (AugReg), .pth, "
        ".pth.tar, .pt or .bin; relative to where you run",
    )
    ema: bool = Field(True, description="a checkpoint's moving average, where it has both")
    model_args: dict[str, Any] = Field(default_factory=dict)
    mean: Triple = Field(description="per channel, pixels in [0, 1]")
    std: Triple = Field(description="per channel, pixels in [0, 1]")
    paper: str | None = Field(None, description="this model's name in the paper's tables")
    max_seeds: int | None = Field(
        None, ge=1, description="only the first n seeds of each arm, where time forbids more"
    )

    @model_validator(mode="after")
    def _in_pixels(self) -> ModelConfig:
        if min(self.std) <= 0 or max(self.std) > 1:
            raise ValueError(
                "std must be above 0 and at most 1 in every channel (pixels in [0, 1])"
            )
        if min(self.mean) < 0 or max(self.mean) > 1:
            raise ValueError("mean must be in [0, 1] in every channel (grey levels: divide by 255)")
        return self

    @property
    def side(self) -> int | None:
        """Height and width of its pictures where arguments or a ViT's name say so."""
        if "img_size" in self.model_args:
            size = self.model_args["img_size"]
            return size if isinstance(size, int) else None
        if self.model_args.get("dynamic_img_size"):
            return None
        found = re.search(r"_patch\d+\w*_(\d{3})(?:\.|$)", self.timm)
        return int(found[1]) if found else None

    @model_validator(mode="after")
    def _checkpoint_is_sound(self) -> ModelConfig:
        if self.checkpoint is None:
            return self
        if local_dir(self.timm) is not None:
            raise ValueError("checkpoint: a local-dir: folder has weights of its own; give one")
        if not self.checkpoint.endswith(CHECKPOINTS):
            raise ValueError(f"checkpoint: {self.checkpoint} ends in none of {list(CHECKPOINTS)}")
        return self


def local_dir(name: str) -> Path | None:
    """The folder of a timm name of the form `local-dir:FOLDER`, else None."""
    return Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else None


class PretrainConfig(Section):
    """Training one model from scratch (the rule `pretrain_model`)."""

    architecture: str
    model_args: dict[str, Any] = Field(default_factory=dict)
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    epochs: PositiveInt
    batch_size: PositiveInt = 64
    lr: PositiveFloat
    weight_decay: float = Field(0.05, ge=0)
    warmup: Probability = Field(0.05, description="share of all steps")
    label_smoothing: Probability = 0.0
    augmentation: Augmentation = "light"
    sincos: bool = Field(True, description="sine-cosine initial position embedding (ViTs)")
    seed: int = Field(0, ge=0)
