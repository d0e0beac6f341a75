"""What was measured, as JSON for each machine and as one page for all of them."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks import goals, profiles
from benchmarks.goals import Ceilings, ceilings_of
from benchmarks.runner import Measured, threads
from nsvit import artifacts

PACKAGES = ("torch", "timm", "numpy", "foolbox", "eagerpy", "pyautoattack")

HEAD = """\
# Benchmarks

Written by `make bench` from `benchmarks/results/*.json`; do not edit. Each case does the same work
on the same pictures by several sides, which take turns in one process. "naive" is the published
procedure as its code does it, written anew in `benchmarks/naive/`. "ms" is the median time for
one item and "per s" how many of them a second holds; "x A" says how many times faster than side A a
side is: the median over the repeats of the ratio within each, with the smallest and the largest.
"MiB" is what the first run took at its peak on top of what was there before (resident memory, or a
GPU's own); "GFLOP/s" is the work that the step needs, per second, with the share of what matrix
products alone reach here in the same precision. Before anything is timed, all sides of a case are
checked to agree; how far is below each table. Each machine's section begins with what was to be
reached (issue 7): missed or not measured, it says so; what misses its ratio is profiled.
"""

#: Cores kept busy by others, above which the page says that the machine was busy.
BUSY = 0.3


def machine() -> dict[str, Any]:
    """The processor and what it can, its cores and GPU."""
    return {
        "cpu": f"{_cpu()} ({torch.backends.cpu.get_cpu_capability()})",  # names alone say little
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def slug(own: Mapping[str, Any]) -> str:
    """The machine's name as a file name."""
    name = f"{own['cpu']} {own['cores']} cores {own.get('gpu') or ''}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def versions() -> dict[str, str]:
    """Of Python and of every package whose speed is measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_stage(
    folder: Path,
    stage: str,
    found: Sequence[Measured],
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
    others: float | None = None,
    refused: Sequence[str] = (),
) -> Path:
    """Writes what one stage measured; the machine's other stages stay as they are.

    Args:
        folder: of all machines.
        stage: its name.
        found: what was measured.
        settings: what the run was told.
        own: `machine()`.
        others: cores that other processes kept busy meanwhile.
        refused: what cases said whose sides do not agree; they were not measured.
    """
    path = folder / f"{slug(own)}.json"
    before: Mapping[str, Any] = {}
    if path.exists():
        before = artifacts.read_json(path)
        artifacts.check_kind(before, "benchmark", path)
    content = artifacts.provenance("benchmark", {"machine": dict(own)})
    measured = {
        "settings": dict(settings),
        "others": others,
        "refused": list(refused),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "git_commit": content["git_commit"],
        "cases": [_case(one) for one in found],
    }
    content["stages"] = {**before.get("stages", {}), stage: measured}
    artifacts.write_json(path, content)
    return path


def _case(one: Measured) -> dict[str, Any]:
    found = _content(one)
    with threads(one.case.threads):
        # What is timed elsewhere, in processes of its own, cannot be profiled here.
        slow = goals.missed(found) if one.case.clock != "reported" else []
        found["profiles"] = {side: profiles.largest(one.case.sides[side]) for side in slow}
    return found


def _content(one: Measured) -> dict[str, Any]:
    case = one.case
    others = [side for side in case.sides if side not in case.baselines]
    return {
        "name": case.name,
        "items": case.items,
        "unit": case.unit,
        "clock": case.clock,
        "agreement": one.agreement,
        "seconds": one.seconds,
        "memory": one.memory,
        "targets": dict(case.targets),
        "limits": dict(case.limits),
        "extras": {
            side: {"most": most, "found": statistics.median(one.extras[side])}
            for side, most in case.extras.items()
        },
        "flat": case.flat,
        "flops": dict(case.flops),
        "shares": dict(case.shares),
        "tokens": case.tokens,
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
    own, stages = content["spec"]["machine"], content["stages"]
    gpu = f", {own['gpu']}" if own.get("gpu") else ""
    lines = [f"## {own['cpu']}, {own['cores']} cores, {own['system']}{gpu}", ""]
    ceilings = ceilings_of(stages.get("ceiling", {"cases": ()})["cases"])
    lines += ["### What was to be reached", ""]
    lines += [*goals.table(stages, ceilings, bool(own.get("gpu"))), ""]
    if found := _profiles(stages):
        lines += [*found, ""]
    for name, stage in stages.items():
        lines += [f"### {name.capitalize()}", "", _measured_with(stage), ""]
        lines += [*_table(stage["cases"], ceilings if name != "ceiling" else {}), ""]
        lines += [f"- {case['name']}: {case['agreement']}." for case in stage["cases"]]
        lines += [f"- **Refused**: {text}" for text in stage.get("refused", ())]
        lines.append("")
    return "\n".join(lines)


def _profiles(stages: Mapping[str, Any]) -> list[str]:
    """Where the time goes of what misses its target."""
    return [
        f"- {case['name']}, {side}, time by operation: {text}."
        for stage in stages.values()
        for case in stage["cases"]
        for side, text in case.get("profiles", {}).items()
    ]


def _measured_with(stage: Mapping[str, Any]) -> str:
    named = ", ".join(f"{name} {version}" for name, version in stage["versions"].items())
    text = (
        f"{stage['threads']} thread(s) unless a case says otherwise, at most "
        f"{stage['settings']['repeats']} repeats; {named}; nsvit at {stage['git_commit']}."
    )
    others = stage.get("others")
    if others is not None and others > BUSY:
        text += (
            f"\n**The machine was busy**: other processes took {others:.1f} cores meanwhile. "
            "Measure again on a quiet one before you quote these."
        )
    return text


def _table(cases: Sequence[Mapping[str, Any]], ceilings: Ceilings) -> list[str]:
    baselines = list(
        dict.fromkeys(b for case in cases for row in case["ratios"].values() for b in row)
    )
    rated = any(case.get("flops") for case in cases)
    counted = any(case.get("tokens") for case in cases)
    weighed = any(_memory(case, side) for case in cases for side in case["milliseconds"])
    head = ["case", "side", "items", "ms", "per s", *(f"x {name}" for name in baselines)]
    head += ["MiB"] * weighed + ["tokens/s"] * counted + ["GFLOP/s"] * rated
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for case in cases:
        name = case["name"]
        for side, time in case["milliseconds"].items():
            ratios = case["ratios"].get(side, {})
            cells = [_ratio(ratios[b]) if b in ratios else "" for b in baselines]
            row = [name, side, f"{case['items']} {case['unit']}{_s(case)}", f"{time:.2f}"]
            row += [f"{1000 / time:.3g}" if time else "", *cells]
            tokens = 1000 * case.get("tokens", 0) / time if time else 0
            row += [_memory(case, side)] * weighed + [f"{tokens:.0f}" if tokens else ""] * counted
            row += [_rate(case, side, ceilings)] * rated
            lines.append(f"| {' | '.join(row)} |")
            name = ""
    return lines


def _s(case: Mapping[str, Any]) -> str:
    return "" if case["items"] == 1 else "es" if case["unit"][-2:] in ("ch", "ss") else "s"


def _memory(case: Mapping[str, Any], side: str) -> str:
    found = case.get("memory", {}).get(side)
    return "" if found is None or found < 1 else f"{found:.0f}"


def _rate(case: Mapping[str, Any], side: str, ceilings: Ceilings) -> str:
    """GFLOP/s, and the share of what matrix products reach in the same precision."""
    flops = case.get("flops", {}).get(side)
    if not flops:
        return ""
    rate = flops / case["milliseconds"][side] / 1e6
    part = goals.share(case, side, ceilings)
    return f"{rate:.0f}" + ("" if part is None else f" ({100 * part:.0f} %)")


def _ratio(values: Sequence[float]) -> str:
    middle, low, high = values
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"
