"""The plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from nsvit.planning.estimate import Plan, Stage
from nsvit.planning.work import Work

HEADER = (
    "stage", "jobs", "at once", "pictures read", "forward", "backward", "PFLOP", "GPU hours",
    "longest job", "core hours reading", "GPU GB a job", "host GB a job", "disk GB a job",
    "disk GB",
)  # fmt: skip


def plan_text(plan: Plan) -> str:
    """The whole plan: models, stages, kinds of work, and what the numbers rest on."""
    models = [
        [
            facts.model,
            _number(facts.gflops),
            _number(facts.gmacs),
            "?" if facts.parameters is None else f"{facts.parameters / 1e6:.2f}",
        ]
        for facts in plan.models
    ]
    kinds = [_kind(work) for work in plan.kinds]
    parts = [
        f"Plan of {plan.experiment}",
        _grid(("model", "GFLOP a picture", "GMAC", "million weights"), models),
        _grid(HEADER, stage_rows(plan)),
        _grid(("work", "forward", "backward", "PFLOP", ""), kinds),
        "\n".join(notes(plan)),
    ]
    return "\n\n".join(parts) + "\n"


def stage_rows(plan: Plan) -> list[list[str]]:
    """A row for each stage, in the order of `HEADER`."""
    return [_row(stage) for stage in plan.stages]


def notes(plan: Plan) -> list[str]:
    """What the numbers rest on, and what follows from them, a sentence each."""
    every, speed = plan.stages[-1], plan.speed
    threads = speed.readers + 1  # all but one of a job's threads read
    found = [
        f"Speed: {speed.why}; {speed.readers} cores read for a job, which the rules do not give by "
        f"themselves: --set-threads finetune={threads} evaluate={threads}."
    ]
    if every.hours is not None:
        found.append(
            f"With {plan.devices} device{'s' if plan.devices > 1 else ''}: about "
            f"{_hours(plan.wall_hours)} until everything is done; {_hours(every.hours)} of devices "
            f"together. Reading and computing run side by side; a job takes the longer of "
            "both."
        )
    if plan.certain_share is not None and plan.certain_share < 0.999:
        found.append(
            f"{100 * (1 - plan.certain_share):.0f} % of the PFLOP are at most that much: noise "
            "that ends inside epsilon, and attacks on pictures that have fallen, stop earlier."
        )
    needed = every.gpu_mb / 1000
    if speed.memory_gb is not None and needed > 0.9 * speed.memory_gb:
        found.append(
            f"The largest job needs about {needed:.0f} GB of a device's {speed.memory_gb:g}: lower "
            "finetune.batch_size, or accumulate gradients or checkpoint activations."
        )
    if plan.unknown:
        found.append(
            f"Not known: how many pictures {', '.join(plan.unknown)} have, counted as none; say "
            "`published` or `pictures` in data.sets."
        )
    if plan.uncounted:
        found.append(
            f"Not counted: passes through {', '.join(plan.uncounted)}, whose shape is not known."
        )
    return found


def _row(stage: Stage) -> list[str]:
    work = stage.work
    return [
        stage.name,
        f"{stage.jobs}",
        f"{stage.side_by_side}",
        _count(work.decoded),
        _count(work.forward),
        _count(work.gradient + work.backward),
        _pflop(work),
        "-" if not stage.uses_gpu else _hours(stage.hours),
        _hours(stage.longest_hours),
        _number(stage.reading_hours),
        _number(stage.gpu_mb / 1000) if stage.uses_gpu else "-",
        _number(stage.host_mb / 1000),
        _number(stage.job_disk_mb / 1000),
        _number(stage.disk_mb / 1000),
    ]


def _kind(work: Work) -> list[str]:
    both = work.gradient + work.backward
    limit = "at most" if work.at_most else ""
    return [work.what, _count(work.forward), _count(both), _pflop(work), limit]


def _pflop(work: Work) -> str:
    return "?" if work.flops is None else _number(work.flops / 1e15)


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _count(value: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _hours(value: float | None) -> str:
    if value is None:
        return "?"
    if value < 1:
        return f"{60 * value:.0f} min" if value * 60 >= 1 else "< 1 min"
    return f"{value:.1f} h" if value < 48 else f"{value / 24:.1f} d"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line, numbers to the right."""
    every = [list(header), *map(list, rows)]
    widths = [max(len(row[k]) for row in every) for k in range(len(header))]
    lines = []
    for row in every:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
