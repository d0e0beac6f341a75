"""Evaluation: one row per picture and condition. Every number of the tables comes from these.

The settings follow METHOD.md section 6, with one difference from the paper's single-machine
evaluator: on sets that list only some classes (ImageNet-A, -R) the prediction is restricted to
those classes, as in the paper's cluster evaluator, unless a condition says otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nsvit import artifacts, cells, runtime
from nsvit.config import ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.inputs import keep
from nsvit.models import PixelModel, load_model
from nsvit.readings import (
    FINAL,
    Reading,
    Subject,
    examine_reading,
    load_sources,
    plan_readings,
    refuse_unfit,
)
from nsvit.scoring import score_blocks
from nsvit.statistics import checks

if TYPE_CHECKING:
    from nsvit.specs import DynamicsSpec, EvaluateSpec

log = logging.getLogger(__name__)


def evaluate(
    model: PixelModel,
    sets: Mapping[str, ImageSet],
    spec: EvaluateSpec,
    seed: int | None = None,
    round: int = FINAL,
    sources: Mapping[str, PixelModel] | None = None,
) -> pd.DataFrame:
    """Runs a model under every condition.

    Conditions on the same pictures share decoding, the clean pass and the part of the attack that
    does not depend on the radius; the rows of a condition are the same alone. The model is left as
    it was.

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
    sources = load_sources(spec) if sources is None else sources
    own_seed = spec.seeds[0] if seed is None else seed
    subject = Subject.of(model, spec, own_seed, round, sources)
    return _whole(subject, plan_readings(sets, spec.conditions), list(spec.conditions))[0]


def dynamics(
    run_folder: str | Path, sets: Mapping[str, ImageSet], spec: DynamicsSpec
) -> tuple[pd.DataFrame, list[str]]:
    """Records of every round of a run, on subsets: what the training-dynamics figure shows.

    Nothing is chosen on these numbers. Round 0 is the starting model. The subsets are decoded
    once and kept in memory as 8-bit pixels for all rounds.

    Args:
        run_folder: a finetuning's folder, with history.json and rounds/<r>/model.safetensors.
        sets: the image set of every slug that the conditions name.
        spec: `images` pictures of every set, `corrupted_images` per corruption and severity;
            `images` of single conditions is ignored.

    Returns:
        As `evaluate`, with the rounds one after the other, and the doubts about them.

    Raises:
        NsvitError: the run is not finished, a checkpoint is damaged, or as `evaluate`.
    """
    folder = Path(run_folder)
    history = artifacts.read_json(folder / "history.json")
    artifacts.check_kind(history, "history", folder / "history.json")
    readings = []
    for reading in plan_readings(sets, _on_all_pictures(spec.conditions)):
        image_set = reading.pictures.image_set
        corrupted = bool((image_set.frame["corruption"] != "").any())
        taken = image_set.take(spec.corrupted_images if corrupted else spec.images)
        readings.append(replace(reading, pictures=keep(taken)))
    sources = load_sources(spec)
    frames, doubts = [], []
    for row in runtime.progress(history["rounds"], "rounds"):
        number = int(row["round"])
        model = load_model(folder / "rounds" / str(number) / "model.safetensors")
        subject = Subject.of(model.to(runtime.device()), spec, spec.seeds[0], number, sources)
        frame, found = _whole(subject, readings, list(spec.conditions))
        frames.append(frame)
        doubts += found
        log.info("dynamics %s %s: round %d", spec.model, spec.arm, number)
    return pd.concat(frames, ignore_index=True), doubts


def _on_all_pictures(conditions: Mapping[str, ConditionConfig]) -> dict[str, ConditionConfig]:
    return {slug: one.model_copy(update={"images": None}) for slug, one in conditions.items()}


def _whole(
    subject: Subject, readings: Sequence[Reading], order: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The records of a model in memory, conditions in order, and the doubts about it."""
    refuse_unfit(subject, readings)
    found: dict[str, list[pd.DataFrame]] = {slug: [] for slug in order}
    doubts: list[str] = []
    for reading in readings:
        looked = examine_reading(subject, reading, reading.conditions)
        doubts += dict.fromkeys(doubt for own in looked.values() for doubt in own)
        with subject.frozen():
            for _, slug, frame in score_blocks(subject, reading):
                found[slug].append(frame)
    for doubt in doubts:
        log.warning("%s", doubt)
    parts = [frame for frames in found.values() for frame in frames]
    return pd.concat(parts, ignore_index=True), doubts


# --- the verb `dynamics` --------------------------------------------------------------------


def run_dynamics(
    spec: DynamicsSpec,
    run_folder: str | Path,
    sets: Mapping[str, ImageSet],
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `dynamics`: the records of every round of one run, as parquet."""
    frame, doubts = dynamics(run_folder, sets, spec)
    compared = [str(doubt) for doubt in checks.doubts(frame)]
    for doubt in compared:
        log.warning("%s", doubt)
    sidecar = artifacts.provenance("records", spec.model_dump(mode="json"), inputs)
    sidecar["doubts"] = [*doubts, *compared]
    texts = [name for name, kind in cells.TYPES.items() if kind == "text"]
    artifacts.write_parquet(out, frame.astype(dict.fromkeys(texts, "category")), sidecar)
