"""The list of jobs that plans and status rest on, against Snakemake's own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nsvit import config
from nsvit.planning import Costs, jobs_of, memory_mb, minutes
from tests.checkout import ROOT, Checkout

pytestmark = pytest.mark.xdist_group("workflow")

TARGETS = {"all", "pretrain"}
Files = tuple[str, set[str], set[str]]


def dry_run(folder: Path, name: str) -> str:
    """What Snakemake would do in a folder without data or results."""
    run = Checkout(folder)
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", f"config/{name}.yaml"]
    done = subprocess.run(command, cwd=run.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert not (folder / "results").exists()
    return done.stdout + done.stderr


def jobs_in(text: str, results: str) -> dict[str, tuple[str, Files]]:
    """Rule, resources and files of every job in a dry run, by the name of its log."""
    found = {}
    for part in re.split(r"\n(?=(?:local)?rule \w+:)", text):
        head = re.match(r"(?:local)?rule (\w+):", part)
        if head is None or head[1] in TARGETS:
            continue
        files = {}
        for key in ("input", "output", "log"):
            line = re.search(rf"^    {key}: (.*)$", part, flags=re.M)
            every = line[1].split(", ") if line else []
            files[key] = {f.removeprefix(results) for f in every if f.startswith(results)}
        (log,) = files["log"]
        name = log.removeprefix("logs/").removesuffix(".log")
        resources = re.search(r"^    resources: (.*)$", part, flags=re.M)
        found[name] = (
            resources[1] if resources else "",
            (head[1], files["input"], files["output"]),
        )
    return found


@pytest.mark.parametrize("name", ["smoke", "imagenette", "paper"])
def test_the_jobs_are_snakemakes(name, tmp_path):
    """Rule, inputs and outputs of every job; without the data, and nothing of it is needed."""
    exp = config.load(ROOT / f"config/{name}.yaml")
    found = jobs_in(dry_run(tmp_path, name), f"results/{exp.experiment}/")
    listed = {job.name: job for job in jobs_of(exp)}
    assert len(listed) == len(jobs_of(exp))
    assert {
        name: (job.rule, set(job.inputs), set(job.outputs)) for name, job in listed.items()
    } == {name: files for name, (_, files) in found.items()}
    costs = Costs(exp)
    for name, (resources, (rule, _, _)) in found.items():
        if rule in ("finetune", "evaluate", "learn_noise", "corrupt"):
            wildcards = listed[name].wildcards
            assert f"mem_mb={memory_mb(costs, rule, *wildcards)}," in resources
            assert f"runtime={minutes(costs, rule, *wildcards)}," in resources
