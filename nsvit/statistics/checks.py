"""Doubts about results: what an evaluator should say when its number is not to be trusted.

Pure functions, free of torch: the records' take a frame, the others arrays. After auto-attack,
whose evaluator warns about itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: An attack of a larger number contains or outdoes those of smaller ones at no larger radius of
#: the same norm.
STRENGTH = {"fgsm": 0, "pgd": 1, "cw": 1, "autoattack": 2}

#: What comparing records can find, in the order in which it is told.
COMPARED = ("weaker_than_smaller", "rising_with_radius", "better_than_clean")

#: Contradictions of fewer samples are never told.
_FEWEST = 2

#: What belongs to one model on one set.
_RUN = ["model", "arm", "seed", "round", "set"]


#: How `where` names a run: as the checks of records write it, and as evaluation does.
_PLACES = (
    re.compile(
        r"(?P<model>\w+)/(?P<arm>\w+)/seed(?P<seed>\d+) round -?\d+ set (?P<set>\w+)"
        r"(?: (?P<condition>\w+))?"
    ),
    re.compile(
        r"model '(?P<model>\w+)' \(arm (?P<arm>\w+), seed (?P<seed>\d+)\) on set '(?P<set>\w+)'"
    ),
    re.compile(r"source model '(?P<source>\w+)' on set '(?P<set>\w+)'"),
)


@dataclass(frozen=True)
class Doubt:
    """One reason to distrust a result.

    Attributes:
        check: which check raised it (a slug).
        where: the run, set and condition, or what the caller named.
        text: what was found, for people.
    """

    check: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.check}]"

    @classmethod
    def parse(cls, stored: str | Mapping[str, Any]) -> Doubt:
        """The doubt that was stored as its text or as `as_dict`."""
        if not isinstance(stored, str):
            return cls(*(str(stored.get(key, "")) for key in ("check", "where", "text")))
        match = re.fullmatch(r"(.*?): (.*) \[(\w+)\]", stored, flags=re.DOTALL)
        return cls(match[3], match[1], match[2]) if match else cls("", "", stored)

    def as_dict(self) -> dict[str, str]:
        """Its fields, for JSON; `parse` reads them back."""
        return asdict(self)

    def place(self) -> Place | None:
        """What it is about, where `where` names a run or a source model."""
        for pattern in _PLACES:
            if match := pattern.fullmatch(self.where):
                found = match.groupdict()
                return Place(
                    model=found.get("model", ""),
                    arm=found.get("arm", ""),
                    seed=int(found.get("seed", -1)),
                    set=found["set"],
                    condition=found.get("condition") or "",
                    source=found.get("source", ""),
                )
        return None


@dataclass(frozen=True)
class Place:
    """The cell of a doubt; without a condition it is about every attack on the set.

    With a source model it is about the attacks on the set that follow it, of every run.
    """

    model: str
    arm: str
    seed: int
    set: str
    condition: str
    source: str = ""


def doubts(records: pd.DataFrame, tolerance: float = 0.005) -> list[Doubt]:
    """Every check that needs records only.

    Args:
        records: with the columns of `nsvit.scoring.COLUMNS`.
        tolerance: a fraction of the samples; contradictions of no more than that, or of a single
            sample, are left to chance.
    """
    return [
        *weaker_than_smaller(records, tolerance),
        *rising_with_radius(records, tolerance),
        *better_than_clean(records, tolerance),
    ]


def weaker_than_smaller(records: pd.DataFrame, tolerance: float = 0.005) -> list[Doubt]:
    """Conditions in which a stronger attack leaves a higher accuracy than a weaker one.

    Compared with attacks of the same norm and no larger radius, on the samples that both have; of
    several that it should outdo, the one that it falls behind most is named.
    """
    found = []
    for key, run in _runs(records):
        for _, same in run.groupby("norm", observed=True):
            sizes = _radii(same)
            every = _conditions(same)
            for strong, strong_name, strong_correct in every:
                behind = [
                    (_excess(strong_correct, correct, tolerance), name, weak)
                    for weak, name, correct in every
                    if STRENGTH[name] < STRENGTH[strong_name] and sizes[weak] <= sizes[strong]
                ]
                excess, name, weak = max(behind, default=(0.0, "", ""))
                if excess:
                    where = "the same radius" if sizes[weak] == sizes[strong] else "a smaller one"
                    text = (
                        f"{strong_name} ({strong}) leaves {100 * excess:.1f} points more accuracy "
                        f"than {name} ({weak}) at {where}: too few steps, or gradients that mislead"
                    )
                    found.append(Doubt("weaker_than_smaller", f"{key} {strong}", text))
    return found


def _radii(records: pd.DataFrame) -> dict[str, float]:
    """The radius of every condition."""
    return {
        str(slug): radius_number(str(rows["radius"].iloc[0]))
        for slug, rows in records.groupby("condition", observed=True)
    }


def rising_with_radius(records: pd.DataFrame, tolerance: float = 0.005) -> list[Doubt]:
    """Conditions in which an attack leaves a higher accuracy than the same one at less radius."""
    found = []
    for key, run in _runs(records, ranked=False):
        for (attack, _), same in run.groupby(["attack", "norm"], observed=True):
            sizes = _radii(same)
            bounded = [one for one in _conditions(same) if np.isfinite(sizes[one[0]])]
            ordered = sorted(bounded, key=lambda one: sizes[one[0]])
            for (small, _, small_correct), (large, _, large_correct) in pairwise(ordered):
                excess = _excess(large_correct, small_correct, tolerance)
                if sizes[large] > sizes[small] and excess:
                    text = (
                        f"{attack} leaves {100 * excess:.1f} points more accuracy than at the "
                        f"smaller radius of {small}: the step overshoots, or gradients mislead"
                    )
                    found.append(Doubt("rising_with_radius", f"{key} {large}", text))
    return found


def better_than_clean(records: pd.DataFrame, tolerance: float = 0.005) -> list[Doubt]:
    """Conditions in which an attack leaves a higher accuracy than there is without it.

    Compared with the conditions without an attack that have all of its samples; with several, such
    as one among all classes, it has to be better than each.
    """
    clean = dict(_named(records[records["attack"].astype(str) == ""]))
    found = []
    for key, run in _runs(records, ranked=False):
        without = _conditions(clean[key]) if key in clean else []
        for slug, attack, correct in _conditions(run):
            before = [own for *_, own in without if correct.index.isin(own.index).all()]
            excess = min((_excess(correct, own, tolerance) for own in before), default=0.0)
            if excess:
                text = (
                    f"{attack} leaves {100 * excess:.1f} points more accuracy than no attack: "
                    "gradients mislead, or it follows a model that errs elsewhere"
                )
                found.append(Doubt("better_than_clean", f"{key} {slug}", text))
    return found


def radius_number(radius: str) -> float:
    """The radius of a record as a number: "k/255" or pixel units; infinite if there is none."""
    if not radius:
        return float("inf")
    top, _, bottom = radius.partition("/")
    return float(top) / float(bottom or 1)


def zero_gradients(gradient: np.ndarray, where: str) -> list[Doubt]:
    """Pictures whose whole gradient is zero or not a number: an attack that follows it stands.

    Args:
        gradient: (B, ...) of the loss with respect to the pixels.
        where: named in the doubt.
    """
    flat = np.asarray(gradient).reshape(len(gradient), -1)
    dead = int((~np.isfinite(flat).all(1) | (flat == 0).all(1)).sum())
    if not dead:
        return []
    text = f"{dead} of {len(flat)} pictures have no gradient: gradient attacks cannot move them"
    return [Doubt("zero_gradients", where, text)]


def probabilities(logits: np.ndarray, where: str, tolerance: float = 1e-5) -> list[Doubt]:
    """Outputs that look like probabilities: losses on logits would be taken twice through softmax.

    Args:
        logits: (B, classes).
        where: named in the doubt.
        tolerance: how far the sum of a row may be from 1.
    """
    values = np.where(np.isneginf(logits), 0.0, np.asarray(logits, dtype=np.float64))
    inside = (values >= -tolerance).all() and (values <= 1 + tolerance).all()
    if not len(values) or not inside or np.abs(values.sum(1) - 1).max() > tolerance:
        return []
    text = "the outputs are probabilities, not logits: gradients vanish where the model is sure"
    return [Doubt("probabilities", where, text)]


def random_forward(
    first: np.ndarray, second: np.ndarray, where: str, tolerance: float = 1e-4
) -> list[Doubt]:
    """Two passes over the same pictures that differ: a gradient is then one draw of many.

    Args:
        first: (B, classes) logits.
        second: (B, classes) logits of the same pictures.
        where: named in the doubt.
        tolerance: relative to the largest finite logit.
    """
    usable = np.isfinite(first) & np.isfinite(second)
    if not usable.any():
        return []
    size = max(float(np.abs(first[usable]).max()), 1e-12)
    difference = float(np.abs(first[usable] - second[usable]).max()) / size
    if difference <= tolerance:
        return []
    text = f"two passes over the same pictures differ by {difference:.1e} of the largest logit"
    return [Doubt("random_forward", where, text)]


def _runs(records: pd.DataFrame, ranked: bool = True) -> list[tuple[str, pd.DataFrame]]:
    """The attacked rows of each run and set, under a readable name."""
    attacked = records[records["attack"].astype(str) != ""]
    if ranked:
        attacked = attacked[attacked["attack"].astype(str).isin(STRENGTH)]
    return _named(attacked)


def _named(records: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each run and set, under a readable name."""
    if not len(records):
        return []
    groups = records.groupby(_RUN, observed=True, sort=False)
    return [
        ("{}/{}/seed{} round {} set {}".format(*key), rows)  # type: ignore[misc]
        for key, rows in groups
    ]


def _conditions(rows: pd.DataFrame) -> list[tuple[str, str, pd.Series]]:
    """Slug, attack and correctness by sample of each condition."""
    return [
        (str(slug), str(part["attack"].iloc[0]), part.set_index("sample")["correct"])
        for slug, part in rows.groupby("condition", observed=True, sort=False)
    ]


def _excess(stronger: pd.Series, weaker: pd.Series, tolerance: float) -> float:
    """By how much the first is more accurate on common samples; 0 where chance may have done it.

    Counted in samples: one more is chance whatever its fraction is, and no fraction is rounded.
    """
    common = stronger.index.intersection(weaker.index)
    more = int(stronger.loc[common].sum()) - int(weaker.loc[common].sum())
    # The allowance only matters where the tolerance is a whole number of samples.
    if more < _FEWEST or more <= tolerance * len(common) + 1e-6:
        return 0.0
    return more / len(common)
