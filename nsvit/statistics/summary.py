"""All columns of all runs, with intervals, from one resampling of each set's pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit.config import StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.statistics.bootstrap import Estimate, bootstrap_means, percentiles, seed_weights
from nsvit.statistics.corruption import KEYS, picture_scores
from nsvit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from nsvit.statistics.spread import Spread

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
        matrices: of every set, in the order of the columns, (pictures, its columns) scores with
            NaN where a column lacks a picture.
    """

    columns: pd.DataFrame
    replicates: NDArray[np.float64]
    config: StatisticsConfig
    matrices: Mapping[str, NDArray[np.float64]]

    @cached_property
    def memo(self) -> dict[tuple[Any, ...], Spread | None]:
        """What `seed_spread` has computed so far."""
        return {}

    def groups(self) -> list[Group]:
        """Every (model, arm, round) there is, in order of first occurrence."""
        return list(self._groups)

    @cached_property
    def _groups(self) -> dict[Group, None]:
        return dict.fromkeys(group for group, _ in self._places)

    @cached_property
    def _places(self) -> dict[tuple[Group, str], dict[int, int]]:
        """(group, condition) -> seed -> column."""
        places: dict[tuple[Group, str], dict[int, int]] = {}
        for i, row in enumerate(self.columns[KEYS].itertuples(index=False)):
            model, arm, seed, number, condition = row
            group = (str(model), str(arm), int(number))
            places.setdefault((group, str(condition)), {})[int(seed)] = i
        return places

    @cached_property
    def _values(self) -> NDArray[np.float64]:
        return self.columns["value"].to_numpy(dtype=float)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return self.columns["n"].to_numpy(dtype=np.int64)

    @cached_property
    def _sets(self) -> list[str]:
        return [str(name) for name in self.columns["set"]]

    @cached_property
    def _errors(self) -> NDArray[np.bool_]:
        return self.columns["error"].to_numpy(dtype=bool)

    @cached_property
    def _starts(self) -> dict[str, int]:
        """The first column of every set."""
        widths = [matrix.shape[1] for matrix in self.matrices.values()]
        starts = np.cumsum([0, *widths[:-1]]).tolist()
        return dict(zip(self.matrices, starts, strict=True))

    def scores(self, column: int) -> NDArray[np.float64]:
        """The score of every picture of the column's set, NaN where the column lacks it."""
        name = self._sets[column]
        return self.matrices[name][:, column - self._starts[name]]

    @cached_property
    def presence(self) -> list[tuple[str, bytes]]:
        """Which pictures each column has: equal where the pictures are the same."""
        return [
            (name, np.packbits(np.isfinite(self.scores(i))).tobytes())
            for i, name in enumerate(self._sets)
        ]

    def pictures(self, columns: Sequence[int] | NDArray[np.intp]) -> int:
        """The number of distinct pictures of some columns: the most of each set, summed."""
        sizes: dict[str, int] = {}
        for i in columns:
            name = self._sets[i]
            sizes[name] = max(int(self._sizes[i]), sizes.get(name, 0))
        return sum(sizes.values())

    def seeds(self, group: Group, conditions: Sequence[str]) -> list[int]:
        """The seeds of a group that have all the conditions, ascending."""
        found = [self._places.get((group, condition), {}) for condition in conditions]
        return sorted(set.intersection(*map(set, found))) if found else []

    def positions(self, group: Group, conditions: Sequence[str]) -> NDArray[np.intp]:
        """(S, C) columns of a group: seeds that have all the conditions, conditions.

        Raises:
            NsvitError: two seeds were evaluated on different numbers of pictures.
        """
        found = [self._places.get((group, condition), {}) for condition in conditions]
        for condition, by_seed in zip(conditions, found, strict=True):
            sizes = {seed: int(self._sizes[i]) for seed, i in sorted(by_seed.items())}
            if len(set(sizes.values())) > 1:
                text = ", ".join(f"seed {seed}: {n}" for seed, n in sizes.items())
                raise NsvitError(
                    f"{group[0]}, {group[1]}, {condition}: seeds have different numbers of "
                    f"pictures ({text}); evaluate them again with one config"
                )
        seeds = self.seeds(group, conditions)
        rows = [[by_seed[seed] for by_seed in found] for seed in seeds]
        return np.array(rows, dtype=np.intp).reshape(len(rows), len(conditions))

    def better(self, at: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means over the conditions of columns (..., C), the larger the better.

        Returns:
            (...) values and (B, ...) replicates, errors with the other sign.
        """
        sign = np.where(self._errors[at], -1.0, 1.0)
        values = (sign * self._values[at]).mean(axis=-1)
        return values, (sign * self.replicates[:, at]).mean(axis=-1)

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
        values = self._values[at]
        replicates = self.replicates[:, at]
        if accuracies:
            errors = self._errors[at]
            values = np.where(errors, 1.0 - values, values)
            replicates = np.where(errors, 1.0 - replicates, replicates)
        weights = seed_weights(
            len(at), self.config.resamples, self.config.seed, "seeds", group[0], group[1]
        )
        over_seeds = (replicates.mean(axis=2) * weights).sum(axis=1)
        return float(values.mean()), over_seeds, self.pictures(at[0]), len(at)

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
        if alone and seeds == 1 and not self._errors[self.positions(group, conditions)[0, 0]]:
            low, high = wilson_interval(round(value * n), n, self.config.confidence)
        return Estimate(value, low, high, n, seeds)


def resample(scores: pd.DataFrame, config: StatisticsConfig) -> Resampled:
    """Resamples the pictures of every set once and takes all means over them.

    Args:
        scores: from `picture_scores`.
        config: confidence, resamples, seed.

    Raises:
        NsvitError: a run and condition has a picture twice (the same records given twice).
    """
    import pandas as pd

    frames, replicates, matrices = [], [], {}
    for name, part in scores.groupby("set", sort=False, observed=True):
        columns, values = _matrix(part, str(name))
        frames.append(columns)
        matrices[str(name)] = values
        replicates.append(bootstrap_means(values, config.resamples, config.seed, "pictures", name))
    if not frames:
        raise NsvitError("there are no records to summarise")
    columns = pd.concat(frames, ignore_index=True)
    return Resampled(columns, np.hstack(replicates), config, matrices)


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
    normalised: Collection[str] = (),
) -> pd.DataFrame:
    """Every condition of every model and arm, with intervals. Fractions.

    Args:
        records: records of any number of runs.
        average: conditions whose mean is added as condition "average" (errors as 1 - error).
        config: confidence, resamples, seed; the defaults of the config file if not given.
        normalised: conditions whose corruption errors are divided by AlexNet's (mCE).

    Returns:
        Frame with columns model, arm, round, condition, value, low, high, n, seeds.
    """
    import pandas as pd

    scores = picture_scores(records, normalised=normalised)
    table = resample(scores, config or StatisticsConfig())
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
