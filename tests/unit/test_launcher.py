"""What is refused before any process starts, and how many would."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nsvit import cli, launcher
from nsvit.errors import NsvitError
from tests.checkout import ROOT
from tests.runs import spec


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_NNODES", "SLURM_NTASKS", "NSVIT_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NSVIT_DEVICE", "cpu")


@pytest.mark.parametrize(
    "processes,environment,expected",
    [
        ("1", {"SLURM_NNODES": "4"}, (1, 1)),
        ("3", {}, (3, 1)),
        ("auto", {}, (1, 1)),
        ("auto", {"SLURM_NTASKS": "4"}, (4, 1)),
        ("auto", {"SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, (4, 2)),
    ],
)
def test_how_many_processes(
    monkeypatch: pytest.MonkeyPatch, processes: str, environment: dict, expected: tuple
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher.wanted(processes) == expected


def test_auto_takes_every_visible_gpu_on_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NSVIT_DEVICE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert launcher.wanted("auto") == (4, 1)
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert launcher.wanted("auto") == (8, 2)
    assert launcher.wanted("auto", 1) == (4, 1)  # a rule's jobs have a node each unless told
    monkeypatch.delenv("SLURM_NNODES")
    assert launcher.wanted("auto", 3) == (12, 3)
    monkeypatch.setenv("NSVIT_DEVICE", "cpu")
    assert launcher.wanted("auto") == (1, 1)


@pytest.mark.parametrize("processes", ["0", "-2", "two", "1.5"])
def test_no_number_is_refused(processes: str) -> None:
    with pytest.raises(NsvitError, match=r"--processes .*expected a number above 0, or auto"):
        launcher.launch(processes, [])


def test_processes_that_nodes_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NNODES", "2")
    with pytest.raises(NsvitError, match="3 processes cannot be shared equally by the 2 nodes"):
        launcher.launch("3", [])


def test_no_number_of_nodes_is_refused() -> None:
    with pytest.raises(NsvitError, match="--nodes 0: expected a number above 0"):
        launcher.launch("2", [], nodes=0)


def test_what_is_refused_ends_the_log_as_a_failed_job(tmp_path: Path) -> None:
    """Also before any process starts: `nsvit status` must not take it for one that runs."""
    arguments = ["finetune", "--spec", spec("plain").model_dump_json()]
    arguments += ["--model", "m", "--index", "i", "--out", str(tmp_path / "history.json")]
    log = tmp_path / "log"
    with log.open("w") as errors:
        command = [sys.executable, "-m", "nsvit.cli", *arguments, "--processes", "999"]
        done = subprocess.run(command, stderr=errors, cwd=ROOT, check=False)
    assert done.returncode == 1
    lines = log.read_text().splitlines()
    assert lines[0].startswith("nsvit finetune ") and "nsvit: started on " in lines[1]
    assert "nsvit: failed after" in lines[-2] and "999 processes, but" in lines[-1]


def test_one_of_several_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(launcher, "_here", lambda *_: pytest.fail("started"))
    assert launcher.launch("2", []) is False
    assert not launcher.is_first()


@pytest.mark.parametrize(
    "changes,kind,message",
    [
        ({"batch_size": 8}, "plain", r"9 processes, but finetune\.batch_size has only 8 pictures"),
        (
            {"accumulate": 4},
            "plain",
            r"9 .*batch_size / finetune\.accumulate has only 2",
        ),
        ({"batch_size": 16}, "nullspace", r"9 .* finetune\.noise\.batch_size has only 4 pictures"),
    ],
)
def test_more_processes_than_pictures_are_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict,
    kind: str,
    message: str,
) -> None:
    monkeypatch.setattr(launcher, "_here", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("nsvit.runtime.setup_logging", lambda *_: None)
    arguments = ["finetune", "--spec", spec(kind, **changes).model_dump_json()]
    arguments += ["--model", "m", "--index", "i", "--out", str(tmp_path / "history.json")]
    assert cli.main([*arguments, "--processes", "9"]) == 1
    assert re.search(message, caplog.text)


def test_a_port_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("NSVIT_PORT", str(port))
        with pytest.raises(NsvitError, match=rf"port {port} \(NSVIT_PORT\).*another one"):
            launcher.launch("2", [])
    monkeypatch.setenv("NSVIT_PORT", "http")
    with pytest.raises(NsvitError, match="port http"):
        launcher.launch("2", [])


def test_a_missing_launcher_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NsvitError, match=r"2 nodes, and srun.*is not in PATH"):
        launcher.launch("2", [])
    monkeypatch.delenv("SLURM_NNODES")
    monkeypatch.setattr("torch.distributed.is_available", lambda: False)
    with pytest.raises(NsvitError, match=r"no torch\.distributed"):
        launcher.launch("2", [])


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_time_out_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("NSVIT_TIMEOUT", text)
    with pytest.raises(NsvitError, match=f"NSVIT_TIMEOUT={text}"):
        launcher.launch("2", [])


@pytest.mark.parametrize("code,expected", [("0", None), ("3", "srun's exit code 3")])
def test_torchrun_starts_once_on_every_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, expected: str | None
) -> None:
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/given\nexit {code}\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SLURM_NNODES", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("NSVIT_HEAD", "10.0.0.1")
    if expected is None:
        assert launcher.launch("4", ["finetune", "--out", "x"])
    else:
        with pytest.raises(NsvitError, match=expected):
            launcher.launch("4", ["finetune", "--out", "x"])
    given = (tmp_path / "given").read_text().split()
    for part in ("--nodes=2", "--ntasks-per-node=1", "--nproc_per_node=2", "--max_restarts=0"):
        assert part in given
    assert "--rdzv_endpoint=10.0.0.1:20071" in given
    assert given[-4:] == ["nsvit.cli", "finetune", "--out", "x"]


LAUNCH = """
import sys
from nsvit import launcher, stopping
stopping.at_once()
try:
    launcher.launch("2", sys.argv[1:], module="tests.distributed.sleeper")
except stopping.Stopped as stopped:
    sys.exit(stopped.code)
"""


@pytest.mark.xdist_group("distributed")
@pytest.mark.parametrize(
    ("whom", "sent", "code"),
    [
        ("launcher", signal.SIGTERM, 143),
        ("process", signal.SIGTERM, 143),
        ("launcher", signal.SIGKILL, -9),
    ],
)
def test_all_processes_end_with_the_one_that_is_asked_to(
    tmp_path: Path, whom: str, sent: signal.Signals, code: int
) -> None:
    started = subprocess.Popen([sys.executable, "-c", LAUNCH, str(tmp_path)], cwd=ROOT)
    pids: list[int] = []
    try:
        wait_until(lambda: len(numbers(tmp_path)) == 2)
        pids = numbers(tmp_path)
        os.kill(started.pid if whom == "launcher" else pids[1], sent)
        assert started.wait(60) == code
        wait_until(lambda: not any(map(runs, pids)))
    finally:
        started.kill()
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)


def numbers(folder: Path) -> list[int]:
    """Of the processes that have begun to wait, by rank."""
    texts = [path.read_text() for path in sorted(folder.iterdir())]
    return [int(text) for text in texts if text]


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
