"""Noise on patch tokens: epsilon-approximate nullspace noise and its random baseline.

Both are one tensor (1, N, D) for all images, and both stop as soon as the predictions of one
batch barely move: mean over the batch of the sum over classes of the squared difference of
probabilities below `epsilon` (METHOD.md sections 4 and 5.1). Learned noise can also be given a
fixed length (`early_stop: false`), the variant of the paper's reply to its reviewers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsvit import artifacts, compiled, distributed, precision, runtime, stopping
from nsvit.autoprecision import settled
from nsvit.config import NoiseConfig, RandomNoiseConfig
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, check_noise_shape, frozen, inject
from nsvit.pixels import check_model
from nsvit.prefixes import resumed
from nsvit.snapshots import Snapshots, State, load_optimizer, optimizer_tensors
from nsvit.visits import Images, Pool, batches_with_logits

log = logging.getLogger(__name__)

#: Steps between two entries of the history.
HISTORY_EVERY = 10


@dataclass(frozen=True)
class Noise:
    """One noise tensor and how it came about.

    Attributes:
        tensor: (1, N, D) float32, token units, on the model's device; on the CPU when loaded.
        block: injection point: 0 the output of the patch embedding, k the input of block k.
        kind: "learned" or "random".
        epsilon_met: `distance` is below epsilon; with early stop False means that the budget
            ended first.
        distance: mean summed squared probability distance on the last batch that was measured:
            of this tensor if it stopped early, else of the one before the last step.
        steps: optimiser steps (learned) or shrinkings (random) done.
        norm: L2 norm of the tensor.
        history: every `HISTORY_EVERY` steps and at the last measurement: step (changes done so
            far), distance, norm.
        config: the settings it was made with.
    """

    tensor: Tensor
    block: int
    kind: str
    epsilon_met: bool
    distance: float
    steps: int
    norm: float
    history: list[dict[str, float]]
    config: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """All but the tensor."""
        return {name: value for name, value in vars(self).items() if name != "tensor"}

    def save(self, path: str | Path, sidecar: Mapping[str, Any] | None = None) -> None:
        """Writes the tensor (kind "noise") and everything else into its sidecar.

        Args:
            path: `*.safetensors`.
            sidecar: `artifacts.provenance(...)` of the verb; None writes one with `config` alone.
        """
        sidecar = sidecar or artifacts.provenance("noise", self.config)
        facts = self.facts()
        shown = ("block", "kind", "epsilon_met", "distance", "steps", "norm")
        metrics = {**sidecar.get("metrics", {}), **{name: facts[name] for name in shown}}
        content = {**sidecar, "kind": "noise", "metrics": metrics, "noise": facts}
        artifacts.write_tensors(path, {"noise": self.tensor}, content)


def load_noise(path: str | Path) -> Noise:
    """Reads what `Noise.save` wrote.

    Raises:
        NsvitError: missing, damaged or of another kind.
    """
    tensors, sidecar = artifacts.read_tensors(path, "noise")
    return Noise(tensor=torch.from_numpy(tensors["noise"]), **sidecar["noise"])


def learn_noise(
    model: PixelModel,
    images_or_loader: Images | Pool,
    config: NoiseConfig,
    block: int = 0,
    generator: torch.Generator | None = None,
    snapshots: Snapshots | None = None,
) -> Noise:
    """Learns noise that starts large and moves until it barely changes predictions.

    METHOD.md section 4: start U(-limit, limit); AdamW on the noise alone; per batch first the stop
    test, then one step on the mean logit distance. Differs from the authors' code in three ways:
    weights are frozen (theirs collect gradients that are thrown away), clean logits of an
    in-memory pool are kept, and lr is constant (their cosine spans ten times the steps
    that are run, so it only falls to 97.6 % of its start).

    Args:
        model: in any mode; computed in evaluation mode with frozen weights, both restored.
        images_or_loader: pool (n, 3, H, W), float in [0, 1] or uint8, visited in order and
            cyclically in batches of `config.batch_size`; or a `Pool`; or an iterable of batches
            (or of tuples that begin with one), iterated again whenever it ends.
        config: limit, lr, weight_decay, epsilon, max_steps, early_stop, batch_size and loss.
        block: injection point.
        generator: CPU generator of the start.
        snapshots: to go on from, and to take; without them interrupted learning starts anew.

    Returns:
        Learned noise. `epsilon_met` is False when `max_steps` or a one-way iterator ended first;
        without early stop it says where the noise was at the last measurement.

    Raises:
        NsvitError: no such injection point, no images, or the loss is NaN or infinite.
        Stopped: the process was asked to end.
    """
    config = settled(model, config)
    start = (torch.rand(_shape(model, block), generator=generator) * 2 - 1) * config.limit
    noise = start.to(model.mean.device).requires_grad_()
    optimizer = torch.optim.AdamW([noise], lr=config.lr, weight_decay=config.weight_decay)
    squared = config.loss == "squared"
    scaler = precision.scaler(noise.device, config.precision)

    def change(clean: Tensor, noisy: Tensor, weight: float) -> float:
        loss = _logit_distance(clean, noisy, squared).mean() * weight
        (noise.grad,) = torch.autograd.grad(scaler.scale(loss), noise)
        distributed.sum_gradients([noise])
        scaler.step(optimizer)
        scaler.update()
        return distributed.total(loss)

    with torch.enable_grad():
        return _until_epsilon(
            *(model, images_or_loader, noise, block, config, change),
            *("learned", config.model_dump(), snapshots, optimizer),
        )


def random_noise(
    model: PixelModel,
    images_or_loader: Images | Pool,
    config: NoiseConfig,
    random: RandomNoiseConfig,
    block: int = 0,
    generator: torch.Generator | None = None,
    snapshots: Snapshots | None = None,
) -> Noise:
    """Gaussian noise, shrunk until it barely changes predictions (METHOD.md section 5.1).

    Args:
        model: in any mode; computed in evaluation mode.
        images_or_loader: as for `learn_noise`; each test is on the next batch.
        config: epsilon, max_steps and batch_size.
        random: std of the start N(0, std^2), token units, and the factor per failed test.
        block: injection point.
        generator: CPU generator of the start.
        snapshots: as for `learn_noise`.

    Returns:
        Random noise; `epsilon_met` says whether it ever came inside (unchecked in the authors').

    Raises:
        NsvitError: no such injection point, no images, logits are NaN or infinite, or no early
            stop: shrunk a fixed number of times, nothing is left of the noise.
    """
    if not config.early_stop:
        raise NsvitError(
            "random noise is shrunk until it is inside epsilon: noise.early_stop must be true"
        )
    config = settled(model, config)
    start = torch.randn(_shape(model, block), generator=generator) * random.std
    noise = start.to(model.mean.device)

    def change(clean: Tensor, noisy: Tensor, weight: float) -> float:
        noise.mul_(random.shrink)
        return 0.0

    settings = {**config.model_dump(), **random.model_dump()}
    with torch.no_grad():
        return _until_epsilon(
            *(model, images_or_loader, noise, block, config, change),
            *("random", settings, snapshots),
        )


def _until_epsilon(
    model: PixelModel,
    source: Images | Pool,
    noise: Tensor,
    block: int,
    config: NoiseConfig,
    change: Callable[[Tensor, Tensor, float], float],
    kind: str,
    settings: dict[str, Any],
    snapshots: Snapshots | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Noise:
    """Tests and changes `noise` in turn, one batch each, until inside epsilon or out of budget.

    Without early stop the test is only recorded. Several processes have one noise: they measure
    the same distance, take the same steps and stop together.
    """
    met, distance, device = False, math.nan, model.mean.device
    precision.refuse(device, config.precision, "noise.precision")
    compiled.refuse(device, config.compile, "noise.compile")
    distributed.refuse_small_batch(config.batch_size, "noise.batch_size")
    steps, history = distributed.main_first(lambda: _go_on(snapshots, noise, optimizer))
    distributed.refuse_different(steps, "snapshots of noise")
    distributed.broadcast(noise.detach())

    def state() -> State:
        moments = {} if optimizer is None else optimizer_tensors(optimizer)
        return {"noise": noise, **moments}, {"steps": steps, "history": history}

    stopped = nullcontext() if snapshots is None else snapshots.upon_stop(state)
    with frozen(model), compiled.blocks(model, config.compile, "noise.compile"), stopped:
        visits = batches_with_logits(
            model, source, config.batch_size, steps, config.precision, block
        )
        left = range(steps, config.max_steps)
        budget = runtime.progress(left, f"{kind} noise, block {block}")
        for step, (images, clean, weight, prefix) in zip(budget, visits, strict=False):
            stopping.point() if snapshots is None else snapshots.offer(state)
            with (
                inject(model, noise, block),
                resumed(model, prefix),
                precision.autocast(device, config.precision),
            ):
                noisy = precision.full(model(images), config.precision)
            measured = probability_distance(clean, noisy.detach()).mean()
            distance = distributed.total(measured * weight)
            _check_finite(distance, kind, block, step)
            budget.note(distance=distance, epsilon=config.epsilon)
            history.append({"step": step, "distance": distance, "norm": _norm(noise)})
            met = distance < config.epsilon
            if met and config.early_stop:
                break
            _check_finite(change(clean, noisy, weight), kind, block, step)
            steps = step + 1
    if not history:
        raise NsvitError(f"{kind} noise at block {block}: no images")
    thin = [entry for entry in history[:-1] if entry["step"] % HISTORY_EVERY == 0]
    log.log(
        logging.DEBUG if met else logging.WARNING,
        "%s noise at block %d: distance %.4f after %d steps, epsilon %g %s",
        kind, block, distance, steps, config.epsilon, "met" if met else "not met",
    )  # fmt: skip
    return Noise(
        tensor=noise.detach().clone(),
        block=block,
        kind=kind,
        epsilon_met=met,
        distance=distance,
        steps=steps,
        norm=_norm(noise),
        history=[*thin, history[-1]],
        config=settings,
    )


def _go_on(
    snapshots: Snapshots | None, noise: Tensor, optimizer: torch.optim.Optimizer | None
) -> tuple[int, list[dict[str, float]]]:
    """Puts noise and optimiser where the last snapshot left them: steps done, and their history."""
    found = None if snapshots is None else snapshots.load()
    if found is None:
        return 0, []
    tensors, facts = found
    with torch.no_grad():
        noise.copy_(tensors.pop("noise"))
    if optimizer is not None:
        load_optimizer(optimizer, tensors)
    return int(facts["steps"]), list(facts["history"])


def _shape(model: PixelModel, block: int) -> tuple[int, int, int]:
    check_model(model, "noise")
    tokens, width = model.token_shape
    check_noise_shape(model, torch.empty(1, tokens, width, device="meta"), block)
    return 1, tokens, width


def _norm(noise: Tensor) -> float:
    return float(noise.detach().norm())


def _check_finite(value: float, kind: str, block: int, step: int) -> None:
    if not math.isfinite(value):
        raise NsvitError(
            f"{kind} noise at block {block}: the distance is {value} at step {step}; the model's "
            "weights or the images hold NaN or infinite values, or limit or lr is far too large"
        )


def logit_distance(clean: Tensor, noisy: Tensor) -> Tensor:
    """L2 distance of logits (B, classes), per image (B,)."""
    return _logit_distance(clean, noisy, squared=False)


def probability_distance(clean: Tensor, noisy: Tensor) -> Tensor:
    """Sum over classes of the squared difference of probabilities, per image (B,), in [0, 2].

    This is what epsilon bounds, in the authors' code as here; the paper's text bounds the logit
    distance instead.
    """
    return (clean.softmax(dim=1) - noisy.softmax(dim=1)).square().sum(dim=1)


def _logit_distance(clean: Tensor, noisy: Tensor, squared: bool) -> Tensor:
    difference = noisy - clean
    return difference.square().sum(dim=1) if squared else difference.norm(dim=1)
