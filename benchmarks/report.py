"""What was measured, as JSON for each machine and as one page for all of them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.runner import Measured
from nsvit import artifacts

PACKAGES = ("torch", "timm", "numpy", "foolbox", "eagerpy", "pyautoattack")

HEAD = """\
# Benchmarks

Written by `make bench` from `benchmarks/results/*.json`; do not edit. Each case does the same work
on the same pictures by several sides, which take turns in one process. "ms" is the median time for
one item; "x A" says how many times faster than side A a side is: the median over the repeats of the
ratio within each, with the smallest and the largest. Before anything is timed, all sides of a case
are checked to agree.
"""


def machine() -> dict[str, Any]:
    """The processor, its cores and what else it has to do right now."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def slug(own: Mapping[str, Any]) -> str:
    """The machine's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{own['cpu']} {own['cores']} cores".lower()).strip("-")


def versions() -> dict[str, str]:
    """Of Python and of every package whose speed is measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_json(
    folder: Path,
    stages: Mapping[str, Sequence[Measured]],
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Path:
    """Writes all that was measured; replaces what the same machine measured before.

    Args:
        folder: of all machines.
        stages: what was measured, by stage.
        settings: what the run was told.
        own: `machine()` before the run.
    """
    spec = {
        "settings": dict(settings),
        "machine": dict(own),
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
    measured = {stage: [_case(one) for one in found] for stage, found in stages.items()}
    path = folder / f"{slug(own)}.json"
    artifacts.write_json(path, {**artifacts.provenance("benchmark", spec), "stages": measured})
    return path


def _case(one: Measured) -> dict[str, Any]:
    case = one.case
    others = [side for side in case.sides if side not in case.baselines]
    return {
        "name": case.name,
        "items": case.items,
        "unit": case.unit,
        "clock": case.clock,
        "agreement": one.agreement,
        "seconds": one.seconds,
        "milliseconds": {side: one.milliseconds(side) for side in case.sides},
        "ratios": {
            side: {baseline: one.ratio(side, baseline) for baseline in case.baselines}
            for side in others
        },
    }


def write_page(folder: Path, page: Path) -> None:
    """Writes the page of all machines whose results are in the folder."""
    parts = [HEAD]
    for path in sorted(folder.glob("*.json")):
        content = artifacts.read_json(path)
        artifacts.check_kind(content, "benchmark", path)
        parts.append(_section(content))
    artifacts.write_text(page, "\n".join(parts))


def _section(content: Mapping[str, Any]) -> str:
    spec = content["spec"]
    own = spec["machine"]
    named = ", ".join(f"{name} {version}" for name, version in spec["versions"].items())
    lines = [
        f"## {own['cpu']}, {own['cores']} cores, {own['system']}",
        "",
        f"{spec['threads']} thread(s), {spec['settings']['repeats']} repeats; {named}; "
        f"nsvit at {content['git_commit']}.",
    ]
    if own["load"] is not None and own["load"] > 0.5:
        lines.append(
            f"**The machine was busy** (load {own['load']} when the run began): "
            "measure again on a quiet one before you quote these."
        )
    for stage, cases in content["stages"].items():
        lines += ["", f"### {stage.capitalize()}", "", *_table(cases), ""]
        lines += [f"- {case['name']}: {case['agreement']}." for case in cases]
    return "\n".join(lines) + "\n"


def _table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    baselines = list(
        dict.fromkeys(b for case in cases for row in case["ratios"].values() for b in row)
    )
    head = ["case", "side", "items", "ms", *(f"x {name}" for name in baselines)]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|" + "---:|" * len(baselines)]
    for case in cases:
        name = case["name"]
        for side, time in case["milliseconds"].items():
            ratios = case["ratios"].get(side, {})
            cells = [_ratio(ratios[b]) if b in ratios else "" for b in baselines]
            row = [name, side, f"{case['items']} {case['unit']}s", f"{time:.2f}", *cells]
            lines.append(f"| {' | '.join(row)} |")
            name = ""
    return lines


def _ratio(values: Sequence[float]) -> str:
    middle, low, high = values
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"
