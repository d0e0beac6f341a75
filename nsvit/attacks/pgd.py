"""PGD (Madry et al. 2018): projected steps along the gradient, in the linf or l2 ball.

Also the attack inside adversarial training (`nsvit.attacks.training`). Differences from the
publication's loop: a picture is left alone as soon as its prediction is wrong, which saves work
and can only help the attacker.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvit import stopping
from nsvit.attacks.steps import (
    Context,
    Objective,
    Started,
    anywhere,
    holds,
    seeds_for,
    summed_cross_entropy,
    value_and_gradient,
)
from nsvit.attacks.threat import ThreatModel


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Nothing is shared between radii."""
    context = context or Context()
    return lambda threat: pgd(
        model, images, labels, threat, seeds=context.seeds, **context.settings
    )


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    seeds: Sequence[int] | None = None,
    early_exit: bool = True,
) -> Tensor:
    """Adversarial images of a frozen model.

    Args:
        model: takes pixels in [0, 1]; freeze it first (`nsvit.models.frozen`).
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: bound and norm.
        steps: gradient steps per start.
        step_size: in the units of the radius; None takes 2.5 radius / steps.
        restarts: starts; later ones only for pictures that held so far.
        random_start: start anywhere in the ball; False starts at the clean picture.
        seeds: one per picture.
        early_exit: stop on a picture once it is misclassified. False does all steps on all
            pictures and returns the start with the highest loss.

    Returns:
        (B, 3, H, W) pixels in [0, 1] inside the threat model. A picture that was misclassified
        from the beginning is returned clean if `early_exit`.
    """
    seeds = seeds_for(images, seeds)
    step = 2.5 * threat.radius / max(steps, 1) if step_size is None else step_size
    best, best_loss = images.clone(), None
    left = torch.arange(len(images), device=images.device)
    # Without a random start the first step looks at the clean pictures anyway.
    if early_exit and (random_start or steps == 0):
        left = left[holds(model, images, labels)]
    for restart in range(restarts):
        if not len(left):
            break
        x, y = images[left], labels[left]
        begin = x
        if random_start:
            begin = anywhere(x, threat, [seeds[i] for i in left.tolist()], "pgd", restart)
        found = climb(model, x, y, threat, begin, steps, step, early_exit)
        if restarts == 1:
            best[left] = found
            break
        loss, holding = _loss(model, found, y)
        if best_loss is None:
            best_loss = torch.full((len(images),), -torch.inf).to(loss)
        # A picture that fell is kept whatever its loss: an earlier start had not felled it.
        better = (loss > best_loss[left]) | (~holding if early_exit else False)
        best[left[better]], best_loss[left[better]] = found[better], loss[better]
        if early_exit:
            left = left[holding]
    return best


def climb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    begin: Tensor,
    steps: int,
    step: float,
    early_exit: bool,
    objective: Objective = summed_cross_entropy,
) -> Tensor:
    """Projected gradient steps from `begin`; the batch shrinks to the pictures that hold."""
    moved = begin.clone()
    left = torch.arange(len(images), device=images.device)
    clean, own, at = images, labels, begin
    for _ in range(steps):
        stopping.own_point()
        logits, gradient = value_and_gradient(model, at, own, objective)
        if early_exit and not bool((holding := logits.argmax(1) == own).all()):
            moved[left[~holding]] = at[~holding]
            left, gradient = left[holding], gradient[holding]
            clean, own, at = clean[holding], own[holding], at[holding]
            if not len(left):
                return moved
        at = threat.project(clean, threat.steepest(gradient).mul_(step).add_(at))
    moved[left] = at
    return moved


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) loss of each picture, and whether its prediction holds."""
    with torch.no_grad():
        logits = model(images)
    return cross_entropy(logits, labels, reduction="none"), logits.argmax(1) == labels
