"""How much better one row of a table is than another, on the same pictures.

Two things make such a difference uncertain: which pictures were drawn, and which seeds the arms
were finetuned with. Both are estimated, added, and judged by t with Satterthwaite's degrees of
freedom; one run against one run on one 0/1 column is tested by McNemar's mid-p instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from nsvit.errors import NsvitError
from nsvit.statistics.hypotheses import mcnemar

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

    Positive means that `row` is better: errors count with the other sign. The picture variance is
    that of the bootstrap replicates of the difference, averaged over seeds: both rows and all
    seeds use the same resampled pictures; of columns of right and wrong it is taken as if at least
    one picture differed. The seed variance is that of the seeds' differences,
    divided by their number; it holds some picture noise too, so that the sum is a little too
    large rather than too small. A variance of two or three values is near zero by luck now and
    then, which would make the smallest p-values, those that survive a correction, too small by
    an order of magnitude (simulated). It is therefore not taken below the mean variance of such
    differences over all arms and models of the same column (`seed_floor`). Seeds are paired by
    number; an arm with one seed is compared with every seed of the other. If that arm is trained,
    its seed is one of many: the mean variance between seeds of single values counts once more.

    Limits: where an arm that is trained has one seed and no arm has several, the variance between
    seeds is unknown and taken as zero (`unknown_spread`). Else the one seed is taken to vary as
    the others do on average. With two seeds the degrees of freedom fall towards one where seeds
    differ more than pictures do, and intervals get wide.

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
    errors = resampled.columns["error"].to_numpy(dtype=bool)[first]
    sign = np.where(errors, -1.0, 1.0)
    values = resampled.columns["value"].to_numpy(dtype=float)
    each_seed = _signed(resampled, values, first) - _signed(resampled, values, second)
    replicates = sign * (resampled.replicates[:, first] - resampled.replicates[:, second])
    pictures = float(np.nanvar(replicates.mean(axis=(1, 2)), ddof=1))
    pictures = max(pictures, _one_picture(resampled, first[0], errors[0]))
    alone = [g[1] for g in groups if len(resampled.seeds(g, conditions)) == 1]
    floor = seed_floor(resampled, conditions, number, bool(alone))
    more = sum(arm not in untrained for arm in alone)
    n = resampled.pictures(first[0])
    result = judge(each_seed, pictures, n, resampled.config.confidence, floor=floor, more=more)
    result = replace(result, unknown_spread=more > 0 and floor is None)
    if first.size > 1 or errors.any() or (more and floor is not None):
        return result
    return _with_mcnemar(result, resampled.scores(first[0, 0]), resampled.scores(second[0, 0]))


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


def seed_floor(
    resampled: Resampled, conditions: Sequence[str], number: int, single: bool
) -> tuple[float, int] | None:
    """The usual variance between seeds of a column, from all models and arms that have several.

    Args:
        resampled: from `resample`.
        conditions: the column, or those of the Average.
        number: the round.
        single: of the values of one arm, for comparisons with an arm of one seed; else of the
            paired differences of two arms.

    Returns:
        The mean variance over arms or pairs of arms, and its degrees of freedom: seeds less one,
        summed over models. Arms of a model share seeds and count once. None where no arm (no
        pair) has several seeds.
    """
    key = (tuple(conditions), number, single)
    if key not in resampled.memo:
        variances, degrees = [], 0
        values = resampled.columns["value"].to_numpy(dtype=float)
        for model in dict.fromkeys(group[0] for group in resampled.groups()):
            runs = []
            for group in resampled.groups():
                seeds = resampled.seeds(group, conditions)
                if (group[0], group[2]) == (model, number) and len(seeds) > 1:
                    means = _signed(resampled, values, resampled.positions(group, conditions))
                    runs.append(dict(zip(seeds, means.tolist(), strict=True)))
            pairs = [({}, run) for run in runs] if single else list(combinations(runs, 2))
            spreads = []
            for one, other in pairs:
                common = [seed for seed in other if single or seed in one]
                if len(common) > 1:
                    spreads.append([other[seed] - one.get(seed, 0.0) for seed in common])
            variances += [float(np.var(spread, ddof=1)) for spread in spreads]
            degrees += max((len(spread) - 1 for spread in spreads), default=0)
        resampled.memo[key] = (float(np.mean(variances)), degrees) if variances else None
    return resampled.memo[key]


def _signed(
    resampled: Resampled, values: NDArray[np.float64], at: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(S,) means over conditions of columns (S, C), errors with the other sign."""
    errors = resampled.columns["error"].to_numpy(dtype=bool)[at]
    means: NDArray[np.float64] = np.where(errors, -values[at], values[at]).mean(axis=1)
    return means


def judge(
    each_seed: ArrayLike,
    picture_variance: float,
    n: int,
    confidence: float,
    null: float = 0.0,
    floor: tuple[float, int] | None = None,
    more: int = 0,
) -> Comparison:
    """An effect from its value in each seed and the variance that pictures give to their mean.

    SE^2 = V_pic + V_seed with V_seed the variance of the seeds' values over their number (0 for
    one seed), plus that of the floor once for each of `more`; degrees of freedom after
    Satterthwaite; interval and p-value by t.

    Args:
        each_seed: (S,) values.
        picture_variance: of the mean over seeds, from resampling or closed form.
        n: distinct pictures.
        confidence: of the interval.
        null: what the effect is measured from.
        floor: the least variance between seeds to believe in, and its degrees of freedom.
        more: how many arms with one seed vary between seeds nobody ran, as the floor says.
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(each_seed, dtype=np.float64) - null
    seeds = len(values)
    effect = float(values.mean())
    variance, degrees = (float(values.var(ddof=1)), seeds - 1) if seeds > 1 else (0.0, 1)
    usual, usual_degrees = floor or (0.0, 1)
    if seeds > 1 and usual > variance:
        variance, degrees = usual, usual_degrees
    # One estimate used twice is one term of Satterthwaite's sum, two estimates are two.
    own, other = variance / seeds, more * usual
    same = degrees == usual_degrees and variance == usual
    terms = [(own + other, degrees)] if same else [(own, degrees), (other, usual_degrees)]
    total = picture_variance + own + other
    se = math.sqrt(total) if total > _ROUNDING else 0.0
    below = picture_variance**2 / max(n - 1, 1) + sum(v**2 / d for v, d in terms)
    df = total**2 / below if below > 0 else float(max(n - 1, 1))
    t = float(stdtrit(df, 0.5 + confidence / 2))
    if se == 0.0:
        p = 1.0 if effect == 0.0 else math.nan
    else:
        p = min(1.0, 2.0 * float(stdtr(df, -abs(effect) / se)))
    found = (t + float(stdtrit(df, POWER))) * se
    return Comparison(
        effect, effect - t * se, effect + t * se, p, n, seeds, se, df, found, test="t"
    )


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
