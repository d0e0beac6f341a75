"""How much better one row of a table is than another, on the same pictures.

Two things make such a difference uncertain: which pictures were drawn, and which seeds the arms
were finetuned with. Both are estimated (the model is in `spread`), added, and judged by t with
Satterthwaite's degrees of freedom; one run against one run on one 0/1 column is tested by McNemar's
mid-p instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from nsvit.errors import NsvitError
from nsvit.statistics.hypotheses import mcnemar
from nsvit.statistics.spread import seed_spread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nsvit.statistics.summary import Group, Resampled

#: The chance of finding an effect of size `detectable`.
POWER = 0.8
#: Variances below this are sums that do not cancel exactly.
_ROUNDING = 1e-24


@dataclass(frozen=True)
class Comparison:
    """An effect, in the unit of what was given (fractions for accuracies), and how sure it is.

    Attributes:
        effect: the estimate; positive means that the first is better.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of no effect; NaN where nothing varies and yet there is an effect.
        n: distinct pictures.
        seeds: seeds, or pairs of seeds.
        se: standard error.
        df: degrees of freedom of t.
        detectable: the smallest true effect that would be found with 80 % power at this
            standard error and the uncorrected level.
        test: which test made p.
        unknown_spread: an arm that is trained has one seed, and no arm has several that would
            say how much seeds differ: the effect is of these runs, not of the methods.
    """

    effect: float
    low: float
    high: float
    p: float
    n: int
    seeds: int
    se: float
    df: float
    detectable: float
    test: Literal["t", "mcnemar"]
    unknown_spread: bool = False

    def above(self, bound: float) -> float:
        """One-sided p-value (by t) of "the true effect is at most `bound`"."""
        from scipy.special import stdtr

        distance = self.effect - bound
        if self.se == 0.0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stdtr(self.df, -distance / self.se))


def compare(
    resampled: Resampled,
    row: tuple[str, str],
    versus: tuple[str, str],
    conditions: Sequence[str],
    number: int = -1,
    untrained: Collection[str] = (),
) -> Comparison | None:
    """The difference row - versus on one column, or on the mean of several (Average).

    Positive means that `row` is better: errors count with the other sign. Its variance is the sum
    of two parts. Pictures: that of the bootstrap replicates of the difference, averaged over
    seeds; both rows and all seeds use the same resampled pictures; of columns of right and wrong
    it is taken as if at least one picture differed. Seeds: the variance between seeds that
    pictures do not explain, over the number of seeds (`seed_spread` says how it is estimated, and
    from which arms). Seeds are paired by number; an arm with one seed is compared with every seed
    of the other. If that arm is trained, its seed is one of many: the variance between seeds of
    single values counts once more.

    Limits: where an arm that is trained has one seed and no arm has several, the variance between
    seeds is unknown and taken as zero (`unknown_spread`). Else the one seed is taken to vary as
    the others do. Arms of one model are taken to vary alike, and no model less than all do on
    average: docs/overview.md says what simulations say of that.

    Args:
        resampled: from `resample`, with both rows.
        row: (model, arm).
        versus: (model, arm).
        conditions: slugs, weighted equally.
        number: the round, -1 for finished runs.
        untrained: arms that have no seeds to vary (kind `none`).

    Returns:
        None if the two have no (pair of) seeds with all the conditions.

    Raises:
        NsvitError: they have different pictures in a condition, or seeds differ in their number
            of pictures.
    """
    groups: tuple[Group, Group] = ((*row, number), (*versus, number))
    paired = _paired(resampled, groups, conditions)
    if paired is None:
        return None
    first, second = paired
    for i, j in zip(first.ravel(), second.ravel(), strict=True):
        if resampled.presence[i] != resampled.presence[j]:
            raise NsvitError(
                f"{row[0]}, {row[1]} against {versus[0]}, {versus[1]}: "
                f"{resampled.columns['condition'].iloc[i]!r} was evaluated on different pictures; "
                "evaluate both again with one config"
            )
    errors = resampled.columns["error"].to_numpy(dtype=bool)[first[0]]
    values, replicates = (
        a - b for a, b in zip(resampled.better(first), resampled.better(second), strict=True)
    )
    pictures = float(np.nanvar(replicates.mean(axis=1), ddof=1))
    pictures = max(pictures, _one_picture(resampled, first[0], errors))
    alone = [g[1] for g in groups if len(resampled.seeds(g, conditions)) == 1]
    more = sum(arm not in untrained for arm in alone)
    spread, times = None, _seeds_counted(len(values), bool(alone), more)
    if times and row != versus:
        every = [resampled.seeds(group, conditions) for group in groups]
        seeds = max(every, key=len) if alone else [seed for seed in every[0] if seed in every[1]]
        spread = seed_spread(resampled, row[0], seeds, conditions, number, bool(alone))
    part = (0.0, 0.0, 1.0)
    if spread is not None:
        part = (times * max(spread.variance, 0.0), times * spread.square, spread.degrees)
    n = resampled.pictures(first[0])
    result = _settle(values, pictures, part, n, resampled.config.confidence)
    result = replace(result, unknown_spread=more > 0 and spread is None)
    if first.size > 1 or errors.any() or spread is not None:
        return result
    return _with_mcnemar(result, resampled.scores(first[0, 0]), resampled.scores(second[0, 0]))


def _seeds_counted(seeds: int, alone: bool, more: int) -> float:
    """How many variances between seeds are in a mean over seeds.

    Args:
        seeds: of the mean.
        alone: whether a row of it has one seed.
        more: how many trained rows with one seed there are.
    """
    return more + (0.0 if alone and seeds == 1 else 1.0 / seeds)


def _one_picture(
    resampled: Resampled, columns: NDArray[np.intp], errors: NDArray[np.bool_]
) -> float:
    """The variance that the mean of some columns has if on each one picture of n + 2 differs.

    Two rows that agree on every picture still may differ on others; without this they would be
    known to be equal however few pictures there are (Agresti and Min 2005 add such halves).
    """
    sizes = resampled.columns["n"].to_numpy(dtype=float)[columns]
    return float((1.0 / (sizes[~errors] + 2.0) ** 2).sum() / len(columns) ** 2)


def _paired(
    resampled: Resampled, groups: tuple[Group, Group], conditions: Sequence[str]
) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """(S, C) columns of both groups, row by row the same seed."""
    seeds = [resampled.seeds(group, conditions) for group in groups]
    places = [resampled.positions(group, conditions) for group in groups]
    if not all(seeds):
        return None
    for one, other in ((0, 1), (1, 0)):
        if len(seeds[one]) == 1:
            places[one] = np.repeat(places[one], len(seeds[other]), axis=0)
            return places[0], places[1]
    common = [seed for seed in seeds[0] if seed in seeds[1]]
    if not common:
        return None
    kept = [places[i][[seeds[i].index(seed) for seed in common]] for i in (0, 1)]
    return kept[0], kept[1]


def _with_mcnemar(
    result: Comparison, first: NDArray[np.float64], second: NDArray[np.float64]
) -> Comparison:
    known = np.isfinite(first)
    p = mcnemar(first[known] > 0.5, second[known] > 0.5)
    return replace(result, p=p, test="mcnemar")


def judge(
    each_seed: ArrayLike, picture_variance: float, n: int, confidence: float, null: float = 0.0
) -> Comparison:
    """An effect from its value in each seed and the variance that pictures give to their mean.

    The variance between seeds is that of the values, over their number (0 for one seed). It holds
    some picture noise, so that the sum is too large rather than too small.

    Args:
        each_seed: (S,) values.
        picture_variance: of the mean over seeds, from resampling or closed form.
        n: distinct pictures.
        confidence: of the interval.
        null: what the effect is measured from.
    """
    values = np.asarray(each_seed, dtype=np.float64) - null
    seeds = len(values)
    own = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    return _settle(values, picture_variance, (own, own, max(seeds - 1, 1)), n, confidence)


def _settle(
    each_seed: NDArray[np.float64],
    pictures: float,
    seed_part: tuple[float, float, float],
    n: int,
    confidence: float,
) -> Comparison:
    """Interval and p-value by t, its degrees of freedom after Satterthwaite.

    Args:
        each_seed: (S,) values.
        pictures: variance that pictures give to their mean.
        seed_part: variance that seeds add, the mean square it was taken from (picture noise
            included; the whole of it is uncertain) and that one's degrees of freedom.
        n: distinct pictures.
        confidence: of the interval.
    """
    from scipy.special import stdtr, stdtrit

    effect, seeds = float(each_seed.mean()), len(each_seed)
    added, square, degrees = seed_part
    total = pictures + added
    se = math.sqrt(total) if total > _ROUNDING else 0.0
    below = pictures**2 / max(n - 1, 1) + square**2 / degrees
    # Where seeds differ less than pictures let expect, Satterthwaite's number can fall below one,
    # and an interval grow to thousands of points; simulated, one is as safe (docs/log.md).
    df = max(total**2 / below, 1.0) if below > 0 else float(max(n - 1, 1))
    t = float(stdtrit(df, 0.5 + confidence / 2))
    if se == 0.0:
        p = 1.0 if effect == 0.0 else math.nan
    else:
        p = min(1.0, 2.0 * float(stdtr(df, -abs(effect) / se)))
    found = smallest_effect(se, df, 1.0 - confidence)
    return Comparison(
        effect, effect - t * se, effect + t * se, p, n, seeds, se, df, found, test="t"
    )


def smallest_effect(se: float, df: float, level: float) -> float:
    """The smallest true effect that a two-sided t test would find with 80 % power.

    Args:
        se: standard error.
        df: degrees of freedom of t.
        level: that p has to be below.
    """
    from scipy.special import stdtrit

    return (float(stdtrit(df, 1.0 - level / 2)) + float(stdtrit(df, POWER))) * se


def compare_with(
    values: ArrayLike, null: float, confidence: float = 0.95, larger: bool = True
) -> Comparison:
    """A mean over pictures (and draws or seeds of them) against a fixed number.

    Args:
        values: (S, n) values of the same n pictures, or (n,).
        null: the fixed number.
        confidence: of the interval.
        larger: whether a mean above `null` is a positive effect; else one below it.

    Raises:
        NsvitError: fewer than two pictures.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    n = table.shape[1]
    if n < 2:
        raise NsvitError(f"a mean over {n} pictures has no interval")
    sign = 1.0 if larger else -1.0
    pictures = float(table.mean(axis=0).var(ddof=1)) / n
    return judge(sign * table.mean(axis=1), pictures, n, confidence, sign * null)
