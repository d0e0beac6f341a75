"""A finetuning that is stopped or killed anywhere ends bit for bit as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nsvit.rounds
from nsvit import artifacts, snapshots, stopping
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


@pytest.mark.parametrize(
    ("kind", "how"),
    [*((kind, "SIGTERM") for kind in KINDS), ("nullspace", "SIGKILL"), ("madry", "SIGKILL")],
)
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


def stopped_after(
    monkeypatch: pytest.MonkeyPatch, sets: Sets, run: FinetuneSpec, out: Path, points: int
) -> None:
    """Snapshots at every step, then a kill."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(snapshots.Snapshots, "due", lambda self: True)
        at_point(patch, kill, points)
        finetune(small_vit(), *sets, run, out)


def trained_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry for every optimiser step of a round."""
    done: list[int] = []
    original = nsvit.rounds.Unfinished.add

    def add(self: nsvit.rounds.Unfinished, *args: Any) -> None:
        original(self, *args)
        done.append(self.done)

    monkeypatch.setattr(nsvit.rounds.Unfinished, "add", add)
    return done


@pytest.mark.parametrize(
    ("damage", "expected"),
    [("nothing", [4]), ("bit", [3, 4]), ("half", [3, 4]), ("json", [3, 4]), ("both", [1, 2, 3, 4])],
)
def test_a_damaged_snapshot_falls_back_to_the_one_before(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch, damage: str, expected: list[int]
) -> None:
    run = run_of("plain", rounds=1, steps=4)
    whole = finetune(small_vit(), *sets, run, tmp_path / "whole")
    out = tmp_path / "cut"
    stopped_after(monkeypatch, sets, run, out, points=5)  # dev of round 0, 4 steps, dev of round 1
    kept = sorted((out / "unfinished/steps").glob("*.safetensors"))
    assert len(kept) == 2
    for path in kept if damage == "both" else kept[1:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage in ("bit", "both"):
            path.write_bytes(content)
        elif damage == "half":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "json":
            path.with_suffix(".json").write_text("{")
    done = trained_steps(monkeypatch)
    found = finetune(small_vit(), *sets, run, out)
    assert done == expected
    assert without_seconds(found) == without_seconds(whole)
    assert same(weights(out), weights(tmp_path / "whole"))


def test_a_snapshot_of_other_settings_is_not_used(
    tmp_path: Path, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cut"
    stopped_after(monkeypatch, sets, run_of("nullspace", rounds=1), out, points=5)
    assert list((out / "unfinished/steps").glob("*.json"))
    other = run_of("nullspace", rounds=1, lr=2e-3)
    done = trained_steps(monkeypatch)
    found = finetune(small_vit(), *sets, other, out)
    assert done == [1, 2]
    whole = finetune(small_vit(), *sets, other, tmp_path / "whole")
    assert without_seconds(found) == without_seconds(whole)
    assert same(weights(out), weights(tmp_path / "whole"))


SCRIPT = """
import sys
from pathlib import Path
from nsvit import snapshots, stopping
from nsvit.finetuning import finetune
from tests.small import image_tree, small_vit
from tests.unit.test_resume import long_run
import torch
torch.set_num_threads(1)
snapshots.Snapshots.due = lambda self: True
root, out = Path(sys.argv[1]), Path(sys.argv[2])
train = image_tree(root / "train", per_class=3, seed=1, name="train")
stopping.at_once()
try:
    finetune(small_vit(), train, train, long_run(), out)
except stopping.Stopped as stopped:
    sys.exit(stopped.code)
"""


def long_run() -> FinetuneSpec:
    return run_of("plain", rounds=1, steps=80)


def test_processes_that_are_ended_and_killed(tmp_path: Path) -> None:
    """A real SIGTERM saves and ends within 10 s of work; a real SIGKILL loses what came after."""
    out = tmp_path / "cut"
    reached = []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(out)]
        before = newest(out)
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        try:
            while newest(out) <= before + 2 and process.poll() is None:  # two steps further
                time.sleep(0.01)
            asked = seconds_of(process.pid)
            process.send_signal(number)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == code
            assert number == signal.SIGKILL or used.ru_utime + used.ru_stime - asked < 10
        finally:
            process.kill()
        reached.append(snapshot_step(out))
    assert reached == sorted(set(reached)) and reached[-1] < 80, reached
    train = image_tree(tmp_path / "train", per_class=3, seed=1, name="train")
    found = finetune(small_vit(), train, train, long_run(), out)
    whole = finetune(small_vit(), train, train, long_run(), tmp_path / "whole")
    assert without_seconds(found) == without_seconds(whole)
    assert same(weights(out), weights(tmp_path / "whole"))


def seconds_of(pid: int) -> float:
    """Processor time that a process has used: the machine may be busy with other things."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def newest(out: Path) -> int:
    stems = (path.stem for path in (out / "unfinished/steps").glob("*.json"))
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


def snapshot_step(out: Path) -> int:
    content = artifacts.read_json(out / f"unfinished/steps/{newest(out)}.json")
    return int(content["facts"]["done"])
