"""The attacks inside adversarial training: Madry et al. (2018) and TRADES (Zhang et al. 2019).

METHOD.md section 5.2: both linf 8/255, 10 steps of 2/255. All steps are done on every picture
(no early exit), in evaluation mode, as by the library the paper's code used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from nsvit.attacks.pgd import climb, pgd
from nsvit.attacks.steps import normal, seeds_for
from nsvit.attacks.threat import ThreatModel
from nsvit.models import frozen

#: Standard deviation, in pixels, of the start of TRADES: at the clean picture itself the
#: divergence has no gradient.
TRADES_START = 1e-3


def madry_images(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    steps: int = 10,
    step_size: float = 2.0 / 255.0,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """PGD from a random start on the cross-entropy; the model is left as it was.

    Args:
        model: takes pixels in [0, 1].
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices, or (B, classes) soft labels.
        threat: bound and norm.
        steps: gradient steps.
        step_size: in the units of the radius.
        seeds: one per picture, such as `seed_for(seed, round, step, position)`.

    Returns:
        (B, 3, H, W) pixels in [0, 1] inside the threat model, without a graph.
    """
    with frozen(model):
        return pgd(
            model,
            images,
            labels,
            threat,
            steps=steps,
            step_size=step_size,
            seeds=seeds,
            early_exit=False,
        )


def trades_images(
    model: nn.Module,
    images: Tensor,
    threat: ThreatModel,
    steps: int = 10,
    step_size: float = 2.0 / 255.0,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Projected steps that raise KL(clean prediction || prediction); needs no labels.

    Arguments and result as `madry_images`.
    """
    with frozen(model):
        with torch.no_grad():
            clean = model(images).softmax(1)

        def divergence(logits: Tensor, _: Tensor) -> Tensor:
            return kl_div(logits.log_softmax(1), clean, reduction="sum")

        noise = TRADES_START * normal(images, seeds_for(images, seeds), "trades")
        begin = threat.project(images, images + noise)
        unused = clean.argmax(1)
        return climb(
            model,
            images,
            unused,
            threat,
            begin,
            steps,
            step_size,
            early_exit=False,
            objective=divergence,
        )
