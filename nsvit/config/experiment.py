"""The whole experiment, and reading it from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from nsvit.config.attacks import MIN_CLASSES, AutoAttackConfig, MiFgsmConfig
from nsvit.config.base import Section, Slug
from nsvit.config.data import DataConfig
from nsvit.config.evaluation import (
    OWN_TABLES,
    ConditionConfig,
    DynamicsConfig,
    EvaluateConfig,
    InfluenceConfig,
    NullspaceConfig,
    RobustConfig,
    StatisticsConfig,
    TableConfig,
)
from nsvit.config.machine import MachineConfig
from nsvit.config.method import ArmConfig, FinetuneConfig
from nsvit.config.models import ModelConfig, PretrainConfig, local_dir
from nsvit.config.spelling import keys_at, meant, place_of, telling
from nsvit.config.studies import LambdaConfig
from nsvit.errors import NsvitError


class Experiment(Section):
    """A whole experiment: one YAML file."""

    experiment: Slug
    note: str = Field(default="", description="for readers: over the report and at the run's end")
    data: DataConfig
    pretrain: dict[Slug, PretrainConfig] = Field(default_factory=dict)
    models: dict[Slug, ModelConfig] = Field(min_length=1)
    nullspace: NullspaceConfig = NullspaceConfig()
    influence: InfluenceConfig | None = None
    lambda_study: LambdaConfig | None = None
    finetune: FinetuneConfig = FinetuneConfig()
    arms: dict[Slug, ArmConfig] = Field(min_length=1)
    evaluate: EvaluateConfig
    dynamics: DynamicsConfig | None = None
    statistics: StatisticsConfig = StatisticsConfig()
    machine: MachineConfig = MachineConfig()
    tables: dict[Slug, TableConfig] = Field(
        default_factory=lambda: {"table1": TableConfig(title="Table 1: accuracy per condition")},
        description="tables of accuracies, each with rows and columns of its own",
    )

    @model_validator(mode="after")
    def _references_exist(self) -> Experiment:
        for slug, condition in self.evaluate.conditions.items():
            self._condition_is_sound(slug, condition)
        for slug, robust in self.evaluate.robust.items():
            self._robust_is_sound(slug, robust)
        for slug, source in self.evaluate.sources.items():
            for name, tested in self.models.items():
                if slug == name or _same_weights(source, tested):
                    raise ValueError(
                        f"evaluate.sources.{slug}: the model under test {name!r} itself; a "
                        "transfer attack needs another one"
                    )
        self._transfer_is_sound()
        self._sizes_fit()
        for slug, arm in self.arms.items():
            _need(arm.models or (), self.models, f"arms.{slug}.models")
            self.machine.check_batches(self.resolve(slug).batches(arm.kind))
        for slug, table in self.tables.items():
            self._table_is_sound(slug, table)
        if self.influence:
            _need(self.influence.models, self.models, "influence.models")
            size = self.influence.noise.batch_size
            self.machine.check_batches({"influence.noise.batch_size": size})
        if self.lambda_study:
            _need(self.lambda_study.models, self.models, "lambda_study.models")
            size = self.lambda_study.batch_size
            self.machine.check_batches({"lambda_study.batch_size": size})
        if self.dynamics:
            self._dynamics_are_sound(self.dynamics)
        return self

    def _transfer_is_sound(self) -> None:
        own = self.data.menagerie
        if own is None or "damagenet" not in self.data.sets:
            return
        cnn = _named(own.transfer.cnn)
        tested = [slug for slug, model in self.models.items() if _named(model.timm) == cnn]
        if tested:
            raise ValueError(
                f"data.menagerie.transfer.cnn: the model under test {tested[0]!r} itself; set "
                "damagenet is a transfer attack and needs another one"
            )

    def _sizes_fit(self) -> None:
        """Refuses a crop that a model cannot take, which would show after its finetuning."""
        used: list[tuple[str, Sequence[str] | None]] = [(self.data.train, None)]
        used += [(one.set, one.models) for one in self.evaluate.conditions.values()]
        for slug, model in self.models.items():
            for name, models in used:
                crop = self.data.sets[name].crop
                if slug in (models or (slug,)) and crop and model.side not in (None, crop):
                    raise ValueError(
                        f"data.sets.{name}.crop: {crop}, but models.{slug} takes "
                        f"{model.side} x {model.side} pixels"
                    )

    def _condition_is_sound(self, slug: str, condition: ConditionConfig) -> None:
        key = f"evaluate.conditions.{slug}"
        _need((condition.set,), self.data.sets, f"{key}.set")
        _need(condition.models or (), self.models, f"{key}.models")
        _need(condition.arms or (), self.arms, f"{key}.arms")
        layout = self.data.sets[condition.set].layout
        if (condition.metric != "accuracy") != (layout == "corruption"):
            raise ValueError(
                f"{key}.metric: corruption_error and mce go with sets of layout 'corruption' "
                f"and with no other; {condition.set} has {layout!r}"
            )
        if condition.metric == "mce" and self.data.classes != "imagenet-1k":
            raise ValueError(
                f"{key}.metric: mce divides by AlexNet's errors on ImageNet's 1000 classes; "
                f"data.classes is {self.data.classes!r}: use corruption_error"
            )
        if condition.metric == "mce" and self.data.sets[condition.set].restrict:
            raise ValueError(
                f"{key}.metric: AlexNet's errors are among all 1000 classes, but "
                f"data.sets.{condition.set}.restrict leaves some out: set it to false or use "
                "corruption_error"
            )
        if isinstance(condition.attack, MiFgsmConfig):
            _need((condition.attack.source,), self.evaluate.sources, f"{key}.attack.source")
        if isinstance(condition.attack, AutoAttackConfig):
            self._classes_are_enough(key, condition, condition.attack)

    def _classes_are_enough(
        self, key: str, condition: ConditionConfig, attack: AutoAttackConfig
    ) -> None:
        """As far as the configuration says how many classes a model has; else at the start."""
        for slug in condition.models or self.models:
            classes = self.models[slug].model_args.get("num_classes")
            for part in attack.parts:
                if classes is not None and classes < MIN_CLASSES.get(part, 2):
                    raise ValueError(
                        f"{key}.attack: models.{slug} has {classes} classes; part {part} needs at "
                        f"least {MIN_CLASSES.get(part, 2)}: leave it out of `parts`"
                    )

    def _robust_is_sound(self, slug: str, robust: RobustConfig) -> None:
        key = f"evaluate.robust.{slug}"
        if slug in self.evaluate.conditions:
            raise ValueError(f"{key}: there is a condition of that name")
        _need(robust.conditions, self.evaluate.conditions, f"{key}.conditions")
        members = [self.evaluate.conditions[name] for name in robust.conditions]
        if any(one.metric != "accuracy" for one in members):
            raise ValueError(f"{key}: corruption errors have no robust accuracy")
        if len({one.set for one in members}) > 1:
            raise ValueError(f"{key}: its conditions need the same `set`")
        if len({one.restricted for one in members}) > 1:
            raise ValueError(
                f"{key}: its conditions need the same `restricted`; a picture is right among the "
                "same classes in all of them"
            )
        if all(one.attack is not None for one in members):
            raise ValueError(
                f"{key}: none of its conditions is without an attack; robust accuracy counts "
                "pictures that are right before the attacks too: add the clean one"
            )

    def _table_is_sound(self, slug: str, table: TableConfig) -> None:
        key = f"tables.{slug}"
        if slug in OWN_TABLES:
            raise ValueError(f"{key}: a rule of its own makes the table of that name; rename it")
        columns = {**self.evaluate.conditions, **self.evaluate.robust}
        _need(table.models or (), self.models, f"{key}.models")
        _need(table.arms or (), self.arms, f"{key}.arms")
        _need(table.conditions or (), columns, f"{key}.conditions")
        _need(table.against, {a: 0 for a in table.arms or self.arms}, f"{key}.against")
        if not self.table_runs(slug):
            raise ValueError(f"{key}: none of its arms has runs with any of its models")

    def _dynamics_are_sound(self, own: DynamicsConfig) -> None:
        _need(own.models, self.models, "dynamics.models")
        _need(own.arms, self.arms, "dynamics.arms")
        named = (*own.adversarial, *own.ood, own.clean)
        _need(named, self.evaluate.conditions, "dynamics conditions")
        runs = self.runs()
        for model in own.models:
            for slug in own.arms:
                if (model, slug, own.seed) not in runs:
                    raise ValueError(
                        f"dynamics: there is no run {model}/{slug} with seed {own.seed}"
                    )
                lacking = [c for c in named if c not in self.conditions(model, slug)]
                if lacking:
                    raise ValueError(f"dynamics: {model}/{slug} is not evaluated under {lacking}")

    def resolve(self, arm: str) -> FinetuneConfig:
        """The finetuning settings of an arm: `finetune` with the arm's overrides merged in.

        Raises:
            ValueError: an override is not a key of `finetune` or has a bad value, or a random arm
                is told not to stop.
        """
        config = self.arms[arm]
        merged = _merge(self.finetune.model_dump(), config.overrides)
        if config.kind == "none":
            merged["rounds"] = 0
        try:
            resolved = FinetuneConfig.model_validate(merged)
        except ValidationError as error:
            raise ValueError(describe(error, f"arms.{arm}.overrides")) from None
        if config.kind == "random" and not resolved.noise.early_stop:
            raise ValueError(
                f"arms.{arm}: random noise is shrunk until it is inside epsilon, and without "
                "noise.early_stop to nothing; set it to true in this arm's overrides"
            )
        return resolved

    def conditions(self, model: str, arm: str) -> dict[str, ConditionConfig]:
        """The conditions that the runs of an arm of a model are evaluated under."""
        return {
            slug: condition
            for slug, condition in self.evaluate.conditions.items()
            if (condition.models is None or model in condition.models)
            and (condition.arms is None or arm in condition.arms)
        }

    def jobs(self, model: str, arm: str) -> tuple[str, ...]:
        """The jobs that the conditions of an arm of a model are spread over."""
        return tuple(dict.fromkeys(one.job for one in self.conditions(model, arm).values()))

    def seeds(self, model: str, arm: str) -> tuple[int, ...]:
        """The seeds that an arm has with a model."""
        return self.arms[arm].seeds[: self.models[model].max_seeds]

    def table_runs(self, table: str) -> list[tuple[str, str]]:
        """The (model, arm) that a table shows, in its order."""
        own = self.tables[table]
        return [
            (model, slug)
            for model in own.models or self.models
            for slug in own.arms or self.arms
            if self.arms[slug].models is None or model in (self.arms[slug].models or ())
        ]

    def runs(self) -> list[tuple[str, str, int]]:
        """Every (model, arm, seed) of the experiment, in table order."""
        return [
            (model, slug, seed)
            for model in self.models
            for slug, arm in self.arms.items()
            if arm.models is None or model in arm.models
            for seed in self.seeds(model, slug)
        ]


def _same_weights(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether two sections name the same weights, however they are read."""
    named = [
        (_named(m.timm), m.checkpoint and os.path.abspath(m.checkpoint), m.model_args)
        for m in (one, other)
    ]
    return named[0] == named[1]


def _named(name: str) -> str:
    """A timm name; of a folder its path, which can be written in several ways."""
    folder = local_dir(name)
    return name if folder is None else os.path.abspath(folder)


def _need(slugs: tuple[str, ...], among: dict[str, Any], key: str) -> None:
    """Refuses names that are not there."""
    unknown = [slug for slug in slugs if slug not in among]
    if unknown:
        raise ValueError(f"{key}: {unknown} not among {sorted(among)}")


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[key] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


# --- loading --------------------------------------------------------------------------------


def validate(raw: dict[str, Any], source: str = "config") -> Experiment:
    """The experiment in a parsed YAML mapping.

    Raises:
        NsvitError: every problem at once, each with its key, value and what is allowed.
    """
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise NsvitError(describe(error, source)) from None


def load(path: str | Path, *overlays: str | Path) -> Experiment:
    """The experiment in a YAML file, with others on top of it as Snakemake takes them.

    Raises:
        NsvitError: a file is missing, is not YAML, or does not fit the schema.
    """
    raw = _read(path)
    for overlay in overlays:
        raw = _merge(raw, _read(overlay))
    return validate(raw, " + ".join(map(str, (path, *overlays))))


def refuse_repeated_keys(path: str | Path) -> None:
    """Refuses a YAML file with a key twice in one section: the first would be lost, unsaid.

    Raises:
        NsvitError: the file cannot be read, is not YAML, or repeats a key (names it and its line).
    """
    import yaml

    waiting = [_yaml(path, yaml.compose)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, here = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise NsvitError(
                    f"{path}: {name!r} in line {here} is already in line {lines[name]}, and only "
                    "one of the two would count; join them"
                )
            lines[name] = here
            waiting.append(value)


def _read(path: str | Path) -> dict[str, Any]:
    import yaml

    refuse_repeated_keys(path)
    raw = _yaml(path, yaml.safe_load)
    if not isinstance(raw, dict):
        raise NsvitError(f"{path}: expected a mapping of keys to values")
    return raw


def _yaml(path: str | Path, parse: Callable[[str], Any]) -> Any:
    import yaml

    try:
        return parse(Path(path).read_text())
    except OSError as error:
        raise NsvitError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise NsvitError(f"{path}: not YAML: {error}") from None


def describe(error: ValidationError, source: str) -> str:
    """A validation error for people: each problem with its key, value and what is allowed."""
    problems = telling(error.errors())
    lines = [f"{source}: {len(problems)} problem(s)"]
    for problem in problems:
        key = ".".join(map(str, place_of(problem))) or "(top level)"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            *place, word = problem["loc"]
            known = keys_at(Experiment.model_json_schema(), place, error.title)
            message = f"no such key{meant(str(word), known)}; config/README.md lists them all"
        if problem["type"] == "string_pattern_mismatch":
            message = "a slug is lower-case letters, digits and _, starting with a letter"
        value = json.dumps(problem["input"], default=str)
        shown = "" if len(value) > 120 or not problem["loc"] else f" (got {value})"
        lines.append(f"  {key}: {message}{shown}")
    return "\n".join(lines)


def schema_text() -> str:
    """The JSON schema of the configuration, as kept in config/schema.json."""
    return json.dumps(Experiment.model_json_schema(), indent=2) + "\n"
