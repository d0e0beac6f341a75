"""Attacks on pixels in [0, 1]: one file per attack, one `ThreatModel` for all.

To add an attack: write `nsvit/attacks/<name>.py` with a function
`start(model, images, labels, context)` that returns a function from a `ThreatModel` to
adversarial images, enter it in `ATTACKS`, and give it a section in `nsvit.config`. What does not
depend on the radius belongs in `start`. Evaluation at several radii pays for it once if the attack
is named in `nsvit.scoring`'s `_SAME_START`: only where the result is the same as without sharing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nsvit.attacks import auto, cw, fgsm, mi_fgsm, patch_fool, pgd
from nsvit.attacks.steps import Context, Started, pixel_model, value_and_gradient
from nsvit.attacks.threat import Norm, ThreatModel
from nsvit.attacks.training import madry_images, trades_images
from nsvit.config import radius_value
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, frozen, same_weights
from nsvit.pixels import check_pixels
from nsvit.statistics import checks
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    from nsvit.config import AttackConfig

ATTACKS: dict[str, Callable[..., Started]] = {
    "fgsm": fgsm.start,
    "pgd": pgd.start,
    "mi_fgsm": mi_fgsm.start,
    "cw": cw.start,
    "patch_fool": patch_fool.start,
    "autoattack": auto.start,
}

#: Keys of an attack's configuration that are not arguments of its function.
_NOT_SETTINGS = {"name", "norm", "radius", "source", "seed"}

__all__ = [
    "ATTACKS",
    "AttackResult",
    "Context",
    "Started",
    "ThreatModel",
    "attack",
    "examine",
    "madry_images",
    "refuse",
    "settings_of",
    "threat_of",
    "trades_images",
]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found.

    Attributes:
        images: (B, 3, H, W) float32 pixels in [0, 1], inside the threat model.
        success: (B,) bool, the model's prediction on `images` is not the label.
    """

    images: Tensor
    success: Tensor


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    name: str = "fgsm",
    seeds: Sequence[int] | None = None,
    source: nn.Module | None = None,
    **settings: Any,
) -> AttackResult:
    """Attacks a batch; models are frozen meanwhile and left as they were.

    Args:
        model: takes pixels in [0, 1].
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: what the attack may change.
        name: a key of `ATTACKS`.
        seeds: one per picture, for attacks that draw; by position in the batch if None.
        source: the model that a transfer attack follows.
        **settings: arguments of the attack's function (`pgd.pgd`, `cw.cw`, ...), such as steps.

    Raises:
        NsvitError: there is no such attack or setting, the attack cannot run on this model, or
            the images are not pixels in [0, 1].
    """
    if name not in ATTACKS:
        raise NsvitError(f"attack {name!r}: there is {', '.join(sorted(ATTACKS))}")
    own = next((module for module in model.modules() if isinstance(module, PixelModel)), None)
    check_pixels(images, f"attack {name!r}", own)
    if images.dtype == torch.uint8:
        raise NsvitError(f"attack {name!r}: images are uint8; divide them by 255")
    context = Context(settings, seeds, source)
    with frozen(model), nullcontext() if source is None else frozen(source):
        try:
            started = ATTACKS[name](model, images, labels, context)
            found = started(threat)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
            raise NsvitError(f"attack {name!r}: {error}") from None
        with torch.no_grad():
            success = model(found).argmax(1) != labels
    return AttackResult(found, success)


def threat_of(config: AttackConfig) -> ThreatModel:
    """The bound that a condition's attack is given; no radius is no bound."""
    norm: Norm = getattr(config, "norm", "linf")
    if config.radius is None:
        return ThreatModel(1.0 if norm == "linf" else float("inf"), norm)
    if isinstance(config.radius, str):
        return ThreatModel(radius_value(config.radius), norm)
    return ThreatModel(config.radius, norm)


def settings_of(config: AttackConfig) -> dict[str, Any]:
    """The arguments of the attack's function in a condition's attack."""
    return {k: v for k, v in config.model_dump().items() if k not in _NOT_SETTINGS}


def refuse(
    config: AttackConfig, model: nn.Module, source: nn.Module | None, classes: int, where: str
) -> None:
    """Refuses an attack that cannot run on a model, before any picture is read.

    Args:
        config: the condition's attack.
        model: the target.
        source: the model of the attack's `source`, if it has one.
        classes: among how many the target predicts.
        where: the condition, for the message.

    Raises:
        NsvitError: names the condition, the attack, the model and what is missing.
    """
    try:
        _check_size(config, model)
        if config.name == "patch_fool":
            patch_fool.check(pixel_model(model), config.patches)
        elif config.name == "mi_fgsm":
            other = pixel_model(mi_fgsm.check(model, Context(source=source)))
            if same_weights(pixel_model(model), other):
                raise NsvitError("attack mi_fgsm: the source model has the target's own weights")
        elif config.name == "autoattack":
            auto.check(classes, config.parts)
    except NsvitError as error:
        raise NsvitError(f"{where}: {error}") from None


def _check_size(config: AttackConfig, model: nn.Module) -> None:
    """Refuses an l2 radius beyond the largest change there is, such as one in grey levels."""
    threat = threat_of(config)
    if threat.norm != "l2" or math.isinf(threat.radius):
        return
    tall, wide = pixel_model(model).image_size
    most = math.sqrt(3 * tall * wide)
    if threat.radius > most:
        raise NsvitError(
            f"attack {config.name}: l2 radius {threat.radius:g}; no change of {tall} x {wide} "
            f"pixels in [0, 1] is larger than {most:.1f}"
        )


def examine(model: nn.Module, images: Tensor, labels: Tensor, where: str) -> list[Doubt]:
    """The checks that need the model: two passes and one gradient over a few pictures."""
    with frozen(model):
        first, gradient = value_and_gradient(model, images, labels)
        with torch.no_grad():
            second = model(images)
    one, two = first.cpu().numpy(), second.cpu().numpy()
    return [
        *checks.zero_gradients(gradient.cpu().numpy(), where),
        *checks.probabilities(one, where),
        *checks.random_forward(one, two, where),
    ]
