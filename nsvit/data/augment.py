"""Training augmentations: every picture has a random stream of its own, whatever its batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nsvit.runtime import seed_for, seeded

#: Largest shift as a share of the side, largest change of brightness, contrast and saturation.
SHIFT = 1 / 8
JITTER = 0.2

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LUMA = (0.299, 0.587, 0.114)


def light_augmentation(pixels: Tensor, *seed_parts: object, first: int = 0) -> Tensor:
    """Flip, shift by up to an eighth of the side (mirrored at the border), mild colour jitter.

    Args:
        pixels: uint8 (n, 3, H, W).
        *seed_parts: the i-th picture's augmentation depends on these and `first` + i only.
        first: the place of the first picture in its global batch.

    Returns:
        float32 (n, 3, H, W) in [0, 1].
    """
    height, width = pixels.shape[2:]
    draws = np.empty((len(pixels), 6), np.float32)
    for i in range(len(pixels)):
        draws[i] = np.random.default_rng(seed_for(*seed_parts, "light", first + i)).random(6)
    flip, down, right, brightness, contrast, saturation = torch.from_numpy(draws).unbind(dim=1)
    rows = _mirrored(torch.arange(height) + _steps(down, height)[:, None], height)
    columns = _mirrored(torch.arange(width) + _steps(right, width)[:, None], width)
    columns = torch.where(flip[:, None] < 0.5, width - 1 - columns, columns)
    picture = torch.arange(len(pixels))[:, None, None]
    # (n, H, W, 3): the indexed axes come first, the channels last.
    moved = pixels[picture, :, rows[:, :, None], columns[:, None, :]]
    images = moved.permute(0, 3, 1, 2).to(torch.float32) / 255
    return _jitter(images, *(_factor(draw) for draw in (brightness, contrast, saturation)))


def _steps(draw: Tensor, side: int) -> Tensor:
    """Whole pixels from -SHIFT to SHIFT of a side, all equally likely, from draws in [0, 1)."""
    most = int(SHIFT * side)
    return (draw * (2 * most + 1)).long() - most


def _mirrored(position: Tensor, side: int) -> Tensor:
    """Positions outside [0, side) mirrored back in; the border pixel is not repeated."""
    folded = position.abs()
    return torch.where(folded >= side, 2 * (side - 1) - folded, folded)


def _factor(draw: Tensor) -> Tensor:
    return (1 + JITTER * (2 * draw - 1)).view(-1, 1, 1, 1)


def _jitter(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Brightness, contrast (about the mean grey) and saturation, clipped once, to [0, 1].

    All three are linear, so they are one weighted sum of the picture, its grey and its mean.
    """
    red, green, blue = _LUMA
    grey = red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]
    middle = brightness * grey.mean(dim=(2, 3), keepdim=True)
    colour = saturation * contrast * brightness
    greyness = (1 - saturation) * contrast * brightness
    flat = (1 - contrast) * middle
    return (images * colour).add_(grey.mul_(greyness).add_(flat)).clamp_(0, 1)


def imagenet_augmentation(
    pictures: Iterable[Image.Image],
    size: tuple[int, int],
    *seed_parts: object,
    first: int = 0,
    strong: bool = True,
) -> Tensor:
    """Timm's recipe: random resized crop, flip, rand-m9-mstd0.5-inc1, erasing of 0.25.

    As in the authors' main script: crops of 0.08 to 1 of the picture, interpolation drawn for each
    picture. Without `strong` the crop and the flip alone, as in their second script. Differs from
    their code: erasing fills with noise around the mean colour and the result is clipped, so
    pixels stay in [0, 1] (theirs: N(0, 1) in pixel space, METHOD.md section 8, item 24).
    Posterizing to no bits at all gives black, as with the Pillow of their time.

    Args:
        pictures: RGB, any size.
        size: height and width of the result.
        *seed_parts: the i-th picture's augmentation depends on these and `first` + i only.
        first: the place of the first picture in its global batch.
        strong: RandAugment and erasing too.

    Returns:
        float32 (n, 3, H, W) in [0, 1].
    """
    transform = _imagenet_transform(size, strong)
    results = []
    for i, picture in enumerate(pictures, start=first):
        with seeded(*seed_parts, "imagenet", i):
            results.append(transform(picture))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (torch.stack(results) * std + mean).clamp_(0, 1)


@functools.lru_cache(maxsize=4)
def _imagenet_transform(size: tuple[int, int], strong: bool) -> Callable[[Image.Image], Tensor]:
    from timm.data import create_transform

    transform: Any = create_transform(
        (3, *size),
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1" if strong else None,
        color_jitter=None,
        interpolation="random" if strong else "bilinear",
        re_prob=0.25 if strong else 0.0,
        re_mode="pixel",
        # Normalised so that erasing draws around the mean colour; undone afterwards.
        mean=_MEAN,
        std=_STD,
    )
    for step in transform.transforms:
        for op in getattr(step, "ops", ()):
            if op.name.startswith("Posterize"):
                op.aug_fn = functools.partial(_posterize, op.aug_fn)
    return transform


def _posterize(
    posterize: Callable[..., Image.Image], picture: Image.Image, bits: int, **options: object
) -> Image.Image:
    """Timm's operation, which asks for 0 bits where the magnitude drawn is 10 or more.

    That is one in 44 of the pictures posterized (N(9, 0.5) above 10), one in 660 of all. Earlier
    versions of Pillow made them black, 13 refuses; here they are black with any of them.
    """
    if bits < 1:
        return Image.new(picture.mode, picture.size)
    return posterize(picture, bits, **options)
