"""The verdicts on the paper's claims, from the csv of the claims table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsvit.claims import NOT_TESTED
from nsvit.errors import NsvitError
from nsvit.tables.claims import bound, smallest

#: A sign for every verdict, so that none is told by its colour alone.
SIGNS = {"supported": "✓", "contradicted": "✗", "undecided": "?", "not tested": "–"}
ORIGINS = {"paper": "What the paper claims", "control": "Controls that the paper lacks"}

_NEEDED = ("claim", "level", "model", "title", "origin", "verdict")
#: Before and after the correction over all tests.
_DETECTABLE = ("detectable", "detectable_holm")
#: Half the width of the little interval pictures, in their own units.
_HALF = 60.0

Row = dict[str, str]


@dataclass(frozen=True)
class Picture:
    """An interval to draw around zero, and the ends of a band; x runs from -60 to 60."""

    effect: float
    low: float
    high: float
    first: float
    last: float


@dataclass(frozen=True)
class Test:
    """One test that was made; texts are "" where the csv has none."""

    verdict: str
    comparison: str
    effect: str
    interval: str
    p: str
    detectable: str
    paper: str
    note: str
    picture: Picture | None


@dataclass(frozen=True)
class Tested:
    """A claim on one model: its tests, and why others could not be made."""

    label: str
    verdict: str
    tests: tuple[Test, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim, what this run says of it altogether, and on each model."""

    slug: str
    title: str
    where: str
    verdict: str
    reason: str
    models: tuple[Tested, ...]


@dataclass(frozen=True)
class Group:
    """Claims of one origin, and how often each verdict was given."""

    heading: str
    claims: tuple[Claim, ...]
    counts: dict[str, int]


def read_verdicts(path: str | Path, labels: Mapping[str, str] | None = None) -> tuple[Group, ...]:
    """Reads `claims.csv`, the frame of `nsvit.claims.judge_claims`; most columns may be absent.

    Args:
        path: the file.
        labels: of models, by slug.

    Raises:
        NsvitError: missing, not csv, or without a column that is needed.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
            names = reader.fieldnames or ()  # of an empty file: asked for while it is open
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise NsvitError(f"{path}: cannot be read ({error}); run its rule again") from None
    absent = [name for name in _NEEDED if name not in names]
    if absent:
        raise NsvitError(f"{path}: no column {', '.join(absent)}; run its rule again")
    by_origin: dict[str, dict[str, list[Row]]] = {origin: {} for origin in ORIGINS}
    for row in rows:
        by_origin.setdefault(row["origin"], {}).setdefault(row["claim"], []).append(row)
    return tuple(
        _group(ORIGINS.get(origin, origin), [_claim(own, labels or {}) for own in found.values()])
        for origin, found in by_origin.items()
        if found
    )


def _group(heading: str, claims: list[Claim]) -> Group:
    given = Counter(claim.verdict for claim in claims)
    order = [*SIGNS, *sorted(set(given) - set(SIGNS))]
    return Group(heading, tuple(claims), {v: given[v] for v in order if given[v]})


def _claim(rows: Sequence[Row], labels: Mapping[str, str]) -> Claim:
    whole = next((row for row in rows if row["level"] == "claim"), rows[0])
    models = dict.fromkeys(row["model"] for row in rows if row["model"])
    tested = (_tested(slug, labels, [r for r in rows if r["model"] == slug]) for slug in models)
    where, reason = whole.get("where", ""), whole.get("reason", "")
    return Claim(whole["claim"], whole["title"], where, whole["verdict"], reason, tuple(tested))


def _tested(slug: str, labels: Mapping[str, str], rows: Sequence[Row]) -> Tested:
    whole = next((row for row in rows if row["level"] == "model"), rows[0])
    tests = [row for row in rows if row["level"] == "test"]
    made = [row for row in tests if row["verdict"] != NOT_TESTED]
    lost = Counter(row.get("reason", "") for row in tests if row["verdict"] == NOT_TESTED)
    numbers = ("effect", "low", "high", "detectable")
    sizes = [abs(v) for row in made for n in numbers if (v := _number(row.get(n))) is not None]
    return Tested(
        label=labels.get(slug, slug),
        verdict=whole["verdict"],
        tests=tuple(_test(row, max(sizes, default=0.0)) for row in made),
        reasons=tuple(f"{count} not tested: {reason}" for reason, count in lost.items()),
    )


def _test(row: Row, scale: float) -> Test:
    unit = row.get("unit", "")
    places = 2 if unit == "tau" else 1
    effect, low, high, paper = (
        _signed(row.get(name), places) for name in ("effect", "low", "high", "paper")
    )
    given = (_number(row.get(name)) for name in _DETECTABLE)
    found, corrected = ("" if value is None else smallest(value, unit) for value in given)
    printed, margin = row.get("printed", ""), _number(row.get("margin"))
    return Test(
        verdict=row["verdict"],
        comparison=row.get("comparison", "") + bound(row.get("test", ""), margin),
        effect=f"{effect} {unit}".strip() if effect else "",
        interval=f"[{low}, {high}]" if low and high else "",
        p=_p(_number(row.get("p_holm"))),
        detectable=found + (f", {corrected} after correction" if corrected else ""),
        paper=f"{paper} ({printed})" if paper and printed else paper or printed,
        note=row.get("note", ""),
        picture=_picture(row, scale),
    )


def _signed(text: str | None, places: int) -> str:
    value = _number(text)
    if value is None:
        return ""
    if float(f"{value:.{places}f}") == 0.0:
        return f"{0:.{places}f}"
    return f"{value:+.{places}f}".replace("-", "−")


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _picture(row: Row, scale: float) -> Picture | None:
    effect, low, high = (_number(row.get(name)) for name in ("effect", "low", "high"))
    if effect is None or low is None or high is None or scale == 0.0:
        return None
    by = 0.96 * _HALF / scale
    ends = (min(max(by * end, -_HALF), _HALF) for end in _band(row))
    return Picture(*(round(v, 1) for v in (by * effect, by * low, by * high, *ends)))


def _band(row: Row) -> tuple[float, float]:
    """What a claim with a margin says, else the effects that are too small to be decided."""
    if margin := _number(row.get("margin")):
        return -margin, float("inf") if row.get("test") == "not_worse" else margin
    given = (_number(row.get(name)) for name in reversed(_DETECTABLE))
    found = next((value for value in given if value is not None), 0.0)
    return -found, found


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # false for NaN too
