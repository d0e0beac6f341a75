"""Peak memory of a piece of work done in this process: resident on Linux, allocated on a GPU."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak_of(found: MutableMapping[str, float | None], name: str) -> Iterator[None]:
    """Writes what the block took at its peak, in MiB, on top of what was there before it.

    On a GPU its memory counts, else resident memory of this process (not of those it starts).
    None where the system does not tell. What the allocator still holds of earlier work is given
    back first, as far as it can be.
    """
    gpu = torch.cuda.is_available()
    before = _begin_gpu() if gpu else _begin()
    yield
    if gpu:
        found[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    else:
        after = _status("VmHWM")
        found[name] = None if before is None or after is None else max(after - before, 0.0)


def _begin_gpu() -> float:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.memory_allocated())


def _begin() -> float | None:
    """MiB resident now, with the high-water mark set back to it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> float | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
