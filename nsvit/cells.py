"""Records on disk: one file per run and condition, made in blocks, listed by manifests. No torch.

A cell holds the rows of one condition of one run. While it is made, every finished block of it is
a part beside it, so that an interrupted evaluation continues; the last block turns the parts into
the cell. Cell and parts carry the fingerprint of what they were made from: one that differs is
made again. Nothing here depends on the time or on how often it was interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import artifacts
from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

#: The columns of a record, in order, and their types on disk; text is kept once per block.
TYPES = {
    **dict.fromkeys(("model", "arm"), "text"),
    **dict.fromkeys(("seed", "round"), "int64"),
    **dict.fromkeys(("condition", "set", "corruption"), "text"),
    "severity": "int8",
    **dict.fromkeys(("attack", "radius", "sample"), "text"),
    **dict.fromkeys(("label", "prediction"), "int64"),
    "correct": "bool",
    **dict.fromkeys(("confidence", "label_probability"), "float32"),
    "norm": "text",
    "distance": "float32",
}


@dataclass(frozen=True)
class Cell:
    """One condition of one run: where its records are and what they must be.

    Attributes:
        path: `seed<k>/<condition>.parquet` beside the manifest that lists it.
        fingerprint: of everything the records depend on.
        blocks: rows of each block, in order.
    """

    path: Path
    fingerprint: str
    blocks: Sequence[int]

    def is_there(self) -> bool:
        """Whether the finished cell is there, whole, and made from the same things."""
        return _found(self.path, "records", self.fingerprint, sum(self.blocks))

    def missing(self) -> set[int]:
        """Numbers of the blocks to compute; the last one always is, as it makes the cell."""
        last = len(self.blocks) - 1
        return {last} | {
            number
            for number, rows in enumerate(self.blocks[:last])
            if not _found(self._part(number), "part", self.fingerprint, rows)
        }

    def put(self, number: int, frame: pd.DataFrame, sidecar: Mapping[str, Any]) -> None:
        """Takes the rows of a block, in any order of blocks but the last, which ends the cell.

        Args:
            number: of the block.
            frame: its rows.
            sidecar: the finished cell's provenance; the fingerprint is added.
        """
        if number < len(self.blocks) - 1:
            head = {"kind": "part", "schema_version": artifacts.SCHEMA_VERSION, "block": number}
            _write(self._part(number), [_table(frame)], {**head, "fingerprint": self.fingerprint})
            return
        tables = (_read_part(self._part(before)) for before in range(number))
        _sweep(self.path)
        whole = {**sidecar, "fingerprint": self.fingerprint}
        _write(self.path, _chain(tables, _table(frame)), whole)
        shutil.rmtree(self._parts, ignore_errors=True)

    @property
    def _parts(self) -> Path:
        return self.path.parent / f".{self.path.stem}.parts"

    def _part(self, number: int) -> Path:
        return self._parts / f"{number}.parquet"


def _chain(tables: Iterable[pa.Table], last: pa.Table) -> Iterator[pa.Table]:
    yield from tables
    yield last


def _sweep(path: Path) -> None:
    """Removes what a killed process left of an atomic write of this file."""
    for left in path.parent.glob(f".{path.name}.*{path.suffix}"):
        left.unlink(missing_ok=True)


# --- parquet, a block at a time -------------------------------------------------------------


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    named = {"text": text, "bool": pa.bool_()}
    return pa.schema(
        [(name, named.get(kind) or getattr(pa, kind)()) for name, kind in TYPES.items()]
    )


def _table(frame: pd.DataFrame) -> pa.Table:
    """Rows as they are written. Texts are coded anew, so that equal rows give equal bytes."""
    import pyarrow as pa

    arrays = []
    for field in _schema():
        if pa.types.is_dictionary(field.type):
            texts = pa.array(frame[field.name].astype(object), pa.string())
            arrays.append(texts.dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(frame[field.name].to_numpy(), field.type))
    return pa.Table.from_arrays(arrays, schema=_schema())


def _write(path: Path, tables: Iterable[pa.Table], sidecar: Mapping[str, Any]) -> None:
    """Writes tables one after the other, each as a row group, atomically, with checksums."""
    import pyarrow.parquet as pq

    schema = _schema().with_metadata({b"nsvit": json.dumps(sidecar).encode()})
    with (
        artifacts.atomic(path) as temporary,
        pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer,
    ):
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=max(len(table), 1))


def _read_part(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return _table(pq.read_table(path, page_checksum_verification=True).to_pandas())


def _found(path: Path, kind: str, fingerprint: str, rows: int) -> bool:
    """Whether a file is there, made from the same things, with all of its rows readable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            sidecar = json.loads((file.schema_arrow.metadata or {}).get(b"nsvit", b"{}"))
            artifacts.check_kind(sidecar, kind, path)
            if sidecar.get("fingerprint") != fingerprint:
                log.info("%s: made from something else; made again", path)
                return False
            groups = range(file.metadata.num_row_groups)
            counted = sum(len(file.read_row_group(group)) for group in groups)
            if not file.schema_arrow.equals(_schema()) or counted != rows:
                raise NsvitError(f"{counted} rows, expected {rows}, or other columns")
    except FileNotFoundError:
        return False
    except (pa.ArrowException, OSError, ValueError, NsvitError) as error:
        log.warning("%s: damaged (%s); made again", path, error)
        return False
    return True


# --- manifests ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """A cell as a manifest lists it.

    Attributes:
        path: of the cell.
        run: model, arm and seed.
        condition: its slug.
        set: the slug of its pictures.
        attacked: whether the condition has an attack.
        restricted: whether predictions are among the set's own classes.
        rows: how many records it holds.
    """

    path: Path
    run: tuple[str, str, int]
    condition: str
    set: str
    attacked: bool
    restricted: bool
    rows: int


def write_manifest(
    path: Path,
    spec: Mapping[str, Any],
    cells: Mapping[tuple[int, str], Path],
    inputs: Iterable[str | Path] = (),
) -> list[str]:
    """Lists finished cells, with the doubts in them and those from comparing them.

    Args:
        path: the manifest (JSON, kind "manifest").
        spec: of the job: model, arm, seeds and conditions.
        cells: the file of every seed and condition.
        inputs: files whose hashes are kept.

    Returns:
        The doubts, for the log.
    """
    rows = []
    for (seed, condition), cell in cells.items():
        row: dict[str, Any] = {"seed": seed, "condition": condition}
        row["path"] = os.path.relpath(cell, path.parent)
        rows.append({**row, "rows": _sidecar(cell)[1], "sha256": artifacts.sha256(cell)})
    content = {**artifacts.provenance("manifest", spec, inputs), "cells": rows}
    listed = _listed(path, content)
    stored = [doubt for cell in cells.values() for doubt in _sidecar(cell)[0].get("doubts", ())]
    content["doubts"] = list(dict.fromkeys([*stored, *compare(listed)]))
    warnings = [one for cell in cells.values() for one in _sidecar(cell)[0].get("warnings", ())]
    content["warnings"] = list(dict.fromkeys(warnings))
    _sweep(path)
    artifacts.write_json(path, content)
    return content["doubts"]


def _sidecar(cell: Path) -> tuple[dict[str, Any], int]:
    """A cell's provenance and number of rows."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(cell) as file:
        return json.loads(file.schema_arrow.metadata[b"nsvit"]), file.metadata.num_rows


def read_manifest(
    path: str | Path, lost: list[str] | None = None
) -> tuple[list[Listed], list[str]]:
    """The cells that a manifest lists, and its doubts.

    Args:
        path: the manifest.
        lost: takes a text for each cell that cannot be used, which is then left out; if not
            given such a cell is an error.

    Raises:
        NsvitError: the manifest is missing, damaged or of another kind; a cell is missing or is
            not the one that was listed (names it and says what to do).
    """
    path = Path(path)
    content = artifacts.read_json(path)
    artifacts.check_kind(content, "manifest", path)
    found = []
    for row, cell in zip(content["cells"], _listed(path, content), strict=True):
        trouble = _trouble(cell.path, row["sha256"], path)
        if trouble and lost is None:
            raise NsvitError(trouble)
        if trouble and lost is not None:
            lost.append(trouble)
        else:
            found.append(cell)
    return found, list(content["doubts"])


def _trouble(cell: Path, sha256: str, manifest: Path) -> str:
    """Why a cell is not the one that a manifest lists; "" if it is."""
    if cell.is_file() and artifacts.sha256(cell) == sha256:
        return ""
    what = "is not the file that was listed" if cell.is_file() else "is missing"
    return (
        f"{cell}: {what} in {manifest}; delete {manifest} and run again: only cells that are "
        "missing or damaged are computed"
    )


def _listed(path: Path, content: Mapping[str, Any]) -> list[Listed]:
    spec = content["spec"]
    found = []
    for row in content["cells"]:
        own = spec["conditions"][row["condition"]]
        run = (spec["model"], spec["arm"], int(row["seed"]))
        cell = path.parent / row["path"]
        attacked, condition = own["attack"] is not None, row["condition"]
        about = condition, own["set"], attacked, own["restricted"], int(row["rows"])
        found.append(Listed(cell, run, *about))
    return found


#: What the checks of records look at: what is the same in a whole cell, and what is not.
_SAME = ["model", "arm", "seed", "round", "condition", "set", "attack", "norm", "radius"]
_OWN = ["sample", "correct"]


def compare(cells: Iterable[Listed]) -> list[str]:
    """The doubts that come from comparing attacks on the same run, with each other and with none.

    Conditions that predict among all classes are not compared with those that do not. What one
    run has on one set is in memory at a time, a few bytes for each row.
    """
    from nsvit.statistics import checks

    groups: dict[tuple[Any, ...], dict[str, list[Listed]]] = {}
    for cell in dict.fromkeys(cells):
        sets = groups.setdefault((cell.run, cell.restricted), {})
        sets.setdefault(cell.set, []).append(cell)
    found = []
    for sets in groups.values():
        attacked = [group for group in sets.values() if any(cell.attacked for cell in group)]
        several = [group for group in attacked if len(group) > 1]
        doubts = [doubt for group in several for doubt in checks.doubts(_checked(group))]
        doubts.sort(key=lambda doubt: checks.COMPARED.index(doubt.check))  # as of all sets at once
        found += [str(doubt) for doubt in doubts]
    return found


def _checked(group: Sequence[Listed]) -> pd.DataFrame:
    """What the checks look at in some cells: texts as categories, pictures as numbers."""
    import numpy as np
    import pandas as pd

    numbers: dict[str, int] = {}
    same, samples, correct = [], [], []
    for cell in group:
        frame = artifacts.read_parquet(cell.path, "records", [*_SAME, *_OWN])[0]
        same.append(frame[_SAME].iloc[0])
        names = frame["sample"].cat
        own = [numbers.setdefault(name, len(numbers)) for name in names.categories]
        samples.append(np.array(own, dtype=np.int32)[names.codes])
        correct.append(frame["correct"].to_numpy())
    lengths = [len(part) for part in samples]
    columns: dict[str, Any] = {}
    for name in _SAME:
        values = pd.Categorical([row[name] for row in same])
        codes = np.repeat(values.codes, lengths)
        columns[name] = pd.Categorical.from_codes(codes, dtype=values.dtype)
    columns |= {"sample": np.concatenate(samples), "correct": np.concatenate(correct)}
    return pd.DataFrame(columns)
