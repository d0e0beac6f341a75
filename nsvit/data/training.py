"""The pictures and labels of training steps: augmented, mixed, decoded ahead by other processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nsvit import runtime
from nsvit.config import FinetuneConfig
from nsvit.data.layouts import ImageSet
from nsvit.data.loading import train_images
from nsvit.data.mixing import mix
from nsvit.data.workers import in_order


@dataclass(frozen=True)
class Round:
    """The global batches of one round of a finetuning.

    Attributes:
        train: the training set.
        batches: (steps, B) positions in it.
        config: augmentation, mixing and label smoothing.
        size: height and width that the model takes.
        classes: width of the soft labels.
        seed, number: of the run and of the round; with the step they decide every draw.
    """

    train: ImageSet
    batches: np.ndarray
    config: FinetuneConfig
    size: tuple[int, int]
    classes: int
    seed: int
    number: int

    def rows(self, step: int, rows: slice | None = None) -> tuple[Tensor, Tensor]:
        """Some rows of a global batch, the same whichever others are asked for.

        Mixing pairs row i with row B - 1 - i, so the partners' pictures are read too.

        Args:
            step: of the round, from 0.
            rows: which, in order and without a step; None: all.

        Returns:
            (n, 3, H, W) pixels in [0, 1]; (n,) class indices, or with mixing (n, classes) soft
            labels, smoothed already.
        """
        total = self.batches.shape[1]
        start, stop, _ = (rows or slice(None)).indices(total)
        images, labels = self._plain(step, start, stop)
        mixing = self.config.mixing
        if not mixing.is_on:
            return images, labels
        if (start, stop) != (0, total):
            partners, theirs = self._plain(step, total - stop, total - start)
            images, labels = torch.cat([images, partners]), torch.cat([labels, theirs])
        smoothing, seeds = self.config.label_smoothing, (self.seed, "mixing", self.number, step)
        mixed, targets = mix(images, labels, mixing, self.classes, smoothing, *seeds)
        return mixed[: stop - start], targets[: stop - start]

    def _plain(self, step: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Augmented pictures of the rows [start, stop), and their class indices."""
        positions = self.batches[step][start:stop]
        seeds = (self.seed, "augment", self.number, step)
        images = train_images(
            self.train,
            positions.tolist(),
            self.config.augmentation,
            self.size,
            *seeds,
            first=start,
        )
        return images, torch.from_numpy(self.train.labels[positions].copy())

    def stream(
        self, first: int = 0, rows: Sequence[slice | None] = (None,), workers: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`rows` of one step after another, decoded ahead.

        Args:
            first: the step to begin with.
            rows: parts of each global batch, one after the other.
            workers: processes; None takes those of the job (`runtime.workers`).
        """
        items = [(step, part) for step in range(first, len(self.batches)) for part in rows]
        workers = runtime.workers() if workers is None else workers
        return in_order(partial(_item, self, items), len(items), workers)


def _item(
    own: Round, items: Sequence[tuple[int, slice | None]], index: int
) -> tuple[Tensor, Tensor]:
    return own.rows(*items[index])
