"""Means over noises and pictures, with intervals: what every table of noise has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nsvit.config import StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.statistics import Estimate, bootstrap_means, percentiles, wilson_interval
from nsvit.statistics.bootstrap import seed_weights

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def draws_by_pictures(part: pd.DataFrame, columns: Sequence[str], name: str) -> NDArray[np.float64]:
    """(columns, draws, pictures) values of one kind of noise, both in ascending order.

    Args:
        part: one row per draw x sample.
        columns: what to take.
        name: of the table and the noise, for errors.

    Raises:
        NsvitError: draws have different pictures or one of them twice, or a value is NaN.
    """
    import pandas as pd

    draw, draws = pd.factorize(part["draw"], sort=True)
    sample, samples = pd.factorize(part["sample"].astype(object), sort=True)
    values = np.full((len(columns), len(draws), len(samples)), np.nan)
    values[:, draw, sample] = part[list(columns)].to_numpy(dtype=float).T
    if len(part) != len(draws) * len(samples) or not np.isfinite(values).all():
        raise NsvitError(f"{name}: its draws have different pictures, or a value is NaN")
    return values


def means_of(
    part: pd.DataFrame, columns: Sequence[str], name: str, config: StatisticsConfig
) -> dict[str, Estimate]:
    """Means over draws and pictures of several columns, with their bootstrap intervals.

    As `statistics.bootstrap_interval` of each column, with one resampling for all.
    """
    tables = draws_by_pictures(part, columns, name)
    _, draws, n = tables.shape
    means = bootstrap_means(tables.reshape(-1, n).T, config.resamples, config.seed, "pictures")
    weights = seed_weights(draws, config.resamples, config.seed, "seeds")
    found = {}
    for i, (column, table) in enumerate(zip(columns, tables, strict=True)):
        replicates = (means[:, i * draws : (i + 1) * draws] * weights).sum(axis=1)
        low, high = percentiles(replicates, config.confidence)
        found[column] = Estimate(float(table.mean()), low, high, n, draws)
    return found


def share_of(mean: Estimate, config: StatisticsConfig) -> Estimate:
    """A mean of true and false values: with Wilson's interval if it is of a single draw."""
    if mean.seeds > 1:
        return mean
    low, high = wilson_interval(round(mean.value * mean.n), mean.n, config.confidence)
    return Estimate(mean.value, low, high, mean.n, 1)


def spread(name: str, found: Estimate, factor: float = 1.0) -> dict[str, float]:
    """An estimate as the three columns of a table."""
    return {
        name: factor * found.value,
        f"{name}_low": factor * found.low,
        f"{name}_high": factor * found.high,
    }
