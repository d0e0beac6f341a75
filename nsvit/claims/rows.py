"""Tests of claims that compare two rows of a table on some columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nsvit import paper, statistics
from nsvit.claims.evidence import Evidence
from nsvit.claims.schema import (
    AVERAGE,
    Arm,
    Better,
    Claim,
    Contrast,
    Equivalent,
    NotWorse,
)
from nsvit.errors import NsvitError
from nsvit.specs import TableSpec
from nsvit.statistics import Comparison

NAN = math.nan


@dataclass(frozen=True)
class Row:
    """One test of a claim on one model; a positive effect is what the claim says.

    Attributes:
        claim: its id.
        model: slug, or the paper's name of a model that the configuration lacks.
        comparison: what is tested, for people.
        reason: why it was not tested, "" if it was.
        column: slug of the condition, "average", or "" for studies.
        unit: of effect, interval, paper, detectable and margin.
        paper: the paper's effect; NaN where it prints none.
        printed: the paper's numbers behind that, for people.
        effect: this run's.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        p: two-sided, before correction.
        holds: whether the effect lies on the side that the claim says.
        detectable: the smallest distance from the border between the sides that would be found
            with 80 % power before correction.
        margin: of equivalence; NaN for other tests.
        n: pictures (lambdas, for tau).
        seeds: seeds or draws.
        row: slug of the first arm; "" for studies and what was not found.
        versus: slug of the second.
        note: what a test that was made leaves out.
        se: standard error of the effect, in its unit; NaN where the test is not by t.
        df: its degrees of freedom.
    """

    claim: str
    model: str
    comparison: str
    reason: str = ""
    column: str = ""
    unit: str = "points"
    paper: float = NAN
    printed: str = ""
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    holds: bool = False
    detectable: float = NAN
    margin: float = NAN
    n: int | None = None
    seeds: int | None = None
    row: str = ""
    versus: str = ""
    note: str = ""
    se: float = NAN
    df: float = NAN


class NotTested(Exception):
    """Why a test cannot be made here."""


def models_of(claim: Claim, spec: TableSpec) -> tuple[list[str], list[str]]:
    """The configuration's models that carry a name of the claim, and the names without one."""
    found = [slug for slug, model in spec.models.items() if model.paper in claim.models]
    named = {spec.models[slug].paper for slug in found}
    return found, [name for name in claim.models if name not in named]


def absent(name: str) -> str:
    """Why a model of the paper is not tested."""
    return f"no model is named {name!r} (models.<model>.paper)"


def contrast_rows(claim: Claim, evidence: Evidence) -> list[Row]:
    """One row for each model, contrast and column."""
    test = claim.test
    assert isinstance(test, Better | Equivalent | NotWorse)
    models, lacking = models_of(claim, evidence.spec)
    return [
        _contrast_row(claim, evidence, model, contrast, column)
        for model in [*models, *lacking]
        for contrast in test.contrasts
        for column in contrast.columns
    ]


def _contrast_row(
    claim: Claim, evidence: Evidence, model: str, contrast: Contrast, column: str
) -> Row:
    spec = evidence.spec
    name = model if model not in spec.models else spec.models[model].paper
    printed, effect = _papers(str(name), contrast, column, None)
    row = Row(claim.id, model, _named(contrast, column), printed=printed, paper=effect)
    try:
        if model not in spec.models:
            raise NotTested(absent(model))
        first, second = find_arm(spec, model, contrast.row), find_arm(spec, model, contrast.versus)
        conditions = find_columns(spec, model, (first, second), column)
        slug = AVERAGE if column == AVERAGE else conditions[0]
        label = "Average" if column == AVERAGE else spec.conditions[slug].label
        printed, effect = _papers(
            str(name), contrast, column, [spec.conditions[one].paper for one in conditions]
        )
        text = f"{spec.arms[first].label} − {spec.arms[second].label}: {label}"
        row = Row(claim.id, model, text, column=slug, printed=printed, paper=effect)
        row = replace(row, row=first, versus=second)
        return _judged(row, claim, _compared(evidence, model, first, second, conditions))
    except (NotTested, NsvitError) as why:
        return Row(**{**vars(row), "reason": str(why)})


def _compared(
    evidence: Evidence, model: str, first: str, second: str, conditions: tuple[str, ...]
) -> Comparison:
    if isinstance(evidence.records, str):
        raise NotTested(evidence.records)
    untrained = evidence.spec.untrained
    found = statistics.compare(
        evidence.records, (model, first), (model, second), conditions, untrained=untrained
    )
    if found is None:
        raise NotTested(
            f"{model}: the records have no common seed of {first} and {second} with these columns"
        )
    return found


def _judged(row: Row, claim: Claim, found: Comparison) -> Row:
    """The row with the comparison's numbers in points, and the p-value of the claim's test."""
    test, margin = claim.test, NAN
    p, holds = found.p, found.effect > 0
    if isinstance(test, Equivalent | NotWorse):
        margin = test.margin
        p, holds = within(found, margin / 100.0, below=isinstance(test, Equivalent))
    return measured(row, found, p=p, holds=holds, margin=margin)


def measured(row: Row, found: Comparison, **more: float) -> Row:
    """The row with a comparison of fractions in points."""
    names = ("effect", "low", "high", "detectable", "se")
    numbers = {name: 100.0 * getattr(found, name) for name in names}
    own = {"p": found.p, "holds": found.effect > 0, "n": found.n, "seeds": found.seeds}
    own["df"] = found.df
    reason = "nothing varies between pictures or seeds" if math.isnan(found.p) else ""
    note = "one seed, and no arm has several: of runs, not of methods"
    texts = {"reason": reason, "note": note if found.unknown_spread else ""}
    return Row(**{**vars(row), **numbers, **own, **texts, **more})  # type: ignore[arg-type]


def within(found: Comparison, margin: float, below: bool) -> tuple[float, bool]:
    """Two-sided p-value and side of an effect against a margin: two one-sided tests, doubled.

    At level alpha the effect counts as inside where the interval of confidence 1 - alpha lies
    inside the margin, as outside where it lies outside.

    Args:
        found: the comparison.
        margin: fraction, positive.
        below: whether both +margin and -margin bound the inside, else only -margin.
    """
    inside = found.effect > -margin and (not below or found.effect < margin)
    above_low, above_high = found.above(-margin), found.above(margin)
    if inside:
        p = max(above_low, 1.0 - above_high) if below else above_low
    else:
        p = min(1.0 - above_low, above_high) if below else 1.0 - above_low
    return min(1.0, 2.0 * p), inside


# --- names ----------------------------------------------------------------------------------


def find_arm(spec: TableSpec, model: str, wanted: Arm) -> str:
    """The slug of an arm of a model.

    Raises:
        NotTested: the paper has no row of that name, the configuration has no such arm, or not
            for this model.
    """
    if wanted.paper is not None and wanted.paper not in paper.methods():
        known = ", ".join(paper.methods())
        raise NotTested(f"the paper has no row {wanted.paper!r}; it has {known}")
    named = [s for s, arm in spec.arms.items() if wanted.paper and arm.paper == wanted.paper]
    named += [
        s for s, arm in spec.arms.items() if wanted.kind and arm.kind == wanted.kind
        and (arm.paper is None or wanted.paper is None)
    ]  # fmt: skip
    if not named:
        texts = [f"paper: {wanted.paper}" if wanted.paper else "", f"kind: {wanted.kind}"]
        raise NotTested(f"no arm has {' or '.join(filter(None, texts[: 1 + bool(wanted.kind)]))}")
    own = [slug for slug in named if slug in spec.arms_of(model)]
    if not own:
        raise NotTested(f"{model} is not finetuned with {named[0]}")
    return own[0]


def find_columns(
    spec: TableSpec, model: str, arms: tuple[str, str], column: str
) -> tuple[str, ...]:
    """The conditions behind a column of the paper.

    Raises:
        NotTested: the paper has no such column, or there is no condition that both arms are
            evaluated under.
    """
    if column not in (*paper.COLUMNS, AVERAGE):
        known = ", ".join((*paper.COLUMNS, AVERAGE))
        raise NotTested(f"the paper has no column {column!r}; it has {known}")
    if column == AVERAGE:
        found = spec.averaged(model, *arms)
        if not found:
            raise NotTested(f"{model}: no column that counts in Average is common to both")
        return found
    named = [slug for slug, one in spec.conditions.items() if one.paper == column]
    if not named:
        raise NotTested(f"no condition has paper: {column}")
    own = [slug for slug in named if all(spec.is_asked(model, arm, slug) for arm in arms)]
    if not own:
        raise NotTested(f"{model}: {arms[0]} and {arms[1]} are not both evaluated under {named[0]}")
    return (own[0],)


def _named(contrast: Contrast, column: str) -> str:
    """What is compared, where the configuration lacks it."""
    first, second = (one.paper or str(one.kind) for one in (contrast.row, contrast.versus))
    return f"{first} − {second}: {column}"


def _papers(
    model: str, contrast: Contrast, column: str, columns: list[str | None] | None
) -> tuple[str, float]:
    """The paper's two numbers as text, and their difference, positive where row is better."""
    methods = (contrast.row.paper, contrast.versus.paper)
    if None in methods:
        return "", NAN
    if column == AVERAGE:
        wanted = columns or list(paper.COLUMNS)
        values = [paper.average(model, method, wanted) for method in methods]
    else:
        values = [paper.row(model, method).get(column) for method in methods]
    first, second = values
    if first is None or second is None:
        return "", NAN
    if column in paper.ERRORS:
        first, second = second, first
    difference = round(first - second, 6)  # 71.1 - 55.95 is 15.15, also to floats
    return " − ".join(f"{round(value, 2):g}" for value in (first, second)), difference
