"""What an evaluation reads, and with which models: plans, refusals, and what makes it doubtful.

A reading is one set, or the first n pictures of it, with the conditions on exactly these pictures
that cost alike. Batches are formed over a reading's own pictures, so that no record depends on
which other conditions there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nsvit import runtime
from nsvit.attacks import examine, refuse
from nsvit.config import ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.inputs import Pictures, check_fits
from nsvit.models import PixelModel, frozen, load_configured
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    from nsvit.specs import EvaluateSpec

#: The `round` of a run's final model.
FINAL = -1

#: Batches in a block of light conditions; of heavy ones each batch is a block. After a block the
#: rows of a condition can be put away.
BLOCK_BATCHES = 20

#: Pictures in a batch and block of an attack that takes each picture alone.
ALONE_PICTURES = 5

#: At most so many pictures, and at most a batch, on which a model is examined before an attack.
EXAMINED = 50

#: What a condition costs: a few passes per batch, many per batch, or many per picture.
Cost = Literal["light", "heavy", "alone"]


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
        return self.mask(logits)

    def mask(self, logits: Tensor) -> Tensor:
        """Logits (B, classes) with minus infinity for every class that is not allowed."""
        if self.allowed is None:
            return logits
        outside = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        outside[self.allowed] = False
        return logits.masked_fill(outside, float("-inf"))


# --- what is read, and by what --------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """The pictures that some conditions share."""

    slug: str
    pictures: Pictures
    conditions: Mapping[str, ConditionConfig]
    cost: Cost = "light"

    def batch_size(self, wanted: int) -> int:
        """Pictures in a batch, where a job wants so many."""
        return min(wanted, ALONE_PICTURES) if self.cost == "alone" else wanted

    def blocks(self, wanted: int) -> list[range]:
        """The rows of each block, the last one what is left, where a job wants such batches."""
        size = self.batch_size(wanted) * (BLOCK_BATCHES if self.cost == "light" else 1)
        total = len(self.pictures.image_set)
        return [range(k, min(k + size, total)) for k in range(0, total, size)]


def plan_readings(
    sets: Mapping[str, ImageSet], conditions: Mapping[str, ConditionConfig]
) -> list[Reading]:
    """One reading per set, number of pictures and cost, in the order they are first named."""
    groups: dict[tuple[str, int | None, Cost], dict[str, ConditionConfig]] = {}
    for slug, condition in conditions.items():
        key = condition.set, condition.images, cost_of(condition)
        groups.setdefault(key, {})[slug] = condition
    return [
        Reading(slug, Pictures(_first(sets[slug], images)), group, cost)
        for (slug, images, cost), group in groups.items()
    ]


def cost_of(condition: ConditionConfig) -> Cost:
    """What a condition costs, which says how often its rows are put away."""
    attack = condition.attack
    if attack is None or attack.name == "fgsm":
        return "light"
    return "alone" if attack.name == "autoattack" and not attack.together else "heavy"


def _first(image_set: ImageSet, images: int | None) -> ImageSet:
    """The first n pictures of every class in turn, in the set's own order."""
    if images is None:
        return image_set
    taken = image_set.frame["path"].isin(image_set.take(images).frame["path"])
    return image_set.subset(np.flatnonzero(taken))


def load_sources(spec: EvaluateSpec) -> dict[str, PixelModel]:
    """The models that the conditions' transfer attacks follow."""
    return {slug: load_configured(own).to(runtime.device()) for slug, own in spec.sources.items()}


@dataclass(frozen=True)
class Subject:
    """A model under test, and what its records say of it.

    Attributes:
        model: computed frozen, left as it was.
        name, arm, seed, round: the first four columns.
        batch_size: pictures per forward pass.
        sources: the models that transfer attacks follow.
    """

    model: PixelModel
    name: str
    arm: str
    seed: int
    round: int
    batch_size: int
    sources: Mapping[str, PixelModel]

    @classmethod
    def of(
        cls,
        model: PixelModel,
        spec: EvaluateSpec,
        seed: int,
        round_: int,
        sources: Mapping[str, PixelModel],
    ) -> Subject:
        """A model as a job's spec names it."""
        return cls(model, spec.model, spec.arm, seed, round_, spec.batch_size, sources)

    def where(self, reading: Reading) -> str:
        """Model, run and set, for messages."""
        number = "" if self.round == FINAL else f", round {self.round}"
        run = f"arm {self.arm}, seed {self.seed}{number}"
        return f"model {self.name!r} ({run}) on set {reading.slug!r}"

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode without gradients on weights, for this model and its sources."""
        with ExitStack() as stack:
            for one in (self.model, *self.sources.values()):
                stack.enter_context(frozen(one))
            yield


def refuse_unfit(subject: Subject, readings: Sequence[Reading]) -> None:
    """Refuses sets and attacks that do not fit a model, before any picture goes through one.

    Raises:
        NsvitError: names the set or the condition, the model and what does not fit.
    """
    for reading in readings:
        image_set = reading.pictures.image_set
        check_fits(subject.model, image_set)
        for slug, condition in reading.conditions.items():
            if condition.attack is None:
                continue
            masked = is_masked(reading, condition)
            classes = len(image_set.allowed or ()) if masked else subject.model.num_classes
            source = subject.sources.get(source_of(condition) or "")
            refuse(condition.attack, subject.model, source, classes, f"condition {slug!r}")
            if source is not None:
                check_fits(source, image_set)


def is_masked(reading: Reading, condition: ConditionConfig) -> bool:
    """Whether a condition's predictions are among some classes only."""
    return condition.restricted and reading.pictures.image_set.allowed is not None


def source_of(condition: ConditionConfig) -> str | None:
    """The source model that a condition's attack follows, if it follows one."""
    return getattr(condition.attack, "source", None)


@dataclass(frozen=True)
class Views:
    """The models as a reading's conditions see them: with and without the set's restriction."""

    subject: Subject
    reading: Reading

    def target(self, masked: bool) -> Restricted:
        """The model under test."""
        return self._targets[masked]

    def source(self, slug: str | None, masked: bool) -> Restricted | None:
        """The source model of that name, if one is named."""
        return None if slug is None else self._sources[slug, masked]

    @cached_property
    def _targets(self) -> dict[bool, Restricted]:
        allowed, where = self.reading.pictures.image_set.allowed, self.subject.where(self.reading)
        return {m: Restricted(self.subject.model, allowed if m else None, where) for m in (0, 1)}

    @cached_property
    def _sources(self) -> dict[tuple[str, bool], Restricted]:
        allowed = self.reading.pictures.image_set.allowed
        return {
            (slug, bool(m)): Restricted(
                model,
                allowed if m else None,
                f"source model {slug!r} on set {self.reading.slug!r}",
            )
            for slug, model in self.subject.sources.items()
            for m in (0, 1)
        }


def examine_reading(
    subject: Subject, reading: Reading, slugs: Iterable[str]
) -> dict[str, list[str]]:
    """What makes results on these pictures doubtful: the checks that need the model or the set.

    Pictures that the scan left out concern every condition, the rest those with an attack: the
    target is looked at for every attack, and the source for one that follows another model.
    Depends on the first pictures of the reading only.

    Args:
        subject: the model.
        reading: from `plan_readings`.
        slugs: conditions of the reading.
    """
    count = min(subject.batch_size, EXAMINED)
    views, few = Views(subject, reading), reading.pictures.part(0, count)
    device = subject.model.mean.device
    looked: dict[tuple[bool, str | None], list[str]] = {}
    lost, found = _left_out(reading), {}
    for slug in slugs:
        condition, own = reading.conditions[slug], list(lost)
        found[slug] = own
        if condition.attack is None:
            continue
        masked = is_masked(reading, condition)
        for source in dict.fromkeys((None, source_of(condition))):
            view = views.target(masked) if source is None else views.source(source, masked)
            if view is not None and (masked, source) not in looked:
                ((images, labels),) = few.batches(count, device)
                doubts = examine(view, images, labels, view.where)
                looked[masked, source] = [str(doubt) for doubt in doubts]
            own += looked.get((masked, source), [])
    return found


def _left_out(reading: Reading) -> list[str]:
    """What to say about a set whose scan left damaged pictures out."""
    own = reading.pictures.image_set
    if not own.skipped:
        return []
    count = len(own.skipped)
    text = (
        f"{count} {'pictures are' if count > 1 else 'picture is'} damaged and left out "
        f"(data.sets.{own.name}.damaged is 'skip'), such as {own.skipped[0]}"
    )
    return [str(Doubt("damaged", f"set {own.name!r}", text))]
