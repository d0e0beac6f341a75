"""All columns of all runs, with intervals, from one resampling of each set's pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nsvit.config import StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.statistics.bootstrap import Estimate, bootstrap_means, percentiles, seed_weights
from nsvit.statistics.corruption import KEYS, picture_scores
from nsvit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: (model, arm, round): the runs of all seeds that make one row of a table.
Group = tuple[str, str, int]


@dataclass(frozen=True)
class Resampled:
    """Means of every (run, condition), and the same means over resampled pictures.

    Attributes:
        columns: K rows: model, arm, seed, round, condition, set, error, n, value.
        replicates: (B, K) means over resampled pictures. Replicate b uses the same pictures of
            a set in every column: conditions that share a set, seeds, arms and rounds are paired.
        config: confidence, number of resamples, seed.
    """

    columns: pd.DataFrame
    replicates: NDArray[np.float64]
    config: StatisticsConfig

    def groups(self) -> Iterator[Group]:
        """Every (model, arm, round) there is, in order of first occurrence."""
        found = self.columns[["model", "arm", "round"]].drop_duplicates()
        for model, arm, number in found.itertuples(index=False):
            yield str(model), str(arm), int(number)

    def positions(self, group: Group, conditions: Sequence[str]) -> NDArray[np.intp]:
        """(S, C) columns of a group: seeds that have all the conditions, conditions.

        Raises:
            NsvitError: two seeds were evaluated on different numbers of pictures.
        """
        c = self.columns
        mask = (c["model"] == group[0]) & (c["arm"] == group[1]) & (c["round"] == group[2])
        found = c[mask & c["condition"].isin(list(conditions))]
        for condition, part in found.groupby("condition", sort=False):
            if part["n"].nunique() > 1:
                sizes = ", ".join(
                    f"seed {seed}: {n}" for seed, n in zip(part["seed"], part["n"], strict=True)
                )
                raise NsvitError(
                    f"{group[0]}, {group[1]}, {condition}: seeds have different numbers of "
                    f"pictures ({sizes}); evaluate them again with one config"
                )
        where = {
            (int(seed), str(condition)): int(i)
            for i, seed, condition in zip(
                found.index, found["seed"], found["condition"], strict=True
            )
        }
        seeds = sorted({seed for seed, _ in where})
        rows = [[where.get((s, c), -1) for c in conditions] for s in seeds]
        full = [row for row in rows if -1 not in row]
        return np.array(full, dtype=np.intp).reshape(len(full), len(conditions))

    def combine(
        self, group: Group, conditions: Sequence[str], accuracies: bool = True
    ) -> tuple[float, NDArray[np.float64], int, int] | None:
        """The mean over conditions and seeds, and its replicates.

        Args:
            group: (model, arm, round).
            conditions: slugs, weighted equally.
            accuracies: errors count as 1 - error.

        Returns:
            Value, replicates (B,), number of distinct pictures, number of seeds. None if no
            seed has all the conditions.
        """
        at = self.positions(group, conditions)
        if at.size == 0:
            return None
        values = self.columns["value"].to_numpy(dtype=float)[at]
        replicates = self.replicates[:, at]
        if accuracies:
            errors = self.columns["error"].to_numpy(dtype=bool)[at]
            values = np.where(errors, 1.0 - values, values)
            replicates = np.where(errors, 1.0 - replicates, replicates)
        weights = seed_weights(
            len(at), self.config.resamples, self.config.seed, "seeds", group[0], group[1]
        )
        over_seeds = (replicates.mean(axis=2) * weights).sum(axis=1)
        sizes = self.columns.iloc[at[0]].groupby("set")["n"].max()
        return float(values.mean()), over_seeds, int(sizes.sum()), len(at)

    def estimate(self, group: Group, conditions: Sequence[str]) -> Estimate | None:
        """One condition as it is (an error stays one), or the average of several.

        A single proportion of a single run has its Wilson interval, everything else the
        percentile interval of the replicates. None if no seed has all the conditions.
        """
        alone = len(conditions) == 1
        combined = self.combine(group, conditions, accuracies=not alone)
        if combined is None:
            return None
        value, replicates, n, seeds = combined
        low, high = percentiles(replicates, self.config.confidence)
        if alone and seeds == 1 and not self._is_error(conditions[0]):
            low, high = wilson_interval(round(value * n), n, self.config.confidence)
        return Estimate(value, low, high, n, seeds)

    def _is_error(self, condition: str) -> bool:
        return bool(self.columns.loc[self.columns["condition"] == condition, "error"].any())


def resample(scores: pd.DataFrame, config: StatisticsConfig) -> Resampled:
    """Resamples the pictures of every set once and takes all means over them.

    Args:
        scores: from `picture_scores`.
        config: confidence, resamples, seed.

    Raises:
        NsvitError: a run and condition has a picture twice (the same records given twice).
    """
    import pandas as pd

    frames, replicates = [], []
    for name, part in scores.groupby("set", sort=False, observed=True):
        columns, values = _matrix(part, str(name))
        frames.append(columns)
        replicates.append(bootstrap_means(values, config.resamples, config.seed, "pictures", name))
    if not frames:
        raise NsvitError("there are no records to summarise")
    return Resampled(pd.concat(frames, ignore_index=True), np.hstack(replicates), config)


def _matrix(part: pd.DataFrame, name: str) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """The scores of one set: what each column is, and (n, K) values, NaN where absent."""
    import pandas as pd

    grouped = part.groupby(KEYS, sort=False, observed=True)
    column = grouped.ngroup().to_numpy()
    columns = grouped.agg(error=("error", "first"), n=("score", "size"), value=("score", "mean"))
    columns = columns.reset_index().assign(set=name)
    # Sorted, so that the draw does not depend on the order of the records.
    picture, pictures = pd.factorize(part["picture"], sort=True)
    values = np.full((len(pictures), len(columns)), np.nan)
    values[picture, column] = part["score"].to_numpy(dtype=float)
    sizes = np.isfinite(values).sum(axis=0)
    for i in np.flatnonzero(sizes != columns["n"].to_numpy()):
        key = " ".join(str(columns.at[i, k]) for k in KEYS)
        raise NsvitError(f"{key}: some pictures occur twice; were the same records given twice?")
    return columns, values


def summarise(
    records: pd.DataFrame,
    average: Sequence[str] = (),
    config: StatisticsConfig | None = None,
    baseline: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every condition of every model and arm, with intervals. Fractions.

    Args:
        records: records of any number of runs.
        average: conditions whose mean is added as condition "average" (errors as 1 - error).
        config: confidence, resamples, seed; the defaults of the config file if not given.
        baseline: errors per corruption type to divide by (`ALEXNET_ERRORS`).

    Returns:
        Frame with columns model, arm, round, condition, value, low, high, n, seeds.
    """
    import pandas as pd

    table = resample(picture_scores(records, baseline), config or StatisticsConfig())
    rows = []
    for group in table.groups():
        wanted: dict[str, Sequence[str]] = {
            str(c): [str(c)] for c in records["condition"].drop_duplicates()
        }
        if average:
            wanted["average"] = average
        for name, conditions in wanted.items():
            found = table.estimate(group, conditions)
            if found is not None:
                model, arm, number = group
                rows.append(
                    {"model": model, "arm": arm, "round": number, "condition": name, **vars(found)}
                )
    return pd.DataFrame(rows)
