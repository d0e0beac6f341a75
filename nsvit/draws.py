"""What a finetuning draws, each a function of (seed, round, step).

Batches, noise, starts of attacks and drop path.

None of the seeds contains the arm, so that the arms of one seed are paired.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from nsvit import runtime
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.inputs import pixel_pool
from nsvit.models import PixelModel
from nsvit.noise import Noise, learn_noise, random_noise
from nsvit.snapshots import Snapshots

if TYPE_CHECKING:
    from nsvit.specs import FinetuneSpec


def batch_positions(count: int, batch_size: int, steps: int, seed: int, number: int) -> np.ndarray:
    """The pictures of every global batch of a round: (steps, batch_size) positions.

    A permutation of the training set by (seed, round), followed by further ones when the set is
    smaller than the round. The arm is not among the seed's parts.
    """
    needed = steps * batch_size
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < needed:
        seeds = runtime.seed_for(seed, "order", number, len(parts))
        parts.append(np.random.default_rng(seeds).permutation(count))
    return np.concatenate(parts)[:needed].reshape(steps, batch_size)


def attack_seeds(count: int, seed: int, number: int, step: int) -> list[int]:
    """One seed for each place of a global batch: where the attack on that picture starts.

    By place in the batch, as the augmentation is: the same picture met twice starts elsewhere.
    """
    return [runtime.seed_for(seed, "attack", number, step, place) for place in range(count)]


def round_noise(
    model: PixelModel,
    train: ImageSet,
    spec: FinetuneSpec,
    number: int,
    snapshots: Snapshots | None = None,
) -> Noise | None:
    """The noise of a round, or None for the kinds that train without.

    Learned or shrunk on a fresh choice of `noise.pool` training pictures with the evaluation
    transform; the choice and the start depend on (seed, round). Goes on from `snapshots`.

    Raises:
        NsvitError: predictions or loss are not numbers; names the run and the round.
    """
    if spec.kind not in ("random", "nullspace"):
        return None
    config = spec.finetune
    chosen = np.random.default_rng(runtime.seed_for(spec.seed, "pool", number))
    positions = chosen.permutation(len(train))[: config.noise.pool]
    images = pixel_pool(train.subset(positions), config.noise.batch_size)
    generator = runtime.generator(spec.seed, "noise", number)
    if snapshots is not None:
        snapshots.part = f"round {number}"
    rest = (config.block, generator, snapshots)
    try:
        if spec.kind == "random":
            return random_noise(model, images, config.noise, config.random, *rest)
        return learn_noise(model, images, config.noise, *rest)
    except NsvitError as error:
        run = f"run {spec.model}/{spec.arm}/seed{spec.seed}"
        raise NsvitError(f"{run}, round {number}: {error}") from None


@contextlib.contextmanager
def global_seed(device: torch.device, *parts: object) -> Iterator[None]:
    """Seeds what draws from torch's global state (drop path, dropout) and restores it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(runtime.seed_for(*parts))
        yield
