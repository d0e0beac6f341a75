"""Pictures as tensors: pixels in [0, 1], shape (n, 3, H, W), never normalised.

Normalisation is the model's business (`nsvit.models.PixelModel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nsvit import runtime
from nsvit.config import Augmentation
from nsvit.data.augment import imagenet_augmentation, light_augmentation
from nsvit.data.layouts import ImageSet
from nsvit.data.pictures import evaluation_picture, read_rgb
from nsvit.data.workers import in_order
from nsvit.errors import NsvitError


def _stack(image_set: ImageSet) -> Tensor:
    """Pictures under the evaluation transform, uint8 (n, 3, H, W)."""
    if len(image_set) == 0:
        raise NsvitError(f"set {image_set.name!r}: no pictures to load")
    found = image_set.kept_pixels()
    pixels = np.stack(_decode(image_set)) if found is None else found
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _decode(image_set: ImageSet) -> list[npt.NDArray[np.uint8]]:
    """Every picture (H, W, 3), from its file."""
    pictures: list[npt.NDArray[np.uint8]] = []
    paths = image_set.paths
    for path in paths:
        picture = evaluation_picture(path, image_set.resize, image_set.crop)
        if pictures and picture.shape != pictures[0].shape:
            size, first = picture.shape[:2], pictures[0].shape[:2]
            raise NsvitError(
                f"{path}: {size[0]} x {size[1]} pixels, but {paths[0]} has {first[0]} x "
                f"{first[1]}; give set {image_set.name!r} a `resize` and a `crop`"
            )
        pictures.append(picture)
    return pictures


def load_pixels(image_set: ImageSet, limit_to: int | None = None) -> Tensor:
    """All pictures of a set in memory, uint8 (n, 3, H, W), under the evaluation transform.

    Args:
        limit_to: load only `image_set.take(limit_to)`: that many, going round the classes.

    Raises:
        NsvitError: a file is not an image, or the pictures differ in size.
    """
    chosen = image_set if limit_to is None else image_set.take(limit_to)
    if runtime.workers() == 0:
        return _stack(chosen)
    spans = spans_of(len(chosen), 64)
    parts = [part for part, _ in read_spans(chosen, spans)]
    if len({part.shape[1:] for part in parts}) > 1:
        return _stack(chosen)  # says which picture differs
    return torch.cat(parts)


def to_float(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255


def spans_of(count: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of consecutive batches of `size`, the last one with what is left."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def read_spans(
    image_set: ImageSet, spans: Sequence[tuple[int, int]], workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some spans of rows under the evaluation transform, decoded ahead by other processes.

    Every picture is read once for each span it is in. The order and the pixels are the same for
    any number of processes.

    Args:
        image_set: the set.
        spans: (start, stop) of rows.
        workers: processes; None takes those of the job (`runtime.workers`).

    Yields:
        Pixels (n, 3, H, W) uint8 and labels (n,) int64 of each span.

    Raises:
        NsvitError: a file is not an image, or pictures of a span differ in size.
    """
    labels = torch.from_numpy(image_set.labels.copy())
    workers = runtime.workers() if workers is None else workers
    found = in_order(partial(_span, image_set, spans), len(spans), workers)
    for (start, stop), pixels in zip(spans, found, strict=True):
        yield pixels, labels[start:stop]


def _span(image_set: ImageSet, spans: Sequence[tuple[int, int]], index: int) -> Tensor:
    rows = image_set.subset(range(*spans[index]))
    return _stack(rows)


def batches(image_set: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Streams a set in row order under the evaluation transform.

    Yields:
        images (B, 3, H, W) float32 in [0, 1], labels (B,) int64, position of the first one.
    """
    spans = spans_of(len(image_set), batch_size)
    for (start, _), (pixels, labels) in zip(spans, read_spans(image_set, spans), strict=True):
        yield to_float(pixels), labels, start


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
        augmentation: "none" (the evaluation transform), "light" (flip, shift, colour jitter),
            "imagenet" (random resized crop, flip, RandAugment, random erasing; METHOD.md section
            5) or "crop" (the first two of these).
        image_size: side, or (height, width), that the model takes.
        *seed_parts: seed, purpose, step: see `runtime.seed_for`.
        first: the place of the first picture in its global batch, of which these are a part.

    Raises:
        NsvitError: a file is not an image, or its size is not the model's.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    chosen = image_set.subset([int(position) for position in positions])
    if augmentation in ("imagenet", "crop"):
        pictures, strong = (read_rgb(path) for path in chosen.paths), augmentation == "imagenet"
        size_ = (size[0], size[1])
        return imagenet_augmentation(pictures, size_, *seed_parts, first=first, strong=strong)
    pixels = _stack(chosen)
    if tuple(pixels.shape[2:]) != size:
        raise NsvitError(
            f"{chosen.paths[0]}: {pixels.shape[2]} x {pixels.shape[3]} pixels after the "
            f"evaluation transform, the model takes {size[0]} x {size[1]}; set `resize` and "
            f"`crop` of set {image_set.name!r}"
        )
    if augmentation == "none":
        return to_float(pixels)
    return light_augmentation(pixels, *seed_parts, first=first)
