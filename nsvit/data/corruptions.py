"""The 15 published corruptions of ImageNet-C at 5 severities, seeded. No torch.

The arithmetic is that of `imagecorruptions-imaug` (after Hendrycks and Dietterich, 2019); this
module makes it depend on a seed alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nsvit.errors import NsvitError

#: In the order, and with the spelling, of the published archive.
CORRUPTIONS: tuple[str, ...] = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)

#: Corruptions of the archive's `extra.tar`; they count in no published number.
EXTRA_CORRUPTIONS: tuple[str, ...] = ("speckle_noise", "gaussian_blur", "spatter", "saturate")

SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)


def corrupt(
    image: npt.NDArray[np.uint8], name: str, severity: int, seed: int
) -> npt.NDArray[np.uint8]:
    """A corrupted picture.

    Args:
        image: (H, W, 3), at least 32 pixels a side.
        name: one of `CORRUPTIONS`.
        severity: 1 (mild) to 5.
        seed: the only source of randomness; numpy's global state is left as it was.

    Raises:
        NsvitError: no such corruption or severity, or the picture is too small.
    """
    _check(image, name, severity)
    seed %= 2**32
    from imagecorruptions import corrupt as published

    # numpy's global seed does not govern these two, which take one of their own.
    extra = {"seed": seed} if name in ("impulse_noise", "glass_blur") else {}
    # The library prints when a picture's side does not suit a corruption.
    with _global_seed(seed), contextlib.redirect_stdout(io.StringIO()):
        return published(image, severity=severity, corruption_name=name, **extra)


def _check(image: npt.NDArray[np.uint8], name: str, severity: int) -> None:
    if name not in CORRUPTIONS:
        raise NsvitError(f"corruption {name!r}: expected one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise NsvitError(f"severity {severity!r} of {name}: expected 1 to 5")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 32:
        raise NsvitError(
            f"cannot corrupt an image of shape {image.shape}: expected (H, W, 3) with at least "
            "32 pixels a side"
        )


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Numpy's global generator, which the library draws from, seeded and then put back."""
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        yield
    finally:
        np.random.set_state(state)
