"""Patch-Fool (Fu et al. 2022): one patch, chosen by attention, is filled with anything at all.

Settings and order of operations follow its published code (METHOD.md section 6). Differences:
everything is in pixels, with the published lr, which acts on normalised values, multiplied by
the model's std; conflicting gradients are projected by the full formula (the code divides by a
norm where its square is needed); a mild l2 bound holds over all channels together instead of for
each; a picture is left alone as soon as it is misclassified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvit.attacks.folding import folding
from nsvit.attacks.steps import (
    Adam,
    Context,
    Started,
    holds,
    pixel_model,
    seeds_for,
    uniform,
    value_and_gradient,
)
from nsvit.attacks.threat import ThreatModel
from nsvit.errors import NsvitError
from nsvit.models import PixelModel

#: StepLR of the published code: the lr is multiplied by DECAY every DECAY_STEPS iterations.
DECAY_STEPS, DECAY = 10, 0.95


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Nothing is shared between radii; linf radius 1 is the published, unbounded attack."""
    context = context or Context()
    return lambda threat: patch_fool(
        model, images, labels, threat, seeds=context.seeds, **context.settings
    )


def check(model: PixelModel, patches: int) -> None:
    """Refuses a model whose attention cannot be read, or with fewer patches.

    Raises:
        NsvitError: names the model and what it lacks.
    """
    attentions(model)
    count = model.token_shape[0]
    if patches > count:
        raise NsvitError(f"attack patch_fool: {patches} patches of a picture with {count}")


def attentions(model: PixelModel) -> list[nn.Module]:
    """The attention of every encoder block, whose softmax can be read.

    Raises:
        NsvitError: names the model and what it lacks.
    """
    found = []
    for number, block in enumerate(model.blocks):
        attention = getattr(block, "attn", None)
        if not isinstance(attention, nn.Module) or not isinstance(
            getattr(attention, "attn_drop", None), nn.Module
        ):
            raise NsvitError(
                f"attack patch_fool: model {model.architecture!r} has no attention to read in "
                f"block {number} (needs timm's `attn.attn_drop`; found "
                f"{type(attention).__name__})"
            )
        found.append(attention)
    model.token_shape  # noqa: B018 - refuses models without a linear patch embedding
    return found


@contextmanager
def reading_attention(model: PixelModel) -> Iterator[list[Tensor]]:
    """The softmax of every block's latest forward pass: a list of (B, heads, T, T).

    Fused attention never forms it, so it is switched off meanwhile; what was set before comes
    back also after an exception. The list is empty before the first forward pass.
    """
    modules = attentions(model)
    fused = [getattr(module, "fused_attn", None) for module in modules]
    maps: list[Tensor] = []

    def read(number: int) -> object:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if number == 0:
                maps.clear()
            maps.append(output)

        return hook

    handles = []
    try:
        for number, module in enumerate(modules):
            if fused[number] is not None:
                module.fused_attn = False  # type: ignore[assignment]
            handles.append(module.attn_drop.register_forward_hook(read(number)))  # type: ignore[operator, union-attr, arg-type]
        yield maps
    finally:
        for handle in handles:
            handle.remove()
        for module, before in zip(modules, fused, strict=True):
            if before is not None:
                module.fused_attn = before


def choose(
    model: nn.Module, images: Tensor, labels: Tensor, patches: int, layer: int
) -> tuple[Tensor, Tensor]:
    """The patches that most tokens attend to, and whether the prediction holds.

    Args:
        model: takes pixels in [0, 1].
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        patches: how many.
        layer: block whose attention counts, mean over heads and queries; the last block if the
            model has fewer.

    Returns:
        (B, patches) indices, strongest first, and (B,) bool.

    Raises:
        NsvitError: the attention cannot be read, or there are fewer patches.
    """
    net = pixel_model(model)
    check(net, patches)
    with reading_attention(net) as maps:
        holding = holds(model, images, labels)
        count = net.token_shape[0]
        _check_maps(net, maps, count)
        attended = maps[min(layer, len(maps) - 1)].mean(1).mean(1)[:, -count:]
    return attended.argsort(dim=1, descending=True, stable=True)[:, :patches], holding


def _check_maps(net: PixelModel, maps: list[Tensor], count: int) -> None:
    shapes = {tuple(one.shape[1:]) for one in maps}
    if len(maps) != len(net.blocks) or any(len(s) != 3 or s[-1] < count for s in shapes):
        raise NsvitError(
            f"attack patch_fool: model {net.architecture!r} does not show its attention over all "
            f"{count} patches in every block (found shapes {sorted(shapes)})"
        )


def mask_of(net: PixelModel, images: Tensor, chosen: Tensor) -> Tensor:
    """(B, 1, H, W) bool: the pixels of the chosen patches."""
    tall, wide = (int(side) for side in net.projection.kernel_size)
    rows, columns = net.image_size[0] // tall, net.image_size[1] // wide
    grid = torch.zeros(len(images), rows * columns, dtype=torch.bool, device=images.device)
    grid.scatter_(1, chosen, True)
    grid = grid.view(-1, 1, rows, columns)
    mask = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool, device=images.device)
    filled = grid.repeat_interleave(tall, 2).repeat_interleave(wide, 3)
    mask[:, :, : filled.shape[2], : filled.shape[3]] = filled
    return mask


def patch_fool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel | None = None,
    *,
    patches: int = 1,
    layer: int = 4,
    mode: str = "ce",
    attention_weight: float = 0.002,
    lr: float = 0.22,
    steps: int = 250,
    seeds: Sequence[int] | None = None,
    early_exit: bool = True,
) -> Tensor:
    """Adversarial images that differ from the clean ones in a few patches only.

    Args:
        model: a ViT that takes pixels in [0, 1]; freeze it first.
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: the mild variants' bound on the change; None: anything goes inside the patch.
        patches: how many patches change.
        layer: block whose attention chooses them, clamped to the model's depth.
        mode: "ce" climbs the cross-entropy; "attention" also draws the attention of blocks 1 to
            depth / 2 - 1 to the strongest patch, as far as that does not conflict.
        attention_weight: weight of each block's attention loss.
        lr: of Adam, in normalised units (the published 0.22 is about 0.05 in pixels).
        steps: iterations; 0 changes nothing.
        seeds: one per picture; the patch starts as uniform noise.
        early_exit: stop on a picture once it is misclassified.

    Returns:
        (B, 3, H, W) pixels in [0, 1], equal to `images` outside the chosen patches.

    Raises:
        NsvitError: no attention can be read, or the mode is unknown.
    """
    if mode not in ("ce", "attention"):
        raise NsvitError(f"attack patch_fool: mode {mode!r}; there is 'ce' and 'attention'")
    threat = threat or ThreatModel(1.0)
    net = pixel_model(model)
    chosen, holding = choose(model, images, labels, patches, layer)
    result = images.clone()
    left = torch.arange(len(images), device=images.device)
    left = left[holding] if early_exit else left
    if steps == 0 or not len(left):
        return result
    drawn = uniform(images[left], [seeds_for(images, seeds)[i] for i in left.tolist()], "patch")
    mask, clean = mask_of(net, images, chosen)[left], images[left]
    moved = _within(threat, clean, _first(threat, clean, drawn), mask)
    y, target, adam = labels[left], chosen[left, 0], Adam(clean)
    for step in range(steps):
        if mode == "ce":
            logits, gradient = value_and_gradient(model, moved, y)
        else:
            logits, gradient = _attention_gradient(model, moved, y, target, mask, attention_weight)
        if early_exit and not bool((going := logits.argmax(1) == y).all()):
            result[left[~going]] = moved[~going]
            left, clean, moved, mask = left[going], clean[going], moved[going], mask[going]
            y, target, gradient = y[going], target[going], gradient[going]
            adam.keep(going)
            if not len(left):
                return result
        rate = lr * DECAY ** (step // DECAY_STEPS)
        rise = adam.direction(gradient * net.std * mask)
        moved = _within(threat, clean, moved + rate * net.std * rise, mask)
    result[left] = moved
    return result


def _first(threat: ThreatModel, clean: Tensor, drawn: Tensor) -> Tensor:
    """Where the patch starts: any picture, or anywhere within a mild linf bound."""
    if threat.norm == "linf" and threat.radius < 1.0:
        return clean + (2.0 * drawn - 1.0) * threat.radius
    return drawn


def _within(threat: ThreatModel, clean: Tensor, moved: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, threat.project(clean, torch.where(mask, moved, clean)), clean)


def _attention_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    target: Tensor,
    mask: Tensor,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the cross-entropy plus the attention's, less their conflict.

    A block's attention loss is the mean over all tokens of log(attention, mean over heads, to
    the target patch). Where its gradient points against that of the cross-entropy, the part
    along it is taken out (PCGrad, Yu et al. 2020).
    """
    net = pixel_model(model)
    with reading_attention(net) as maps, folding(model), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_(True)
        logits = model(pixels)
        loss = cross_entropy(logits, labels, reduction="sum")
        (main,) = torch.autograd.grad(loss, pixels, retain_graph=True)
        # In the units of the published code, where cosines and projections are taken.
        main = (main * net.std * mask).flatten(1)
        total, squared = main.clone(), main.square().sum(1).clamp_min(1e-20)
        depth, count = len(maps), net.token_shape[0]
        # The published range is empty below four blocks: then block 1, or the only one.
        for block in range(1, depth // 2) or (min(1, depth - 1),):
            attended = maps[block].mean(1)[:, :, -count:]
            column = attended.gather(2, target.view(-1, 1, 1).expand(-1, attended.shape[1], 1))
            drawn = column.clamp_min(1e-12).log().mean((1, 2)).sum()
            (side,) = torch.autograd.grad(drawn, pixels, retain_graph=True)
            side = (side * net.std * mask).flatten(1)
            along = (side * main).sum(1)
            total += weight * (side - (along.clamp_max(0.0) / squared)[:, None] * main)
    return logits.detach(), total.view_as(images) / net.std
