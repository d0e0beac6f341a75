"""CW-L2 (Carlini and Wagner 2017): the smallest l2 change that misleads, by search over c.

A minimum-norm attack: a search serves its own radius and every larger one. What the
paper used is unknown (METHOD.md section 6); the settings here are those of the publication.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nsvit.attacks.folding import folding
from nsvit.attacks.steps import Adam, Context, Started, holds
from nsvit.attacks.threat import ThreatModel
from nsvit.errors import NsvitError

#: Pixels are brought this close to (-1, 1) before arctanh, so that 0 and 1 stay finite.
_INSIDE = 0.999999


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Searches once; a picture whose smallest change exceeds a radius is left clean there.

    With a radius the search ends on a picture when a change inside it is found; without one, it
    looks for the smallest. A later, smaller radius searches again.
    """
    found: list[tuple[float, Tensor]] = []
    settings = dict((context or Context()).settings)

    def within(threat: ThreatModel) -> Tensor:
        if threat.norm != "l2":
            raise NsvitError(f"attack cw: norm {threat.norm!r}; it knows only l2")
        # Less than the radius by rounding, so that what is enough is also inside.
        enough = threat.radius * (1.0 - 1e-6) if math.isfinite(threat.radius) else 0.0
        if not found or enough < found[-1][0]:
            found.append((enough, cw(model, images, labels, enough=enough, **settings)))
        moved = found[-1][1]
        # In double: whether a change is inside the radius is not left to rounding.
        inside = threat.distance(images.double(), moved.double()) <= threat.radius
        return torch.where(inside.view(-1, 1, 1, 1), moved, images)

    return within


def cw(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 1000,
    lr: float = 0.01,
    confidence: float = 0.0,
    initial_c: float = 1e-3,
    binary_search_steps: int = 9,
    enough: float = 0.0,
) -> Tensor:
    """The closest misclassified images found.

    Args:
        model: takes pixels in [0, 1]; freeze it first.
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        steps: Adam steps for each c.
        lr: of Adam, in arctanh units of pixels stretched to [-1, 1].
        confidence: by how much another logit must exceed the label's.
        initial_c: first weight of the misclassification term; multiplied by 10 until it works,
            then bisected, for each picture by itself.
        binary_search_steps: values of c tried.
        enough: stop on a picture once a change of at most this l2 size is found; 0 looks for the
            smallest. (The published abort on a batch whose summed loss stands still would make a
            picture depend on its batch, and on single pictures it was seen to end too early.)

    Returns:
        (B, 3, H, W) pixels in [0, 1]; the clean picture where nothing was found or where it was
        misclassified already.
    """
    best = images.clone()
    left = torch.nonzero(holds(model, images, labels))[:, 0]
    size = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)
    c = torch.full_like(size, initial_c)
    low, high = torch.zeros_like(size), torch.full_like(size, torch.inf)
    for _ in range(binary_search_steps):
        if not len(left):
            break
        found, found_size, success = _descend(
            model, images[left], labels[left], c[left], steps, lr, confidence, enough
        )
        closer = found_size < size[left]
        best[left[closer]], size[left[closer]] = found[closer], found_size[closer]
        high[left[success]] = c[left[success]]
        low[left[~success]] = c[left[~success]]
        left = left[size[left] > enough]
        c = torch.where(high.isinf(), c * 10.0, (low + high) / 2.0)
    return best


def _descend(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    c: Tensor,
    steps: int,
    lr: float,
    confidence: float,
    enough: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One c per picture: closest success (B, 3, H, W), its l2 size (B,), whether there is one."""
    base = torch.atanh((2.0 * images - 1.0) * _INSIDE)
    origin = _pixels(base)
    best = images.clone()
    size = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)
    left = torch.arange(len(images), device=images.device)
    change, adam = torch.zeros_like(base), Adam(base)
    clean = images
    for step in range(steps):
        last = step + 1 == steps
        pixels, margin, gradient = _objective(
            model, base + change, origin, labels, c, confidence, wanted=not last
        )
        distance = (pixels - clean).flatten(1).norm(dim=1)
        better = (margin < 0) & (distance < size[left])
        best[left[better]], size[left[better]] = pixels[better], distance[better]
        if gradient is None:
            break
        change -= adam.direction(gradient).mul_(lr)
        if enough > 0.0 and not bool((going := size[left] > enough).all()):
            left, change, base, origin = left[going], change[going], base[going], origin[going]
            clean, labels, c = clean[going], labels[going], c[going]
            adam.keep(going)
            if not len(left):
                break
    return best, size, size.isfinite()


def _objective(
    model: nn.Module,
    point: Tensor,
    origin: Tensor,
    labels: Tensor,
    c: Tensor,
    confidence: float,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pixels, margin (B,; negative is success) and, if wanted, gradient in arctanh units."""
    with torch.set_grad_enabled(wanted), folding(model):
        point = point.detach().requires_grad_(wanted)
        pixels = _pixels(point)
        logits = model(pixels)
        own = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
        margin = own - others + confidence
        if not wanted:
            return pixels, margin, None
        loss = c * margin.clamp_min(0.0) + (pixels - origin).flatten(1).square().sum(1)
        (gradient,) = torch.autograd.grad(loss.sum(), point)
    return pixels.detach(), margin.detach(), gradient


def _pixels(point: Tensor) -> Tensor:
    return (point.tanh() + 1.0) / 2.0
