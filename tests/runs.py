"""Small finetuning runs for the tests: their specs, their results, and how they are killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import nsvit.finetuning
from nsvit.config import AdversarialConfig, FinetuneConfig, NoiseConfig
from nsvit.data.layouts import ImageSet
from nsvit.finetuning import finetune
from nsvit.models import PixelModel
from nsvit.specs import FinetuneSpec, Split
from tests.small import small_vit

NOISE = NoiseConfig(limit=1.0, epsilon=0.02, max_steps=6, pool=10, batch_size=4)
ATTACK = AdversarialConfig(radius="16/255", step_size="6/255", steps=3)


def spec(kind: str = "plain", arm: str | None = None, seed: int = 0, **config: Any) -> FinetuneSpec:
    settings = {"rounds": 3, "steps": 2, "batch_size": 8, "lr": 1e-3, "lr_min": 1e-4}
    settings |= {"augmentation": "none", "noise": NOISE, "weight_decay": 0.05}
    settings |= {"adversarial": ATTACK, **config}
    return FinetuneSpec(
        model="small",
        arm=arm or kind,
        seed=seed,
        kind=kind,
        finetune=FinetuneConfig(**settings),
        split=Split(dev_images=12, seed=0),
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def without_seconds(history: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in history["rounds"]
    ]


class Killed(Exception):
    """Stands for a preempted job."""


def interrupted(
    monkeypatch: pytest.MonkeyPatch,
    sets: tuple[ImageSet, ImageSet],
    run: FinetuneSpec,
    out: Path,
    at_round: int,
) -> None:
    """Runs until the given round has made its noise, then dies."""
    original = nsvit.finetuning.round_noise

    def dies(model: PixelModel, train: ImageSet, of: FinetuneSpec, number: int, *rest: Any) -> Any:
        if number == at_round:
            raise Killed
        return original(model, train, of, number, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nsvit.finetuning, "round_noise", dies)
        finetune(small_vit(), *sets, run, out)
    assert not (out / "history.json").exists()
