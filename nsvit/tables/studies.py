"""The lambda study and closure: what learned noise and its permutation do, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import paper
from nsvit.errors import NsvitError
from nsvit.records import read_records
from nsvit.specs import TableSpec
from nsvit.tables.noises import means_of, share_of, spread

if TYPE_CHECKING:
    import pandas as pd

LAMBDA_COLUMNS = (
    *("model", "lambda", "draw", "noise", "sample", "agree", "logit_distance"),
    *("probability_distance", "confidence_error", "norm"),
)
CLOSURE_COLUMNS = ("kind", "factor", *LAMBDA_COLUMNS)
NOISES = ("learned", "permuted")
KINDS = ("scaled", "combined", "added")
#: What becomes a mean with its interval: column of the records -> column of the table.
_MEANS = {
    "confidence_error": "confidence_mse",
    "logit_distance": "logit_distance",
    "probability_distance": "probability_distance",
}
_SPREADS = {
    "agreement": 2,
    "confidence_mse": 5,
    "logit_distance": 4,
    "probability_distance": 5,
    "norm": 3,
}
#: Fixed decimals of the csv. Agreement is per cent.
DECIMALS = {f"{name}{end}": n for name, n in _SPREADS.items() for end in ("", "_low", "_high")}
PAPER_DECIMALS = {"paper_agreement": 2, "paper_confidence_mse": 4, "paper_norm": 1}


def read_lambda(paths: Sequence[str | Path]) -> pd.DataFrame:
    """The lambda studies of several models as one frame (see `nsvit.lambda_study`).

    Raises:
        NsvitError: a file is missing, half-written or of another kind.
    """
    return read_records(paths, LAMBDA_COLUMNS, kind="lambda")


def read_closure(paths: Sequence[str | Path]) -> pd.DataFrame:
    """The closures of several models as one frame (see `nsvit.lambda_study`).

    Raises:
        NsvitError: a file is missing, half-written or of another kind.
    """
    return read_records(paths, CLOSURE_COLUMNS, kind="closure")


def table_lambda(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Agreement, confidence MSE and norm per model, lambda and kind of noise.

    Args:
        frame: one row per model x lambda x draw x noise x sample (kind "lambda").
        spec: models (order, names in the paper) and how to make intervals.

    Returns:
        One row per model, lambda, noise. agreement (per cent), confidence_mse, logit_distance,
        probability_distance: means with bootstrap intervals over draws and pictures (`*_low`,
        `*_high`; Wilson's for the agreement of a single draw); norm with the smallest and the
        largest draw. Then n (pictures), draws, and the paper's digitised points where the model
        has a name there: paper_agreement, paper_confidence_mse, paper_norm, all approximate.

    Raises:
        NsvitError: draws have different pictures, or a model is not in the spec.
    """
    import pandas as pd

    order = _order(frame, spec, "lambda study")
    points = paper_points()
    rows: list[dict[str, Any]] = []
    for (model, weight, noise), part in frame.groupby(["model", "lambda", "noise"], observed=True):
        slug, value, kind = str(model), float(str(weight)), str(noise)
        row = {"model": slug, "lambda": value, "noise": kind}
        row |= _row(part, f"lambda study {slug} {value:g} {kind}", spec)
        for quantity in ("agreement", "confidence_mse", "norm"):
            # A permutation keeps the norm; the paper draws it once.
            of = "learned" if quantity == "norm" else kind
            point = points.get((spec.models[slug].paper, value, of, quantity))
            row[f"paper_{quantity}"] = float("nan") if point is None else point
        rows.append(row)
    rows.sort(key=lambda r: (order.index(r["model"]), r["lambda"], NOISES.index(r["noise"])))
    return pd.DataFrame(rows)


def table_closure(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """The same numbers for multiples, mixtures and sums of learned noises.

    Args:
        frame: one row per model x kind x factor x draw x noise x sample (kind "closure").
        spec: models (order) and how to make intervals.

    Returns:
        One row per model, kind, factor, noise, with lambda and the columns of `table_lambda` but
        for the paper's, which prints no numbers.

    Raises:
        NsvitError: as for `table_lambda`.
    """
    import pandas as pd

    order = _order(frame, spec, "closure")
    rows = []
    keys = ["model", "lambda", "kind", "factor", "noise"]
    for values, part in frame.groupby(keys, observed=True):
        key: dict[str, Any] = dict(zip(keys, values, strict=True))
        name = " ".join(map(str, ("closure", *values)))
        rows.append({**key, **_row(part, name, spec)})
    rows.sort(
        key=lambda r: (
            order.index(r["model"]),
            KINDS.index(r["kind"]),
            r["factor"],
            NOISES.index(r["noise"]),
        )
    )
    return pd.DataFrame(rows)


def _order(frame: pd.DataFrame, spec: TableSpec, name: str) -> list[str]:
    order = list(spec.models)
    odd = sorted({str(model) for model in frame["model"].unique()} - set(order))
    if odd:
        raise NsvitError(f"{name} names model {', '.join(odd)}; the config has {order}")
    return order


def _row(part: pd.DataFrame, name: str, spec: TableSpec) -> dict[str, Any]:
    found = means_of(part, ["agree", *_MEANS], name, spec.statistics)
    row: dict[str, Any] = spread("agreement", share_of(found["agree"], spec.statistics), 100.0)
    for column, label in _MEANS.items():
        row |= spread(label, found[column])
    norms = part.groupby("draw")["norm"].first()
    ends = {"norm_low": float(norms.min()), "norm_high": float(norms.max())}
    count = {"n": part["sample"].nunique(), "draws": len(norms)}
    return {**row, "norm": float(norms.mean()), **ends, **count}


def paper_points() -> dict[tuple[str | None, float, str, str], float]:
    """The paper's Figure 3, digitised: (model, lambda, noise, quantity) -> value.

    The ticks of its right panel are probably shifted: its ten points are taken to be the ten
    lambdas of the left panel, in order (METHOD.md section 3).
    """
    names = {"match_pct": "agreement", "mse_confidence": "confidence_mse", "noise_l2_norm": "norm"}
    points = paper.table("figures")
    left = points[points["figure"] == "generalized_nullspace_left"]
    lambdas = sorted(left["x"].unique())
    found: dict[tuple[str | None, float, str, str], float] = {}
    for figure in ("generalized_nullspace_left", "generalized_nullspace_right"):
        for point in points[points["figure"] == figure].to_dict("records"):
            x = float(point["x"])
            weight = x if figure.endswith("left") else float(lambdas[int(x) - 1])
            key = (str(point["model"]), weight, str(point["series"]), names[str(point["y_name"])])
            found[key] = float(point["y"])
    return found
