"""The benchmarks' own machinery: ratios, checks, and what is written. No real time is looked at."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import (
    attacks,
    ceiling,
    evaluation,
    finetuning,
    goals,
    memory,
    noise,
    others,
    pictures,
    processes,
    report,
    resume,
    runner,
    startup,
    workflow,
)
from benchmarks.naive import attacks as published_attacks
from benchmarks.runner import Case, measure
from benchmarks.subjects import Size
from nsvit import cli
from nsvit.config import ArmKind, FinetuneConfig, NoiseConfig
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


#: A distance that noise on the tiny model reaches in some steps.
EPSILON = 3e-4
OWN = {"cpu": "A CPU (tm) 9", "cores": 2, "system": "Linux x", "gpu": None}
SETTINGS = {"repeats": 3}


def test_results_and_page(working: Callable[..., Callable[[], str]], tmp_path: Path) -> None:
    found = measure([two_sides(working, [])], 3)
    path = report.write_stage(tmp_path, "stage", found, SETTINGS, OWN, 0.1)
    assert path.name == "a-cpu-tm-9-2-cores.json"
    stage = json.loads(path.read_text())["stages"]["stage"]
    assert stage["cases"][0]["ratios"] == {"fast": {"slow": [3.0, 2.0, 6.0]}}
    assert stage["versions"]["foolbox"] != "not installed"
    assert stage["threads"] == 1
    report.write_stage(tmp_path, "stage", found, SETTINGS, {**OWN, "cpu": "B"}, 1.5, ["no"])
    report.write_page(tmp_path, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    first, second = page.split("## B, 2 cores")
    for part in (first, second):
        assert re.search(r"\| a case \| slow \| 10 pictures \| 600.00 \| 1.67 \|  \|", part)
        assert re.search(
            r"\|  \| fast \| 10 pictures \| 200.00 \| 5 \| 3.00 \(2.00–6.00\) \|", part
        )
        assert "- a case: slow = fast." in part
    assert "busy" not in first and "other processes took 1.5 cores" in second
    assert "Refused" not in first and "- **Refused**: no" in second


def test_a_stage_replaces_only_itself(
    working: Callable[..., Callable[[], str]], tmp_path: Path
) -> None:
    found = measure([two_sides(working, [])], 3)
    path = report.write_stage(tmp_path, "one", found, SETTINGS, OWN)
    report.write_stage(tmp_path, "two", found, SETTINGS, OWN, 2.0)
    report.write_stage(tmp_path, "one", [], SETTINGS, OWN, None)
    stages = json.loads(path.read_text())["stages"]
    assert [len(stages[name]["cases"]) for name in ("one", "two")] == [0, 1]
    assert [stages[name]["others"] for name in ("one", "two")] == [None, 2.0]


def test_the_first_run_counts_where_there_are_no_repeats(
    working: Callable[..., Callable[[], str]],
) -> None:
    told: list[str] = []
    case = replace(two_sides(working, told), repeats=0)
    other = replace(two_sides(working, told), repeats=2, name="another")
    once, twice = measure([case, other], 3)
    assert [len(times) for times in once.seconds["cpu"].values()] == [1, 1]
    assert twice.seconds["cpu"] == {"slow": [4.0, 6.0], "fast": [2.0, 1.0]}


def test_targets_are_judged() -> None:
    case = {
        "name": "c", "items": 2, "milliseconds": {"a": 100.0, "b": 50.0},
        "ratios": {"b": {"a": [2.0, 1.5, 2.5]}}, "targets": {"b": 2.1}, "limits": {"a": 0.2},
        "memory": {"a": 100.0, "b": 300.0}, "flat": ["a", "b"],
        "extras": {"b": {"most": 0.03, "found": 0.0312}},
    }  # fmt: skip
    assert goals.goals(case) == [
        "| c | b | at least 2.1 x | 2.00 x (1.50–2.50) | **missed** by 5 % |",
        "| c | a | at most 0.2 s | 0.20 s | met |",
        "| c | b | at most 3 % of the time | 3.12 % | **missed** by 4 % |",
        "| c | b | no more memory | 100 and 300 MiB | **missed** by 58 % |",
    ]
    assert goals.missed(case) == ["b"]
    verbs = {**case, "limits": {"a": 0.3, "b": 0.3}, "targets": {}, "extras": {}, "flat": None}
    assert goals.goals(verbs) == [
        "| c | slowest of 2: a | at most 0.3 s | 0.20 s (2 within) | met |"
    ]


def test_the_page_says_what_was_not_measured() -> None:
    case = {
        "name": "noise step, ViT-S/16 at 224, batch 4", "items": 1, "milliseconds": {"b": 50.0},
        "ratios": {"b": {"naive": [2.0, 1.5, 2.5]}}, "targets": {"b": 1.9},
    }  # fmt: skip
    rows = goals.table({"noise": {"cases": [case]}}, {}, False)[2:]
    assert len(rows) == len(goals.WANTED) + 2
    assert rows[0].endswith("| met |")
    assert "| nsvit bf16 | | not measured: this CPU only emulates it | |" in rows[1]
    assert sum("not measured" in row for row in rows) == len(rows) - 1
    assert rows[-1].endswith("| not measured: no GPU here | |")


def test_every_wanted_case_is_there(tiny: Size) -> None:
    named = [noise.step(tiny), noise.deep(tiny, 1), finetuning.case(tiny, "plain", 1)]
    named += [evaluation.columns(tiny, 2, 2), evaluation.flat(2, 1)]
    named += [startup.case("start-up of verbs without torch", [], False)]
    names = [one.name for one in named] + ["rerun of x", "dry run of y"]
    for stage, begins, _ in goals.WANTED:
        assert stage in program.STAGES
        start = begins.removesuffix(", ViT-S")
        assert any(name.startswith(start) for name in names), begins


def test_share_of_the_ceiling_on_a_gpu() -> None:
    case = {
        "name": "noise step, GPU, ViT-S", "milliseconds": {"nsvit bf16": 2.0},
        "flops": {"nsvit bf16": 1e9}, "shares": {"nsvit bf16": 0.4},
    }  # fmt: skip
    (row,) = goals.shared(case, {(True, "bf16"): 1000.0, (False, "bf16"): 1.0})
    assert "| 50 % | met |" in row
    assert goals.shared(case, {}) == []


def test_what_misses_its_target_is_profiled(tmp_path: Path) -> None:
    sides = {"slow": lambda: torch.ones(64, 64) @ torch.ones(64, 64)}
    sides["fast"] = sides["slow"]
    case = Case("a", sides, lambda found: "equal", ("slow",), clock="wall", targets={"fast": 1e9})
    path = report.write_stage(tmp_path, "stage", measure([case], 1), SETTINGS, OWN)
    report.write_page(tmp_path, tmp_path / "page.md")
    (written,) = json.loads(path.read_text())["stages"]["stage"]["cases"]
    assert "aten::" in written["profiles"]["fast"]
    assert "- a, fast, time by operation: " in (tmp_path / "page.md").read_text()


def test_one_refused_case_leaves_the_others() -> None:
    def refuse(found: object) -> str:
        raise NsvitError("no")

    told: list[str] = []
    good = Case("good", {"one": lambda: 1}, lambda found: "well")
    bad = Case("bad", {"one": lambda: 1}, refuse)
    assert [one.case.name for one in measure([bad, good], 1, told)] == ["good"]
    assert told == ["benchmark 'bad': no"]


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells")
def test_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(others, "_STAT", stat)
    monkeypatch.setattr(others.time, "perf_counter", iter((0.0, 10.0)).__next__)
    seen = others.watch()
    stat.write_text(f"cpu {30 * ticks} 0 0 {99 * ticks} 0 0 0 0 0 0\n")
    busy = seen()
    assert busy is not None and 2.5 < busy <= 3.0
    monkeypatch.setattr(others, "_STAT", tmp_path / "nothing")
    monkeypatch.setattr(others.time, "perf_counter", iter((0.0, 10.0)).__next__)
    assert others.watch()() is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_peak_memory_is_that_of_the_work() -> None:
    found: dict[str, float | None] = {}
    with memory.peak_of(found, "large"):
        torch.ones(32, 2**20)  # 128 MiB, gone at once
    with memory.peak_of(found, "small"):
        torch.ones(2**10)
    if found["large"] is None:
        pytest.skip("not in this container")
    assert 120 < found["large"] < 160 and found["small"] < 20


# --- every stage at a tiny size: naive and nsvit do the same ---------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Size:
    monkeypatch.setattr(noise.autoprecision, "has_bf16", lambda device: True)
    return Size("tiny", small_vit(classes=10, depth=3), 4, big=True)


def agree(case: Case) -> dict[str, Any]:
    """Runs each side once and lets the case compare them."""
    found = {side: work() for side, work in case.sides.items()}
    assert case.check(found)
    assert set(case.baselines) < set(found) and set(case.targets) <= set(found)
    return found


def test_noise_is_the_published_one(tiny: Size) -> None:
    for case in (noise.step(tiny), noise.passes(tiny), noise.deep(tiny, 1)):
        agree(case)
    case = noise.step(tiny, steps=2)
    found = agree(case)
    assert found[noise.FP32].steps == found["naive"].steps == 2
    wrong = replace(found[noise.FP32], tensor=-found[noise.FP32].tensor)
    with pytest.raises(NsvitError, match="what the noise changed differs"):
        case.check({**found, noise.FP32: wrong})


def test_emulated_bf16_is_left_out(tiny: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise.BF16 in noise.step(tiny).sides
    monkeypatch.setattr(noise.autoprecision, "has_bf16", lambda device: False)
    for case in (noise.step(tiny), finetuning.case(tiny, "plain", 1)):
        assert list(case.sides) == ["naive", noise.FP32]


def test_noise_ends_inside_epsilon_when_the_published_one_does(tiny: Size) -> None:
    case = noise.to_epsilon(tiny, 3.0, EPSILON, 60)
    found = agree(case)
    assert 1 < found["naive"].steps < 60 and found["naive"].distance < EPSILON
    with pytest.raises(NsvitError, match="steps, but"):
        case.check({**found, "naive": replace(found["naive"], steps=1)})


@pytest.mark.parametrize("kind", finetuning.ARMS)
def test_finetuning_is_the_published_one(tiny: Size, kind: ArmKind) -> None:
    case = finetuning.case(tiny, kind, 2)
    found = agree(case)
    one = found["naive"]
    for other in (replace(one, second=2 * one.second), replace(one, weights=-one.weights)):
        with pytest.raises(NsvitError, match="losses differ"):
            case.check({**found, finetuning.FP32: other})


def test_evaluation_is_the_published_one(tiny: Size) -> None:
    agree(evaluation.plain(tiny, 12))
    case = evaluation.columns(tiny, 10, 6)
    found = agree(case)
    assert len(found["naive"]) == 11 and len(found["naive"]["c"]) == 75
    right = {**found["nsvit"], "cw": found["nsvit"]["labels of cw"]}
    other = {**found["nsvit"], "sketch": 9 - found["nsvit"]["sketch"]}
    for wrong, named in ((right, "cw: 0 wrong"), (other, "sketch: other")):
        with pytest.raises(NsvitError, match=named):
            case.check({**found, "nsvit": wrong})


def test_naive_attacks_find_gradients_of_weights_only_where_the_published_ones_do(
    tiny: Size,
) -> None:
    model, images = tiny.wanting(), tiny.images
    labels = torch.zeros(len(images), dtype=torch.long)
    published_attacks.fgsm(model, images, labels, 1 / 255)
    published_attacks.patch_fool(model, images, labels, start=1 - images, steps=1)
    assert all(weight.grad is None for weight in model.parameters())
    published_attacks.cw(model, images, labels, **evaluation.CW)  # type: ignore[arg-type]
    assert all(weight.grad is not None for weight in model.net.blocks.parameters())


def test_memory_case_shows_the_same_pictures_again() -> None:
    case = evaluation.flat(4, 2)
    found = {side: work() for side, work in case.sides.items()}
    assert case.check(found) and case.flat == tuple(found)
    assert [len(one["clean"]) for one in found.values()] == [4, 16]


def test_pictures_and_products() -> None:
    agree(pictures.sweep(32))
    agree(pictures.rendering("sketch", 48, 5))
    agree(ceiling.product("cpu", 32))


def test_start_up_tells_who_loads_torch() -> None:
    case = startup.case("light", [cli.table, cli.report], False)
    found = {side: work() for side, work in case.sides.items()}
    assert list(found) == ["--help", "table", "report"] and case.check(found)
    loaded = replace(found["table"], torch=True)
    with pytest.raises(NsvitError, match="table load torch"):
        case.check({**found, "table": loaded})
    assert startup.command(["no-such-verb"]).status == 2


def test_workflow_has_nothing_to_do_once_all_is_there() -> None:
    case = workflow.rerun("config/smoke.yaml", 5.0)
    assert "nothing to be done" in case.check({side: work() for side, work in case.sides.items()})
    with pytest.raises(NsvitError, match="something to be done"):
        case.check({workflow.OURS: "total 3"})
    assert workflow.dry_run("x", 1.0).check({workflow.OURS: "job count\ntotal  17\n"}) == "17 jobs"


def test_every_attack_agrees_with_foolbox_on_the_shipped_model() -> None:
    cases = attacks.cases(argparse.Namespace(pictures=4, large=False))
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert set(case.baselines) < set(case.sides)
        own = set(case.sides) - set(case.baselines)
        assert set(case.targets) == (own if attacks.FOOLBOX in case.sides else set())
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
    (measured,) = measure([one], 1)
    path = report.write_stage(tmp_path / "out", "going on", [measured], SETTINGS, OWN)
    kept = json.loads(path.read_text())["stages"]["going on"]["cases"][0]["extras"][resume.WITH]
    assert kept == {"most": 0.03, "found": measured.extras[resume.WITH][0]}
    path.unlink(), path.parent.rmdir()
    next(iter(found[resume.WITH].weights.values())).add_(1)
    with pytest.raises(NsvitError, match="change the weights"):
        one.check(found)
    assert not list(tmp_path.iterdir())


def test_two_processes_are_compared_with_one_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their rounds are made up: tests/distributed runs real ones."""

    def finetune(name: str, number: int, moved: float = 0.0, ran: int = 0) -> processes.Round:
        bias = np.array([0.0, 9.0 * number, 0.0])  # of the keys, which softmax ignores
        weights = {"fc.weight": np.array([1.0 + moved]), "qkv.bias": bias}
        return processes.Round(8.0 / number, weights, 40, ran or number)

    monkeypatch.setattr(processes, "_finetune", finetune)
    monkeypatch.setattr(processes, "_cores", lambda: [0, 1])
    (case,) = processes.cases(argparse.Namespace(large=False))
    (found,) = measure([case], 1)
    (row,) = goals.goals(report._case(found))
    assert row.endswith("| 2 processes, 2 cores | at least 1.33 x | 2.00 x (2.00–2.00) | met |")
    one = finetune("m", 1)
    with pytest.raises(NsvitError, match="disagree: weights differ by 1.0e-03"):
        case.check({processes.ONE: one, processes.TWO: finetune("m", 2, moved=1e-3)})
    with pytest.raises(NsvitError, match="1 and 1 processes instead of 1 and 2"):
        case.check({processes.ONE: one, processes.TWO: finetune("m", 2, ran=1)})
    monkeypatch.setattr(processes, "_cores", lambda: [0])
    with pytest.raises(NsvitError, match="one core"):
        processes.cases(argparse.Namespace(large=False))
