"""What claims are tested on: records, histories and studies, each of which may be missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsvit import artifacts, statistics
from nsvit.errors import NsvitError
from nsvit.records import Paths, read_records, read_table_scores, usable
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
        lost: what of the records had to be left out, see `records.usable`.
    """

    spec: TableSpec
    records: Resampled | str
    histories: list[dict[str, Any]] | str
    studies: dict[str, pd.DataFrame | str]
    doubts: tuple[Doubt, ...] = ()
    lost: tuple[str, ...] = ()


def gather(
    spec: TableSpec, records: Files, histories: Files, influences: Files, lambdas: Files
) -> Evidence:
    """Reads what there is. What is damaged is named in the log and counts as missing."""
    found = _try(partial(usable, records), "records")
    resampled: Resampled | str
    if isinstance(found, str):
        resampled = found
    else:
        resampled = _try(partial(_resampled, found.paths, spec), "records")
    return Evidence(
        spec,
        resampled,
        _try(partial(_histories, histories), "histories"),
        {
            "influence": _try(partial(_study, influences, "influence"), "influence study"),
            "lambda": _try(partial(_study, lambdas, "lambda"), "lambda study"),
        },
        *(() if isinstance(found, str) else (found.doubts, found.lost)),
    )


def _try(read: Callable[[], T], name: str) -> T | str:
    try:
        return read()
    except NsvitError as error:
        log.warning("claims without %s: %s", name, error)
        return str(error)


def _resampled(paths: Paths, spec: TableSpec) -> Resampled:
    return statistics.resample(read_table_scores(paths, spec), spec.statistics)


def _histories(paths: Files) -> list[dict[str, Any]]:
    found = [artifacts.read_json(path) for path in paths]
    for path, history in zip(paths, found, strict=True):
        artifacts.check_kind(history, "history", path)
    return found


def _study(paths: Files, kind: str) -> pd.DataFrame:
    if not paths:
        raise NsvitError(f"the configuration has no {kind} study")
    return read_records(paths, STUDIES[kind], kind=kind)
