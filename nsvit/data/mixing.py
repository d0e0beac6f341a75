"""Mixup and CutMix of a whole batch, through timm, with draws of its own.

METHOD.md section 5: the whole batch is mixed with itself in reverse, with one share and one box,
before anything else; so both terms of the loss see the same mixed pictures and the same soft
labels, and noise is learned on pictures that are not mixed.
"""

from __future__ import annotations

import functools

import torch
from timm.data import Mixup
from torch import Tensor

from nsvit.config import MixingConfig
from nsvit.runtime import seeded


def mix(
    images: Tensor,
    labels: Tensor,
    config: MixingConfig,
    classes: int,
    smoothing: float,
    *seed_parts: object,
) -> tuple[Tensor, Tensor]:
    """Mixes picture i with picture B - 1 - i.

    The draws depend on `seed_parts` alone, not on the batch: rows [a, b) of a batch of B, followed
    by its rows [B - b, B - a), become in their first half what they become in the whole.

    Args:
        images: (B, 3, H, W) pixels in [0, 1], B even; not changed.
        labels: (B,) class indices.
        config: what is mixed and how often.
        classes: width of the soft labels.
        smoothing: of the labels, 0 to 1.
        *seed_parts: as of `runtime.seed_for`.

    Returns:
        (B, 3, H, W) mixed pixels, and (B, classes) soft labels, smoothed.
    """
    mixup = _mixup(config, classes, smoothing)
    with seeded(*seed_parts, "mix"):
        mixed, targets = mixup(images.clone(), labels)
    return mixed, targets.to(torch.float32)


@functools.lru_cache(maxsize=4)
def _mixup(config: MixingConfig, classes: int, smoothing: float) -> Mixup:
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.probability,
        switch_prob=config.switch,
        mode="batch",
        label_smoothing=smoothing,
        num_classes=classes,
    )
