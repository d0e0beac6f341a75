"""Finetuning steps of every arm, beside the published procedure.

Both sides take the same augmented pictures from the same (synchronous) pipeline. What counts is the
time that nsvit's own history reports for its steps; measuring dev pictures and writing the
optimiser's state are left out, noise is drawn and not learned.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from benchmarks.naive import finetuning as naive
from benchmarks.noise import BF16, FP32, precisions, shares
from benchmarks.runner import Case
from benchmarks.subjects import NAIVE, Size, drawn_set, sizes
from nsvit import rounds, runtime
from nsvit.attacks import ThreatModel
from nsvit.attacks.steps import anywhere, normal
from nsvit.attacks.training import TRADES_START
from nsvit.config import AdversarialConfig, ArmKind, FinetuneConfig, NoiseConfig, Precision
from nsvit.config.base import radius_value
from nsvit.data.layouts import ImageSet
from nsvit.data.training import Round
from nsvit.draws import attack_seeds, batch_positions
from nsvit.errors import NsvitError
from nsvit.finetuning import finetune
from nsvit.models import PixelModel
from nsvit.specs import FinetuneSpec, Split

ARMS: tuple[ArmKind, ...] = ("plain", "random", "nullspace", "madry", "trades")
#: Largest relative difference of a loss, and smallest cosine between the changes of all weights.
LOSS_APART = {FP32: 1e-3, BF16: 0.1}
ALIKE = {FP32: 0.97, BF16: 0.9}
TARGETS = {FP32: 1.05, BF16: 3.0}
LR, DECAY, SMOOTHING = 1e-5, 0.05, 0.1


@dataclass(frozen=True)
class Trained:
    """Seconds of the steps, mean losses, and all weights in a row."""

    seconds: float
    clean: float
    second: float
    weights: Tensor


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage: adversarial arms on the shipped vit_s only."""
    found = []
    for place, size in enumerate(sizes(args)):
        arms = ARMS if place == 0 else ("nullspace",) if size.big else ("plain", "nullspace")
        found += [case(size, kind, 1 if size.big else 3) for kind in arms]
    return found


def case(size: Size, kind: ArmKind, steps: int) -> Case:
    """Steps of one arm."""
    begin = _flat(size.model)
    sides: dict[str, Callable[[], Trained]] = {NAIVE: partial(published, size, kind, steps)}
    for side, precision in precisions(size).items():
        sides[side] = partial(ours, size, kind, steps, precision)
    own = size.big and size.device.type == "cpu" and "ViT-S" in size.name
    attacked = kind in ("madry", "trades")
    return Case(
        f"finetune step, arm {kind}, {size.name}, batch {size.batch}",
        sides,
        lambda found: agreement(found, begin),
        (NAIVE,),
        items=steps,
        unit="step",
        clock="reported",
        repeats=2 if size.device.type == "cpu" else size.repeats,
        threads=size.threads,
        targets={side: TARGETS[side] for side in sides if own and side in TARGETS},
        flops={}
        if attacked
        else {side: 6 * size.batch * size.flops for side in sides if side != NAIVE},
        shares={} if attacked else shares(size),
        tokens=2 * size.batch * size.model.token_shape[0],  # clean and noisy, or attacked
    )


def agreement(found: Mapping[str, Trained], begin: Tensor) -> str:
    """Says how far losses and changes of the weights agree with the naive ones.

    Raises:
        NsvitError: further apart than rounding explains.
    """
    one, told = found[NAIVE], []
    for side, other in found.items():
        if side == NAIVE:
            continue
        pairs = ((one.clean, other.clean), (one.second, other.second))
        gap = max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs)
        cosine = float(_cosine(one.weights - begin, other.weights - begin))
        if gap > LOSS_APART[side] or cosine < ALIKE[side]:
            raise NsvitError(
                f"{side}: losses differ by {100 * gap:.2g} %, the changes of the weights have "
                f"cosine {cosine:.3f}"
            )
        told.append(
            f"{side}: losses alike but for {100 * gap:.2g} %, changes of the weights with cosine "
            f"{cosine:.4f} (at least {ALIKE[side]})"
        )
    return "; ".join(told)


# --- sides ----------------------------------------------------------------------------------


def settings(size: Size, kind: ArmKind, steps: int, precision: Precision) -> FinetuneSpec:
    """One round of a few steps; noise is inside epsilon from the beginning."""
    noise = NoiseConfig(limit=1.0, epsilon=2.0, max_steps=1, pool=4, batch_size=4)
    config = FinetuneConfig(
        rounds=1, steps=steps, batch_size=size.batch, lr=LR, lr_min=LR, weight_decay=DECAY,
        label_smoothing=SMOOTHING, augmentation="light", precision=precision, noise=noise,
        adversarial=AdversarialConfig(steps=2),
    )  # fmt: skip
    split = Split(dev_images=2, seed=0)
    return FinetuneSpec(model="m", arm="a", seed=0, kind=kind, finetune=config, split=split)


def ours(size: Size, kind: ArmKind, steps: int, precision: Precision) -> Trained:
    """Nsvit's loop, which is given a folder that is deleted."""
    spec, model = settings(size, kind, steps, precision), deepcopy(size.model)
    with (
        tempfile.TemporaryDirectory(prefix="nsvit-bench-") as folder,
        mock.patch.object(rounds, "save", lambda *kept: None),
        mock.patch.dict(os.environ, NSVIT_DEVICE=size.device.type),
    ):
        root = Path(folder)
        train = _train_set(size, root, steps)
        dev = train.subset(range(2))
        history = finetune(model, train, dev, spec, root / "run")
    row = history["rounds"][-1]
    return Trained(row["train_seconds"], row["loss_clean"], row["loss_noisy"], _flat(model))


def published(size: Size, kind: ArmKind, steps: int) -> Trained:
    """The published loop, on the pictures that nsvit's will see."""
    spec, model = settings(size, kind, steps, "fp32"), size.wanting()
    config = spec.finetune
    with tempfile.TemporaryDirectory(prefix="nsvit-bench-") as folder:
        train = _train_set(size, Path(folder), steps)
        chosen = batch_positions(len(train), config.batch_size, steps, spec.seed, 1)
        pictures = Round(train, chosen, config, model.image_size, model.num_classes, spec.seed, 1)
        begun = runtime.clock(size.device)
        losses = naive.train(
            model,
            _on(size.device, pictures.stream()),
            _second(size, spec),
            lr=LR,
            weight_decay=DECAY,
            label_smoothing=SMOOTHING,
        )
        seconds = runtime.clock(size.device) - begun
    return Trained(seconds, losses.clean, losses.second, _flat(model))


def _on(
    device: torch.device, batches: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        yield images.to(device), labels.to(device)


def _second(size: Size, spec: FinetuneSpec) -> naive.Second:
    """The second term of an arm, with the random numbers that nsvit draws."""
    config = spec.finetune
    if spec.kind == "plain":
        return naive.Second(naive.same_loss(SMOOTHING))
    if spec.kind in ("random", "nullspace"):
        shape, drawn = (1, *size.model.token_shape), runtime.generator(spec.seed, "noise", 1)
        if spec.kind == "random":
            noise = torch.randn(shape, generator=drawn) * config.random.std
        else:
            noise = (torch.rand(shape, generator=drawn) * 2 - 1) * config.noise.limit
        return naive.Second(naive.same_loss(SMOOTHING), noise.to(size.device))
    own = config.adversarial
    radius, step_size = radius_value(own.radius), radius_value(own.step_size)
    threat, madry = ThreatModel(radius), spec.kind == "madry"

    def attack(model: PixelModel, images: Tensor, labels: Tensor, step: int) -> Tensor:
        seeds = attack_seeds(len(images), spec.seed, 1, step)
        if madry:
            begin = anywhere(images, threat, seeds, "pgd", 0)

            def objective(logits: Tensor) -> Tensor:
                return cross_entropy(logits, labels)

        else:
            begin = threat.project(images, images + TRADES_START * normal(images, seeds, "trades"))
            model.eval()
            with torch.no_grad():
                target = model(images).softmax(1)

            def objective(logits: Tensor) -> Tensor:
                return kl_div(logits.log_softmax(1), target, reduction="sum")

        return naive.pgd(model, images, begin, objective, radius, step_size, own.steps)

    loss = naive.same_loss(SMOOTHING, own.beta) if madry else naive.divergence(own.beta)
    return naive.Second(loss, attack=attack)


def _train_set(size: Size, root: Path, steps: int) -> ImageSet:
    return drawn_set(root / "train", max(steps * size.batch, 4), size.model.image_size[0], "train")


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.cosine_similarity(one.double(), other.double(), dim=0)


def _flat(model: PixelModel) -> Tensor:
    return torch.cat([weight.detach().flatten().float().cpu() for weight in model.parameters()])
