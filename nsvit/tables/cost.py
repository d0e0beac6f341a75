"""One row per run: how good it was on dev, how the noise went, and what the run cost."""

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
    "attack_seconds": 1,
    "train_seconds": 1,
}
_HEADER = (
    *("Method", "Seed", "Round", "Dev", "Norm", "Steps", "In ε"),
    *("Noise n", "Noise s", "Train n", "Attack s", "Train s"),
)


def table_cost(paths: Sequence[str | Path], spec: TableSpec) -> pd.DataFrame:
    """The course and the cost of every run, from its history.json.

    Returns:
        Columns model, method, seed, rounds, selected, dev_start and dev_selected (dev accuracy,
        per cent), noise_norm (last round), noise_steps (mean per round), noise_rounds (rounds
        with noise), epsilon_met (per cent of them), noise_pictures (pictures that noise was
        tested on, with repetition: batches are taken as full), noise_seconds, pictures (drawn
        for training, however often each is passed), attack_seconds (part of the training; NaN
        where histories lack it), train_seconds. Pictures and seconds are sums over rounds.

    Raises:
        NsvitError: a history is missing, damaged, of another kind, or has no rounds or settings.
    """
    import pandas as pd

    rows = []
    for path in paths:
        history = artifacts.read_json(path)
        artifacts.check_kind(history, "history", path)
        if not history.get("rounds"):
            raise NsvitError(f"{path}: no rounds; delete the run's folder and run again")
        try:
            rows.append(_row(history))
        except KeyError as error:
            raise NsvitError(f"{path}: no {error}; delete the run's folder and run again") from None
    models, arms = list(spec.models), list(spec.arms)
    rows.sort(key=lambda r: (_place(models, r["model"]), _place(arms, r["method"]), r["seed"]))
    return pd.DataFrame(rows)


def _place(order: list[str], slug: str) -> int:
    if slug not in order:
        raise NsvitError(f"a history names {slug!r}; the config has {', '.join(order)}")
    return order.index(slug)


def _row(history: dict[str, Any]) -> dict[str, Any]:
    rounds, settings = history["rounds"], history["spec"]["finetune"]
    by_number = {row["round"]: row for row in rounds}
    norms = _known(rounds, "noise_norm")
    attack = _known(rounds, "attack_seconds")
    # A step follows a failed test; the test that epsilon passes is followed by none.
    tests = sum(_known(rounds, "noise_steps")) + sum(_known(rounds, "epsilon_met"))
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
        "noise_rounds": len(norms),
        "epsilon_met": 100.0 * _mean(_known(rounds, "epsilon_met")),
        "noise_pictures": int(tests) * settings["noise"]["batch_size"],
        "noise_seconds": sum(_known(rounds, "noise_seconds")),
        "pictures": max(row["step"] for row in rounds) * settings["batch_size"],
        "attack_seconds": sum(attack) if attack else float("nan"),
        "train_seconds": sum(_known(rounds, "train_seconds")),
    }


def _known(rounds: list[dict[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rounds if row.get(key) is not None]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def cost_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The runs to read: a part for each model."""
    parts = tuple(
        Part(
            spec.models[str(model)].label,
            tuple(_cells(row, spec) for row in part.to_dict("records")),
        )
        for model, part in frame.groupby("model", sort=False)
    )
    notes = (
        "Round: the reported one, of how many. Dev: accuracy in per cent on pictures held out of "
        "the training set, start and reported round; no test set is looked at.",
        "Norm: of the last round's noise; steps: mean per round; in ε: rounds whose noise met "
        "epsilon, of those with noise. Noise n: pictures it was tested or learned on.",
        "Train n: pictures drawn for training; attack steps and second passes are not in it. "
        "Pictures and seconds are sums over rounds; seconds on this machine, whatever else it did. "
        "Attack s: part of the training; – where histories do not say.",
        "The paper reports no cost, so none stands beside these.",
    )
    return Sheet("Runs and what they cost", _HEADER, parts, notes)


def _cells(row: dict[Any, Any], spec: TableSpec) -> tuple[Cell, ...]:
    trained, noisy = row["rounds"] > 0, row["noise_rounds"] > 0
    met = round(row["noise_rounds"] * row["epsilon_met"] / 100) if noisy else 0
    dev = number(row["dev_start"])
    chosen = str(row["rounds"])
    if row["selected"] != row["rounds"]:
        chosen = f"{row['selected']} of {row['rounds']}"
    texts = (
        spec.arms[row["method"]].label,
        str(row["seed"]),
        chosen,
        f"{dev} → {number(row['dev_selected'])}" if trained else dev,
        number(row["noise_norm"]),
        number(row["noise_steps"], 0),
        f"{met} of {row['noise_rounds']}" if noisy else GAP,
        str(row["noise_pictures"]) if row["noise_pictures"] else GAP,
        number(row["noise_seconds"]) if noisy else GAP,
        str(row["pictures"]) if trained else GAP,
        number(row["attack_seconds"]) if row["attack_seconds"] else GAP,
        number(row["train_seconds"]) if trained else GAP,
    )
    return tuple(map(Cell, texts))
