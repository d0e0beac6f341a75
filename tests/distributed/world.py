"""A small world on disk (pictures, a model, specs) and the verbs that several processes share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nsvit import config, specs
from nsvit.artifacts import provenance
from nsvit.data import layouts
from nsvit.models import save_model
from tests.runs import spec
from tests.small import image_tree, small_vit

#: 3 processes divide neither the batches of finetuning (8) nor those of noise (4), and the last
#: batch of the pool of 10 has fewer pictures than there are processes.
NOISE = config.NoiseConfig(limit=3.0, lr=0.05, epsilon=3e-4, max_steps=60, pool=10, batch_size=4)

#: By name, what is finetuned.
RUNS: dict[str, specs.FinetuneSpec] = {
    "nullspace": spec(
        "nullspace", noise=NOISE, augmentation="light", drop_path=0.3, label_smoothing=0.1
    ),
    "short": spec(
        "nullspace",
        noise=NOISE.model_copy(update={"max_steps": 4}),
        augmentation="light",
        drop_path=0.3,
        rounds=2,
        steps=3,
    ),
    "random": spec("random", noise=NOISE, augmentation="imagenet", rounds=2),
    "madry": spec("madry", augmentation="light", rounds=2),
    "trades": spec("trades", augmentation="light", rounds=2),
}

#: Runs as "short" that are stopped: one goes on as it was begun, the other in one process.
STOPPED = ("stopped", "handed")

CONDITIONS: dict[str, dict[str, Any]] = {
    "clean": {"label": "Clean", "set": "train"},
    "fgsm": {"label": "FGSM", "set": "train", "attack": {"name": "fgsm", "radius": "4/255"}},
    "pgd": {
        "label": "PGD",
        "set": "train",
        "images": 9,
        "attack": {"name": "pgd", "radius": "8/255", "steps": 3},
    },
}


def build(folder: Path) -> None:
    """Pictures, their index, and a model."""
    train = image_tree(folder / "train", per_class=15, seed=1, name="train")
    (folder / "classes.txt").write_text("\n".join(train.classes) + "\n")
    scan = specs.ScanSpec(
        name="train",
        root=str(folder),
        classes=str(folder / "classes.txt"),
        set=config.SetConfig(path="train"),
    )
    layouts.write_index(scan, folder / "train.parquet")
    save_model(small_vit(), folder / "model.safetensors", provenance("model", {}))


def finetune_command(folder: Path, run: specs.FinetuneSpec, out: Path) -> list[str]:
    """One finetuning."""
    arguments = ["finetune", "--spec", run.model_dump_json()]
    arguments += ["--model", str(folder / "model.safetensors")]
    arguments += ["--index", str(folder / "train.parquet")]
    return [*arguments, "--out", str(out / "history.json"), "--threads", "1"]


def commands(folder: Path, out: Path) -> list[list[str]]:
    """The command lines of every verb that processes share."""
    model, index = str(folder / "model.safetensors"), str(folder / "train.parquet")
    split = specs.Split(dev_images=12, seed=0)
    learn = specs.LearnSpec(model="small", draws=1, limits=(3.0,), noise=NOISE, split=split)
    study = config.LambdaConfig(
        models=(), lambdas=(0.1,), draws=2, lr=0.1, steps=4, pool=10, batch_size=4, images=12,
        closure={"at": 0.1, "images": 4, "factors": [0.5], "weights": [0.5]},
    )  # fmt: skip
    lambdas = specs.LambdaSpec(model="small", study=study, split=split)
    evaluated = specs.EvaluateSpec(
        model="small", arm="none", seeds=(0,), batch_size=2, conditions=CONDITIONS
    )
    common = ["--model", model, "--index", index]
    shared = [finetune_command(folder, run, out / name) for name, run in RUNS.items()]
    shared += [
        ["learn-noise", "--spec", learn.model_dump_json(), *common, "--out", str(out / "noise")],
        ["lambda-study", "--spec", lambdas.model_dump_json(), *common]
        + ["--closure", str(out / "closure.parquet"), "--out", str(out / "lambda.parquet")],
        ["evaluate", "--spec", evaluated.model_dump_json(), "--models", model]
        + ["--indices", index, "--out", str(out / "records" / "main.all.json")],
    ]
    return shared


def write_commands(folder: Path, out: Path) -> Path:
    """The command lines as the file that `work` reads; the last two are of runs that it stops."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "commands.json"
    own = [finetune_command(folder, RUNS["short"], out / name) for name in STOPPED]
    path.write_text(json.dumps([*commands(folder, out), *own]))
    return path
