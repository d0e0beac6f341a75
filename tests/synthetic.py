"""Records as `evaluate` writes them, drawn instead of computed. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from nsvit import artifacts, config, scores, specs
from nsvit.statistics import ALEXNET_ERRORS

ROOT = Path(__file__).resolve().parents[1]
CLASSES = [f"n{i:08d}" for i in range(10)]
#: Chance of being right: model, then what each arm adds.
SKILL = {
    "clean": 0.84,
    "fgsm_1": 0.74,
    "fgsm_2": 0.66,
    "fgsm_4": 0.50,
    "fgsm_8": 0.31,
    "damagenet": 0.62,
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
    """The default config with a matrix of its own, which does not change with the default's.

    Four arms with all seeds for every model, and the conditions of `SKILL` under every one.
    """
    raw = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for model in raw["models"].values():
        model.pop("max_seeds", None)
    raw["arms"] = {slug: raw["arms"][slug] for slug in ARM_GAIN}
    for slug, arm in raw["arms"].items():
        arm.pop("models", None)
        arm["seeds"] = [0] if slug == "none" else [0, 1, 2]
    found = raw["evaluate"]["conditions"]
    raw["evaluate"]["conditions"] = {slug: found[slug] for slug in SKILL if slug in found}
    for condition in raw["evaluate"]["conditions"].values():
        for key in ("models", "arms", "images"):
            condition.pop(key, None)
    for key in ("robust", "sources"):
        raw["evaluate"].pop(key, None)
    raw["tables"] = {
        "table1": {"title": "Table 1: accuracy per condition"},
        "control": {
            "title": "Control",
            "models": ["vit_s", "vit_s_wrong_norm"],
            "against": ["none", "plain"],
        },
    }
    raw["statistics"] = {"confidence": 0.95, "resamples": 200, "seed": 0}
    return config.validate(raw)


def table_spec() -> specs.TableSpec:
    """The spec of the tables of the default config."""
    return specs.table(experiment())


def accuracy_spec(
    table: str = "table1", exp: config.Experiment | None = None
) -> specs.AccuracySpec:
    """The spec of one table of accuracies of the default config."""
    return specs.accuracy(exp or experiment(), table)


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
        broken = condition.is_error
        count = corrupted if broken else images
        types, levels = (list(ALEXNET_ERRORS), 5) if broken else ([""], 1)
        shape = (len(types), levels, count)
        gains = ARM_GAIN.get(arm, 0.0) + MODEL_GAIN.get(model, 0.0) + gain
        skill = SKILL.get(slug, 0.5) + gains + 0.01 * rng.standard_normal()
        severity = np.arange(1, 6) if broken else np.zeros(1)
        level = skill + (0.06 * (3 - severity)[None, :, None] if broken else 0.0)
        difficulty = np.random.default_rng(len(condition.set)).random(images)[:count]
        correct = difficulty + 0.15 * rng.standard_normal(shape) < level
        t, s, i = (axis.ravel() for axis in np.indices(shape))
        labels = i % 10
        names = np.array(types, dtype=object)[t]
        samples = [
            (f"{name}/{int(k)}/" if name else "") + f"{CLASSES[j % 10]}/{j:05d}.png"
            for name, k, j in zip(names, severity[s], i, strict=True)
        ]
        columns = {
            "model": model,
            "arm": arm,
            "seed": seed,
            "round": number,
            "condition": slug,
            "set": condition.set,
            "corruption": names.astype(str),
            "severity": severity[s].astype(np.int8),
            "attack": condition.attack.name if condition.attack else "",
            "radius": condition.attack.radius if condition.attack else "",
            "sample": samples,
            "label": labels,
            "prediction": np.where(correct.ravel(), labels, (labels + 1) % 10),
            "correct": correct.ravel(),
            "confidence": np.float32(0.7),
            "label_probability": np.float32(0.5),
            "norm": "linf" if condition.attack else "",
            "distance": np.float32(0.5),
        }
        parts.append(pd.DataFrame(columns))
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


def write_scores(records: Sequence[Path], folder: Path) -> Path:
    """The scores of some records, as the rule `scores` writes them."""
    scores.write(records, table_spec(), folder / "scores.parquet")
    return folder / "scores.parquet"


def influence_frame(model: str, blocks: int = 4, draws: int = 3, images: int = 40) -> pd.DataFrame:
    """What `influence` writes: learned noise moves little, its controls much, deep blocks less."""
    parts = []
    for block in range(blocks):
        for draw in range(draws):
            rng = np.random.default_rng([len(model), block, draw])
            norm = float(60 + 40 * block + 5 * rng.random())
            for noise, keep in [("learned", 0.92), ("permuted", 0.45), ("gaussian", 0.5)]:
                agree = rng.random(images) < keep + (1 - keep) * block / blocks
                scale = (1 - keep) * 10 / (1 + block)
                parts.append(
                    pd.DataFrame(
                        {
                            "model": model,
                            "block": block,
                            "draw": draw,
                            "noise": noise,
                            "sample": [f"{CLASSES[i % 10]}/{i:05d}.png" for i in range(images)],
                            "agree": agree,
                            "logit_distance": scale * rng.gamma(4.0, 0.25, images),
                            "probability_distance": np.where(agree, 0.02, 0.9) * rng.random(images),
                            "norm": norm,
                            "limit": 3.0,
                            "steps": 0 if block == blocks - 1 else 90 - 20 * block,
                            "epsilon_met": not (block == 0 and draw == 1),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def history(model: str, arm: str, seed: int, rounds: int = 8, steps: int = 20) -> dict[str, object]:
    """What `finetune` writes as history.json."""
    noisy = arm in ("random", "nullspace")
    trained = 0 if arm == "none" else rounds
    rows = [
        {
            "round": r,
            "step": r * steps,
            "dev_accuracy": 0.84 + 0.002 * r,
            "dev_loss": 0.5,
            "loss_clean": 0.4 if r else None,
            "loss_noisy": 0.6 if r else None,
            "noise_norm": (90.0 if r == 1 else 60.0 + 3 * r) if r and noisy else None,
            "noise_steps": 80 + r if r and noisy else None,
            "noise_distance": 0.029 if r and noisy else None,
            "epsilon_met": r != 3 if r and noisy else None,
            "noise_seconds": 3.25 if r and noisy else 0.0 if r else None,
            "train_seconds": 1.5 if r else None,
        }
        for r in range(trained + 1)
    ]
    settings = config.FinetuneConfig(rounds=trained, steps=steps).model_dump(mode="json")
    spec = {"model": model, "arm": arm, "seed": seed, "kind": arm, "finetune": settings}
    content = artifacts.provenance("history", spec, seed=seed)
    return {**content, "rounds": rows, "selected": trained}


def dynamics_records(
    exp: config.Experiment, model: str, rounds: int = 8, images: int = 60, corrupted: int = 4
) -> pd.DataFrame:
    """What `dynamics` writes: every round of one run, improving quickly at first."""
    spec = specs.dynamics(exp, model, "nullspace")
    parts = [
        run_records(
            model,
            "nullspace",
            0,
            dict(spec.conditions),
            images,
            corrupted,
            number,
            0.08 * (1 - 0.5**number),
        )
        for number in range(rounds + 1)
    ]
    return pd.concat(parts, ignore_index=True)


def nullspace_example(size: int = 48) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and sidecar of a nullspace artefact: a disc on a gradient, with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.stack([0.3 + 0.5 * y, 0.6 - 0.3 * y, 0.8 - 0.4 * x])
    image[:, (x - 0.5) ** 2 + (y - 0.45) ** 2 < 0.06] = np.array([[0.9], [0.5], [0.1]])
    noise = 0.12 * np.tile(rng.standard_normal((3, 8, 8)), (1, size // 8, size // 8))
    other = 0.12 * rng.standard_normal((3, size, size))
    arrays = {
        "basis": np.eye(192, 128),
        "example_image": image,
        "example_noise": noise,
        "example_noisy": np.clip(image + noise, 0, 1),
        "example_random_noisy": np.clip(image + other, 0, 1),
        "example_predictions": np.array([0, 0, 2]),
        "example_confidences": np.array([0.981, 0.981, 0.634]),
    }
    arrays = {k: v.astype(np.float32) if v.dtype == float else v for k, v in arrays.items()}
    metrics = {
        "rank": 64,
        "nullity": 128,
        "images": 64,
        "nullspace_max_logit_difference": 3.1e-6,
        "random_max_logit_difference": 7.42,
    }
    return arrays, {"kind": "nullspace", "spec": {"model": "vit_s"}, "metrics": metrics}


def lambda_frame(
    model: str, lambdas: tuple[float, ...] = (0.01, 0.3, 2.0), draws: int = 1, images: int = 40
) -> pd.DataFrame:
    """What `lambda_study` writes: the norm grows with lambda, permuted noise moves much more."""
    parts = []
    for weight in lambdas:
        for draw in range(draws):
            rng = np.random.default_rng([len(model), draw, int(100 * weight)])
            norm = float(10 + 20 * weight + draw)
            for noise, scale in (("learned", 0.02), ("permuted", 0.1)):
                moved = rng.random(images) * scale * (1 + weight)
                columns = _study_columns(moved, model, weight, draw, noise, norm)
                parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def closure_frame(model: str, images: int = 30) -> pd.DataFrame:
    """What `lambda_study` writes beside it: multiples of two noises, mixtures and the sum."""
    rng = np.random.default_rng(len(model))
    built = [("scaled", factor, draw) for factor in (-1.0, 1.0, 2.0) for draw in (0, 1)]
    built += [("combined", 0.5, -1), ("added", 1.0, -1)]
    parts = []
    for kind, factor, draw in built:
        for noise, scale in (("learned", 0.02), ("permuted", 0.1)):
            moved = rng.random(images) * scale * (1 + abs(factor))
            norm = 10.0 * abs(factor)
            columns = _study_columns(moved, model, 0.3, draw, noise, norm)
            parts.append(pd.DataFrame({**columns, "kind": kind, "factor": factor}))
    return pd.concat(parts, ignore_index=True)


def _study_columns(
    moved: np.ndarray, model: str, weight: float, draw: int, noise: str, norm: float
) -> dict[str, object]:
    return {
        "model": model,
        "lambda": weight,
        "draw": draw,
        "noise": noise,
        "sample": [f"{CLASSES[i % 10]}/{i:05d}.png" for i in range(len(moved))],
        "agree": moved < 0.1,
        "logit_distance": 10 * moved,
        "probability_distance": 2 * moved**2,
        "confidence_error": moved**2,
        "norm": norm,
    }
