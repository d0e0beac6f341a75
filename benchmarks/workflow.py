"""Snakemake's own time: a rerun of the finished default with nothing to do, and the paper's plan.

Both in a copy of the workflow in a folder that is deleted. The outputs of the default are empty
files there, since only names and times decide what is to be done. Beside them whole runs from
nothing to the report, on two cores: of the smoke experiment, with `--large` also of the default.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.runner import Case
from nsvit.errors import NsvitError

ROOT = Path(__file__).resolve().parent.parent
OURS = "snakemake"
NOTHING = "Nothing to be done"
#: Seconds that the default run should take on two cores, installation left out.
DEFAULT = 900.0


class Copy:
    """The workflow in a folder of its own, made when it is first asked for."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def root(self) -> Path:
        """Where the copy is."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="nsvit-bench-")
            root = Path(self._folder.name)
            shutil.copy(ROOT / "Snakefile", root)
            for name in ("config", "workflow", "profiles", "nsvit"):
                shutil.copytree(ROOT / name, root / name)
        return Path(self._folder.name)

    def run(self, *given: str, cores: int = 1) -> str:
        """Snakemake's two outputs.

        Raises:
            NsvitError: it failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", str(cores), *given],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NsvitError(f"snakemake {' '.join(given)}: {done.stderr[-500:]}")
        return done.stdout + done.stderr


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    found = [rerun("config/config.yaml", 5.0), dry_run("config/paper.yaml", 10.0)]
    found += [] if args.quick else [whole("config/smoke.yaml")]
    return [*found, whole("config/config.yaml", DEFAULT)] if args.large else found


def whole(config: str, limit: float | None = None, cores: int = 2) -> Case:
    """Every job of an experiment, from nothing to the report; once."""

    def work() -> list[Path]:
        copy = Copy()
        copy.run("--quiet", "all", "--configfile", config, cores=cores)
        return sorted(copy.root.glob("results/*/report.html"))

    def check(found: Mapping[str, list[Path]]) -> str:
        if len(found[OURS]) != 1:
            raise NsvitError(f"{config}: {len(found[OURS])} reports")
        return "the report is there"

    name = f"the whole of {config}, {cores} cores"
    limits = {} if limit is None else {OURS: limit}
    return Case(name, {OURS: work}, check, unit="run", clock="wall", repeats=0, limits=limits)


def rerun(config: str, limit: float) -> Case:
    """Everything is there and up to date."""
    copy, made = Copy(), []

    def work() -> str:
        return copy.run("--configfile", config)

    def check(found: Mapping[str, str]) -> str:
        if NOTHING not in found[OURS]:
            raise NsvitError(f"there is something to be done: {found[OURS][-500:]}")
        return f"nothing to be done, {len(made)} files"

    made += pretend(copy, config)
    return _case(f"rerun of {config} with nothing to do", work, check, limit)


def dry_run(config: str, limit: float) -> Case:
    """Nothing is there; the plan of all jobs."""
    copy = Copy()

    def work() -> str:
        return copy.run("--dry-run", "--quiet", "rules", "--configfile", config)

    def check(found: Mapping[str, str]) -> str:
        counted = [line.split() for line in found[OURS].splitlines()]
        totals = [words[1] for words in counted if len(words) > 1 and words[0] == "total"]
        if not totals:
            raise NsvitError(f"no plan: {found[OURS][-500:]}")
        return f"{totals[0]} jobs"

    return _case(f"dry run of {config}", work, check, limit)


def _case(
    name: str, work: Callable[[], str], check: Callable[[Mapping[str, str]], str], limit: float
) -> Case:
    return Case(
        name, {OURS: work}, check, unit="run", clock="wall", repeats=2, limits={OURS: limit}
    )


def pretend(copy: Copy, config: str) -> list[str]:
    """Makes an empty file of every output and lets Snakemake believe that it made them."""
    lines = copy.run("--summary", "--configfile", config).splitlines()
    made = [line.split("\t")[0] for line in lines if line.count("\t") >= 5][1:]
    for name in made:
        path = copy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
    copy.run("--touch", "--configfile", config)
    return made
