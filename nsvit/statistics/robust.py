"""Several attacks at once: attack success, and robust accuracy as a condition of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsvit.errors import NsvitError
from nsvit.statistics.bootstrap import Estimate
from nsvit.statistics.proportions import wilson_interval

if TYPE_CHECKING:
    import pandas as pd

#: What belongs to one run.
RUN = ["model", "arm", "seed", "round"]


def attack_success(
    records: pd.DataFrame, clean: str, attacked: str, confidence: float = 0.95
) -> Estimate:
    """The share of pictures right under `clean` that the attack makes wrong.

    The attack may have been run on some of the clean pictures only; those it left out do not
    count.

    Args:
        records: records of one run, with columns condition, sample, correct.
        clean: slug of the condition without the attack.
        attacked: slug of the condition with it.
        confidence: of the Wilson interval.

    Returns:
        Share, interval, and as `n` the number of attacked pictures that are right when clean.

    Raises:
        NsvitError: a condition is absent or has a picture twice (several runs), an attacked
            picture is not among the clean ones, or none of them is right when clean.
    """
    right, broken = (_correct(records, condition) for condition in (clean, attacked))
    absent = [sample for sample in broken if sample not in right]
    if absent:
        raise NsvitError(
            f"attack success: {attacked!r} has {absent[0]}, which {clean!r} was not evaluated on "
            f"({len(absent)} such pictures)"
        )
    counted = [not ok for sample, ok in broken.items() if right[sample]]
    if not counted:
        raise NsvitError(
            f"attack success: no picture of {attacked!r} is right under {clean!r}, so that the "
            "attack has nothing to break"
        )
    low, high = wilson_interval(sum(counted), len(counted), confidence)
    return Estimate(sum(counted) / len(counted), low, high, len(counted), 1)


def _correct(records: pd.DataFrame, condition: str) -> dict[str, bool]:
    part = records.loc[records["condition"] == condition]
    found = dict(zip(part["sample"].astype(str), part["correct"].to_numpy(dtype=bool), strict=True))
    if not found:
        raise NsvitError(f"attack success: the records have no condition {condition!r}")
    if len(found) != len(part):
        raise NsvitError(f"attack success: pictures of {condition!r} occur more than once")
    return found


def add_robust(
    scores: pd.DataFrame,
    robust: Mapping[str, Sequence[str]],
    images: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Scores with robust accuracies added as conditions: 1 where right under every member.

    They are resampled, compared and put into tables like any other condition. A run that was not
    evaluated under all members of a robust set gets no rows of it. Where members are run on some
    of the pictures by configuration, the set is about those of the smallest; any other picture
    that a member lacks is an error.

    Args:
        scores: from `picture_scores`.
        robust: slug of the new condition -> its members.
        images: how many pictures a condition is run on at most; conditions not in it on all.

    Returns:
        A new frame: the rows of `scores`, then those of the robust sets.

    Raises:
        NsvitError: a slug is taken, a member is an error, or a member lacks pictures of another
            that the configuration does not leave out.
    """
    import pandas as pd

    taken = {str(name) for name in scores["condition"].unique()}
    parts = [scores]
    for name, members in robust.items():
        if name in taken:
            raise NsvitError(f"robust set {name!r}: there is a condition of that name")
        rows = scores[scores["condition"].isin(list(members))]
        if rows["error"].any():
            raise NsvitError(f"robust set {name!r}: corruption errors have no robust accuracy")
        for run, own in rows.groupby(RUN, sort=False, observed=True):
            if own["condition"].nunique() == len(set(members)):
                where = "{}, {}, seed {}".format(*run)  # type: ignore[misc]
                keys = dict(zip(RUN, run, strict=True))
                parts.append(_worst(own, f"robust set {name!r}: {where}", keys, name, images or {}))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else scores.copy()


def _worst(
    own: pd.DataFrame,
    where: str,
    keys: Mapping[str, object],
    name: str,
    images: Mapping[str, int],
) -> pd.DataFrame:
    """The rows of one robust set of one run."""
    import pandas as pd

    plain = own.astype({"condition": str, "picture": str, "set": str})
    if plain.duplicated(["condition", "picture"]).any():
        raise NsvitError(f"{where}: some pictures occur twice; were the same records given twice?")
    table = plain.pivot(index="picture", columns="condition", values="score")
    limits = {str(c): images.get(str(c), len(table)) for c in table.columns}
    largest = max(limits.values())
    whole = len(table) if largest >= len(table) else largest
    sizes = table.notna().sum()
    short = [c for c, limit in limits.items() if sizes[c] != min(limit, whole)]
    table = table.dropna()
    if short or len(table) != int(sizes.min()) or plain["set"].nunique() > 1:
        named = ", ".join(f"{c} ({n})" for c, n in sizes.items())
        raise NsvitError(
            f"{where}: its conditions have different pictures: {named}; give them the same `set`, "
            "and evaluate them again with one config"
        )
    return pd.DataFrame({
        **keys,
        "condition": name,
        "set": plain["set"].iloc[0],
        "picture": table.index.to_numpy(dtype=object),
        "score": table.min(axis=1).to_numpy(dtype=float),
        "error": False,
    })  # fmt: skip
