"""The verbs that draw figures: scores, records, tables and sidecars in; svg and png out.

Records that cannot be used are named in the log, and what is left is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsvit import artifacts, records, scores
from nsvit.errors import NsvitError
from nsvit.figures.closure import figure_closure
from nsvit.figures.concept import figure_concept
from nsvit.figures.corruptions import figure_corruptions, read_errors
from nsvit.figures.dynamics import figure_dynamics
from nsvit.figures.forest import figure_claims
from nsvit.figures.influence import figure_influence
from nsvit.figures.lambda_study import figure_lambda
from nsvit.figures.nullspace import figure_nullspace
from nsvit.figures.radius import figure_radius
from nsvit.figures.style import NothingToDrawError, figure_of_text, save
from nsvit.specs import TableSpec

Paths = Sequence[str | Path]


def _forms(out: str | Path) -> list[Path]:
    return [Path(out).with_suffix(suffix) for suffix in (".svg", ".png")]


def write_nullspace(nullspace: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-nullspace`: the example in a nullspace artefact.

    A model of nullity 0 has none; its figure says so, and the workflow goes on.
    """
    arrays, sidecar = artifacts.read_tensors(nullspace, "nullspace")
    label = spec.models[sidecar["spec"]["model"]].label
    metrics = sidecar["metrics"]
    if metrics["nullity"] == 0:
        figure = figure_of_text(f"{label}: nullity 0, there is no nullspace noise in pixels")
    else:
        figure = figure_nullspace(arrays, sidecar, metrics.get("names"), label)
    save(figure, *_forms(out))


def write_influence(table: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-influence`: the csv of the influence table as a picture."""
    save(figure_influence(artifacts.read_csv(table), spec), *_forms(out))


def write_claims(table: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-claims`: the csv of the claims as a forest plot."""
    save(figure_claims(artifacts.read_csv(table), spec), *_forms(out))


def write_dynamics(paths: Paths, histories: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-dynamics`: the records of every round beside the runs' histories.

    The panel of a run with damaged records or a damaged history stays empty.
    """

    def read_history(path: str | Path) -> dict[str, Any]:
        history = artifacts.read_json(path)
        artifacts.check_kind(history, "history", path)
        return history

    _, found, lost = records.readable(histories, read_history)
    kept, _, _ = records.readable(paths, lambda path: records.read_records([path]))
    rounds = records.read_records(kept)
    if lost:
        known = {(one["spec"]["model"], one["spec"]["arm"]) for one in found}
        runs = zip(rounds["model"], rounds["arm"], strict=True)
        rounds = rounds[[run in known for run in runs]]
        if rounds.empty:
            raise NsvitError(lost[0])
    save(figure_dynamics(rounds, found, spec), *_forms(out))


def write_concept(out: str | Path) -> None:
    """The verb `figure-concept`: a schematic of the method."""
    save(figure_concept(), *_forms(out))


def write_lambda(table: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-lambda`: the csv of the table of lambdas as a picture."""
    save(figure_lambda(artifacts.read_csv(table), spec), *_forms(out))


def write_closure(table: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-closure`: the csv of the table of closure as a picture."""
    save(figure_closure(artifacts.read_csv(table), spec), *_forms(out))


def write_corruptions(paths: Paths, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-corruptions`: changes of corruption errors, from records."""
    try:
        figure = figure_corruptions(read_errors(records.usable(paths).paths, spec), spec)
    except NothingToDrawError as error:
        figure = figure_of_text(str(error))
    save(figure, *_forms(out))


def write_radius(path: str | Path, spec: TableSpec, out: str | Path) -> None:
    """The verb `figure-radius`: accuracy against the attack's radius, from scores."""
    try:
        figure = figure_radius(scores.read(path).frame, spec)
    except NothingToDrawError as error:
        figure = figure_of_text(str(error))
    save(figure, *_forms(out))
