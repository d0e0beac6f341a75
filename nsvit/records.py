"""Records from files, with only the columns that tables need."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsvit import artifacts
from nsvit.errors import NsvitError
from nsvit.statistics import add_robust, picture_scores

if TYPE_CHECKING:
    import pandas as pd

    from nsvit.specs import TableSpec

#: What every table and figure is made from.
COLUMNS = (
    "model",
    "arm",
    "seed",
    "round",
    "condition",
    "set",
    "corruption",
    "severity",
    "sample",
    "correct",
)


def read_records(
    paths: Sequence[str | Path], columns: Sequence[str] = COLUMNS, kind: str = "records"
) -> pd.DataFrame:
    """The records of several files as one frame; texts are pandas categories.

    Args:
        paths: parquet files of that kind.
        columns: the columns to read.
        kind: "records" or another kind of parquet file.

    Raises:
        NsvitError: a file is missing, half-written, of another kind, or there is none.
    """
    import pandas as pd
    from pandas.api.types import union_categoricals

    frames = [artifacts.read_parquet(path, kind, list(columns))[0] for path in paths]
    if not frames:
        raise NsvitError(f"no {kind} files were given")
    joined = {}
    for name in columns:
        series = [frame[name] for frame in frames]
        if all(isinstance(s.dtype, pd.CategoricalDtype) for s in series):
            joined[name] = pd.Series(union_categoricals(series))
        else:
            joined[name] = pd.concat(series, ignore_index=True)
    return pd.DataFrame(joined)


def read_scores(
    records: pd.DataFrame | Sequence[str | Path], *, normalised: Collection[str] = ()
) -> pd.DataFrame:
    """Scores per picture of finished runs (round -1), see `statistics.picture_scores`.

    `normalised` names the conditions with metric `mce`. Files are reduced one after the other, so
    that memory does not grow with the cells of a corruption set.
    """
    import pandas as pd

    if isinstance(records, pd.DataFrame):
        return picture_scores(records[records["round"] == -1], normalised=normalised)
    parts = []
    for path in records:
        frame = artifacts.read_parquet(path, "records", list(COLUMNS))[0]
        parts.append(picture_scores(frame[frame["round"] == -1], normalised=normalised))
    if not parts:
        raise NsvitError("no records files were given")
    return pd.concat(parts, ignore_index=True)


def read_table_scores(
    records: pd.DataFrame | Sequence[str | Path], spec: TableSpec
) -> pd.DataFrame:
    """Scores of finished runs as tables use them: mCE where the config says so, robust sets added.

    Raises:
        NsvitError: a file is missing or half-written, the records name a model, arm or condition
            that the config does not, or the members of a robust set differ in their pictures.
    """
    scores = read_scores(records, normalised=spec.normalised)
    known: dict[str, Collection[str]] = {
        "model": spec.models,
        "arm": spec.arms,
        "condition": spec.conditions,
    }
    for key, among in known.items():
        odd = sorted({str(value) for value in scores[key].unique()} - set(among))
        if odd:
            raise NsvitError(
                f"records name {key} {', '.join(odd)}; the config has {', '.join(among)}"
            )
    return add_robust(scores, {slug: one.conditions for slug, one in spec.robust.items()})


def read_doubts(paths: Sequence[str | Path]) -> list[str]:
    """What the evaluator doubts about its own records, as stored beside them, each once.

    Args:
        paths: files of records.

    Raises:
        NsvitError: a file is missing, half-written or of another kind.
    """
    found: dict[str, None] = {}
    for path in paths:
        _, sidecar = artifacts.read_parquet(path, "records", ["model"])
        found.update(dict.fromkeys(sidecar.get("doubts", [])))
    return list(found)
