"""The verbs that make tables: records and sidecars in; csv, markdown and LaTeX out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsvit import artifacts
from nsvit.specs import TableSpec
from nsvit.tables import influence, main, nullity, runs, studies, studies_sheet
from nsvit.tables.sheet import write

Paths = Sequence[str | Path]


def _forms(out: str | Path) -> list[Path]:
    return [Path(out).with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]


def write_table1(records: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table1`: the main table from records; the three forms beside `out`."""
    frame = main.table1(records, spec)
    write(frame, main.DECIMALS, main.table1_sheet(frame, spec), *_forms(out))


def write_influence(influences: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-influence`: noise at every block; the three forms beside `out`."""
    frame = influence.table_influence(influence.read_influence(influences), spec)
    write(frame, influence.DECIMALS, influence.influence_sheet(frame, spec), *_forms(out))


def write_nullity(
    architectures: str | Path, nullspaces: Paths, spec: TableSpec, out: str | Path
) -> None:
    """The verb `table-nullity`: ranks and nullities; the three forms beside `out`."""
    sidecars = []
    for path in nullspaces:
        sidecars.append(artifacts.read_json(path))
        artifacts.check_kind(sidecars[-1], "nullspace", path)
    frame = nullity.table_nullity(artifacts.read_csv(architectures), sidecars, spec)
    write(frame, nullity.DECIMALS, nullity.nullity_sheet(frame, spec), *_forms(out))


def write_runs(histories: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-runs`: one row per run; the three forms beside `out`."""
    frame = runs.table_runs(histories, spec)
    write(frame, runs.DECIMALS, runs.runs_sheet(frame, spec), *_forms(out))


def write_lambda(paths: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-lambda`: the lambda study; the three forms beside `out`."""
    frame = studies.table_lambda(studies.read_lambda(paths), spec)
    decimals = {**studies.DECIMALS, **studies.PAPER_DECIMALS}
    write(frame, decimals, studies_sheet.lambda_sheet(frame, spec), *_forms(out))


def write_closure(paths: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-closure`: multiples and mixtures of noises; the three forms beside `out`."""
    frame = studies.table_closure(studies.read_closure(paths), spec)
    write(frame, studies.DECIMALS, studies_sheet.closure_sheet(frame, spec), *_forms(out))
