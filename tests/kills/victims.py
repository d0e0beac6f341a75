"""A running workflow, and ways to kill it or one of its jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import Checkout

#: Seconds that anything may take before the test gives up.
PATIENCE = 600.0


@dataclass(frozen=True)
class Job:
    """A verb that runs: its process and its command line."""

    pid: int
    verb: str
    out: str


def jobs(group: int) -> list[Job]:
    """The verbs that run in a process group, by process number."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError):
            state, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if int(own) == group and state != "Z" and any(w.endswith("/nsvit") for w in words[:2]):
                verb = words[[w.endswith("/nsvit") for w in words].index(True) + 1]
                found.append(Job(int(folder.name), verb, words[words.index("--out") + 1]))
    return sorted(found, key=lambda job: job.pid)


class Workflow:
    """Snakemake on a configuration, in a process group of its own, started again and again."""

    def __init__(self, checkout: Checkout, *arguments: str, cores: int) -> None:
        self.checkout = checkout
        self.command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
        self.output = checkout.folder / "snakemake.out"
        self.groups: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it; returns the seconds until its first job runs. Unlocks first if it must."""
        begun = time.monotonic()
        if self.locked():
            subprocess.run(
                [*self.command, "--unlock"],
                cwd=self.checkout.folder,
                env=self.checkout.environment(),
                capture_output=True,
                check=True,
            )
            begun = time.monotonic()
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.checkout.folder,
                env=self.checkout.environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.groups.append(self.process.pid)
        self.wait_until(lambda: bool(self.jobs()) or self.ended())
        return time.monotonic() - begun

    def locked(self) -> bool:
        """Whether a killed Snakemake has left its lock."""
        locks = self.checkout.folder / ".snakemake/locks"
        return locks.is_dir() and any(locks.iterdir())

    def ended(self) -> bool:
        """Whether it does not run."""
        return self.process is None or self.process.poll() is not None

    def done(self) -> int:
        """How many jobs have been finished, by this run or those before."""
        return sum(1 for _ in self.checkout.folder.glob("results/*/benchmarks/**/*.tsv"))

    def jobs(self) -> list[Job]:
        """The verbs of the present run."""
        assert self.process is not None
        return jobs(self.process.pid)

    def orphans(self) -> list[Job]:
        """The verbs of all runs."""
        return [job for group in self.groups for job in jobs(group)]

    def hit(self, how: str, number: int) -> str:
        """Kills something that runs: a job, all, or Snakemake alone. Returns what it was.

        Args:
            how: "all TERM", "all KILL", "snakemake TERM", "snakemake KILL", "job TERM", "job KILL".
            number: which of the jobs, if several run.
        """
        assert self.process is not None
        running = self.jobs()
        assert running and not self.ended(), "nothing to kill"
        whom, name = how.split()
        sent = signal.Signals[f"SIG{name}"]
        victim = running[number % len(running)]
        if whom == "all":
            os.killpg(self.process.pid, sent)
        elif whom == "snakemake":
            self.process.send_signal(sent)
        else:
            os.kill(victim.pid, sent)
        if whom != "job":
            self.process.wait(PATIENCE)
        return f"{how}: {', '.join(f'{job.verb} {job.out}' for job in running)}"

    def wait_until(self, condition: object) -> None:
        """Waits, but not for ever."""
        assert callable(condition)
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, self.output.read_text()[-4000:]
            time.sleep(0.02)

    def end(self) -> None:
        """Ends all that is left of all runs."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(PATIENCE)
