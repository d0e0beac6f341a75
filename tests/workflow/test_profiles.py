"""The profiles for clusters and GPUs, as far as they can be tried without one."""

import os
import re
import stat
import subprocess

import pytest
import yaml
import yte

from nsvit import cli
from tests.checkout import ROOT, SMOKE
from tests.workflow.test_rules import TARGETS, rules

pytestmark = pytest.mark.xdist_group("workflow")

PROFILES = ROOT / "workflow/profiles"
#: Runs the script at once instead of queueing it; Snakemake asks for its state by its id.
SUBMIT = """\
#!/bin/sh
for last; do :; done
echo "$@" >> submitted
setsid -f sh -c "$last > log 2>&1 && echo success > state.1 || echo failed > state.1" < /dev/null
echo 1
"""
STATUS = "#!/bin/sh\ncat state.$1 2> /dev/null || echo running\n"


def profile(name):
    return yaml.safe_load((PROFILES / name / "config.yaml").read_text())


def test_the_examples_in_the_slurm_profile_name_rules_that_exist():
    text = (PROFILES / "slurm/config.yaml").read_text()
    named = set(re.findall(r"^#\s{3}(\w+): (?:\{|noise$)", text, flags=re.M))
    assert named <= set(rules())
    # So that who has no GPU, or a partition of their own for them, forgets none.
    assert {cli.verb_name(verb).replace("-", "_") for verb in cli.GPU_VERBS} <= named


def test_retries_are_in_profiles_alone():
    """A rule's own would also be tried inside an allocation."""
    assert not any("retries:" in text for text in rules().values())
    assert all(profile(name)["retries"] == 2 for name in ("slurm", "cluster-generic"))


def test_every_job_says_what_it_needs():
    """A number, or the plan's (whose numbers tests/unit/test_planning.py looks at)."""
    for name, text in rules().items():
        if name in TARGETS:
            continue
        asked = dict(re.findall(r"^        (mem_mb|runtime|gpu)=(\w+)", text, flags=re.M))
        assert asked["mem_mb"] == "memory" or 500 <= int(asked["mem_mb"]) <= 16000, name
        assert asked["runtime"] == "minutes" or 10 <= int(asked["runtime"]) <= 1440, name
        assert re.search(r"^    threads: \S+", text, flags=re.M), name
        if "gpu" in asked and asked["runtime"] != "minutes":  # hours at the paper's scale
            assert int(asked["runtime"]) >= 60, name


def test_the_gpu_profile_counts_the_gpus_it_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("NSVIT_JOBS_PER_GPU", "2")
    with (PROFILES / "gpu/config.yaml").open() as stream:  # as Snakemake reads it
        assert yte.process_yaml(stream, require_use_yte=True)["resources"] == {"gpu": 6}


def test_a_job_goes_through_the_generic_profile(checkout, monkeypatch):
    binaries = checkout.folder / "bin"
    binaries.mkdir()
    for name, text in (("sbatch", SUBMIT), ("status", STATUS)):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    generic = ["--workflow-profile", "workflow/profiles/cluster-generic"]
    quick = ["--seconds-between-status-checks", "1", "--latency-wait", "2"]
    status = ["--cluster-generic-status-cmd", "bin/status"]
    target = "results/smoke/nullspace/nullity.csv"
    checkout.snakemake(target, *SMOKE, *generic, *quick, *status)
    submitted = (checkout.folder / "submitted").read_text()
    for asked in ("--cpus-per-task 1", "--mem 2000", "--time 10", "--gpus 0"):
        assert asked in submitted
    assert (checkout.folder / target).exists()


def test_the_status_script_speaks_snakemakes_words(tmp_path, monkeypatch):
    script = PROFILES / "cluster-generic/status.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    states = {
        "COMPLETED": "success",
        "RUNNING": "running",
        "PENDING": "running",
        "PREEMPTED": "running",
        "CANCELLED": "failed",
        "OUT_OF_MEMORY": "failed",
    }
    for state, word in states.items():
        (tmp_path / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
        (tmp_path / "squeue").chmod(0o755)
        done = subprocess.run([script, "7"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{word}\n"


def test_without_the_plugin_snakemake_names_what_it_has(checkout, tmp_path):
    """It cannot be told to say what to install; docs/cluster.md explains this message."""
    hidden = tmp_path / "modules"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import pkgutil\nfound = pkgutil.iter_modules\n"
        "pkgutil.iter_modules = lambda *a: (m for m in found(*a) if 'plugin_slurm' not in m.name)\n"
    )
    command = ["-n", *SMOKE, "--workflow-profile", "workflow/profiles/slurm"]
    output = checkout.snakemake(*command, check=False, modules=hidden)
    assert re.search(r"invalid choice: 'slurm'|unrecognized arguments: --slurm", output)
