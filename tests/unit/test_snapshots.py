"""Snapshots: how often, which are kept, and which is taken."""

from pathlib import Path

import pytest
import torch

from nsvit import snapshots, stopping
from nsvit.snapshots import Pieces, Snapshots


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, moved by hand; writing takes none."""
    now = [100.0]
    monkeypatch.setattr(snapshots.time, "monotonic", lambda: now[0])
    return now


def test_they_take_no_more_than_their_share_of_the_time(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = snapshots.write_checked

    def slow(*args: object) -> None:
        original(*args)
        clock[0] += cost

    monkeypatch.setattr(snapshots, "write_checked", slow)
    kept = Snapshots(tmp_path, "x", size=int(1e8), share=0.02)
    spent, cost, begun = 0.0, 0.0, clock[0]
    for step in range(4000):
        cost = 0.1 if step < 2000 else 3.0
        if kept.due():
            kept.save({"x": torch.zeros(1)}, {"step": step})
            spent += cost
        clock[0] += 0.25
        if step == 100:  # not before the guess for 1e8 bytes allows it: 0.52 s / 2 %
            assert spent == 0
        if step == 1900:
            assert 0.01 < spent / (clock[0] - begun) <= 0.0204
    assert 0.01 < spent / (clock[0] - begun) <= 0.03  # one of 3 s came as early as those of 0.1 s


def test_two_are_kept_and_the_last_whole_one_is_taken(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path, "x", 1)
    kept.part = "round 1"
    assert kept.load() is None
    tensors = {"a": torch.tensor(2.5), "b": torch.arange(6).reshape(2, 3)}
    for step in range(5):
        kept.save({**tensors, "step": torch.tensor(step)}, {"step": step, "loss": 0.1})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("4.json", "4.safetensors", "5.json", "5.safetensors"),
    ]
    (tmp_path / ".9.safetensors.abcdefgh.safetensors").write_text("half")
    found, facts = kept.load()
    assert facts == {"step": 4, "loss": 0.1}
    assert found["a"].shape == () and torch.equal(found["b"], tensors["b"])
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "5.safetensors").unlink()
    assert kept.load()[1]["step"] == 3
    kept.clear()
    assert not tmp_path.exists()


def test_other_work_and_other_parts_are_not_taken(tmp_path: Path) -> None:
    one = Snapshots(tmp_path, "x", 1)
    one.part = "round 1"
    one.save({"a": torch.zeros(1)}, {})
    one.part = "round 2"
    assert one.load() is None
    one.part = "round 1"
    assert one.load() is not None
    assert Snapshots(tmp_path, "y", 1).load() is None
    assert not list(tmp_path.iterdir())


def test_processes_that_only_take_part_write_nothing(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path / "none", "x", 0, writes=False)
    assert not kept.due()
    with pytest.raises(stopping.Stopped), kept.upon_stop(lambda: pytest.fail("saved")):
        raise stopping.Stopped(15)
    kept.clear()
    assert not (tmp_path / "none").exists()


def test_pieces_are_kept_until_the_work_is_done(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "p", "x", 1)
    assert pieces.get("one") is None
    pieces.put("one", {"a": torch.ones(2)}, {"n": 1})
    again = Pieces(tmp_path / "p", "x", 1)
    tensors, facts = again.get("one")
    assert torch.equal(tensors["a"], torch.ones(2)) and facts == {"n": 1}
    assert again.get("two") is None and again.steps.part == "two"
    assert Pieces(tmp_path / "p", "y", 1).get("one") is None
    path = tmp_path / "p/one.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert again.get("one") is None
    again.clear()
    assert not (tmp_path / "p").exists()
