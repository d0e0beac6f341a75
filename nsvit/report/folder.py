"""What the files of a results folder say about its run: sidecars, doubts, logs and times."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvit import artifacts
from nsvit.errors import NsvitError

#: Folders without artefacts of their own: pictures, what people read, and what jobs print.
_SKIPPED = {"data", "tables", "figures", "logs", "benchmarks"}
#: The report says nothing about the job that makes it.
_SELF = "report"
_WARNING = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ WARNING nsvit[\w.]*: (.+)")


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, or was planned and is not there."""

    path: str
    text: str


@dataclass(frozen=True)
class Warned:
    """A warning and the files that carry it."""

    text: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What one job cost: the content of its benchmark file."""

    rule: str
    seconds: float
    cpu_seconds: float
    memory_mb: float
    ended: float  # seconds since 1970, from the file's time


@dataclass(frozen=True)
class Evidence:
    """Everything a results folder says about how its content was made.

    Attributes:
        sidecars: provenance by path below the folder, of every artefact that carries one.
        damaged: artefacts that cannot be read.
        doubts: of the self-checks, from sidecars.
        warnings: of nsvit in logs, without those that are doubts.
        jobs: what each job cost.
    """

    sidecars: dict[str, dict[str, Any]]
    damaged: tuple[Problem, ...]
    doubts: tuple[Warned, ...]
    warnings: tuple[Warned, ...]
    jobs: tuple[Job, ...]


def read_evidence(results: str | Path) -> Evidence:
    """Reads `results/<experiment>`; whatever cannot be read is named in `damaged`."""
    results = Path(results)
    sidecars: dict[str, dict[str, Any]] = {}
    damaged = []
    for path in _artefacts(results):
        name = path.relative_to(results).as_posix()
        try:
            found = artifacts.read_json(path) if path.suffix == ".json" else _metadata(path)
        except NsvitError as error:
            damaged.append(Problem(name, str(error).removeprefix(f"{path}: ")))
            continue
        if "kind" in found:
            sidecars[name] = found
    doubts = _gathered(
        (str(text), name) for name, one in sidecars.items() for text in one.get("doubts") or ()
    )
    known = {doubt.text for doubt in doubts}
    warned = _gathered((text, name) for text, name in _warnings(results) if text not in known)
    return Evidence(sidecars, tuple(damaged), doubts, warned, tuple(_jobs(results)))


def _artefacts(results: Path) -> Iterator[Path]:
    for top in sorted(results.iterdir()) if results.is_dir() else ():
        if top.is_dir() and top.name not in _SKIPPED:
            found = (p for suffix in ("json", "parquet") for p in top.rglob(f"*.{suffix}"))
            # A name that starts with a dot is a write under way.
            yield from sorted(p for p in found if not p.name.startswith("."))


def _metadata(path: Path) -> dict[str, Any]:
    """The provenance in a parquet file's metadata, without reading its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = (pq.read_schema(path).metadata or {}).get(b"nsvit", b"{}")
        return dict(json.loads(found))
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise NsvitError(f"{path}: damaged ({reason}); delete it and run again") from None


def _gathered(pairs: Iterator[tuple[str, str]]) -> tuple[Warned, ...]:
    """Equal texts once, each with all its files."""
    paths: dict[str, dict[str, None]] = {}
    for text, path in pairs:
        paths.setdefault(text, {})[path] = None
    return tuple(Warned(text, tuple(found)) for text, found in paths.items())


def _warnings(results: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((results / "logs").rglob("*.log")):
        if path == results / "logs" / f"{_SELF}.log":
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _WARNING.fullmatch(line):
                yield match[1], path.relative_to(results).as_posix()


def _jobs(results: Path) -> Iterator[Job]:
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"), None) or {}
        seconds = _number(row.get("s"))
        rule = path.relative_to(results / "benchmarks").parts[0].removesuffix(".tsv")
        if seconds is None or rule == _SELF:
            continue
        yield Job(
            rule=rule,
            seconds=seconds,
            cpu_seconds=_number(row.get("cpu_time")) or 0.0,
            memory_mb=_number(row.get("max_rss")) or 0.0,
            ended=path.stat().st_mtime,
        )


def _number(text: str | None) -> float | None:
    """A number; nothing for the dashes that Snakemake writes for very short jobs."""
    try:
        return float(text or "")
    except ValueError:
        return None


def busy_seconds(jobs: tuple[Job, ...]) -> float:
    """For how long at least one of the jobs ran: pauses between runs do not count."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((job.ended - job.seconds, job.ended) for job in jobs):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
