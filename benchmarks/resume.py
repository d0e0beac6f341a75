"""What it costs that a finetuning can go on: snapshots, and the state after each round.

The same finetuning with both and with neither; it writes the weights of its rounds either way,
since they are results. The line below the table says what part of the time they took, read from
the clock around them: steadier than the difference of two times. Fixed per snapshot, so that the
part is largest where rounds are short: the default experiment's are.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image

import nsvit
from benchmarks.runner import Case
from nsvit import rounds, snapshots
from nsvit.config import FinetuneConfig, NoiseConfig
from nsvit.data.layouts import ImageSet
from nsvit.data.menagerie.render import label, picture
from nsvit.errors import NsvitError
from nsvit.finetuning import finetune
from nsvit.models import PixelModel, build, load_model
from nsvit.specs import FinetuneSpec, Split

SHIPPED = Path(nsvit.__file__).parent / "pretrained"
WITHOUT, WITH = "nothing kept", "nsvit"
#: The part of the time that they may take.
MOST = 0.03


@dataclass
class Spent:
    """Of one finetuning: its weights, its seconds, and those for going on."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    total: float = 0.0
    kept: float = 0.0
    snapshots: int = 0
    states: int = 0

    @property
    def share(self) -> float:
        """The part of the time that was for going on."""
        return self.kept / self.total


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    vit_s = load_model(f"local-dir:{SHIPPED / 'vit_s'}")
    noise = NoiseConfig(limit=3.0, lr=0.1, epsilon=1e-9, max_steps=50, pool=96, batch_size=48)
    rates = {"lr": 3e-4, "lr_min": 3e-5, "augmentation": "light"}
    config = FinetuneConfig(rounds=3, steps=10, batch_size=48, noise=noise, **rates)
    found = [case("Finetuning as in the default run, 3 rounds", vit_s, config)]
    if args.large:
        big = build("vit_small_patch16_224", {"num_classes": 10}, (0.5,) * 3, (0.5,) * 3)
        noise = noise.model_copy(update={"max_steps": 8, "batch_size": 8})
        config = config.model_copy(
            update={"rounds": 2, "steps": 8, "batch_size": 8, "noise": noise}
        )
        found.append(case("Finetuning ViT-S/16 at 224 pixels, 2 rounds", big, config))
    return found


def case(name: str, model: PixelModel, config: FinetuneConfig) -> Case:
    """A finetuning, on pictures as the default experiment draws them."""
    sides = {side: partial(work, model, config, side) for side in (WITHOUT, WITH)}
    steps = config.rounds * (config.steps + config.noise.max_steps)
    return Case(
        name, sides, check, (WITHOUT,), items=steps, unit="step", clock="wall", repeats=2,
        extras={WITH: MOST},
    )  # fmt: skip


def work(model: PixelModel, config: FinetuneConfig, side: str) -> Spent:
    """One finetuning from the beginning, in a folder that is deleted."""
    spent = Spent()
    run = FinetuneSpec(
        model="m", arm="a", seed=0, kind="nullspace", finetune=config,
        split=Split(dev_images=24, seed=0),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="nsvit-bench-", dir=Path.cwd()) as folder:
        train = drawn(Path(folder) / "train", 96, model.image_size[0], "train")
        dev = drawn(Path(folder) / "dev", 24, model.image_size[0], "val")
        own = deepcopy(model)
        begun = time.perf_counter()
        with watched(spent, side == WITH):
            finetune(own, train, dev, run, Path(folder) / "run")
        spent.total = time.perf_counter() - begun
    spent.weights = own.net.state_dict()
    return spent


def check(found: Mapping[str, Any]) -> str:
    """Equal weights, and the part of the time that going on costs."""
    one, two = found[WITHOUT].weights, found[WITH].weights
    if not all(torch.equal(value, two[name]) for name, value in one.items()):
        raise NsvitError("snapshots change the weights")
    spent = found[WITH]
    return (
        f"the same weights; {spent.snapshots} snapshots and {spent.states} states took "
        f"{100 * spent.share:.2f} % of {spent.total:.1f} s in the first run"
    )


@contextmanager
def watched(spent: Spent, keeping: bool) -> Iterator[None]:
    """Counts snapshots and states and their seconds; or does without them."""

    def timed(original: Callable[..., None], counter: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            begun = time.perf_counter()
            if keeping:
                original(*args)
            spent.kept += time.perf_counter() - begun
            setattr(spent, counter, getattr(spent, counter) + 1)

        return call

    save = timed(snapshots.Snapshots.save, "snapshots")
    with (
        mock.patch.object(snapshots.Snapshots, "save", save),
        mock.patch.object(rounds, "write_checked", timed(rounds.write_checked, "states")),
    ):
        yield


def drawn(root: Path, count: int, size: int, kind: str) -> ImageSet:
    """Pictures on disk."""
    rows = []
    root.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(picture(7, kind, index, size)).save(root / f"{index}.png")
        rows.append((f"{index}.png", label(index), "", 0))
    frame = pd.DataFrame(rows, columns=["path", "label", "corruption", "severity"])
    frame = frame.astype({"label": np.int64, "severity": np.int8})
    classes = tuple(map(str, range(10)))
    return ImageSet(kind, root, frame, classes, classes, None, None, None)
