"""Percentile bootstrap over pictures, and over seeds and pictures."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsvit.runtime import seed_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Weights drawn at a time; bounds memory to about 100 MB whatever the size of the set.
_CHUNK = 4_000_000
#: Weights counted at a time: few enough for the cache of a core.
_COUNTED = 100_000
#: Draws that are kept for the next columns on the same pictures; at most 32 MB each.
_KEPT = 4


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: fractions; `n` pictures in each of `seeds` runs."""

    value: float
    low: float
    high: float
    n: int
    seeds: int


def percentiles(replicates: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap replicates (B,), ignoring undefined ones."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_means(
    values: NDArray[np.float64], resamples: int, *seed_parts: object
) -> NDArray[np.float64]:
    """Means of many columns over the same resampled pictures.

    Every replicate draws n pictures with replacement and uses the same draw for all columns, so
    that what was measured on the same pictures stays paired.

    Args:
        values: (n, K) scores, NaN where a column lacks a picture (its mean is then over those
            it has).
        resamples: number of replicates B.
        *seed_parts: what the draw depends on, given to `runtime.seed_for`.

    Returns:
        (B, K) means; NaN where a replicate has no picture of a column.
    """
    n = len(values)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    out = np.empty((resamples, values.shape[1]))
    start = 0
    for weights in _draws(n, resamples, seed_for(*seed_parts)):
        total = np.full(1, float(n)) if known.all() else weights @ known.astype(float)
        with np.errstate(invalid="ignore"):
            out[start : start + len(weights)] = weights @ filled / total
        start += len(weights)
    return out


def _draws(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Weights (rows, n) of all replicates, a few at a time where there are many pictures."""
    step = max(1, _CHUNK // max(n, 1))
    if resamples <= step:
        yield _one_draw(n, resamples, seed)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        yield _multinomial(rng, min(step, resamples - start), n)


@functools.lru_cache(maxsize=_KEPT)
def _one_draw(n: int, rows: int, seed: int) -> NDArray[np.float64]:
    weights = _multinomial(np.random.default_rng(seed), rows, n)
    weights.setflags(write=False)
    return weights


def _multinomial(rng: np.random.Generator, rows: int, n: int) -> NDArray[np.float64]:
    """(rows, n) counts of n draws among n pictures: quicker than `rng.multinomial`."""
    weights = np.empty((rows, n))
    step = max(1, _COUNTED // n)
    for start in range(0, rows, step):
        part = weights[start : start + step]
        draws = rng.integers(0, n, size=part.shape)
        draws += np.arange(len(part))[:, None] * n
        part[:] = np.bincount(draws.ravel(), minlength=part.size).reshape(part.shape)
    return weights


def seed_weights(seeds: int, resamples: int, *seed_parts: object) -> NDArray[np.float64]:
    """(B, S) weights of resampled seeds, each row summing to one."""
    if seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng(seed_for(*seed_parts))
    return _multinomial(rng, resamples, seeds) / seeds


def bootstrap_interval(
    scores: NDArray[np.float64],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean and interval of scores of several seeds on the same pictures.

    Each replicate resamples the seeds, then the pictures; all seeds use the same pictures. With
    one seed this is the ordinary bootstrap of a mean. With few seeds the percentile interval is
    somewhat too narrow: three seeds say little about the spread between seeds.

    Args:
        scores: (S, n) scores, or (n,) for one seed.
        confidence: coverage.
        resamples: number of replicates.
        seed: of the resampling.
    """
    table = np.atleast_2d(np.asarray(scores, dtype=float))
    count, n = table.shape
    means = bootstrap_means(table.T, resamples, seed, "pictures")
    replicates = (means * seed_weights(count, resamples, seed, "seeds")).sum(axis=1)
    low, high = percentiles(replicates, confidence)
    return Estimate(float(table.mean()), low, high, n, count)
