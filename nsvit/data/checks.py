"""Whether the sets that a configuration names are on disk as published, before any compute.

What is wrong is found by the same code that will read the sets; here it is collected instead of
raised, and compared with the documented numbers. No torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nsvit.config import DataConfig, SetConfig
from nsvit.data.layouts import read_classes
from nsvit.data.pictures import check_image
from nsvit.data.published import PUBLISHED, Published, class_subset, imagenet_wnids
from nsvit.data.rows import Row, find_rows
from nsvit.errors import NsvitError
from nsvit.runtime import progress, seed_for

SAMPLE = 200  # pictures decoded of each set
SHOWN = 5  # damaged pictures, or classes with wrong counts, that are named
CHUNK = 10_000


@dataclass
class SetReport:
    """What was found of one set.

    Attributes:
        slug: its key under data.sets.
        folder: where it should be.
        published: what it should be, if the configuration says.
        is_missing: its folder is not there.
        pictures: how many there are (in a corruption set, in all cells together).
        classes: how many classes have pictures.
        decoded: how many pictures were read.
        problems: what is wrong, each to be read on its own.
        notes: what is worth knowing.
    """

    slug: str
    folder: Path
    published: Published | None = None
    is_missing: bool = False
    pictures: int = 0
    classes: int = 0
    decoded: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether the set can be used."""
        return not self.problems


def check(
    data: DataConfig, sample: int | None = SAMPLE, threads: int | None = None
) -> list[SetReport]:
    """Looks at every set of a configuration.

    Args:
        data: the configuration's section.
        sample: pictures to decode of each set, drawn from a fixed seed; None: all of them.
        threads: that decode; none: one per core.

    Raises:
        NsvitError: the classes file is missing or damaged.
    """
    if data.menagerie is not None:
        note = "drawn by the workflow; there is nothing to get"
        return [
            SetReport(slug, Path(data.root) / own.path, notes=[note])
            for slug, own in data.sets.items()
        ]
    classes, _ = read_classes(data.classes)
    threads = threads or os.cpu_count() or 1
    return [
        _check_set(slug, own, Path(data.root), classes, sample, threads)
        for slug, own in data.sets.items()
    ]


def _check_set(
    slug: str, own: SetConfig, root: Path, classes: Sequence[str], sample: int | None, threads: int
) -> SetReport:
    report = SetReport(slug, root / own.path, PUBLISHED[own.published] if own.published else None)
    if own.corrupt is not None:
        report.notes.append(f"made by the workflow from set {own.corrupt.source}; nothing to get")
        return report
    if not report.folder.is_dir():
        report.is_missing = True
        report.problems.append(f"{report.folder}: no such folder")
        return report
    try:
        rows = find_rows(root, own, classes)
    except NsvitError as error:
        report.problems.append(str(error))
        return report
    report.pictures = len(rows)
    report.classes = len({label for _, label, _, _ in rows})
    if own.partial:
        report.notes.append("partial: counts and classes are not compared")
    elif own.published and report.published:
        report.problems += _wrong_numbers(report.folder, own, report.published, rows, classes)
    _decode(report, own, rows, sample, threads)
    return report


# --- numbers --------------------------------------------------------------------------------


def _wrong_numbers(
    folder: Path, own: SetConfig, published: Published, rows: Sequence[Row], classes: Sequence[str]
) -> Iterator[str]:
    """How a set differs from the documented numbers of what it is said to be."""
    assert own.published is not None
    if tuple(classes) != imagenet_wnids():
        yield (
            f"data.classes: not ImageNet's 1000 classes in their order, which {published.title} "
            "has; write 'imagenet-1k'"
        )
        return
    cells = Counter((corruption, severity) for _, _, corruption, severity in rows)
    count, where = len(rows) // max(len(cells), 1), " in each corruption and severity"
    if count != published.pictures:
        yield (
            f"{folder}: {count:,} pictures{where if len(cells) > 1 else ''}, {published.title} "
            f"has {published.pictures:,}"
        )
    has = Counter(classes[label] for _, label, _, _ in rows)
    expected = class_subset(own.published)
    absent = [wnid for wnid in expected if wnid not in has]
    other = sorted(set(has) - set(expected))
    if absent:
        yield f"{folder}: no pictures of {_some(absent)}, which {published.title} has"
    if other:
        yield f"{folder}: pictures of {_some(other)}, which {published.title} has none of"
    if published.each is None:
        return
    each = published.each * len(cells)
    wrong = [wnid for wnid in expected if wnid in has and has[wnid] != each]
    if wrong:
        shown = ", ".join(f"{wnid}: {has[wnid] // len(cells)}" for wnid in wrong[:SHOWN])
        yield (
            f"{folder}: {len(wrong):,} classes have not {published.each} pictures each, as in "
            f"{published.title} ({shown}{', ...' if len(wrong) > SHOWN else ''})"
        )


def _some(wnids: Sequence[str]) -> str:
    shown = ", ".join(wnids[:SHOWN]) + (", ..." if len(wnids) > SHOWN else "")
    return f"{len(wnids)} classes ({shown})" if len(wnids) > 1 else f"class {shown}"


# --- pictures -------------------------------------------------------------------------------


def _decode(
    report: SetReport, own: SetConfig, rows: Sequence[Row], sample: int | None, threads: int
) -> None:
    """Reads some pictures or all, and says which are damaged."""
    chosen: Sequence[Row] = rows
    if sample is not None and sample < len(rows):
        rng = np.random.default_rng(seed_for("check-data", report.slug))
        chosen = [rows[i] for i in sorted(rng.choice(len(rows), sample, replace=False))]
    paths = [report.folder / row[0] for row in chosen]
    report.decoded = len(paths)
    found = progress(_complaints(paths, threads), f"decode {report.slug}", len(paths))
    damaged = [text for text in found if text]
    if not damaged:
        return
    if own.damaged == "skip":
        report.notes.append(
            f"{len(damaged)} of {len(paths)} pictures read are damaged and will be left out: "
            f"{damaged[0]}"
        )
        return
    report.problems += damaged[:SHOWN]
    if len(damaged) > SHOWN:
        report.problems.append(f"{report.folder}: {len(damaged) - SHOWN} more such pictures")


def _complaints(paths: Sequence[Path], threads: int) -> Iterator[str]:
    """What is wrong with each picture; nothing if it is whole."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), CHUNK):
            yield from pool.map(_complaint, paths[start : start + CHUNK])


def _complaint(path: Path) -> str:
    try:
        check_image(path)
    except NsvitError as error:
        return str(error)
    return ""
