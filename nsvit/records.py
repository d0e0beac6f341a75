"""Records from files, with only the columns that tables need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nsvit import artifacts, cells
from nsvit.errors import NsvitError
from nsvit.statistics import add_robust, picture_scores
from nsvit.statistics.checks import Doubt

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from nsvit.config import ConditionConfig
    from nsvit.specs import TableSpec

log = logging.getLogger(__name__)

T = TypeVar("T")

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

#: Files of records, manifests, which stand for their cells, or cells that `usable` found.
Paths = Sequence[str | Path | cells.Listed]


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
        records: a frame of records or of scores (`nsvit.scores`), or files as in `read_records`.
        normalised: the conditions with metric `mce`; nothing new to scores.
        conditions: leave out others; cells of others are not even read.

    Raises:
        NsvitError: as `read_records`.
    """
    import pandas as pd

    if isinstance(records, pd.DataFrame):
        chosen = _finished(records, conditions)
        return chosen if "score" in records else picture_scores(chosen, normalised=normalised)
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


def read_doubts(paths: Sequence[str | Path]) -> list[str]:
    """Reasons to distrust records: those found when they were made, and from comparing them.

    Attacks on one run are compared across manifests too, since an attack may have a job of its
    own. Each doubt once, in the order of the files.

    Args:
        paths: manifests, or single files of records.

    Raises:
        NsvitError: as `read_records`.
    """
    found: list[str] = []
    manifests: dict[Path, list[cells.Listed]] = {}
    for path in map(Path, paths):
        if path.suffix == ".json":
            manifests[path], doubts = cells.read_manifest(path)
        else:
            doubts = artifacts.read_parquet(path, "records", ["round"])[1].get("doubts", [])
        found += doubts
    return list(dict.fromkeys([*found, *_across(manifests)]))


def _across(manifests: Mapping[Path, Sequence[cells.Listed]]) -> Iterator[str]:
    """Doubts from comparing the cells of a run that different manifests list."""
    runs: dict[tuple[str, str, int], dict[Path, list[cells.Listed]]] = {}
    for path, listed in manifests.items():
        for cell in listed:
            runs.setdefault(cell.run, {}).setdefault(path, []).append(cell)
    for own in runs.values():
        if len(own) > 1:  # within one, they were compared when it was written
            yield from cells.compare(cell for listed in own.values() for cell in listed)


def _files(paths: Paths, conditions: Collection[str] | None = None) -> Iterator[Path]:
    """The parquet files behind some paths; of manifests only those of the conditions."""
    for path in paths:
        if isinstance(path, cells.Listed):
            listed = [path]
        elif Path(path).suffix == ".json":
            listed = cells.read_manifest(path)[0]
        else:
            yield Path(path)
            continue
        yield from (one.path for one in listed if conditions is None or one.condition in conditions)


# --- what can be used -----------------------------------------------------------------------


@dataclass(frozen=True)
class Usable:
    """What of some files of records can be used.

    Attributes:
        paths: cells and single files, for the readers.
        doubts: of the files, and from comparing them.
        lost: a text for everything that is left out; it begins with the file or run.
    """

    paths: tuple[Path | cells.Listed, ...]
    doubts: tuple[Doubt, ...]
    lost: tuple[str, ...]


def usable(paths: Sequence[str | Path]) -> Usable:
    """Sorts out what cannot be used, so that one bad cell does not cost a whole table.

    That is: a file that is missing, half-written, of another kind, not the one that its manifest
    lists, or with a column that no record has; and cells of a condition whose seeds have
    different numbers of records, as nothing says which of them is right. All is named in the log.

    Args:
        paths: manifests, or single files of records.

    Raises:
        NsvitError: nothing can be used.
    """
    lost: list[str] = []
    doubts: list[str] = []
    manifests: dict[Path, list[cells.Listed]] = {}
    single = []
    for path in map(Path, paths):
        try:
            if path.suffix == ".json":
                listed, found = cells.read_manifest(path, lost)
                manifests[path] = [one for one in listed if _as_records(one.path, lost)]
            else:
                found = artifacts.read_arrow(path, "records", COLUMNS[:1])[1].get("doubts", [])
                single += [path] if _as_records(path, lost) else []
            doubts += found
        except NsvitError as error:
            lost.append(str(error))
    whole = _of_one_size([one for listed in manifests.values() for one in listed], lost)
    log_lost(lost)
    if lost and not (whole or single):
        raise NsvitError(lost[0])
    doubts += _across(manifests)
    parsed = tuple(Doubt.parse(text) for text in dict.fromkeys(doubts))
    return Usable((*whole, *single), parsed, tuple(lost))


def log_lost(lost: Iterable[str]) -> None:
    """Names what is left out in the log, from where the report takes it."""
    for text in lost:
        log.warning("left out: %s", text)


def _as_records(path: Path, lost: list[str]) -> bool:
    """Whether a file of records has only columns that records have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        odd = sorted(set(pq.read_schema(path).names) - set(cells.TYPES))
    except (pa.ArrowInvalid, OSError) as error:
        lost.append(f"{path}: damaged ({error}); delete it and run again")
        return False
    if odd:
        lost.append(f"{path}: unknown column {', '.join(odd)}; delete it and run again")
    return not odd


def _of_one_size(listed: Iterable[cells.Listed], lost: list[str]) -> list[cells.Listed]:
    """The cells without those of a condition whose seeds have different numbers of records."""
    groups: dict[tuple[str, str, str], list[cells.Listed]] = {}
    for cell in listed:
        groups.setdefault((*cell.run[:2], cell.condition), []).append(cell)
    kept = []
    for (model, arm, condition), own in groups.items():
        if len({cell.rows for cell in own}) == 1:
            kept += own
            continue
        sizes = ", ".join(f"seed {cell.run[2]}: {cell.rows}" for cell in own)
        lost.append(
            f"{model}, {arm}, {condition}: seeds have different numbers of records ({sizes}); "
            "evaluate them again with one config"
        )
    return kept


def readable(
    paths: Sequence[str | Path], read: Callable[[str | Path], T]
) -> tuple[list[str | Path], list[T], list[str]]:
    """The files that can be read, what was read of each, and why the others cannot.

    Raises:
        NsvitError: none can be read.
    """
    kept: list[str | Path] = []
    found: list[T] = []
    lost: list[str] = []
    for path in paths:
        try:
            found.append(read(path))
            kept.append(path)
        except NsvitError as error:
            lost.append(str(error))
    if lost and not kept:
        raise NsvitError(lost[0])
    for text in lost:
        log.warning("left out: %s", text)
    return kept, found, lost
