"""The layouts: which pictures a set's folder holds, and of which class each is. No torch.

Folders of classes, of corruptions with class folders in them, or a flat folder with a list file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from nsvit.config import SetConfig
from nsvit.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from nsvit.data.devkit import Line, devkit_lines, read_listing
from nsvit.errors import NsvitError

#: Beside the class folders of published archives (ImageNet-A and -R carry a README.txt).
_DOCUMENTS = re.compile(r"(readme|licen[cs]e)(\.\w+)?", re.IGNORECASE)

#: Path (posix, relative to the set's folder), label, corruption ("" if none), severity (or 0).
Row = tuple[str, int, str, int]


def find_rows(root: Path, own: SetConfig, classes: Sequence[str]) -> list[Row]:
    """The pictures of a set: class, then path; cells of a corruption set first.

    Args:
        root: the folder of all sets.
        own: the set.
        classes: WordNet ids in class order.

    Raises:
        NsvitError: names the folder, file or line that is missing, empty or unknown.
    """
    folder, listing = root / own.path, root / (own.list or "")
    some = own.restrict or own.partial
    if not folder.is_dir():
        raise NsvitError(
            f"{folder}: no such folder (data.root and `path` of the set); `nsvit check-data` says "
            "where it is had"
        )
    if own.layout == "corruption":
        return _corruption_rows(folder, classes, some)
    if own.layout == "list":
        return _listed_rows(folder, listing, _lines(listing, classes))
    if own.layout == "devkit":
        return _listed_rows(folder, listing, devkit_lines(listing, classes))
    return _class_rows(folder, classes, own.layout, some)


# --- class folders --------------------------------------------------------------------------


def _class_rows(
    root: Path, classes: Sequence[str], layout: str, some: bool, prefix: str = ""
) -> list[Row]:
    """Rows of a folder of class folders, in class order; `some` classes may have none."""
    number = {wnid: i for i, wnid in enumerate(classes)}
    folders: dict[int, Path] = {}
    for folder in _folders(root):
        label = _index_label(folder, len(classes)) if layout == "index" else number.get(folder.name)
        if label is None:
            raise NsvitError(
                f"{folder}: not a class folder (none of the {len(classes)} classes); remove it, or "
                "correct data.classes or the set's `layout`"
            )
        if label in folders:
            raise NsvitError(f"{folder}: class {label} has two folders, also {folders[label]}")
        folders[label] = folder
    if not folders:
        raise NsvitError(f"{root}: empty, expected class folders with pictures")
    absent = [wnid for i, wnid in enumerate(classes) if i not in folders]
    if absent and not some:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise NsvitError(
            f"{root}: no folder for {len(absent)} of {len(classes)} classes ({shown}); complete "
            "the set, or set `restrict: true` if it covers only some classes (`partial: true` if "
            "predictions are still among all)"
        )
    return [
        (f"{prefix}{folders[label].name}/{name}", label, "", 0)
        for label in sorted(folders)
        for name in _files(folders[label])
    ]


def _index_label(folder: Path, classes: int) -> int | None:
    return int(folder.name) if folder.name.isdecimal() and int(folder.name) < classes else None


def _corruption_rows(root: Path, classes: Sequence[str], some: bool) -> list[Row]:
    """Rows of corruption/severity/class folders; every cell must hold the same pictures."""
    for folder in _folders(root):
        if folder.name not in CORRUPTIONS + EXTRA_CORRUPTIONS:
            raise NsvitError(f"{folder}: not one of the 15 corruptions ({', '.join(CORRUPTIONS)})")
    rows: list[Row] = []
    first: set[str] | None = None
    for corruption in CORRUPTIONS:
        for stray in _folders(root / corruption):
            if stray.name not in {str(severity) for severity in SEVERITIES}:
                raise NsvitError(f"{stray}: not a severity (1 to 5)")
        for severity in SEVERITIES:
            cell = root / corruption / str(severity)
            found = _class_rows(cell, classes, "wnid", some)
            paths = {row[0] for row in found}
            first = paths if first is None else first
            if paths != first:
                raise NsvitError(
                    f"{cell / min(paths ^ first)}: every corruption and severity must hold the "
                    f"same pictures; this one differs from {root / CORRUPTIONS[0] / '1'}"
                )
            prefix = f"{corruption}/{severity}/"
            rows += [(prefix + path, label, corruption, severity) for path, label, _, _ in found]
    return rows


def _folders(root: Path) -> list[Path]:
    found = []
    for name, is_folder in _visible(root):
        if is_folder:
            found.append(root / name)
        elif not _DOCUMENTS.fullmatch(name):
            raise NsvitError(f"{root / name}: a file where only folders are expected; remove it")
    return found


def _visible(folder: Path) -> list[tuple[str, bool]]:
    """Names of what is in a folder, sorted, but for dot files; and whether each is a folder."""
    if not folder.is_dir():
        raise NsvitError(f"{folder}: no such folder")
    # Not a stat call for each: there are millions of pictures, often on a network disk.
    with os.scandir(folder) as entries:
        return sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))


def _files(folder: Path) -> list[str]:
    """Names of the files of a folder of pictures, sorted."""
    names = []
    for name, is_folder in _visible(folder):
        if is_folder:
            raise NsvitError(
                f"{folder / name}: a folder where only pictures are expected; remove it"
            )
        names.append(name)
    if not names:
        raise NsvitError(f"{folder}: empty, expected pictures")
    return names


# --- a list file ----------------------------------------------------------------------------


def _listed_rows(root: Path, listing: Path, lines: Sequence[Line]) -> list[Row]:
    """Rows of a flat folder whose pictures a list file names, with their labels.

    As DAmageNet is published: the pictures are named like those of ImageNet's val and are PNG
    files, while its authors' list has val's own names, which end in .JPEG. So a name that is not
    there stands for the picture that differs from it in the ending only.

    The list says which pictures there are, so a class without any is nothing to complain about.
    """
    there = [
        name for name in _files(root) if root / name != listing and not _DOCUMENTS.fullmatch(name)
    ]
    by_stem: dict[str, list[str]] = {}
    for name in there:
        by_stem.setdefault(Path(name).stem, []).append(name)
    listed: dict[str, tuple[int, int]] = {}
    known = set(there)
    for line, name, label in lines:
        alike = [name] if name in known else by_stem.get(Path(name).stem, [])
        if len(alike) != 1:
            what = f"it could be {' or '.join(alike)}" if alike else "no such picture"
            raise NsvitError(
                f"{root / name}: {what}, but line {line} of {listing} lists it; complete the set "
                "or correct the line"
            )
        if alike[0] in listed:
            raise NsvitError(
                f"{listing}, line {line}: {name} is listed twice, first in line "
                f"{listed[alike[0]][1]}; remove one of the lines"
            )
        listed[alike[0]] = (label, line)
    unlisted = [name for name in there if name not in listed]
    if unlisted:
        raise NsvitError(
            f"{root / unlisted[0]}: not listed in {listing} ({len(unlisted)} of {len(there)} are "
            "not); remove it or add a line"
        )
    return [(name, label, "", 0) for label, name in sorted((v[0], k) for k, v in listed.items())]


def _lines(listing: Path, classes: Sequence[str]) -> list[Line]:
    """The lines `<file name> <label>` of a list file; blank ones left out."""
    text = read_listing(listing)
    number = {wnid: i for i, wnid in enumerate(classes)}
    found = []
    for line, content in enumerate(text.splitlines(), 1):
        parts = content.rsplit(maxsplit=1)
        if not parts:
            continue
        if len(parts) == 1:
            raise NsvitError(
                f"{listing}, line {line}: {content!r}, expected '<file name> <label>'; correct it"
            )
        name, word = parts
        # A number is a class index, even where classes are called by numbers.
        is_number = re.fullmatch(r"[+-]?[0-9]+", word)
        label = int(word) if is_number else number.get(word, -1)
        if not 0 <= label < len(classes):
            known = f"0 to {len(classes) - 1}" if is_number else f"{classes[0]}, ..., {classes[-1]}"
            raise NsvitError(f"{listing}, line {line}: label {word!r} is no class ({known})")
        found.append((line, name.strip(), label))
    if not found:
        raise NsvitError(f"{listing}: lists no pictures")
    return found
