"""The plan: hours, side by side, resources of the rules, and what is said about them."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import yaml

from nsvit import cli, config, planning
from nsvit.errors import NsvitError
from nsvit.planning.machines import LEAST_MINUTES
from nsvit.planning.schedule import layers, seconds_of, wall_seconds

ROOT = Path(__file__).parents[2]


def experiment(name: str) -> config.Experiment:
    return config.load(ROOT / f"config/{name}.yaml")


def job(name: str, *needs: str) -> planning.Job:
    return planning.Job("rule", name, tuple(f"{need}.out" for need in needs), (f"{name}.out",))


DIAMOND = [job("a"), job("b", "a"), job("c", "a"), job("d", "b", "c"), job("e")]
SECONDS = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 3.0, "e": 4.0}


def test_jobs_side_by_side():
    assert [[one.name for one in layer] for layer in layers(DIAMOND)] == [
        ["a", "e"],
        ["b", "c"],
        ["d"],
    ]
    assert wall_seconds(DIAMOND, SECONDS, 1) == (sum(SECONDS.values()), 1)
    longest_path = SECONDS["a"] + SECONDS["b"] + SECONDS["d"]
    assert wall_seconds(DIAMOND, SECONDS, 99) == (longest_path, 3)
    # two devices: e (4) and a, then b as the longest, c once e is done, d after both
    assert wall_seconds(DIAMOND, SECONDS, 2)[0] == 1 + 5 + 3


def test_hours_follow_the_throughput_and_the_devices():
    exp = experiment("paper")
    slow, fast = (planning.speed_of("a100", throughput=t, readers=10**6) for t in (10.0, 100.0))
    one, ten = planning.make_plan(exp, slow), planning.make_plan(exp, fast)
    stage = {s.name: s for s in one.stages}["finetuning"]
    quick = {s.name: s for s in ten.stages}["finetuning"]
    started = stage.jobs * 8 / 3600
    assert stage.hours - started == pytest.approx(10 * (quick.hours - started), rel=1e-6)
    assert stage.hours - started == pytest.approx(stage.work.flops / 1e13 / 3600, rel=1e-6)
    many = planning.make_plan(exp, slow, devices=16)
    assert many.wall_hours < one.wall_hours / 10
    assert many.stages[-1].hours == one.stages[-1].hours


def test_reading_is_what_a_job_waits_for_where_it_takes_longer():
    work = planning.Work("x", flops=2e12, decoded=1000, reading=10.0)
    cost = planning.Cost((work,))
    speed = planning.speed_of("t4", throughput=1.0, readers=1)
    assert seconds_of(cost, speed) == pytest.approx(8 + 10)
    speed = planning.speed_of("t4", throughput=1.0, readers=10)
    assert seconds_of(cost, speed) == pytest.approx(8 + 2)


def test_numbers_of_pictures_come_from_where_they_are_known():
    sizes = planning.sizes_of(experiment("imagenette"))
    assert sizes.of("val") == 3925 and sizes.of("val", 500) == 500
    assert sizes.of("c") == 300 * 75 and sizes.of("c", 10) == 750
    assert sizes.unknown == ()
    drawn = planning.sizes_of(experiment("smoke"))
    assert drawn.of("train") == experiment("smoke").data.menagerie.counts.train


def test_what_is_not_known_is_said(capsys, tmp_path):
    text = (ROOT / "config/imagenette.yaml").read_text()
    text = text.replace(", published: imagenette-train", "").replace(
        "vit_small_patch16_224.aug", "swin_tiny.x"
    )
    (tmp_path / "own.yaml").write_text(text)
    assert cli.main(["plan", "--config", str(tmp_path / "own.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "how many pictures train have, counted as none" in shown
    assert "passes through vit_s, vit_s_wrong_norm, whose shape is not known" in shown


def test_the_plan_on_the_command_line(capsys):
    paths = [str(ROOT / "config/config.yaml"), str(ROOT / "config/overlays/strong.yaml")]
    assert cli.main(["plan", "--config", *paths, "--gpu", "H100", "--gpus", "4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["experiment"] == "menagerie" and plan["devices"] == 4
    whole = plan["stages"][-1]
    assert whole["name"] == "together"
    assert whole["jobs"] == sum(stage["jobs"] for stage in plan["stages"][:-1])
    assert whole["work"]["forward"] == sum(s["work"]["forward"] for s in plan["stages"][:-1])
    assert cli.main(["plan", "--config", paths[0]]) == 0
    text = capsys.readouterr().out
    assert "finetuning" in text and "A100" in text and "assumption" in text
    assert "8 cores read for a job" in text and "finetune=9 evaluate=9" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "abacus"], "known are t4"),
        (["--throughput", "0"], "a positive number of TFLOP/s"),
        (["--readers", "0"], "at least one core"),
        (["--gpus", "0"], "at least one device"),
    ],
)
def test_bad_arguments_are_named(arguments, said, capsys):
    assert cli.main(["plan", "--config", str(ROOT / "config/smoke.yaml"), *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_plan_without_anything_to_plan(capsys):
    assert cli.main(["plan"]) == 1
    assert "--config FILE" in capsys.readouterr().err


def test_the_rules_ask_for_what_the_plan_says(monkeypatch):
    monkeypatch.delenv("NSVIT_DEVICE", raising=False)
    monkeypatch.delenv("NSVIT_TFLOPS", raising=False)
    small = planning.Costs(experiment("smoke"))
    large = planning.Costs(experiment("paper"))
    run = ("finetune", "vit_s", "nullspace", "0")
    assert planning.minutes(small, *run) < 2 * LEAST_MINUTES < planning.minutes(large, *run)
    before = planning.minutes(large, *run)
    monkeypatch.setenv("NSVIT_TFLOPS", "1")
    assert planning.minutes(large, *run) > before
    assert planning.memory_mb(small, *run) <= 4000
    on_gpu = planning.memory_mb(large, *run)
    monkeypatch.setenv("NSVIT_DEVICE", "cpu")
    added = large.of_rule(*run).gpu_mb - 2000
    assert planning.memory_mb(large, *run) == pytest.approx(on_gpu + 1.2 * added, abs=1000)
    assert planning.memory_mb(small, *run) < 2500
    alone, table = planning.memory_mb(small, *run), planning.memory_mb(small, "table_claims")
    several = planning.Costs(
        small.exp.model_copy(update={"machine": config.MachineConfig(processes=3)})
    )
    assert planning.memory_mb(several, *run) == pytest.approx(3 * alone, abs=1500)
    assert planning.memory_mb(several, "table_claims") == table
    monkeypatch.setenv("NSVIT_TFLOPS", "fast")
    with pytest.raises(NsvitError, match="NSVIT_TFLOPS=fast"):
        planning.minutes(small, *run)


def test_tables_ask_for_memory_by_the_rows_that_they_read():
    exp = experiment("imagenette")
    costs = planning.Costs(exp)
    table, paired = costs.of_rule("table", "table1"), costs.of_rule("table_paired")
    scores, cell = 20 * (6 * 3925 + 300 + 500 + 200), 300 * 75
    assert paired.host_mb == pytest.approx(1000 + (200 * scores + 950 * cell) / 1e6)
    assert table.host_mb == paired.host_mb  # both show every run


def test_the_page_on_the_papers_scale_has_the_plans_numbers(capsys):
    assert cli.main(["plan", "--config", str(ROOT / "config/paper.yaml"), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    text = (ROOT / "docs/paper_scale.md").read_text()
    for name, row in (("finetuning", "98 runs"), ("evaluation", "522 jobs")):
        own, runs = stages[name], f"{stages[name]['jobs']} {row.split()[1]}"
        assert f"| {name}, {runs} | at most {own['hours'] / 24:.0f} days, " in text
        assert f" days, {own['gpu_mb'] / 1000:.0f} GB" in text
    assert f"| results | {stages['together']['disk_mb'] / 1000:.0f} GB " in text
    memory = stages["tables, figures"]["host_mb"] / 1000
    assert f"up to an hour each, {math.ceil(memory)} GB of memory" in text
    assert f"{100 - 100 * plan['certain_share']:.0f} % of the work" in text
    costs = planning.Costs(experiment("paper"))
    speed = plan["speed"]["tflops"] * 1e12
    models = ("vit_s", "vit_b", "vit_s_wrong_norm", "vit_b_wrong_norm")
    look = [costs.of_rule("evaluate", model, "none", "main", "seed0").total for model in models]
    assert f"| {sum(work.flops or 0 for work in look) / speed / 3600:.1f} hours |" in text


def test_the_levers_on_that_page_save_what_it_says():
    raw = yaml.safe_load((ROOT / "config/paper.yaml").read_text())

    def shrunk(change) -> str:
        own = copy.deepcopy(raw)
        change(own)
        plan = planning.make_plan(config.validate(own), planning.speed_of("a100"))
        return f"{plan.stages[-1].hours / 24:.0f}"

    def without(name):
        def change(own):
            del own["evaluate"]["conditions"][name]
            for one in own["evaluate"]["robust"].values():
                one["conditions"] = [slug for slug in one["conditions"] if slug != name]

        return change

    def one_seed(own):
        for arm in own["arms"].values():
            arm["seeds"] = [0]

    def fewer_pictures(own):
        for condition in own["evaluate"]["conditions"].values():
            if "images" in condition:
                condition["images"] //= 5

    def controls(own):
        for name in ("vit_s_wrong_norm", "vit_b_wrong_norm"):
            own["models"][name]["max_seeds"] = 1

    told = " ".join((ROOT / "docs/paper_scale.md").read_text().split())
    for before, change in (
        ("one seed, as the paper has:", one_seed),
        ("without CW:", without("cw")),
        ("without AutoAttack:", without("autoattack_4")),
        ("for every attack that has `images`:", fewer_pictures),
        ("the controls read wrongly with one seed:", controls),
    ):
        assert re.search(rf"{before} (\d+)", told)[1] == shrunk(change), before
    assert f"leave of the {shrunk(dict)} days" in told


def test_the_report_shows_the_plan():
    from nsvit.report.planned import planned

    found = planned(experiment("smoke"))
    assert len(found.header) == len(found.rows[0])
    assert [row[0] for row in found.rows][-1] == "together"
    assert any("A100" in note for note in found.notes)
