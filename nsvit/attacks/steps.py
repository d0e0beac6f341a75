"""What several attacks share: gradients, seeds of single pictures, and Adam without a module.

Everything is per picture: losses are summed over the batch, never averaged, and random numbers
come from one generator per picture. So a picture's result does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvit import runtime
from nsvit.attacks.folding import folding
from nsvit.attacks.threat import ThreatModel
from nsvit.errors import NsvitError
from nsvit.models import PixelModel

#: A loss to climb: (logits (B, classes), labels (B,)) to its sum over the batch.
Objective = Callable[[Tensor, Tensor], Tensor]

#: An attack begun on a batch: gives the adversarial images within a threat model.
Started = Callable[[ThreatModel], Tensor]


@dataclass(frozen=True)
class Context:
    """What an attack is told beside the model, the pictures and the bound.

    Attributes:
        settings: arguments of the attack's function, such as steps; its defaults otherwise.
        seeds: one per picture of the batch; by position in the batch if None.
        source: the model whose gradients a transfer attack follows.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] | None = None
    source: nn.Module | None = None


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss that most attacks climb."""
    return cross_entropy(logits, labels, reduction="sum")


def value_and_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, objective: Objective = summed_cross_entropy
) -> tuple[Tensor, Tensor]:
    """Logits (B, classes) and the objective's gradient (B, 3, H, W) with respect to pixels."""
    with torch.enable_grad(), folding(model):
        pixels = images.detach().clone().requires_grad_(True)
        logits = model(pixels)
        (gradient,) = torch.autograd.grad(objective(logits, labels), pixels)
    return logits.detach(), gradient


def holds(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: the model still predicts the label."""
    with torch.no_grad():
        return model(images).argmax(1) == labels


def seeds_for(images: Tensor, seeds: Sequence[int] | None) -> list[int]:
    """One seed per picture: as given, else by position.

    Raises:
        NsvitError: there are not as many seeds as pictures.
    """
    if seeds is None:
        return [runtime.seed_for("attack", position) for position in range(len(images))]
    if len(seeds) != len(images):
        raise NsvitError(f"{len(seeds)} seeds for {len(images)} pictures: one per picture")
    return list(seeds)


def uniform(images: Tensor, seeds: Sequence[int], *parts: object) -> Tensor:
    """(B, 3, H, W) uniform on [0, 1), each picture from its own seed."""
    shape = images.shape[1:]
    drawn = [torch.rand(shape, generator=runtime.generator(seed, *parts)) for seed in seeds]
    return torch.stack(drawn).to(images) if drawn else torch.empty_like(images)


def normal(images: Tensor, seeds: Sequence[int], *parts: object) -> Tensor:
    """(B, 3, H, W) standard normal, each picture from its own seed."""
    shape = images.shape[1:]
    drawn = [torch.randn(shape, generator=runtime.generator(seed, *parts)) for seed in seeds]
    return torch.stack(drawn).to(images) if drawn else torch.empty_like(images)


def anywhere(images: Tensor, threat: ThreatModel, seeds: Sequence[int], *parts: object) -> Tensor:
    """Pictures drawn uniformly from the ball around each image, clipped to [0, 1]."""
    if threat.norm == "linf":
        change = (2.0 * uniform(images, seeds, *parts) - 1.0) * threat.radius
    else:
        sizes = [
            float(torch.rand((), generator=runtime.generator(seed, "size", *parts)))
            for seed in seeds
        ]
        share = torch.tensor(sizes).to(images).pow(1.0 / max(images[0].numel(), 1))
        direction = threat.steepest(normal(images, seeds, *parts))
        change = direction * (threat.radius * share).view(-1, 1, 1, 1)
    return threat.project(images, images + change)


class Adam:
    """Adam's direction (Kingma and Ba 2015) for a batch from which pictures drop out.

    Elementwise, so unlike `torch.optim.Adam` its state can be cut down to the pictures left.
    """

    def __init__(self, like: Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.betas = betas
        self.mean = torch.zeros_like(like)
        self.square = torch.zeros_like(like)
        self.count = 0

    def direction(self, gradient: Tensor) -> Tensor:
        """The change of size about 1 that would be *subtracted* to descend."""
        first, second = self.betas
        self.count += 1
        self.mean.lerp_(gradient, 1.0 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
        size = (self.square / (1.0 - second**self.count)).sqrt_().add_(1e-8)
        return (self.mean / (1.0 - first**self.count)).div_(size)

    def keep(self, rows: Tensor) -> None:
        """Drops the state of pictures that are not among the rows (mask or indices)."""
        self.mean, self.square = self.mean[rows], self.square[rows]


def pixel_model(model: nn.Module) -> PixelModel:
    """The `PixelModel` inside wrappers, such as evaluation's restriction to some classes.

    Raises:
        NsvitError: there is none.
    """
    for module in model.modules():
        if isinstance(module, PixelModel):
            return module
    raise NsvitError(f"{type(model).__name__}: no PixelModel in it; wrap the timm model in one")
