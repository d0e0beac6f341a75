"""What a model says of every picture of every condition: passes and rows.

Conditions of a reading share decoding, the clean pass and what an attack does the same at every
radius.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nsvit import cells, runtime
from nsvit.attacks import ATTACKS, Context, Started, settings_of, threat_of
from nsvit.config import AttackConfig, ConditionConfig
from nsvit.data.loading import spans_of
from nsvit.readings import Reading, Restricted, Subject, Views, is_masked, source_of

#: The columns of a records frame, in order.
COLUMNS = tuple(cells.TYPES)

#: Attacks that begin the same at every radius; the others begin anew for each condition.
_SAME_START = {"fgsm"}

#: Prediction, its probability, the label's probability and the size of the attack's change, of
#: every picture of a condition.
Scores = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def score_blocks(
    subject: Subject, reading: Reading, todo: Sequence[Iterable[str]] | None = None
) -> Iterator[tuple[int, str, pd.DataFrame]]:
    """The records of a reading, a block of a condition at a time, each as soon as it is computed.

    Args:
        subject: the model; keep it frozen meanwhile (`Subject.frozen`).
        reading: from `plan_readings`.
        todo: the conditions to compute in each block, all of them by default. Pictures of a
            block without any are not read.

    Yields:
        The block's number, a condition of it, and its frame with `COLUMNS`.

    Raises:
        NsvitError: logits are not finite.
    """
    views, size = Views(subject, reading), reading.batch_size(subject.batch_size)
    blocks = reading.blocks(subject.batch_size)
    wanted = [list(reading.conditions if todo is None else todo[k]) for k in range(len(blocks))]
    total = sum(-(-len(rows) // size) for rows, slugs in zip(blocks, wanted, strict=True) if slugs)
    batches = _batches(subject, reading, wanted)
    found: dict[str, list[Scores]] = {}
    for number, batch in runtime.progress(batches, f"evaluate {reading.slug}", total):
        conditions = {slug: reading.conditions[slug] for slug in wanted[number]}
        for slug, logits, distance in _logits(views, batch, conditions):
            found.setdefault(slug, []).append(_score(logits, batch.labels, distance))
            if batch.last:
                rows = reading.pictures.image_set.frame.iloc[blocks[number]]
                scores = _joined(found.pop(slug))
                yield number, slug, _frame(rows, scores, slug, conditions[slug], subject)


@dataclass(frozen=True)
class _Batch:
    """Pictures, labels and names of one batch, and whether it ends its block."""

    images: Tensor
    labels: Tensor
    samples: Sequence[str]
    last: bool


def _batches(
    subject: Subject, reading: Reading, wanted: Sequence[Sequence[str]]
) -> Iterator[tuple[int, _Batch]]:
    size, device = reading.batch_size(subject.batch_size), subject.model.mean.device
    names = reading.pictures.image_set.frame["path"]
    spans, numbers, last = [], [], []
    for number, rows in enumerate(reading.blocks(subject.batch_size)):
        if wanted[number]:
            own = [(rows.start + a, rows.start + b) for a, b in spans_of(len(rows), size)]
            spans += own
            numbers += [number] * len(own)
            last += [False] * (len(own) - 1) + [True]
    # All blocks in one go, so that pictures are read ahead across them.
    found = reading.pictures.read(spans, device)
    for (images, labels), span, number, ends in zip(found, spans, numbers, last, strict=True):
        yield number, _Batch(images, labels, names.iloc[slice(*span)].tolist(), ends)


def _joined(parts: Sequence[Scores]) -> Scores:
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _logits(
    views: Views, batch: _Batch, conditions: Mapping[str, ConditionConfig]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Logits (B, classes) of one batch under each condition, and the size of its change (B,).

    The clean pass is done once. What an attack does before it knows the radius is shared where
    it is the same for every radius, and only there: a search that ends at its radius would make
    a record depend on the other conditions.
    """
    clean: Tensor | None = None
    unchanged = batch.images.new_zeros(len(batch.images))
    started: dict[tuple[bool, str], Started] = {}
    for slug, condition in conditions.items():
        attack, masked = condition.attack, is_masked(views.reading, condition)
        model = views.target(masked)
        if attack is None:
            if clean is None:
                with torch.inference_mode():
                    clean = views.target(False)(batch.images)
            yield slug, model.mask(clean), unchanged
            continue
        radius = {"radius", "norm"} if attack.name in _SAME_START else set()
        key = masked, attack.model_dump_json(exclude=radius)
        if key not in started:
            source = views.source(source_of(condition), masked)
            started[key] = _start(model, batch, attack, source)
        threat = threat_of(attack)
        attacked = started[key](threat)
        with torch.inference_mode():
            yield slug, model(attacked), threat.distance(batch.images, attacked)


def _start(
    model: Restricted, batch: _Batch, attack: AttackConfig, source: Restricted | None
) -> Started:
    """Begins an attack; its seeds hold neither model nor arm nor run, so that runs are paired."""
    seed = getattr(attack, "seed", 0)
    seeds = [runtime.seed_for("attack", attack.name, seed, name) for name in batch.samples]
    context = Context(settings_of(attack), seeds, source)
    return ATTACKS[attack.name](model, batch.images, batch.labels, context)


def _score(logits: Tensor, labels: Tensor, distance: Tensor) -> Scores:
    probabilities = logits.float().softmax(1)
    prediction = logits.argmax(1)
    confidence = probabilities.gather(1, prediction[:, None])[:, 0]
    label_probability = probabilities.gather(1, labels[:, None])[:, 0]
    columns = prediction, confidence, label_probability, distance.float()
    return tuple(column.cpu().numpy() for column in columns)  # type: ignore[return-value]


def _frame(
    rows: pd.DataFrame,
    scores: Scores,
    slug: str,
    condition: ConditionConfig,
    subject: Subject,
) -> pd.DataFrame:
    prediction, confidence, label_probability, distance = scores
    attack = condition.attack
    label = rows["label"].to_numpy()
    columns: dict[str, Any] = {
        "model": subject.name,
        "arm": subject.arm,
        "seed": subject.seed,
        "round": subject.round,
        "condition": slug,
        "set": condition.set,
        "corruption": rows["corruption"].to_numpy(),
        "severity": rows["severity"].to_numpy(),
        "attack": attack.name if attack else "",
        "radius": _shown_radius(attack),
        "sample": rows["path"].to_numpy(),
        "label": label,
        "prediction": prediction,
        "correct": prediction == label,
        "confidence": confidence,
        "label_probability": label_probability,
        "norm": getattr(attack, "norm", "linf") if attack else "",
        "distance": distance,
    }
    return pd.DataFrame(columns, columns=list(COLUMNS))


def _shown_radius(attack: AttackConfig | None) -> str:
    """As "k/255" for linf, a decimal in pixel units for l2, "" where there is no bound."""
    if attack is None or attack.radius is None:
        return ""
    return attack.radius if isinstance(attack.radius, str) else format(attack.radius, ".9g")
