"""Evaluation from files, beside the published evaluator.

- plain evaluation of one set, with decoding;
- the eleven columns of the main table for one model: clean, three attacks, and seven further sets;
- the same set once and four times as large: nsvit's memory should not grow with it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.naive import attacks
from benchmarks.naive import evaluation as naive
from benchmarks.runner import Case
from benchmarks.subjects import NAIVE, Size, drawn_set, image_set, sizes
from nsvit import runtime
from nsvit.attacks.steps import uniform
from nsvit.config import ConditionConfig
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.evaluation import evaluate
from nsvit.models import PixelModel, build
from nsvit.specs import EvaluateSpec

OURS = "nsvit"
#: Of issue 7, for one model under eleven columns.
TARGET = 2.0
FGSM_RADIUS = 1
CW = {"radius": 0.5, "steps": 20, "binary_search_steps": 2, "initial_c": 1.0, "lr": 0.01}
PATCH_STEPS = 25
#: Sets without an attack, and the kind of pictures that stands for each.
OTHERS = {"damagenet": "val", "a": "a", "v2": "v2", "r": "r", "sketch": "sketch",
          "stylized": "stylized"}  # fmt: skip

Found = dict[str, np.ndarray]


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    found = [flat()]
    for place, size in enumerate(sizes(args)):
        found.append(plain(size, 8 if size.big and size.device.type == "cpu" else 200))
        if place == 0:
            found.append(columns(size, args.pictures, max(args.pictures // 2, 1)))
    return found


class Folder:
    """Pictures on disk that are made when they are first asked for, and go with this object."""

    def __init__(self, make: Callable[[Path], dict[str, ImageSet]]) -> None:
        self._make = make
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._sets: dict[str, ImageSet] = {}

    @property
    def sets(self) -> dict[str, ImageSet]:
        """By slug."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="nsvit-bench-")
            self._sets = self._make(Path(self._folder.name))
        return self._sets


def plain(size: Size, count: int) -> Case:
    """Decoding and one pass."""
    side = size.model.image_size[0]
    folder = Folder(lambda root: {"val": drawn_set(root / "val", count, side)})
    conditions = {"clean": ConditionConfig(label="Clean", set="val")}
    batch = min(count, 100)
    return Case(
        f"plain evaluation with decoding, {size.name}, batch {batch}",
        _sides(size.model, folder, conditions, batch),
        partial(_same, allowed=0),
        (NAIVE,),
        items=count,
        clock="wall",
        repeats=size.repeats,
        threads=size.threads,
    )


def columns(size: Size, count: int, attacked: int) -> Case:
    """The eleven columns: `count` pictures of each set (75 of C), fewer for CW and Patch-Fool."""
    side = size.model.image_size[0]

    def make(root: Path) -> dict[str, ImageSet]:
        found = {"val": drawn_set(root / "val", count, side)}
        found |= {s: drawn_set(root / s, count, side, kind) for s, kind in OTHERS.items()}
        return {**found, "c": _corrupted(drawn_set(root / "c", 75, side))}

    few = {"set": "val", "images": attacked}
    cw = {"name": "cw", **CW}
    fgsm = {"name": "fgsm", "radius": f"{FGSM_RADIUS}/255"}
    patch_fool = {"name": "patch_fool", "steps": PATCH_STEPS}
    given: dict[str, dict[str, Any]] = {
        "clean": {"set": "val"},
        "patch_fool": {**few, "attack": patch_fool},
        "cw": {**few, "attack": cw},
        "fgsm": {"set": "val", "attack": fgsm},
        **{slug: {"set": slug} for slug in OTHERS},
        "c": {"set": "c", "metric": "corruption_error"},
    }
    conditions = {slug: ConditionConfig(label=slug, **own) for slug, own in given.items()}
    total = 2 * count + 2 * attacked + len(OTHERS) * count + 75
    return Case(
        f"eleven columns of one model, {size.name}",
        _sides(size.model, Folder(make), conditions, 250),
        partial(_same, allowed=1),
        (NAIVE,),
        items=total,
        clock="wall",
        repeats=size.repeats,
        threads=size.threads,
        targets={OURS: TARGET},
    )


def flat(count: int = 64, batch: int = 16) -> Case:
    """One set, and one four times as large, by a tiny model that takes large pictures."""
    shape = {"img_size": 224, "patch_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("vit_tiny_patch16_224", {**shape, "num_classes": 10}, (0.5,) * 3, (0.5,) * 3)
    folder = Folder(lambda root: {"val": drawn_set(root / "val", count, 224)})
    one, four = f"{count} pictures", f"{4 * count} pictures"

    def side(times: int) -> Callable[[], Found]:
        def work() -> Found:
            own = folder.sets["val"]
            several = own.subset(np.tile(np.arange(count), times))
            return _ours(model, {"val": several}, conditions, batch)

        return work

    conditions = {"clean": ConditionConfig(label="Clean", set="val")}

    def check(found: Mapping[str, Found]) -> str:
        first, more = found[one]["clean"], found[four]["clean"]
        if not np.array_equal(np.tile(first, 4), more):
            raise NsvitError("the same pictures got other predictions")
        return "the same predictions for the same pictures"

    sides = {one: side(1), four: side(4)}
    folder.sets  # noqa: B018 - makes the pictures now, so that their memory is not counted
    side(1)()
    return Case(
        f"memory of evaluation, pictures of 224 pixels, batch {batch}",
        sides,
        check,
        unit="set",
        clock="wall",
        repeats=1,
        flat=(one, four),
    )


# --- sides and checks -----------------------------------------------------------------------


def _sides(
    model: PixelModel, folder: Folder, conditions: Mapping[str, ConditionConfig], batch: int
) -> dict[str, Callable[[], Found]]:
    wanting = deepcopy(model).requires_grad_(True)

    def published() -> Found:
        asked = {slug: _naive(folder.sets, one) for slug, one in conditions.items()}
        return naive.evaluate(wanting, asked, batch)

    folder.sets  # noqa: B018 - makes the pictures before anything is timed
    return {NAIVE: published, OURS: lambda: _ours(model, folder.sets, conditions, batch)}


def _ours(
    model: PixelModel,
    sets: Mapping[str, ImageSet],
    conditions: Mapping[str, ConditionConfig],
    batch: int,
) -> Found:
    spec = EvaluateSpec(
        model="m", arm="a", seeds=(0,), batch_size=batch, conditions=dict(conditions)
    )
    frame = evaluate(model, sets, spec)
    rows = {slug: frame[frame["condition"] == slug] for slug in conditions}
    return {slug: own["prediction"].to_numpy() for slug, own in rows.items()} | {
        f"labels of {slug}": own["label"].to_numpy() for slug, own in rows.items()
    }


def _naive(sets: Mapping[str, ImageSet], condition: ConditionConfig) -> naive.Condition:
    own = sets[condition.set]
    own = own if condition.images is None else own.take(condition.images)
    paths, labels = own.frame["path"].tolist(), own.labels.tolist()
    attack = None if condition.attack is None else ATTACKS[condition.attack.name]
    return naive.Condition(own.root, paths, labels, attack)


def _fgsm(model: PixelModel, images: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    return attacks.fgsm(model, images, labels, FGSM_RADIUS / 255)


def _cw(model: PixelModel, images: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    return attacks.cw(model, images, labels, **CW)  # type: ignore[arg-type]


def _patch_fool(model: PixelModel, images: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    seeds = [runtime.seed_for("attack", "patch_fool", 0, name) for name in names]
    start = uniform(images, seeds, "patch")
    return attacks.patch_fool(model, images, labels, start=start, steps=PATCH_STEPS)


ATTACKS: dict[str, naive.Attack] = {"fgsm": _fgsm, "cw": _cw, "patch_fool": _patch_fool}


def _corrupted(drawn: ImageSet) -> ImageSet:
    """The pictures as if each were another cell of C; what is on them costs nothing."""
    cells = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    rows = zip(drawn.frame["path"], drawn.labels.tolist(), cells, strict=True)
    return image_set("c", drawn.root, [(path, own, *cell) for path, own, cell in rows])


def _same(found: Mapping[str, Found], allowed: int) -> str:
    """Says how far the predictions agree.

    Args:
        found: of both sides.
        allowed: pictures of an attacked condition that nsvit may leave unbroken though the
            published loop breaks them. It may break more: it keeps what has worked.

    Raises:
        NsvitError: they do not agree.
    """
    one, two, told = found[NAIVE], found[OURS], []
    for slug, predicted in one.items():
        labels = two[f"labels of {slug}"]
        broken = int((predicted != labels).sum()), int((two[slug] != labels).sum())
        told.append(f"{slug} {broken[0]}" + (f"/{broken[1]}" if broken[0] != broken[1] else ""))
        if slug in ATTACKS:
            if broken[1] < broken[0] - allowed:
                raise NsvitError(f"{slug}: {broken[1]} wrong predictions instead of {broken[0]}")
        elif not np.array_equal(predicted, two[slug]):
            raise NsvitError(f"{slug}: other predictions")
    return f"wrong predictions (both alike, or {NAIVE}/{OURS}): " + ", ".join(told)
