"""One row per run: which round, how good on dev, how the noise went, how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import artifacts
from nsvit.errors import NsvitError
from nsvit.specs import TableSpec
from nsvit.tables.sheet import GAP, Cell, Part, Sheet, number

if TYPE_CHECKING:
    import pandas as pd

#: Fixed decimals of the csv. Accuracies and epsilon_met are per cent.
DECIMALS = {
    "dev_start": 2,
    "dev_selected": 2,
    "noise_norm": 3,
    "noise_steps": 1,
    "epsilon_met": 1,
    "noise_seconds": 1,
    "train_seconds": 1,
}


def table_runs(paths: Sequence[str | Path], spec: TableSpec) -> pd.DataFrame:
    """The course and the cost of every run, from its history.json.

    Returns:
        Columns model, method, seed, rounds, selected, dev_start and dev_selected (dev accuracy,
        per cent), noise_norm (last round), noise_steps (mean per round), epsilon_met (per cent
        of rounds), noise_seconds, train_seconds (sums).

    Raises:
        NsvitError: a history is missing, damaged, of another kind or has no rounds.
    """
    import pandas as pd

    rows = []
    for path in paths:
        history = artifacts.read_json(path)
        artifacts.check_kind(history, "history", path)
        if not history.get("rounds"):
            raise NsvitError(f"{path}: no rounds; delete the run's folder and run again")
        rows.append(_row(history))
    models, arms = list(spec.models), list(spec.arms)
    rows.sort(key=lambda r: (_place(models, r["model"]), _place(arms, r["method"]), r["seed"]))
    return pd.DataFrame(rows)


def _place(order: list[str], slug: str) -> int:
    if slug not in order:
        raise NsvitError(f"a history names {slug!r}; the config has {', '.join(order)}")
    return order.index(slug)


def _row(history: dict[str, Any]) -> dict[str, Any]:
    rounds = history["rounds"]
    by_number = {row["round"]: row for row in rounds}
    norms = _known(rounds, "noise_norm")
    return {
        "model": history["spec"]["model"],
        "method": history["spec"]["arm"],
        "seed": history["spec"]["seed"],
        "rounds": max(by_number),
        "selected": history["selected"],
        "dev_start": 100.0 * rounds[0]["dev_accuracy"],
        "dev_selected": 100.0 * by_number[history["selected"]]["dev_accuracy"],
        "noise_norm": norms[-1] if norms else float("nan"),
        "noise_steps": _mean(_known(rounds, "noise_steps")),
        "epsilon_met": 100.0 * _mean(_known(rounds, "epsilon_met")),
        "noise_seconds": sum(_known(rounds, "noise_seconds")),
        "train_seconds": sum(_known(rounds, "train_seconds")),
    }


def _known(rounds: list[dict[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rounds if row.get(key) is not None]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def runs_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The runs to read: a part for each model."""
    header: tuple[str, ...] = (
        "Method",
        "Seed",
        "Rounds",
        "Selected",
        "Dev start",
        "Dev selected",
        "Noise norm",
    )
    header += ("Noise steps", "Within epsilon %", "Noise s", "Training s")
    parts = tuple(
        Part(
            spec.models[str(model)].label,
            tuple(_cells(row, spec) for row in part.to_dict("records")),
        )
        for model, part in frame.groupby("model", sort=False)
    )
    notes = (
        "Dev: accuracy in per cent on pictures held out of the training set; round 0 is the "
        "start. Noise norm: of the last round; steps: mean per round; within epsilon: share of "
        "rounds whose noise met it. Seconds are sums over rounds on the machine of this run.",
    )
    return Sheet("Runs", header, parts, notes)


def _cells(row: dict[Any, Any], spec: TableSpec) -> tuple[Cell, ...]:
    trained = row["rounds"] > 0
    return (
        Cell(spec.arms[row["method"]].label),
        *(Cell(str(row[name])) for name in ("seed", "rounds", "selected")),
        *(Cell(number(row[name])) for name in ("dev_start", "dev_selected", "noise_norm")),
        *(Cell(number(row[name], 0)) for name in ("noise_steps", "epsilon_met")),
        *(Cell(number(row[n]) if trained else GAP) for n in ("noise_seconds", "train_seconds")),
    )
