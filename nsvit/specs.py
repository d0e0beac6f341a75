"""What each rule tells its verb: sections of the configuration plus what the wildcards say.

One builder per rule. A spec holds only what changes the rule's result, so that editing one
section of the configuration re-runs only the rules that depend on it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from nsvit import config as c
from nsvit.config import Section, Slug
from nsvit.errors import NsvitError


class Split(Section):
    """The dev split held out of the training set."""

    dev_images: int
    seed: int


class RenderSpec(Section):
    """One set of the embedded benchmark."""

    kind: Slug
    seed: int
    size: int
    count: int
    candidates: int | None = Field(None, description="set a: pictures to filter from")
    reference_cnn: str | None = Field(None, description="set a: whose mistakes are kept")
    path: str
    val_path: str | None = Field(None, description="set c: the pictures to corrupt, below root")


class TransferSpec(Section):
    """The embedded benchmark's counterpart of DAmageNet, made from its val set."""

    count: int
    path: str
    list: str
    val_path: str = Field(description="the pictures that are attacked, below root")
    transfer: c.TransferConfig


class CorruptSpec(Section):
    """Corrupted pictures of another set."""

    name: Slug
    path: str
    images: int
    seed: int


class ScanSpec(Section):
    """One set on disk."""

    name: Slug
    root: str
    classes: str
    set: c.SetConfig

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that say nothing are left out: indices made before there were such keys stay."""
        content = dump(self)
        for key in ("published", "partial", "damaged", "pictures", "corrupt"):
            if content["set"][key] == c.SetConfig.model_fields[key].default:
                del content["set"][key]
        return content


class Drawn(Section):
    """Which pictures of the embedded benchmark a model was trained on."""

    seed: int
    size: int
    count: int
    recipe: int = Field(description="of the rule `render`")


class PretrainSpec(Section):
    """One model trained from scratch."""

    name: Slug
    config: c.PretrainConfig
    split: Split
    pictures: Drawn | None = Field(None, description="none: pictures that were on disk")
    recipe: int = 1


class PrepareSpec(Section):
    """One model under test, before any finetuning."""

    name: Slug
    timm: str
    pretrained: bool
    checkpoint: str | None = None
    ema: bool = True
    model_args: dict[str, Any]
    mean: c.Triple
    std: c.Triple


class NullspaceSpec(Section):
    """The exact nullspace of one model."""

    model: Slug
    nullspace: c.NullspaceConfig


class NullitySpec(Section):
    """The nullity table of timm architectures."""

    architectures: tuple[str, ...]
    rtol: float


class Shared(Section):
    """What several processes can compute together."""

    def batches(self) -> dict[str, int]:
        """Pictures in the global batches that they share, by key: each process needs one."""
        raise NotImplementedError


class LearnSpec(Shared):
    """Noises at every block of one model."""

    model: Slug
    draws: int
    limits: tuple[float, ...]
    noise: c.NoiseConfig
    split: Split

    def batches(self) -> dict[str, int]:
        """The noise's own."""
        return {"influence.noise.batch_size": self.noise.batch_size}


class InfluenceSpec(Section):
    """What those noises do to held-out pictures."""

    model: Slug
    images: int
    split: Split


class LambdaSpec(Shared):
    """Noises with every lambda, and what they do to held-out pictures."""

    model: Slug
    study: c.LambdaConfig
    split: Split

    def batches(self) -> dict[str, int]:
        """The study's own."""
        return {"lambda_study.batch_size": self.study.batch_size}


class FinetuneSpec(Shared):
    """One finetuning run: of which model and arm it is, and with which settings.

    `model`, `arm` and `seed` name it; `kind` is the arm's (`plain`, `nullspace`, ...), `split`
    says how the dev pictures were held out.
    """

    model: Slug
    arm: Slug
    seed: int
    kind: c.ArmKind
    finetune: c.FinetuneConfig
    split: Split

    def batches(self) -> dict[str, int]:
        """Training's (of each pass, if there are several) and its noise's."""
        return self.finetune.batches(self.kind)


class EvaluateSpec(Shared):
    """Runs of one arm under the conditions of one job.

    `model`, `arm` and `seeds` name the runs; `conditions` are as in the configuration
    (`evaluate.conditions`), `sources` the models that transfer attacks follow.
    """

    model: Slug
    arm: Slug
    seeds: tuple[int, ...]
    batch_size: int
    conditions: dict[Slug, c.ConditionConfig]
    sources: dict[Slug, c.ModelConfig] = Field(default_factory=dict)

    def batches(self) -> dict[str, int]:
        """None: processes share blocks of batches, and some may have none."""
        return {}

    @model_serializer(mode="wrap")
    def _without_no_sources(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An empty `sources` is left out: records made before transfer attacks stay valid."""
        return {k: v for k, v in dump(self).items() if k != "sources" or v}


class DynamicsSpec(EvaluateSpec):
    """Every round of one run, on subsets."""

    images: int
    corrupted_images: int


class TableSpec(Section):
    """Everything a table or figure of records needs to know beside the records."""

    models: dict[Slug, c.ModelConfig]
    arms: dict[Slug, c.ArmConfig]
    conditions: dict[Slug, c.ConditionConfig]
    robust: dict[Slug, c.RobustConfig] = Field(default_factory=dict)
    statistics: c.StatisticsConfig
    dynamics: c.DynamicsConfig | None = None

    def arms_of(self, model: str) -> list[str]:
        """The arms that a model is finetuned with, in the order of the configuration."""
        return [
            slug for slug, arm in self.arms.items() if arm.models is None or model in arm.models
        ]

    def is_asked(self, model: str, arm: str, condition: str) -> bool:
        """Whether the runs of an arm of a model are evaluated under a condition."""
        own = self.conditions[condition]
        return model in (own.models or (model,)) and arm in (own.arms or (arm,))

    @property
    def untrained(self) -> tuple[str, ...]:
        """The arms whose weights are the starting ones."""
        return tuple(slug for slug, arm in self.arms.items() if arm.kind == "none")

    def averaged(self, model: str, *arms: str) -> tuple[str, ...]:
        """The conditions of the Average: those that count and that all of these arms have."""
        return tuple(
            slug
            for slug, condition in self.conditions.items()
            if condition.average and all(self.is_asked(model, arm, slug) for arm in arms)
        )

    @property
    def normalised(self) -> tuple[str, ...]:
        """The conditions whose corruption errors are divided by AlexNet's."""
        return tuple(slug for slug, one in self.conditions.items() if one.metric == "mce")


class AccuracySpec(Section):
    """One table of accuracies: its rows and columns, in table order."""

    title: str
    models: dict[Slug, c.ModelConfig]
    arms: dict[Slug, c.ArmConfig]
    columns: tuple[Slug, ...] = Field(description="conditions and robust sets")
    conditions: dict[Slug, c.ConditionConfig] = Field(
        description="those among the columns, and the members of robust sets"
    )
    robust: dict[Slug, c.RobustConfig]
    against: tuple[Slug, ...] = ()
    statistics: c.StatisticsConfig

    @property
    def untrained(self) -> tuple[str, ...]:
        """The arms whose weights are the starting ones."""
        return tuple(slug for slug, arm in self.arms.items() if arm.kind == "none")

    def runs(self) -> list[tuple[str, str]]:
        """Every (model, arm) of the table."""
        return [
            (model, slug)
            for model in self.models
            for slug, arm in self.arms.items()
            if arm.models is None or model in arm.models
        ]


def of_everything(spec: TableSpec) -> AccuracySpec:
    """A table of all rows and columns, as doubts are looked up in."""
    return AccuracySpec(
        title="",
        models=spec.models,
        arms=spec.arms,
        columns=(*spec.conditions, *spec.robust),
        conditions=spec.conditions,
        robust=spec.robust,
        statistics=spec.statistics,
    )


class PlanSpec(Section):
    """What a run sets out to make: the report names what of it is missing."""

    tables: dict[Slug, str] = Field(description="caption by name, in order")
    figures: dict[Slug, str] = Field(description="caption by name, in order")
    sheets: tuple[Slug, ...] = Field(description="sets with a contact sheet")
    sheet_caption: str
    config: c.Experiment


def split(exp: c.Experiment) -> Split:
    """The dev split of an experiment."""
    return Split(dev_images=exp.data.dev_images, seed=exp.data.split_seed)


def render(exp: c.Experiment, name: str) -> RenderSpec:
    """The spec of `render`."""
    own, sets = exp.data.menagerie, exp.data.sets
    if own is None:
        raise NsvitError("data.menagerie is not in the config: its sets are read, not drawn")
    known = own.counts.model_dump()
    return RenderSpec(
        kind=name,
        seed=own.seed,
        size=own.size,
        count=known[name],
        candidates=own.a_candidates if name == "a" else None,
        reference_cnn=own.reference_cnn if name == "a" else None,
        path=sets[name].path,
        val_path=sets[exp.data.val].path if name == "c" else None,
    )


def render_transfer(exp: c.Experiment) -> TransferSpec:
    """The spec of `render_transfer`."""
    own, target = exp.data.menagerie, exp.data.sets.get("damagenet")
    if own is None or target is None or target.list is None:
        raise NsvitError("data.menagerie or data.sets.damagenet is not in the config")
    return TransferSpec(
        count=own.counts.damagenet,
        path=target.path,
        list=target.list,
        val_path=exp.data.sets[exp.data.val].path,
        transfer=own.transfer,
    )


def corrupt(exp: c.Experiment, name: str) -> CorruptSpec:
    """The spec of `corrupt`."""
    own = exp.data.sets[name]
    if own.corrupt is None:
        raise NsvitError(f"data.sets.{name}: it has no `corrupt`, so it is read, not made")
    return CorruptSpec(name=name, path=own.path, images=own.corrupt.images, seed=own.corrupt.seed)


def made_root(exp: c.Experiment) -> str:
    """Where sets go that are made from other sets: never among a user's own pictures."""
    return f"results/{exp.experiment}/data"


def scan(exp: c.Experiment, name: str) -> ScanSpec:
    """The spec of `scan`: what is only for making, checking or planning the set is left out."""
    data, own = exp.data, exp.data.sets[name]
    root = data.root if own.corrupt is None else made_root(exp)
    plain = own.model_copy(update={"published": None, "pictures": None, "corrupt": None})
    return ScanSpec(name=name, root=root, classes=data.classes, set=plain)


def pretrain_model(exp: c.Experiment, name: str) -> PretrainSpec:
    """The spec of `pretrain_model`."""
    own, drawn = exp.data.menagerie, None
    if own is not None:
        recipe = c.RECIPES["render"]
        drawn = Drawn(seed=own.seed, size=own.size, count=own.counts.train, recipe=recipe)
    return PretrainSpec(
        name=name,
        config=exp.pretrain[name],
        split=split(exp),
        pictures=drawn,
        recipe=c.RECIPES["pretrain_model"],
    )


def prepare_model(exp: c.Experiment, model: str) -> PrepareSpec:
    """The spec of `prepare_model`: how the model is loaded, not what it is called."""
    own = exp.models[model]
    return PrepareSpec(
        name=model,
        timm=own.timm,
        pretrained=own.pretrained,
        checkpoint=own.checkpoint,
        ema=own.ema,
        model_args=own.model_args,
        mean=own.mean,
        std=own.std,
    )


def nullspace(exp: c.Experiment, model: str) -> NullspaceSpec:
    """The spec of `nullspace`."""
    return NullspaceSpec(model=model, nullspace=exp.nullspace)


def nullity(exp: c.Experiment) -> NullitySpec:
    """The spec of `nullity`."""
    return NullitySpec(architectures=exp.nullspace.architectures, rtol=exp.nullspace.rtol)


def _influence(exp: c.Experiment) -> c.InfluenceConfig:
    if exp.influence is None:
        raise NsvitError("the config has no section `influence`")
    return exp.influence


def learn_noise(exp: c.Experiment, model: str) -> LearnSpec:
    """The spec of `learn_noise`."""
    own = _influence(exp)
    return LearnSpec(
        model=model,
        draws=own.draws,
        limits=own.limits or (own.noise.limit,),
        noise=own.noise,
        split=split(exp),
    )


def influence(exp: c.Experiment, model: str) -> InfluenceSpec:
    """The spec of `influence`."""
    return InfluenceSpec(model=model, images=_influence(exp).images, split=split(exp))


def lambda_study(exp: c.Experiment, model: str) -> LambdaSpec:
    """The spec of `lambda_study`."""
    if exp.lambda_study is None:
        raise NsvitError("the config has no section `lambda_study`")
    study = exp.lambda_study.model_copy(update={"models": ()})
    return LambdaSpec(model=model, study=study, split=split(exp))


def finetune(exp: c.Experiment, model: str, arm: str, seed: int) -> FinetuneSpec:
    """The spec of `finetune`; what the arm's kind does not use is left at its default."""
    kind, config = exp.arms[arm].kind, exp.resolve(arm)
    if kind == "none":
        config = c.FinetuneConfig(rounds=0)
    unused: dict[str, Any] = {}
    if kind != "random":
        unused["random"] = c.RandomNoiseConfig()
    if kind not in ("random", "nullspace"):
        unused["noise"] = c.NoiseConfig()
    if kind in ("madry", "trades"):
        unused["block"] = 0
    else:
        unused["adversarial"] = c.AdversarialConfig()
    return FinetuneSpec(
        model=model,
        arm=arm,
        seed=seed,
        kind=kind,
        finetune=config.model_copy(update=unused),
        split=split(exp),
    )


def _sources(
    exp: c.Experiment, conditions: dict[str, c.ConditionConfig]
) -> dict[str, c.ModelConfig]:
    """The source models that these conditions name."""
    named = {getattr(condition.attack, "source", None) for condition in conditions.values()}
    return {slug: model for slug, model in exp.evaluate.sources.items() if slug in named}


def evaluate(exp: c.Experiment, model: str, arm: str, job: str, part: str) -> EvaluateSpec:
    """The spec of `evaluate`: the conditions of a job, for the seeds of a part."""
    every = exp.conditions(model, arm)
    conditions = {slug: condition for slug, condition in every.items() if condition.job == job}
    return EvaluateSpec(
        model=model,
        arm=arm,
        seeds=part_seeds(exp, model, arm, part),
        batch_size=exp.evaluate.batch_size,
        conditions=_computed(conditions),
        sources=_sources(exp, conditions),
    )


def parts(exp: c.Experiment, model: str, arm: str) -> list[str]:
    """The parts that an arm's seeds are evaluated in: "all", or "seed0" and so on."""
    if exp.evaluate.together:
        return ["all"]
    return [f"seed{seed}" for seed in exp.seeds(model, arm)]


def part_seeds(exp: c.Experiment, model: str, arm: str, part: str) -> tuple[int, ...]:
    """The seeds of a part."""
    return exp.seeds(model, arm) if part == "all" else (int(part.removeprefix("seed")),)


def _computed(conditions: dict[str, c.ConditionConfig]) -> dict[str, c.ConditionConfig]:
    """Conditions without what is only for tables, so that a new heading evaluates nothing."""
    blank = {"label": "", "paper": None, "average": True, "models": None, "arms": None}
    blank |= {"job": "main", "metric": "accuracy"}
    return {slug: condition.model_copy(update=blank) for slug, condition in conditions.items()}


def dynamics(exp: c.Experiment, model: str, arm: str) -> DynamicsSpec:
    """The spec of `dynamics`."""
    if exp.dynamics is None:
        raise NsvitError("the config has no section `dynamics`")
    wanted = {exp.dynamics.clean, *exp.dynamics.adversarial, *exp.dynamics.ood}
    every = _computed(exp.evaluate.conditions)
    conditions = {slug: condition for slug, condition in every.items() if slug in wanted}
    return DynamicsSpec(
        model=model,
        arm=arm,
        seeds=(exp.dynamics.seed,),
        batch_size=exp.evaluate.batch_size,
        conditions=conditions,
        sources=_sources(exp, conditions),
        images=exp.dynamics.images,
        corrupted_images=exp.dynamics.corrupted_images,
    )


def accuracy(exp: c.Experiment, table: str) -> AccuracySpec:
    """The spec of `table`: without the settings that its records already hold."""
    own, evaluate = exp.tables[table], exp.evaluate
    columns = own.conditions or (*evaluate.conditions, *evaluate.robust)
    robust = {slug: evaluate.robust[slug] for slug in columns if slug in evaluate.robust}
    members = {name for one in robust.values() for name in one.conditions}
    return AccuracySpec(
        title=own.title,
        models={slug: exp.models[slug] for slug in own.models or exp.models},
        arms={
            slug: exp.arms[slug].model_copy(update={"overrides": {}})
            for slug in own.arms or exp.arms
        },
        columns=columns,
        conditions={
            slug: condition.model_copy(update={"job": "main"})
            for slug, condition in evaluate.conditions.items()
            if slug in columns or slug in members
        },
        robust=robust,
        against=own.against,
        statistics=exp.statistics,
    )


def table(exp: c.Experiment) -> TableSpec:
    """The spec of every other table and figure made from records."""
    return TableSpec(
        models=exp.models,
        arms=exp.arms,
        conditions=exp.evaluate.conditions,
        robust=exp.evaluate.robust,
        statistics=exp.statistics,
        dynamics=exp.dynamics,
    )


def plan(
    exp: c.Experiment, tables: dict[str, str], figures: dict[str, str], sheet_caption: str
) -> PlanSpec:
    """The spec of `plan`: captions of tables and figures by name, in order."""
    return PlanSpec(
        tables=tables,
        figures=figures,
        sheets=tuple(exp.data.sets),
        sheet_caption=sheet_caption,
        config=exp.model_copy(update={"machine": c.MachineConfig()}),
    )
