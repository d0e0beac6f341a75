"""What a job computes: passes of pictures through a model, counted from its settings.

Counted as the code runs them, with every batch at its full size. Where the code may stop early
(noise inside epsilon, pictures whose prediction has fallen) the number is the most it can be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nsvit import config as c
from nsvit.planning.pictures import Sizes
from nsvit.planning.vit import VitShape

#: At most so many pictures are looked at before an attack: `nsvit.readings.EXAMINED`.
EXAMINED = 50
#: Seconds of a core to read a picture of ImageNet's size and cut it; one that has its size already,
#: as those of ImageNet-C; and to augment one for training. The first two are measured
#: (docs/plan.md), the third is an assumption.
READ_SECONDS, CUT_SECONDS, AUGMENT_SECONDS = 0.004, 0.0005, 0.012
#: Random noise of this standard deviation, token units, moves no prediction.
NEXT_TO_NOTHING = 1e-4
#: Bytes of 8-bit pixels that are kept in memory: `nsvit.inputs.KEEP_BYTES`, a quarter for pools.
KEEP_BYTES = 1 << 30
#: Pictures on which it is tried whether passes can begin at the noise: `nsvit.prefixes.TRIED`.
TRIED = 2
#: Bytes of what comes before the noise that a pool keeps: `nsvit.visits.KEEP_PREFIXES`.
KEEP_PREFIXES = KEEP_BYTES // 4


@dataclass(frozen=True)
class Work:
    """One kind of work in a job.

    Attributes:
        what: the kind, in a word or two.
        forward: pictures through forward passes.
        gradient: pictures through backward passes to pixels or noise, with frozen weights.
        backward: pictures through backward passes to the weights.
        flops: of all these passes; None where the model's shape is not known.
        decoded: pictures read from disk.
        reading: seconds of one core that this takes.
        at_most: it may be less, where something stops early.
    """

    what: str
    forward: int = 0
    gradient: int = 0
    backward: int = 0
    flops: float | None = 0.0
    decoded: int = 0
    at_most: bool = False
    reading: float = 0.0


def passes(
    what: str,
    shape: VitShape | None,
    forward: int = 0,
    gradient: int = 0,
    backward: int = 0,
    decoded: int = 0,
    at_most: bool = False,
    each: float = READ_SECONDS,
) -> Work:
    """Work of whole passes through one model, and of reading, `each` seconds a picture."""
    flops = None
    if shape is not None:
        flops = (
            forward * shape.forward_flops
            + gradient * shape.input_backward_flops
            + backward * shape.backward_flops
        )
    elif not forward + gradient + backward:
        flops = 0.0
    return Work(what, forward, gradient, backward, flops, decoded, at_most, decoded * each)


def added(what: str, works: Iterable[Work]) -> Work:
    """The sum of several."""
    every = list(works)
    flops = [work.flops for work in every]
    return Work(
        what,
        sum(work.forward for work in every),
        sum(work.gradient for work in every),
        sum(work.backward for work in every),
        None if None in flops else sum(value for value in flops if value is not None),
        sum(work.decoded for work in every),
        any(work.at_most for work in every),
        sum(work.reading for work in every),
    )


# --- noise ------------------------------------------------------------------------------------


def learned(
    shape: VitShape | None,
    config: c.NoiseConfig,
    block: int,
    what: str,
    each: float = READ_SECONDS,
) -> Work:
    """Learning one noise: per step a noisy pass and its gradient, and the clean pass.

    The clean logits of a pool that fits into memory are computed once, else at every step. Noisy
    passes begin at the block (`nsvit.prefixes`), of which a pool keeps what comes before as far as
    that fits; whether they can is tried at the start, by a whole pass and one that begins there.
    """
    shown = config.max_steps * min(config.batch_size, config.pool)
    pixels = 3 * shape.image**2 if shape else KEEP_BYTES
    in_memory = config.pool * pixels <= KEEP_BYTES // 4
    clean = min(shown, config.pool) if in_memory else shown
    tried = 2 * min(TRIED, config.batch_size, config.pool)
    flops = None
    if shape is not None:
        before = shape.embed_flops + block * shape.block_flops
        prefixes = config.pool * 4 * shape.tokens * shape.width
        again = (shown - clean) * max(0.0, 1.0 - KEEP_PREFIXES / prefixes)
        above = (shape.depth - block) / shape.depth
        back = above * (shape.input_backward_flops - shape.embed_flops)
        flops = (tried + shown + clean) * shape.forward_flops + shown * back
        flops -= (shown - again) * before
    forward = tried + shown + clean
    return Work(what, forward, shown, 0, flops, clean, config.early_stop, clean * each)


def shrunk(
    shape: VitShape | None,
    config: c.NoiseConfig,
    random: c.RandomNoiseConfig,
    what: str,
    each: float = READ_SECONDS,
) -> Work:
    """Shrinking random noise: a clean and a noisy pass per test, until it is next to nothing."""
    shrinkings = math.ceil(math.log(NEXT_TO_NOTHING / random.std) / math.log(random.shrink))
    steps = min(config.max_steps, max(1, 1 + shrinkings))
    shown = steps * min(config.batch_size, config.pool)
    return passes(what, shape, 2 * shown, decoded=shown, at_most=True, each=each)


# --- attacks ----------------------------------------------------------------------------------


def attack(
    config: c.AttackConfig, shape: VitShape | None, source: VitShape | None, count: int
) -> Work:
    """An attack on so many pictures, and the pass over what it made of them."""
    if config.name == "fgsm":  # its gradient is shared by all radii: see `reading`
        return passes("attack", shape, count)
    if config.name == "mi_fgsm":
        own = passes("attack", shape, count)
        return added(
            "attack", [own, passes("attack", source, config.steps * count, config.steps * count)]
        )
    if config.name == "pgd":
        steps = config.restarts * config.steps
        tests = config.random_start + (config.restarts if config.restarts > 1 else 0)
        forward = (steps + tests + 1) * count
        return passes("attack", shape, forward, steps * count, at_most=True)
    if config.name == "cw":
        steps = config.binary_search_steps * config.steps
        return passes("attack", shape, (steps + 2) * count, steps * count, at_most=True)
    if config.name == "patch_fool":
        gradients = config.steps * (2 if config.mode == "attention" else 1)
        return passes("attack", shape, (config.steps + 2) * count, gradients * count, at_most=True)
    return _ensemble(config, shape, count)


def _ensemble(config: c.AutoAttackConfig, shape: VitShape | None, count: int) -> Work:
    """AutoAttack: each part tests what is left, then searches on it."""
    each = {
        "apgd-ce": (config.steps, config.steps),
        "apgd-dlr": (config.steps, config.steps),
        "apgd-t": (config.targets * config.steps, config.targets * config.steps),
        "fab": (config.steps, config.steps * config.targets),
        "fab-t": (config.targets * config.steps, config.targets * config.steps),
        "square": (config.queries, 0),
    }
    forward = 2 + sum(each[part][0] + 2 for part in config.parts)
    gradient = sum(each[part][1] for part in config.parts)
    return passes("attack", shape, forward * count, gradient * count, at_most=True)


# --- evaluation -------------------------------------------------------------------------------


def evaluation(
    conditions: Mapping[str, c.ConditionConfig],
    sizes: Sizes,
    sets: Mapping[str, c.SetConfig],
    shape: VitShape | None,
    sources: Mapping[str, VitShape | None],
    batch_size: int,
    first: Mapping[str, int] | None = None,
) -> list[Work]:
    """One model under some conditions: a work for each of the readings that they share.

    Args:
        conditions: by slug.
        sizes: of the sets.
        sets: of the configuration; those with `restrict` are masked.
        shape: of the model under test.
        sources: of the models that transfer attacks follow.
        batch_size: of the job.
        first: only the first n pictures of these sets, in place of the conditions' own `images`.
    """
    readings: dict[tuple[str, int | None, str], list[c.ConditionConfig]] = {}
    for condition in conditions.values():
        images = condition.images if first is None else first[condition.set]
        key = condition.set, images, cost_of(condition)
        readings.setdefault(key, []).append(condition)
    found = []
    for (name, images, _), group in readings.items():
        count = sizes.of(name, images)
        read = passes(name, shape, decoded=count, each=read_seconds(sets[name]))
        masked = sets[name].restrict
        found.append(
            added(name, [read, *_reading(group, count, masked, shape, sources, batch_size)])
        )
    return found


def read_seconds(own: c.SetConfig) -> float:
    """Seconds of a core to read a picture of a set: cut to size, or as it is."""
    return CUT_SECONDS if own.resize is None else READ_SECONDS


def cost_of(condition: c.ConditionConfig) -> str:
    """What a condition costs: those that cost alike share a reading (`nsvit.readings`)."""
    attack_ = condition.attack
    if attack_ is None or attack_.name == "fgsm":
        return "light"
    return "alone" if attack_.name == "autoattack" and not attack_.together else "heavy"


def _reading(
    group: list[c.ConditionConfig],
    count: int,
    masked: bool,
    shape: VitShape | None,
    sources: Mapping[str, VitShape | None],
    batch_size: int,
) -> list[Work]:
    """The passes of conditions on the same pictures; the clean pass and FGSM's gradient once."""
    parts = []
    if any(one.attack is None for one in group):
        parts.append(passes("clean", shape, count))
    views = {one.restricted and masked for one in group if one.attack is not None}
    few = min(EXAMINED, batch_size, count)
    if views:
        parts.append(passes("look", shape, 2 * few * len(views), few * len(views), decoded=few))
    single = [one for one in group if one.attack is not None and one.attack.name == "fgsm"]
    shared = len({one.restricted and masked for one in single})
    parts.append(passes("gradient", shape, count * shared, count * shared))
    for one in group:
        if one.attack is not None:
            source = sources.get(getattr(one.attack, "source", ""))
            parts.append(attack(one.attack, shape, source, count))
    return parts
