"""What claims are tested on: records, histories and studies, each of which may be missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsvit import artifacts, scores, statistics
from nsvit.errors import NsvitError
from nsvit.records import read_records, read_table_scores, readable
from nsvit.specs import TableSpec
from nsvit.statistics import Resampled
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Files = Sequence[str | Path]
T = TypeVar("T")

#: What is read of each study; `draw` numbers noises learned alike from different starts.
STUDIES = {
    "influence": ("model", "block", "draw", "noise", "sample", "agree"),
    "lambda": ("model", "lambda", "draw", "noise", "sample", "agree", "norm"),
}


@dataclass(frozen=True)
class Evidence:
    """Everything there is; a text in place of something says why it is missing.

    Attributes:
        spec: models, arms, conditions and how to make intervals.
        records: of all finished runs, resampled.
        histories: history.json of every run.
        studies: frames of kind "influence" and "lambda", one row per picture.
        doubts: of the records.
        lost: what had to be left out, see `records.usable` and `records.readable`.
    """

    spec: TableSpec
    records: Resampled | str
    histories: list[dict[str, Any]] | str
    studies: dict[str, pd.DataFrame | str]
    doubts: tuple[Doubt, ...] = ()
    lost: tuple[str, ...] = ()


def gather(
    spec: TableSpec, path: str | Path, histories: Files, influences: Files, lambdas: Files
) -> Evidence:
    """Reads what there is, of records their scores at `path`; what is damaged counts as missing.

    All of it is named in the log.
    """
    found = _try(partial(scores.read, path), "records")
    resampled: Resampled | str
    if isinstance(found, str):
        resampled = found
    else:
        resampled = _try(partial(_resampled, found.frame, spec), "records")
    doubts, lost = ((), []) if isinstance(found, str) else (found.doubts, list(found.lost))
    return Evidence(
        spec,
        resampled,
        _try(partial(_histories, histories, lost), "histories"),
        {
            "influence": _try(partial(_study, influences, "influence", lost), "influence study"),
            "lambda": _try(partial(_study, lambdas, "lambda", lost), "lambda study"),
        },
        doubts,
        tuple(lost),
    )


def _try(read: Callable[[], T], name: str) -> T | str:
    try:
        return read()
    except NsvitError as error:
        log.warning("claims without %s: %s", name, error)
        return str(error)


def _resampled(frame: pd.DataFrame, spec: TableSpec) -> Resampled:
    return statistics.resample(read_table_scores(frame, spec), spec.statistics)


def _histories(paths: Files, lost: list[str]) -> list[dict[str, Any]]:
    def read(path: str | Path) -> dict[str, Any]:
        history = artifacts.read_json(path)
        artifacts.check_kind(history, "history", path)
        return history

    _, found, bad = readable(paths, read)
    lost += bad
    return found


def _study(paths: Files, kind: str, lost: list[str]) -> pd.DataFrame:
    if not paths:
        raise NsvitError(f"the configuration has no {kind} study")
    kept, _, bad = readable(paths, lambda path: read_records([path], STUDIES[kind], kind=kind))
    lost += bad
    return read_records(kept, STUDIES[kind], kind=kind)
