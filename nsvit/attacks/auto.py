"""AutoAttack (Croce and Hein 2020) through the package pyautoattack.

The package draws its random numbers per batch and reads the clock when it has no seed. Here every
picture is attacked alone with its own seed, unless `together` says otherwise. Its `state_path` is
not used: version 0.2.0 cannot read back the state that it writes (a set becomes a string).
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nsvit import runtime
from nsvit.attacks.folding import folding
from nsvit.attacks.steps import Context, Started, holds, seeds_for
from nsvit.attacks.threat import ThreatModel
from nsvit.config.attacks import MIN_CLASSES
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

#: The parts of the published standard version, in its order.
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
#: Of the package; it says there what makes its result doubtful.
_LOGGER = "auto-attack"
_REFERENCE = " See flags_doc.md for details."
#: Target classes of the standard version.
TARGETS = 9


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Nothing is shared between radii."""
    context = context or Context()
    return lambda threat: autoattack(
        model, images, labels, threat, seeds=context.seeds, **context.settings
    )[0]


def check(classes: int, parts: Sequence[str] = STANDARD) -> None:
    """Refuses AutoAttack where one of its parts cannot run.

    Raises:
        NsvitError: there are too few classes; names the part.
    """
    for part in parts:
        needed = MIN_CLASSES.get(part, 2)
        if classes < needed:
            raise NsvitError(
                f"attack autoattack: {classes} classes; its part {part} needs at least {needed}: "
                "leave it out of `parts`"
            )


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    parts: Sequence[str] = STANDARD,
    steps: int = 100,
    queries: int = 5000,
    targets: int = TARGETS,
    seeds: Sequence[int] | None = None,
    together: bool = False,
) -> tuple[Tensor, Tensor]:
    """Adversarial images by the ensemble, each part only on what the earlier ones left.

    Args:
        model: takes pixels in [0, 1]; freeze it first.
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.
        threat: bound and norm.
        parts: of the ensemble, in order.
        steps: of APGD and FAB.
        queries: of the square attack.
        targets: target classes, at most the number of classes less one.
        seeds: one per picture.
        together: one call for the whole batch. Faster, but then a picture's result depends on
            its batch, and only the first seed counts.

    Returns:
        (B, 3, H, W) pixels in [0, 1] inside the threat model, and (B,) bool: broken.

    Raises:
        NsvitError: there are too few classes for one of the parts.
    """
    seeds = seeds_for(images, seeds)
    result, broken = images.clone(), ~holds(model, images, labels)
    model, columns = _finite(model, images)
    check(len(columns), parts)
    left = torch.nonzero(~broken)[:, 0]
    if threat.radius == 0.0 or not len(left):
        return result, broken
    # The package numbers the classes from 0; labels outside the columns are never predicted.
    y = torch.searchsorted(columns, labels[left])
    targets = min(targets, len(columns) - 1)
    size = len(left) if together else 1
    said: Counter[str] = Counter()
    for rows, own in zip(left.split(size), y.split(size), strict=True):
        x, seed = images[rows], seeds[int(rows[0])] % 2**32
        with _hearing(said):
            found, broken[rows] = _call(model, x, own, threat, seed, parts, steps, queries, targets)
        result[rows] = threat.project(x, found.to(x))
    for text, calls in said.items():
        log.warning("autoattack, %d of %d calls: %s", calls, -(-len(left) // size), text)
    return result, broken


@contextmanager
def _hearing(said: Counter[str]) -> Iterator[None]:
    """Counts what the package warns of in one call, each text once, instead of showing it."""
    logger, heard = logging.getLogger(_LOGGER), set()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.add(record.getMessage().removesuffix(_REFERENCE))

    ear, propagate = Ear(logging.WARNING), logger.propagate
    logger.addHandler(ear)
    logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        heard |= {str(one.message) for one in caught}
    finally:
        logger.propagate = propagate
        logger.removeHandler(ear)
        said.update(heard)


def _call(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    seed: int,
    parts: Sequence[str],
    steps: int,
    queries: int,
    targets: int,
) -> tuple[Tensor, Tensor]:
    """One call of the package: its images, and which are broken."""
    import pyautoattack  # only here: other attacks start without it

    devices = [images.device] if images.device.type == "cuda" else []
    with (
        folding(model),
        runtime.seeded("autoattack", seed),
        torch.random.fork_rng(devices=devices),
    ):
        adversary = pyautoattack.AutoAttack(
            model,
            norm={"linf": "Linf", "l2": "L2"}[threat.norm],
            eps=threat.radius,
            version="custom",
            attacks=list(parts),
            seed=seed,
            device=images.device,
        )
        _budget(adversary, steps, queries, targets)
        found, predicted = adversary.run_standard_evaluation(images, labels, batch_size=len(images))
    return found.detach(), predicted != labels


def _budget(adversary: Any, steps: int, queries: int, targets: int) -> None:
    """The standard version's restarts, with our steps, queries and targets.

    APGD derives its checkpoints from the steps when it is made, so they are derived again.
    """
    for apgd in (adversary.apgd, adversary.apgd_targeted):
        apgd.n_restarts, apgd.n_iter, apgd.n_iter_orig = 1, steps, steps
        apgd.n_iter_2 = max(int(0.22 * steps), 1)
        apgd.n_iter_min = max(int(0.06 * steps), 1)
        apgd.size_decr = max(int(0.03 * steps), 1)
    adversary.apgd_targeted.n_target_classes = targets
    adversary.fab.n_restarts, adversary.fab.n_iter = 1, steps
    adversary.fab.n_target_classes = targets
    adversary.square.n_queries = queries


class _Columns(nn.Module):
    """A classifier among some classes only."""

    def __init__(self, model: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.model = model
        self.columns = columns

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[:, self.columns]


def _finite(model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """The model without classes that it may not predict, and the classes left, in order.

    Differences of logits are not numbers where evaluation set the logits of excluded classes to
    minus infinity.
    """
    with torch.no_grad():
        logits = model(images[:1])
    columns = torch.nonzero(logits[0].isfinite())[:, 0]
    if len(columns) == logits.shape[1]:
        return model, columns
    return _Columns(model, columns), columns
