"""Fetching published sets: room is made sure of, archives downloaded, verified and unpacked.

Nothing that is there is touched, and a set's folder appears when it is complete. No torch.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nsvit import artifacts
from nsvit.data.archives import unpack
from nsvit.data.download import disk_error, download, free_bytes
from nsvit.data.published import Archive, Published
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

DOWNLOADS = ".downloads"  # below data.root
#: Bytes that an archive may unpack to, as a multiple of its own: pictures hardly compress.
SWELLING = 2
SPARE = 10**9  # bytes left free on the disk


def fetch(
    own: Published,
    root: Path,
    path: str,
    *,
    keep_archives: bool = False,
    get: Callable[[Archive, Path], Path] = download,
) -> bool:
    """Downloads and unpacks a published set, if it is not there.

    Args:
        own: the set.
        root: the folder of all sets.
        path: where the set belongs, below `root`.
        keep_archives: keep what was downloaded, in `<root>/.downloads`. Archives that are there
            already, by whatever means, are used.
        get: downloads one archive into a folder.

    Returns:
        Whether there was anything to do.

    Raises:
        NsvitError: no archive is public, there is too little room, another process is fetching,
            or a download or an archive is not as it should be.
    """
    target, folder = root / path, root / DOWNLOADS
    if not own.archives:
        raise NsvitError(f"{own.title}: no public archive. By hand: {own.how} ({own.place})")
    missing = [archive for archive in own.archives if not is_there(archive, target)]
    if not missing:
        log.info("%s: there already, in %s", own.title, target)
        return False
    _refuse_no_room(own, room_needed(missing, keep_archives), missing, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for archive in missing:
            if is_there(archive, target):
                continue  # made by another process while this one waited
            log.info("%s: %s from %s", own.title, archive.file, archive.url)
            file = get(archive, folder)
            try:
                _install(archive, file, target)
            except OSError as error:
                raise disk_error(target, error) from None
            if not keep_archives:
                file.unlink()
    if not keep_archives:
        _remove_if_empty(folder)
    log.info("%s: complete, in %s", own.title, target)
    return True


def is_there(archive: Archive, target: Path) -> bool:
    """Whether what an archive brings is in the set's folder."""
    if archive.parts:
        return all((target / part).is_dir() for part in archive.parts)
    return target.is_dir() and any(target.iterdir())


def room_needed(archives: Sequence[Archive], keep_archives: bool = False) -> int:
    """Bytes that fetching takes at its peak: what is unpacked, and the largest archive or all."""
    sizes = [archive.size for archive in archives]
    return sum(sizes) + (sum(sizes) if keep_archives else max(sizes, default=0))


def _refuse_no_room(own: Published, peak: int, missing: Sequence[Archive], folder: Path) -> None:
    names = [name for a in missing for name in (a.file, f"{a.file}.part")]
    there = sum((folder / name).stat().st_size for name in names if (folder / name).exists())
    needed, free = peak - there, free_bytes(folder)
    if free < needed + SPARE:
        raise NsvitError(
            f"{own.title}: fetching it takes {needed / 1e9:.1f} GB (archive and pictures), "
            f"{free / 1e9:.1f} GB are free where {folder} is; make room or move data.root"
        )


def _install(archive: Archive, file: Path, target: Path) -> None:
    """Unpacks beside the target and moves what belongs there into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{archive.file}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
    try:
        files = unpack(file, partial, limit=SWELLING * file.stat().st_size + SPARE)
        inner = _inner(archive, partial)
        note = {"url": archive.url, "checksum": archive.checksum, "files": files}
        if archive.parts:
            target.mkdir(exist_ok=True)
            for part in archive.parts:
                if not (target / part).exists():
                    os.replace(inner / part, target / part)
        else:
            os.replace(inner, target)
        # A dot file: what reads a set does not see it.
        artifacts.write_json(target / f".{archive.file}.json", note)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _inner(archive: Archive, folder: Path) -> Path:
    """Where in an unpacked archive its classes or corruptions are.

    Raises:
        NsvitError: there are no folders, or a corruption's is missing.
    """
    while True:
        inside = list(folder.iterdir())
        if archive.parts and all((folder / part).is_dir() for part in archive.parts):
            return folder
        folders = [path for path in inside if path.is_dir()]
        below = any(path.is_dir() for one in folders[:1] for path in one.iterdir())
        # A lone folder around the classes is left out, a lone class is not.
        if len(folders) == 1 and (below or archive.parts):
            folder = folders[0]
        elif archive.parts or not folders:
            wanted = ", ".join(archive.parts) or "of classes"
            raise NsvitError(
                f"{archive.file}: does not hold the folders {wanted}; it is not the published "
                "archive"
            )
        else:
            return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuses a second process that fetches into the same folder."""
    path = folder / ".lock"
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NsvitError(f"{folder}: another nsvit fetch-data is at work here; wait") from None
        except OSError as error:  # some network disks have no locks
            log.debug("%s: %s", path, error)
        yield


def _remove_if_empty(folder: Path) -> None:
    (folder / ".lock").unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
