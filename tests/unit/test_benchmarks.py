"""The benchmarks' own machinery: ratios, checks, and what is written. No real time is looked at."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import attacks, report, resume, runner
from benchmarks.runner import Case, measure
from nsvit.config import FinetuneConfig, NoiseConfig
from nsvit.errors import NsvitError
from tests.small import small_vit


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], str]]:
    """Makes sides that take as many seconds as they are told, on a clock of their own."""
    now = [0.0]
    monkeypatch.setattr(runner, "CLOCKS", dict.fromkeys(("cpu", "wall"), lambda: now[0]))

    def side(name: str, seconds: list[float], told: list[str]) -> Callable[[], str]:
        waiting = [0.0, *seconds]  # the first call is not timed

        def work() -> str:
            now[0] += waiting.pop(0)
            told.append(name)
            return name

        return work

    return side


def two_sides(working: Callable[..., Callable[[], str]], told: list[str]) -> Case:
    sides = {
        "slow": working("slow", [4.0, 6.0, 9.0], told),
        "fast": working("fast", [2.0, 1.0, 3.0], told),
    }
    return Case("a case", sides, lambda found: " = ".join(found.values()), ("slow",), items=10)


def test_ratios_are_taken_within_each_repeat(working: Callable[..., Callable[[], str]]) -> None:
    told: list[str] = []
    (found,) = measure([two_sides(working, told)], 3)
    assert found.ratio("fast", "slow") == (3.0, 2.0, 6.0)
    assert found.milliseconds("slow") == 600.0
    assert found.agreement == "slow = fast"
    assert told == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast"]


def test_sides_that_disagree_are_not_timed() -> None:
    def refuse(found: object) -> str:
        raise NsvitError("fast breaks 3, slow 9")

    calls: list[int] = []
    with pytest.raises(NsvitError, match="'a case': fast breaks 3, slow 9"):
        measure([Case("a case", {"slow": lambda: calls.append(1)}, refuse)], 5)
    assert len(calls) == 1


def test_results_and_page(working: Callable[..., Callable[[], str]], tmp_path: Path) -> None:
    found = measure([two_sides(working, [])], 3)
    own = {"cpu": "A CPU (tm) 9", "cores": 2, "system": "Linux x", "load": 0.1}
    path = report.write_json(tmp_path, {"stage": found}, {"repeats": 3}, own)
    assert path.name == "a-cpu-tm-9-2-cores.json"
    content = json.loads(path.read_text())
    assert content["stages"]["stage"][0]["ratios"] == {"fast": {"slow": [3.0, 2.0, 6.0]}}
    assert content["spec"]["versions"]["foolbox"] != "not installed"
    assert content["spec"]["threads"] == 1
    report.write_json(tmp_path, {"stage": found}, {"repeats": 3}, {**own, "cpu": "B", "load": 3.0})
    report.write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    first, second = page.split("## B, 2 cores")
    for part in (first, second):
        assert "| a case | slow | 10 pictures | 600.00 |  |" in part
        assert "|  | fast | 10 pictures | 200.00 | 3.00 (2.00–6.00) |" in part
        assert "- a case: slow = fast." in part
    assert "busy" not in first and "busy" in second


def test_every_attack_agrees_with_foolbox_on_the_shipped_model() -> None:
    cases = attacks.cases(argparse.Namespace(pictures=4, large=False))
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert set(case.baselines) < set(case.sides)
        results = {label: work() for label, work in case.sides.items()}
        assert "nsvit" in case.check(results)


def test_attacks_that_break_less_than_foolbox_are_refused() -> None:
    on = attacks.drawn(8)
    case = attacks.pgd(on, attacks.ThreatModel(8 / 255), "8/255", steps=3)
    results = {label: work() for label, work in case.sides.items()}
    assert on.broken(results[attacks.FOOLBOX]) > on.broken(on.images) + 1
    for side in (attacks.OURS, attacks.ALL_STEPS):
        with pytest.raises(NsvitError, match=f"{side} breaks"):
            case.check({**results, side: on.images})


def test_part_of_the_cases_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    works = Case("works", {"one": lambda: 1}, lambda found: "well")
    other = Case("other", {"one": lambda: 1 / 0}, lambda found: "never")
    monkeypatch.setattr(program.runtime, "setup_logging", lambda: None)
    monkeypatch.setattr(program, "STAGES", {"stage": lambda args: [works, other]})
    to = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md"), "--repeats", "1"]
    with caplog.at_level(logging.INFO):
        assert program.main([*to, "--case", "work"]) == 0
    assert "works: well" in caplog.text
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(program, "STAGES", {"stage": lambda args: [works]})
    assert program.main(to) == 0
    assert (tmp_path / "page.md").exists() and len(list((tmp_path / "out").iterdir())) == 1


def test_disagreement_is_an_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(found: object) -> str:
        raise NsvitError("no")

    monkeypatch.setattr(program.runtime, "setup_logging", lambda: None)
    case = Case("fails", {"one": lambda: 1}, refuse)
    monkeypatch.setattr(program, "STAGES", {"stage": lambda args: [case]})
    to = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "page.md")]
    assert program.main(to) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_going_on_costs_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise = NoiseConfig(limit=1.0, epsilon=1e-9, max_steps=2, pool=8, batch_size=8)
    config = FinetuneConfig(rounds=2, steps=2, batch_size=4, lr=1e-3, lr_min=1e-4, noise=noise)
    one = resume.case("tiny", small_vit(classes=10), config)
    found = {side: work() for side, work in one.sides.items()}
    assert re.match(r"the same weights; \d+ snapshots and 3 states took \d", one.check(found))
    assert 0 < found[resume.WITH].kept < found[resume.WITH].total
    assert found[resume.WITHOUT].kept < found[resume.WITH].kept
    next(iter(found[resume.WITH].weights.values())).add_(1)
    with pytest.raises(NsvitError, match="change the weights"):
        one.check(found)
    assert not list(tmp_path.iterdir())
