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

import logging
import math
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nsvit import (
    artifacts,
    autoprecision,
    compiled,
    distributed,
    precision,
    rounds,
    runtime,
    stopping,
)
from nsvit.averaging import Average
from nsvit.config import RECIPES
from nsvit.data.layouts import ImageSet
from nsvit.data.training import Round
from nsvit.draws import attack_seeds, batch_positions, global_seed, round_noise
from nsvit.errors import NsvitError
from nsvit.history import empty_row, finished_row, log_round, select
from nsvit.inputs import check_fits, identity, keep
from nsvit.losses import ADVERSARIAL, attacked, shifted, two_terms
from nsvit.models import PixelModel, check_noise_shape, save_model
from nsvit.rounds import Row, Unfinished
from nsvit.snapshots import Snapshots, fingerprint, size_of
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
    """Finetunes a model as one arm says; an interrupted run goes on from its last snapshot.

    Every random number is a function of (seed, round, step): runs of different arms with one
    seed see the same pictures with the same augmentation in the same order, and learn their
    noise on the same pool. Weights and history are bit for bit the same on every run with the
    same number of threads, interrupted or not (the seconds aside). Asked to end by SIGTERM or
    SIGINT, it saves where it is and raises `Stopped`. In several processes, or in several passes
    for each step, the result is the same but for rounding: each process takes its part of the same
    global batches, and the first one writes the files.

    Args:
        model: where to start; trained in place, holds the selected round's weights afterwards.
        train: pictures to train on and to learn noise on, without the dev pictures.
        dev: held-out pictures, measured before the first and after every round.
        spec: run, kind of arm and settings.
        out: the run's folder: model.safetensors, history.json, rounds/<r>/; unfinished/ until
            the run is finished.
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
        Stopped: asked to end; the same call goes on.
    """
    distributed.start()
    with stopping.deferred(), distributed.stopping_together():
        return _finetune(model, train, dev, spec, Path(out), inputs)


def _finetune(
    model: PixelModel,
    train: ImageSet,
    dev: ImageSet,
    spec: FinetuneSpec,
    out: Path,
    inputs: Iterable[str | Path],
) -> dict[str, Any]:
    check_fits(model, train)
    check_fits(model, dev)
    if spec.kind not in ("none", *ADVERSARIAL):
        check_noise_shape(model, torch.zeros(1, *model.token_shape), spec.finetune.block)
    device = runtime.device()
    _check_machine(model.to(device), spec, device)
    made_from = fingerprint(
        model.state_dict(),
        spec=spec.model_dump(mode="json"),
        recipe=RECIPES["finetune"],
        train=identity(train),
        dev=identity(dev),
    )
    optimizer = adamw(model.net, spec.finetune.lr, spec.finetune.weight_decay)
    sidecar = artifacts.provenance("model", spec.model_dump(mode="json"), inputs, seed=spec.seed)
    average = Average(model.net, spec.finetune.ema_decay)
    distributed.on_main(lambda: (out / "history.json").unlink(missing_ok=True))
    history = distributed.main_first(
        lambda: rounds.restore(out, model, optimizer, made_from, average)
    )
    distributed.refuse_different(len(history), str(out / "rounds"))
    spec, choices = _settled(model, spec, out, history)
    sidecar |= {"precision": choices} if choices else {}
    kept_dev = keep(dev)

    def finish_round(row: Row) -> None:
        with average.applied():
            accuracy, loss = measure(model, kept_dev)
            if not np.isfinite(loss):
                raise _diverged(spec, row["round"], spec.finetune.steps, loss, out)
            history.append({**row, "dev_accuracy": accuracy, "dev_loss": loss})
            distributed.refuse_drift(model.parameters(), f"{_name(spec)}, round {row['round']}")
            kept = (out, model, optimizer, history, made_from, sidecar, average.raw())
            distributed.on_main(lambda: rounds.save(*kept))
        log_round(spec, history[-1])

    if not history:
        finish_round(empty_row(0, 0))
    of_noise, of_steps = _snapshots(model, out, made_from, 3 + bool(average.tensors()))
    with drop_path(model, spec.finetune.drop_path):
        for number in range(len(history), spec.finetune.rounds + 1):
            go_on = partial(rounds.go_on, of_steps, number, model, optimizer, average)
            now = distributed.main_first(go_on)
            distributed.refuse_different(-1 if now is None else now.done, str(out / "unfinished"))
            stage = f"{_name(spec)}, round {number} of {spec.finetune.rounds}"
            runtime.stage(stage, number - 1, spec.finetune.rounds)
            if now is None:
                now = _begin_round(model, train, spec, number, of_noise)
            with of_steps.upon_stop(partial(now.state, model, optimizer, average)):
                with compiled.blocks(model, spec.finetune.compile, "finetune.compile"):
                    _train_round(model, optimizer, average, train, spec, now, of_steps, out)
                finish_round(finished_row(now, spec, out))
            of_noise.clear(), of_steps.clear()
    distributed.on_main(lambda: shutil.rmtree(out / "unfinished", ignore_errors=True))
    return _finish(model, spec, out, history, sidecar)


def _settled(
    model: PixelModel, spec: FinetuneSpec, out: Path, history: list[Row]
) -> tuple[FinetuneSpec, autoprecision.Choices]:
    """The run with precisions that are not "auto", and how they were chosen.

    As the last whole round says; round 0 is there before any training.
    """

    def recorded() -> autoprecision.Choices | None:
        if not history:
            return None
        last = artifacts.sidecar_path(rounds.checkpoint(out, history[-1]["round"]))
        return artifacts.read_json(last).get("precision")

    config = spec.finetune
    wanted = {
        "finetune.precision": (config.precision, 2 * config.batch_size, True),
        "finetune.noise.precision": (config.noise.precision, config.noise.batch_size, False),
    }
    choices = autoprecision.choose(model, wanted, recorded)
    noise = autoprecision.with_precision(config.noise, choices.get("finetune.noise.precision"))
    own = autoprecision.with_precision(config, choices.get("finetune.precision"))
    settings = own.model_copy(update={"noise": noise})
    return spec.model_copy(update={"finetune": settings}), choices


def _snapshots(
    model: PixelModel, out: Path, made_from: str, copies: int
) -> tuple[Snapshots, Snapshots]:
    """Of the noise while it is learned, and of the steps; each with a tensor's two moments.

    Of the weights there are so many copies in the latter, the moments among them.
    """
    noise = 4 * math.prod(model.token_shape)
    weights = size_of(model.net.state_dict())
    here, writes = out / "unfinished", distributed.is_main()
    return (
        Snapshots(here / "noise", made_from, 3 * noise, writes=writes),
        Snapshots(here / "steps", made_from, copies * weights + noise, writes=writes),
    )


def _check_machine(model: PixelModel, spec: FinetuneSpec, device: torch.device) -> None:
    """Refuses what the device, the processes and the passes cannot do, before any compute."""
    precision.refuse(device, spec.finetune.precision, "finetune.precision")
    compiled.refuse(device, spec.finetune.compile, "finetune.compile")
    compiled.refuse(device, spec.finetune.noise.compile, "finetune.noise.compile")
    for key, size in spec.batches().items():
        distributed.refuse_small_batch(size, key)
    if distributed.count() > 1 or spec.finetune.accumulate > 1:
        refuse_coupled(model)


# --- one round ------------------------------------------------------------------------------


def _begin_round(
    model: PixelModel, train: ImageSet, spec: FinetuneSpec, number: int, snapshots: Snapshots
) -> Unfinished:
    """Fresh noise."""
    begun = runtime.clock(model.mean.device)
    noise = round_noise(model, train, spec, number, snapshots)
    seconds = runtime.clock(model.mean.device) - begun
    return Unfinished(number, noise, noise_seconds=seconds)


def _train_round(
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    average: Average,
    train: ImageSet,
    spec: FinetuneSpec,
    now: Unfinished,
    snapshots: Snapshots,
    out: Path,
) -> None:
    """The round's optimiser steps that are not done yet; `now` is right after each of them."""
    config, device, number = spec.finetune, model.mean.device, now.number
    shift = None
    if spec.kind not in ADVERSARIAL:
        shift = torch.zeros(1, *model.token_shape) if now.noise is None else now.noise.tensor
        shift = shift.detach().to(device)
    batches = batch_positions(len(train), config.batch_size, config.steps, spec.seed, number)
    # This process's part of the global batch, in one or several passes.
    parts = list(distributed.parts(config.batch_size, config.accumulate))
    pictures = Round(
        train, batches, config, model.image_size, model.num_classes, spec.seed, number
    ).stream(now.done, [part.rows for part in parts])
    scaler = precision.scaler(device, config.precision)
    if now.scaling:
        scaler.load_state_dict(now.scaling)
    model.train()
    training = runtime.progress(range(now.done, config.steps), "training")
    for step in training:
        snapshots.offer(partial(now.state, model, optimizer, average))
        begun, attacking, values = runtime.clock(device), 0.0, torch.zeros(2)
        set_lr(optimizer, cosine(config.lr, config.lr_min, step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        for part in parts:
            images, targets = (tensor.to(device) for tensor in next(pictures))
            second = images
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
                    logits = model(torch.cat([images, second]))
                logits = precision.full(logits, config.precision)
                losses = two_terms(logits, targets, spec.kind, config) * part.weight
                scaler.scale(losses.sum()).backward()
            values += losses.detach().cpu()
        distributed.summed(values)
        training.note(loss=float(values.sum()))
        if not bool(torch.isfinite(values).all()):
            raise _diverged(spec, number, step, float(values.sum()), out)
        distributed.sum_gradients(model.parameters())
        scaler.step(optimizer)
        scaler.update()
        average.update()
        now.scaling = scaler.state_dict()
        now.add(values, runtime.clock(device) - begun, attacking)


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
    content = {**sidecar, "kind": "history", "metrics": metrics}
    content |= {"rounds": history, "selected": selected}

    def write() -> None:
        save_model(model, out / "model.safetensors", {**sidecar, "metrics": metrics})
        artifacts.write_json(out / "history.json", content)
        rounds.forget_states(out)

    distributed.on_main(write)
    return content


def _name(spec: FinetuneSpec) -> str:
    return f"run {spec.model}/{spec.arm}/seed{spec.seed}"


def _diverged(spec: FinetuneSpec, number: int, step: int, loss: float, out: Path) -> NsvitError:
    what = f"{_name(spec)}: loss is {loss} in round {number}"
    if number == 0:
        return NsvitError(f"{what}, before any training: check the model's weights")
    kept = rounds.checkpoint(out, number - 1)
    return NsvitError(
        f"{what}, step {step}; the weights after round {number - 1} are kept in {kept}. "
        f"Lower finetune.lr (now {spec.finetune.lr}) or check the pictures"
    )
