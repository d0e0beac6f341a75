"""The verbs that make tables: scores, records and sidecars in; csv, markdown and LaTeX out.

Files that cannot be used are named in the log and below the table, which is made from the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsvit import artifacts, claims, scores
from nsvit.records import readable, usable
from nsvit.specs import AccuracySpec, TableSpec
from nsvit.tables import accuracy, attacks, cost, influence, nullity, paired, studies, studies_sheet
from nsvit.tables import claims as claims_table
from nsvit.tables.accuracy_sheet import accuracy_sheet
from nsvit.tables.sheet import with_lost, write

Paths = Sequence[str | Path]


def _forms(out: str | Path) -> list[Path]:
    return [Path(out).with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]


def write_accuracy(path: str | Path, spec: AccuracySpec, out: str | Path) -> None:
    """The verb `table`: accuracies from scores, doubts marked; the three forms beside `out`."""
    found = scores.read(path, spec.runs())
    frame = accuracy.accuracy_table(found.frame, spec, found.doubts)
    sheet = with_lost(accuracy_sheet(frame, spec, found.doubts), found.lost)
    write(frame, accuracy.DECIMALS, sheet, *_forms(out))


def write_paired(path: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-paired`: methods against none and plain; the three forms beside `out`."""
    found = scores.read(path)
    frame = paired.table_paired(found.frame, spec, found.doubts)
    sheet = with_lost(paired.paired_sheet(frame, spec, found.doubts), found.lost)
    write(frame, paired.DECIMALS, sheet, *_forms(out))


def write_attacks(records: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-attacks`: success of every attack; the three forms beside `out`."""
    found = usable(records)
    frame = attacks.table_attacks(found.paths, spec, found.doubts)
    sheet = with_lost(attacks.attacks_sheet(frame, spec, found.doubts), found.lost)
    write(frame, attacks.DECIMALS, sheet, *_forms(out))


def write_claims(
    file: str | Path,
    path: str | Path,
    histories: Paths,
    influences: Paths,
    lambdas: Paths,
    spec: TableSpec,
    out: str | Path,
) -> None:
    """The verb `table-claims`: a verdict for every claim of a file; the three forms beside `out`.

    What is missing or damaged is named in the log and in the table; the rest is tested.
    """
    listed = claims.read_claims(file)
    evidence = claims.gather(spec, path, histories, influences, lambdas)
    frame = claims.judge_claims(listed, evidence)
    frame = claims_table.with_doubts(frame, spec, evidence.doubts)
    sheet = claims_table.claims_sheet(frame, spec, evidence.doubts)
    write(frame, claims_table.DECIMALS, with_lost(sheet, evidence.lost), *_forms(out))


def write_influence(influences: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-influence`: noise at every block; the three forms beside `out`."""
    kept, _, lost = readable(influences, lambda path: influence.read_influence([path]))
    frame = influence.table_influence(influence.read_influence(kept), spec)
    sheet = with_lost(influence.influence_sheet(frame, spec), lost)
    write(frame, influence.DECIMALS, sheet, *_forms(out))


def write_nullity(
    architectures: str | Path, nullspaces: Paths, spec: TableSpec, out: str | Path
) -> None:
    """The verb `table-nullity`: ranks and nullities; the three forms beside `out`."""

    def read(path: str | Path) -> dict[str, object]:
        sidecar = artifacts.read_json(path)
        artifacts.check_kind(sidecar, "nullspace", path)
        return sidecar

    _, sidecars, lost = readable(nullspaces, read)
    frame = nullity.table_nullity(artifacts.read_csv(architectures), sidecars, spec)
    sheet = with_lost(nullity.nullity_sheet(frame, spec), lost)
    write(frame, nullity.DECIMALS, sheet, *_forms(out))


def write_cost(histories: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-cost`: one row per run; the three forms beside `out`."""
    kept, _, lost = readable(histories, lambda path: cost.table_cost([path], spec))
    frame = cost.table_cost(kept, spec)
    sheet = with_lost(cost.cost_sheet(frame, spec), lost)
    write(frame, cost.DECIMALS, sheet, *_forms(out))


def write_lambda(paths: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-lambda`: the lambda study; the three forms beside `out`."""
    kept, _, lost = readable(paths, lambda path: studies.read_lambda([path]))
    frame = studies.table_lambda(studies.read_lambda(kept), spec)
    decimals = {**studies.DECIMALS, **studies.PAPER_DECIMALS}
    sheet = with_lost(studies_sheet.lambda_sheet(frame, spec), lost)
    write(frame, decimals, sheet, *_forms(out))


def write_closure(paths: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `table-closure`: multiples and mixtures of noises; the three forms beside `out`."""
    kept, _, lost = readable(paths, lambda path: studies.read_closure([path]))
    frame = studies.table_closure(studies.read_closure(kept), spec)
    sheet = with_lost(studies_sheet.closure_sheet(frame, spec), lost)
    write(frame, studies.DECIMALS, sheet, *_forms(out))
