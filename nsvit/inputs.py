"""Image sets as training and evaluation read them: from memory when small, else from disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nsvit.data.layouts import ImageSet
from nsvit.data.loading import load_pixels, read_spans, spans_of, to_float
from nsvit.errors import NsvitError
from nsvit.models import PixelModel

#: Sets up to this many bytes of 8-bit pixels are decoded once and kept.
KEEP_BYTES = 1 << 30


@dataclass(frozen=True)
class Pictures:
    """An image set that can be read several times.

    Attributes:
        image_set: names, labels and paths.
        pixels: (n, 3, H, W) uint8 of the whole set, or None to decode it at every reading.
    """

    image_set: ImageSet
    pixels: Tensor | None = None

    def part(self, start: int, stop: int) -> Pictures:
        """The pictures from one position to another, fewer if there are fewer."""
        rows = range(start, min(stop, len(self.image_set)))
        pixels = None if self.pixels is None else self.pixels[start:stop]
        return Pictures(self.image_set.subset(rows), pixels)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in the set's order: pixels (B, 3, H, W) in [0, 1] and labels (B,)."""
        return self.read(spans_of(len(self.image_set), batch_size), device)

    def read(
        self, spans: Sequence[tuple[int, int]], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Likewise, of the given (start, stop) of rows."""
        if self.pixels is None:
            for pixels, labels in read_spans(self.image_set, spans):
                yield to_float(pixels.to(device)), labels.to(device)
            return
        labels = torch.tensor(np.asarray(self.image_set.labels, dtype=np.int64))
        for start, stop in spans:
            yield to_float(self.pixels[start:stop].to(device)), labels[start:stop].to(device)


def keep(image_set: ImageSet, limit: int = KEEP_BYTES) -> Pictures:
    """The set decoded into memory, or read from disk each time when it is larger than `limit`."""
    first = load_pixels(image_set.subset([0]))
    if first.numel() * len(image_set) > limit:
        return Pictures(image_set)
    return Pictures(image_set, load_pixels(image_set))


class Stream:
    """A set too large for memory as batches of pixels, decoded again at every pass."""

    def __init__(self, pictures: Pictures, batch_size: int) -> None:
        self.pictures = pictures
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.pictures.image_set) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for images, _ in self.pictures.batches(self.batch_size, torch.device("cpu")):
            yield images


def pixel_pool(image_set: ImageSet, batch_size: int) -> Tensor | Stream:
    """Pictures to learn noise on: (n, 3, H, W) 8-bit pixels, or batches of a set too large."""
    kept = keep(image_set, KEEP_BYTES // 4)
    return Stream(kept, batch_size) if kept.pixels is None else kept.pixels


def identity(image_set: ImageSet) -> dict[str, Any]:
    """What tells a set of pictures from another: names and labels, not pixels."""
    frame = image_set.frame
    listed = "\n".join(f"{p}\t{c}" for p, c in zip(frame["path"], frame["label"], strict=True))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return {"pictures": digest, "resize": image_set.resize, "crop": image_set.crop}


def check_fits(model: PixelModel, image_set: ImageSet) -> None:
    """Refuses a set whose picture size or classes are not the model's, before any compute.

    Looks at the first picture only. Models without a fixed input size (CNNs) take any size.

    Raises:
        NsvitError: naming the set, the model and what differs.
    """
    if len(image_set) == 0:
        raise NsvitError(f"set {image_set.name!r}: has no pictures ({image_set.root})")
    if len(image_set.classes) != model.num_classes:
        raise NsvitError(
            f"set {image_set.name!r} has {len(image_set.classes)} classes, model "
            f"{model.architecture!r} has {model.num_classes}: check data.classes and the model"
        )
    if getattr(getattr(model.net, "patch_embed", None), "img_size", None) is None:
        return
    size = tuple(load_pixels(image_set.subset([0])).shape[2:])
    if size != model.image_size:
        raise NsvitError(
            f"set {image_set.name!r}: pictures are {size[0]} x {size[1]} pixels after resize and "
            f"crop, model {model.architecture!r} takes {model.image_size[0]} x "
            f"{model.image_size[1]}: set data.sets.{image_set.name}.resize and .crop"
        )
