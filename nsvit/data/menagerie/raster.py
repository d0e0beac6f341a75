"""From polygons to anti-aliased pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from nsvit.data.menagerie.geometry import Array, Points

DETAIL = 3  # sub-pixels per pixel and axis

Labels = npt.NDArray[np.uint8]


def draw(polygons: Iterable[tuple[Points, int]], size: int) -> Labels:
    """Fills polygons (pixel coordinates) with their number, later over earlier.

    Returns:
        (size * DETAIL, size * DETAIL) uint8, 0 where nothing is.
    """
    image = Image.new("L", (size * DETAIL, size * DETAIL), 0)
    pen = ImageDraw.Draw(image)
    for points, number in polygons:
        pen.polygon((points * DETAIL).ravel().tolist(), fill=int(number))
    return np.asarray(image)


def coverage(labels: Labels) -> dict[int, Array]:
    """The share of each pixel that each number covers, (size, size, 1) float32, 0 left out."""
    found = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
    return {int(number): _shares(labels == number) for number in found if number}


def outlines(labels: Labels, width: int) -> Array:
    """Coverage (size, size, 1) of lines drawn where two numbers meet.

    Args:
        width: of the line in sub-pixels, odd.
    """
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    line = Image.fromarray(edge.view(np.uint8) * np.uint8(255))
    return _shares(np.asarray(line.filter(ImageFilter.MaxFilter(width))) > 0)


def _shares(mask: npt.NDArray[np.bool_]) -> Array:
    reduced = Image.fromarray(mask.view(np.uint8) * np.uint8(255)).reduce(DETAIL)
    return np.asarray(reduced, np.float32)[..., None] / np.float32(255)


def blend(image: Array, share: Array, paint: Array) -> Array:
    """`paint` over `image` where `share` (size, size, 1) is 1."""
    return image + share * (paint - image)


def to_bytes(image: Array) -> npt.NDArray[np.uint8]:
    """Pixels in [0, 1] as bytes; what is outside is clipped."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
