"""MI-FGSM (Dong et al. 2018) as a transfer attack: the gradients are another model's.

The target is never asked, so there is no early exit. The gradient is divided by its l1 norm
before it enters the momentum, as published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nsvit.attacks.steps import Context, Started, pixel_model, value_and_gradient
from nsvit.attacks.threat import ThreatModel
from nsvit.errors import NsvitError


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Attacks the context's source model; `model` is the target and only compared with it."""
    context = context or Context()
    source = check(model, context)
    return lambda threat: mi_fgsm(source, images, labels, threat, **context.settings)


def check(model: nn.Module, context: Context) -> nn.Module:
    """The source model.

    Raises:
        NsvitError: there is none, it is the target itself, or its classes are not the target's.
    """
    source = context.source
    if source is None:
        raise NsvitError("attack mi_fgsm: no source model was given; it is a transfer attack")
    target, other = pixel_model(model), pixel_model(source)
    if other is target:
        raise NsvitError(
            f"attack mi_fgsm: the source model {other.architecture!r} is the target itself"
        )
    if other.num_classes != target.num_classes:
        raise NsvitError(
            f"attack mi_fgsm: the source model {other.architecture!r} has {other.num_classes} "
            f"classes, the target {target.architecture!r} has {target.num_classes}"
        )
    return source


def mi_fgsm(
    source: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
) -> Tensor:
    """Adversarial images of the source model.

    Args:
        source: takes pixels in [0, 1]; freeze it first.
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: bound and norm.
        steps: gradient steps.
        step_size: in the units of the radius; None takes radius / steps, as published.
        decay: share of the momentum kept from step to step; 0 is iterated FGSM.

    Returns:
        (B, 3, H, W) pixels in [0, 1] inside the threat model.
    """
    step = threat.radius / max(steps, 1) if step_size is None else step_size
    moved, momentum = images.clone(), torch.zeros_like(images)
    for _ in range(steps):
        _, gradient = value_and_gradient(source, moved, labels)
        size = gradient.flatten(1).abs().sum(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        momentum.mul_(decay).add_(gradient.div_(size))
        moved = threat.project(images, threat.steepest(momentum).mul_(step).add_(moved))
    return moved
