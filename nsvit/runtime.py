"""Seeds, device, logging and progress: everything about a run that is not its result."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from nsvit import launcher
from nsvit.errors import NsvitError
from nsvit.progress import Loop, stage

if TYPE_CHECKING:
    import torch

__all__ = [
    "clock", "device", "generator", "prepare", "progress", "seed_for", "seeded", "setup_logging",
    "stage",
]  # fmt: skip

T = TypeVar("T")


def seed_for(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    ``seed_for(seed, "noise", round)`` and ``seed_for(seed, "batch", round)`` are unrelated
    streams, the same on every machine and for any number of processes.
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU torch generator seeded by `seed_for` of the parts.

    Random numbers are drawn on the CPU and then moved, so that they do not depend on the device.
    """
    import torch

    return torch.Generator().manual_seed(seed_for(*parts))


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Runs a block with the global random states of python, numpy and torch set from the parts.

    For library code (image augmentations) that draws from global state; restored afterwards.
    """
    import random

    import numpy as np
    import torch

    seed = seed_for(*parts)
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def device(name: str | None = None) -> torch.device:
    """The device to compute on: as named, else from NSVIT_DEVICE, else a GPU if there is one.

    Raises:
        NsvitError: the named device is not there.
    """
    import torch

    name = name or os.environ.get("NSVIT_DEVICE") or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise NsvitError(f"device {name!r} (NSVIT_DEVICE) cannot be used: {reason}") from None
    return torch.device(name)


def clock(device: torch.device) -> float:
    """Seconds on a clock, read once the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


#: Processes that read pictures ahead of the one that computes.
_workers = 0


def workers() -> int:
    """How many processes may read pictures ahead; results do not depend on it."""
    return _workers


def prepare(threads: int | None = None) -> None:
    """Makes torch deterministic and bounds its threads.

    All but one of the threads also read pictures ahead (`workers`): on a GPU they have little else
    to do. Results are bit-identical only for the same number of threads; the rules fix it.

    Args:
        threads: of the job on this machine; its processes share them.
    """
    import torch

    global _workers
    if threads:
        own = max(threads // launcher.started_here(), 1)
        torch.set_num_threads(own)
        _workers = own - 1
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every tensor is filled with NaN before it is computed. What nobody writes, nobody reads.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _steady_memory()


#: Of glibc's malloc.h; other libraries have no `mallopt`.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Blocks of this size (bytes) and more are mapped, and go back to the system when they are freed.
_MAPPED = 8 * 2**20
#: Free memory (bytes) at the end of the heap that is kept for the next step.
_KEPT = 32 * 2**20


def _steady_memory() -> None:
    """Keeps memory flat in the number of pictures, where the allocator is glibc's.

    glibc by itself raises the size from which it maps, up to 32 MiB, so that batches of pictures
    come to lie in the heap between what is kept, and the heap grows with the set. And it gives the
    end of the heap back after every step, only to ask for it again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def setup_logging(verbose: bool = False) -> None:
    """Logs to standard error: short lines, timestamps only when they go to a file."""
    terminal = sys.stderr.isatty()
    level, text = logging.DEBUG if verbose else logging.INFO, "%(message)s"
    if not launcher.is_first():  # of several processes that compute one result
        level, text = logging.ERROR, f"process {os.environ['RANK']}: %(message)s"
    elif not terminal:
        text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level, format=text, force=True)
    for noisy in ("timm", "matplotlib", "PIL", "fontTools", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Loop[T]:
    """Wraps an iterable: a bar on a terminal, lines in a log (steps, rate, time left).

    `Loop.note` of what is returned shows numbers beside it; see `nsvit.progress`.
    """
    return Loop(items, description, total)
