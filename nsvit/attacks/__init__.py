"""Attacks on pixels in [0, 1]: one file per attack, one `ThreatModel` for all.

To add an attack: write `nsvit/attacks/<name>.py` with a function `start(model, images, labels)`
that returns a function from a `ThreatModel` to adversarial images, and enter it in `ATTACKS`.
What does not depend on the radius belongs in `start`, so that evaluation at several radii pays
for it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nsvit.attacks import fgsm
from nsvit.attacks.threat import ThreatModel
from nsvit.errors import NsvitError
from nsvit.models import frozen

#: An attack begun on a batch: gives the adversarial images within a threat model.
Started = Callable[[ThreatModel], Tensor]

ATTACKS: dict[str, Callable[[nn.Module, Tensor, Tensor], Started]] = {"fgsm": fgsm.start}

__all__ = ["ATTACKS", "AttackResult", "Started", "ThreatModel", "attack"]


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
    model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, name: str = "fgsm"
) -> AttackResult:
    """Attacks a batch; the model is frozen meanwhile and left as it was.

    Args:
        model: takes pixels in [0, 1].
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: what the attack may change.
        name: a key of `ATTACKS`.

    Raises:
        NsvitError: there is no such attack.
    """
    if name not in ATTACKS:
        raise NsvitError(f"attack {name!r}: there is {', '.join(sorted(ATTACKS))}")
    with frozen(model):
        found = ATTACKS[name](model, images, labels)(threat)
        with torch.no_grad():
            success = model(found).argmax(1) != labels
    return AttackResult(found, success)
