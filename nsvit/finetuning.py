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

from nsvit import artifacts, distributed, precision, rounds, runtime
from nsvit.config import RECIPES
from nsvit.data.layouts import ImageSet
from nsvit.data.loading import train_images
from nsvit.draws import attack_seeds, batch_positions, global_seed, round_noise
from nsvit.errors import NsvitError
from nsvit.inputs import check_fits, keep
from nsvit.losses import ADVERSARIAL, attacked, shifted, two_terms
from nsvit.models import PixelModel, check_noise_shape, save_model
from nsvit.noise import Noise
from nsvit.rounds import Row
from nsvit.training import (
    adamw,
    checkpointed,
    cosine,
    drop_path,
    measure,
    refuse_coupled,
    rows_at_hand,
    set_lr,
)

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
    same number of threads, interrupted or not (the seconds aside). In several processes, or in
    several passes for each step, they are the same but for rounding; each process takes its part
    of the same global batches, and the first writes the files.

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
    distributed.start()
    check_fits(model, train)
    check_fits(model, dev)
    if spec.kind not in ("none", *ADVERSARIAL):
        check_noise_shape(model, torch.zeros(1, *model.token_shape), spec.finetune.block)
    device = runtime.device()
    _check_machine(model.to(device), spec, device)
    made_from = rounds.fingerprint(
        model,
        spec=spec.model_dump(mode="json"),
        recipe=RECIPES["finetune"],
        train=_identity(train),
        dev=_identity(dev),
    )
    optimizer = adamw(model.net, spec.finetune.lr, spec.finetune.weight_decay)
    sidecar = artifacts.provenance("model", spec.model_dump(mode="json"), inputs, seed=spec.seed)
    distributed.on_main(lambda: (out / "history.json").unlink(missing_ok=True))
    history = _restore(out, model, optimizer, made_from)
    kept_dev = keep(dev)

    def finish_round(row: Row) -> None:
        accuracy, loss = measure(model, kept_dev)
        if not np.isfinite(loss):
            raise _diverged(spec, row["round"], spec.finetune.steps, loss, out)
        history.append({**row, "dev_accuracy": accuracy, "dev_loss": loss})
        distributed.refuse_drift(model.parameters(), f"{_name(spec)}, round {row['round']}")
        distributed.on_main(lambda: rounds.save(out, model, optimizer, history, made_from, sidecar))
        _log_round(spec, history[-1])

    if not history:
        finish_round(_row(0, 0))
    with drop_path(model, spec.finetune.drop_path):
        for number in range(len(history), spec.finetune.rounds + 1):
            finish_round(_train_round(model, optimizer, train, spec, number, out))
    return _finish(model, spec, out, history, sidecar)


def _check_machine(model: PixelModel, spec: FinetuneSpec, device: torch.device) -> None:
    """Refuses what the device, the processes and the passes cannot do, before any compute."""
    precision.refuse(device, spec.finetune.precision, "finetune.precision")
    for key, size in spec.batches().items():
        distributed.refuse_small_batch(size, key)
    if distributed.count() > 1 or spec.finetune.accumulate > 1:
        refuse_coupled(model)


def _restore(
    out: Path, model: PixelModel, optimizer: torch.optim.Optimizer, made_from: str
) -> list[Row]:
    """Where the last whole round left model and optimiser, in every process.

    Raises:
        NsvitError: the processes do not see the same files.
    """
    history: list[Row] = []
    if distributed.is_main():
        history = rounds.restore(out, model, optimizer, made_from)
    distributed.barrier()
    if not distributed.is_main():
        history = rounds.restore(out, model, optimizer, made_from)
    found = distributed.agreed(lambda: history)
    if distributed.total(float(len(history) != len(found))):
        raise NsvitError(
            f"{out}: the processes do not see the same finished rounds; the folder must be shared "
            "by all nodes"
        )
    return found


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
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    train: ImageSet,
    spec: FinetuneSpec,
    number: int,
    out: Path,
) -> Row:
    """Fresh noise, then `steps` optimiser steps; returns the round's row without dev numbers."""
    config, device = spec.finetune, model.mean.device
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
    labels = torch.tensor(np.asarray(train.labels, dtype=np.int64))
    summed, scaler = torch.zeros(2), precision.scaler(device, config.precision)
    model.train()
    for step in runtime.progress(range(config.steps), f"round {number}"):
        values = torch.zeros(2)
        set_lr(optimizer, cosine(config.lr, config.lr_min, step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        # This process's part of the global batch, in one or several passes.
        for part in distributed.parts(config.batch_size, config.accumulate):
            positions = batches[step][part.rows]
            seeds = (spec.seed, "augment", number, step)
            images = train_images(
                train,
                positions.tolist(),
                config.augmentation,
                model.image_size,
                *seeds,
                first=part.rows.start,
            ).to(device)
            targets, second = labels[positions].to(device), images
            if spec.kind in ADVERSARIAL:
                before = runtime.clock(device)
                starts = attack_seeds(config.batch_size, spec.seed, number, step)[part.rows]
                second = attacked(model, images, targets, spec.kind, config.adversarial, starts)
                attacking += runtime.clock(device) - before
            with (
                global_seed(device, spec.seed, "dropout", number, step),
                rows_at_hand(model, part.rows, config.batch_size),
                shifted(model, shift, len(images), config.block),
                checkpointed(model, config.gradient_checkpointing),
            ):
                with precision.autocast(device, config.precision):
                    logits = model(torch.cat([images, second])).float()
                losses = two_terms(logits, targets, spec.kind, config) * part.weight
                scaler.scale(losses.sum()).backward()
            values += losses.detach().cpu()
        distributed.summed(values)
        if not bool(torch.isfinite(values).all()):
            raise _diverged(spec, number, step, float(values.sum()), out)
        distributed.sum_gradients(model.parameters())
        scaler.step(optimizer)
        scaler.update()
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
    sidecar = artifacts.provenance("noise", spec.model_dump(mode="json"), seed=spec.seed)
    distributed.on_main(lambda: noise.save(path, sidecar))
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
    if selected != history[-1]["round"]:
        rounds.load_checkpoint(out, selected, model)
    row = history[selected]
    metrics = {name: row[name] for name in ("round", "dev_accuracy", "dev_loss")}
    content = {**sidecar, "kind": "history", "metrics": metrics}
    content |= {"rounds": history, "selected": selected}

    def write() -> None:
        save_model(model, out / "model.safetensors", {**sidecar, "metrics": metrics})
        artifacts.write_json(out / "history.json", content)
        rounds.forget_states(out)

    distributed.on_main(write)
    return content


def select(history: list[Row], how: str) -> int:
    """The round whose weights are the result: the last, or the best on dev.

    Round 0, the start, is a candidate too; ties go to the earlier round.
    """
    if how == "last":
        return int(history[-1]["round"])
    return int(max(history, key=lambda row: (row["dev_accuracy"], -row["round"]))["round"])


def _diverged(spec: FinetuneSpec, number: int, step: int, loss: float, out: Path) -> NsvitError:
    what = f"{_name(spec)}: loss is {loss} in round {number}"
    if number == 0:
        return NsvitError(f"{what}, before any training: check the model's weights")
    kept = rounds.checkpoint(out, number - 1)
    return NsvitError(
        f"{what}, step {step}; the weights after round {number - 1} are kept in {kept}. "
        f"Lower finetune.lr (now {spec.finetune.lr}) or check the pictures"
    )


def _name(spec: FinetuneSpec) -> str:
    return f"run {spec.model}/{spec.arm}/seed{spec.seed}"


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
