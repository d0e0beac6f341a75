"""The claims to read: a verdict for each, then every test behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsvit.claims import NOT_TESTED, next_level
from nsvit.specs import TableSpec, of_everything
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import doubted_cells
from nsvit.tables.accuracy_notes import DOUBTED, doubt_notes
from nsvit.tables.paired import MOST_DOUBTS, doubts_on
from nsvit.tables.sheet import Cell, Part, Sheet, number, signed

if TYPE_CHECKING:
    import pandas as pd

#: Fixed decimals of the csv; effects are in their unit (points, mostly). The report rounds what
#: stands there again, and should come to what this table shows.
DECIMALS = {
    **dict.fromkeys(("paper", "effect", "low", "high", "margin"), 5),
    **dict.fromkeys(("detectable", "detectable_holm"), 5),
    **dict.fromkeys(("p", "p_holm"), 6),
}
_DETECTABLE = ("detectable", "detectable_holm")
UNITS = {"points": "", "% of the first norm": " %", "tau": " tau"}


def with_doubts(frame: pd.DataFrame, spec: TableSpec, doubts: Sequence[Doubt]) -> pd.DataFrame:
    """The claims with a note at every test that rests on numbers that are doubted.

    Args:
        frame: from `claims.judge_claims`.
        spec: models, arms and conditions.
        doubts: of the records that were tested.
    """
    doubted = doubted_cells(doubts, of_everything(spec))

    def noted(row: dict[Any, Any]) -> str:
        if not row["row"] or row["verdict"] == NOT_TESTED:
            return str(row["note"])
        arms = str(row["row"]), str(row["versus"])
        count = doubts_on(doubted, spec, str(row["model"]), arms, str(row["column"]))
        what = f"rests on numbers that {count} doubts concern" if count > 1 else ""
        what = what or ("rests on a number that a doubt concerns" if count else "")
        return "; ".join(filter(None, (row["note"], what)))

    return frame.assign(note=[noted(row) for row in frame.to_dict("records")])


def claims_sheet(frame: pd.DataFrame, spec: TableSpec, doubts: Sequence[Doubt] = ()) -> Sheet:
    """Verdicts first, then the tests of each model with the paper's numbers.

    Args:
        frame: from `claims.judge_claims`, perhaps `with_doubts`.
        spec: labels and the level.
        doubts: the same doubts, for the notes.
    """
    header = ("Claim", "Comparison", "Paper", "Here", "p (Holm)", "Detectable", "(Holm)", "Verdict")
    places = {claim: i for i, claim in enumerate(frame["claim"].drop_duplicates(), 1)}
    frame = frame.assign(place=frame["claim"].map(places))
    heads = frame[frame["level"] == "claim"]
    parts = [
        Part(heading, tuple(_head(row) for row in part.to_dict("records")))
        for heading, part in (
            ("Verdicts", heads[heads["origin"] == "paper"]),
            ("Verdicts on controls that the paper lacks", heads[heads["origin"] == "control"]),
        )
        if len(part)
    ]
    tests = frame[(frame["level"] == "test") & (frame["verdict"] != NOT_TESTED)]
    parts += [
        Part(_label(spec, str(model)), tuple(_row(row) for row in part.to_dict("records")))
        for model, part in tests.groupby("model", sort=False)
    ]
    title = "Claims: what holds at this scale"
    notes = (*_notes(frame, spec), *_doubts(frame, spec, doubts))
    return Sheet(title, header, tuple(parts), notes)


def _doubts(frame: pd.DataFrame, spec: TableSpec, doubts: Sequence[Doubt]) -> list[str]:
    """Which tests say less than they seem to, and a few of the doubts behind that."""
    noted = frame[(frame["level"] == "test") & (frame["note"] != "")]
    counts = Counter(zip(noted["place"], noted["note"], strict=True))
    found = [
        f"{DOUBTED} in {place}, {count} test{'s' * (count > 1)}: {note}."
        for (place, note), count in counts.items()
    ][: 2 * MOST_DOUBTS]
    if len(counts) > len(found):
        found.append(f"{DOUBTED} the column `note` of the csv names more tests.")
    return found + doubt_notes(doubts, of_everything(spec), MOST_DOUBTS)


def _label(spec: TableSpec, model: str) -> str:
    return spec.models[model].label if model in spec.models else model


def _head(row: dict[Any, Any]) -> tuple[Cell, ...]:
    bold = "plain" if row["verdict"] == NOT_TESTED else "best"
    title = f"{row['place']}. {row['title']}"
    texts = (Cell(title), Cell(row["where"]), Cell(""), Cell(row["reason"]))
    empty = (Cell(""),) * 3
    return (*texts, *empty, Cell(row["verdict"], style=bold))  # type: ignore[arg-type]


def _row(row: dict[Any, Any]) -> tuple[Cell, ...]:
    unit = UNITS.get(row["unit"], "")
    decimals = 2 if row["unit"] == "tau" else 1
    ends = ""
    if not math.isnan(row["low"]):
        ends = f"[{signed(row['low'])}, {signed(row['high'])}]"
    printed = "" if math.isnan(row["paper"]) else signed(row["paper"], decimals) + unit
    numbers = f" ({row['printed']})" if row["printed"] else ""
    return (
        Cell(f"{row['place']}."),
        Cell(row["comparison"] + bound(row["test"], row["margin"])),
        Cell(printed + numbers, style="paper"),
        Cell(signed(row["effect"], decimals) + unit, ends),
        Cell(_p(row["p_holm"])),
        *(Cell(smallest(row[name], row["unit"])) for name in _DETECTABLE),
        Cell(row["verdict"], mark=DOUBTED if row["note"] else ""),
    )


def bound(test: str, margin: float | None) -> str:
    """What a claim with a margin says of a difference, to put behind it; "" without one."""
    if not margin or math.isnan(margin):
        return ""
    return f", above −{margin:g}" if test == "not_worse" else f", within {margin:g}"


def smallest(value: float, unit: str) -> str:
    """A detectable effect to read; few seeds can make it larger than any difference can be."""
    if math.isnan(value):
        return ""
    decimals = 2 if unit == "tau" else 1
    return ">100" if unit == "points" and value > 100 else number(value, decimals)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(frame: pd.DataFrame, spec: TableSpec) -> list[str]:
    s = spec.statistics
    tests = frame[frame["level"] == "test"]
    made = int(tests["p"].notna().sum())
    level = f"{100 * (1 - s.confidence):g} %"
    left = next_level(tests["p_holm"].tolist(), 1.0 - s.confidence)
    notes = [
        f"A test is decided below {level} after Holm's correction over all {made} tests of this "
        "table: supported if the effect lies on the side that the claim says, else contradicted. "
        "A claim says that all its tests hold: one contradiction contradicts it; it is supported "
        "if every test that could be made is. Verdicts are computed, none is written by hand.",
        "Effects are in points where no unit stands, positive where the claim says so; brackets: "
        f"{100 * s.confidence:g} % intervals, uncorrected. Detectable: the smallest distance from "
        "the border between yes and no that would be found with 80 % power at that level; (Holm): "
        f"at p < {left:.2g}, which the next test has to reach to be decided after correction.",
        "Paper: differences of its printed numbers (arXiv 2403.10476), Average over the columns "
        "that count here. On other pictures, such as Menagerie, only signs can be compared.",
    ]
    lost = tests[tests["verdict"] == NOT_TESTED]
    for place, part in lost.groupby("place", sort=False):
        reasons = "; ".join(dict.fromkeys(part["reason"]))
        notes.append(f"Not tested in {place}: {reasons}.")
    return notes
