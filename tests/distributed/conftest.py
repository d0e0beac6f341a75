"""The same verbs in 1, 2 and 3 processes, each once for all tests.

Two processes are on two nodes of a pretended SLURM job (whose srun starts both here), of which one
freezes when all is done; of three on one machine one is killed when all is done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nsvit import cli
from tests.checkout import ROOT
from tests.distributed import world

SRUN = """#!/bin/bash
# Starts a command once for each node, here both on this machine, and ends the other when one fails.
[[ " $* " == *" --kill-on-bad-exit=1 "* ]] || exit 99
while [ "${1#--}" != "$1" ]; do shift; done
"$@" & "$@" &
wait -n; code=$?
[ $code -eq 0 ] || kill $(jobs -p)
wait -n; other=$?
exit $(( code ? code : other ))
"""

LAUNCH = "import sys; from nsvit import cli, launcher, runtime; runtime.setup_logging(); "
LAUNCH += "launcher.launch(sys.argv[1], sys.argv[2:], module='tests.distributed.work')"


@dataclass(frozen=True)
class Outcome:
    """What some processes made, and how they ended: seconds after one was killed or froze."""

    out: Path
    output: str = ""
    code: int = 0
    seconds: float = 0.0


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    """By number of processes."""
    folder = tmp_path_factory.mktemp("distributed")
    world.build(folder)
    alone = folder / "1"
    for arguments in world.commands(folder, alone):
        assert cli.main(arguments) == 0
    found = {1: Outcome(alone)}
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text(SRUN)
    (folder / "bin" / "srun").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    cluster = {"PATH": path, "SLURM_NNODES": "2", "SLURM_JOB_ID": str(os.getpid())}
    cluster |= {"NSVIT_HEAD": "127.0.0.1", "NSVIT_TIMEOUT": "30"}
    for number, extra, fate in ((2, cluster, "frozen"), (3, {}, "killed")):
        out = folder / str(number)
        command = [sys.executable, "-c", LAUNCH, str(number)]
        command += [str(world.write_commands(folder, out)), fate]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NSVIT_DEVICE": "cpu", **extra}
        environment |= {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
            timeout=200,
        )  # fmt: skip
        ended, fate = time.time(), out / "fate.json"
        if (out / "handed/unfinished").exists():
            command = world.finetune_command(folder, world.RUNS["short"], out / "handed")
            assert cli.main(command) == 0
        seconds = ended - read(fate) if fate.exists() else -1.0
        found[number] = Outcome(out, done.stdout + done.stderr, done.returncode, seconds)
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text())
