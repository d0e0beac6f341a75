"""The view of a running experiment: states from files alone, nothing written."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nsvit import cli, config, report, specs, status
from nsvit.errors import NsvitError
from nsvit.planning import Job, jobs_of

ROOT = Path(__file__).parents[2]
LINE = "2026-11-24 02:00:00,000 INFO nsvit.progress: round 3 of 20: noise: 12 of 3000; distance 0.2"
STARTED = "2026-11-24 01:59:00,000 INFO nsvit: started on node7, process 42, SLURM job 17"
FINISHED = "2026-11-24 02:01:00,000 INFO nsvit: finished in 2 min 0 s"
FAILED = "2026-11-24 02:01:00,000 ERROR nsvit: failed after 2 min 0 s"


@pytest.fixture
def exp() -> config.Experiment:
    return config.load(ROOT / "config/smoke.yaml")


class Folder:
    """A results folder whose files are as a run would leave them."""

    def __init__(self, top: Path, exp: config.Experiment) -> None:
        self.path = top / "results/smoke"
        self.jobs = {job.name: job for job in jobs_of(exp)}
        report.write_plan(specs.plan(exp, {}, {}, ""), self.path / "plan.json")

    def log(self, name: str, *lines: str, age: float = 0.0) -> Job:
        path = self.path / "logs" / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("nsvit some-verb --spec {}\n" + "".join(f"{line}\n" for line in lines))
        self._age(path, age)
        return self.jobs[name]

    def outputs(self, name: str, age: float = 0.0) -> None:
        for output in self.jobs[name].outputs:
            path = self.path / output
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._age(path, age)

    def benchmark(self, name: str, seconds: float, age: float = 0.0) -> None:
        path = self.path / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t12.3\n")
        self._age(path, age)

    def done(self, name: str, seconds: float) -> None:
        self.log(name, STARTED, FINISHED, age=500)
        self.outputs(name, age=500)
        self.benchmark(name, seconds, age=499)

    def states(self) -> dict[str, str]:
        return {seen.job.name: seen.state for seen in status.look(self.path).jobs}

    def _age(self, path: Path, age: float) -> None:
        when = time.time() - age
        os.utime(path, (when, when))


@pytest.fixture
def folder(tmp_path, exp) -> Folder:
    return Folder(tmp_path, exp)


def test_every_state_is_told_from_the_files(folder):
    folder.done("render/train", 4.0)
    folder.done("render/val", 6.0)
    folder.log("render/v2", STARTED, LINE)
    folder.log("render/a", STARTED, "NsvitError: too few candidates", FAILED)
    folder.log("render/r", STARTED, LINE, age=1000)
    states = folder.states()
    wanted = {"train": "done", "val": "done", "v2": "running", "a": "failed", "r": "stopped"}
    assert {name: states[f"render/{name}"] for name in wanted} == wanted
    assert states["scan/train"] == "left"
    seen = {one.job.name: one for one in status.look(folder.path).jobs}
    assert seen["render/train"].seconds == 4.0
    assert seen["render/v2"].line == "round 3 of 20: noise: 12 of 3000; distance 0.2"
    assert seen["render/v2"].where == "node7, process 42, SLURM job 17"
    assert seen["render/a"].line == "NsvitError: too few candidates"


def test_a_job_that_runs_again_is_not_done(folder):
    """Snakemake deletes outputs and log when it begins, but not the benchmark."""
    folder.done("scan/val", 3.0)
    folder.log("scan/val", STARTED)
    assert folder.states()["scan/val"] == "running"
    (folder.path / "index/val.parquet").unlink()
    assert folder.states()["scan/val"] == "running"
    folder.log("scan/val", STARTED, FAILED)
    assert folder.states()["scan/val"] == "failed"


def test_outputs_that_were_deleted_are_left_to_do(folder):
    folder.done("scan/val", 3.0)
    (folder.path / "index/val.parquet").unlink()
    assert folder.states()["scan/val"] == "left"


def test_a_job_that_has_written_half_its_outputs_runs(folder):
    folder.log("finetune/vit_s/nullspace/seed0", STARTED, LINE)
    folder.outputs("finetune/vit_s/nullspace/seed0")
    (folder.path / "runs/vit_s/nullspace/seed0/history.json").unlink()
    assert folder.states()["finetune/vit_s/nullspace/seed0"] == "running"


def test_a_traceback_is_told_by_its_last_line(folder):
    error = ("Traceback (most recent call last):", "  File ...", "MemoryError: no room")
    folder.log("scan/val", STARTED, FAILED, *error)
    seen = next(one for one in status.look(folder.path).jobs if one.job.name == "scan/val")
    assert (seen.state, seen.line) == ("failed", "MemoryError: no room")


def test_the_time_left_is_the_mean_of_each_rule(folder):
    for name, seconds in (("scan/train", 10.0), ("scan/val", 20.0)):
        folder.done(name, seconds)
    scans = sum(name.startswith("scan/") for name in folder.jobs) - 2
    left, unknown = status.look(folder.path).seconds_left()
    assert left == pytest.approx(15.0 * scans)
    assert "finetune" in unknown and "scan" not in unknown


def test_text_and_json_say_the_same_and_nothing_is_written(folder, capsys, monkeypatch):
    folder.done("render/train", 4.0)
    folder.log("render/v2", STARTED, LINE)
    folder.log("render/a", STARTED, "error: too few", FAILED)
    monkeypatch.chdir(folder.path.parents[1])
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert cli.main(["status"]) == 0
    text = capsys.readouterr().out
    assert "2 done, 1 running, 1 failed" in text  # the plan itself is done
    assert "error: too few" in text and "logs/render/a.log" in text
    assert "round 3 of 20" in text
    assert cli.main(["status", "--results", "results/smoke", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    states = [job["state"] for job in content["jobs"]]
    assert (states.count("done"), states.count("running"), states.count("failed")) == (2, 1, 1)
    assert len(states) == len(folder.jobs)
    assert cli.main(["status", "--config", str(ROOT / "config/smoke.yaml")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == text.splitlines()[0]
    assert before == {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


def test_a_finished_experiment_says_so(folder):
    for name in folder.jobs:
        folder.done(name, 1.0)
    text = status.status_text(status.look(folder.path))
    assert f"{len(folder.jobs)} jobs, {len(folder.jobs)} done" in text
    assert "Everything is there" in text


def test_nothing_there_is_an_error_that_says_what_to_do(folder, tmp_path, monkeypatch):
    with pytest.raises(NsvitError, match="no such folder"):
        status.look(tmp_path / "results/other")
    (folder.path / "plan.json").unlink()
    with pytest.raises(NsvitError, match="--config FILE"):
        status.look(folder.path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NsvitError, match="run snakemake from this folder first"):
        status.find_results()
    (folder.path / "plan.json").write_text("{")
    with pytest.raises(NsvitError, match="not JSON"):
        status.look(folder.path)
    (folder.path / "plan.json").write_text('{"kind": "plan", "schema_version": 1, "spec": {}}')
    with pytest.raises(NsvitError, match="of another nsvit"):
        status.look(folder.path)


def test_neither_status_nor_plan_loads_torch():
    code = (
        "import sys; from nsvit import cli; "
        "cli.main(['plan', '--config', 'config/smoke.yaml']); import nsvit.status; "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
