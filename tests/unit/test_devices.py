"""Which GPU a job gets: fakes named by CUDA_VISIBLE_DEVICES or by an nvidia-smi of our own."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from nsvit import cli, devices, launcher
from nsvit.errors import NsvitError
from tests.runs import spec
from tests.workflow.test_rules import rules

LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c5b0dd8-6b2e)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-8f1d2c3a-77aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-0a6b-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-0a6b-2222)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-99999999-0000)
"""

#: Holds as many GPUs as it is told, says which, and waits for a line.
HOLDER = """\
import sys
from nsvit import devices
claim = devices.claim(int(sys.argv[1]))
print(",".join(claim.devices), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with two GPUs and locks of its own, outside every allocation."""
    for name in (*devices.ALLOCATIONS, devices.HELD, devices.SHARE, "NSVIT_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(devices.VISIBLE, "0,1")
    monkeypatch.setenv(devices.LOCKS, str(tmp_path / "locks"))
    monkeypatch.setattr(devices, "installed", list)
    held = list(devices._mine)
    yield
    for claim in devices._mine[len(held) :]:
        claim.release()
    devices._mine[:] = held


def again(monkeypatch, visible="0,1"):
    """What another process of the same machine sees."""
    monkeypatch.delenv(devices.HELD, raising=False)
    monkeypatch.setenv(devices.VISIBLE, visible)


@pytest.fixture
def holder():
    """Starts processes that hold GPUs; returns each with what it holds."""
    started = []

    def start(count=1):
        command = [sys.executable, "-c", HOLDER, str(count)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free():
    """The GPUs that nobody holds now."""
    found = []
    for name in devices.visible():
        claim = devices._try([name], 1, "")
        if claim:
            found.append(name)
            claim.release()
    return found


def test_processes_at_once_hold_different_gpus_and_a_killed_one_frees_its_own(holder):
    first, second = holder(), holder()
    held = {process: process.stdout.readline().strip() for process in (first, second)}
    assert set(held.values()) == {"0", "1"}
    third = holder()
    first.send_signal(signal.SIGKILL)
    assert third.stdout.readline().strip() == held[first]  # it had to wait for it
    second.communicate("\n")  # ends by itself
    assert free() == [held[second]]


def test_many_claims_never_overlap(tmp_path):
    """Eight processes take three GPUs in turns; each marks its own while it holds it."""
    script = tmp_path / "turns.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, random, sys, time
            from nsvit import devices
            for turn in range(6):
                os.environ.pop(devices.HELD, None)
                os.environ[devices.VISIBLE] = "0,1,2"
                claim = devices.claim(1 + turn % 2)
                for name in claim.devices:
                    os.mkdir(f"{sys.argv[1]}/{name}")
                time.sleep(random.random() / 50)
                for name in claim.devices:
                    os.rmdir(f"{sys.argv[1]}/{name}")
                claim.release()
            """
        )
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, str(script), str(marks)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate(timeout=120)[1] for process in running] == [""] * 8
    assert all(process.returncode == 0 for process in running)
    assert list(marks.iterdir()) == []


def test_torch_is_shown_the_held_gpu_alone(monkeypatch):
    assert devices.claim().devices == ("0",)
    assert os.environ[devices.VISIBLE] == "0"
    again(monkeypatch)
    assert devices.claim().devices == ("1",)


def test_processes_that_a_holder_starts_take_no_lock():
    devices.claim("auto")
    assert os.environ[devices.VISIBLE] == "0,1"
    assert devices.claim(2) == devices.Claim()
    assert os.environ[devices.VISIBLE] == "0,1"


def test_more_than_there_are_is_refused():
    with pytest.raises(NsvitError, match="3 GPUs are asked for and 2 are visible"):
        devices.claim(3)


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_a_named_device_is_left_alone(monkeypatch, device):
    monkeypatch.setenv("NSVIT_DEVICE", device)
    assert devices.claim() == devices.Claim()
    assert os.environ[devices.VISIBLE] == "0,1"


def test_without_a_gpu_there_is_nothing_to_hold(monkeypatch):
    for visible in ("", "-1"):
        again(monkeypatch, visible)
        assert devices.claim() == devices.Claim()


def test_what_the_scheduler_gave_is_trusted(monkeypatch):
    """Every job may see its GPU as number 0: a lock on 0 would stop all but one."""
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    for _ in range(2):
        again(monkeypatch, "0")
        assert devices.claim() == devices.Claim()
        assert os.environ[devices.VISIBLE] == "0"


def test_jobs_that_share_one_allocation_share_it_out(monkeypatch):
    held = []
    for allocation in ("71", "71", "72"):
        monkeypatch.setenv("SLURM_JOB_ID", allocation)
        again(monkeypatch)
        held.append(devices.claim().devices)
    assert held == [("0",), ("1",), ("0",)]  # another allocation, another machine


def test_gpus_are_shared_only_when_told_and_no_one_before_all_are_used(monkeypatch):
    monkeypatch.setenv(devices.SHARE, "2")
    held = []
    for _ in range(4):
        again(monkeypatch)
        held.append(devices.claim().devices[0])
    assert held == ["0", "1", "0", "1"]
    monkeypatch.setenv(devices.SHARE, "none")
    again(monkeypatch)
    with pytest.raises(NsvitError, match="NSVIT_JOBS_PER_GPU='none'"):
        devices.claim()


def test_uuids_of_whole_gpus_and_of_slices(monkeypatch):
    found = devices.listed(LISTING)
    assert found == ["GPU-5c5b0dd8-6b2e", "MIG-0a6b-1111", "MIG-0a6b-2222", "GPU-99999999-0000"]
    monkeypatch.setattr(devices, "installed", lambda: found)
    assert devices.visible({}) == found
    assert devices.visible({devices.VISIBLE: "3, 0"}) == [found[3], found[0]]
    assert devices.visible({devices.VISIBLE: "GPU-5c5b0dd8-6b2e"}) == [found[0]]
    assert devices.visible({devices.VISIBLE: "0,-1,1"}) == [found[0]]


def test_nvidia_smi_is_asked_and_may_fail(monkeypatch, tmp_path):
    monkeypatch.undo()
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<E\n{LISTING}E\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert len(devices.installed()) == 4
    program.write_text("#!/bin/sh\nexit 9\n")
    assert devices.installed() == []


def test_a_lock_that_cannot_be_made_is_an_error_and_no_link_is_followed(monkeypatch, tmp_path):
    monkeypatch.setenv(devices.LOCKS, str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NsvitError, match="NSVIT_DEVICE_LOCKS"):
        devices.claim()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv(devices.LOCKS, str(folder))
    with pytest.raises(NsvitError, match="NSVIT_DEVICE_LOCKS"):
        devices.claim()
    assert not (tmp_path / "elsewhere").exists()


def test_verbs_that_take_a_gpu_are_those_whose_rules_ask_for_one():
    asking = {name for name, text in rules().items() if "gpu=" in text}
    assert asking == {cli.verb_name(verb).replace("-", "_") for verb in cli.GPU_VERBS}


def test_a_verb_takes_its_gpu_before_it_runs(monkeypatch, tmp_path):
    seen = []

    def finetune(args):
        """A verb."""
        seen.append("ran")

    monkeypatch.setattr(cli, "RULE_VERBS", {finetune: ()})
    monkeypatch.setattr(cli, "SPECLESS", {finetune})
    monkeypatch.setattr(cli, "GPU_VERBS", {finetune})
    monkeypatch.setattr(devices, "claim", seen.append)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["finetune", "--out", "x"]) == 0
    assert seen == [1, "ran"]


@pytest.mark.parametrize(
    "environment,options,held",
    [
        ({}, ("--processes", "2"), ["2"]),
        ({}, ("--processes", "2", "--nodes", "1"), ["2"]),
        ({"SLURM_NNODES": "2"}, ("--processes", "4"), []),  # names of another node's GPUs
        ({}, ("--processes", "4", "--nodes", "2"), []),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (), []),  # torchrun by hand
    ],
)
def test_several_processes_take_their_gpus_once(monkeypatch, tmp_path, environment, options, held):
    for name in ("RANK", "WORLD_SIZE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr(devices, "claim", seen.append)
    monkeypatch.setattr(launcher, "launch", lambda *_, **__: True)
    monkeypatch.setattr(cli, "read_spec", lambda *_: spec("plain"))
    monkeypatch.setattr("nsvit.runtime.prepare", lambda *_: sys.exit(0))
    command = ["finetune", "--spec", "{}", "--model", "m", "--index", "i"]
    with contextlib.suppress(SystemExit):
        cli.main([*command, "--out", str(tmp_path / "history.json"), *options])
    assert seen == held
