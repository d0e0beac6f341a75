"""Training a timm model from scratch: the checkpoints that finetuning starts from.

The paper starts from published ImageNet checkpoints; the embedded benchmark has none, so this
makes them. Nothing here is part of the paper's method.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvit import artifacts, runtime, stopping
from nsvit.config import RECIPES, PretrainConfig
from nsvit.data.augment import light_augmentation
from nsvit.data.layouts import ImageSet
from nsvit.data.loading import to_float, train_images
from nsvit.errors import NsvitError
from nsvit.inputs import Pictures, check_fits, identity, keep
from nsvit.models import PixelModel, build, load_weights, save_local_dir
from nsvit.snapshots import (
    Snapshots,
    State,
    below,
    fingerprint,
    load_optimizer,
    optimizer_tensors,
    prefixed,
    size_of,
)
from nsvit.training import adamw, cosine, measure, set_lr

if TYPE_CHECKING:
    from nsvit.specs import PretrainSpec

log = logging.getLogger(__name__)

#: The name of the provenance file beside timm's config.json.
SIDECAR = "nsvit.json"


def pretrain(
    spec: PretrainSpec, train: ImageSet, dev: ImageSet, val: ImageSet, out_folder: str | Path
) -> dict[str, float]:
    """Trains a model from random weights and saves it as a timm `local-dir:` folder.

    AdamW, linear warm-up, cosine to zero, last weights kept (nothing is selected). The result
    depends on the spec and the pictures only, for a fixed number of threads, interrupted or not:
    until it is saved, snapshots are in the folder `unfinished` there.

    Args:
        spec: architecture and settings.
        train: pictures to train on, without the dev pictures.
        dev: measured during training (logged, never chosen on).
        val: measured once at the end, for the sidecar.
        out_folder: gets model.safetensors, config.json and nsvit.json (kind "pretrained").

    Returns:
        The sidecar's metrics: dev_accuracy, val_accuracy (fractions) and n, the size of val.

    Raises:
        NsvitError: the loss is not a number, or the pictures do not fit the model.
        Stopped: asked to end; the same call goes on.
    """
    with stopping.deferred():
        return _pretrain(spec, train, dev, val, Path(out_folder))


def _pretrain(
    spec: PretrainSpec, train: ImageSet, dev: ImageSet, val: ImageSet, folder: Path
) -> dict[str, float]:
    config = spec.config
    device = runtime.device()
    model = initial_model(config).to(device)
    for image_set in (train, dev, val):
        check_fits(model, image_set)
    kept_dev = keep(dev)
    known = {"recipe": RECIPES["pretrain_model"], "train": identity(train)}
    made_from = fingerprint(model.state_dict(), spec=spec.model_dump(mode="json"), **known)
    size = 3 * size_of(model.net.state_dict())
    snapshots = Snapshots(folder / "unfinished", made_from, size)
    _train(spec, model, keep(train), kept_dev, snapshots)
    metrics = {
        "dev_accuracy": measure(model, kept_dev)[0],
        "val_accuracy": measure(model, Pictures(val))[0],
        "n": len(val),
    }
    (folder / SIDECAR).unlink(missing_ok=True)
    save_local_dir(model, folder)
    sidecar = artifacts.provenance(
        "pretrained", spec.model_dump(mode="json"), seed=config.seed, metrics=metrics
    )
    artifacts.write_json(folder / SIDECAR, sidecar)
    snapshots.clear()
    return metrics


def initial_model(config: PretrainConfig) -> PixelModel:
    """The untrained model of a seed, with a sine-cosine position embedding if asked for."""
    with runtime.seeded(config.seed, "init"):
        model = build(config.architecture, config.model_args, config.mean, config.std)
    if config.sincos:
        _sincos(model)
    return model


def _sincos(model: PixelModel) -> None:
    """Overwrites the patch tokens' part of the position embedding; the rest becomes zero."""
    from timm.layers import build_sincos2d_pos_embed

    embedding = getattr(model.net, "pos_embed", None)
    if not isinstance(embedding, nn.Parameter):
        raise NsvitError(
            f"model {model.architecture!r} has no position embedding: set sincos: false"
        )
    grid = list(model.net.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
    width = embedding.shape[-1]
    if width % 4:
        raise NsvitError(f"sincos needs a width that 4 divides, embed_dim is {width}")
    table = build_sincos2d_pos_embed(grid, dim=width)
    with torch.no_grad():
        embedding.zero_()
        embedding[0, embedding.shape[1] - len(table) :] = table


def _train(
    spec: PretrainSpec, model: PixelModel, train: Pictures, dev: Pictures, snapshots: Snapshots
) -> None:
    config = spec.config
    optimizer = adamw(model.net, config.lr, config.weight_decay)
    n = len(train.image_set)
    per_epoch = max(n // config.batch_size, 1)
    total = per_epoch * config.epochs
    labels = torch.tensor(np.asarray(train.image_set.labels, dtype=np.int64))
    done, summed = _go_on(snapshots, model, optimizer)

    def state() -> State:
        tensors = prefixed("model", model.net.state_dict())
        tensors |= prefixed("optimizer", optimizer_tensors(optimizer))
        return tensors, {"done": done, "summed": summed}

    begun = time.perf_counter()
    with snapshots.upon_stop(state):
        for step in runtime.progress(range(done, total), f"training {spec.name}"):
            snapshots.offer(state)
            epoch, index = divmod(step, per_epoch)
            if index == 0:
                begun, summed = time.perf_counter(), 0.0
            summed += _step(spec, model, optimizer, train, labels, step, per_epoch)
            done = step + 1
            if index == per_epoch - 1:
                accuracy, _ = measure(model, dev)
                log.info(
                    "pretrain %s: epoch %d/%d, loss %.3f, dev accuracy %.3f, %.1f s",
                    *(spec.name, epoch + 1, config.epochs, summed / per_epoch, accuracy),
                    time.perf_counter() - begun,
                )


def _go_on(
    snapshots: Snapshots, model: PixelModel, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Puts model and optimiser where the last snapshot left them.

    Returns:
        Steps done, and the losses of those of their epoch, summed.
    """
    found = snapshots.load()
    if found is None:
        return 0, 0.0
    tensors, facts = found
    load_weights(model, below("model", tensors), "snapshot")
    load_optimizer(optimizer, below("optimizer", tensors))
    return int(facts["done"]), float(facts["summed"])


def _step(
    spec: PretrainSpec,
    model: PixelModel,
    optimizer: torch.optim.Optimizer,
    train: Pictures,
    labels: Tensor,
    step: int,
    per_epoch: int,
) -> float:
    """One optimiser step, all of whose random numbers are functions of seed, epoch and step.

    Returns:
        Its loss.
    """
    config = spec.config
    total, (epoch, index) = per_epoch * config.epochs, divmod(step, per_epoch)
    warmup = round(config.warmup * total)
    if step < warmup:
        set_lr(optimizer, config.lr * (step + 1) / warmup)
    else:
        set_lr(optimizer, cosine(config.lr, 0.0, (step - warmup) / (total - warmup)))
    stream = runtime.generator(config.seed, "order", epoch)
    order = torch.randperm(len(train.image_set), generator=stream)
    positions = order[index * config.batch_size : (index + 1) * config.batch_size]
    images = _augmented(config, model, train, positions, step).to(model.mean.device)
    model.train()
    with runtime.seeded(config.seed, "dropout", step):
        logits = model(images)
    loss = cross_entropy(
        logits,
        labels[positions].to(logits.device),
        label_smoothing=config.label_smoothing,
    )
    if not bool(torch.isfinite(loss)):
        raise NsvitError(
            f"pretrain {spec.name}: loss is {loss.item()} in epoch {epoch}, step {index}; "
            f"lower pretrain.{spec.name}.lr (now {config.lr})"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def _augmented(
    config: PretrainConfig, model: PixelModel, train: Pictures, positions: Tensor, step: int
) -> Tensor:
    """The augmented pictures of one step, pixels (B, 3, H, W) in [0, 1].

    From the pixels in memory where that is possible: decoding every picture in every epoch
    would take longer than the training.
    """
    seed_parts = (config.seed, "augment", step)
    if train.pixels is not None and config.augmentation == "light":
        return light_augmentation(train.pixels[positions], *seed_parts)
    if train.pixels is not None and config.augmentation == "none":
        return to_float(train.pixels[positions])
    return train_images(
        train.image_set, positions, config.augmentation, model.image_size, *seed_parts
    )
