"""Attacks of the published table on whole batches, without early exit (METHOD.md section 6).

Weights want gradients in all of them. CW, which calls backward as torchattacks does, gets them
too; FGSM and Patch-Fool ask for the pixels' alone, as torchattacks and Patch-Fool's code do.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nsvit.models import PixelModel


def fgsm(model: PixelModel, images: Tensor, labels: Tensor, radius: float) -> Tensor:
    """One step of the radius along the sign of the gradient."""
    pixels = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(cross_entropy(model(pixels), labels), pixels)
    return (images + radius * gradient.sign()).clamp(0, 1)


def cw(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    *,
    radius: float,
    steps: int,
    binary_search_steps: int,
    initial_c: float,
    lr: float,
) -> Tensor:
    """The smallest l2 change found by Adam for several c; one beyond the radius does not count."""
    base = torch.atanh((2 * images - 1) * (1 - 1e-6))
    origin = (base.tanh() + 1) / 2
    best, best_size = images.clone(), torch.full((len(images),), torch.inf).to(images)
    c = torch.full_like(best_size, initial_c)
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
    for _ in range(binary_search_steps):
        point = base.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([point], lr=lr)
        fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for _ in range(steps):
            moved = (point.tanh() + 1) / 2
            logits = model(moved)
            own = logits.gather(1, labels[:, None])[:, 0]
            margin = own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
            loss = c * margin.clamp_min(0) + (moved - origin).flatten(1).square().sum(1)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            with torch.no_grad():
                size, wrong = (moved - images).flatten(1).norm(dim=1), margin < 0
                closer = wrong & (size < best_size)
                best[closer], best_size[closer] = moved[closer], size[closer]
                fooled |= wrong
        high, low = torch.where(fooled, c, high), torch.where(fooled, low, c)
        c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
    return torch.where((best_size <= radius).view(-1, 1, 1, 1), best, images)


def patch_fool(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    *,
    start: Tensor,
    steps: int,
    lr: float = 0.22,
    layer: int = 4,
) -> Tensor:
    """One patch of each picture, the most attended to, filled by Adam from `start`.

    As its published code: everything in normalised units, StepLR 10 / 0.95, all iterations.
    """
    mask = _mask(model, images, layer)
    clean = (images - model.mean) / model.std
    lowest, highest = (0 - model.mean) / model.std, (1 - model.mean) / model.std
    patch = ((start - model.mean) / model.std).requires_grad_(True)
    optimizer = torch.optim.Adam([patch], lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.95)
    for _ in range(steps):
        logits = model.net(torch.where(mask, patch, clean))
        loss = -cross_entropy(logits, labels, reduction="sum")
        (patch.grad,) = torch.autograd.grad(loss, patch)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            patch.clamp_(lowest, highest)
    with torch.no_grad():
        return torch.where(mask, patch * model.std + model.mean, images).clamp(0, 1)


def _mask(model: PixelModel, images: Tensor, layer: int) -> Tensor:
    """(B, 1, H, W): the patch that most tokens attend to in a block."""
    attention = model.net.blocks[min(layer, len(model.net.blocks) - 1)].attn
    maps: list[Tensor] = []
    handle = attention.attn_drop.register_forward_hook(lambda *seen: maps.append(seen[2]))
    fused, attention.fused_attn = attention.fused_attn, False
    try:
        with torch.no_grad():
            model(images)
    finally:
        attention.fused_attn = fused
        handle.remove()
    side = model.projection.kernel_size[0]
    across = images.shape[3] // side
    tokens = across * (images.shape[2] // side)
    chosen = maps[0].mean(1).mean(1)[:, -tokens:].argmax(1)
    mask = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool, device=images.device)
    for number, place in enumerate(chosen.tolist()):
        top, left = side * (place // across), side * (place % across)
        mask[number, :, top : top + side, left : left + side] = True
    return mask
