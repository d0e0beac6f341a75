"""Shares of pictures: accuracy, robust accuracy, and the Wilson interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


def accuracy(correct: ArrayLike) -> float:
    """The share of correct predictions, in [0, 1].

    Args:
        correct: (n,) booleans.

    Raises:
        NsvitError: there is no prediction.
    """
    array = np.asarray(correct, dtype=bool)
    if array.size == 0:
        raise NsvitError("accuracy of no predictions: the records are empty")
    return float(array.mean())


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion.

    Args:
        successes: how many of the n were correct.
        n: how many there were.
        confidence: coverage, 0.95 for 95 %.

    Returns:
        The lower and the upper end, in [0, 1].

    Raises:
        NsvitError: not 0 <= successes <= n with n > 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise NsvitError(f"Wilson interval of {successes} out of {n}: not a proportion")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding can push the ends past what they are in exact arithmetic at 0 and n successes.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def robust_accuracy(records: pd.DataFrame, conditions: Sequence[str]) -> float:
    """The share of pictures classified correctly under every one of the conditions.

    Counted over all N pictures, not only over those that are correct without an attack: a
    picture that is wrong when clean is not robust. Name the clean condition among them.

    Args:
        records: records of one run, with columns condition, sample, correct.
        conditions: slugs, for example ("clean", "fgsm_1").

    Raises:
        NsvitError: a condition is absent, has other pictures than the first, or a picture
            occurs twice (records of several runs).
    """
    correct: dict[str, bool] = {}
    for condition in conditions:
        part = records.loc[records["condition"] == condition]
        samples = part["sample"].astype(str)
        found = dict(zip(samples, part["correct"].to_numpy(dtype=bool), strict=True))
        if not found:
            raise NsvitError(f"robust accuracy: the records have no condition {condition!r}")
        if len(found) != len(part):
            raise NsvitError(f"robust accuracy: pictures of {condition!r} occur more than once")
        if correct and found.keys() != correct.keys():
            raise NsvitError(
                f"robust accuracy: {condition!r} was evaluated on other pictures than "
                f"{conditions[0]!r}; give both the same `images`"
            )
        correct = {s: ok and correct.get(s, True) for s, ok in found.items()}
    return accuracy(list(correct.values()))
