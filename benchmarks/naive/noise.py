"""Learning noise as published (METHOD.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nsvit.models import PixelModel


@dataclass(frozen=True)
class Learned:
    """Noise (1, N, D), the optimiser steps done, and the last distance measured."""

    tensor: Tensor
    steps: int
    distance: float


def forward(
    model: PixelModel, images: Tensor, noise: Tensor | None = None, block: int = 0
) -> Tensor:
    """The whole network, written out: logits (B, classes) of pixels in [0, 1].

    Noise (1, N, D) is added to the patch tokens: at 0 after the patch embedding, at k > 0 before
    encoder block k.
    """
    net = model.net
    tokens = net.patch_embed((images - model.mean) / model.std)
    if noise is not None and block == 0:
        tokens = tokens + noise
    tokens = net.norm_pre(net.patch_drop(net._pos_embed(tokens)))
    for number, layer in enumerate(net.blocks):
        if noise is not None and block == number > 0:
            prefix = net.num_prefix_tokens
            tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:] + noise], dim=1)
        tokens = layer(tokens)
    return net.forward_head(net.norm(tokens))


def learn_noise(
    model: PixelModel,
    batches: Sequence[Tensor],
    start: Tensor,
    *,
    lr: float,
    weight_decay: float,
    epsilon: float,
    max_steps: int,
    block: int = 0,
) -> Learned:
    """One batch after another, round and round, until the noise is inside epsilon.

    The lr is constant: the published cosine falls by 2.4 % in all, which costs nothing.

    Args:
        model: its weights want gradients, which add up and are thrown away, as published.
        batches: of pixels (B, 3, H, W) in [0, 1].
        start: (1, N, D).
        lr: of AdamW.
        weight_decay: of AdamW.
        epsilon: of the mean summed squared probability distance.
        max_steps: budget.
        block: injection point.
    """
    model.eval()
    noise = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([noise], lr=lr, weight_decay=weight_decay)
    moved, steps = torch.inf, 0
    for step in range(max_steps):
        images = batches[step % len(batches)]
        with torch.no_grad():
            clean = forward(model, images)
        noisy = forward(model, images, noise, block)
        gap = clean.softmax(1) - noisy.detach().softmax(1)
        moved = float(gap.square().sum(1).mean())
        if moved < epsilon:
            break
        loss = (noisy - clean).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps = step + 1
    model.zero_grad(set_to_none=True)  # as the next training step does
    return Learned(noise.detach(), steps, moved)
