"""Pretraining, noise, the lambda study and dynamics go on where they were, to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

import nsvit.evaluation
import nsvit.influence
import nsvit.lambda_noise
from nsvit import influence, lambda_study, pretrain, snapshots, specs, stopping
from nsvit.artifacts import provenance, read_json, read_parquet, write_json
from nsvit.config import LambdaConfig, NoiseConfig
from nsvit.evaluation import run_dynamics
from nsvit.models import save_model
from nsvit.specs import DynamicsSpec, Split
from tests.runs import Killed, same
from tests.small import image_tree, small_vit
from tests.unit.test_pretrain import spec as pretrain_spec
from tests.unit.test_resume import at_point, kill, sigterm


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_pretraining_stopped_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sets = [image_tree(tmp_path / name, per_class=4, name=name) for name in ("train", "dev", "val")]
    run = pretrain_spec(epochs=2, batch_size=8, augmentation="light")
    monkeypatch.setattr(snapshots.Snapshots, "due", lambda self: how == "SIGKILL")
    with monkeypatch.context() as patch:
        points = at_point(patch, kill, None)
        metrics = pretrain.pretrain(run, *sets, tmp_path / "whole")
    assert points() == 2 * (2 + 1) + 2
    for at in range(points()):
        out = tmp_path / str(at)
        with monkeypatch.context() as patch, pytest.raises((Killed, stopping.Stopped)):
            at_point(patch, sigterm if how == "SIGTERM" else kill, at)
            pretrain.pretrain(run, *sets, out)
        assert pretrain.pretrain(run, *sets, out) == metrics
        name = "model.safetensors"
        assert same(load_file(out / name), load_file(tmp_path / "whole" / name))
        assert not (out / "unfinished").exists()


def learn_all_noise(tmp_path: Path, out: Path) -> dict[str, bytes]:
    noise = NoiseConfig(limit=1.0, epsilon=1e-9, max_steps=3, pool=12, batch_size=8)
    split = Split(dev_images=12, seed=0)
    spec = specs.LearnSpec(model="mine", draws=2, limits=(1.0,), noise=noise, split=split)
    influence.run_learn(spec, small_vit(), image_tree(tmp_path / "t", per_class=8), out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_learning_noise_stopped_at_any_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with monkeypatch.context() as patch:
        points = at_point(patch, kill, None)
        whole = learn_all_noise(tmp_path, tmp_path / "whole")
    assert points() == 2 * 2 * 3 and len(whole) == 2 * 2 * 2
    for at in range(points()):
        out = tmp_path / f"cut{at}"
        with monkeypatch.context() as patch, pytest.raises((Killed, stopping.Stopped)):
            patch.setattr(snapshots.Snapshots, "due", lambda self: how == "SIGKILL")
            at_point(patch, sigterm if how == "SIGTERM" else kill, at)
            learn_all_noise(tmp_path, out)
        with monkeypatch.context() as patch:
            left = at_point(patch, kill, None)
            assert learn_all_noise(tmp_path, out) == whole
        assert 0 <= left() - (points() - at) <= (how == "SIGKILL")  # the step that it died in
        assert not (tmp_path / f".cut{at}.parts").exists()


def counted(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, die_at: int | None
) -> Callable[[], int]:
    """Counts the calls of a function; one of them dies."""
    original, calls = getattr(module, name), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 == die_at:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return lambda: calls[0]


def test_a_killed_lambda_study_keeps_the_noises_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closure = {"at": 1.0, "images": 4, "factors": (1.0,), "weights": (0.5,)}
    few = {"lambdas": (0.5, 1.0), "draws": 1, "steps": 3, "pool": 16, "batch_size": 8}
    study = LambdaConfig.model_validate({**few, "images": 8, "closure": closure, "models": ()})
    spec = specs.LambdaSpec(model="mine", study=study, split=Split(dev_images=12, seed=0))
    pictures = image_tree(tmp_path / "train", per_class=8)

    def run(name: str) -> list[pd.DataFrame]:
        paths = [tmp_path / f"{name}.{kind}.parquet" for kind in ("lambda", "closure")]
        lambda_study.run(spec, small_vit(), pictures, *paths)
        return [read_parquet(p, k)[0] for p, k in zip(paths, ("lambda", "closure"), strict=True)]

    whole = run("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counted(patch, nsvit.lambda_noise, "learn", die_at=2)
        run("cut")
    left = counted(monkeypatch, nsvit.lambda_noise, "learn", die_at=None)
    for one, two in zip(run("cut"), whole, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert left() == 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "computed"), [("nothing", 1), ("damage", 2), ("weights", 2), ("spec", 3)]
)
def test_killed_dynamics_keep_the_rounds_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, computed: int
) -> None:
    def save(number: int, seed: int) -> None:
        path = tmp_path / f"run/rounds/{number}/model.safetensors"
        save_model(small_vit(seed=seed), path, provenance("model", {}))

    for number in range(3):
        save(number, number)
    rounds = {"rounds": [{"round": number} for number in range(3)]}
    write_json(tmp_path / "run/history.json", {**provenance("history", {}), **rounds})
    val = {"val": image_tree(tmp_path / "val", per_class=5)}
    settings: dict[str, Any] = {
        "model": "mine", "arm": "plain", "seeds": (0,), "batch_size": 4, "sources": {},
        "conditions": {"clean": {"label": "", "set": "val"}}, "images": 8, "corrupted_images": 1,
    }  # fmt: skip
    out = tmp_path / "cut.parquet"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counted(patch, nsvit.evaluation, "_whole", die_at=2)
        run_dynamics(DynamicsSpec.model_validate(settings), tmp_path / "run", val, out)
    parts = tmp_path / ".cut.parts"
    assert read_json(parts / "1.json")["doubts"] == []
    if change == "damage":
        content = bytearray((parts / "1.parquet").read_bytes())
        content[len(content) // 3] ^= 1
        (parts / "1.parquet").write_bytes(content)
    elif change == "weights":
        save(1, 9)
    elif change == "spec":
        settings["images"] = 9
    spec = DynamicsSpec.model_validate(settings)
    with monkeypatch.context() as patch:
        left = counted(patch, nsvit.evaluation, "_whole", die_at=None)
        run_dynamics(spec, tmp_path / "run", val, out)
    assert left() == computed
    run_dynamics(spec, tmp_path / "run", val, tmp_path / "whole.parquet")
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts.exists()
