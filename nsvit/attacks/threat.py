"""What an attack may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nsvit.errors import NsvitError

#: Half the spacing of float32 numbers just below 2. See `ThreatModel.move`.
_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class ThreatModel:
    """A bound on the difference of adversarial and clean pixels, both in [0, 1].

    Attacks with more settings (steps, a seed, a budget of queries) add fields with defaults here.

    Attributes:
        radius: largest size of the difference, a fraction of the pixel range ("8/255" is
            `nsvit.config.radius_value("8/255")`).
        norm: how the difference is measured.

    Raises:
        NsvitError: the radius is outside [0, 1], or the norm is unknown.
    """

    radius: float
    norm: Literal["linf"] = "linf"

    def __post_init__(self) -> None:
        if not 0.0 <= self.radius <= 1.0:
            raise NsvitError(
                f"radius {self.radius}: a fraction of the pixel range from 0 to 1, such as 8/255"
            )
        if self.norm != "linf":
            raise NsvitError(f"norm {self.norm!r}: only 'linf' is implemented")

    def move(self, images: Tensor, direction: Tensor) -> Tensor:
        """Images moved by the radius along a direction with entries in [-1, 1].

        The step is shorter than the radius by one rounding of float32, so that the rounded
        result is inside the radius exactly and not merely up to rounding.

        Returns:
            Pixels in [0, 1], same shape as `images`.
        """
        step = max(self.radius - _ROUNDING, 0.0)
        return images.add(direction, alpha=step).clamp_(0.0, 1.0)
