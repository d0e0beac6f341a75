"""Where the time of a side goes, by torch's own profiler: for sides that miss their target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

#: Operations that are named.
MOST = 6


def largest(work: Callable[[], Any]) -> str:
    """The operations that took most of the time of one run, with their parts of it."""
    gpu = torch.cuda.is_available()
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    ) as it:
        work()
    attribute = "self_device_time_total" if gpu else "self_cpu_time_total"
    times = {event.key: float(getattr(event, attribute)) for event in it.key_averages()}
    total = sum(times.values())
    if not total:
        return "nothing that torch does"
    first = sorted(times.items(), key=lambda item: -item[1])[:MOST]
    return ", ".join(f"{name} {100 * own / total:.0f} %" for name, own in first)
