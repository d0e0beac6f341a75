"""From tests to verdicts, by rule; no verdict is written anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nsvit import statistics
from nsvit.claims.evidence import Evidence
from nsvit.claims.rows import Row, contrast_rows
from nsvit.claims.schema import Agreement, Claim, Monotone, Regrowth
from nsvit.claims.studies import study_rows

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NOT_TESTED = "not tested"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED)

COLUMNS = [
    *("claim", "level", "model", "title", "where", "origin", "test", "comparison", "column"),
    *("unit", "printed", "paper", "effect", "low", "high", "p", "p_holm", "detectable"),
    *("detectable_holm", "margin", "n", "seeds", "verdict", "reason", "row", "versus", "note"),
]


def judge_claims(claims: Sequence[Claim], evidence: Evidence) -> pd.DataFrame:
    """Every test of every claim, and what follows for each claim on each model and altogether.

    A test is decided where its p-value, corrected after Holm over all tests made, is below
    1 - confidence: `supported` if the effect lies on the side that the claim says, else
    `contradicted`. A claim says that all its tests hold: one contradiction contradicts it, and
    it is supported where everything that could be tested is supported.

    Args:
        claims: from `read_claims`.
        evidence: from `gather`.

    Returns:
        Columns `COLUMNS`; `level` is "test", "model" (all tests of a claim on a model) or
        "claim". Numbers belong to tests. `reason` says why something was not tested, and for
        models and claims how the tests came out. `test` is its kind in the file, `row` and
        `versus` are its arms, `note` what it leaves out. `detectable_holm` is `detectable` at the
        level that the correction leaves: an undecided effect is nearer to its border than that.
    """
    import pandas as pd

    rows = [row for claim in claims for row in _tests(claim, evidence)]
    corrected = statistics.holm([row.p for row in rows])
    alpha = 1.0 - evidence.spec.statistics.confidence
    left = next_level([float(p) for p in corrected], alpha)
    tests = [
        {
            **vars(row),
            "level": "test",
            "p_holm": p,
            "detectable_holm": statistics.smallest_effect(row.se, row.df, left),
            "verdict": _verdict(row, float(p), alpha),
        }
        for row, p in zip(rows, corrected, strict=True)
    ]
    out = []
    for claim in claims:
        facts = {"claim": claim.id, "title": claim.title}
        facts |= {"where": claim.where, "origin": claim.origin, "test": claim.test.kind}
        own = [{**test, **facts} for test in tests if test["claim"] == claim.id]
        out.append({**facts, "level": "claim", "model": "", **_together(own)})
        for model in dict.fromkeys(test["model"] for test in own):
            mine = [test for test in own if test["model"] == model]
            out += [{**facts, "level": "model", "model": model, **_together(mine)}, *mine]
    frame = pd.DataFrame(out, columns=COLUMNS)
    texts = ["comparison", "column", "unit", "printed", "row", "versus", "note"]
    return frame.fillna(dict.fromkeys(texts, "")).astype({"n": "Int64", "seeds": "Int64"})


def _tests(claim: Claim, evidence: Evidence) -> list[Row]:
    if isinstance(claim.test, Agreement | Monotone | Regrowth):
        return study_rows(claim, evidence)
    return contrast_rows(claim, evidence)


def next_level(corrected: Sequence[float], alpha: float) -> float:
    """What an uncorrected p-value has to be below for one more test to be decided after Holm.

    Args:
        corrected: p-values after Holm; NaN for what was not tested.
        alpha: of the family.
    """
    return alpha / max(1, sum(p >= alpha for p in corrected))


def _verdict(row: Row, p: float, alpha: float) -> str:
    if p != p:  # NaN: nothing was tested
        return NOT_TESTED
    if p >= alpha:
        return UNDECIDED
    return SUPPORTED if row.holds else CONTRADICTED


def combine(verdicts: Iterable[str]) -> str:
    """What several verdicts say together, where all of them have to hold."""
    tested = {verdict for verdict in verdicts if verdict != NOT_TESTED}
    if not tested:
        return NOT_TESTED
    if CONTRADICTED in tested:
        return CONTRADICTED
    return SUPPORTED if tested == {SUPPORTED} else UNDECIDED


def _together(tests: Sequence[dict[str, object]]) -> dict[str, str]:
    counts = Counter(str(test["verdict"]) for test in tests)
    shown = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]]
    return {"verdict": combine(counts), "reason": ", ".join(shown)}
