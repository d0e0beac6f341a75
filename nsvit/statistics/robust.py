"""Several attacks at once: robust accuracy as a condition of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd

#: What belongs to one run.
RUN = ["model", "arm", "seed", "round"]


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
    return _joined(parts)


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Scores and those of robust sets; what is categories in the first stays so."""
    import pandas as pd

    if len(parts) == 1:
        return parts[0].reset_index(drop=True)
    scores, added = parts[0], pd.concat(parts[1:], ignore_index=True)
    for column in scores.columns:
        if isinstance(scores[column].dtype, pd.CategoricalDtype):
            known = scores[column].cat.categories
            new = sorted({str(name) for name in added[column].unique()} - set(known))
            kind = pd.CategoricalDtype([*known, *new])
            if new:  # else they are of this kind already
                scores = scores.astype({column: kind})
            added = added.astype({column: kind})
    return pd.concat([scores, added], ignore_index=True)


def _worst(
    own: pd.DataFrame,
    where: str,
    keys: Mapping[str, object],
    name: str,
    images: Mapping[str, int],
) -> pd.DataFrame:
    """The rows of one robust set of one run."""
    import pandas as pd

    plain = own.astype({"condition": object, "picture": object, "set": object})
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
