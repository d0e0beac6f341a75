"""One finetuning round in one process on one core, and in two processes on two cores.

The verb itself is run, in processes of its own; what counts is the seconds that it reports for its
last round (noise and steps), without start-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.attacks import SHIPPED
from benchmarks.runner import Case
from nsvit import artifacts, config, specs
from nsvit.data import layouts
from nsvit.data.menagerie.classes import SUBJECTS
from nsvit.data.menagerie.render import label, picture
from nsvit.errors import NsvitError

ONE, TWO = "1 process, 1 core", "2 processes, 2 cores"

#: Training and dev pictures.
PICTURES, DEV = 240, 40
#: Largest difference of a weight that is rounding, after two rounds.
TOLERANCE = 1e-4
STEPS = 10


@dataclass(frozen=True)
class Round:
    """What one run reported of its last round.

    Attributes:
        seconds: of its noise and steps.
        weights: what it ended with.
        noise_steps: of its noise.
        processes: that computed it.
    """

    seconds: float
    weights: Mapping[str, np.ndarray]
    noise_steps: int
    processes: int


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    if len(_cores()) < 2:
        raise NsvitError("benchmark of processes: this machine has one core")
    return [_case(name) for name in (("vit_s", "vit_b") if args.large else ("vit_b",))]


def _case(name: str) -> Case:
    sides = {ONE: partial(_finetune, name, 1), TWO: partial(_finetune, name, 2)}
    title = f"finetuning round with noise, {name}, batch 48"
    return Case(title, sides, _same, (ONE,), items=STEPS, unit="step", clock="reported", repeats=0)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _finetune(name: str, processes: int) -> Round:
    """Runs the verb on as many cores as processes, each with one thread."""
    noise = config.NoiseConfig(limit=3.0, epsilon=0.0, max_steps=40, pool=192, batch_size=48)
    settings = config.FinetuneConfig(
        rounds=2,
        steps=STEPS,
        batch_size=48,
        lr=1e-4,
        lr_min=1e-5,
        augmentation="light",
        noise=noise,
    )
    spec = specs.FinetuneSpec(
        model=name,
        arm="nullspace",
        seed=0,
        kind="nullspace",
        finetune=settings,
        split=specs.Split(dev_images=DEV, seed=0),
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        command = [sys.executable, "-m", "nsvit.cli", "finetune", "--spec", spec.model_dump_json()]
        command += ["--model", str(_model(name, folder)), "--index", str(_index(folder))]
        command += ["--out", str(folder / "run" / "history.json")]
        command += ["--threads", str(processes), "--processes", str(processes)]
        cores = _cores()[:processes]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NSVIT_DEVICE": "cpu"},
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NsvitError(f"{processes} processes: {done.stderr[-500:]}")
        history = artifacts.read_json(folder / "run" / "history.json")
        weights = load_file(folder / "run" / "model.safetensors")
    row = history["rounds"][-1]
    found = int(history["made_with"].get("processes", 1))
    seconds = row["noise_seconds"] + row["train_seconds"]
    return Round(seconds, weights, int(row["noise_steps"]), found)


def _model(name: str, folder: Path) -> Path:
    from nsvit.models import load_model, save_model

    path = folder / "model.safetensors"
    save_model(load_model(f"local-dir:{SHIPPED / name}"), path, artifacts.provenance("model", {}))
    return path


def _index(folder: Path) -> Path:
    """Drawn pictures in the layout of a training set, and their index."""
    wnids = [subject.wnid for subject in SUBJECTS]
    for number in range(PICTURES):
        path = folder / "train" / wnids[label(number)] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(7, "train", number, 48)).save(path)
    (folder / "classes.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    scan = specs.ScanSpec(
        name="train",
        root=str(folder),
        classes=str(folder / "classes.txt"),
        set=config.SetConfig(path="train"),
    )
    layouts.write_index(scan, folder / "train.parquet")
    return folder / "train.parquet"


def _same(found: Mapping[str, Any]) -> str:
    """Says how far the weights agree.

    Raises:
        NsvitError: not as many processes as asked for, or another result.
    """
    one, two = found[ONE], found[TWO]
    if (one.processes, two.processes) != (1, 2):
        raise NsvitError(f"{one.processes} and {two.processes} processes instead of 1 and 2")
    gaps = [_gap(name, value, two.weights[name]) for name, value in one.weights.items()]
    if one.noise_steps != two.noise_steps or max(gaps) > TOLERANCE:
        raise NsvitError(f"1 and 2 processes disagree: weights differ by {max(gaps):.1e}")
    return f"weights differ by {max(gaps):.1e} at most (lr 1e-4, {2 * STEPS} steps)"


def _gap(name: str, one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference; without the key bias, which softmax ignores and rounding moves."""
    gap = np.abs(one - two)
    if name.endswith("qkv.bias"):
        gap[len(gap) // 3 : 2 * len(gap) // 3] = 0
    return float(gap.max())
