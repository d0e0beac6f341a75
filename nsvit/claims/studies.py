"""Tests of claims about the noise itself: agreement, norm against lambda, norm against rounds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nsvit import paper, statistics
from nsvit.claims.evidence import Evidence
from nsvit.claims.rows import NAN, NotTested, Row, absent, find_arm, measured, models_of
from nsvit.claims.schema import Agreement, Claim, Regrowth
from nsvit.errors import NsvitError
from nsvit.statistics import Comparison

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

#: Fewer lambdas cannot show an order.
LEAST_LAMBDAS = 4
#: The first noise, the second, and a last one that is not the second.
LEAST_NOISES = 3
#: What bounds the noise of a study, for people.
_BY = {"lambda": "by λ", "influence": "in ε"}


def study_rows(claim: Claim, evidence: Evidence) -> list[Row]:
    """One or two rows for each model."""
    models, lacking = models_of(claim, evidence.spec)
    make = {"agreement": _agreement, "monotone": _monotone, "regrowth": _regrowth}
    rows = [row for model in models for row in make[claim.test.kind](claim, evidence, model)]
    return rows + [Row(claim.id, name, claim.title, absent(name)) for name in lacking]


def _study(evidence: Evidence, kind: str, model: str) -> pd.DataFrame:
    frame = evidence.studies[kind]
    if isinstance(frame, str):
        raise NotTested(frame)
    own = frame[frame["model"] == model]
    if not len(own):
        raise NotTested(f"{model} is not in the {kind} study")
    return own


# --- agreement ------------------------------------------------------------------------------


def _agreement(claim: Claim, evidence: Evidence, model: str) -> list[Row]:
    """Learned noise above the threshold, permuted noise below it."""
    test = claim.test
    assert isinstance(test, Agreement)
    rows = []
    for noise, larger in (("learned", True), ("permuted", False)):
        side = "above" if larger else "below"
        made = f"{noise} {_BY[test.study]}"
        row = Row(claim.id, model, f"{made}: agreement {side} {test.threshold:g} %")
        sign = 1.0 if larger else -1.0
        if test.study == "lambda":
            share = _papers_agreement(evidence.spec.models[model].paper, noise)
            row = replace(row, paper=sign * (share - test.threshold), printed=_per_cent(share))
        try:
            kept = _kept(_study(evidence, test.study, model), noise, test.study)
            confidence = evidence.spec.statistics.confidence
            found = against(kept, test.threshold / 100.0, confidence, larger)
            rows.append(measured(row, found))
        except (NotTested, NsvitError) as why:
            rows.append(replace(row, reason=str(why)))
    return rows


def _kept(frame: pd.DataFrame, noise: str, study: str) -> NDArray[np.float64]:
    """(draws, pictures) agreement, at the patch embedding or as the mean over the lambdas."""
    own = frame[frame["noise"] == noise]
    if study == "influence":
        own = own[own["block"] == 0]
    own = own.astype({"sample": str, "agree": float})
    table = own.pivot_table(index="draw", columns="sample", values="agree", aggfunc="mean")
    if table.isna().to_numpy().any() or not table.size:
        raise NotTested(f"the {study} study lacks pictures of {noise} noise")
    return table.to_numpy(dtype=np.float64)


def against(
    kept: NDArray[np.float64], threshold: float, confidence: float, larger: bool
) -> Comparison:
    """A share against a threshold, by t; where all pictures are alike by the binomial.

    Without any variation t has nothing to go by, although 500 of 500 say a lot: the p-value is
    then twice the chance of that under the threshold, the interval Wilson's.
    """
    found = statistics.compare_with(kept, threshold, confidence, larger)
    share = float(kept.mean())
    if share not in (0.0, 1.0):
        return found
    n = kept.shape[1]
    sign = 1.0 if larger else -1.0
    ends = statistics.wilson_interval(round(share * n), n, confidence)
    low, high = sorted(sign * (end - threshold) for end in ends)
    p = min(1.0, 2.0 * (threshold if share == 1.0 else 1.0 - threshold) ** n)
    return replace(found, low=low, high=high, p=p, detectable=NAN, se=NAN)


def _papers_agreement(model: str | None, noise: str) -> float:
    points = paper.table("figures")
    points = points[(points["figure"] == "generalized_nullspace_left")]
    points = points[(points["y_name"] == "match_pct") & (points["series"] == noise)]
    return float(points[points["model"] == model]["y"].mean())


def _per_cent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f} %"


# --- norms ----------------------------------------------------------------------------------


def _monotone(claim: Claim, evidence: Evidence, model: str) -> list[Row]:
    """Kendall's tau of norm and lambda, means over draws; exact p-value."""
    from scipy.stats import kendalltau

    points = paper.table("figures")
    points = points[points["figure"] == "generalized_nullspace_right"]
    points = points[points["model"] == evidence.spec.models[model].paper]
    row = Row(claim.id, model, "norm against lambda", unit="tau")
    if len(points):
        ends = points.sort_values("x")["y"]
        tau = float(kendalltau(points["x"], points["y"]).statistic)
        row = replace(row, paper=tau, printed=f"norm {ends.iloc[0]:g} to {ends.iloc[-1]:g}")
    try:
        own = _study(evidence, "lambda", model)
        own = own[own["noise"] == "learned"]
        norms = own.groupby("lambda")["norm"].mean()
        if len(norms) < LEAST_LAMBDAS:
            raise NotTested(f"{len(norms)} lambdas show no order; {LEAST_LAMBDAS} are needed")
        found = kendalltau(norms.index.to_numpy(dtype=float), norms.to_numpy(dtype=float))
        effect, p = float(found.statistic), float(found.pvalue)
        if math.isnan(p):
            raise NotTested("all norms are equal")
        seeds = int(own["draw"].nunique())
        row = replace(row, effect=effect, p=p, holds=effect > 0, n=len(norms), seeds=seeds)
        level = 1.0 - evidence.spec.statistics.confidence
        return [replace(row, detectable=smallest_tau(len(norms), level))]
    except NotTested as why:
        return [replace(row, reason=str(why))]


def smallest_tau(n: int, level: float) -> float:
    """The smallest tau of n points (no ties) whose exact two-sided p-value is below the level."""
    from scipy.stats import kendalltau

    order, found = np.arange(n), NAN
    for last in range(n - 1, 0, -1):  # bubble sort downwards: one more pair is out of order each
        for place in range(last):
            own = kendalltau(np.arange(n), order, method="exact")
            if own.pvalue >= level:
                return found
            found = float(own.statistic)
            order[[place, place + 1]] = order[[place + 1, place]]
    return found


def _regrowth(claim: Claim, evidence: Evidence, model: str) -> list[Row]:
    """The fall from the first to the second noise and the growth from there to the last."""
    assert isinstance(claim.test, Regrowth)
    points = paper.table("figures")
    points = points[points["figure"] == "training_dynamics"].sort_values("x")
    theirs = points[points["series"] == "noise_norm"]["y"].to_numpy(dtype=float)
    names = ("fall of the norm after round 1", "growth of the norm from round 2 to the last")
    rows = []
    for i, name in enumerate(names):
        row = Row(claim.id, model, name, unit="% of the first norm")
        row = replace(row, paper=100.0 * _moves(theirs)[i], printed="Figure 4, digitised")
        try:
            each = [_moves(norms)[i] for norms in _norms(claim.test, evidence, model)]
            if len(each) < 2:
                raise NotTested("one seed has no spread to test against")
            n = len(each)
            found = statistics.judge(each, 0.0, n, evidence.spec.statistics.confidence)
            rows.append(replace(measured(row, found), n=None))
        except NotTested as why:
            rows.append(replace(row, reason=str(why)))
    return rows


def _moves(norms: NDArray[np.float64]) -> tuple[float, float]:
    """Fall and growth over the first norm."""
    first, second, last = float(norms[0]), float(norms[1]), float(norms[-1])
    return (first - second) / first, (last - second) / first


def _norms(test: Regrowth, evidence: Evidence, model: str) -> list[NDArray[np.float64]]:
    """The norms of the noises of every seed, in the order of rounds."""
    arm = find_arm(evidence.spec, model, test.row)
    if isinstance(evidence.histories, str):
        raise NotTested(evidence.histories)
    found = []
    for history in evidence.histories:
        made = history["spec"]
        if (made["model"], made["arm"]) == (model, arm):
            rounds = sorted(history["rounds"], key=lambda row: int(row["round"]))
            norms = [row["noise_norm"] for row in rounds if row.get("noise_norm")]
            if len(norms) < LEAST_NOISES:
                raise NotTested(
                    f"{model}, {arm}: {len(norms)} noises in a run; {LEAST_NOISES} are needed"
                )
            found.append(np.array(norms, dtype=np.float64))
    if not found:
        raise NotTested(f"{model}, {arm}: no histories")
    return found
