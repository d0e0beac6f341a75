"""Corruption errors, and records reduced to one score per picture.

All cells (corruption x severity) of a corruption set show the same pictures. Averaging over the
cells first gives one error per picture, so that a picture is resampled with all its cells.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd

#: Errors of AlexNet on ImageNet-C, mean over severities, as fractions (METHOD.md section 6).
ALEXNET_ERRORS: dict[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}

#: What one column of one run is; `round` is -1 for the finished run.
KEYS = ["model", "arm", "seed", "round", "condition"]


def corruption_errors(records: pd.DataFrame) -> pd.Series:
    """The error of every corruption type at every severity, in [0, 1].

    Args:
        records: records of a corruption set (columns corruption, severity, correct).

    Returns:
        Series with index (corruption, severity), in order of first occurrence.
    """
    cells = records.groupby(["corruption", "severity"], sort=False, observed=True)["correct"]
    return (1.0 - cells.mean()).rename("error")


def mean_corruption_error(
    records: pd.DataFrame, baseline: Mapping[str, float] | None = None
) -> float:
    """The mean over corruption types of the mean error over severities.

    With `baseline=ALEXNET_ERRORS` on the published 1000-class tree this is mCE as a fraction
    (METHOD.md section 6). Without a baseline it is the unnormalised mean error and must not be
    called mCE.

    Args:
        records: records of a corruption set.
        baseline: reference error per corruption type, fractions.

    Raises:
        NsvitError: the types in the records and in the baseline differ.
    """
    by_type = corruption_errors(records).groupby(level="corruption", sort=False).mean()
    if len(by_type) == 0:
        raise NsvitError("mean corruption error of no records")
    _check_baseline({str(name) for name in by_type.index}, baseline)
    if baseline is not None:
        by_type = by_type / [baseline[str(name)] for name in by_type.index]
    return float(by_type.mean())


def _check_baseline(types: set[str], baseline: Mapping[str, float] | None) -> None:
    if baseline is not None and types != set(baseline):
        odd = ", ".join(sorted(types ^ set(baseline)))
        raise NsvitError(f"corruption types of records and baseline differ: {odd}")


def picture_scores(records: pd.DataFrame, *, normalised: Collection[str] = ()) -> pd.DataFrame:
    """Records reduced to one row per run x condition x picture.

    Args:
        records: records (columns model, arm, seed, round, condition, set, corruption, severity,
            sample, correct) of any number of runs.
        normalised: slugs of the conditions (metric `mce`) whose corruption errors are divided by
            `ALEXNET_ERRORS`, type by type; the errors of all others stay as they are.

    Returns:
        Frame with the columns of `KEYS` and set, picture, score, error; categories stay so, and
        pictures are sorted ones, as `resample` needs. Where `error` is true
        the score is an error, the weighted mean over all cells of the picture: its mean over
        pictures is `mean_corruption_error`. Else it is 1.0 for correct, 0.0 for wrong.

    Raises:
        NsvitError: a cell lacks pictures that other cells of the run have, or a normalised
            condition has other corruption types than AlexNet's errors.
    """
    import pandas as pd

    corrupted = (records["corruption"] != "").to_numpy(dtype=bool)
    plain, cells = records.loc[~corrupted], records.loc[corrupted]
    scores = [1.0 * plain["correct"].to_numpy(dtype=bool)]
    places, names = _coded(plain["sample"])
    inner, inner_names = _pictures(cells)
    columns = ["corruption", "severity", "correct"]
    parts = cells[[*KEYS, "set", *columns]].assign(picture=inner, row=np.arange(len(cells)))
    firsts, inside = [np.empty(0, np.intp)], []
    for key, part in parts.groupby([*KEYS, "set"], sort=False, observed=True):
        named = dict(zip([*KEYS, "set"], key, strict=True))
        baseline = ALEXNET_ERRORS if named["condition"] in normalised else None
        pictures, errors = _error_per_picture(part, baseline, " ".join(map(str, key)))
        scores.append(errors)
        inside.append(pictures + len(names))
        firsts.append(np.full(len(errors), part["row"].iloc[0]))
    runs = pd.concat([plain, cells.iloc[np.concatenate(firsts)]], ignore_index=True)
    coded, known = pd.factorize(np.concatenate([names, inner_names]), sort=True)
    numbers = coded[np.concatenate([places, *inside])]
    return runs[[*KEYS, "set"]].assign(
        picture=pd.Categorical.from_codes(numbers, dtype=pd.CategoricalDtype(list(known))),
        score=np.concatenate(scores),
        error=np.arange(len(runs)) >= len(plain),
    )


def _error_per_picture(
    part: pd.DataFrame, baseline: Mapping[str, float] | None, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) and weighted mean errors (n,) of the pictures of one run on one set."""
    import pandas as pd

    corruption_codes, types = _coded(part["corruption"])
    severity_codes, severities = pd.factorize(part["severity"])
    picture_codes, pictures = pd.factorize(part["picture"].to_numpy())
    shape = (len(pictures), len(types), len(severities))
    flat = np.ravel_multi_index((picture_codes, corruption_codes, severity_codes), shape)
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
    used = counts.any(axis=0)  # a type may lack a severity, in every picture alike
    if not np.array_equal(counts, np.broadcast_to(used, shape)):
        _, t, s = np.argwhere(counts != used)[0]
        raise NsvitError(
            f"{name}: {types[t]} severity {severities[s]} has other pictures than the other "
            f"corruptions (or some twice); evaluate the run again"
        )
    _check_baseline(set(types), baseline)
    wrong = 1.0 - part["correct"].to_numpy(dtype=float)
    errors = np.bincount(flat, weights=wrong, minlength=int(np.prod(shape))).reshape(shape)
    by_type = errors.sum(axis=2) / used.sum(axis=1)
    if baseline is not None:
        by_type = by_type / np.array([baseline[name] for name in types])
    return pictures, by_type.mean(axis=1)


def _pictures(cells: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows,) and names of the pictures: paths without <corruption>/<severity>/."""
    import pandas as pd

    codes, samples = _coded(cells["sample"])
    firsts = np.empty(len(samples), dtype=np.intp)
    firsts[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal ones the first stays
    heads = cells["corruption"].iloc[firsts].astype(object)
    levels = cells["severity"].iloc[firsts]
    names = [
        sample.removeprefix(f"{head}/{level}/")
        for sample, head, level in zip(samples, heads, levels, strict=True)
    ]
    inner, pictures = pd.factorize(np.array(names, dtype=object))
    return inner[codes], np.asarray(pictures, dtype=object)


def _coded(texts: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows,) of texts and the texts that occur, in order of first occurrence."""
    import pandas as pd

    codes, found = pd.factorize(texts)
    return codes, np.asarray(found, dtype=object)
