"""Evaluation: one row per picture and condition. Every number of the tables comes from these.

The settings follow METHOD.md section 6, with one difference from the paper's single-machine
evaluator: sets that list only some classes (ImageNet-A, -R) always restrict the prediction to
those classes, as the paper's cluster evaluator did.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nsvit import artifacts, runtime
from nsvit.data.layouts import ImageSet
from nsvit.inputs import keep
from nsvit.models import PixelModel, load_model
from nsvit.scoring import (
    Reading,
    Share,
    by_set,
    load_sources,
    plan_readings,
    score_records,
)
from nsvit.statistics import checks

if TYPE_CHECKING:
    from nsvit.specs import DynamicsSpec, EvaluateSpec

log = logging.getLogger(__name__)

#: The `round` of a run's final model.
FINAL = -1


def evaluate(
    model: PixelModel,
    sets: Mapping[str, ImageSet],
    spec: EvaluateSpec,
    seed: int | None = None,
    round: int = FINAL,
    sources: Mapping[str, PixelModel] | None = None,
) -> pd.DataFrame:
    """Runs a model under every condition.

    Each set is decoded once, and conditions on the same pictures share the clean pass and the
    part of the attack that does not depend on the radius. The model is left as it was.

    Args:
        model: the run's model.
        sets: the image set of every slug that the conditions name.
        spec: runs, batch size and conditions.
        seed: which of the runs this model is; the spec's first by default.
        round: value of the `round` column, -1 for the final model.
        sources: the model of every slug that a transfer attack names; loaded from the spec if
            None.

    Returns:
        A frame with `COLUMNS`, sorted by condition (as in the spec), then by picture (as in the
        set): one row per picture and condition. `correct` is bool, `confidence` and
        `label_probability` are float32 probabilities of the prediction and of the label. `norm`
        and `distance` (float32, pixels) measure what an attack changed; "" and 0 without one.

    Raises:
        NsvitError: a set does not fit the model, an attack cannot run on it, or logits are not
            finite (names both).
    """
    readings = plan_readings(sets, spec)
    sources = load_sources(spec) if sources is None else sources
    own_seed = spec.seeds[0] if seed is None else seed
    return score_records(model, readings, spec, own_seed, round, sources)


def dynamics(
    run_folder: str | Path, sets: Mapping[str, ImageSet], spec: DynamicsSpec
) -> pd.DataFrame:
    """Records of every round of a run, on subsets: what the training-dynamics figure shows.

    Nothing is chosen on these numbers. Round 0 is the starting model. The subsets are decoded
    once and kept in memory as 8-bit pixels for all rounds.

    Args:
        run_folder: a finetuning's folder, with history.json and rounds/<r>/model.safetensors.
        sets: the image set of every slug that the conditions name.
        spec: `images` pictures of every set, `corrupted_images` per corruption and severity;
            `images` of single conditions is ignored.

    Returns:
        As `evaluate`, with the rounds one after the other.

    Raises:
        NsvitError: the run is not finished, a checkpoint is damaged, or as `evaluate`.
    """
    folder = Path(run_folder)
    history = artifacts.read_json(folder / "history.json")
    artifacts.check_kind(history, "history", folder / "history.json")
    readings = []
    for slug, conditions in by_set(spec.conditions).items():
        corrupted = bool((sets[slug].frame["corruption"] != "").any())
        taken = sets[slug].take(spec.corrupted_images if corrupted else spec.images)
        readings.append(Reading(slug, keep(taken), [Share(None, conditions)]))
    sources = load_sources(spec)
    frames = []
    for row in runtime.progress(history["rounds"], "rounds"):
        number = int(row["round"])
        model = load_model(folder / "rounds" / str(number) / "model.safetensors")
        model = model.to(runtime.device())
        frames.append(score_records(model, readings, spec, spec.seeds[0], number, sources))
        log.info("dynamics %s %s: round %d", spec.model, spec.arm, number)
    return pd.concat(frames, ignore_index=True)


# --- verbs ----------------------------------------------------------------------------------


def run(
    spec: EvaluateSpec,
    checkpoints: Sequence[str | Path],
    sets: Mapping[str, ImageSet],
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `evaluate`: the records of all seeds of one arm, as parquet.

    Args:
        spec: runs, batch size and conditions.
        checkpoints: the final weights of each of the spec's seeds, in the same order.
        sets: the image set of every slug that the conditions name; sets that fit into memory
            are decoded once for all seeds.
        out: parquet of kind "records".
        inputs: files whose hashes go into the metadata.
    """
    readings = plan_readings(sets, spec, several=len(checkpoints) > 1)
    sources = load_sources(spec)
    frames = []
    for seed, checkpoint in zip(spec.seeds, checkpoints, strict=True):
        model = load_model(checkpoint).to(runtime.device())
        frames.append(score_records(model, readings, spec, seed, FINAL, sources))
        log.info("%s %s seed %d: %d rows", spec.model, spec.arm, seed, len(frames[-1]))
    _write(pd.concat(frames, ignore_index=True), spec, out, inputs)


def run_dynamics(
    spec: DynamicsSpec,
    run_folder: str | Path,
    sets: Mapping[str, ImageSet],
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `dynamics`: the records of every round of one run, as parquet."""
    frame = dynamics(run_folder, sets, spec)
    _write(frame, spec, out, inputs)


def _write(
    frame: pd.DataFrame, spec: EvaluateSpec, out: str | Path, inputs: Sequence[str | Path]
) -> None:
    sidecar = artifacts.provenance("records", spec.model_dump(mode="json"), inputs)
    sidecar["doubts"] = [str(doubt) for doubt in checks.doubts(frame)]
    for doubt in sidecar["doubts"]:
        log.warning("%s", doubt)
    texts = ("model", "arm", "condition", "set", "corruption", "attack", "radius", "sample")
    frame = frame.astype(dict.fromkeys((*texts, "norm"), "category"))
    artifacts.write_parquet(out, frame, sidecar)
