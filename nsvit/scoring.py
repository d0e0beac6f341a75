"""What a model says of every picture of every condition: plans, passes and rows.

Each set is read once; conditions on the same pictures share the clean pass and whatever of an
attack does not depend on its radius.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nsvit import runtime
from nsvit.attacks import (
    ATTACKS,
    Context,
    Started,
    ThreatModel,
    examine,
    refuse,
    settings_of,
    threat_of,
)
from nsvit.config import AttackConfig, ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.inputs import Pictures, check_fits, keep
from nsvit.models import PixelModel, frozen, load_model

if TYPE_CHECKING:
    from nsvit.specs import EvaluateSpec

log = logging.getLogger(__name__)

#: The columns of a records frame, in order.
COLUMNS = (
    *("model", "arm", "seed", "round", "condition", "set", "corruption", "severity"),
    *("attack", "radius", "sample", "label", "prediction", "correct"),
    *("confidence", "label_probability", "norm", "distance"),
)


class Restricted(nn.Module):
    """A classifier whose logits outside the allowed classes are minus infinity.

    Attacks on a restricted set go through this too, so that they attack what is scored.
    """

    def __init__(self, model: nn.Module, allowed: Sequence[int] | None, where: str) -> None:
        super().__init__()
        self.model = model
        self.where = where
        self.allowed = None if allowed is None else list(allowed)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, 3, H, W) in [0, 1].

        Raises:
            NsvitError: the model's own logits are not finite.
        """
        logits = self.model(images)
        if not bool(torch.isfinite(logits).all()):
            raise NsvitError(
                f"{self.where}: the logits are not finite; the weights are damaged or the "
                "training that made them diverged"
            )
        if self.allowed is None:
            return logits
        outside = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        outside[self.allowed] = False
        return logits.masked_fill(outside, float("-inf"))


# --- what is read once ----------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Conditions on the same pictures of a set: `rows` is a mask over them, None means all."""

    rows: np.ndarray | None
    conditions: Mapping[str, ConditionConfig]


@dataclass(frozen=True)
class Reading:
    """One pass over the pictures of one set."""

    slug: str
    pictures: Pictures
    shares: Sequence[Share]


def by_set(conditions: Mapping[str, ConditionConfig]) -> dict[str, dict[str, ConditionConfig]]:
    """The conditions of each set, in the order the sets are first named."""
    grouped: dict[str, dict[str, ConditionConfig]] = {}
    for slug, condition in conditions.items():
        grouped.setdefault(condition.set, {})[slug] = condition
    return grouped


def plan_readings(
    sets: Mapping[str, ImageSet], spec: EvaluateSpec, several: bool = False
) -> list[Reading]:
    """One reading per set; decoded into memory, where that fits, if several models read it."""
    plans = [_plan(slug, sets[slug], found) for slug, found in by_set(spec.conditions).items()]
    if not several:
        return plans
    return [replace(plan, pictures=keep(plan.pictures.image_set)) for plan in plans]


def _plan(slug: str, image_set: ImageSet, conditions: Mapping[str, ConditionConfig]) -> Reading:
    """One reading that serves every condition of a set, though some use only n pictures."""
    by_images: dict[int | None, dict[str, ConditionConfig]] = {}
    for name, condition in conditions.items():
        by_images.setdefault(condition.images, {})[name] = condition
    paths = image_set.frame["path"]
    masks = {
        n: np.ones(len(paths), bool)
        if n is None
        else paths.isin(image_set.take(n).frame["path"]).to_numpy()
        for n in by_images
    }
    read = np.flatnonzero(np.any(list(masks.values()), axis=0))
    if len(read) < len(image_set):
        image_set = image_set.subset(read)
    shares = [Share(masks[n][read], group) for n, group in by_images.items()]
    return Reading(slug, Pictures(image_set), shares)


# --- what is computed -----------------------------------------------------------------------

#: Prediction, its probability, the label's probability and the size of the attack's change, of
#: every picture of a condition.
Scores = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

#: Pictures on which a model is examined before it is attacked.
_EXAMINED = 8


def load_sources(spec: EvaluateSpec) -> dict[str, PixelModel]:
    """The models that the conditions' transfer attacks follow."""
    return {
        slug: load_model(
            own.timm,
            own.mean,
            own.std,
            own.pretrained,
            **{k: tuple(v) if isinstance(v, list) else v for k, v in own.model_args.items()},
        ).to(runtime.device())
        for slug, own in spec.sources.items()
    }


def score_records(
    model: PixelModel,
    readings: Sequence[Reading],
    spec: EvaluateSpec,
    seed: int,
    round_: int,
    sources: Mapping[str, PixelModel],
) -> pd.DataFrame:
    """The records of one model: every reading once, rows in the order of the conditions.

    Args:
        model: the run's model; computed frozen, left as it was.
        readings: from `plan_readings`.
        spec: conditions and batch size.
        seed: value of the `seed` column, and part of every attack's seeds.
        round_: value of the `round` column.
        sources: the models that transfer attacks follow.

    Raises:
        NsvitError: a set or an attack does not fit the model, or logits are not finite.
    """
    for reading in readings:
        check_fits(model, reading.pictures.image_set)
    _refuse_attacks(model, readings, sources)
    frames: dict[str, pd.DataFrame] = {}
    with ExitStack() as stack:
        for one in (model, *sources.values()):
            stack.enter_context(frozen(one))
        for reading in readings:
            scores = _read(model, reading, spec, seed, sources)
            for share in reading.shares:
                rows = reading.pictures.image_set.frame
                rows = rows if share.rows is None else rows[share.rows]
                for slug, condition in share.conditions.items():
                    frames[slug] = _frame(rows, scores[slug], slug, condition, spec, seed, round_)
    return pd.concat([frames[slug] for slug in spec.conditions], ignore_index=True)


def _refuse_attacks(
    model: PixelModel, readings: Sequence[Reading], sources: Mapping[str, PixelModel]
) -> None:
    """Refuses attacks that cannot run on this model, before any picture is read."""
    for reading in readings:
        allowed = reading.pictures.image_set.allowed
        classes = model.num_classes if allowed is None else len(allowed)
        for share in reading.shares:
            for slug, condition in share.conditions.items():
                if condition.attack is not None:
                    source = sources.get(getattr(condition.attack, "source", ""))
                    refuse(condition.attack, model, source, classes, f"condition {slug!r}")


def _read(
    model: PixelModel,
    reading: Reading,
    spec: EvaluateSpec,
    seed: int,
    sources: Mapping[str, PixelModel],
) -> dict[str, Scores]:
    """The scores of every condition of a set, from one pass over its pictures."""
    image_set = reading.pictures.image_set
    where = f"model {spec.model!r} (arm {spec.arm}, seed {seed}) on set {reading.slug!r}"
    restricted = Restricted(model, image_set.allowed, where)
    followed = {
        slug: Restricted(source, image_set.allowed, f"source model {slug!r}")
        for slug, source in sources.items()
    }
    paths = image_set.frame["path"].tolist()
    doubtful = any(_iterates(c) for share in reading.shares for c in share.conditions.values())
    found: dict[str, list[Scores]] = {}
    start = 0
    total = -(-len(image_set) // spec.batch_size)
    batches = reading.pictures.batches(spec.batch_size, model.mean.device)
    for images, labels in runtime.progress(batches, f"evaluate {reading.slug}", total):
        stop = start + len(labels)
        if doubtful and start == 0:
            for doubt in examine(restricted, images[:_EXAMINED], labels[:_EXAMINED], where):
                log.warning("%s", doubt)
        for share in reading.shares:
            x, y, names = images, labels, paths[start:stop]
            if share.rows is not None and not share.rows[start:stop].all():
                chosen = torch.from_numpy(share.rows[start:stop]).to(images.device)
                x, y = images[chosen], labels[chosen]
                names = [n for n, own in zip(names, share.rows[start:stop], strict=True) if own]
            if len(y):
                batch = _Batch(x, y, names, followed)
                for slug, logits, distance in _logits(restricted, batch, share.conditions):
                    found.setdefault(slug, []).append(_score(logits, y, distance))
        start = stop
    return {
        slug: tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[misc]
        for slug, parts in found.items()
    }


def _iterates(condition: ConditionConfig) -> bool:
    """Whether a condition has an attack of several steps."""
    return condition.attack is not None and condition.attack.name != "fgsm"


@dataclass(frozen=True)
class _Batch:
    """Pictures, labels and names of one batch, and the models that transfer attacks follow."""

    images: Tensor
    labels: Tensor
    samples: Sequence[str]
    sources: Mapping[str, nn.Module]


def _logits(
    model: Restricted, batch: _Batch, conditions: Mapping[str, ConditionConfig]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Logits (B, classes) of one batch under each condition, and the size of its change (B,).

    The clean pass, and what an attack does before it knows the radius, are done only once.
    """
    clean: Tensor | None = None
    unchanged = batch.images.new_zeros(len(batch.images))
    started: dict[str, Started] = {}
    for slug, condition in conditions.items():
        attack = condition.attack
        if attack is None:
            if clean is None:
                with torch.inference_mode():
                    clean = model(batch.images)
            yield slug, clean, unchanged
            continue
        key = attack.model_dump_json(exclude={"radius", "norm"})
        if key not in started:
            started[key] = _start(model, batch, attack)
        threat: ThreatModel = threat_of(attack)
        attacked = started[key](threat)
        with torch.inference_mode():
            yield slug, model(attacked), threat.distance(batch.images, attacked)


def _start(model: Restricted, batch: _Batch, attack: AttackConfig) -> Started:
    """Begins an attack; its seeds hold neither model nor arm nor run, so that runs are paired."""
    seed = getattr(attack, "seed", 0)
    seeds = [runtime.seed_for("attack", attack.name, seed, name) for name in batch.samples]
    source = batch.sources.get(getattr(attack, "source", ""))
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
    spec: EvaluateSpec,
    seed: int,
    round_: int,
) -> pd.DataFrame:
    prediction, confidence, label_probability, distance = scores
    attack = condition.attack
    label = rows["label"].to_numpy()
    columns: dict[str, Any] = {
        "model": spec.model,
        "arm": spec.arm,
        "seed": seed,
        "round": round_,
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
