"""Downloading large files: continued where they stopped, and checked at the end. No torch.

Pooch verifies the checksum and puts the file in its place; the downloader given to it is this
module's, because pooch's own begins anew after every cut.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nsvit.data.published import Archive
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

BLOCK = 1 << 14  # bytes; of a block that is cut off, nothing is kept
TIMEOUT = (20, 60)  # seconds to connect, and between two blocks
WAITS = (2.0, 10.0, 30.0, 60.0)  # seconds before trying again without having got anything
REPORT_EVERY = 30.0  # seconds between two lines of a log


def download(archive: Archive, folder: Path, waits: Sequence[float] = WAITS) -> Path:
    """Downloads an archive into a folder, or finds it there, and verifies its checksum.

    What has arrived when the connection is cut, or the program ended, is in `<file>.part` and is
    continued by the next call, if the server can.

    Args:
        archive: what to download.
        folder: made if it is missing.
        waits: seconds to wait before each new attempt; given up when they are used up without a
            byte having arrived in between.

    Returns:
        The path of the whole file.

    Raises:
        NsvitError: there is no connection, the server refuses, the disk is full, or the file is
            not the published one (it is deleted).
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    part = folder / f"{archive.file}.part"
    if (folder / archive.file).exists():
        log.info("%s: verifying the file that is there", archive.file)
    try:
        path = pooch.retrieve(
            archive.url,
            archive.checksum,
            fname=archive.file,
            path=folder,
            downloader=Resuming(part, archive.size if archive.exact else None, waits),
        )
    except ValueError as error:  # pooch's word for a wrong checksum
        raise NsvitError(
            f"{archive.url}: not the published file ({error}). If this happens again, its authors "
            "may have replaced it: tell the developers of nsvit"
        ) from None
    except OSError as error:
        raise disk_error(folder, error) from None
    return Path(path)


def disk_error(folder: Path, error: OSError) -> NsvitError:
    """The error for a folder that cannot be written to."""
    if error.errno == errno.ENOSPC:
        return NsvitError(f"{folder}: the disk is full; what arrived is kept, make room")
    return NsvitError(f"{folder}: cannot be written to ({error})")


class Resuming:
    """A downloader for pooch that continues `<file>.part` by HTTP range requests.

    Args:
        part: where bytes are gathered.
        size: of the whole file in bytes, if it is known.
        waits: as `download`.
    """

    def __init__(self, part: Path, size: int | None, waits: Sequence[float] = WAITS) -> None:
        self.part, self.size, self.waits = part, size, waits

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Downloads `url` to `output_file`, a name that pooch chose."""
        del pooch
        import requests

        waits = list(self.waits)
        while True:
            before = self._have()
            try:
                if self._continue(url):
                    break
                reason = "the connection was cut"
            except requests.exceptions.HTTPError as error:
                status = 0 if error.response is None else error.response.status_code
                if status not in (408, 429, 500, 502, 503, 504):
                    raise NsvitError(f"{url}: {error}; the file may have moved") from None
                reason = str(error)
            except requests.exceptions.RequestException as error:
                reason = f"{type(error).__name__}: {error}"
            if self._have() > before:
                waits = list(self.waits)
            if not waits:
                raise NsvitError(self._given_up(url, reason))
            log.warning("%s: %s; trying again", self.part.stem, reason)
            time.sleep(waits.pop(0))
        log.info("%s: verifying the checksum", self.part.stem)
        shutil.move(self.part, output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _given_up(self, url: str, reason: str) -> str:
        return (
            f"{url}: {reason}. {self._have():,} bytes have arrived and are kept: run it again to "
            f"continue, or download the file by other means to {self.part.with_suffix('')}"
        )

    def _continue(self, url: str) -> bool:
        """One request for what is missing; whether the file is whole after it."""
        import requests

        have = self._have()
        # Compressed on the way, a range would be one of other bytes.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if have and answer.status_code == 416:  # nothing beyond what there is
                whole = _total(answer) or self.size
                if whole == have:
                    return True
                self.part.unlink()  # more than there should be: begin anew
                return False
            answer.raise_for_status()
            if have and not _continues_at(answer, have):
                log.info("%s: the server cannot continue; from the start", self.part.stem)
                have = 0
            whole = _total(answer) or self.size
            self._refuse_other_size(url, _total(answer))
            self._gather(answer, have, whole)
        return whole is None or self._have() == whole

    def _refuse_other_size(self, url: str, whole: int | None) -> None:
        if None not in (self.size, whole) and self.size != whole:
            raise NsvitError(
                f"{url}: {whole:,} bytes there, {self.size:,} were published: not the same file"
            )

    def _gather(self, answer: Any, have: int, whole: int | None) -> None:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        meter = _Meter(self.part.stem, have, whole)
        with open(self.part, "ab" if have else "wb") as file, meter:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                meter.add(len(block))
                if whole is not None and meter.have > whole:
                    raise NsvitError(f"{answer.url}: sends more than the {whole:,} bytes it has")


def _continues_at(answer: Any, start: int) -> bool:
    """Whether the server sends what was asked for, not the whole file or another part of it."""
    content = answer.headers.get("Content-Range", "")
    return bool(answer.status_code == 206 and content.startswith(f"bytes {start}-"))


def _total(answer: Any) -> int | None:
    """Bytes of the whole file, as far as the server tells."""
    stated = answer.headers.get("Content-Range", "").rpartition("/")[2]
    if not stated and answer.status_code == 200:
        stated = answer.headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() else None


class _Meter:
    """Bytes, rate and time left: a bar on a terminal, now and then a line in a log."""

    def __init__(self, name: str, have: int, whole: int | None) -> None:
        from tqdm import tqdm

        self.name, self.whole, self.have, self.start = name, whole, have, have
        self.began = self.told = time.monotonic()
        self.bar = tqdm(
            desc=name, initial=have, total=whole, unit="B", unit_scale=True, leave=False,
            disable=not sys.stderr.isatty(), dynamic_ncols=True,
        )  # fmt: skip

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        """Counts bytes that have arrived."""
        self.have += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.told >= REPORT_EVERY:
            self.told = now
            log.info("%s", self.line(now))

    def line(self, now: float) -> str:
        """How far it is, how fast, and how long it will take."""
        rate = (self.have - self.start) / max(now - self.began, 1e-9)
        text = f"{self.name}: {self.have / 1e6:,.0f} MB"
        if self.whole:
            text += f" of {self.whole / 1e6:,.0f} ({100 * self.have / self.whole:.0f} %)"
        text += f", {rate / 1e6:.1f} MB/s"
        if self.whole and rate:
            text += f", {(self.whole - self.have) / rate / 60:.0f} min left"
        return text


def free_bytes(path: Path) -> int:
    """Bytes that can be written where `path` is or will be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(os.fspath(path)).free
