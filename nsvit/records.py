"""Records from files, with only the columns that tables need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsvit import artifacts, cells
from nsvit.errors import NsvitError
from nsvit.statistics import add_robust, picture_scores

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from nsvit.config import ConditionConfig
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

#: The texts among the columns of scores.
TEXTS = ("model", "arm", "condition", "set", "picture")
#: Of each of them, the texts that occur and their numbers.
Names = dict[str, dict[str, int]]

#: Rows that are reduced to scores at once.
CHUNK = 100_000

Paths = Sequence[str | Path]


def read_records(
    paths: Paths,
    columns: Sequence[str] = COLUMNS,
    kind: str = "records",
    conditions: Collection[str] | None = None,
) -> pd.DataFrame:
    """The records of several files as one frame; texts are pandas categories.

    Args:
        paths: parquet files of that kind, or manifests (`*.json`), which stand for their cells.
        columns: the columns to read.
        kind: "records" or another kind of parquet file.
        conditions: of manifests read only the cells of these.

    Raises:
        NsvitError: a file is missing, half-written, of another kind, not the one that its
            manifest lists, or there is none.
    """
    tables = [
        (path, artifacts.read_arrow(path, kind, columns)[0]) for path in _files(paths, conditions)
    ]
    if not tables:
        raise NsvitError(f"no {kind} files were given")
    return _joined(tables)


def _joined(tables: Sequence[tuple[Path, pa.Table]]) -> pd.DataFrame:
    """The rows of several files.

    Raises:
        NsvitError: the columns of a file have other types than those of the first.
    """
    import pyarrow as pa

    first, expected = tables[0][0], tables[0][1].schema
    for path, table in tables:
        odd = [field.name for field in table.schema if not field.equals(expected.field(field.name))]
        if odd:
            raise NsvitError(
                f"{path}: {', '.join(odd)} is of another type than in {first}; delete the one "
                "that another version wrote and run again"
            )
    whole = pa.concat_tables([table for _, table in tables])
    return whole.unify_dictionaries().to_pandas()


def read_scores(
    records: pd.DataFrame | Paths,
    *,
    normalised: Collection[str] = (),
    conditions: Collection[str] | None = None,
) -> pd.DataFrame:
    """Scores per picture of finished runs (round -1), see `statistics.picture_scores`.

    Files are reduced a few at a time, so that memory does not grow with the cells of a corruption
    set.

    Args:
        records: a frame, or files as in `read_records`.
        normalised: the conditions with metric `mce`.
        conditions: leave out others; cells of others are not even read.

    Raises:
        NsvitError: as `read_records`.
    """
    import pandas as pd

    if isinstance(records, pd.DataFrame):
        return picture_scores(_finished(records, conditions), normalised=normalised)
    names: Names = {column: {} for column in TEXTS}
    parts = [
        _numbered(picture_scores(frame, normalised=normalised), names)
        for frame in read_finished(records, conditions)
    ]
    if not parts:
        named = f" of {', '.join(conditions)}" if conditions is not None else ""
        raise NsvitError(f"no records files{named} were given")
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(**{column: _named(whole[column], names[column]) for column in TEXTS})


def _numbered(scores: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Scores with numbers for texts, so that the same picture in many files is named once."""
    import numpy as np
    import pandas as pd

    numbers = {}
    for column, known in names.items():
        codes, found = pd.factorize(scores[column])
        places = [known.setdefault(str(name), len(known)) for name in found]
        numbers[column] = np.array(places, np.int32)[codes]
    return scores.assign(**numbers)


def _named(numbers: pd.Series, names: Mapping[str, int]) -> pd.Categorical:
    """Numbers as what they stand for; categories are sorted, as `statistics.resample` needs."""
    import numpy as np
    import pandas as pd

    texts = sorted(names)
    places = np.empty(len(names), np.int32)
    places[[names[text] for text in texts]] = np.arange(len(names))
    kind = pd.CategoricalDtype(texts)
    return pd.Categorical.from_codes(places[numbers.to_numpy(np.int32)], dtype=kind)


def read_table_scores(records: pd.DataFrame | Paths, spec: TableSpec) -> pd.DataFrame:
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
    robust = {slug: one.conditions for slug, one in spec.robust.items()}
    return add_robust(scores, robust, images_of(spec.conditions))


def images_of(conditions: Mapping[str, ConditionConfig]) -> dict[str, int]:
    """How many pictures conditions are run on at most; those that have all are left out."""
    return {slug: one.images for slug, one in conditions.items() if one.images is not None}


def read_finished(
    paths: Paths, conditions: Collection[str] | None = None
) -> Iterator[pd.DataFrame]:
    """The records of finished runs (round -1), many small files at a time but a large one alone.

    Args:
        paths: as in `read_records`.
        conditions: leave out others; cells of others are not even read.

    Raises:
        NsvitError: as `read_records`, but nothing is said where there is none.
    """
    tables: list[tuple[Path, pa.Table]] = []
    for path in _files(paths, conditions):
        tables.append((path, artifacts.read_arrow(path, "records", COLUMNS)[0]))
        if sum(len(table) for _, table in tables) >= CHUNK:
            yield _finished(_joined(tables), conditions)
            tables = []
    if tables:
        yield _finished(_joined(tables), conditions)


def _finished(frame: pd.DataFrame, conditions: Collection[str] | None) -> pd.DataFrame:
    wanted = frame["round"] == -1
    if conditions is not None:
        wanted &= frame["condition"].isin(list(conditions))
    return frame[wanted]


def read_doubts(paths: Paths) -> list[str]:
    """Reasons to distrust records: those found when they were made, and from comparing them.

    Attacks on one run are compared across manifests too, since an attack may have a job of its
    own. Each doubt once, in the order of the files.

    Args:
        paths: manifests, or single files of records.

    Raises:
        NsvitError: as `read_records`.
    """
    found: list[str] = []
    runs: dict[tuple[str, str, int], dict[Path, list[cells.Listed]]] = {}
    for path in map(Path, paths):
        if path.suffix != ".json":
            found += artifacts.read_parquet(path, "records", ["round"])[1].get("doubts", [])
            continue
        listed, doubts = cells.read_manifest(path)
        found += doubts
        for cell in listed:
            runs.setdefault(cell.run, {}).setdefault(path, []).append(cell)
    for manifests in runs.values():
        if len(manifests) > 1:  # within one, they were compared when it was written
            found += cells.compare(cell for own in manifests.values() for cell in own)
    return list(dict.fromkeys(found))


def _files(paths: Paths, conditions: Collection[str] | None = None) -> Iterator[Path]:
    """The parquet files behind some paths; of manifests only those of the conditions."""
    for path in map(Path, paths):
        if path.suffix == ".json":
            listed = cells.read_manifest(path)[0]
            yield from (
                cell.path for cell in listed if conditions is None or cell.condition in conditions
            )
        else:
            yield path
