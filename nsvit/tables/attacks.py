"""How often attacks succeed, among the pictures that are right without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import statistics
from nsvit.config import clean_on
from nsvit.errors import NsvitError
from nsvit.records import COLUMNS, Paths, read_records
from nsvit.specs import TableSpec, of_everything
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import doubted_cells
from nsvit.tables.accuracy_notes import DOUBTED, doubt_notes
from nsvit.tables.paired import MOST_DOUBTS
from nsvit.tables.sheet import GAP, NOT_ASKED, Cell, Part, Sheet, half_width, number

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: Model, arm and attack.
Row = tuple[str, str, str]
#: Fixed decimals of the csv; per cent, and the unit of the distance.
DECIMALS = {"value": 2, "low": 2, "high": 2, "distance": 4}
_COLUMNS = ["model", "method", "column", "clean", "value", "low", "high", "n", "seeds"]
_COLUMNS += ["norm", "distance", "doubts"]


def table_attacks(
    records: pd.DataFrame | Paths, spec: TableSpec, doubts: Sequence[Doubt] = ()
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
    attacked = _attacked(records, spec, pairs) if pairs else {}
    doubted = doubted_cells(doubts, of_everything(spec))
    rows = [
        {
            "model": model,
            "method": arm,
            "column": attack,
            "clean": clean,
            **_success(attacked.get((model, arm, attack), []), spec),
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


@dataclass(frozen=True)
class Attacked:
    """One attack on one run.

    Attributes:
        row: model, arm and attack.
        right: (n,) whether a picture is right without the attack.
        broken: (n,) whether it is then wrong with it.
        distances: how far the broken pictures were moved; empty where that was not recorded.
        norm: of the distances.
    """

    row: Row
    right: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    distances: NDArray[np.float64]
    norm: str


def _attacked(
    records: pd.DataFrame | Paths, spec: TableSpec, pairs: Mapping[str, str]
) -> dict[Row, list[Attacked]]:
    """Every attack on the finished runs, by seed; those without the clean condition left out."""
    import pandas as pd

    wanted = {*pairs, *pairs.values()}
    if not isinstance(records, pd.DataFrame):
        records = read_records(records, (*COLUMNS, "norm", "distance"), conditions=wanted)
    records = records[(records["round"] == -1) & records["condition"].isin(list(wanted))]
    # Pictures as numbers, which are quicker to look up.
    records = records.assign(sample=records["sample"].astype("category").cat.codes)
    runs: dict[tuple[str, str, int], dict[str, pd.DataFrame]] = {}
    for key, own in records.groupby(["model", "arm", "seed", "condition"], observed=True):
        model, arm, seed, condition = map(str, key)  # type: ignore[call-overload]
        rows = own.set_index("sample").sort_index()
        runs.setdefault((model, arm, int(seed)), {})[condition] = rows
    found: dict[Row, list[Attacked]] = {}
    for (model, arm, _), run in sorted(runs.items()):
        for attack, clean in pairs.items():
            if {clean, attack} <= run.keys():
                row = model, arm, attack
                found.setdefault(row, []).append(_compared(run[clean], run[attack], row, clean))
    return found


def _compared(before: pd.DataFrame, after: pd.DataFrame, row: Row, clean: str) -> Attacked:
    right = before["correct"].reindex(after.index) if before.index.is_unique else None
    if right is None or right.isna().any() or not after.index.is_unique:
        raise NsvitError(
            f"attack success: {row[2]!r} has pictures that {clean!r} was not evaluated on once"
        )
    ok, wrong = right.to_numpy(dtype=bool), ~after["correct"].to_numpy(dtype=bool)
    if "distance" not in after:
        return Attacked(row, ok, ok & wrong, np.empty(0), "")
    distances = after["distance"].to_numpy(dtype=float)[ok & wrong]
    return Attacked(row, ok, ok & wrong, distances, str(after["norm"].iloc[0]))


def _success(runs: Sequence[Attacked], spec: TableSpec) -> dict[str, Any]:
    """The numbers of one cell."""
    if not runs:
        return {}
    right = sum(int(run.right.sum()) for run in runs)
    broken = sum(int(run.broken.sum()) for run in runs)
    if not right:
        return {"n": 0, "seeds": len(runs)}
    if len(runs) == 1:
        low, high = statistics.wilson_interval(broken, right, spec.statistics.confidence)
    else:
        low, high = _over_seeds(runs, spec)
    ends = {"value": broken / right, "low": low, "high": high}
    shares = {key: round(100.0 * value, 6) for key, value in ends.items()}
    return {**shares, "n": right, "seeds": len(runs), **_distance(runs)}


def _over_seeds(runs: Sequence[Attacked], spec: TableSpec) -> tuple[float, float]:
    """The interval of several seeds: seeds resampled, then pictures, the same for all seeds."""
    model, arm, attack = runs[0].row
    sizes = [len(run.right) for run in runs]
    if len(set(sizes)) > 1:
        raise NsvitError(
            f"{model}, {arm}, {attack}: seeds have different numbers of pictures "
            f"({', '.join(map(str, sizes))}); evaluate them again with one config"
        )
    s, seeds, pictures = spec.statistics, len(runs), spec.conditions[attack].set
    values = np.array([run.broken for run in runs] + [run.right for run in runs]).T.astype(float)
    means = statistics.bootstrap_means(values, s.resamples, s.seed, "pictures", pictures)
    weights = statistics.seed_weights(seeds, s.resamples, s.seed, "seeds", model, arm)
    with np.errstate(invalid="ignore"):
        shares = (means[:, :seeds] * weights).sum(1) / (means[:, seeds:] * weights).sum(1)
    return statistics.percentiles(shares, s.confidence)


def _distance(runs: Sequence[Attacked]) -> dict[str, Any]:
    """The norm of an attack and the median size of its successes; nothing where not recorded."""
    norms = [run.norm for run in runs]
    if "" in norms:
        return {}
    found = np.concatenate([run.distances for run in runs])
    return {"norm": norms[0], "distance": float(np.median(found)) if len(found) else None}


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
