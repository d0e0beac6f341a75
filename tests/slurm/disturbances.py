"""One job cancelled, one pre-empted, one killed, while the workflow runs through SLURM.

A run of the smoke workflow is in its middle for a second, and a question to SLURM may take as long:
a thread stops the processes that are to be disturbed as soon as they are there, so that a job can
not end between the look at it and what is done to it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.slurm.local_slurm import Cluster, marked

log = logging.getLogger("test-slurm")

RUNS = Path("results/smoke/runs/vit_s")
#: The runs that are disturbed. Both have learned or attacked for a while before their end.
KILLED, PREEMPTED = RUNS / "nullspace/seed0", RUNS / "madry/seed0"
CANCELLED = "rule_evaluate"


class Disturbances:
    """Looks at the cluster whenever it is told to, and disturbs a job once it is in the middle."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.cancelled = self.killed = self.preempted = self.urgent = self.dying = ""
        self.held: set[int] = set()
        self.shared: set[str] = set()
        self.devices: set[str] = set()
        self.looked = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, processes that are to be disturbed are held once they are in the middle."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                if not self.killed:
                    self._hold(KILLED)
                if not self.preempted:
                    self._hold(PREEMPTED)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def step(self) -> None:
        """One look; called a few times a second."""
        if not self.killed and self._in_the_middle(KILLED):
            self._kill()
        if not self.urgent and self._in_the_middle(PREEMPTED) and not self._is_dying():
            self._preempt()
        if time.monotonic() - self.looked < 1:
            return
        self.looked = time.monotonic()
        self._look_at_devices()
        if not self.cancelled:
            self._cancel()

    def report(self) -> str:
        """What was done to which job."""
        return (
            f"cancelled SLURM job {self.cancelled or 'none'}, pre-empted "
            f"{self.preempted or 'none'}, killed {self.killed or 'none'}; GPUs used: "
            f"{', '.join(sorted(self.devices)) or 'none'}"
        )

    def failures(self) -> list[str]:
        """What did not go as it should."""
        output = (self.folder / "output.txt").read_text(errors="replace")
        found = []
        if not re.search(rf"SLURM-job '{self.cancelled}' failed.*'CANCELLED'", output):
            found.append("no job was cancelled and run again")
        for what, done, run in (
            ("killed", self.killed, KILLED),
            ("pre-empted", self.preempted, PREEMPTED),
        ):
            logged = self.folder / "results/smoke/logs/finetune/vit_s" / run.relative_to(RUNS)
            text = logged.with_suffix(".log").read_text(errors="replace")
            if not done:
                found.append(f"no job was {what}")
            elif "round 0/" in text:
                found.append(f"the {what} finetuning began anew:\n{text}")
        if not re.search(r"SLURM-job '\d+' failed.*'FAILED'", output):
            found.append("no killed job was noticed and run again")
        if self.shared:
            found.append(f"GPUs shared by two jobs: {sorted(self.shared)}")
        if len(self.devices) < 2:
            found.append(f"not both GPUs were used: {sorted(self.devices)}")
        return found

    def _in_the_middle(self, run: Path) -> bool:
        """Has the run saved its start, and not yet its end?"""
        here = self.folder / run
        return (here / "rounds/0/state.json").exists() and not (here / "history.json").exists()

    def _is_dying(self) -> bool:
        """Is the job of the killed process still there? Pre-empted too, it would not fail."""
        if self.dying and self.dying not in self._jobs("RUNNING,COMPLETING"):
            self.dying = ""
        return bool(self.dying)

    def _hold(self, run: Path) -> None:
        """Stops the process of a run that is in the middle. SLURM lets it go on when it ends it."""
        if not self._in_the_middle(run) or not (pid := self._process(run)) or pid in self.held:
            return
        self.held.add(pid)  # once: what SLURM has let go on must be able to end
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            if not self._in_the_middle(run):  # it was faster
                os.kill(pid, signal.SIGCONT)

    def _process(self, run: Path) -> int | None:
        """The process that finetunes for a run."""
        arm, seed = run.parts[-2], run.parts[-1].removeprefix("seed")
        signs = (f'"arm":"{arm}"', f'"seed":{seed}')
        for pid in marked(self.cluster.base):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            spec = next((word for word in command if word.startswith("{")), "")
            if "finetune" in command[:4] and all(sign in spec for sign in signs):
                return pid
        return None

    def _kill(self) -> None:
        """SIGKILLs a process in the middle."""
        if not (pid := self._process(KILLED)):
            return
        jobs = self._jobs("RUNNING").items()
        self.dying = next(
            (i for i, c in jobs if "finetune" in c and c.endswith("_nullspace_0")), ""
        )
        os.kill(pid, signal.SIGKILL)
        self.killed = f"process {pid} (finetune nullspace 0)"
        log.info("killed %s", self.killed)

    def _preempt(self) -> None:
        """Submits an urgent job that needs the whole node, so that a lower one must go."""
        jobs = self._jobs("RUNNING")
        wanted = [i for i, comment in jobs.items() if "finetune" in comment and "madry" in comment]
        if not wanted:
            return
        submit = ["sbatch", "--parsable", "-p", "urgent", "-t", "1", "-n", "1", "-o", "/dev/null"]
        cpus = ["-c", str(self.cluster.cpus), "--mem", "100", "--wrap", "sleep 1"]
        self.urgent = self.cluster.ask(*submit, *cpus) or "refused"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not self.preempted:
            shown = self.cluster.ask("scontrol", "-o", "show", "job", wanted[0])
            if restarts := int((re.search(r"Restarts=(\d+)", shown) or ["", "0"])[1]):
                self.preempted = f"{wanted[0]} (finetune madry, restarts: {restarts})"
                log.info("pre-empted SLURM job %s", self.preempted)
                # SLURM lets a requeued job wait for two minutes.
                self.cluster.ask("scontrol", "update", f"JobId={wanted[0]}", "StartTime=now")
            time.sleep(0.2)

    def _cancel(self) -> None:
        for job, comment in self._jobs("RUNNING").items():
            if comment.startswith(CANCELLED):
                subprocess.run(
                    ["scancel", job], env=self.cluster.environment, check=True, timeout=60
                )
                self.cancelled = job
                log.info("cancelled SLURM job %s (%s)", job, comment)
                return

    def _jobs(self, state: str) -> dict[str, str]:
        """The comment, which names the rule, of every job in a state."""
        lines = self.cluster.ask("squeue", "-h", "-t", state, "-o", "%i|%k").splitlines()
        return dict(line.split("|", 1) for line in lines if "|" in line)

    def _look_at_devices(self) -> None:
        """Which GPUs the running jobs hold."""
        held: list[str] = []
        for line in self.cluster.ask("scontrol", "-d", "-o", "show", "job").splitlines():
            if "JobState=RUNNING" in line:
                for numbers in re.findall(r"GRES=gpu:\w+:\d+\(IDX:([\d,]+)\)", line):
                    held += numbers.split(",")
        self.devices |= set(held)
        self.shared |= {number for number in held if held.count(number) > 1}
