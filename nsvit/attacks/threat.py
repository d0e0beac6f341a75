"""What an attack may change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nsvit.errors import NsvitError

Norm = Literal["linf", "l2"]

#: Half the spacing of float32 numbers just below 2. See `ThreatModel.move`.
_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class ThreatModel:
    """A bound on the difference of adversarial and clean pixels, both in [0, 1].

    What an attack does within the bound (steps, restarts, a learning rate, ...) are arguments of
    the attack; see the functions of `nsvit.attacks`.

    Attributes:
        radius: largest size of the difference. For `linf` a fraction of the pixel range ("8/255"
            is `nsvit.config.radius_value("8/255")`; 1 is no bound at all), for `l2` the root of
            the summed squares over all pixels and channels (infinity: no bound).
        norm: how the difference is measured.

    Raises:
        NsvitError: the radius is negative, larger than 1 for `linf`, or the norm is unknown.
    """

    radius: float
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise NsvitError(f"norm {self.norm!r}: there is linf and l2")
        if isinstance(self.radius, str):
            raise NsvitError(f"radius {self.radius!r}: a number is wanted, such as 8 / 255")
        if self.norm == "linf" and not 0.0 <= self.radius <= 1.0:
            raise NsvitError(
                f"radius {self.radius}: a fraction of the pixel range from 0 to 1, such as 8/255"
            )
        if self.norm == "l2" and not self.radius >= 0.0:
            raise NsvitError(f"radius {self.radius}: an l2 radius is 0 or more, in pixel units")

    def move(self, images: Tensor, direction: Tensor) -> Tensor:
        """Images moved by the radius along a direction with entries in [-1, 1]; `linf` only.

        The step is shorter than the radius by one rounding of float32, so that the rounded
        result is inside the radius exactly and not merely up to rounding.

        Returns:
            Pixels in [0, 1], same shape as `images`.

        Raises:
            NsvitError: the norm is not `linf`.
        """
        if self.norm != "linf":
            raise NsvitError(f"norm {self.norm!r}: this attack knows only 'linf'")
        return images.add(direction, alpha=self._inner(images)).clamp_(0.0, 1.0)

    def project(self, images: Tensor, moved: Tensor) -> Tensor:
        """The nearest pixels to `moved` inside the radius around `images`, clipped to [0, 1].

        Inside exactly, as with `move`. Clipping comes last and never leaves the radius.
        """
        inner = self._inner(images)
        if self.norm == "linf":
            return moved.clamp(images - inner, images + inner).clamp_(0.0, 1.0)
        change = moved - images
        factor = (inner / _length(change).clamp_min(1e-12)).clamp_max(1.0)
        return change.mul_(factor).add_(images).clamp_(0.0, 1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of size 1 in which the loss rises fastest: its sign, or its unit vector."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _length(gradient).clamp_min(1e-12)

    def distance(self, images: Tensor, moved: Tensor) -> Tensor:
        """(B,) size of the change of each picture."""
        change = (moved - images).flatten(1)
        return change.abs().amax(1) if self.norm == "linf" else change.norm(dim=1)

    def _inner(self, images: Tensor) -> float:
        """The radius less what rounding to float32 can add to it."""
        if self.norm == "linf":
            return max(self.radius - _ROUNDING, 0.0)
        slack = math.sqrt(images[0].numel()) * _ROUNDING if len(images) else 0.0
        return max(self.radius * (1.0 - 1e-6) - slack, 0.0)


def _length(change: Tensor) -> Tensor:
    """(B, 1, 1, 1) Euclidean length of each picture."""
    return torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
