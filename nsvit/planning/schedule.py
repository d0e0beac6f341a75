"""How long jobs take on some devices side by side: a simulation of a greedy scheduler."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence

from nsvit.planning.costs import Cost
from nsvit.planning.jobs import Job
from nsvit.planning.machines import Speed

#: Seconds of a job before it computes: imports, weights, Snakemake's own share; measured.
START_SECONDS = 8.0


def seconds_of(cost: Cost, speed: Speed) -> float | None:
    """The time of a job: computing and reading side by side; None where FLOPs are not known."""
    total = cost.total
    if total.flops is None:
        return None
    computing = total.flops / (speed.tflops * 1e12)
    reading = total.reading / speed.readers
    return START_SECONDS + cost.plain_seconds + max(computing, reading)


def layers(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that can run side by side: each layer needs only what the layers before it made."""
    made_by = {path: job for job in jobs for path in job.outputs}
    depth: dict[str, int] = {}

    def of(job: Job) -> int:
        if job.name not in depth:
            needs = {id(made_by[path]): made_by[path] for path in job.inputs if path in made_by}
            depth[job.name] = 1 + max((of(one) for one in needs.values()), default=-1)
        return depth[job.name]

    found: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        found[of(job)].append(job)
    return [found[level] for level in sorted(found)]


def wall_seconds(
    jobs: Sequence[Job], seconds: Mapping[str, float], devices: int
) -> tuple[float, int]:
    """The time until all jobs are done on so many devices, and how many ran at once at most.

    Args:
        jobs: all of them; one whose input none of them makes can start at once.
        seconds: by the job's name.
        devices: how many jobs run at once; a job takes one.
    """
    made_by = {path: job.name for job in jobs for path in job.outputs}
    waits: dict[str, set[str]] = {
        job.name: {made_by[path] for path in job.inputs if path in made_by} for job in jobs
    }
    followers: dict[str, list[str]] = defaultdict(list)
    for name, needs in waits.items():
        for need in needs:
            followers[need].append(name)
    # Long jobs first, as a scheduler with priorities would.
    ready = [(-seconds[name], name) for name, needs in waits.items() if not needs]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, most = 0.0, 0
    while ready or running:
        while ready and len(running) < devices:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[name], name))
        most = max(most, len(running))
        now, name = heapq.heappop(running)
        for follower in followers[name]:
            waits[follower].discard(name)
            if not waits[follower]:
                heapq.heappush(ready, (-seconds[follower], follower))
    return now, most
