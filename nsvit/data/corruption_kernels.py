"""Three corruptions whose library versions are slow on small pictures, with the same result.

`imagecorruptions-imaug` compiles a loop for six seconds in every process (glass_blur), decodes
and enlarges a whole photograph for every picture (frost), and interpolates all three axes of
every zoom level (zoom_blur). The constants and the order of random draws are the library's;
tests compare the pictures with it.
"""

from __future__ import annotations

import functools
import importlib.resources
import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nsvit.errors import NsvitError

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Per severity: blur sigma, largest displacement, passes.
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
# Per severity: end and step of the zoom factors, which start at 1.
_ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
# Per severity: weight of the picture and of the frost.
_FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
_FROST_FILES = (
    "frost1.png",
    "frost2.png",
    "frost3.png",
    "frost4.jpg",
    "frost5.jpg",
    "frost6.jpg",
)


def _to_bytes(pixels: npt.NDArray[np.floating]) -> Image:
    # Truncated, not rounded, as the library does.
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def glass_blur(image: Image, severity: int, seed: int) -> Image:
    """Pixels copied from a random neighbour, between two blurs. (H, W, 3) in and out.

    The published code means to swap two pixels but, through numpy views, overwrites one with the
    other; so does this.
    """
    sigma, reach, passes = _GLASS[severity - 1]
    height, width = image.shape[:2]
    blurred = _to_bytes(_gaussian(image / 255.0, sigma))
    rows = range(height - reach, reach, -1)
    columns = range(width - reach, reach, -1)
    draws = np.random.RandomState(seed).randint(
        -reach, reach, size=(passes, len(rows), len(columns), 2)
    )
    # Where each pixel comes from, as flat positions: a list is faster to walk than an array.
    source = list(range(height * width))
    for offsets in draws:
        jumps = (offsets[..., 1] * width + offsets[..., 0]).tolist()
        for h, jumps_of_row in zip(rows, jumps, strict=True):
            start = h * width
            for w, jump in zip(columns, jumps_of_row, strict=True):
                here = start + w
                source[here] = source[here + jump]
    shuffled = blurred.reshape(-1, 3)[source].reshape(image.shape)
    return _to_bytes(_gaussian(shuffled / 255.0, sigma))


def _gaussian(pixels: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """skimage.filters.gaussian with its defaults."""
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest", truncate=4.0)


def zoom_blur(image: Image, severity: int) -> Image:
    """The mean of a picture and its centred enlargements. (H, W, 3) in and out."""
    stop, step = _ZOOM[severity - 1]
    factors = np.arange(1, stop, step)
    pixels = (image / 255.0).astype(np.float32)
    height, width = image.shape[:2]
    total = pixels.copy()
    for factor in factors:
        down, across = _enlarge(height, float(factor)), _enlarge(width, float(factor))
        taller = (down @ pixels.reshape(height, -1)).reshape(-1, width, 3)
        layer = np.matmul(across, taller)
        total[: layer.shape[0], : layer.shape[1]] += layer
    return _to_bytes(total / (len(factors) + 1))


@functools.cache
def _enlarge(side: int, factor: float) -> Floats:
    """Linear interpolation of the middle 1/factor of an axis, as a matrix (at most side, side)."""
    kept = math.ceil(side / factor)
    first = (side - kept) // 2
    length = round(kept * factor)
    position = np.arange(length) * ((kept - 1) / max(length - 1, 1))
    low = np.minimum(position.astype(int), kept - 1)
    share = position - low
    matrix = np.zeros((length, side), np.float32)
    matrix[np.arange(length), first + low] += 1 - share
    matrix[np.arange(length), first + np.minimum(low + 1, kept - 1)] += share
    return matrix[:side]


def frost(image: Image, severity: int, seed: int) -> Image:
    """A photograph of frost laid over the picture. (H, W, 3) in and out."""
    rng = np.random.RandomState(seed)
    weight, frost_weight = _FROST[severity - 1]
    height, width = image.shape[:2]
    ice = _ice(int(rng.randint(6)), height, width)
    top = rng.randint(0, ice.shape[0] - height)
    left = rng.randint(0, ice.shape[1] - width)
    over = ice[top : top + height, left : left + width, ::-1]  # BGR to RGB
    return np.clip(weight * image + frost_weight * over, 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=12)
def _ice(index: int, height: int, width: int) -> Image:
    """One of the library's photographs of frost (BGR), a tenth larger than it needs to be."""
    import cv2

    files = importlib.resources.files("imagecorruptions") / "frost"
    with importlib.resources.as_file(files / _FROST_FILES[index]) as path:
        ice = cv2.imread(str(path))
    if ice is None:
        raise NsvitError(f"imagecorruptions lacks {_FROST_FILES[index]}: install it again")
    scale = 1.1 * max(1.0, height / ice.shape[0], width / ice.shape[1])
    size = (math.ceil(ice.shape[1] * scale), math.ceil(ice.shape[0] * scale))
    return np.asarray(cv2.resize(ice, dsize=size, interpolation=cv2.INTER_CUBIC), np.uint8)
