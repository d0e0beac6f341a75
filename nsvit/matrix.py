"""The verb `evaluate`: one file of records for every run and condition, and a manifest of them.

What is there and was made from the same things is kept, so that a new condition computes only
its own cells, and an interrupted job continues where it stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nsvit import artifacts, cells, distributed, runtime
from nsvit.config import RECIPES, ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.fingerprint import code_digest, digest
from nsvit.inputs import keep
from nsvit.models import PixelModel, load_model, model_spec
from nsvit.readings import (
    FINAL,
    Reading,
    Subject,
    examine_reading,
    load_sources,
    plan_readings,
    refuse_unfit,
    source_of,
)
from nsvit.scoring import score_blocks

if TYPE_CHECKING:
    from nsvit.specs import EvaluateSpec

log = logging.getLogger(__name__)


def run(
    spec: EvaluateSpec,
    checkpoints: Sequence[str | Path],
    sets: Mapping[str, ImageSet],
    out: str | Path,
    indices: Mapping[str, str | Path] | None = None,
) -> None:
    """The verb `evaluate`: one cell for every seed and condition, and the manifest of them.

    Cells (`seed<k>/<condition>.parquet` beside the manifest) that are there already and were made
    from the same things are kept; of the others, blocks that are finished are kept. Everything
    that cannot run is refused before the first picture, and before anything is written.

    Args:
        spec: runs, batch size and conditions.
        checkpoints: the final weights of each of the spec's seeds, in the same order.
        sets: the image set of every slug that the conditions name; what several seeds read is
            decoded once if it fits into memory.
        out: the manifest.
        indices: the index file of each set, whose hash goes into the provenance.

    Raises:
        NsvitError: as `evaluate`.
    """
    out, indices = Path(out), indices or {}
    distributed.start()
    readings = plan_readings(sets, spec.conditions)
    runs = _runs(spec, checkpoints)
    for one in runs:
        refuse_unfit(one.subject, readings)
    paths: dict[tuple[int, str], Path] = {}
    ends: list[Callable[[], None]] = []
    dealer = distributed.dealt(itertools.count())
    for reading in readings:
        todo: list[tuple[_Run, dict[str, cells.Cell]]] = []
        pictures = _pictures_digest(reading.pictures.image_set)
        for one in runs:
            every = _cells(out.parent, reading, one, pictures)
            paths |= {(one.subject.seed, slug): cell.path for slug, cell in every.items()}
            missing = distributed.agreed(partial(_missing, every))
            if missing:
                todo.append((one, {slug: every[slug] for slug in missing}))
        if len(todo) > 1:
            reading = replace(reading, pictures=keep(reading.pictures.image_set))
        index = [indices[reading.slug]] if reading.slug in indices else []
        for one, wanted in todo:
            inputs = [one.checkpoint, *index]
            ends += _compute(one.subject, reading, wanted, spec, inputs, dealer)
    distributed.barrier()
    for end in ends:
        end()
    distributed.barrier()
    if not distributed.is_main():
        return
    ordered = {(s, slug): paths[s, slug] for s in spec.seeds for slug in spec.conditions}
    inputs = [*checkpoints, *indices.values()]
    for doubt in cells.write_manifest(out, spec.model_dump(mode="json"), ordered, inputs):
        log.warning("%s", doubt)


def _missing(every: Mapping[str, cells.Cell]) -> list[str]:
    return [slug for slug, cell in every.items() if not cell.is_there()]


@dataclass(frozen=True)
class _Run:
    """One model of a job: its file, and hashes of it and of its sources."""

    checkpoint: Path
    subject: Subject
    model: str
    sources: Mapping[str, str]


def _runs(spec: EvaluateSpec, checkpoints: Sequence[str | Path]) -> list[_Run]:
    sources = load_sources(spec)
    hashes = {slug: _model_digest(model) for slug, model in sources.items()}
    found = []
    for seed, checkpoint in zip(spec.seeds, checkpoints, strict=True):
        model = load_model(checkpoint).to(runtime.device())
        subject = Subject.of(model, spec, seed, FINAL, sources)
        found.append(_Run(Path(checkpoint), subject, _model_digest(model), hashes))
    return found


def _cells(folder: Path, reading: Reading, run: _Run, pictures: str) -> dict[str, cells.Cell]:
    """The cells of one model on one reading."""
    subject = run.subject
    blocks = [len(rows) for rows in reading.blocks(subject.batch_size)]
    batch_size = reading.batch_size(subject.batch_size)
    return {
        slug: cells.Cell(
            folder / f"seed{subject.seed}" / f"{slug}.parquet",
            _made_from(slug, condition, run, pictures, [batch_size, blocks]),
            blocks,
        )
        for slug, condition in reading.conditions.items()
    }


def _compute(
    subject: Subject,
    reading: Reading,
    wanted: Mapping[str, cells.Cell],
    spec: EvaluateSpec,
    inputs: Sequence[str | Path],
    dealer: Iterator[tuple[int, bool]],
) -> list[Callable[[], None]]:
    """The cells of one model on one reading, block by block from where they stand.

    Blocks are dealt out to the processes, so that batches are those of a single one.

    Returns:
        What is left to do when every process has put its blocks: the ends of cells whose other
        blocks may be another process's.
    """
    missing = distributed.agreed(lambda: {s: sorted(c.missing()) for s, c in wanted.items()})
    count = len(reading.blocks(spec.batch_size))
    todo = [[slug for slug in wanted if number in missing[slug]] for number in range(count)]
    for slugs in todo:
        if slugs and not next(dealer)[1]:
            slugs.clear()
    sidecars = _sidecars(subject, reading, wanted, spec, inputs) if todo[-1] else {}
    ends: list[Callable[[], None]] = []
    runtime.stage(f"{spec.model} {spec.arm} seed {subject.seed}")
    with subject.frozen():
        for number, slug, frame in score_blocks(subject, reading, todo):
            put = partial(wanted[slug].put, number, frame, sidecars.get(slug, {}))
            if distributed.count() > 1 and 0 < number == count - 1:
                ends.append(put)
            else:
                put()
    log.info("%s %s seed %d: %s", spec.model, spec.arm, subject.seed, ", ".join(wanted))
    return ends


def _sidecars(
    subject: Subject,
    reading: Reading,
    wanted: Mapping[str, cells.Cell],
    spec: EvaluateSpec,
    inputs: Sequence[str | Path],
) -> dict[str, dict[str, Any]]:
    """The provenance of each cell, with what makes it doubtful."""
    sidecars = {}
    doubts = examine_reading(subject, reading, wanted)
    for slug in wanted:
        own = _spec_of_cell(spec, subject.seed, slug).model_dump(mode="json")
        sidecars[slug] = artifacts.provenance("records", own, inputs, subject.seed)
        sidecars[slug]["doubts"] = doubts.get(slug, [])
        sidecars[slug]["warnings"] = subject.model.warnings
    return sidecars


def _spec_of_cell(spec: EvaluateSpec, seed: int, slug: str) -> EvaluateSpec:
    """The spec of a job that makes one cell only."""
    condition = spec.conditions[slug]
    own = {k: v for k, v in spec.sources.items() if k == source_of(condition)}
    return spec.model_copy(
        update={"seeds": (seed,), "conditions": {slug: condition}, "sources": own}
    )


# --- what cells are made from ---------------------------------------------------------------

#: What computes clean records; attacks are beside it.
_CODE = (
    "scoring.py",
    "readings.py",
    "models.py",
    "inputs.py",
    "data/loading.py",
    "data/decoded.py",
    "data/pictures.py",
)
_ATTACK_CODE = ("attacks", "runtime.py")

#: Packages that an attack calls; torch and timm are in every cell.
_ATTACK_PACKAGES = {"autoattack": ("pyautoattack",)}


def _made_from(
    slug: str, condition: ConditionConfig, run: _Run, pictures: str, batches: Sequence[Any]
) -> str:
    """A fingerprint of everything that a condition's records depend on, and of nothing else."""
    subject, attack = run.subject, condition.attack
    packages = ("torch", "timm", *(_ATTACK_PACKAGES.get(attack.name, ()) if attack else ()))
    settings = {"set", "attack", "images", "restricted"}
    return digest(
        {
            "columns": [subject.name, subject.arm, subject.seed, subject.round, slug],
            "condition": condition.model_dump(mode="json", include=settings),
            "batches": batches,
            "pictures": pictures,
            "model": run.model,
            "source": run.sources.get(source_of(condition) or ""),
            "recipe": RECIPES["evaluate"],
            "code": code_digest((*_CODE, *(_ATTACK_CODE if attack else ()))),
            "packages": {name: version(name) for name in packages},
            "device": subject.model.mean.device.type,
            "schema": artifacts.SCHEMA_VERSION,
        }
    )


def _pictures_digest(image_set: ImageSet) -> str:
    frame = image_set.frame
    found = hashlib.sha256()
    for name in ("path", "corruption"):
        found.update("\n".join(frame[name]).encode() + b"\0")
    for name in ("label", "severity"):
        found.update(np.ascontiguousarray(frame[name], dtype=np.int64).tobytes())
    info: list[Any] = [image_set.name, image_set.content, image_set.classes, image_set.allowed]
    return digest([found.hexdigest(), *info, image_set.resize, image_set.crop])


def _model_digest(model: PixelModel) -> str:
    """A hash of weights, architecture, and mean and std."""
    found = hashlib.sha256(digest(model_spec(model)).encode())
    for name, value in sorted(model.net.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()
