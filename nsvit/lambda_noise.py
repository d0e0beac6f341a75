"""Noise that trades its size against its effect (METHOD.md section 3).

One noise v for all images minimises E ||f(u + v) - f(u)|| - lambda log ||v||. Only for the lambda
study: noise to finetune with is learned in `nsvit.noise`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nsvit import distributed, runtime
from nsvit.config import LambdaConfig
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, frozen, inject
from nsvit.noise import logit_distance
from nsvit.prefixes import resumed
from nsvit.snapshots import Pieces
from nsvit.visits import Images, Pool, batches_with_logits

log = logging.getLogger(__name__)

#: Noises that closure mixes.
MIXED = 2
#: Below this agreement noise has drowned the pictures.
_DROWNED = 0.5
#: Below this growth, relative to the distance, logits have stopped moving with the noise.
_SATURATED = 0.2
#: The last steps over which both are averaged.
_LAST = 10


@dataclass(frozen=True)
class LambdaNoise:
    """Noise learned with one lambda.

    Attributes:
        weight: the lambda.
        draw: which start.
        tensor: (1, N, D), token units, at the output of the patch embedding; on the CPU.
        distance: mean L2 logit distance on the last batch, before the last step.
    """

    weight: float
    draw: int
    tensor: Tensor
    distance: float


def learn(
    model: PixelModel,
    pool: Images | Pool,
    weight: float,
    config: LambdaConfig,
    generator: torch.Generator,
    draw: int = 0,
) -> LambdaNoise:
    """Minimises the mean L2 logit distance minus `weight` times the log of the noise's norm.

    The paper names no optimiser. Here AdamW without decay, which would be a second force on the
    norm; lr falls to 0 as a cosine, so that little of the step's size is left in the noise.

    Args:
        model: in any mode; computed frozen, restored.
        pool: training pictures as `noise.learn_noise` takes them.
        weight: the lambda.
        config: limit, lr, steps, batch_size.
        generator: CPU generator of the start U(-limit, limit).
        draw: for the result.

    Raises:
        NsvitError: the loss is NaN or infinite, or has no minimum: the logits have stopped
            growing with the noise, so that larger noise only lowers the loss.
    """
    start = torch.rand((1, *model.token_shape), generator=generator) * 2 - 1
    noise = (start * config.limit).to(model.mean.device).requires_grad_()
    optimizer = torch.optim.AdamW([noise], lr=config.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    budget = runtime.progress(range(config.steps), f"lambda {weight:g}, draw {draw}")
    trace = []
    with frozen(model), torch.enable_grad():
        batches = batches_with_logits(model, pool, config.batch_size, block=0)
        for step, (images, clean, share, prefix) in zip(budget, batches, strict=False):
            with inject(model, noise), resumed(model, prefix):
                noisy = model(images)
            distance = logit_distance(clean, noisy).mean() * share
            loss = distance - share * (weight * noise.norm().log())
            (noise.grad,) = torch.autograd.grad(loss, noise)
            distributed.sum_gradients([noise])
            slope = float((noise.grad * noise.detach()).sum()) + weight
            same = (clean.argmax(1) == noisy.argmax(1)).float().mean() * share
            trace.append((distributed.total(distance), slope, distributed.total(same)))
            _check_finite(weight, step, distributed.total(loss), slope)
            optimizer.step()
            schedule.step()
    if not trace:
        raise NsvitError(f"lambda study: lambda {weight:g}: there are no training pictures")
    _check_bounded(weight, float(noise.detach().norm()), trace[-_LAST:])
    return LambdaNoise(weight, draw, noise.detach().cpu().clone(), trace[-1][0])


def _check_finite(weight: float, step: int, *values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise NsvitError(
            f"lambda study: lambda {weight:g}: the loss or its gradient is not finite at step "
            f"{step}; lambda_study.lr or .limit is far too large, or the model is damaged"
        )


def _check_bounded(weight: float, norm: float, trace: Sequence[tuple[float, float, float]]) -> None:
    """Refuses noise that drowns the pictures, and that nothing holds back any more.

    Then most predictions have changed, and per unit of log ||v|| the logit distance grows by less
    than lambda and by little of itself: by all of itself where logits are linear in the noise, by
    nothing where they have stopped moving (encoders end in a norm layer, so they do).

    Args:
        weight: the lambda.
        norm: of the noise.
        trace: logit distance, its slope and agreement on the last batches.
    """
    distance, slope, agreement = (sum(values) / len(values) for values in zip(*trace, strict=True))
    if agreement < _DROWNED and slope < min(weight, _SATURATED * distance):
        raise NsvitError(
            f"lambda study: lambda {weight:g}: the loss is unbounded: at norm {norm:.4g} only "
            f"{100 * agreement:.0f} % of predictions are left, and the logits (distance "
            f"{distance:.4g}) hardly grow with the noise any more; take a smaller lambda, or "
            "smaller lambda_study.limit, .lr or .steps"
        )


def learn_all(
    model: PixelModel,
    pool: Images,
    config: LambdaConfig,
    seed_parts: Sequence[object],
    pieces: Pieces | None = None,
) -> list[LambdaNoise]:
    """Noises for every lambda, each from a start of its own; two at least for closure's lambda.

    Args:
        model: its weights stay as they are.
        pool: training pictures; the clean logits of a tensor are computed once for all.
        config: lambdas, draws and how to learn.
        seed_parts: with lambda and draw they seed each start.
        pieces: where finished noises are kept and taken from.
    """
    shared = Pool(model, pool, config.batch_size) if isinstance(pool, Tensor) else pool
    learned = []
    for weight in config.lambdas:
        draws = max(config.draws, MIXED) if weight == config.closure.at else config.draws
        for draw in range(draws):
            found = None if pieces is None else pieces.get(f"lambda{weight!r}_draw{draw}")
            if found is not None:
                learned.append(LambdaNoise(weight, draw, found[0]["noise"], found[1]["distance"]))
                continue
            start = runtime.generator(*seed_parts, "lambda", weight, draw)
            learned.append(own := learn(model, shared, weight, config, start, draw))
            if pieces is not None:
                facts = {"distance": own.distance}
                pieces.put(f"lambda{weight!r}_draw{draw}", {"noise": own.tensor}, facts)
                distributed.barrier()
            log.info(
                "lambda %g, draw %d: norm %.2f, logit distance %.3f",
                weight, draw, float(own.tensor.norm()), own.distance,
            )  # fmt: skip
    return learned
