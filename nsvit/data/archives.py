"""Unpacking archives that strangers made: tar and zip, files and folders only. No torch.

A member that is anything else, or that would land outside the target, stops the whole archive:
no published set holds one, so it is not the published file. Owners, modes and times in the
archive are ignored.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nsvit.errors import NsvitError
from nsvit.runtime import progress

BLOCK = 1 << 20
DEEPEST = 8  # folders below each other; the published sets have four
#: Errors that are the disk's fault, not the archive's.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
MOST_FILES = 5_000_000  # ImageNet-C's largest archive has a million


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive: where it belongs, how large it says it is, its content."""

    name: str
    is_folder: bool
    size: int
    source: Any  # TarInfo or ZipInfo


Opener = Callable[[_Member], Any]


def unpack(archive: Path, target: Path, limit: int) -> int:
    """Unpacks a tar (also compressed) or zip archive into a folder that is not there yet.

    Hidden files (beginning with a dot) and macOS's `__MACOSX` are left out.

    Args:
        archive: the file.
        target: a new folder; removed again if anything fails.
        limit: the most bytes that all files may have together.

    Returns:
        How many files were written.

    Raises:
        NsvitError: not an archive, a damaged one, or one with a member that is not a plain file
            or folder inside the target, is encrypted or there twice, or that is too large.
    """
    target.mkdir(parents=True)
    try:
        return _write(archive, target, limit)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, NsvitError) or not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        # tarfile and zipfile raise whatever a damaged file leads them to.
        reason = f"{type(error).__name__}: {error}"
        raise NsvitError(
            f"{archive}: a damaged archive ({reason}); delete it and fetch again"
        ) from None


def _write(archive: Path, target: Path, limit: int) -> int:
    written = files = 0
    with _members(archive) as (members, open_member):
        for member in progress(members, f"unpack {archive.name}"):
            place = target / _safe(archive, member.name)
            if _is_hidden(member.name):
                continue
            if member.is_folder:
                place.mkdir(parents=True, exist_ok=True)
                continue
            files += 1
            if written + member.size > limit or files > MOST_FILES:
                raise _refused(
                    archive, member.name, f"with it the archive has more than {limit:,} bytes"
                    if files <= MOST_FILES else f"it has more than {MOST_FILES:,} files",
                )  # fmt: skip
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_member(member) as source:
                written += _copy(archive, member, source, place)
    return files


def _copy(archive: Path, member: _Member, source: IO[bytes], place: Path) -> int:
    """Writes one file, of the size that the archive says, to a place that is free."""
    copied = 0
    try:
        with open(place, "xb") as file:
            while block := source.read(BLOCK):
                copied += len(block)
                if copied > member.size:
                    raise _refused(archive, member.name, "larger than the archive says")
                file.write(block)
    except FileExistsError:
        raise _refused(archive, member.name, "it is there twice") from None
    if copied != member.size:
        raise NsvitError(
            f"{archive}: {member.name!r} ends after {copied:,} of {member.size:,} bytes; delete "
            "the archive and fetch again"
        )
    return copied


def _refused(archive: Path, name: str, reason: str) -> NsvitError:
    return NsvitError(
        f"{archive}: member {name!r}: {reason}. No published set holds such a thing: the archive "
        "is refused and nothing of it is kept. Delete it and see where it came from"
    )


# --- members --------------------------------------------------------------------------------


def _safe(archive: Path, name: str) -> PurePosixPath:
    """The path of a member inside the target, if that is where it is."""
    path = PurePosixPath(name)
    odd = next((c for c in name if ord(c) < 32 or ord(c) == 127), None)
    if path.is_absolute() or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise _refused(archive, name, "an absolute path, or one of another system")
    if ".." in path.parts:
        raise _refused(archive, name, "it leads outside the folder")
    if odd is not None or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise _refused(archive, name, "a name that no file can have")
    if len(path.parts) > DEEPEST:
        raise _refused(archive, name, f"more than {DEEPEST} folders deep")
    return path


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


@contextmanager
def _members(archive: Path) -> Iterator[tuple[Iterator[_Member], Opener]]:
    """The members of an archive in its order, and what opens one."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield _tar_members(archive, tar), lambda member: tar.extractfile(member.source)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_members(archive, packed), lambda member: packed.open(member.source)
    else:
        raise NsvitError(f"{archive}: neither tar nor zip; delete it and fetch again")


def _tar_members(archive: Path, packed: tarfile.TarFile) -> Iterator[_Member]:
    opinion = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
    while (info := packed.next()) is not None:
        packed.members = []  # type: ignore[attr-defined]  # not millions of headers in memory
        if not (info.isdir() or info.isreg()) or info.issparse():
            kind = "a link" if info.issym() or info.islnk() else "a device, pipe or sparse file"
            raise _refused(archive, info.name, kind)
        if opinion is not None:
            try:
                opinion(info, os.devnull)
            except tarfile.TarError as error:
                raise _refused(archive, info.name, str(error)) from None
        yield _Member(info.name, info.isdir(), info.size, info)


def _zip_members(archive: Path, packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename, "a link, device or pipe")
        if info.flag_bits & 1:
            raise _refused(archive, info.filename, "it is encrypted")
        yield _Member(info.filename, info.is_dir(), info.file_size, info)
