"""Every job of an experiment, from the configuration alone: what Snakemake's DAG holds.

The rules in workflow/rules are the truth; a test compares this list with Snakemake's own. It is
kept apart so that a plan or a look at a running experiment needs neither Snakemake nor its lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nsvit import config as c
from nsvit import specs


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        rule: of the workflow.
        name: where its log and benchmark lie: `logs/<name>.log` and `benchmarks/<name>.tsv`.
        inputs: files of the experiment that it reads, below results/<experiment>.
        outputs: files that it leaves there.
        wildcards: what tells it from the rule's other jobs, in the rule's order.
    """

    rule: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wildcards: tuple[str, ...] = ()


def jobs_of(exp: c.Experiment) -> list[Job]:
    """Every job that `snakemake all` runs for an experiment without results, stage by stage."""
    found = [Job("plan", "plan", (), ("plan.json",))]
    found += _pictures(exp)
    found += _models(exp)
    found += _studies(exp)
    found += _runs(exp)
    found += _pages(exp)
    return found


def index(name: str) -> str:
    """The index of a set."""
    return f"index/{name}.parquet"


def weights(model: str) -> str:
    """The weights that a model starts from."""
    return f"models/{model}/model.safetensors"


def final(model: str, arm: str, seed: int) -> str:
    """The final weights of a run."""
    return f"runs/{model}/{arm}/seed{seed}/model.safetensors"


def history(model: str, arm: str, seed: int) -> str:
    """The history of a run."""
    return f"runs/{model}/{arm}/seed{seed}/history.json"


# --- stages -----------------------------------------------------------------------------------


def _pictures(exp: c.Experiment) -> Iterator[Job]:
    drawn, val = exp.data.menagerie, exp.data.val
    for name, own in exp.data.sets.items():
        made: tuple[str, ...] = ()
        if own.corrupt is not None:
            made = (f"corrupted/{name}.json",)
            yield Job("corrupt", f"corrupt/{name}", (index(own.corrupt.source),), made, (name,))
        elif drawn is not None:
            made = (f"rendered/{name}.json",)
            needs = (f"rendered/{val}.json",) if name in ("c", "damagenet") else ()
            if name == "damagenet":
                yield Job("render_transfer", "render_transfer", needs, made)
            else:
                yield Job("render", f"render/{name}", needs, made, (name,))
        yield Job("scan", f"scan/{name}", made, (index(name),), (name,))
        sheets = tuple(f"figures/sheets/{name}.{ext}" for ext in ("png", "svg"))
        yield Job("contact_sheet", f"contact_sheet/{name}", (index(name),), sheets, (name,))


def _models(exp: c.Experiment) -> Iterator[Job]:
    yield Job("nullity", "nullity", (), ("nullspace/nullity.csv",))
    for model in exp.models:
        folder = f"models/{model}"
        outputs = (f"{folder}/model.safetensors", f"{folder}/model.json")
        own = (model,)
        yield Job("prepare_model", f"prepare_model/{model}", (index(exp.data.train),), outputs, own)
        found = tuple(f"nullspace/{model}/nullspace.{ext}" for ext in ("safetensors", "json"))
        needs = (weights(model), index(exp.data.val))
        yield Job("nullspace", f"nullspace/{model}", needs, found, own)


def _studies(exp: c.Experiment) -> Iterator[Job]:
    train = index(exp.data.train)
    for model in exp.influence.models if exp.influence else ():
        needs = (weights(model), train)
        noise = f"noise/{model}"
        yield Job("learn_noise", f"learn_noise/{model}", needs, (noise,), (model,))
        yield Job(
            "influence",
            f"influence/{model}",
            (*needs, noise),
            (f"influence/{model}.parquet",),
            (model,),
        )
    for model in exp.lambda_study.models if exp.lambda_study else ():
        made = (f"lambda/{model}.parquet", f"closure/{model}.parquet")
        yield Job("lambda_study", f"lambda_study/{model}", (weights(model), train), made, (model,))


def _runs(exp: c.Experiment) -> Iterator[Job]:
    for model, arm, seed in exp.runs():
        folder = f"runs/{model}/{arm}/seed{seed}"
        outputs = ("model.safetensors", "model.json", "history.json")
        yield Job(
            "finetune",
            f"finetune/{model}/{arm}/seed{seed}",
            (weights(model), index(exp.data.train)),
            tuple(f"{folder}/{name}" for name in outputs),
            (model, arm, str(seed)),
        )
    for model, arm in _pairs(exp):
        for job in exp.jobs(model, arm):
            for part in specs.parts(exp, model, arm):
                yield _evaluate(exp, model, arm, job, part)
    for model, arm in _moving(exp):
        used = dict.fromkeys(condition.set for condition in exp.evaluate.conditions.values())
        needs = (history(model, arm, exp.dynamics.seed if exp.dynamics else 0), *map(index, used))
        made = (f"dynamics/{model}/{arm}.parquet",)
        yield Job("dynamics", f"dynamics/{model}/{arm}", needs, made, (model, arm))


def _evaluate(exp: c.Experiment, model: str, arm: str, job: str, part: str) -> Job:
    seeds = specs.part_seeds(exp, model, arm, part)
    conditions = specs.evaluate(exp, model, arm, job, part).conditions.values()
    used = dict.fromkeys(condition.set for condition in conditions)
    return Job(
        "evaluate",
        f"evaluate/{model}/{arm}/{job}.{part}",
        (*(final(model, arm, seed) for seed in seeds), *map(index, used)),
        (f"records/{model}/{arm}/{job}.{part}.json",),
        (model, arm, job, part),
    )


def _pairs(exp: c.Experiment) -> list[tuple[str, str]]:
    return list(dict.fromkeys((model, arm) for model, arm, _ in exp.runs()))


def _moving(exp: c.Experiment) -> list[tuple[str, str]]:
    own = exp.dynamics
    return [(m, a) for m in own.models for a in own.arms] if own else []


# --- tables, figures, the report ----------------------------------------------------------------


def _records(exp: c.Experiment, pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        f"records/{model}/{arm}/{job}.{part}.json"
        for model, arm in pairs
        for job in exp.jobs(model, arm)
        for part in specs.parts(exp, model, arm)
    )


def _table(name: str, inputs: Iterable[str], rule: str = "") -> Job:
    made = tuple(f"tables/{name}.{ext}" for ext in ("csv", "md", "tex"))
    if rule:
        return Job(rule, f"{rule}/{name}", tuple(inputs), made, (name,))
    return Job(f"table_{name}", f"table_{name}", tuple(inputs), made)


def _figure(name: str, inputs: Iterable[str], rule: str = "", own: str = "") -> Job:
    made = tuple(f"figures/{name}.{ext}" for ext in ("svg", "png"))
    if rule:
        return Job(rule, f"{rule}/{own}", tuple(inputs), made, (own,))
    return Job(f"figure_{name}", f"figure_{name}", tuple(inputs), made)


def _pages(exp: c.Experiment) -> list[Job]:
    every = _records(exp, _pairs(exp))
    histories = [history(*run) for run in exp.runs()]
    influences = [f"influence/{m}.parquet" for m in (exp.influence.models if exp.influence else ())]
    studied = exp.lambda_study.models if exp.lambda_study else ()
    lambdas, closures = ([f"{k}/{m}.parquet" for m in studied] for k in ("lambda", "closure"))
    nullspaces = [f"nullspace/{model}/nullspace.json" for model in exp.models]
    scores = Job("scores", "scores", every, ("scores.parquet",))
    tables = [_table(n, scores.outputs, "table") for n in exp.tables]
    tables += [
        _table("paired", scores.outputs),
        _table("attacks", every),
        _table("nullity", ["nullspace/nullity.csv", *nullspaces]),
        _table("cost", histories),
        _table("claims", [*scores.outputs, *histories, *influences, *lambdas]),
    ]
    figures = [
        _figure(f"nullspace_{m}", [f"nullspace/{m}/nullspace.safetensors"], "figure_nullspace", m)
        for m in exp.models
    ]
    figures += [_figure("claims", ["tables/claims.csv"]), _figure("concept", [])]
    if influences:
        tables.append(_table("influence", influences))
        figures.append(_figure("influence", ["tables/influence.csv"]))
    if studied:
        tables += [_table("lambda", lambdas), _table("closure", closures)]
        figures += [_figure(name, [f"tables/{name}.csv"]) for name in ("lambda", "closure")]
    if moving := _moving(exp):
        seed = exp.dynamics.seed if exp.dynamics else 0
        needs = [f"dynamics/{m}/{a}.parquet" for m, a in moving]
        figures.append(_figure("dynamics", [*needs, *(history(m, a, seed) for m, a in moving)]))
    if any(condition.is_error for condition in exp.evaluate.conditions.values()):
        figures.append(_figure("corruptions", every))
    if c.attack_series(exp.evaluate.conditions):
        figures.append(_figure("radius", scores.outputs))
    sheets = [f"figures/sheets/{name}.{ext}" for name in exp.data.sets for ext in ("png", "svg")]
    shown = [path for job in (*tables, *figures) for path in job.outputs]
    report = Job("report", "report", ("plan.json", *shown, *sheets), ("report.html", "README.md"))
    return [scores, *tables, *figures, report]
