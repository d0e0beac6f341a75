"""The verbs that draw figures: records, tables and sidecars in; svg and png out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsvit import artifacts, records
from nsvit.figures.dynamics import figure_dynamics
from nsvit.figures.influence import figure_influence
from nsvit.figures.nullspace import figure_nullspace
from nsvit.figures.style import save
from nsvit.specs import TableSpec

Paths = Sequence[str | Path]


def _forms(out: str | Path) -> list[Path]:
    return [Path(out).with_suffix(suffix) for suffix in (".svg", ".png")]


def write_nullspace(nullspace: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-nullspace`: the example in a nullspace artefact."""
    arrays, sidecar = artifacts.read_tensors(nullspace, "nullspace")
    label = spec.models[sidecar["spec"]["model"]].label
    save(figure_nullspace(arrays, sidecar, sidecar["metrics"].get("names"), label), *_forms(out))


def write_influence(table: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-influence`: the csv of the influence table as a picture."""
    import pandas as pd

    save(figure_influence(pd.read_csv(table), spec), *_forms(out))


def write_dynamics(paths: Paths, histories: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-dynamics`: the records of every round beside the runs' histories."""
    frame = records.read_records(paths, (*records.COLUMNS,))
    save(figure_dynamics(frame, [artifacts.read_json(h) for h in histories], spec), *_forms(out))
