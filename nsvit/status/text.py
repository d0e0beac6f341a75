"""A status as text for a terminal."""

from __future__ import annotations

from nsvit.progress import duration
from nsvit.status.look import Seen, State, Status, mean_seconds

STATES: tuple[State, ...] = ("done", "running", "failed", "stopped", "left")
_HEADER = ("rule", *STATES, "mean", "left, about")
#: So many jobs of a kind are shown.
_SHOWN = 20


def status_text(status: Status) -> str:
    """Rules with their jobs by state, then what runs and what failed."""
    counts = {state: len(status.in_state(state)) for state in STATES}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    parts = [f"{status.experiment} in {status.results}: {len(status.jobs)} jobs, {said}"]
    rows = [list(_HEADER), *(_row(rule, own) for rule, own in status.rules().items())]
    parts.append(_grid(rows))
    parts += _listed("Running", status.in_state("running"), status)
    parts += _listed("Failed", status.in_state("failed"), status)
    parts += _listed(
        "Stopped without a word (killed, or out of time)", status.in_state("stopped"), status
    )
    parts.append("\n".join(_end(status, counts)))
    return "\n\n".join(parts) + "\n"


def _row(rule: str, own: list[Seen]) -> list[str]:
    mean = mean_seconds(own)
    counts = [sum(seen.state == state for seen in own) for state in STATES]
    left = sum(counts) - counts[0]
    rest = "" if not left else "?" if mean is None else duration(mean * left)
    shown = [str(count) if count else "." for count in counts]
    return [rule, *shown, "" if mean is None else duration(mean), rest]


def _listed(title: str, jobs: list[Seen], status: Status) -> list[str]:
    if not jobs:
        return []
    lines = [f"{title}:"]
    for seen in jobs[:_SHOWN]:
        facts = []
        if seen.seconds is not None:
            facts.append(duration(seen.seconds))
        if seen.where:
            facts.append(seen.where)
        if seen.state == "running" and seen.silent is not None and seen.silent > 30:
            facts.append(f"last sign {duration(seen.silent)} ago")
        lines.append(f"  {seen.job.name}" + (f" ({', '.join(facts)})" if facts else ""))
        if seen.line:
            lines.append(f"    {seen.line}")
        if seen.state in ("failed", "stopped"):
            lines.append(f"    {status.results}/logs/{seen.job.name}.log")
    if len(jobs) > _SHOWN:
        lines.append(f"  and {len(jobs) - _SHOWN} more (--json lists all)")
    return ["\n".join(lines)]


def _end(status: Status, counts: dict[State, int]) -> list[str]:
    total = len(status.jobs)
    if counts["done"] == total:
        return [f"Everything is there: {status.results}/report.html"]
    left, unknown = status.seconds_left()
    rules, running = len(status.rules()), max(1, counts["running"])
    if len(unknown) == rules or not left:
        lines = ["The time left is not known yet: it is told by finished jobs of the same rule."]
    else:
        rest = f"; {len(unknown)} of {rules} rules have none and count nothing" if unknown else ""
        lines = [
            f"{'At least' if unknown else 'About'} {duration(left)} left with "
            f"{'1 job' if running == 1 else f'{running} jobs'} at once, by the mean of each rule's "
            f"finished jobs{rest}."
        ]
    if status.locked:
        lines.append("Snakemake's lock is there: it runs, or was killed (snakemake --unlock).")
    elif counts["failed"] or counts["stopped"]:
        lines.append("No Snakemake holds the lock. Mend the cause; run the same command again.")
    elif not counts["running"]:
        lines.append("Nothing runs. The same snakemake command as before continues.")
    return lines


def _grid(rows: list[list[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    )
