"""The software and the hardware that this process runs on. Never imports torch."""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

#: Packages whose version can change a number or the course of a run.
PACKAGES = ("torch", "timm", "numpy", "snakemake")


def made_with() -> dict[str, str | int]:
    """What an artefact that is written now is made with.

    Returns:
        python and the version of each of `PACKAGES` that is installed; processor (its name),
        cores (that this process may use); gpu (its name), only where this process has used one;
        processes, only where several compute together.
    """
    found: dict[str, str | int] = dict(_unchanging())
    gpu, processes = _gpu(), _processes()
    found |= {"gpu": gpu} if gpu else {}
    return found | ({"processes": processes} if processes > 1 else {})


@functools.cache
def _unchanging() -> tuple[tuple[str, str | int], ...]:
    versions = {name: _version(name) for name in PACKAGES}
    known = {name: version for name, version in versions.items() if version}
    return (
        ("python", platform.python_version()),
        *known.items(),
        ("processor", _processor()),
        ("cores", _cores()),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The processor's name: Linux tells it in a file, other systems through `platform`."""
    try:
        lines = Path(cpuinfo).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu() -> str | None:
    """The GPU that this process has used, if torch is loaded and has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_name())


def _processes() -> int:
    """How many processes compute together, if torch is loaded and they have joined."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return 1
    return int(dist.get_world_size())
