"""Pictures that noise is learned on, batch after batch, with the logits they have without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nsvit import distributed, precision
from nsvit.config import Precision
from nsvit.errors import NsvitError
from nsvit.inputs import Stream
from nsvit.models import PixelModel

Images = Tensor | Iterable[Any]


class Visit(NamedTuple):
    """This process's part of a batch; all of it if there is one process.

    Attributes:
        images: (B, 3, H, W) pixels in [0, 1].
        clean: (B, classes) logits without noise.
        weight: what a mean over the part counts in the mean over the batch.
    """

    images: Tensor
    clean: Tensor
    weight: float


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
        if not len(images):
            raise NsvitError("noise: the pool of images is empty")
        self._model = model
        self._precision = passes
        self._batches = images.split(batch_size)
        self._logits: list[Tensor | None] = [None] * len(self._batches)

    def visits(self, start: int = 0) -> Iterator[Visit]:
        """Batches with clean logits, in order, round and round; of each this process's part.

        The last batch of a round has what is left, so that every image counts. `start` batches
        are left out at the beginning.
        """
        for visit in itertools.count(start):
            position = visit % len(self._batches)
            batch = self._batches[position]
            own = distributed.part(len(batch))
            images = batch[own.rows].to(self._model.mean.device)
            if images.dtype == torch.uint8:
                images = images.float() / 255
            logits = self._logits[position]
            if logits is None:
                logits = _clean_logits(self._model, images, self._precision)
                self._logits[position] = logits
            yield Visit(images, logits, own.weight)


def batches_with_logits(
    model: PixelModel,
    source: Images | Pool,
    batch_size: int,
    start: int = 0,
    passes: Precision = "fp32",
) -> Iterator[Visit]:
    """This process's part of one batch after another, with clean logits, endlessly.

    The model must be frozen. `source` as `learn_noise` takes it. `start` batches are left out at
    the beginning.
    """
    if isinstance(source, Tensor):
        source = Pool(model, source, batch_size, passes)
    if isinstance(source, Pool):
        yield from source.visits(start)
    else:
        if isinstance(source, Sized) and len(source):
            start %= len(source)
        for images, weight in itertools.islice(_endlessly(source), start, None):
            images = images.to(model.mean.device)
            yield Visit(images, _clean_logits(model, images, passes), weight)


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


def _clean_logits(model: PixelModel, images: Tensor, passes: Precision) -> Tensor:
    with torch.no_grad(), precision.autocast(images.device, passes):
        return precision.full(model(images), passes)
