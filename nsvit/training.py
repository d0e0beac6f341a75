"""What finetuning and pretraining share: the optimiser, the schedule and the dev measurement."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.nn.functional import cross_entropy

from nsvit import stopping
from nsvit.inputs import Pictures
from nsvit.models import PixelModel, frozen


def adamw(net: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with timm's convention: no weight decay on biases, norms and position embeddings.

    The fused kernel is used: one call for all weights, the same on every run.
    """
    exempt = getattr(net, "no_weight_decay", lambda: ())()
    groups = param_groups_weight_decay(net, weight_decay, no_weight_decay_list=exempt)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` (progress 0) to `end` (progress 1)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def measure(model: PixelModel, pictures: Pictures, batch_size: int = 250) -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy (nats) under the evaluation transform."""
    device = model.mean.device
    correct, loss = 0, 0.0
    with frozen(model), torch.inference_mode():
        for images, labels in pictures.batches(batch_size, device):
            stopping.own_point()
            logits = model(images)
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(cross_entropy(logits, labels, reduction="sum"))
    return correct / len(pictures.image_set), loss / len(pictures.image_set)


@contextlib.contextmanager
def drop_path(model: PixelModel, rate: float) -> Iterator[None]:
    """Stochastic depth rising linearly to `rate` over the blocks (timm); 0 changes nothing."""
    if rate == 0.0:
        yield
        return
    from timm.layers import DropPath

    replaced = []
    rates = torch.linspace(0, rate, len(model.blocks)).tolist()
    for block, own in zip(model.blocks, rates, strict=True):
        for name in ("drop_path", "drop_path1", "drop_path2"):
            if hasattr(block, name):
                replaced.append((block, name, getattr(block, name)))
                setattr(block, name, DropPath(own))
    try:
        yield
    finally:
        for block, name, before in replaced:
            setattr(block, name, before)
