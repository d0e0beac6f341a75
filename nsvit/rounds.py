"""The rounds of a finetuning on disk, so that a run that was stopped goes on where it was.

A round is finished when its `state.json` is there; that file is written last and holds the
hashes of the round's other files. The optimiser's state is kept for the last two rounds: if the
last checkpoint is damaged, the run goes on from the one before, and still ends bit for bit as
if nothing had happened. Within a round there are snapshots (`nsvit.snapshots`): of the noise while
it is learned, and of everything once steps are done. No random state is in any of them: batches,
augmentation, noise, attacks and drop path are functions of (seed, round, step) (`nsvit.draws`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsvit import artifacts
from nsvit.averaging import Average
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, load_weights, save_model
from nsvit.noise import Noise
from nsvit.snapshots import (
    Snapshots,
    State,
    below,
    load_optimizer,
    optimizer_tensors,
    prefixed,
    read_checked,
    write_checked,
)

log = logging.getLogger(__name__)

Row = dict[str, Any]


def folder(out: Path, number: int) -> Path:
    """The folder of a round."""
    return out / "rounds" / str(number)


def checkpoint(out: Path, number: int) -> Path:
    """The weights after a round; round 0 is the start."""
    return folder(out, number) / "model.safetensors"


def save(
    out: Path,
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    history: list[Row],
    made_from: str,
    sidecar: Mapping[str, Any],
    raw: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the last round of `history`: weights, then optimiser, then what makes it count.

    Where the model holds a moving average, `raw` are the weights that training goes on from.
    """
    number = int(history[-1]["round"])
    here = folder(out, number)
    (here / "state.json").unlink(missing_ok=True)
    save_model(model, checkpoint(out, number), {**sidecar, "metrics": history[-1]})
    tensors = optimizer_tensors(optimizer) | prefixed("raw", raw or {})
    hashed = artifacts.sha256(checkpoint(out, number))
    state = {"made_from": made_from, "history": history, "model_sha256": hashed}
    write_checked(here / "state.safetensors", tensors, state)
    _forget(folder(out, number - 2))


def restore(
    out: Path,
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    made_from: str,
    average: Average,
) -> list[Row]:
    """Puts model, optimiser and moving average where the last whole round left them.

    Rounds of other settings or other starting weights are deleted, so that `out` never mixes
    two runs; so is what a killed process left half-written.

    Returns:
        The history up to that round; empty if the run starts from the beginning.
    """
    for here in (out, *(out / "rounds").glob("*")):
        artifacts.sweep(here)
    found = sorted(
        (int(path.parent.name) for path in (out / "rounds").glob("*/state.json")), reverse=True
    )
    for number in found:
        try:
            return _load(out, number, model, optimizer, made_from, average)
        except NsvitError as problem:
            log.warning("%s: not continued from round %d: %s", out, number, problem)
    shutil.rmtree(out / "rounds", ignore_errors=True)
    return []


def _load(
    out: Path,
    number: int,
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    made_from: str,
    average: Average,
) -> list[Row]:
    tensors, state = read_checked(folder(out, number) / "state.safetensors")
    if state["made_from"] != made_from:
        raise NsvitError("it was made with other settings, weights or pictures")
    path = checkpoint(out, number)
    if not path.exists() or artifacts.sha256(path) != state["model_sha256"]:
        raise NsvitError(f"{path} is damaged")
    load_checkpoint(out, number, model)
    raw = below("raw", tensors)
    load_optimizer(optimizer, {k: v for k, v in tensors.items() if not k.startswith("raw.")})
    average.go_on(raw)
    return list(state["history"])


def load_checkpoint(out: Path, number: int, model: PixelModel) -> None:
    """Puts the weights after a round into the model."""
    path = checkpoint(out, number)
    weights, _ = artifacts.read_tensors(path, "model")
    load_weights(model, {name: torch.from_numpy(value) for name, value in weights.items()}, path)


def forget_states(out: Path) -> None:
    """Deletes the optimiser's states: the run is finished, and asked for again starts anew."""
    for path in (out / "rounds").glob("*/state.json"):
        _forget(path.parent)


def _forget(here: Path) -> None:
    (here / "state.json").unlink(missing_ok=True)
    (here / "state.safetensors").unlink(missing_ok=True)


# --- a round that is not finished -----------------------------------------------------------


@dataclass
class Unfinished:
    """A round whose noise is there, and what its steps have come to.

    Attributes:
        number: of the round.
        noise: of the round; None for kinds without.
        done: steps done.
        summed: (2,) both terms of the loss, summed over these steps.
        noise_seconds: that learning the noise took.
        train_seconds: that the steps took, before and after interruptions.
        attack_seconds: the attacks' part of it.
        scaling: of losses in fp16; empty in other precisions.
    """

    number: int
    noise: Noise | None
    done: int = 0
    summed: Tensor = field(default_factory=lambda: torch.zeros(2))
    noise_seconds: float = 0.0
    train_seconds: float = 0.0
    attack_seconds: float = 0.0
    scaling: dict[str, Any] = field(default_factory=dict)

    def add(self, losses: Tensor, seconds: float, attacking: float) -> None:
        """Counts one more step: (2,) its losses, on the CPU, and its seconds."""
        self.done += 1
        self.summed += losses
        self.train_seconds += seconds
        self.attack_seconds += attacking

    def state(self, model: PixelModel, optimizer: torch.optim.Optimizer, average: Average) -> State:
        """What a snapshot of the round holds: all of it, weights, their average and optimiser."""
        facts = {name: value for name, value in vars(self).items() if name not in _TENSORS}
        tensors = {"summed": self.summed, **prefixed("model", model.net.state_dict())}
        tensors |= prefixed("optimizer", optimizer_tensors(optimizer))
        tensors |= prefixed("average", average.tensors())
        if self.noise is not None:
            tensors["noise"] = self.noise.tensor
            facts["noise"] = self.noise.facts()
        return tensors, facts


#: Fields of an unfinished round that JSON cannot hold.
_TENSORS = ("noise", "summed")


def go_on(
    snapshots: Snapshots,
    number: int,
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    average: Average,
) -> Unfinished | None:
    """Puts model, optimiser and average where the last snapshot of a round left them, if any.

    Args:
        snapshots: of the run; from here on of this round.
        number: of the round.
        model: as the round before left it.
        optimizer: likewise.
        average: likewise.
    """
    snapshots.part = f"round {number}"
    found = snapshots.load()
    if found is None:
        return None
    tensors, facts = found
    load_weights(model, below("model", tensors), f"snapshot of round {number}")
    load_optimizer(optimizer, below("optimizer", tensors))
    average.load(below("average", tensors))
    own = facts.pop("noise", None)
    noise = None if own is None else Noise(tensor=tensors["noise"].to(model.mean.device), **own)
    return Unfinished(noise=noise, summed=tensors["summed"], **facts)
