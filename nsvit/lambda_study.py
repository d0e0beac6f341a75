"""The lambda study: what noise learned with every lambda does to held-out pictures.

METHOD.md section 3: learned noise against a random permutation of its entries; and, for one
lambda, whether multiples and mixtures of learned noises are null too (closure, the paper's
appendix A.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from torch import Tensor

from nsvit import artifacts, distributed, runtime
from nsvit.comparison import all_logits, compare, permuted
from nsvit.config import RECIPES, LambdaConfig
from nsvit.errors import NsvitError
from nsvit.inputs import identity, pixel_pool
from nsvit.lambda_noise import MIXED, LambdaNoise, learn_all
from nsvit.models import PixelModel, frozen
from nsvit.snapshots import Pieces, fingerprint, parts_of

if TYPE_CHECKING:
    from nsvit.data.layouts import ImageSet
    from nsvit.specs import LambdaSpec

COLUMNS = [
    "model", "lambda", "draw", "noise", "sample", "agree", "logit_distance",
    "probability_distance", "confidence_error", "norm",
]  # fmt: skip
CLOSURE_COLUMNS = ["model", "lambda", "kind", "factor", *COLUMNS[2:]]


@dataclass(frozen=True)
class HeldOut:
    """Held-out pictures and the clean pass over them.

    Attributes:
        images: (n, 3, H, W) pixels in [0, 1].
        samples: n paths.
        clean: logits (n, classes), on the CPU.
        batch_size: pictures in a forward pass.
    """

    images: Tensor
    samples: Sequence[str]
    clean: Tensor
    batch_size: int = 50

    def only(self, samples: Sequence[str]) -> HeldOut:
        """These pictures alone, in the order they have here."""
        wanted = set(samples)
        rows = [i for i, sample in enumerate(self.samples) if sample in wanted]
        names = [self.samples[i] for i in rows]
        return HeldOut(self.images[rows], names, self.clean[rows], self.batch_size)


def hold_out(
    model: PixelModel, images: Tensor, samples: Sequence[str], batch_size: int = 50
) -> HeldOut:
    """Computes the clean pass over held-out pictures, once.

    Raises:
        NsvitError: images and samples differ in number, or there are none.
    """
    if len(images) != len(samples) or not len(images):
        raise NsvitError(f"lambda study: {len(images)} images for {len(samples)} sample paths")
    with frozen(model):
        return HeldOut(images, samples, all_logits(model, images, batch_size), batch_size)


def measure(
    model: PixelModel, name: str, held_out: HeldOut, noises: Sequence[LambdaNoise], seed: int
) -> pd.DataFrame:
    """Every noise and its permutation, one row per sample.

    Args:
        model: computed frozen; restored.
        name: the model's slug.
        held_out: from `hold_out` of the same model.
        noises: from `learn_all`.
        seed: of the permutations, together with lambda and draw.

    Returns:
        Columns model, lambda, draw, noise ("learned", "permuted"), sample, those of
        `comparison.compare`, norm.
    """
    frames = []
    with frozen(model):
        for own in runtime.progress(noises, f"lambda study of {name}"):
            for noise, tensor in (("learned", own.tensor), ("permuted", _control(own, seed))):
                facts = {"model": name, "lambda": own.weight, "draw": own.draw, "noise": noise}
                frames.append(_rows(model, held_out, tensor).assign(**facts))
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def closure(
    model: PixelModel,
    name: str,
    held_out: HeldOut,
    noises: Sequence[LambdaNoise],
    config: LambdaConfig,
    seed: int,
) -> pd.DataFrame:
    """Multiples, mixtures and the sum of two noises of one lambda, and of their permutations.

    Args:
        model: computed frozen; restored.
        name: the model's slug.
        held_out: pictures; see `hold_out`.
        noises: from `learn_all`.
        config: `closure` says which lambda, factors and weights.
        seed: of the permutations: those of `measure`.

    Returns:
        Columns model, lambda, kind, factor, draw, noise ("learned", "permuted"), sample, those
        of `comparison.compare`, norm. kind "scaled": factor * v of each draw; "combined":
        factor * v1 + (1 - factor) * v2, draw -1; "added": v1 + v2, factor 1, draw -1.
    """
    pair = [own for own in noises if own.weight == config.closure.at and own.draw < MIXED]
    if len(pair) < MIXED:
        raise NsvitError(
            f"closure: needs {MIXED} noises of lambda {config.closure.at:g}, got {len(pair)}"
        )
    versions = {
        "learned": [own.tensor for own in pair],
        "permuted": [_control(own, seed) for own in pair],
    }
    frames = []
    with frozen(model):
        for noise, (first, second) in versions.items():
            for kind, factor, draw, tensor in _built(first, second, config):
                facts = {"kind": kind, "factor": factor, "draw": draw, "noise": noise}
                frames.append(_rows(model, held_out, tensor).assign(**facts))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(**{"model": name, "lambda": config.closure.at})[CLOSURE_COLUMNS]


def _built(
    first: Tensor, second: Tensor, config: LambdaConfig
) -> Iterator[tuple[str, float, int, Tensor]]:
    """(kind, factor, draw, tensor) of everything that closure makes of two noises."""
    for factor in config.closure.factors:
        for draw, tensor in enumerate((first, second)):
            yield "scaled", factor, draw, factor * tensor
    for weight in config.closure.weights:
        yield "combined", weight, -1, weight * first + (1 - weight) * second
    yield "added", 1.0, -1, first + second


def _control(own: LambdaNoise, seed: int) -> Tensor:
    return permuted(own.tensor, runtime.generator(seed, "lambda", "permuted", own.weight, own.draw))


def _rows(model: PixelModel, held_out: HeldOut, tensor: Tensor) -> pd.DataFrame:
    noisy = all_logits(model, held_out.images, held_out.batch_size, tensor)
    return compare(held_out.clean, noisy, held_out.samples).assign(norm=float(tensor.norm()))


# --- the verb -------------------------------------------------------------------------------


def run(
    spec: LambdaSpec,
    model: PixelModel,
    pictures: ImageSet,
    out: str | Path,
    closure_out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `lambda-study`: learned on the training split, measured on the dev split.

    Finished noises are kept beside `out` until all is done: interrupted, the same command goes on.

    Args:
        spec: what to learn and measure.
        model: the model under test, on the device to compute on.
        pictures: the training set.
        out: parquet of kind "lambda".
        closure_out: parquet of kind "closure".
        inputs: files whose hashes go into the metadata.
    """
    from nsvit.data import layouts, loading

    study, seed = spec.study, spec.split.seed
    train, dev = layouts.split_dev(pictures, spec.split.dev_images, seed)
    chosen = train.take(study.pool)
    pool = pixel_pool(chosen, study.batch_size)
    known = {"recipe": RECIPES["lambda_study"], "pictures": identity(chosen)}
    made_from = fingerprint(model.state_dict(), spec=spec.model_dump(mode="json"), **known)
    pieces = Pieces(parts_of(out), made_from, 0, writes=distributed.is_main())
    noises = learn_all(model, pool, study, (seed, "lambda study"), pieces)
    shown = dev.take(study.images)
    images = loading.to_float(loading.load_pixels(shown))
    held_out = hold_out(model, images, list(shown.frame["path"]))
    asked = [own for own in noises if own.draw < study.draws]
    rows = measure(model, spec.model, held_out, asked, seed)
    few = held_out.only(list(shown.take(study.closure.images).frame["path"]))
    built = closure(model, spec.model, few, noises, study, seed)
    for kind, frame, path in (("lambda", rows, out), ("closure", built, closure_out)):
        sidecar = artifacts.provenance(kind, spec.model_dump(), inputs, seed)
        distributed.on_main(partial(artifacts.write_parquet, path, frame, sidecar))
    pieces.clear()
