"""The loss of every arm: two terms from one forward pass over two halves of a batch.

| kind | second half | second term |
|---|---|---|
| plain | the same pictures, zeros added to the tokens | cross-entropy |
| random, nullspace | the same pictures, noise added to the tokens | cross-entropy |
| madry | attacked pictures | beta x cross-entropy |
| trades | attacked pictures | beta x KL(clean prediction, adversarial prediction) |

With Mixup or CutMix both halves are the mixed pictures, with the same soft labels, and the attack
is on them. The first half is the clean pictures and its term their cross-entropy, always.
METHOD.md sections 5 and 5.2. Differs from the paper's code: one concatenated pass in training
mode for both halves, the same pictures, augmentation, batch size and steps for all arms (its
Madry and TRADES came from another script with weaker augmentation and smaller batches). As there,
TRADES lets gradients through the clean prediction too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from nsvit.attacks import ThreatModel, madry_images, trades_images
from nsvit.config import AdversarialConfig, ArmKind, FinetuneConfig, radius_value
from nsvit.models import PixelModel, inject

#: The kinds that train on attacked pictures.
ADVERSARIAL: frozenset[ArmKind] = frozenset({"madry", "trades"})


def attacked(
    model: PixelModel,
    images: Tensor,
    labels: Tensor,
    kind: ArmKind,
    config: AdversarialConfig,
    seeds: Sequence[int],
) -> Tensor:
    """The pictures that `madry` or `trades` trains on beside the clean ones.

    Args:
        model: attacked in evaluation mode with frozen weights; both restored.
        images: (B, 3, H, W) pixels in [0, 1], augmented.
        labels: (B,) class indices, or (B, classes) soft labels of mixed pictures.
        kind: "madry" or "trades".
        config: linf radius, step size and steps.
        seeds: one per picture, for its random start.

    Returns:
        (B, 3, H, W) pixels in [0, 1] within the radius, without a graph.
    """
    threat = ThreatModel(radius_value(config.radius))
    steps, step_size = config.steps, radius_value(config.step_size)
    if kind == "madry":
        return madry_images(model, images, labels, threat, steps, step_size, seeds)
    return trades_images(model, images, threat, steps, step_size, seeds)


@contextlib.contextmanager
def shifted(model: PixelModel, shift: Tensor | None, count: int, block: int) -> Iterator[None]:
    """Inside, passes over [images; second] add a shift to the second half's patch tokens.

    Blocks that are computed again on the way back need it until the backward pass is done.

    Args:
        model: what is passed through.
        shift: (1, N, D), token units; None leaves the tokens alone.
        count: pictures in each half.
        block: injection point.
    """
    if shift is None:
        yield
        return
    each = shift.expand(count, -1, -1)
    with inject(model, torch.cat([torch.zeros_like(each), each]), block):
        yield


def two_terms(logits: Tensor, labels: Tensor, kind: ArmKind, config: FinetuneConfig) -> Tensor:
    """(2,): the two terms of the loss, in nats; the loss is their sum.

    Args:
        logits: (2B, classes) of both halves.
        labels: the same for both: (B,) class indices, or (B, classes) soft labels of mixed
            pictures, which are smoothed already.
        kind: of the arm.
        config: label smoothing (of every cross-entropy) and `adversarial.beta`.
    """
    clean, other = logits.chunk(2)
    smoothing = config.label_smoothing if labels.ndim == 1 else 0.0
    first = cross_entropy(clean, labels, label_smoothing=smoothing)
    if kind == "trades":
        second = divergence(clean, other)
    else:
        second = cross_entropy(other, labels, label_smoothing=smoothing)
    if kind in ADVERSARIAL:
        second = config.adversarial.beta * second
    return torch.stack([first, second])


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(other)) of logits (B, classes): summed, divided by B.

    From logarithms, so that a probability that rounds to zero has a gradient (of zero).
    """
    return kl_div(
        other.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True
    )
