"""A finetuning that is stopped or killed anywhere ends bit for bit as if it had not been."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsvit import snapshots, stopping
from nsvit.config import AdversarialConfig, NoiseConfig
from nsvit.data.layouts import ImageSet
from nsvit.finetuning import finetune
from nsvit.specs import FinetuneSpec
from nsvit.stopping import Stopped
from tests.runs import Killed, same, spec, weights, without_seconds
from tests.small import image_tree, small_vit

Sets = tuple[ImageSet, ImageSet]
KINDS = ["plain", "random", "nullspace", "madry", "trades"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    root = tmp_path_factory.mktemp("pictures")
    train = image_tree(root / "train", per_class=3, seed=1, name="train")
    return train, image_tree(root / "dev", per_class=2, seed=2, name="dev")


def run_of(kind: str, **changes: Any) -> FinetuneSpec:
    """Noise that is never inside epsilon, so that every step of its learning is done."""
    noise = NoiseConfig(limit=1.0, epsilon=1e-9, max_steps=3, pool=6, batch_size=4)
    attack = AdversarialConfig(radius="16/255", step_size="8/255", steps=2)
    settings = {"rounds": 2, "steps": 2, "batch_size": 4, "augmentation": "light", "drop_path": 0.3}
    return spec(kind, **{**settings, "noise": noise, "adversarial": attack, **changes})


def at_point(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[], None], at: int | None
) -> Callable[[], int]:
    """Does something at the n-th point of a run; returns how many points it came to."""
    original, seen = stopping.point, [0]

    def point() -> None:
        seen[0] += 1
        if seen[0] - 1 == at:
            do()
        original()

    monkeypatch.setattr(stopping, "point", point)
    return lambda: seen[0]


def sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_at_any_point(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch, kind: str, how: str
) -> None:
    run = run_of(kind)
    monkeypatch.setattr(snapshots.Snapshots, "due", lambda self: how == "SIGKILL")
    with monkeypatch.context() as patch:
        points = at_point(patch, sigterm, at=None)
        expected = without_seconds(finetune(small_vit(), *sets, run, tmp_path / "whole"))
    assert points() >= {"plain": 7, "random": 13, "nullspace": 13}.get(kind, 15)
    for at in range(points()):
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            done = at_point(patch, sigterm if how == "SIGTERM" else kill, at)
            with pytest.raises(Stopped if how == "SIGTERM" else Killed):
                finetune(small_vit(), *sets, run, out)
            assert done() == at + 1
        assert not (out / "history.json").exists()
        with monkeypatch.context() as patch:
            left = at_point(patch, sigterm, at=None)
            found = finetune(small_vit(), *sets, run, out)
        assert without_seconds(found) == expected
        assert same(weights(out), weights(tmp_path / "whole"))
        assert left() <= points() - at + 3, "it did not go on from where it was"
        assert not (out / "unfinished").exists()
