"""What was to be reached, and whether it was: the table at the top of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Memory is flat below so many times that of the smaller set, and so many MiB for the rows.
FLAT = (1.1, 16.0)
BF16 = "nsvit bf16"
NOISE, FINETUNE = "noise step, ViT-S", "finetune step"
#: What must be in the table: a stage, how the names of its cases begin, and what is to be reached.
WANTED = (
    ("noise", NOISE, "noise step of ViT-S/16 at 224 pixels, beside naive"),
    ("noise", "noise at block", "noise at block 6 of 12, beside block 0"),
    ("finetuning", FINETUNE, "finetune step of ViT-S/16 at 224 pixels, beside naive"),
    ("evaluation", "eleven columns", "eleven columns of one model, beside naive"),
    ("evaluation", "memory", "memory of evaluation, flat in the number of pictures"),
    ("start-up", "start-up of verbs without", "start of verbs without torch"),
    ("workflow", "rerun", "rerun of the default with nothing to do"),
    ("workflow", "dry run", "dry run of the paper matrix"),
    ("processes", "", "a round of finetuning in two processes, beside one"),
    ("going on", "", "snapshots, of the time of finetuning"),
    ("attacks", "", "attacks, beside foolbox"),
)
GPU = "noise and finetune steps on a GPU, share of what matrix products reach"

#: GFLOP/s of matrix products, by whether on a GPU and precision.
Ceilings = Mapping[tuple[bool, str], float]


def table(stages: Mapping[str, Any], ceilings: Ceilings, gpu: bool) -> list[str]:
    """Lines of the table of all stages; what was not measured is in it, and says so."""
    rows: list[str] = []
    for stage, begins, text in WANTED:
        cases = stages.get(stage, {"cases": ()})["cases"]
        own = [row for case in cases if case["name"].startswith(begins) for row in goals(case)]
        rows += own or [f"| {text} | | | **not measured** | |"]
        if begins in (NOISE, FINETUNE) and own and not any(BF16 in row for row in own):
            rows.append(f"| {text} | {BF16} | | not measured: this CPU only emulates it | |")
    everything = [case for stage in stages.values() for case in stage["cases"]]
    shares = [row for case in everything for row in shared(case, ceilings)]
    rows += shares or [f"| {GPU} | | | not measured: {'run it' if gpu else 'no GPU here'} | |"]
    return ["| case | side | target | found | |", "|---|---|---:|---:|---|", *rows]


def goals(case: Mapping[str, Any]) -> list[str]:
    """Rows of what a case should reach: times, ratios and memory. Equal limits have one row."""
    rows: list[tuple[str, str, str, float]] = []
    for side, least in case.get("targets", {}).items():
        found, low, high = next(iter(case["ratios"][side].values()))
        spread = f"{found:.2f} x ({low:.2f}–{high:.2f})"
        rows.append((side, f"at least {least:.3g} x", spread, found / least))
    limits = case.get("limits", {})
    for most in dict.fromkeys(limits.values()):
        seconds = {
            side: case["milliseconds"][side] * case["items"] / 1000
            for side, own in limits.items()
            if own == most
        }
        slowest = max(seconds, key=lambda side: seconds[side])
        found, named, shown = seconds[slowest], slowest, f"{seconds[slowest]:.2f} s"
        if len(seconds) > 1:
            named = f"slowest of {len(seconds)}: {slowest}"
            shown += f" ({sum(own <= most for own in seconds.values())} within)"
        rows.append((named, f"at most {most:g} s", shown, most / max(found, 1e-9)))
    for side, extra in case.get("extras", {}).items():
        most, part = extra["most"], extra["found"]
        wanted = f"at most {100 * most:g} % of the time"
        rows.append((side, wanted, f"{100 * part:.2f} %", most / max(part, 1e-9)))
    if case.get("flat"):
        one, more = (case["memory"].get(side) for side in case["flat"])
        if one is not None and more is not None:
            shown = f"{one:.0f} and {more:.0f} MiB"
            rows.append((case["flat"][1], "no more memory", shown, _flat(one, more)))
    return [_row(case, *row) for row in rows]


def shared(case: Mapping[str, Any], ceilings: Ceilings) -> list[str]:
    """Rows of the share of the ceiling that sides should reach."""
    rows = []
    for side, least in case.get("shares", {}).items():
        found = share(case, side, ceilings)
        if found is not None:
            wanted = f"at least {100 * least:.0f} % of matrix products"
            rows.append(_row(case, side, wanted, f"{100 * found:.0f} %", found / least))
    return rows


def share(case: Mapping[str, Any], side: str, ceilings: Ceilings) -> float | None:
    """What part of the ceiling of its device and precision a side reaches; None: not known."""
    most = ceilings.get(("GPU" in case["name"], side.split()[-1]))
    flops = case.get("flops", {}).get(side)
    return flops / case["milliseconds"][side] / 1e6 / most if flops and most else None


def missed(case: Mapping[str, Any]) -> list[str]:
    """The sides that do not reach their ratio."""
    found = case.get("targets", {}).items()
    return [side for side, least in found if next(iter(case["ratios"][side].values()))[0] < least]


def ceilings_of(cases: Sequence[Mapping[str, Any]]) -> dict[tuple[bool, str], float]:
    """GFLOP/s of matrix products, from the cases of the stage that measures them."""
    return {
        (case["name"].endswith("cuda"), side): flops / case["milliseconds"][side] / 1e6
        for case in cases
        for side, flops in case["flops"].items()
    }


def _flat(one: float, more: float) -> float:
    return (FLAT[0] * one + FLAT[1]) / max(more, 1e-9)


def _row(case: Mapping[str, Any], side: str, target: str, found: str, part: float) -> str:
    verdict = "met" if part >= 1 else f"**missed** by {100 * (1 - part):.0f} %"
    return f"| {case['name']} | {side} | {target} | {found} | {verdict} |"
