"""What each rule tells its verb: sections of the configuration plus what the wildcards say.

One builder per rule. A spec holds only what changes the rule's result, so that editing one
section of the configuration re-runs only the rules that depend on it.
"""

from __future__ import annotations

from typing import Any, Literal

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
    set: c.SetConfig
    val_path: str | None = Field(None, description="set c: the pictures to corrupt, below root")


class ScanSpec(Section):
    """One set on disk."""

    name: Slug
    root: str
    classes: str
    set: c.SetConfig


class PretrainSpec(Section):
    """One model trained from scratch."""

    name: Slug
    config: c.PretrainConfig
    split: Split


class PrepareSpec(Section):
    """One model under test, before any finetuning."""

    name: Slug
    model: c.ModelConfig


class NullspaceSpec(Section):
    """The exact nullspace of one model."""

    model: Slug
    nullspace: c.NullspaceConfig


class NullitySpec(Section):
    """The nullity table of timm architectures."""

    architectures: tuple[str, ...]
    rtol: float


class InfluenceSpec(Section):
    """Noise at every block of one model (verbs learn-noise and influence)."""

    model: Slug
    influence: c.InfluenceConfig
    split: Split


class FinetuneSpec(Section):
    """One run."""

    model: Slug
    arm: Slug
    seed: int
    kind: Literal["none", "plain", "random", "nullspace"]
    finetune: c.FinetuneConfig
    split: Split


class EvaluateSpec(Section):
    """The runs of one arm under every condition."""

    model: Slug
    arm: Slug
    seeds: tuple[int, ...]
    batch_size: int
    conditions: dict[Slug, c.ConditionConfig]
    sources: dict[Slug, c.ModelConfig] = Field(default_factory=dict)

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
    statistics: c.StatisticsConfig
    dynamics: c.DynamicsConfig | None = None


def split(exp: c.Experiment) -> Split:
    """The dev split of an experiment."""
    return Split(dev_images=exp.data.dev_images, seed=exp.data.split_seed)


def render(exp: c.Experiment, name: str) -> RenderSpec:
    """The spec of `render`."""
    own, sets = exp.data.menagerie, exp.data.sets
    if own is None:
        raise NsvitError("data.menagerie is not in the config: its sets are read, not drawn")
    known = own.counts.model_dump()
    if name not in known:
        raise NsvitError(f"data.sets.{name}: the embedded benchmark has only {', '.join(known)}")
    if name == "c" and "val" not in sets:
        raise NsvitError("data.sets.c: made from pictures of the set val, which is not there")
    return RenderSpec(
        kind=name,
        seed=own.seed,
        size=own.size,
        count=known[name],
        candidates=own.a_candidates if name == "a" else None,
        reference_cnn=own.reference_cnn if name == "a" else None,
        set=sets[name],
        val_path=sets["val"].path if name == "c" else None,
    )


def scan(exp: c.Experiment, name: str) -> ScanSpec:
    """The spec of `scan`."""
    data = exp.data
    return ScanSpec(name=name, root=data.root, classes=data.classes, set=data.sets[name])


def pretrain_model(exp: c.Experiment, name: str) -> PretrainSpec:
    """The spec of `pretrain_model`."""
    return PretrainSpec(name=name, config=exp.pretrain[name], split=split(exp))


def prepare_model(exp: c.Experiment, model: str) -> PrepareSpec:
    """The spec of `prepare_model`."""
    return PrepareSpec(name=model, model=exp.models[model])


def nullspace(exp: c.Experiment, model: str) -> NullspaceSpec:
    """The spec of `nullspace`."""
    return NullspaceSpec(model=model, nullspace=exp.nullspace)


def nullity(exp: c.Experiment) -> NullitySpec:
    """The spec of `nullity`."""
    return NullitySpec(architectures=exp.nullspace.architectures, rtol=exp.nullspace.rtol)


def influence(exp: c.Experiment, model: str) -> InfluenceSpec:
    """The spec of `learn_noise` and of `influence`."""
    if exp.influence is None:
        raise NsvitError("the config has no section `influence`")
    return InfluenceSpec(model=model, influence=exp.influence, split=split(exp))


def finetune(exp: c.Experiment, model: str, arm: str, seed: int) -> FinetuneSpec:
    """The spec of `finetune`."""
    return FinetuneSpec(
        model=model,
        arm=arm,
        seed=seed,
        kind=exp.arms[arm].kind,
        finetune=exp.resolve(arm),
        split=split(exp),
    )


def _sources(
    exp: c.Experiment, conditions: dict[str, c.ConditionConfig]
) -> dict[str, c.ModelConfig]:
    """The source models that these conditions name."""
    named = {getattr(condition.attack, "source", None) for condition in conditions.values()}
    return {slug: model for slug, model in exp.evaluate.sources.items() if slug in named}


def evaluate(exp: c.Experiment, model: str, arm: str) -> EvaluateSpec:
    """The spec of `evaluate`."""
    return EvaluateSpec(
        model=model,
        arm=arm,
        seeds=exp.seeds(model, arm),
        batch_size=exp.evaluate.batch_size,
        conditions=exp.evaluate.conditions,
        sources=_sources(exp, exp.evaluate.conditions),
    )


def dynamics(exp: c.Experiment, model: str, arm: str) -> DynamicsSpec:
    """The spec of `dynamics`."""
    if exp.dynamics is None:
        raise NsvitError("the config has no section `dynamics`")
    wanted = {exp.dynamics.clean, *exp.dynamics.adversarial, *exp.dynamics.ood}
    conditions = {k: v for k, v in exp.evaluate.conditions.items() if k in wanted}
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


def table(exp: c.Experiment) -> TableSpec:
    """The spec of every table and figure made from records."""
    return TableSpec(
        models=exp.models,
        arms=exp.arms,
        conditions=exp.evaluate.conditions,
        statistics=exp.statistics,
        dynamics=exp.dynamics,
    )
