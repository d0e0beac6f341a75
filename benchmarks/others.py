"""How busy the machine is with other things: what makes times worth quoting, or not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_STAT = Path("/proc/stat")


def watch() -> Callable[[], float | None]:
    """Begins to look.

    Returns:
        Called at the end, how many cores other processes (and other guests of the host) kept busy
        in the meantime, on average. None where the system does not tell. Processes started from
        here count as ours once they have ended.
    """
    begun, before = time.perf_counter(), _elsewhere()

    def others() -> float | None:
        after = _elsewhere()
        if before is None or after is None:
            return None
        return round(max(after - before, 0.0) / max(time.perf_counter() - begun, 1e-9), 2)

    return others


def _elsewhere() -> float | None:
    """Seconds of all cores since the machine's start that were neither idle nor this program's."""
    try:
        ticks = [int(word) for word in _STAT.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, _, _, irq, softirq, stolen = ticks
    own = os.times()
    total = (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")
    return total - (own.user + own.system + own.children_user + own.children_system)
