"""Finetuning: one loop for every arm, whose losses are in `nsvit.losses` (METHOD.md section 5).

Differs from the paper's code:

- a fixed number of steps per round (it ran one more than it said), and the cosine restarts per
  step in each round (its schedule hardly moved);
- noise is learned on pictures with the evaluation transform, a fresh seeded choice each round
  (it used augmented pictures, the same ones every round);
- both terms of the loss come from one forward pass in one precision, so that all arms do the
  same work; the arm `plain` adds zeros where the others add noise, and adversarial training
  attacks the same augmented pictures;
- a dev split from the training set with the evaluation transform; nothing is ever chosen on a
  test set (it kept the best round on the mean of the test sets).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from nsvit import artifacts, rounds, runtime
from nsvit.averaging import Average
from nsvit.config import RECIPES
from nsvit.data.layouts import ImageSet
from nsvit.data.training import Round
from nsvit.draws import attack_seeds, batch_positions, global_seed, round_noise
from nsvit.errors import NsvitError
from nsvit.inputs import check_fits, keep
from nsvit.losses import ADVERSARIAL, attacked, both_halves, two_terms
from nsvit.models import PixelModel, check_noise_shape, save_model
from nsvit.noise import Noise
from nsvit.rounds import Row
from nsvit.training import adamw, cosine, drop_path, measure, set_lr

if TYPE_CHECKING:
    from nsvit.specs import FinetuneSpec

log = logging.getLogger(__name__)


def finetune(
    model: PixelModel,
    train: ImageSet,
    dev: ImageSet,
    spec: FinetuneSpec,
    out: str | Path,
    inputs: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """Finetunes a model as one arm says; an interrupted run continues where it was.

    Every random number is a function of (seed, round, step): runs of different arms with one
    seed see the same pictures with the same augmentation in the same order, and learn their
    noise on the same pool. Weights and history are bit for bit the same on every run with the
    same number of threads, interrupted or not (the seconds aside).

    Args:
        model: where to start; trained in place, holds the selected round's weights afterwards.
        train: pictures to train on and to learn noise on, without the dev pictures.
        dev: held-out pictures, measured before the first and after every round.
        spec: run, kind of arm and settings.
        out: the run's folder: model.safetensors, history.json, rounds/<r>/.
        inputs: files whose hashes go into the provenance.

    Returns:
        The content of history.json: `rounds`, one row per round (0 is the start), and
        `selected`, the round whose weights are the result. A row's `loss_clean` and `loss_noisy`
        are the means over its steps of the two terms whose sum is the loss; the second is the
        noisy one, or in adversarial training the adversarial one with its beta. `noise_*` are
        None without noise. `train_seconds` is all the steps took, `attack_seconds` the attack's
        part of that, None without one; `noise_seconds` comes on top.

    Raises:
        NsvitError: pictures, noise or weights do not fit (before any compute), or the loss is
            not a number (names round and step; the finished rounds stay).
    """
    out = Path(out)
    check_fits(model, train)
    check_fits(model, dev)
    if spec.kind not in ("none", *ADVERSARIAL):
        check_noise_shape(model, torch.zeros(1, *model.token_shape), spec.finetune.block)
    accelerator = _accelerator()
    made_from = rounds.fingerprint(
        model,
        spec=spec.model_dump(mode="json"),
        recipe=RECIPES["finetune"],
        train=_identity(train),
        dev=_identity(dev),
    )
    optimizer = adamw(model.net, spec.finetune.lr, spec.finetune.weight_decay)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    sidecar = artifacts.provenance("model", spec.model_dump(mode="json"), inputs, seed=spec.seed)
    (out / "history.json").unlink(missing_ok=True)
    average = Average(model.net, spec.finetune.ema_decay)
    history = rounds.restore(out, model, optimizer, made_from, average)
    kept_dev = keep(dev)

    def finish_round(row: Row) -> None:
        with average.applied():
            accuracy, loss = measure(model, kept_dev)
            if not np.isfinite(loss):
                raise _diverged(spec, row["round"], spec.finetune.steps, loss, out)
            history.append({**row, "dev_accuracy": accuracy, "dev_loss": loss})
            rounds.save(out, model, optimizer, history, made_from, sidecar, average.raw())
        _log_round(spec, history[-1])

    if not history:
        finish_round(_row(0, 0))
    with drop_path(model, spec.finetune.drop_path):
        for number in range(len(history), spec.finetune.rounds + 1):
            finish_round(
                _train_round(
                    accelerator, model, wrapped, optimizer, average, train, spec, number, out
                )
            )
    return _finish(model, spec, out, history, sidecar)


def _accelerator() -> Accelerator:
    """One process for now; single precision always, so that the arms differ in nothing else."""
    accelerator = Accelerator(cpu=runtime.device().type == "cpu", mixed_precision="no")
    if accelerator.num_processes > 1:
        raise NsvitError(
            f"finetune was started with {accelerator.num_processes} processes; it runs in one: "
            "start it without torchrun or accelerate launch"
        )
    return accelerator


def _identity(image_set: ImageSet) -> dict[str, Any]:
    frame = image_set.frame
    listed = "\n".join(f"{p}\t{c}" for p, c in zip(frame["path"], frame["label"], strict=True))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return {"pictures": digest, "resize": image_set.resize, "crop": image_set.crop}


# --- one round ------------------------------------------------------------------------------


def _row(number: int, step: int) -> Row:
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


def _train_round(
    accelerator: Accelerator,
    model: PixelModel,
    wrapped: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    train: ImageSet,
    spec: FinetuneSpec,
    number: int,
    out: Path,
) -> Row:
    """Fresh noise, then `steps` optimiser steps; returns the round's row without dev numbers."""
    config, device = spec.finetune, accelerator.device
    who = f"{spec.model} {spec.arm} seed {spec.seed}, round {number} of {config.rounds}"
    runtime.stage(who, number - 1, config.rounds)
    begun = runtime.clock(device)
    noise = round_noise(model, train, spec, number)
    shift = None
    if spec.kind not in ADVERSARIAL:
        shift = torch.zeros(1, *model.token_shape) if noise is None else noise.tensor
        shift = shift.detach().to(device)
    row = _row(number, number * config.steps)
    row["noise_seconds"] = runtime.clock(device) - begun
    begun, attacking = runtime.clock(device), 0.0
    batches = batch_positions(len(train), config.batch_size, config.steps, spec.seed, number)
    pictures = Round(
        train, batches, config, model.image_size, model.num_classes, spec.seed, number
    ).stream()
    summed = torch.zeros(2)
    wrapped.train()
    training = runtime.progress(range(config.steps), "training")
    for step in training:
        images, targets = (tensor.to(device) for tensor in next(pictures))
        second = images
        if spec.kind in ADVERSARIAL:
            before = runtime.clock(device)
            starts = attack_seeds(len(images), spec.seed, number, step)
            second = attacked(model, images, targets, spec.kind, config.adversarial, starts)
            attacking += runtime.clock(device) - before
        set_lr(optimizer, cosine(config.lr, config.lr_min, step / config.steps))
        with global_seed(device, spec.seed, "dropout", number, step):
            logits = both_halves(model, wrapped, images, second, shift, config.block)
        losses = two_terms(logits, targets, spec.kind, config)
        values = losses.detach().cpu()
        training.note(loss=float(values.sum()))
        if not bool(torch.isfinite(values).all()):
            raise _diverged(spec, number, step, float(values.sum()), out)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses.sum())
        optimizer.step()
        average.update()
        summed += values
    row |= {"loss_clean": float(summed[0]) / config.steps}
    row |= {"loss_noisy": float(summed[1]) / config.steps}
    row["train_seconds"] = runtime.clock(device) - begun
    if spec.kind in ADVERSARIAL:
        row["attack_seconds"] = attacking
    if noise is not None:
        row |= _keep_noise(noise, spec, rounds.folder(out, number) / "noise.safetensors")
    return row


def _keep_noise(noise: Noise, spec: FinetuneSpec, path: Path) -> Row:
    """Writes a round's noise; returns what its row says of it."""
    noise.save(path, artifacts.provenance("noise", spec.model_dump(mode="json"), seed=spec.seed))
    return {
        "noise_norm": noise.norm,
        "noise_steps": noise.steps,
        "noise_distance": noise.distance,
        "epsilon_met": noise.epsilon_met,
    }


# --- the end of a run -----------------------------------------------------------------------


def _finish(
    model: PixelModel, spec: FinetuneSpec, out: Path, history: list[Row], sidecar: dict[str, Any]
) -> dict[str, Any]:
    """Saves the selected round's weights as the result, and history.json last."""
    selected = select(history, spec.finetune.select)
    if selected != history[-1]["round"] or spec.finetune.ema_decay is not None:
        rounds.load_checkpoint(out, selected, model)
    row = history[selected]
    metrics = {name: row[name] for name in ("round", "dev_accuracy", "dev_loss")}
    save_model(model, out / "model.safetensors", {**sidecar, "metrics": metrics})
    content = {**sidecar, "kind": "history", "metrics": metrics}
    content |= {"rounds": history, "selected": selected}
    artifacts.write_json(out / "history.json", content)
    rounds.forget_states(out)
    return content


def select(history: list[Row], how: str) -> int:
    """The round whose weights are the result: the last, or the best on dev.

    Round 0, the start, is a candidate too; ties go to the earlier round.
    """
    if how == "last":
        return int(history[-1]["round"])
    return int(max(history, key=lambda row: (row["dev_accuracy"], -row["round"]))["round"])


def _diverged(spec: FinetuneSpec, number: int, step: int, loss: float, out: Path) -> NsvitError:
    what = f"run {spec.model}/{spec.arm}/seed{spec.seed}: loss is {loss} in round {number}"
    if number == 0:
        return NsvitError(f"{what}, before any training: check the model's weights")
    kept = rounds.checkpoint(out, number - 1)
    return NsvitError(
        f"{what}, step {step}; the weights after round {number - 1} are kept in {kept}. "
        f"Lower finetune.lr (now {spec.finetune.lr}) or check the pictures"
    )


def _log_round(spec: FinetuneSpec, row: Row) -> None:
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
