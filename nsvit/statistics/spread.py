"""How much runs with different seeds differ: what is left when picture noise is taken out.

The difference of two rows on picture i with seed s is taken as

    d_si = effect + a_s + p_i + e_si

with independent seeds a, pictures p and their interaction e (two crossed random effects). The mean
over S seeds and n pictures then varies by

    var(a) / S + var(p) / n + var(e) / (S n).

The bootstrap of that mean over pictures estimates the last two terms together. The variance between
the seeds' means estimates var(a) + var(e) / n, so that it holds picture noise which the bootstrap
has counted already: that is taken off (Cornfield and Tukey 1956, Annals of Mathematical
Statistics 27), by the variance of the seeds' deviations from their mean over the same resamples.

Two or three seeds of one pair of arms have one or two degrees of freedom. All arms of a model that
were trained with the same seeds are taken to vary alike, as in an analysis of variance with the
factors arm and seed: K arms and S seeds give (K - 1)(S - 1) degrees of freedom for the differences
of arms. What the seeds of all arms share cancels in these and counts in comparisons with a model
that has no seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nsvit.statistics.summary import Group, Resampled


@dataclass(frozen=True)
class Spread:
    """The variance between seeds of one value, in squared fractions.

    Attributes:
        variance: var(a), unbiased: negative where seeds differ less than pictures explain.
        square: the mean square it comes from, picture noise included; says how sure it is.
        degrees: degrees of freedom of `square`.
    """

    variance: float
    square: float
    degrees: float


def seed_spread(
    resampled: Resampled,
    model: str,
    seeds: Sequence[int],
    conditions: Sequence[str],
    number: int,
    single: bool,
) -> Spread | None:
    """What to take for the variance between seeds in a comparison.

    That of the model's arms which have all the seeds, but not less than the mean over models
    (weighted by degrees of freedom): few seeds agree by luck now and then, which would make the
    smallest p-values, those that survive a correction, far too small.

    Args:
        resampled: from `resample`.
        model: slug.
        seeds: of the comparison.
        conditions: the column, or those of the Average.
        number: the round.
        single: of the values of one arm, for comparisons with a row of one seed; else of paired
            differences of two arms.

    Returns:
        None where no model has enough seeds to say.
    """
    own = _of_model(resampled, model, tuple(seeds), tuple(conditions), number, single)
    models = dict.fromkeys(group[0] for group in resampled.groups() if group[2] == number)
    found = [_best(resampled, one, tuple(conditions), number, single) for one in models]
    known = [one for one in found if one is not None]
    if not known:
        return own
    weights = np.array([one.degrees for one in known])
    usual = Spread(
        float(np.average([one.variance for one in known], weights=weights)),
        float(np.average([one.square for one in known], weights=weights)),
        float(weights.sum()),
    )
    return own if own is not None and own.variance >= usual.variance else usual


def _best(
    resampled: Resampled, model: str, conditions: tuple[str, ...], number: int, single: bool
) -> Spread | None:
    """The spread of those arms of a model that leave it the most degrees of freedom."""
    arms = _seeds_of(resampled, model, conditions, number)
    sets = dict.fromkeys(arms.values())
    found = [_of_model(resampled, model, seeds, conditions, number, single) for seeds in sets]
    return max((one for one in found if one is not None), key=lambda s: s.degrees, default=None)


def _seeds_of(
    resampled: Resampled, model: str, conditions: tuple[str, ...], number: int
) -> dict[str, tuple[int, ...]]:
    """The seeds of every arm of a model that has the conditions."""
    found = {
        group[1]: tuple(resampled.seeds(group, conditions))
        for group in resampled.groups()
        if (group[0], group[2]) == (model, number)
    }
    return {arm: seeds for arm, seeds in found.items() if seeds}


def _agree(resampled: Resampled, group: Group, conditions: tuple[str, ...]) -> bool:
    """Whether all seeds of a group have the same pictures. Others say nothing of the spread."""
    try:
        resampled.positions(group, conditions)
    except NsvitError:
        return False
    return True


def _of_model(
    resampled: Resampled,
    model: str,
    seeds: tuple[int, ...],
    conditions: tuple[str, ...],
    number: int,
    single: bool,
) -> Spread | None:
    """The spread of the arms of one model that have all of some seeds."""
    key = (model, seeds, conditions, number, single)
    if key not in resampled.memo:
        own = _seeds_of(resampled, model, conditions, number)
        arms = [
            arm
            for arm, have in own.items()
            if set(seeds) <= set(have) and _agree(resampled, (model, arm, number), conditions)
        ]
        enough = len(seeds) > 1 and len(arms) > (0 if single else 1)
        resampled.memo[key] = None
        if enough:
            places = np.stack([
                resampled.positions((model, arm, number), conditions)[
                    [own[arm].index(seed) for seed in seeds]
                ]
                for arm in arms
            ])  # fmt: skip
            values, replicates = resampled.better(places)
            resampled.memo[key] = _analyse(values, replicates, single)
    return resampled.memo[key]


def _analyse(values: NDArray[np.float64], replicates: NDArray[np.float64], single: bool) -> Spread:
    """The variance between seeds by analysis of variance.

    Args:
        values: (K, S) of arms and seeds.
        replicates: (B, K, S), the same over resampled pictures.
        single: of single arms, else of differences of two.
    """
    arms, seeds = values.shape
    # What seeds share in all arms, and what is left of each arm and seed.
    shared = float(values.mean(axis=0).var(ddof=1)) * arms
    shared_noise = _noise(replicates.mean(axis=1, keepdims=True)) * arms
    own = own_noise = 0.0
    if arms > 1:
        rest = values - values.mean(axis=0)
        own = float(((rest - rest.mean(axis=1, keepdims=True)) ** 2).sum())
        own /= (arms - 1) * (seeds - 1)
        rests = replicates - replicates.mean(axis=1, keepdims=True)
        own_noise = _noise(rests) * arms / (arms - 1)
    if not single:
        return Spread(2.0 * (own - own_noise), 2.0 * own, float((arms - 1) * (seeds - 1)))
    square = (shared + (arms - 1) * own) / arms
    noise = (shared_noise + (arms - 1) * own_noise) / arms
    # Satterthwaite; between S - 1 where arms move together and K (S - 1) where they do not.
    below = shared**2 + (arms - 1) * own**2
    degrees = (square * arms) ** 2 / below * (seeds - 1) if below > 0 else seeds - 1
    return Spread(square - noise, square, float(degrees))


def _noise(replicates: NDArray[np.float64]) -> float:
    """What pictures alone make the variance between seeds of (B, K, S) values, mean over arms."""
    deviations = replicates - replicates.mean(axis=2, keepdims=True)
    varied = np.nanvar(deviations, axis=0, ddof=1).sum(axis=1) / (replicates.shape[2] - 1)
    return float(varied.mean())
