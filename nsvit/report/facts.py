"""What was run: from sidecars, benchmark files and the plan, never from this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from nsvit.config import ArmConfig, ConditionConfig, Experiment, FinetuneConfig, ModelConfig
from nsvit.progress import duration
from nsvit.report.contents import Plan
from nsvit.report.folder import Evidence, Job, busy_seconds
from nsvit.report.planned import Planned, planned

UNKNOWN = "not recorded"

#: A label and its lines.
Setting = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class RuleCost:
    """What all jobs of a rule cost together; memory is that of the largest."""

    rule: str
    jobs: int
    seconds: float
    cpu_seconds: float
    memory_mb: float


@dataclass(frozen=True)
class Facts:
    """The section "what was run".

    Attributes:
        run: (label, text) pairs about the run: when, with what, on what.
        settings: (label, lines) pairs about the configuration.
        costs: per rule, the most expensive first; then one of all rules.
        config: the whole configuration as YAML, "" where it is not known.
        planned: what it was expected to compute and cost; None without the configuration.
    """

    run: tuple[tuple[str, str], ...]
    settings: tuple[Setting, ...]
    costs: tuple[RuleCost, ...]
    config: str
    planned: Planned | None = None


def gather(name: str, plan: Plan, evidence: Evidence) -> Facts:
    """The facts about the run of the experiment of that name."""
    run = [("Experiment", name), *_times(evidence.jobs), *_makers(evidence)]
    settings: list[Setting] = []
    text = ""
    if plan.config is not None:
        settings = _settings(plan.config)
        whole = plan.config.model_dump(mode="json")
        text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    expected = None if plan.config is None else planned(plan.config)
    return Facts(tuple(run), tuple(settings), tuple(_costs(evidence.jobs)), text, expected)


# --- when and on what -------------------------------------------------------------------------


def _times(jobs: tuple[Job, ...]) -> list[tuple[str, str]]:
    if not jobs:
        return [("Time", f"{UNKNOWN}: there are no benchmark files")]
    first = min(job.ended - job.seconds for job in jobs)
    last = max(job.ended for job in jobs)
    together = sum(job.seconds for job in jobs)
    cpu = sum(job.cpu_seconds for job in jobs)
    largest = max(job.memory_mb for job in jobs)
    return [
        ("When", f"{_date(first)} to {_date(last)}, by the times of the benchmark files"),
        ("Time", f"{duration(busy_seconds(jobs))} with at least one job running; "
                 f"{len(jobs)} jobs took {duration(together)} together, {duration(cpu)} of CPU"),
        ("Memory", f"at most {largest:,.0f} MB in one job"),
    ]  # fmt: skip


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _makers(evidence: Evidence) -> list[tuple[str, str]]:
    """Versions, commits and machines in the artefacts; several where they differ."""
    sidecars = evidence.sidecars.values()
    made = [one.get("made_with") or {} for one in sidecars]
    commits = _distinct(one.get("git_commit") for one in sidecars)
    names = ("python", "torch", "timm", "numpy", "snakemake")
    versions = [(name, _distinct(one.get(name) for one in made)) for name in names]
    machines = _distinct(
        f"{one['processor']}, {one.get('cores')} cores" for one in made if "processor" in one
    )
    gpus = _distinct(one.get("gpu") for one in made)
    software = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions if found)
    return [
        ("nsvit", _listed(_distinct(one.get("nsvit") for one in sidecars))),
        ("Commit", _listed(commits) + _changed(commits)),
        ("Software", software or UNKNOWN),
        ("Processor", _listed(machines)),
        ("GPU", _listed(gpus) if gpus or not machines else "none was used"),
    ]


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value))


def _listed(values: list[str]) -> str:
    return "; ".join(values) or UNKNOWN


def _changed(commits: list[str]) -> str:
    """An explanation of the sign that `git describe` puts behind a commit."""
    return " (+: with changes that were not committed)" if any("+" in c for c in commits) else ""


def _costs(jobs: tuple[Job, ...]) -> list[RuleCost]:
    by_rule: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    costs = [_cost(rule, found) for rule, found in by_rule.items()]
    costs.sort(key=lambda cost: (-cost.seconds, cost.rule))
    return [*costs, *([_cost("all rules", list(jobs))] if jobs else [])]


def _cost(name: str, jobs: list[Job]) -> RuleCost:
    seconds, cpu = sum(j.seconds for j in jobs), sum(j.cpu_seconds for j in jobs)
    return RuleCost(name, len(jobs), seconds, cpu, max(j.memory_mb for j in jobs))


# --- the configuration ------------------------------------------------------------------------


def _settings(exp: Experiment) -> list[Setting]:
    """The configuration in short: what a reader of the tables has to know."""
    conditions = exp.evaluate.conditions.values()
    own = exp.statistics
    return [
        ("Models", tuple(f"{m.label}: {_model(m)}" for m in exp.models.values())),
        ("Arms", tuple(f"{a.label}: {_arm(a)}" for a in exp.arms.values())),
        ("Conditions", tuple(f"{c.label}: {_condition(c)}" for c in conditions)),
        ("Pictures", tuple(f"{name}: {_pictures(name, exp)}" for name in exp.data.sets)),
        ("Finetuning", _finetuning(exp.finetune)),
        ("Intervals", (f"{100 * own.confidence:g} %, {own.resamples} resamples",)),
    ]


def _model(model: ModelConfig) -> str:
    seeds = f", at most {model.max_seeds} seeds" if model.max_seeds else ""
    return f"{model.timm}, mean {_triple(model.mean)}, std {_triple(model.std)}{seeds}"


def _triple(values: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _arm(arm: ArmConfig) -> str:
    count = len(arm.seeds)
    models = f", only {', '.join(arm.models)}" if arm.models else ""
    return f"{arm.kind}, {count} seed{'s' if count > 1 else ''}{models}"


def _condition(condition: ConditionConfig) -> str:
    attack = condition.attack
    words = [f"set {condition.set}"]
    named = [getattr(attack, name, None) for name in ("name", "norm", "radius")]
    words += [str(value) for value in named if value is not None]
    if attack is not None:
        own = attack.model_dump(exclude={"name", "norm", "radius"}, exclude_none=True)
        words += [f"{key} {value}" for key, value in own.items()]
    if condition.images:
        words.append(f"first {condition.images} pictures")
    return ", ".join(words)


def _pictures(name: str, exp: Experiment) -> str:
    path, own = exp.data.sets[name].path, exp.data.menagerie
    drawn = own.counts.model_dump().get(name) if own else None
    return path if drawn is None else f"{path}, {drawn} pictures drawn"


def _finetuning(own: FinetuneConfig) -> tuple[str, ...]:
    noise = own.noise
    return (
        f"{own.rounds} rounds of {own.steps} steps of {own.batch_size} pictures",
        f"lr {own.lr:g} to {own.lr_min:g}, noise at block {own.block}, round: {own.select}",
        f"noise: epsilon {noise.epsilon:g}, limit {noise.limit:g}, lr {noise.lr:g}, "
        f"at most {noise.max_steps} steps",
    )
