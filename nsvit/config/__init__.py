"""The experiment's configuration: the only schema, frozen, free of torch.

Every key of ``config/*.yaml`` is a field here. Unknown keys, wrong types, attack radii other
than ``k/255`` and slugs with bad characters are refused before Snakemake builds its DAG. The
spec a rule passes to its verb is a section of this schema, so both ends check the same thing.
"""

from nsvit.config.attacks import (
    AttackConfig,
    AutoAttackConfig,
    CwConfig,
    FgsmConfig,
    MiFgsmConfig,
    PatchFoolConfig,
    PgdConfig,
)
from nsvit.config.base import (
    RECIPES,
    Augmentation,
    Radius,
    Section,
    Slug,
    Triple,
    radius_value,
)
from nsvit.config.data import (
    CorruptConfig,
    DataConfig,
    MenagerieConfig,
    MenagerieCounts,
    PublishedName,
    SetConfig,
    TransferConfig,
)
from nsvit.config.evaluation import (
    ConditionConfig,
    DynamicsConfig,
    EvaluateConfig,
    InfluenceConfig,
    NullspaceConfig,
    RobustConfig,
    StatisticsConfig,
    TableConfig,
    attack_series,
    clean_on,
)
from nsvit.config.experiment import (
    Experiment,
    describe,
    load,
    refuse_repeated_keys,
    schema_text,
    validate,
)
from nsvit.config.machine import MachineConfig
from nsvit.config.method import (
    AdversarialConfig,
    ArmConfig,
    ArmKind,
    FinetuneConfig,
    MixingConfig,
    NoiseConfig,
    Precision,
    RandomNoiseConfig,
)
from nsvit.config.models import ModelConfig, PretrainConfig, local_dir
from nsvit.config.studies import ClosureConfig, LambdaConfig

__all__ = [
    "RECIPES",
    "AdversarialConfig",
    "ArmConfig",
    "ArmKind",
    "AttackConfig",
    "Augmentation",
    "AutoAttackConfig",
    "ClosureConfig",
    "ConditionConfig",
    "CorruptConfig",
    "CwConfig",
    "DataConfig",
    "DynamicsConfig",
    "EvaluateConfig",
    "Experiment",
    "FgsmConfig",
    "FinetuneConfig",
    "InfluenceConfig",
    "LambdaConfig",
    "MachineConfig",
    "MenagerieConfig",
    "MenagerieCounts",
    "MiFgsmConfig",
    "MixingConfig",
    "ModelConfig",
    "NoiseConfig",
    "NullspaceConfig",
    "PatchFoolConfig",
    "PgdConfig",
    "Precision",
    "PretrainConfig",
    "PublishedName",
    "Radius",
    "RandomNoiseConfig",
    "RobustConfig",
    "Section",
    "SetConfig",
    "Slug",
    "StatisticsConfig",
    "TableConfig",
    "TransferConfig",
    "Triple",
    "attack_series",
    "clean_on",
    "describe",
    "load",
    "local_dir",
    "radius_value",
    "refuse_repeated_keys",
    "schema_text",
    "validate",
]
