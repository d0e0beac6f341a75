"""Finetuning steps as published (METHOD.md sections 5 and 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from benchmarks.naive.noise import forward
from nsvit.models import PixelModel


@dataclass(frozen=True)
class Losses:
    """Means over the steps of both terms."""

    clean: float
    second: float


@dataclass(frozen=True)
class Second:
    """What the second term of the loss is of.

    Attributes:
        loss: of clean logits, the second pass's logits and labels.
        noise: (1, N, D) on the tokens of the second pass, or None.
        attack: from model, images, labels and step to the pictures of the second pass.
    """

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    noise: Tensor | None = None
    attack: Callable[[PixelModel, Tensor, Tensor, int], Tensor] | None = None


def train(
    model: PixelModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    second: Second,
    *,
    lr: float,
    weight_decay: float,
    label_smoothing: float,
) -> Losses:
    """One optimiser step per batch, in single precision, with a pass for each term.

    Args:
        model: trained in place.
        batches: pixels (B, 3, H, W) in [0, 1] and class indices (B,).
        second: the second term of the loss.
        lr: of AdamW, constant.
        weight_decay: of AdamW; timm exempts biases and norms.
        label_smoothing: of the first term.
    """
    groups = param_groups_weight_decay(
        model.net, weight_decay, no_weight_decay_list=model.net.no_weight_decay()
    )
    optimizer = torch.optim.AdamW(groups, lr=lr)
    # The noise keeps its wish for gradients, which nobody uses.
    noise = None if second.noise is None else second.noise.clone().requires_grad_(True)
    summed, steps = torch.zeros(2), 0
    for step, (images, labels) in enumerate(batches):
        moved = images
        if second.attack is not None:
            moved = second.attack(model, images, labels, step)
        model.train()
        clean = forward(model, images)
        other = forward(model, moved, noise)
        first = cross_entropy(clean, labels, label_smoothing=label_smoothing)
        then = second.loss(clean, other, labels)
        optimizer.zero_grad()
        (first + then).backward()
        optimizer.step()
        summed += torch.stack([first.detach(), then.detach()]).cpu()
        steps = step + 1
    return Losses(*(summed / steps).tolist())


def same_loss(label_smoothing: float, beta: float = 1.0) -> Callable[..., Tensor]:
    """Beta times the cross-entropy of the second pass."""
    return lambda clean, other, labels: (
        beta * cross_entropy(other, labels, label_smoothing=label_smoothing)
    )


def divergence(beta: float) -> Callable[..., Tensor]:
    """Beta times the divergence of both predictions (TRADES)."""
    return lambda clean, other, labels: (
        beta * kl_div(other.log_softmax(1), clean.softmax(1), reduction="sum") / len(clean)
    )


def pgd(
    model: PixelModel,
    images: Tensor,
    begin: Tensor,
    objective: Callable[[Tensor], Tensor],
    radius: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """Signed steps inside the linf ball, all of them on every picture.

    Args:
        model: attacked in evaluation mode; its weights want gradients, which are thrown away.
        images: (B, 3, H, W) in [0, 1], the middle of the ball.
        begin: where to start.
        objective: of logits, to be raised.
        radius: of the ball.
        step_size: of each step.
        steps: how many.
    """
    model.eval()
    moved = begin
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        objective(forward(model, moved)).backward()
        assert moved.grad is not None
        moved = moved + step_size * moved.grad.sign()
        moved = (images + (moved - images).clamp(-radius, radius)).clamp(0, 1)
    model.zero_grad(set_to_none=True)
    return moved.detach()
