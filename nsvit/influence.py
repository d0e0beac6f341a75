"""How much noise at every block moves predictions: learned against two controls of its norm.

METHOD.md section 3 compares learned noise with a random permutation of its entries (norm kept,
direction destroyed). Added here: Gaussian noise of the same norm, and injection at every block.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from nsvit import artifacts, autoprecision, distributed, runtime, stopping
from nsvit.comparison import all_logits, compare, permuted
from nsvit.config import RECIPES, InfluenceConfig, NoiseConfig
from nsvit.errors import NsvitError
from nsvit.inputs import identity, pixel_pool
from nsvit.models import PixelModel, frozen
from nsvit.noise import Noise, learn_noise, load_noise
from nsvit.snapshots import Pieces, Snapshots, fingerprint, parts_of
from nsvit.visits import Images, Pool

if TYPE_CHECKING:
    from nsvit.data.layouts import ImageSet
    from nsvit.specs import InfluenceSpec, LearnSpec

log = logging.getLogger(__name__)

Draws = Sequence[tuple[int, Noise]]


def learn_blocks(
    model: PixelModel,
    pool: Images,
    config: InfluenceConfig | LearnSpec,
    seed_parts: Sequence[object],
    pieces: Pieces | None = None,
) -> list[tuple[int, Noise]]:
    """Learns noise at every injection point of a model.

    Args:
        model: its weights stay as they are.
        pool: training pictures as `noise.learn_noise` takes them; the clean logits of a tensor
            are computed once for all noises.
        config: draws per block, limit per block (the last repeats) and how to learn.
        seed_parts: with block and draw they seed each start.
        pieces: where finished noises are kept and taken from.

    Returns:
        (draw, noise) pairs, by block, then draw.
    """
    shared, noise = pool, autoprecision.settled(model, config.noise)
    if isinstance(pool, Tensor):
        shared = Pool(model, pool, noise.batch_size, noise.precision)
    limits = config.limits or (noise.limit,)
    learned = []
    total = len(model.blocks)
    for block in range(total):
        runtime.stage(f"block {block} of {total}", block, total)
        limit = limits[min(block, len(limits) - 1)]
        settings = noise.model_copy(update={"limit": limit})
        for draw in range(config.draws):
            start = runtime.generator(*seed_parts, "noise", block, draw)
            learn = partial(learn_noise, model, shared, settings, block, start)
            learned.append((draw, _once(pieces, _name(block, draw), learn)))
        log.info("block %d: %d noises learned", block, config.draws)
    return learned


def _once(pieces: Pieces | None, name: str, learn: Callable[[Snapshots | None], Noise]) -> Noise:
    """A noise that is kept, or learned and kept."""
    if pieces is None:
        return learn(None)
    found = pieces.get(name)
    if found is not None:
        return Noise(tensor=found[0]["noise"], **found[1])
    noise = learn(pieces.steps)
    pieces.put(name, {"noise": noise.tensor}, noise.facts())
    distributed.barrier()
    return noise


def _name(block: int, draw: int) -> str:
    return f"block{block}_draw{draw}"


def save_noises(noises: Draws, folder: str | Path, sidecar: Mapping[str, Any]) -> None:
    """Writes each noise as `block<k>_draw<d>.safetensors` with a sidecar of its own."""
    for draw, noise in noises:
        noise.save(Path(folder) / f"{_name(noise.block, draw)}.safetensors", sidecar)


def load_noises(folder: str | Path) -> list[tuple[int, Noise]]:
    """Reads what `save_noises` wrote: (draw, noise) pairs, by block, then draw.

    Raises:
        NsvitError: the folder has none, or a file is damaged.
    """
    found = []
    for path in Path(folder).glob("block*_draw*.safetensors"):
        numbers = re.fullmatch(r"block(\d+)_draw(\d+)", path.stem)
        if numbers:
            found.append((int(numbers[1]), int(numbers[2]), path))
    if not found:
        raise NsvitError(f"{folder}: no block<k>_draw<d>.safetensors; run nsvit learn-noise first")
    return [(draw, load_noise(path)) for _, draw, path in sorted(found)]


def influence(
    model: PixelModel,
    name: str,
    images: Tensor,
    samples: Sequence[str],
    noises: Draws,
    generator_seed: int,
    batch_size: int = 250,
) -> pd.DataFrame:
    """Agreement and distances under each noise and its two controls, one row per sample.

    Args:
        model: computed in evaluation mode; restored.
        name: the model's slug, for the column `model`.
        images: (n, 3, H, W) held-out pictures, pixels in [0, 1].
        samples: n paths, one per picture.
        noises: (draw, noise) pairs.
        generator_seed: seeds the controls, together with block and draw.
        batch_size: pictures in a forward pass.

    Returns:
        Rows by noise, kind ("learned", "permuted", "gaussian"), sample, with columns model, block,
        draw, noise, sample, agree (same arg-max as the clean pass), logit_distance (L2),
        probability_distance (sum of squares over classes), norm, limit, steps, epsilon_met.

    Raises:
        NsvitError: a noise does not fit the model, or images and samples differ in number.
    """
    if len(images) != len(samples) or not len(images):
        raise NsvitError(f"influence: {len(images)} images for {len(samples)} sample paths")
    with torch.no_grad(), frozen(model):
        clean = all_logits(model, images, batch_size)
        frames = []
        for draw, noise in runtime.progress(list(noises), f"influence on {name}"):
            for kind, tensor in _versions(noise, draw, generator_seed).items():
                noisy = all_logits(model, images, batch_size, tensor, noise.block)
                measured = compare(clean, noisy, samples)
                frames.append(
                    measured.assign(
                        model=name,
                        block=noise.block,
                        draw=draw,
                        noise=kind,
                        norm=float(tensor.norm()),
                        limit=float(noise.config["limit"]),
                        steps=noise.steps,
                        epsilon_met=noise.epsilon_met,
                    )
                )
    return pd.concat(frames, ignore_index=True)[COLUMNS]


COLUMNS = [
    "model", "block", "draw", "noise", "sample", "agree", "logit_distance",
    "probability_distance", "norm", "limit", "steps", "epsilon_met",
]  # fmt: skip


def _versions(noise: Noise, draw: int, seed: int) -> dict[str, Tensor]:
    """The noise and its controls, each (1, N, D), on the CPU where random numbers are drawn."""
    learned = noise.tensor.detach().cpu()

    def stream(kind: str) -> torch.Generator:
        return runtime.generator(seed, kind, noise.block, draw)

    gaussian = torch.randn(learned.shape, generator=stream("gaussian"))
    return {
        "learned": learned,
        "permuted": permuted(learned, stream("permuted")),
        "gaussian": gaussian * (learned.norm() / gaussian.norm()),
    }


# --- verbs ----------------------------------------------------------------------------------


def run_learn(
    spec: LearnSpec,
    model: PixelModel,
    pictures: ImageSet,
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `learn-noise`: noise at every block, learned on the training split.

    Finished noises are kept beside `out` until all are there, and the one that is being learned
    has snapshots: interrupted, the same command goes on.

    Args:
        spec: what to learn.
        model: the model under test, on the device to compute on.
        pictures: the training set; its dev split is left out.
        out: folder for `block<k>_draw<d>.safetensors`.
        inputs: files whose hashes go into the sidecars.
    """
    from nsvit.data import layouts

    train, _ = layouts.split_dev(pictures, spec.split.dev_images, spec.split.seed)
    chosen = train.take(spec.noise.pool)
    pool = pixel_pool(chosen, spec.noise.batch_size)
    known = {"recipe": RECIPES["learn_noise"], "pictures": identity(chosen)}
    made_from = fingerprint(model.state_dict(), spec=spec.model_dump(mode="json"), **known)
    size, writes = 3 * 4 * math.prod(model.token_shape), distributed.is_main()
    pieces = Pieces(parts_of(out), made_from, size, writes)
    with stopping.deferred(), distributed.stopping_together():
        provenance = artifacts.provenance("noise", spec.model_dump(), inputs, spec.split.seed)
        choice = _precision(model, spec.noise, pieces)
        if choice is not None:
            provenance["precision"] = choice
            own = autoprecision.with_precision(spec.noise, choice)
            spec = spec.model_copy(update={"noise": own})
        noises = learn_blocks(model, pool, spec, (spec.split.seed, "influence"), pieces)
        distributed.on_main(lambda: save_noises(noises, out, provenance))
    pieces.clear()


def _precision(model: PixelModel, config: NoiseConfig, pieces: Pieces) -> dict[str, Any] | None:
    """What "auto" is: as it was before an interruption, or measured; None for other settings."""

    def recorded() -> autoprecision.Choices | None:
        found = pieces.get("precision")
        return None if found is None else {"noise": found[1]}

    wanted = (config.precision, config.batch_size, False)
    choice = autoprecision.choose(model, {"noise": wanted}, recorded).get("noise")
    if choice is not None:
        pieces.put("precision", {"chosen": torch.ones(1)}, choice)
        distributed.barrier()
    return choice


def run_measure(
    spec: InfluenceSpec,
    model: PixelModel,
    pictures: ImageSet,
    noise_folder: str | Path,
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `influence`: learned noise and its controls on the dev split.

    Args:
        spec: what to measure.
        model: the same model.
        pictures: the training set; only its dev split is read.
        noise_folder: what `run_learn` wrote.
        out: parquet of kind "influence".
        inputs: files whose hashes go into the metadata, beside those of the noises.
    """
    from nsvit.data import layouts, loading

    seed = spec.split.seed
    _, dev = layouts.split_dev(pictures, spec.split.dev_images, seed)
    held_out = dev.take(spec.images)
    images = loading.to_float(loading.load_pixels(held_out))
    noises = load_noises(noise_folder)
    frame = influence(model, spec.model, images, list(held_out.frame["path"]), noises, seed)
    files = [*inputs, *sorted(Path(noise_folder).glob("*.safetensors"))]
    sidecar = artifacts.provenance("influence", spec.model_dump(), files, seed)
    artifacts.write_parquet(out, frame, sidecar)
