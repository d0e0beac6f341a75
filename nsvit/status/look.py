"""What the files of an experiment say about each of its jobs."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from nsvit import artifacts, progress
from nsvit import config as c
from nsvit.errors import NsvitError
from nsvit.planning import Job, jobs_of
from nsvit.specs import PlanSpec

#: done: its outputs are there. stopped: it ended without a word, so it was killed. left: not begun.
State = Literal["done", "running", "failed", "stopped", "left"]

#: A job touches its log every `progress.BEAT_SECONDS`; a network disk may show that a minute late.
SILENT_SECONDS = 150.0
#: Times of two files of one job may differ so much by rounding.
_SLACK = 2.0
_TAIL_BYTES = 8192
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ [A-Z]+ [\w.]+: ")
_ENDED = re.compile(rf" (?:INFO|ERROR) nsvit: ({progress.FINISHED}|{progress.FAILED}) ")
_STARTED = re.compile(rf" INFO nsvit: {progress.STARTED} (.*)")


@dataclass(frozen=True)
class Seen:
    """One job as its files show it.

    Attributes:
        job: the job.
        state: see `State`.
        seconds: it took (done), or has taken (running); None where that is not known.
        line: the last line of its log, without the time; "" while it has none.
        where: host, process and SLURM job, as its log says.
        silent: seconds since its last sign of life; None where it has no log.
    """

    job: Job
    state: State
    seconds: float | None = None
    line: str = ""
    where: str = ""
    silent: float | None = None


@dataclass(frozen=True)
class Status:
    """An experiment.

    Attributes:
        experiment: its name.
        results: its folder.
        jobs: every job, in the order of the pipeline.
        locked: whether Snakemake's lock is there: it runs, or was killed.
    """

    experiment: str
    results: Path
    jobs: tuple[Seen, ...]
    locked: bool

    def in_state(self, state: State) -> list[Seen]:
        """The jobs in a state."""
        return [seen for seen in self.jobs if seen.state == state]

    def rules(self) -> dict[str, list[Seen]]:
        """The jobs by rule."""
        found: dict[str, list[Seen]] = {}
        for seen in self.jobs:
            found.setdefault(seen.job.rule, []).append(seen)
        return found

    def seconds_left(self) -> tuple[float, list[str]]:
        """The time until all is done, by the mean of each rule's finished jobs.

        As many jobs at once as run now. Returns also the rules of which none has finished, whose
        jobs count nothing.
        """
        total, unknown = 0.0, []
        for rule, own in self.rules().items():
            open_ = [seen for seen in own if seen.state != "done"]
            mean = mean_seconds(own)
            if open_ and mean is None:
                unknown.append(rule)
            for seen in open_:
                begun = (seen.seconds or 0.0) if seen.state == "running" else 0.0
                total += max((mean or 0.0) - begun, 0.0)
        return total / max(1, len(self.in_state("running"))), unknown

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        left, unknown = self.seconds_left()
        return {
            "experiment": self.experiment,
            "results": str(self.results),
            "locked": self.locked,
            "seconds_left": left,
            "rules_without_a_finished_job": unknown,
            "jobs": [
                {
                    "rule": seen.job.rule,
                    "name": seen.job.name,
                    "state": seen.state,
                    "seconds": seen.seconds,
                    "line": seen.line,
                    "where": seen.where,
                    "silent_seconds": seen.silent,
                    "log": str(self.results / "logs" / f"{seen.job.name}.log"),
                }
                for seen in self.jobs
            ],
        }


def mean_seconds(jobs: Iterable[Seen]) -> float | None:
    """The mean time of the finished jobs; None where none has one."""
    times = [seen.seconds for seen in jobs if seen.state == "done" and seen.seconds is not None]
    return sum(times) / len(times) if times else None


# --- finding ----------------------------------------------------------------------------------


def find_results(top: str | Path = "results") -> Path:
    """The results folder that was begun last.

    Raises:
        NsvitError: there is none.
    """
    plans = sorted(Path(top).glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not plans:
        raise NsvitError(
            f"{top}: no experiment has been begun here (no */plan.json); run snakemake from this "
            "folder first, or say --results FOLDER or --config FILE"
        )
    return plans[-1].parent


def look(results: str | Path, exp: c.Experiment | None = None) -> Status:
    """Reads what the files of a results folder say.

    Args:
        results: `results/<experiment>`.
        exp: the experiment; None takes it from the folder's plan.json.

    Raises:
        NsvitError: there is no such folder, or no plan that can be read.
    """
    results = Path(results)
    if not results.is_dir():
        raise NsvitError(
            f"{results}: no such folder; nothing has been run there (snakemake makes it)"
        )
    exp = exp or _planned(results / "plan.json")
    now = time.time()
    seen = tuple(_look(job, results, now) for job in jobs_of(exp))
    locks = results.absolute().parent.parent / ".snakemake" / "locks"
    return Status(exp.experiment, results, seen, locks.is_dir() and any(locks.iterdir()))


def _planned(path: Path) -> c.Experiment:
    if not path.exists():
        raise NsvitError(
            f"{path}: no such file; a whole run makes it first, one of some targets does not. Say "
            "--config FILE with the run's configuration"
        )
    content = artifacts.read_json(path)
    try:
        artifacts.check_kind(content, "plan", path)
        return PlanSpec.model_validate(content["spec"]).config
    except (KeyError, ValueError):
        raise NsvitError(
            f"{path}: of another nsvit; say --config FILE with the run's configuration"
        ) from None


# --- one job ----------------------------------------------------------------------------------


def _look(job: Job, results: Path, now: float) -> Seen:
    there = all((results / path).exists() for path in job.outputs)
    logged = _time(log := results / "logs" / f"{job.name}.log")
    measured = _time(benchmark := results / "benchmarks" / f"{job.name}.tsv")
    if there and (logged is None or (measured is not None and measured >= logged - _SLACK)):
        return Seen(job, "done", None if measured is None else _benchmark(benchmark))
    if logged is None:
        return Seen(job, "left")
    head, tail = _ends(log)
    ended = _ENDED.findall(tail)
    line, where, silent = _last_line(tail), _where(head), max(0.0, now - logged)
    took = _elapsed(head, logged)
    if ended and ended[-1] == progress.FAILED:
        return Seen(job, "failed", took, line, where, silent)
    if ended:
        return Seen(job, "done" if there else "left", took if there else None)
    if silent > SILENT_SECONDS:
        return Seen(job, "stopped", took, line, where, silent)
    return Seen(job, "running", _elapsed(head, now), line, where, silent)


def _time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _benchmark(path: Path) -> float | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"), None) or {}
        return float(row.get("s") or "")
    except (OSError, ValueError):
        return None


def _ends(log: Path) -> tuple[str, str]:
    """The first and the last bytes of a log as text; a log may be long, its command too."""
    try:
        with log.open("rb") as file:
            head = file.read(_TAIL_BYTES * 2)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return head.decode(errors="replace"), file.read().decode(errors="replace")
    except OSError:
        return "", ""


def _last_line(tail: str) -> str:
    """The last line that says something: not the end's own, and not the command."""
    for line in reversed(tail.splitlines()):
        if not line.strip() or _ENDED.search(line) or line.startswith("nsvit "):
            continue
        if _STARTED.search(line):
            return ""
        return _STAMP.sub("", line).strip()
    return ""


def _where(head: str) -> str:
    match = _STARTED.search(head)
    return match[1].strip() if match else ""


def _elapsed(head: str, until: float) -> float | None:
    """Seconds since the first time in a log, which is this machine's local time."""
    match = _STAMP.search(head)
    if match is None:
        return None
    begun = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").timestamp()
    return max(0.0, until - begun)
