"""Robust accuracy as a condition of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd


def add_robust(scores: pd.DataFrame, robust: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Scores with a derived condition for each named set: right under every one of its members.

    Args:
        scores: from `picture_scores`.
        robust: name of the derived condition -> its members, accuracies on the same pictures.

    Returns:
        The scores, and for every run that has all members of a set one more row per picture.

    Raises:
        NsvitError: members of a set were evaluated on different pictures.
    """
    import pandas as pd

    run = ["model", "arm", "seed", "round"]
    parts = [scores]
    for name, members in robust.items():
        wanted = scores[scores["condition"].isin(list(members))]
        for key, part in wanted.groupby(run, sort=False, observed=True):
            if part["condition"].nunique() < len(set(members)):
                continue
            pictures = part.groupby("picture", sort=False)["score"]
            if (pictures.size() != len(set(members))).any():
                raise NsvitError(
                    f"{' '.join(map(str, key))}: the conditions of {name!r} were evaluated on "
                    "different pictures; give them the same `images`"
                )
            worst = pictures.min().reset_index()
            named = {**dict(zip(run, key, strict=True)), "condition": name}
            for column, value in {**named, "set": part["set"].iloc[0], "error": False}.items():
                worst[column] = value
            parts.append(worst)
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else scores
