"""What `nsvit check-data` says: what is there, what is missing, where it is had. No torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nsvit.data.checks import SetReport
from nsvit.data.download import free_bytes
from nsvit.data.published import PUBLISHED, Published
from nsvit.data.weights import WeightsReport

WIDTH = 80


@dataclass(frozen=True)
class Room:
    """What a run will leave on disk, by the plan.

    Attributes:
        folder: where results go.
        size: bytes, if nothing of it is there yet.
    """

    folder: Path
    size: float


def as_text(
    reports: Sequence[SetReport],
    weights: Sequence[WeightsReport],
    room: Room,
    config: str,
    root: Path,
) -> str:
    """The reports for people, at most 80 columns wide where no path is longer."""
    lines = [line for report in reports for line in _set_lines(report, config)]
    lines += [line for report in weights for line in _weights_lines(report)]
    return "\n".join([*lines, *_summary(reports, weights, room, root)]) + "\n"


def as_json(
    reports: Sequence[SetReport], weights: Sequence[WeightsReport], room: Room, root: Path
) -> dict[str, Any]:
    """The reports for programs."""
    return {
        "root": str(root),
        "free_bytes": free_bytes(root),
        "needed_bytes": needed_bytes(reports),
        "good": all(own.is_good for own in reports) and all(own.is_good for own in weights),
        "sets": {report.slug: _set_json(report) for report in reports},
        "weights": [{**asdict(report), "good": report.is_good} for report in weights],
        "results": {
            "folder": str(room.folder),
            "bytes": round(room.size),
            "free_bytes": free_bytes(room.folder),
        },
    }


def needed_bytes(reports: Sequence[SetReport]) -> int:
    """Bytes that the missing sets take, as far as documented."""
    missing = [report.published for report in reports if report.is_missing]
    return sum(own.size or 0 for own in missing if own)


def _set_json(report: SetReport) -> dict[str, Any]:
    own = report.published
    content: dict[str, Any] = {
        "folder": str(report.folder),
        "good": report.is_good,
        "missing": report.is_missing,
        "pictures": report.pictures,
        "classes": report.classes,
        "decoded": report.decoded,
        "problems": report.problems,
        "notes": report.notes,
    }
    if own is not None:
        content["published"] = {
            "title": own.title, "pictures": own.pictures, "classes": own.classes,
            "place": own.place, "bytes": own.size, "licence": own.licence,
            "can_be_fetched": bool(own.archives), "how": own.how,
        }  # fmt: skip
    return content


# --- lines ----------------------------------------------------------------------------------


def _wrapped(text: str, indent: str = "  ", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _set_lines(report: SetReport, config: str) -> Iterator[str]:
    own = report.published
    state = "good" if report.is_good else "MISSING" if report.is_missing else "NOT GOOD"
    yield f"{report.slug + '  ' + (own.title if own else ''):<{WIDTH - 9}} {state:>8}"
    if report.pictures:
        yield from _wrapped(
            f"{report.folder}: {report.pictures:,} pictures of {report.classes:,} classes, "
            f"{report.decoded:,} of them decoded"
        )
    for problem in report.problems:
        yield from _wrapped(problem, "    ", "  * ")
    for note in report.notes:
        yield from _wrapped(note)
    if own is not None and not report.is_good:
        if not report.is_missing:
            yield from _wrapped("to get it anew, move the folder away first:")
        yield from advice(own, report.slug, config)
    yield ""


def _weights_lines(report: WeightsReport) -> Iterator[str]:
    state = "good" if report.is_good and not report.note else "to get"
    title = f"weights  {', '.join(report.slugs)}"
    yield f"{title:<{WIDTH - 9}} {'MISSING' if report.problem else state:>8}"
    yield from _wrapped(report.source)
    if report.problem:
        yield from _wrapped(report.problem, "    ", "  * ")
    if report.note:
        yield from _wrapped(report.note)
    yield ""


def advice(own: Published, slug: str, config: str) -> Iterator[str]:
    """Lines on where a set is had, how large it is and on which terms."""
    if own.archives:
        yield from _wrapped(f"get it   nsvit fetch-data --config {config} {slug}", " " * 11, "  ")
    else:
        yield from _wrapped(f"get it   {own.how}", " " * 11, "  ")
    yield from _wrapped(f"from     {own.place}", " " * 11, "  ")
    yield from _wrapped(f"size     {size_text(own)}", " " * 11, "  ")
    yield from _wrapped(f"licence  {own.licence}", " " * 11, "  ")


def size_text(own: Published) -> str:
    """How large a set is, and what it holds."""
    size = "not documented" if own.size is None else gigabytes(own.size)
    cells = " in each of 75 cells" if own is PUBLISHED["imagenet-c"] else ""
    return f"{size}; {own.pictures:,} pictures{cells}, {own.classes:,} classes"


def gigabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e9:,.1f} GB"


def _summary(
    reports: Sequence[SetReport], weights: Sequence[WeightsReport], room: Room, root: Path
) -> Iterator[str]:
    bad = [report.slug for report in reports if not report.is_good]
    free, needed = free_bytes(root), needed_bytes(reports)
    unknown = [r.slug for r in reports if r.is_missing and not (r.published and r.published.size)]
    text = f"Free where {root} is: {gigabytes(free)}."
    if needed:
        text += f" The missing sets take {gigabytes(needed)}, and their archives while unpacking."
        text += " THAT IS TOO LITTLE ROOM." if free < needed else ""
    if unknown:
        text += f" Sizes of {', '.join(unknown)} are not documented."
    yield from _wrapped(text, "")
    free = free_bytes(room.folder)
    text = f"Results will take about {gigabytes(round(room.size))} in {room.folder}, less what is "
    text += f"there already; {gigabytes(free)} are free."
    text += " THAT MAY BE TOO LITTLE ROOM." if free < room.size else ""
    yield from _wrapped(text, "")
    named = {report.published.title for report in reports if report.published}
    family = [own.title for slug, own in PUBLISHED.items() if not slug.startswith("imagenette")]
    other = [title for title in family if title not in named]
    if other and named & set(family):
        yield from _wrapped(f"Not in this configuration: {'; '.join(other)}.", "")
    lost = [slug for report in weights if not report.is_good for slug in report.slugs]
    if lost:
        yield from _wrapped(f"Weights of {', '.join(lost)} are missing.", "")
    if bad:
        text = f"{len(bad)} of {len(reports)} sets are not good: {', '.join(bad)}."
        yield from _wrapped(text, "")
    else:
        yield f"All {len(reports)} sets are good."
