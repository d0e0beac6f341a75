"""Records reduced to scores, once for all tables and figures that are made of them. No torch.

The default run has some 450 files of records, and eight tables and figures that each want a score
for every picture of them. What cannot be used is left out here, and named below every table that
it concerns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsvit import artifacts
from nsvit.errors import NsvitError
from nsvit.records import TEXTS, log_lost, read_scores, usable
from nsvit.specs import TableSpec
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    import pandas as pd

#: A model and an arm.
Pair = tuple[str, str]


@dataclass(frozen=True)
class Scores:
    """The scores of some runs, and what is to be said of them.

    Attributes:
        frame: one row per finished run, condition and picture: see `statistics.picture_scores`.
        doubts: of the records.
        lost: a text for everything that was left out; see `records.Usable`.
    """

    frame: pd.DataFrame
    doubts: tuple[Doubt, ...] = ()
    lost: tuple[str, ...] = ()


def write(records: Sequence[str | Path], spec: TableSpec, out: str | Path) -> None:
    """The verb `scores`: everything that can be used of some records, as parquet.

    Args:
        records: manifests `records/<model>/<arm>/*.json`, or files of records.
        spec: conditions, and which pairs of model and arm there are.
        out: parquet of kind "scores". Its metadata have doubts and losses, each with the model
            and arm of the folder that it was found in; "" where a folder has other names.

    Raises:
        NsvitError: nothing can be used.
    """
    pairs = {(model, arm) for model in spec.models for arm in spec.arms_of(model)}
    folders: dict[Path, list[Path]] = {}
    for path in map(Path, records):
        folders.setdefault(path.parent, []).append(path)
    parts: list[pd.DataFrame] = []
    doubts: list[list[str]] = []
    lost: list[list[str]] = []
    for folder, own in folders.items():
        pair = (folder.parent.name, folder.name)
        named = pair if pair in pairs else ("", "")
        try:
            found = usable(own)
        except NsvitError as error:  # of this folder, and in the log; others may have something
            lost.append([*named, str(error)])
            continue
        lost += [[*named, text] for text in found.lost]
        try:
            parts.append(read_scores(found.paths, normalised=spec.normalised))
        except NsvitError as error:  # cells of a run that contradict each other
            log_lost([str(error)])
            lost.append([*named, str(error)])
            continue
        doubts += [[*named, str(doubt)] for doubt in found.doubts]
    if not parts:
        raise NsvitError(lost[0][2] if lost else "no records were given")
    frame = _joined(parts)
    sidecar = artifacts.provenance("scores", spec.model_dump(mode="json"))
    artifacts.write_parquet(out, frame, {**sidecar, "doubted": doubts, "lost": lost})


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores of several folders as one frame, each text with one number in all of them."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    texts = list(TEXTS)
    whole = pd.concat([part.drop(columns=texts) for part in parts], ignore_index=True)
    named = {
        name: union_categoricals([part[name] for part in parts], sort_categories=True)
        for name in texts
    }
    return whole.assign(**named)[list(parts[0].columns)]


def read(path: str | Path, runs: Collection[Pair] | None = None) -> Scores:
    """What `write` wrote, with the doubts and losses of some pairs of model and arm alone.

    Args:
        path: file of `write`.
        runs: the pairs that doubts and losses are told of; of all if None. The scores are of all,
            since every arm says how much seeds differ.

    Raises:
        NsvitError: missing, damaged, or everything of these runs was left out.
    """
    frame, sidecar = artifacts.read_parquet(path, "scores")
    for name in TEXTS:  # sorted, as `statistics.resample` needs; parquet keeps no order
        frame[name] = frame[name].cat.set_categories(sorted(frame[name].cat.categories))
    doubts, lost = (
        tuple(dict.fromkeys(text for *pair, text in sidecar[key] if _concerns(pair, runs)))
        for key in ("doubted", "lost")
    )
    log_lost(lost)
    if lost and runs is not None and not _has_any(frame, runs):
        raise NsvitError(lost[0])
    return Scores(frame, tuple(map(Doubt.parse, doubts)), lost)


def _concerns(pair: Sequence[str], runs: Collection[Pair] | None) -> bool:
    return runs is None or pair[0] == "" or tuple(pair) in runs


def _has_any(frame: pd.DataFrame, runs: Collection[Pair]) -> bool:
    there = frame[["model", "arm"]].drop_duplicates()
    return any(pair in runs for pair in there.itertuples(index=False, name=None))
