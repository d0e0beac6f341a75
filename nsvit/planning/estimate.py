"""The plan of an experiment: jobs, passes, hours, memory and disk, stage by stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nsvit import config as c
from nsvit.planning.costs import GPU_RULES, Cost, Costs
from nsvit.planning.jobs import Job, jobs_of
from nsvit.planning.machines import Speed
from nsvit.planning.schedule import layers, seconds_of, wall_seconds
from nsvit.planning.work import Work, added

#: Stages in the order of the pipeline; the other rules are tables and figures.
STAGES: Mapping[str, tuple[str, ...]] = {
    "pictures": ("render", "render_transfer", "corrupt", "scan", "contact_sheet"),
    "models": ("prepare_model", "nullspace", "nullity"),
    "noise studies": ("learn_noise", "influence", "lambda_study"),
    "finetuning": ("finetune",),
    "evaluation": ("evaluate", "dynamics"),
}
PAGES = "tables, figures"


@dataclass(frozen=True)
class Stage:
    """All jobs of a stage, or of one kind of work in it.

    Attributes:
        name: of the stage.
        jobs: how many.
        side_by_side: how many of them can run at once.
        work: what they compute together.
        hours: of one device, by the jobs that use one; None where FLOPs are not known.
        longest_hours: of its longest job.
        reading_hours: core hours to read pictures.
        gpu_mb, host_mb, job_disk_mb: the most that one of its jobs takes.
        disk_mb: what all its jobs leave.
        uses_gpu: whether any of its rules does.
    """

    name: str
    jobs: int
    side_by_side: int
    work: Work
    hours: float | None
    longest_hours: float
    reading_hours: float
    gpu_mb: float
    host_mb: float
    job_disk_mb: float
    disk_mb: float
    uses_gpu: bool


@dataclass(frozen=True)
class ModelFacts:
    """A model of the plan: GFLOPs (multiplications and additions) per picture, parameters."""

    model: str
    gflops: float | None
    gmacs: float | None
    parameters: int | None


@dataclass(frozen=True)
class Plan:
    """The plan.

    Attributes:
        experiment: its name.
        models: what a pass through each costs.
        stages: in order, then all together.
        kinds: work by kind over all stages: training, noise, attacks, evaluation.
        speed: what hours were made with.
        devices: how many jobs run at once for `wall_hours`.
        wall_hours: until everything is done, when every early stop comes last.
        certain_share: of the FLOPs that no early stop can shorten.
        unknown: sets of which nobody said how many pictures they have.
        uncounted: models whose shape is not known.
    """

    experiment: str
    models: tuple[ModelFacts, ...]
    stages: tuple[Stage, ...]
    kinds: tuple[Work, ...]
    speed: Speed
    devices: int
    wall_hours: float
    certain_share: float | None
    unknown: tuple[str, ...]
    uncounted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def make_plan(exp: c.Experiment, speed: Speed, devices: int = 1) -> Plan:
    """Plans every job of an experiment.

    Args:
        exp: the experiment.
        speed: of one device.
        devices: how many there are.
    """
    jobs, costs = jobs_of(exp), Costs(exp)
    found = {job.name: costs.of(job) for job in jobs}
    seconds = {name: seconds_of(cost, speed) or 0.0 for name, cost in found.items()}
    width = _widths(jobs)
    grouped: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        grouped[_stage_of(job.rule)].append(job)
    stages = [
        _stage(name, grouped[name], found, seconds, speed, width[name])
        for name in (*STAGES, PAGES)
        if grouped[name]
    ]
    stages.append(_stage("together", jobs, found, seconds, speed, max(width.values())))
    works = [work for cost in found.values() for work in cost.works]
    kinds = _kinds(jobs, found)
    wall, _ = wall_seconds(jobs, seconds, max(1, devices))
    return Plan(
        exp.experiment,
        tuple(_facts(slug, costs) for slug in exp.models),
        tuple(stages),
        kinds,
        speed,
        devices,
        wall / 3600,
        _certain(works),
        costs.sizes.unknown,
        tuple(slug for slug, s in (costs.shapes | costs.sources).items() if s is None),
    )


def _stage_of(rule: str) -> str:
    return next((name for name, rules in STAGES.items() if rule in rules), PAGES)


def _widths(jobs: Sequence[Job]) -> dict[str, int]:
    """The most jobs of each stage that wait for nothing but earlier layers."""
    found: dict[str, int] = defaultdict(int)
    for layer in layers(jobs):
        counts: dict[str, int] = defaultdict(int)
        for job in layer:
            counts[_stage_of(job.rule)] += 1
        for name, count in counts.items():
            found[name] = max(found[name], count)
    return found


def _stage(
    name: str,
    jobs: Sequence[Job],
    costs: Mapping[str, Cost],
    seconds: Mapping[str, float],
    speed: Speed,
    width: int,
) -> Stage:
    own = [costs[job.name] for job in jobs]
    work = added(name, [cost.total for cost in own])
    times = [seconds[job.name] for job in jobs]
    on_gpu = [seconds[job.name] for job in jobs if job.rule in GPU_RULES]
    return Stage(
        name,
        len(jobs),
        width,
        work,
        None if work.flops is None else sum(on_gpu) / 3600,
        max(times) / 3600,
        work.reading / 3600,
        max(cost.gpu_mb for cost in own),
        max(cost.host_mb for cost in own),
        max(cost.disk_mb for cost in own),
        sum(cost.disk_mb for cost in own),
        bool(on_gpu),
    )


def _kinds(jobs: Sequence[Job], costs: Mapping[str, Cost]) -> tuple[Work, ...]:
    """Work by kind: what a finetuning and a study name, and evaluation by its sets."""
    by_kind: dict[str, list[Work]] = defaultdict(list)
    for job in jobs:
        for work in costs[job.name].works:
            if work.forward + work.gradient + work.backward:
                evaluates = job.rule in ("evaluate", "dynamics")
                by_kind[f"{job.rule}: {work.what}" if evaluates else work.what].append(work)
    return tuple(added(kind, works) for kind, works in by_kind.items())


def _certain(works: Sequence[Work]) -> float | None:
    flops = [(work.flops or 0.0, work.at_most) for work in works]
    total = sum(value for value, _ in flops)
    return sum(value for value, at_most in flops if not at_most) / total if total else None


def _facts(slug: str, costs: Costs) -> ModelFacts:
    shape = costs.shapes[slug]
    if shape is None:
        return ModelFacts(slug, None, None, None)
    gflops = shape.forward_flops / 1e9
    return ModelFacts(slug, gflops, gflops / 2, shape.parameters)
