"""The rounds of a finetuning on disk, so that a run that was stopped goes on where it was.

A round is finished when its `state.json` is there; that file is written last and holds the
hashes of the round's other files. The optimiser's state is kept for the last two rounds: if the
last checkpoint is damaged, the run goes on from the one before, and still ends bit for bit as
if nothing had happened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsvit import artifacts
from nsvit.averaging import Average
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, load_weights, save_model

log = logging.getLogger(__name__)

Row = dict[str, Any]


def folder(out: Path, number: int) -> Path:
    """The folder of a round."""
    return out / "rounds" / str(number)


def checkpoint(out: Path, number: int) -> Path:
    """The weights after a round; round 0 is the start."""
    return folder(out, number) / "model.safetensors"


def fingerprint(model: PixelModel, **parts: Any) -> str:
    """A hash of the starting weights and of everything else a run depends on."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


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
    tensors = {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    tensors |= {f"raw.{name}": value for name, value in (raw or {}).items()}
    state = {
        "kind": "state",
        "schema_version": artifacts.SCHEMA_VERSION,
        "made_from": made_from,
        "history": history,
        "model_sha256": artifacts.sha256(checkpoint(out, number)),
    }
    artifacts.write_tensors(here / "state.safetensors", tensors, state)
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
    two runs.

    Returns:
        The history up to that round; empty if the run starts from the beginning.
    """
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
    tensors, state = artifacts.read_tensors(folder(out, number) / "state.safetensors", "state")
    if state["made_from"] != made_from:
        raise NsvitError("it was made with other settings, weights or pictures")
    path = checkpoint(out, number)
    if not path.exists() or artifacts.sha256(path) != state["model_sha256"]:
        raise NsvitError(f"{path} is damaged")
    load_checkpoint(out, number, model)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    raw: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        tensor = torch.from_numpy(value)
        if index == "raw":
            raw[name] = tensor
            continue
        moments.setdefault(int(index), {})[name] = tensor.reshape(()) if name == "step" else tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
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
