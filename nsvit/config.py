"""The experiment's configuration: the only schema, frozen, free of torch.

Every key of ``config/*.yaml`` is a field here. Unknown keys, wrong types, attack radii other
than ``k/255`` and slugs with bad characters are refused before Snakemake builds its DAG. The
spec a rule passes to its verb is a section of this schema, so both ends check the same thing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from nsvit.errors import NsvitError

#: One number per rule, raised when what the rule computes changes its meaning. Snakemake does
#: not see edits inside the package; these travel in each rule's params instead.
RECIPES: dict[str, int] = {
    "render": 1,
    "scan": 1,
    "contact_sheet": 1,
    "pretrain_model": 1,
    "prepare_model": 1,
    "nullspace": 1,
    "nullity": 1,
    "learn_noise": 1,
    "influence": 1,
    "finetune": 1,
    "evaluate": 1,
    "dynamics": 1,
    "table1": 1,
    "table_influence": 1,
    "table_nullity": 1,
    "table_runs": 1,
    "figure_nullspace": 1,
    "figure_influence": 1,
    "figure_dynamics": 1,
}

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Triple = tuple[float, float, float]


def _check_radius(text: str) -> str:
    match = re.fullmatch(r"(0|[1-9]\d{0,2})/255", text)
    if not match or int(match[1]) > 255:
        raise ValueError("a radius is written k/255 with k a whole number from 0 to 255")
    return text


Radius = Annotated[str, AfterValidator(_check_radius)]


def radius_value(radius: str) -> float:
    """The radius "k/255" as a fraction of the pixel range [0, 1]."""
    return int(_check_radius(radius).split("/")[0]) / 255.0


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- data -----------------------------------------------------------------------------------


class MenagerieCounts(Section):
    """How many pictures each embedded set gets."""

    train: PositiveInt = 8000
    val: PositiveInt = 1500
    v2: PositiveInt = 1000
    a: PositiveInt = Field(1000, description="natural pictures the reference CNN gets wrong")
    r: PositiveInt = 1000
    sketch: PositiveInt = 1000
    stylized: PositiveInt = 1000
    c: PositiveInt = Field(200, description="val pictures that are corrupted in 75 ways each")


class MenagerieConfig(Section):
    """The embedded benchmark. Present: the rule `render` draws the sets. Absent: on disk."""

    seed: int = Field(7, ge=0, description="seed of every picture; independent of processes")
    size: int = Field(48, ge=32, description="side of a picture in pixels")
    counts: MenagerieCounts = MenagerieCounts()
    a_candidates: PositiveInt = Field(4000, description="pictures drawn to filter set a from")
    reference_cnn: str = Field(
        "local-dir:nsvit/pretrained/cnn_a", description="timm model that filters set a"
    )


class SetConfig(Section):
    """One image set on disk."""

    path: str = Field(description="folder, relative to data.root")
    layout: Literal["wnid", "index", "corruption"] = Field(
        "wnid",
        description="<wnid>/*, <class number>/* (ImageNet-V2) or <corruption>/<severity>/<wnid>/*",
    )
    resize: int | None = Field(None, ge=1, description="shorter side after bicubic resize, pixels")
    crop: int | None = Field(None, ge=1, description="side of the centre crop, pixels")
    restrict: bool = Field(
        False, description="predict only among the classes that have a folder (ImageNet-A, -R)"
    )


class DataConfig(Section):
    """Where the pictures are and what the classes are called."""

    root: str
    classes: str = Field(
        description="file with one wnid (and optionally a name) per line, or 'imagenet-1k'"
    )
    menagerie: MenagerieConfig | None = None
    sets: dict[Slug, SetConfig]
    train: Slug = "train"
    val: Slug = Field("val", description="the clean test set")
    dev_images: PositiveInt = Field(500, description="held out of train to choose on, never test")
    split_seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sets_are_sound(self) -> DataConfig:
        for key in ("train", "val"):
            if getattr(self, key) not in self.sets:
                raise ValueError(f"data.{key} is {getattr(self, key)!r}, not in data.sets")
        paths = {slug: PurePosixPath(own.path) for slug, own in self.sets.items()}
        for slug, path in paths.items():
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"data.sets.{slug}.path: a folder below data.root, not {path}")
            for other, its in paths.items():
                if other != slug and its.is_relative_to(path):
                    raise ValueError(f"data.sets.{other}.path: {its} is inside that of {slug}")
        if self.menagerie is not None:
            self._menagerie_is_sound(self.menagerie)
        return self

    def _menagerie_is_sound(self, menagerie: MenagerieConfig) -> None:
        counts = menagerie.counts.model_dump()
        unknown = sorted(set(self.sets) - set(counts))
        if unknown:
            raise ValueError(
                f"data.sets: the embedded benchmark has no {unknown}, only {sorted(counts)}"
            )
        if (self.train, self.val) != ("train", "val"):
            raise ValueError("data.train and data.val: the embedded benchmark's are train and val")
        if counts["c"] > counts["val"]:
            raise ValueError("data.menagerie.counts.c: more than there are pictures in val")
        if self.dev_images >= counts["train"]:
            raise ValueError("data.dev_images: leaves nothing of train to train on")


# --- models ---------------------------------------------------------------------------------


class ModelConfig(Section):
    """One model under test."""

    label: str
    timm: str = Field(description="a timm name, or local-dir:FOLDER (relative to where you run)")
    pretrained: bool = True
    model_args: dict[str, Any] = Field(default_factory=dict)
    mean: Triple = Field(description="per channel, pixels in [0, 1]")
    std: Triple = Field(description="per channel, pixels in [0, 1]")
    paper: str | None = Field(None, description="this model's name in the paper's tables")
    max_seeds: int | None = Field(
        None, ge=1, description="only the first n seeds of each arm, where time forbids more"
    )

    @model_validator(mode="after")
    def _std_positive(self) -> ModelConfig:
        if min(self.std) <= 0:
            raise ValueError("std must be positive in every channel")
        return self


def local_dir(name: str) -> Path | None:
    """The folder of a timm name of the form `local-dir:FOLDER`, else None."""
    return Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else None


class PretrainConfig(Section):
    """Training one model from scratch (the rule `pretrain_model`)."""

    architecture: str
    model_args: dict[str, Any] = Field(default_factory=dict)
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    epochs: PositiveInt
    batch_size: PositiveInt = 64
    lr: PositiveFloat
    weight_decay: float = Field(0.05, ge=0)
    warmup: Probability = Field(0.05, description="share of all steps")
    label_smoothing: Probability = 0.0
    augmentation: Literal["light", "imagenet", "none"] = "light"
    sincos: bool = Field(True, description="sine-cosine initial position embedding (ViTs)")
    seed: int = Field(0, ge=0)


# --- method ---------------------------------------------------------------------------------


class NoiseConfig(Section):
    """Epsilon-approximate nullspace noise (METHOD.md section 4)."""

    limit: PositiveFloat = Field(3.0, description="noise starts as U(-limit, limit), token units")
    lr: PositiveFloat = 0.1
    weight_decay: float = Field(0.01, ge=0)
    epsilon: float = Field(
        0.03, ge=0, le=2, description="stop below this mean summed squared probability distance"
    )
    max_steps: PositiveInt = Field(3000, description="budget of optimiser steps")
    pool: PositiveInt = Field(128_000, description="training pictures the noise is learned on")
    batch_size: PositiveInt = 128
    loss: Literal["squared", "unsquared"] = Field(
        "squared", description="logit distance: squared as the late code, unsquared as the paper"
    )


class RandomNoiseConfig(Section):
    """The random baseline (METHOD.md section 5.1): N(0, std^2), shrunk until inside epsilon."""

    std: PositiveFloat = 1.0
    shrink: Annotated[float, Field(gt=0, lt=1)] = 0.8


class FinetuneConfig(Section):
    """One finetuning (METHOD.md sections 5 and 12)."""

    rounds: int = Field(20, ge=0, description="0: the starting weights, untouched")
    steps: PositiveInt = Field(40, description="optimiser steps in a round")
    batch_size: PositiveInt = 128
    lr: PositiveFloat = 1e-5
    lr_min: float = Field(1e-6, ge=0, description="end of each round's cosine")
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: Probability = 0.1
    drop_path: Probability = 0.0
    augmentation: Literal["light", "imagenet", "none"] = "imagenet"
    block: int = Field(0, ge=0, description="where noise enters: 0 patch embedding, k block k")
    select: Literal["last", "dev"] = Field("last", description="never on a test set")
    noise: NoiseConfig = NoiseConfig()
    random: RandomNoiseConfig = RandomNoiseConfig()

    @model_validator(mode="after")
    def _lr_falls(self) -> FinetuneConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min {self.lr_min} is above lr {self.lr}")
        return self


class ArmConfig(Section):
    """One way to finetune."""

    label: str
    kind: Literal["none", "plain", "random", "nullspace"]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    models: tuple[Slug, ...] | None = Field(None, description="null: every model")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="keys of `finetune` that differ in this arm"
    )
    paper: str | None = Field(None, description="this method's name in the paper's tables")

    @model_validator(mode="after")
    def _seeds_differ(self) -> ArmConfig:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} contain a repetition")
        return self


# --- evaluation -----------------------------------------------------------------------------


class FgsmConfig(Section):
    """One step along the sign of the gradient (linf)."""

    name: Literal["fgsm"]
    radius: Radius


class _Bounded(Section):
    """An attack in the linf or the l2 ball."""

    norm: Literal["linf", "l2"] = "linf"
    radius: Radius | PositiveFloat = Field(
        description="linf: k/255 of the pixel range; l2: root of summed squares, pixel units"
    )

    @model_validator(mode="after")
    def _radius_fits_norm(self) -> _Bounded:
        if self.norm == "linf" and not isinstance(self.radius, str):
            raise ValueError("a linf radius is written k/255 with k a whole number from 0 to 255")
        if self.norm == "l2" and isinstance(self.radius, str):
            raise ValueError("an l2 radius is a positive number in pixel units, such as 0.5")
        return self


class PgdConfig(_Bounded):
    """Projected gradient steps."""

    name: Literal["pgd"]
    steps: PositiveInt = Field(10, description="gradient steps per start")
    step_size: PositiveFloat | None = Field(
        None, description="units of the radius as a number (2/255 is 0.00784); null: 2.5 r / steps"
    )
    restarts: PositiveInt = 1
    random_start: bool = Field(True, description="start anywhere in the ball")
    seed: int = Field(0, ge=0)


class MiFgsmConfig(_Bounded):
    """Momentum steps on another model's gradients (a transfer attack)."""

    name: Literal["mi_fgsm"]
    source: Slug = Field(description="a key of evaluate.sources: the model that is followed")
    steps: PositiveInt = 10
    step_size: PositiveFloat | None = Field(
        None, description="units of the radius as a number; null: radius / steps"
    )
    decay: float = Field(1.0, ge=0, description="share of the momentum kept per step")


class CwConfig(Section):
    """Smallest l2 change by search over c (Carlini and Wagner)."""

    name: Literal["cw"]
    norm: Literal["l2"] = "l2"
    radius: PositiveFloat | None = Field(
        None, description="larger changes do not count, pixel units; null: any size counts"
    )
    binary_search_steps: PositiveInt = Field(9, description="values of c tried")
    steps: PositiveInt = Field(1000, description="Adam steps per c")
    confidence: float = Field(0.0, ge=0, description="by how much another logit must exceed")
    lr: PositiveFloat = Field(0.01, description="of Adam, arctanh units")
    initial_c: PositiveFloat = 1e-3


class PatchFoolConfig(Section):
    """A few patches, chosen by attention, filled with anything (METHOD.md section 6)."""

    name: Literal["patch_fool"]
    norm: Literal["linf", "l2"] = "linf"
    radius: Radius | PositiveFloat | None = Field(
        None, description="bound of the mild variants inside the patch; null: none"
    )
    patches: PositiveInt = 1
    layer: int = Field(4, ge=0, description="block whose attention chooses, at most the last")
    mode: Literal["ce", "attention"] = Field("ce", description="attention: with its loss, PCGrad")
    attention_weight: float = Field(0.002, ge=0)
    lr: PositiveFloat = Field(0.22, description="of Adam, normalised units")
    steps: int = Field(250, ge=0, description="iterations")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _radius_fits_norm(self) -> PatchFoolConfig:
        if self.norm == "linf" and isinstance(self.radius, float):
            raise ValueError("a linf radius is written k/255 with k a whole number from 0 to 255")
        if self.norm == "l2" and not isinstance(self.radius, float):
            raise ValueError("norm l2 needs a radius: a positive number in pixel units")
        return self


class AutoAttackConfig(_Bounded):
    """The AutoAttack ensemble (needs the extra `autoattack`)."""

    name: Literal["autoattack"]
    parts: tuple[Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"], ...] = Field(
        ("apgd-ce", "apgd-t", "fab-t", "square"), min_length=1
    )
    steps: PositiveInt = Field(100, description="of APGD and FAB")
    queries: PositiveInt = Field(5000, description="of the square attack")
    targets: PositiveInt = Field(9, description="target classes, at most classes - 1")
    together: bool = Field(
        False, description="a batch in one call: faster, but results depend on the batch size"
    )
    seed: int = Field(0, ge=0)


#: An attack on pixels in [0, 1].
AttackConfig = Annotated[
    FgsmConfig | PgdConfig | MiFgsmConfig | CwConfig | PatchFoolConfig | AutoAttackConfig,
    Field(discriminator="name"),
]


class ConditionConfig(Section):
    """One column of the main table."""

    label: str
    set: Slug
    attack: AttackConfig | None = None
    metric: Literal["accuracy", "corruption_error"] = "accuracy"
    images: int | None = Field(None, ge=1, description="first n pictures of every class in turn")
    average: bool = Field(True, description="counts in the Average column")
    paper: str | None = Field(None, description="this column's name in the paper's tables")


class EvaluateConfig(Section):
    """The evaluation matrix."""

    batch_size: PositiveInt = 250
    conditions: dict[Slug, ConditionConfig]
    sources: dict[Slug, ModelConfig] = Field(
        default_factory=dict, description="models that transfer attacks follow, never under test"
    )


class StatisticsConfig(Section):
    """Intervals."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resamples: PositiveInt = 2000
    seed: int = Field(0, ge=0)


class NullspaceConfig(Section):
    """The exact nullspace and its demonstration (METHOD.md section 2)."""

    rtol: PositiveFloat = Field(1e-6, description="singular values below rtol * largest are zero")
    images: PositiveInt = Field(64, description="pictures of val on which invariance is measured")
    peak: Probability = Field(0.5, description="largest absolute pixel value of the noise")
    architectures: tuple[str, ...] = Field((), description="timm names in the nullity table")


class InfluenceConfig(Section):
    """Learned, permuted and Gaussian noise at every block."""

    models: tuple[Slug, ...]
    images: PositiveInt = Field(500, description="held-out pictures (dev)")
    draws: PositiveInt = Field(3, description="noises per block, each with controls of its own")
    limits: tuple[PositiveFloat, ...] = Field(
        (), description="limit per block, the last for all deeper ones; none: noise.limit"
    )
    noise: NoiseConfig = NoiseConfig()


class DynamicsConfig(Section):
    """Evaluation of every round of some runs: the training-dynamics figure, never a choice."""

    models: tuple[Slug, ...]
    arms: tuple[Slug, ...]
    seed: int = Field(0, ge=0)
    images: PositiveInt = Field(200, description="pictures per set and condition")
    corrupted_images: PositiveInt = Field(20, description="pictures per corruption and severity")
    adversarial: tuple[Slug, ...] = Field(
        min_length=1, description="conditions averaged as adversarial"
    )
    ood: tuple[Slug, ...] = Field(
        min_length=1, description="conditions averaged as out of distribution"
    )
    clean: Slug = "clean"


class Experiment(Section):
    """A whole experiment: one YAML file."""

    experiment: Slug
    data: DataConfig
    pretrain: dict[Slug, PretrainConfig] = Field(default_factory=dict)
    models: dict[Slug, ModelConfig] = Field(min_length=1)
    nullspace: NullspaceConfig = NullspaceConfig()
    influence: InfluenceConfig | None = None
    finetune: FinetuneConfig = FinetuneConfig()
    arms: dict[Slug, ArmConfig] = Field(min_length=1)
    evaluate: EvaluateConfig
    dynamics: DynamicsConfig | None = None
    statistics: StatisticsConfig = StatisticsConfig()

    @model_validator(mode="after")
    def _references_exist(self) -> Experiment:
        def need(slugs: tuple[str, ...], among: dict[str, Any], key: str) -> None:
            unknown = [slug for slug in slugs if slug not in among]
            if unknown:
                raise ValueError(f"{key}: {unknown} not among {sorted(among)}")

        for slug, condition in self.evaluate.conditions.items():
            need((condition.set,), self.data.sets, f"evaluate.conditions.{slug}.set")
            layout = self.data.sets[condition.set].layout
            if (condition.metric == "corruption_error") != (layout == "corruption"):
                raise ValueError(
                    f"evaluate.conditions.{slug}.metric: corruption_error goes with sets of "
                    f"layout 'corruption' and with no other; {condition.set} has {layout!r}"
                )
            attack = condition.attack
            if isinstance(attack, MiFgsmConfig):
                key = f"evaluate.conditions.{slug}.attack.source"
                need((attack.source,), self.evaluate.sources, key)
        for slug, source in self.evaluate.sources.items():
            for name, tested in self.models.items():
                same = (source.timm, source.model_args) == (tested.timm, tested.model_args)
                if slug == name or same:
                    raise ValueError(
                        f"evaluate.sources.{slug}: the model under test {name!r} itself; a "
                        "transfer attack needs another one"
                    )
        for slug, arm in self.arms.items():
            need(arm.models or (), self.models, f"arms.{slug}.models")
            self.resolve(slug)
        if self.influence:
            need(self.influence.models, self.models, "influence.models")
        if self.dynamics:
            d, conditions = self.dynamics, self.evaluate.conditions
            need(d.models, self.models, "dynamics.models")
            need(d.arms, self.arms, "dynamics.arms")
            need((*d.adversarial, *d.ood, d.clean), conditions, "dynamics conditions")
            for model in d.models:
                for slug in d.arms:
                    if (model, slug, d.seed) not in self.runs():
                        raise ValueError(
                            f"dynamics: there is no run {model}/{slug} with seed {d.seed}"
                        )
        return self

    def resolve(self, arm: str) -> FinetuneConfig:
        """The finetuning settings of an arm: `finetune` with the arm's overrides merged in.

        Raises:
            ValueError: an override is not a key of `finetune` or has a bad value.
        """
        config = self.arms[arm]
        merged = _merge(self.finetune.model_dump(), config.overrides)
        if config.kind == "none":
            merged["rounds"] = 0
        try:
            return FinetuneConfig.model_validate(merged)
        except ValidationError as error:
            raise ValueError(describe(error, f"arms.{arm}.overrides")) from None

    def seeds(self, model: str, arm: str) -> tuple[int, ...]:
        """The seeds that an arm has with a model."""
        return self.arms[arm].seeds[: self.models[model].max_seeds]

    def runs(self) -> list[tuple[str, str, int]]:
        """Every (model, arm, seed) of the experiment, in table order."""
        return [
            (model, slug, seed)
            for model in self.models
            for slug, arm in self.arms.items()
            if arm.models is None or model in arm.models
            for seed in self.seeds(model, slug)
        ]


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


def load(path: str | Path) -> Experiment:
    """The experiment in a YAML file.

    Raises:
        NsvitError: the file is missing, is not YAML, or does not fit the schema.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise NsvitError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise NsvitError(f"{path}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise NsvitError(f"{path}: expected a mapping of keys to values")
    return validate(raw, str(path))


def describe(error: ValidationError, source: str) -> str:
    """A validation error for people: each problem with its key, value and what is allowed."""
    lines = [f"{source}: {error.error_count()} problem(s)"]
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "no such key; config/README.md lists them all"
        if problem["type"] == "string_pattern_mismatch":
            message = "a slug is lower-case letters, digits and _, starting with a letter"
        value = json.dumps(problem["input"], default=str)
        shown = "" if len(value) > 120 or not problem["loc"] else f" (got {value})"
        lines.append(f"  {key}: {message}{shown}")
    return "\n".join(lines)


def schema_text() -> str:
    """The JSON schema of the configuration, as kept in config/schema.json."""
    return json.dumps(Experiment.model_json_schema(), indent=2) + "\n"
