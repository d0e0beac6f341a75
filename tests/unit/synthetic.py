"""Records as `evaluate` writes them, drawn instead of computed. No torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from nsvit import artifacts, config, specs
from nsvit.statistics import ALEXNET_ERRORS

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [f"n{i:08d}" for i in range(10)]
#: Chance of being right: model, then what each arm adds.
SKILL = {
    "clean": 0.84,
    "fgsm_1": 0.74,
    "fgsm_2": 0.66,
    "fgsm_4": 0.50,
    "fgsm_8": 0.31,
    "a": 0.18,
    "c": 0.55,
    "v2": 0.73,
    "r": 0.26,
    "sketch": 0.21,
    "stylized": 0.18,
}
ARM_GAIN = {"none": 0.0, "plain": 0.005, "random": -0.01, "nullspace": 0.02}
MODEL_GAIN = {"vit_s": 0.0, "vit_b": 0.03, "vit_s_wrong_norm": -0.10}


def experiment() -> config.Experiment:
    """The default config, with few resamples."""
    raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    raw["statistics"] = {"confidence": 0.95, "resamples": 400, "seed": 0}
    return config.validate(raw)


def table_spec() -> specs.TableSpec:
    """The spec of the tables of the default config."""
    return specs.table(experiment())


def run_records(
    model: str,
    arm: str,
    seed: int,
    conditions: dict[str, config.ConditionConfig],
    images: int = 60,
    corrupted: int = 10,
    number: int = -1,
    gain: float = 0.0,
) -> pd.DataFrame:
    """The records of one run: each picture has a difficulty of its own, shared by all runs."""
    rng = np.random.default_rng([len(model), len(arm), seed, number + 1])
    parts = []
    for slug, condition in conditions.items():
        difficulty = np.random.default_rng(len(condition.set)).random(images)
        gains = ARM_GAIN.get(arm, 0.0) + MODEL_GAIN.get(model, 0.0) + gain
        skill = SKILL.get(slug, 0.5) + gains + 0.01 * rng.standard_normal()
        cells = (
            [(c, s) for c in ALEXNET_ERRORS for s in range(1, 6)]
            if condition.metric == "corruption_error"
            else [("", 0)]
        )
        count = corrupted if len(cells) > 1 else images
        for corruption, severity in cells:
            level = skill + 0.06 * (3 - severity if severity else 0)
            noise = 0.15 * rng.standard_normal(count)
            correct = difficulty[:count] + noise < level
            prefix = f"{corruption}/{severity}/" if corruption else ""
            names = [f"{prefix}{CLASSES[i % 10]}/{i:05d}.png" for i in range(count)]
            labels = np.arange(count) % 10
            parts.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "arm": arm,
                        "seed": seed,
                        "round": number,
                        "condition": slug,
                        "set": condition.set,
                        "corruption": corruption,
                        "severity": np.int8(severity),
                        "attack": condition.attack.name if condition.attack else "",
                        "radius": condition.attack.radius if condition.attack else "",
                        "sample": names,
                        "label": labels,
                        "prediction": np.where(correct, labels, (labels + 1) % 10),
                        "correct": correct,
                        "confidence": np.float32(0.7),
                        "label_probability": np.float32(0.5),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def write_records(
    folder: Path, exp: config.Experiment, images: int = 60, corrupted: int = 10
) -> list[Path]:
    """One parquet file for every run of an experiment, as `evaluate` writes them."""
    paths = []
    for model, arm, seed in exp.runs():
        frame = run_records(model, arm, seed, exp.evaluate.conditions, images, corrupted)
        path = folder / model / arm / f"seed{seed}.parquet"
        artifacts.write_parquet(path, frame, artifacts.provenance("records", {}))
        paths.append(path)
    return paths
