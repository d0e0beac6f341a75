"""How often attacks succeed, among the pictures that are right without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import statistics
from nsvit.config import clean_on
from nsvit.errors import NsvitError
from nsvit.records import COLUMNS, read_records
from nsvit.specs import TableSpec, of_everything
from nsvit.statistics import Estimate
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import doubted_cells
from nsvit.tables.accuracy_notes import DOUBTED, doubt_notes
from nsvit.tables.paired import MOST_DOUBTS
from nsvit.tables.sheet import GAP, NOT_ASKED, Cell, Part, Sheet, half_width, number

if TYPE_CHECKING:
    import pandas as pd

#: Fixed decimals of the csv; per cent, and the unit of the distance.
DECIMALS = {"value": 2, "low": 2, "high": 2, "distance": 4}
_COLUMNS = ["model", "method", "column", "clean", "value", "low", "high", "n", "seeds"]
_COLUMNS += ["norm", "distance", "doubts"]


def table_attacks(
    records: pd.DataFrame | Sequence[str | Path], spec: TableSpec, doubts: Sequence[Doubt] = ()
) -> pd.DataFrame:
    """The share of right pictures that every attack makes wrong, long, in per cent.

    Args:
        records: records of finished runs, or the files they are in.
        spec: models, arms, conditions, and how to make intervals.
        doubts: of these records.

    Returns:
        Columns model, method, column (the attack), clean (the condition without it), value, low,
        high, n (pictures that are right without the attack, all seeds together), seeds, norm,
        distance (median over pictures that the attack makes wrong), doubts. Attacks without a
        clean condition on the same pictures are left out; where nothing was evaluated value is
        NaN.

    Raises:
        NsvitError: a file is missing or half-written, or an attacked picture is not among the
            clean ones.
    """
    import pandas as pd

    pairs = clean_conditions(spec)
    runs = _runs(records, {*pairs, *pairs.values()}) if pairs else {}
    doubted = doubted_cells(doubts, of_everything(spec))
    rows = [
        {
            "model": model,
            "method": arm,
            "column": attack,
            "clean": clean,
            **_success(runs.get((model, arm), {}), clean, attack, spec, (model, arm)),
            "doubts": doubted.get((model, arm, attack), 0),
        }
        for model in spec.models
        for arm in spec.arms_of(model)
        for attack, clean in pairs.items()
        if spec.is_asked(model, arm, attack) and spec.is_asked(model, arm, clean)
    ]
    numbers = dict.fromkeys(("value", "low", "high", "distance"), float)
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"n": "Int64", "seeds": "Int64", **numbers})


def clean_conditions(spec: TableSpec) -> dict[str, str]:
    """Every attack with the condition without it on the same pictures."""
    found = {
        slug: clean_on(spec.conditions, one)
        for slug, one in spec.conditions.items()
        if one.attack is not None
    }
    return {slug: clean for slug, clean in found.items() if clean is not None}


def _runs(
    records: pd.DataFrame | Sequence[str | Path], conditions: set[str]
) -> dict[tuple[str, str], dict[int, pd.DataFrame]]:
    """(model, arm) -> seed -> rows of finished runs."""
    import pandas as pd

    if not isinstance(records, pd.DataFrame):
        columns = (*COLUMNS, "norm", "distance")
        records = read_records(records, columns, conditions=conditions)
    records = records[(records["round"] == -1) & records["condition"].isin(list(conditions))]
    runs: dict[tuple[str, str], dict[int, pd.DataFrame]] = {}
    for key, own in records.groupby(["model", "arm", "seed"], observed=True):
        model, arm, seed = map(str, key)  # type: ignore[call-overload]
        runs.setdefault((model, arm), {})[int(seed)] = own
    return runs


def _success(
    runs: dict[int, pd.DataFrame], clean: str, attack: str, spec: TableSpec, row: tuple[str, str]
) -> dict[str, Any]:
    """The numbers of one cell."""
    whole = {
        seed: own
        for seed, own in sorted(runs.items())
        if {clean, attack} <= {str(slug) for slug in own["condition"].unique()}
    }
    if not whole:
        return {}
    right, broken = zip(*(_pictures(own, clean, attack) for own in whole.values()), strict=True)
    if not np.concatenate(right).any():
        return {"n": 0, "seeds": len(whole)}
    if len(whole) == 1:
        found = statistics.attack_success(
            next(iter(whole.values())), clean, attack, spec.statistics.confidence
        )
    else:
        found = _over_seeds(np.array(right), np.array(broken), spec, (*row, attack))
    shares = {key: round(100.0 * getattr(found, key), 2) for key in ("value", "low", "high")}
    far = _distances(whole.values(), clean, attack)
    return {**shares, "n": found.n, "seeds": len(whole), **far}


def _pictures(
    own: pd.DataFrame, clean: str, attack: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(n,) of the attacked pictures of a run, in order: right before, and wrong after as well."""
    before, after = (
        own[own["condition"] == slug].set_index("sample")["correct"] for slug in (clean, attack)
    )
    after = after.sort_index()
    right = before.reindex(after.index)
    if right.isna().any() or before.index.has_duplicates:
        raise NsvitError(
            f"attack success: {attack!r} has pictures that {clean!r} was not evaluated on once"
        )
    ok = right.to_numpy(dtype=bool)
    return ok, ok & ~after.to_numpy(dtype=bool)


def _over_seeds(
    right: np.ndarray[Any, Any],
    broken: np.ndarray[Any, Any],
    spec: TableSpec,
    cell: tuple[str, str, str],
) -> Estimate:
    """Success of several seeds together; seeds resampled, then pictures, the same for all seeds.

    Args:
        right: (S, n).
        broken: (S, n).
        spec: how to make intervals.
        cell: model, arm and attack.
    """
    s, seeds = spec.statistics, len(right)
    draw = "pictures", spec.conditions[cell[2]].set
    means = statistics.bootstrap_means(
        np.concatenate([broken, right]).T.astype(float), s.resamples, s.seed, *draw
    )
    weights = statistics.seed_weights(seeds, s.resamples, s.seed, "seeds", *cell[:2])
    with np.errstate(invalid="ignore"):
        shares = (means[:, :seeds] * weights).sum(1) / (means[:, seeds:] * weights).sum(1)
    low, high = statistics.percentiles(shares, s.confidence)
    return Estimate(float(broken.sum() / right.sum()), low, high, int(right.sum()), seeds)


def _distances(runs: Any, clean: str, attack: str) -> dict[str, Any]:
    """The norm of an attack and the median size of its successes; nothing where not recorded."""
    sizes, norm = [], ""
    for own in runs:
        if "distance" not in own:
            return {}
        right = own.loc[(own["condition"] == clean) & own["correct"], "sample"].astype(str)
        mine = own[(own["condition"] == attack) & ~own["correct"]]
        sizes.append(mine.loc[mine["sample"].astype(str).isin(set(right)), "distance"])
        norm = str(mine["norm"].iloc[0]) if len(mine) else norm
    found = np.concatenate([one.to_numpy(dtype=float) for one in sizes])
    return {"norm": norm, "distance": float(np.median(found)) if len(found) else None}


# --- to read --------------------------------------------------------------------------------


def attacks_sheet(frame: pd.DataFrame, spec: TableSpec, doubts: Sequence[Doubt] = ()) -> Sheet:
    """The table to read: a part for each model, attacks down, arms across.

    Args:
        frame: from `table_attacks`.
        spec: the same spec.
        doubts: the same doubts, for the notes.
    """
    parts = []
    for model, part in frame.groupby("model", sort=False):
        arms = spec.arms_of(str(model))
        cells = {(row["method"], row["column"]): row for row in part.to_dict("records")}
        rows = [
            (Cell(spec.conditions[slug].label), *(_cell(cells.get((arm, slug))) for arm in arms))
            for slug in part["column"].unique()
        ]
        header = ("Attack", *(spec.arms[arm].label for arm in arms))
        parts.append(Part(spec.models[str(model)].label, tuple(rows), header))
    notes = [
        "The share of the pictures that are right without the attack and wrong with it, all seeds "
        f"together. ±: the larger half of the {100 * spec.statistics.confidence:g} % interval "
        "(both ends are in the csv): Wilson for a single run, else percentile bootstrap over "
        "pictures and seeds. A less accurate model has fewer pictures to break: n is in the csv, "
        "with the median size of the successes.",
        f"{NOT_ASKED}: not evaluated there, by configuration. {GAP}: no records, or no picture is "
        "right without the attack.",
    ]
    if not parts:
        notes.append("No attack has a condition without it on the same pictures.")
    notes += doubt_notes(doubts, of_everything(spec), MOST_DOUBTS)
    return Sheet("Success of attacks, in per cent", ("Attack",), tuple(parts), tuple(notes))


def _cell(row: dict[Any, Any] | None) -> Cell:
    if row is None:
        return Cell(NOT_ASKED)
    width = half_width(row["value"], row["low"], row["high"])
    return Cell(number(row["value"]), width, mark=DOUBTED if row["doubts"] else "")
