"""Where `make test-slurm` is left out, what it clears up, and what the gate makes of that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.slurm import local_slurm
from tests.slurm.local_slurm import ALIVE, MARK, Cluster, Unavailable, install, marked


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root on a machine without SLURM, as far as the test can see; its /etc/slurm."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(local_slurm, "ETC", tmp_path / "etc")
    monkeypatch.setattr(local_slurm, "_missing", lambda: ["slurmd"])
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "etc"


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match="it needs root"):
        install()


def test_packages_that_cannot_be_had(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "echo first >&2; echo E: Unable to locate package slurmd >&2; exit 100"
    program(machine.parent / "bin", "apt-get", said)
    with pytest.raises(Unavailable, match="no slurmd here: .*install failed: E: Unable to locate"):
        install()
    monkeypatch.setenv("PATH", str(machine.parent / "nothing"))
    with pytest.raises(Unavailable, match="no apt-get"):
        install()


def test_a_list_that_cannot_be_fetched_is_no_reason(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = machine.parent / "installed"
    program(machine.parent / "bin", "apt-get", f"[ $1 = install ] && touch {there}")
    monkeypatch.setattr(local_slurm, "_missing", lambda: [] if there.exists() else ["slurmd"])
    install()


def test_a_slurm_that_is_not_ours_is_left_alone(machine: Path) -> None:
    machine.mkdir()
    (machine / "slurm.conf").write_text("ClusterName=theirs")
    with pytest.raises(Unavailable, match="a SLURM of its own"), Cluster(1):
        pytest.fail("started")
    assert [path.name for path in machine.iterdir()] == ["slurm.conf"]
    assert not list(machine.parent.glob("nsvit-slurm-*"))


def test_what_a_killed_test_left_is_swept_and_a_running_one_is_not(machine: Path) -> None:
    machine.mkdir()
    other = Cluster(1)
    (machine / "slurm.conf").symlink_to(other.base / "slurm.conf")
    with pytest.raises(Unavailable, match=f"another test has its SLURM in {other.base}"):
        local_slurm._sweep()
    assert (other.base / ALIVE).exists()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    job = subprocess.Popen(command, env={**os.environ, MARK: str(other.base)})
    try:
        until = time.monotonic() + 10
        while job.pid not in marked(other.base) and time.monotonic() < until:
            time.sleep(0.02)
        other.alive.close()  # as when it is killed
        local_slurm._sweep()
        assert job.wait(10) < 0
    finally:
        job.kill()
        job.wait()
    assert not list(machine.iterdir()) and not other.base.exists()


@pytest.mark.parametrize(
    ("user", "slurm", "code", "last"),
    [
        (0, "exit 0", 0, "test"),
        (0, "echo 'make test-slurm: LEFT OUT, nothing was tested'; exit 2", 0, "test"),
        (0, "echo 'a table differs'; exit 2", 1, "test-slurm"),
        (1000, "exit 2", 0, "test"),
    ],
)
def test_the_gate(tmp_path: Path, user: int, slurm: str, code: int, last: str) -> None:
    """Goes on where SLURM is left out, and only there."""
    made = f"""echo "$*" >> {tmp_path}/made
case "$1" in
  "") echo "Nothing to be done" ;;
  test-slurm) {slurm} ;;
esac"""
    program(tmp_path / "bin", "make", made)
    program(tmp_path / "bin", "id", f"echo {user}")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [tmp_path / ".ci/run"], env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    made = (tmp_path / "made").read_text().split("\n")[:-1]
    assert made[-1] == last and ("test-slurm" in made) == (user == 0)
    assert ("left out: it needs root" in done.stdout) == (user != 0)
