"""One process at a time for one output. No torch.

A scheduler that is killed leaves its jobs running, and a job that was asked to end still saves when
the scheduler has already gone; the same command again then starts a second one. It waits here for
the first to end, instead of working on the same files. The lock is the kernel's: it ends with the
process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

#: Seconds between two tries, and between two lines that say so.
_TRY, _SAY = 0.1, 60.0


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Holds the lock of an output; waits for whoever holds it.

    What killed processes left of half-written files of that name is swept. Of the processes of one
    job only the first takes it. A file system without locks is used without: then it is up to the
    user not to start the same thing twice.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / f".{out.name}.lock"
    handle = _take(path)
    try:
        _sweep(out)
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _take(path: Path) -> int | None:
    """The open lock file; None where the file system has no locks."""
    said = -_SAY
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(handle, path):  # else its holder has deleted it since it was opened
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        except BlockingIOError:
            if time.monotonic() - said >= _SAY:
                said = time.monotonic()
                holder = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
                log.warning("waiting for %s, which makes the same output (%s)", holder, path)
            time.sleep(_TRY)
        except OSError as problem:
            log.warning("%s: no lock (%s): do not start this a second time", path, problem)
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def _sweep(out: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(out.stem)}\.\w+\.[a-z0-9_]{{8}}\.\w+")
    for left in out.parent.glob(f".{out.stem}.*"):
        if pattern.fullmatch(left.name):
            left.unlink(missing_ok=True)
