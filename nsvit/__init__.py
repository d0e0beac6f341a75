"""Approximate nullspace augmented finetuning for robust vision transformers (NS-ViT).

The public API; torch is loaded on first use, never by ``import nsvit``.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "NsvitError": "errors",
    "NoiseConfig": "config",
    "FinetuneConfig": "config",
    "PixelModel": "models",
    "load_model": "models",
    "inject": "models",
    "NullspaceBasis": "nullspace",
    "nullspace_basis": "nullspace",
    "Noise": "noise",
    "learn_noise": "noise",
    "random_noise": "noise",
    "load_noise": "noise",
    "ThreatModel": "attacks",
    "AttackResult": "attacks",
    "attack": "attacks",
    "ImageSet": "data.layouts",
    "open_set": "data.layouts",
    "split_dev": "data.layouts",
    "FinetuneSpec": "specs",
    "EvaluateSpec": "specs",
    "finetune": "finetuning",
    "evaluate": "evaluation",
    "mean_corruption_error": "statistics",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nsvit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nsvit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
