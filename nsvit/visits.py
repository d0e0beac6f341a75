"""Pictures that noise is learned on, batch after batch, with the logits they have without it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nsvit import distributed, precision
from nsvit.config import Precision
from nsvit.data.loading import to_float
from nsvit.errors import NsvitError
from nsvit.inputs import KEEP_BYTES, Stream
from nsvit.models import PixelModel
from nsvit.pixels import check_pixels
from nsvit.prefixes import Prefix, can_resume, clean_pass, prefix_of

Images = Tensor | Iterable[Any]

#: Bytes of prefixes that a pool keeps; the batches beyond have theirs computed at every visit.
KEEP_PREFIXES = KEEP_BYTES // 4


class Visit(NamedTuple):
    """This process's part of a batch; all of it if there is one process.

    Attributes:
        images: (B, 3, H, W) pixels in [0, 1].
        clean: (B, classes) logits without noise.
        weight: what a mean over the part counts in the mean over the batch.
        prefix: what the network gave before the block where noise enters; None: not known.
    """

    images: Tensor
    clean: Tensor
    weight: float
    prefix: Prefix | None = None


class Pool:
    """Images in memory whose clean logits are computed once.

    Valid as long as the model's weights do not change. Saves the clean pass of every noise step
    after the first visit of a batch, and of every further noise learned on the same pool.
    Differs from the authors' code, which repeats the clean pass at every step.
    """

    def __init__(
        self, model: PixelModel, images: Tensor, batch_size: int, passes: Precision = "fp32"
    ) -> None:
        """Keeps `images` (n, 3, H, W), float in [0, 1] or uint8; computes nothing yet."""
        check_pixels(images, "noise", model)
        if not len(images):
            raise NsvitError("noise: the pool of images is empty")
        self._model = model
        self._precision = passes
        self._batches = images.split(batch_size)
        self._logits: list[Tensor | None] = [None] * len(self._batches)
        self._prefixes: dict[int, Prefix] = {}
        self._tried: dict[int, int | None] = {}  # whether passes can begin at a block

    def visits(self, start: int = 0, block: int | None = None) -> Iterator[Visit]:
        """Batches with clean logits, in order, round and round; of each this process's part.

        The last batch of a round has what is left, so that every image counts. `start` batches
        are left out at the beginning. Where noise enters at `block`, prefixes are kept too.
        """
        if any(prefix.block != block for prefix in self._prefixes.values()):
            self._prefixes.clear()
        first = True
        for visit in itertools.count(start):
            position = visit % len(self._batches)
            batch = self._batches[position]
            own = distributed.part(len(batch))
            images = _on_device(batch[own.rows], self._model)
            if first and block is not None:
                if block not in self._tried:
                    self._tried[block] = _resumable(self._model, images, block, self._precision)
                block, first = self._tried[block], False
            logits, prefix = self._logits[position], self._prefixes.get(position)
            if logits is None:
                logits, prefix = _clean(self._model, images, block, self._precision)
                self._logits[position] = logits
            elif block is not None and prefix is None and self._has_room(len(images)):
                prefix = prefix_of(self._model, images, block, self._precision)
            new = prefix is not None and position not in self._prefixes
            if new and self._has_room(len(images)):
                self._prefixes[position] = prefix
            yield Visit(images, logits, own.weight, prefix)

    def _has_room(self, images: int) -> bool:
        """Whether prefixes of so many pictures may be kept beside those that are."""
        kept = sum(prefix.size for prefix in self._prefixes.values())
        return kept + images * math.prod(self._model.token_shape) * 4 <= KEEP_PREFIXES


def batches_with_logits(
    model: PixelModel,
    source: Images | Pool,
    batch_size: int,
    start: int = 0,
    passes: Precision = "fp32",
    block: int | None = None,
) -> Iterator[Visit]:
    """This process's part of one batch after another, with clean logits, endlessly.

    The model must be frozen. `source` as `learn_noise` takes it. `start` batches are left out at
    the beginning. `block` is where noise will enter; then there are prefixes, if the model's
    passes can begin there.
    """
    if isinstance(source, Tensor):
        source = Pool(model, source, batch_size, passes)
    if isinstance(source, Pool):
        yield from source.visits(start, block)
    else:
        if isinstance(source, Sized) and len(source):
            start %= len(source)
        first = True
        for images, weight in itertools.islice(_endlessly(source), start, None):
            if first:
                check_pixels(images, "noise", model)
            images = _on_device(images, model)
            if first:
                block, first = _resumable(model, images, block, passes), False
            logits, prefix = _clean(model, images, block, passes)
            yield Visit(images, logits, weight, prefix)


def _on_device(images: Tensor, model: PixelModel) -> Tensor:
    """Pixels in [0, 1] where the model is; of bytes only these travel."""
    images = images.to(model.mean.device)
    return to_float(images) if images.dtype == torch.uint8 else images


def _endlessly(source: Iterable[Any]) -> Iterator[tuple[Tensor, float]]:
    """Again and again, until an iteration is empty (a one-way iterator has ended)."""
    found = True
    while found:
        found = False
        for images, weight in _parts(source):
            found = True
            yield images, weight


def _parts(source: Iterable[Any]) -> Iterator[tuple[Tensor, float]]:
    """This process's part of each batch, and its weight; of a stream only that is decoded."""
    if isinstance(source, Stream):
        pictures, size = source.pictures, source.batch_size
        for start in range(0, len(pictures.image_set), size):
            own = distributed.part(len(pictures.part(start, start + size).image_set))
            mine = pictures.part(start + own.rows.start, start + own.rows.stop)
            for images, _ in mine.batches(size, torch.device("cpu")):
                yield images, own.weight
        return
    for batch in source:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        own = distributed.part(len(images))
        yield images[own.rows], own.weight


def _resumable(
    model: PixelModel, images: Tensor, block: int | None, passes: Precision
) -> int | None:
    """The block, if passes can begin there."""
    return block if block is not None and can_resume(model, images, block, passes) else None


def _clean(
    model: PixelModel, images: Tensor, block: int | None, passes: Precision
) -> tuple[Tensor, Prefix | None]:
    """Clean logits, and the prefix if a block is named."""
    if block is not None:
        return clean_pass(model, images, block, passes)
    with torch.no_grad(), precision.autocast(images.device, passes):
        return precision.full(model(images), passes), None
