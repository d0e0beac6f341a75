"""A finetuning's history: one row for each round, and which round is the result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nsvit import artifacts, distributed, rounds
from nsvit.losses import ADVERSARIAL
from nsvit.noise import Noise
from nsvit.rounds import Row, Unfinished

if TYPE_CHECKING:
    from nsvit.specs import FinetuneSpec

log = logging.getLogger(__name__)


def empty_row(number: int, step: int) -> Row:
    """A history row with everything unknown that only a trained round has."""
    trained = ("loss_clean", "loss_noisy", "noise_norm", "noise_steps", "noise_distance")
    rest = ("epsilon_met", "noise_seconds", "train_seconds", "attack_seconds")
    return {
        "round": number,
        "step": step,
        "dev_accuracy": None,
        "dev_loss": None,
        **dict.fromkeys((*trained, *rest)),
    }


def finished_row(now: Unfinished, spec: FinetuneSpec, out: Path) -> Row:
    """The row of a round whose steps are done, without dev numbers; its noise is kept."""
    steps = spec.finetune.steps
    row = empty_row(now.number, now.number * steps)
    row |= {"loss_clean": float(now.summed[0]) / steps, "loss_noisy": float(now.summed[1]) / steps}
    row |= {"noise_seconds": now.noise_seconds, "train_seconds": now.train_seconds}
    if spec.kind in ADVERSARIAL:
        row["attack_seconds"] = now.attack_seconds
    if now.noise is not None:
        row |= _keep_noise(now.noise, spec, rounds.folder(out, now.number) / "noise.safetensors")
    return row


def _keep_noise(noise: Noise, spec: FinetuneSpec, path: Path) -> Row:
    """Writes a round's noise; returns what its row says of it."""
    sidecar = artifacts.provenance("noise", spec.model_dump(mode="json"), seed=spec.seed)
    distributed.on_main(lambda: noise.save(path, sidecar))
    return {
        "noise_norm": noise.norm,
        "noise_steps": noise.steps,
        "noise_distance": noise.distance,
        "epsilon_met": noise.epsilon_met,
    }


def select(history: list[Row], how: str) -> int:
    """The round whose weights are the result: the last, or the best on dev.

    Round 0, the start, is a candidate too; ties go to the earlier round.
    """
    if how == "last":
        return int(history[-1]["round"])
    return int(max(history, key=lambda row: (row["dev_accuracy"], -row["round"]))["round"])


def log_round(spec: FinetuneSpec, row: Row) -> None:
    """Says what a round came to, in one line."""
    text = f"{spec.model} {spec.arm} seed {spec.seed}: round {row['round']}/{spec.finetune.rounds}"
    text += f", dev accuracy {row['dev_accuracy']:.3f}, dev loss {row['dev_loss']:.3f}"
    if row["loss_clean"] is not None:
        text += f", train loss {row['loss_clean']:.3f} + {row['loss_noisy']:.3f}"
    if row["noise_norm"] is not None:
        met = "met" if row["epsilon_met"] else "not met"
        text += f", noise norm {row['noise_norm']:.1f} in {row['noise_steps']} steps"
        text += f" (epsilon {met}), {row['noise_seconds']:.1f} s"
    if row["train_seconds"] is not None:
        text += f" + {row['train_seconds']:.1f} s"
    if row["attack_seconds"] is not None:
        text += f", {row['attack_seconds']:.1f} s of them for the attack"
    log.info("%s", text)
