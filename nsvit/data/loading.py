"""Pictures as tensors: pixels in [0, 1], shape (n, 3, H, W), never normalised.

Normalisation is the model's business (`nsvit.models.PixelModel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nsvit.data.augment import imagenet_augmentation, light_augmentation
from nsvit.data.layouts import ImageSet
from nsvit.data.pictures import evaluation_picture, read_rgb
from nsvit.errors import NsvitError

Augmentation = Literal["none", "light", "imagenet"]


def _stack(image_set: ImageSet, paths: Sequence[Path]) -> Tensor:
    """Pictures under the evaluation transform, uint8 (n, 3, H, W)."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for path in paths:
        picture = evaluation_picture(path, image_set.resize, image_set.crop)
        if pictures and picture.shape != pictures[0].shape:
            size, first = picture.shape[:2], pictures[0].shape[:2]
            raise NsvitError(
                f"{path}: {size[0]} x {size[1]} pixels, but {paths[0]} has {first[0]} x "
                f"{first[1]}; give set {image_set.name!r} a `resize` and a `crop`"
            )
        pictures.append(picture)
    if not pictures:
        raise NsvitError(f"set {image_set.name!r}: no pictures to load")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def load_pixels(image_set: ImageSet, limit_to: int | None = None) -> Tensor:
    """All pictures of a set in memory, uint8 (n, 3, H, W), under the evaluation transform.

    Args:
        limit_to: load only `image_set.take(limit_to)`: that many, going round the classes.

    Raises:
        NsvitError: a file is not an image, or the pictures differ in size.
    """
    chosen = image_set if limit_to is None else image_set.take(limit_to)
    return _stack(chosen, chosen.paths)


def to_float(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255


def batches(image_set: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Streams a set in row order under the evaluation transform.

    Yields:
        images (B, 3, H, W) float32 in [0, 1], labels (B,) int64, position of the first one.
    """
    paths, labels = image_set.paths, torch.from_numpy(image_set.labels.copy())
    for start in range(0, len(paths), batch_size):
        stop = start + batch_size
        yield to_float(_stack(image_set, paths[start:stop])), labels[start:stop], start


def train_images(
    image_set: ImageSet,
    positions: Sequence[int] | npt.NDArray[np.integer] | Tensor,
    augmentation: Augmentation,
    image_size: int | tuple[int, int],
    *seed_parts: object,
    first: int = 0,
) -> Tensor:
    """Augmented pictures at some positions, float32 (n, 3, H, W) in [0, 1].

    The augmentation of the i-th picture depends on `seed_parts` and `first` + i only.

    Args:
        image_set: a training set.
        positions: rows of the set.
        augmentation: "none" (the evaluation transform), "light" (flip, shift, colour jitter) or
            "imagenet" (random resized crop, RandAugment, random erasing; METHOD.md section 5).
        image_size: side, or (height, width), that the model takes.
        *seed_parts: seed, purpose, step: see `runtime.seed_for`.
        first: the place of the first picture in its global batch, of which these are a part.

    Raises:
        NsvitError: a file is not an image, or its size is not the model's.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    chosen = image_set.subset([int(position) for position in positions])
    if augmentation == "imagenet":
        pictures = (read_rgb(path) for path in chosen.paths)
        return imagenet_augmentation(pictures, (size[0], size[1]), *seed_parts, first=first)
    pixels = _stack(chosen, chosen.paths)
    if tuple(pixels.shape[2:]) != size:
        raise NsvitError(
            f"{chosen.paths[0]}: {pixels.shape[2]} x {pixels.shape[3]} pixels after the "
            f"evaluation transform, the model takes {size[0]} x {size[1]}; set `resize` and "
            f"`crop` of set {image_set.name!r}"
        )
    if augmentation == "none":
        return to_float(pixels)
    return light_augmentation(pixels, *seed_parts, first=first)
