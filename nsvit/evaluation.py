"""Evaluation: one row per picture and condition. Every number of the tables comes from these.

The settings follow METHOD.md section 6, with one difference from the paper's single-machine
evaluator: on sets that list only some classes (ImageNet-A, -R) the prediction is restricted to
those classes, as in the paper's cluster evaluator, unless a condition says otherwise.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nsvit import artifacts, cells, runtime
from nsvit.config import RECIPES, ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.fingerprint import digest
from nsvit.inputs import identity, keep
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
from nsvit.snapshots import fingerprint, parts_of
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
    run_folder: str | Path,
    sets: Mapping[str, ImageSet],
    spec: DynamicsSpec,
    parts: str | Path | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Records of every round of a run, on subsets: what the training-dynamics figure shows.

    Nothing is chosen on these numbers. Round 0 is the starting model. The subsets are decoded
    once and kept in memory as 8-bit pixels for all rounds.

    Args:
        run_folder: a finetuning's folder, with history.json and rounds/<r>/model.safetensors.
        sets: the image set of every slug that the conditions name.
        spec: `images` pictures of every set, `corrupted_images` per corruption and severity;
            `images` of single conditions is ignored.
        parts: folder where the records of finished rounds are kept and taken from.

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
    same = [spec.model_dump(mode="json"), RECIPES["dynamics"]]
    same += [identity(reading.pictures.image_set) for reading in readings]
    same += [fingerprint(source.state_dict()) for source in sources.values()]
    for row in runtime.progress(history["rounds"], "rounds"):
        number = int(row["round"])
        checkpoint = folder / "rounds" / str(number) / "model.safetensors"
        part = None
        if parts is not None:
            part = Part(
                Path(parts) / f"{number}.parquet", digest([same, artifacts.sha256(checkpoint)])
            )
        kept = part and part.read()
        if not kept:
            model = load_model(checkpoint).to(runtime.device())
            subject = Subject.of(model, spec, spec.seeds[0], number, sources)
            kept = _whole(subject, readings, list(spec.conditions))
            if part:
                part.write(*kept)
        frames.append(kept[0])
        doubts += kept[1]
        log.info("dynamics %s %s: round %d", spec.model, spec.arm, number)
    return pd.concat(frames, ignore_index=True), doubts


@dataclass(frozen=True)
class Part:
    """The records and doubts of one round on disk, until those of all rounds are there.

    Attributes:
        path: parquet; beside it JSON that is written last and has the hash of this file.
        made_from: a fingerprint of all that they depend on.
    """

    path: Path
    made_from: str

    def write(self, frame: pd.DataFrame, doubts: Sequence[str]) -> None:
        """Keeps them."""
        head = {"kind": "part", "schema_version": artifacts.SCHEMA_VERSION}
        artifacts.write_parquet(self.path, frame, head)
        content = {**head, "made_from": self.made_from, "doubts": list(doubts)}
        content["sha256"] = artifacts.sha256(self.path)
        artifacts.write_json(self.path.with_suffix(".json"), content)

    def read(self) -> tuple[pd.DataFrame, list[str]] | None:
        """What was kept; None if there is nothing, or it is damaged or of something else."""
        if not self.path.with_suffix(".json").exists():
            return None
        try:
            content = artifacts.read_json(self.path.with_suffix(".json"))
            if content.get("made_from") != self.made_from:
                raise NsvitError("made from something else")
            if not self.path.exists() or artifacts.sha256(self.path) != content.get("sha256"):
                raise NsvitError("damaged")
            return artifacts.read_parquet(self.path, "part")[0], list(content["doubts"])
        except NsvitError as problem:
            log.warning("%s: made again: %s", self.path, problem)
            return None


def _on_all_pictures(conditions: Mapping[str, ConditionConfig]) -> dict[str, ConditionConfig]:
    return {slug: one.model_copy(update={"images": None}) for slug, one in conditions.items()}


def _whole(
    subject: Subject, readings: Sequence[Reading], order: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The records of a model in memory, conditions in order, and the doubts about it."""
    refuse_unfit(subject, readings)
    found: dict[str, list[pd.DataFrame]] = {slug: [] for slug in order}
    doubts: list[str] = []
    with subject.frozen():
        for reading in readings:
            looked = examine_reading(subject, reading, reading.conditions)
            doubts += dict.fromkeys(doubt for own in looked.values() for doubt in own)
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
    """The verb `dynamics`: the records of every round of one run, as parquet.

    Rounds that are finished are kept beside `out` until all are: interrupted, it goes on.
    """
    frame, doubts = dynamics(run_folder, sets, spec, parts_of(out))
    compared = [str(doubt) for doubt in checks.doubts(frame)]
    for doubt in compared:
        log.warning("%s", doubt)
    sidecar = artifacts.provenance("records", spec.model_dump(mode="json"), inputs)
    sidecar["doubts"] = [*doubts, *compared]
    texts = [name for name, kind in cells.TYPES.items() if kind == "text"]
    artifacts.write_parquet(out, frame.astype(dict.fromkeys(texts, "category")), sidecar)
    shutil.rmtree(parts_of(out), ignore_errors=True)
