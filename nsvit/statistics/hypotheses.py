"""Tests and corrections that are not of this project: McNemar, Holm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def mcnemar(
    first: ArrayLike, second: ArrayLike, method: Literal["exact", "mid-p"] = "mid-p"
) -> float:
    """Two-sided p-value of "both are equally often right", for paired booleans.

    Only pictures on which the two differ count; under the hypothesis either is right on half of
    them (binomial). The mid-p value counts the observed split half: the exact one is larger than
    it need be, which costs power where few pictures differ (Fagerland, Lydersen and Laake 2013).

    Args:
        first: (n,) booleans, of the same n pictures as `second`.
        second: (n,) booleans.
        method: "mid-p", or "exact".

    Returns:
        p in [0, 1]; 1 where the two never differ or differ equally often in both directions.

    Raises:
        NsvitError: different numbers of pictures.
    """
    from scipy.special import bdtr

    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape:
        raise NsvitError(
            f"McNemar's test is for pairs: {one.size} pictures against {other.size} pictures"
        )
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    fewer, differing = min(only_one, only_other), only_one + only_other
    if only_one == only_other:
        return 1.0
    p = 2.0 * float(bdtr(fewer, differing, 0.5))
    if method == "mid-p":
        # In logarithms: 2^-n underflows long before n reaches the size of a test set.
        p -= float(np.exp(_log_comb(differing, fewer) - differing * np.log(2.0)))
    return min(1.0, max(0.0, p))


def _log_comb(n: int, k: int) -> float:
    from scipy.special import gammaln

    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values corrected after Holm: the chance of any false alarm in the family stays below alpha.

    Args:
        p_values: (m,) p-values of one family; NaN marks what was not tested and does not count.

    Returns:
        (m,) corrected p-values, NaN where the input is.

    Raises:
        NsvitError: a p-value outside [0, 1].
    """
    given = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(np.isfinite(given))
    if ((given[tested] < 0) | (given[tested] > 1)).any():
        raise NsvitError("Holm's correction: a p-value is outside [0, 1]")
    order = tested[np.argsort(given[tested], kind="stable")]
    out = np.full(given.shape, np.nan)
    scaled = given[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(order) else scaled
    return out
