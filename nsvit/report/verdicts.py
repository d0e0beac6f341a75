"""The verdicts on the paper's claims, from the csv of the claims table."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nsvit.errors import NsvitError

#: A sign for every verdict, so that none is told by its colour alone.
SIGNS = {"supported": "✓", "contradicted": "✗", "undecided": "?", "not tested": "–"}

_NEEDED = ("claim", "text", "verdict")
#: Half the width of the little interval pictures, in their own units.
_HALF = 60.0


@dataclass(frozen=True)
class Comparison:
    """One tested comparison; texts as in the csv, "" where it has none."""

    verdict: str
    comparison: str
    effect: str
    interval: str
    p: str
    detectable: str
    paper: str
    picture: Picture | None


@dataclass(frozen=True)
class Picture:
    """An interval to draw around zero; x runs from -60 to 60."""

    effect: float
    low: float
    high: float
    detectable: float


@dataclass(frozen=True)
class Claim:
    """One claim and how it was tested."""

    slug: str
    text: str
    where: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Verdicts:
    """All claims, and how often each verdict was given."""

    claims: tuple[Claim, ...]
    counts: dict[str, int]


def read_verdicts(path: str | Path) -> Verdicts:
    """Reads `claims.csv`; columns that it lacks stay empty, those it has more are left out.

    Raises:
        NsvitError: missing, not csv, or without a column for the claim, its text or verdict.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise NsvitError(f"{path}: cannot be read ({error}); run its rule again") from None
    absent = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if absent:
        raise NsvitError(f"{path}: no column {', '.join(absent)}; run its rule again")
    grouped: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        grouped.setdefault(row["claim"], []).append(row)
    claims = tuple(_claim(slug, found) for slug, found in grouped.items())
    given = Counter(c.verdict for claim in claims for c in claim.comparisons)
    order = [*SIGNS, *sorted(set(given) - set(SIGNS))]
    return Verdicts(claims, {verdict: given[verdict] for verdict in order if given[verdict]})


def _claim(slug: str, rows: list[dict[str, str]]) -> Claim:
    numbers = ("effect", "low", "high", "detectable")
    found = [abs(v) for row in rows for n in numbers if (v := _number(row.get(n))) is not None]
    scale = max(found, default=0.0)
    comparisons = tuple(_comparison(row, scale) for row in rows)
    return Claim(slug, rows[0]["text"], rows[0].get("where", ""), comparisons)


def _comparison(row: dict[str, str], scale: float) -> Comparison:
    low, high, unit = row.get("low", ""), row.get("high", ""), row.get("unit", "")
    effect = _signed(row.get("effect", ""))
    return Comparison(
        verdict=row["verdict"],
        comparison=row.get("comparison", ""),
        effect=f"{effect} {unit}".strip() if effect else "",
        interval=f"[{_signed(low)}, {_signed(high)}]" if low and high else "",
        p=row.get("p_holm", ""),
        detectable=row.get("detectable", ""),
        paper=_signed(row.get("paper", "")),
        picture=_picture(row, scale),
    )


def _signed(text: str) -> str:
    value = _number(text)
    if value is None:
        return text
    return f"+{text}" if value > 0 and not text.startswith("+") else text.replace("-", "−")


def _picture(row: dict[str, str], scale: float) -> Picture | None:
    effect, low, high = (_number(row.get(name)) for name in ("effect", "low", "high"))
    if effect is None or low is None or high is None or scale == 0.0:
        return None
    by = 0.96 * _HALF / scale
    detectable = _number(row.get("detectable")) or 0.0
    return Picture(*(round(by * v, 1) for v in (effect, low, high, detectable)))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # false for NaN too
