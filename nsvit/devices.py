"""Which GPU a job computes on: never one that another job of this machine holds.

Snakemake counts GPUs (`resources: gpu`) but does not say which one is whose. A job therefore takes
a lock (flock) on a device's file before torch is loaded and shows itself that device alone
(CUDA_VISIBLE_DEVICES). The kernel gives the lock back when the process ends, however it ends.
Inside the allocation of a cluster the scheduler has chosen. Never imports torch.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Set to the devices that are held, for processes that this one starts: they take no lock.
HELD = "NSVIT_DEVICES_HELD"
#: Where the files are, one per device; every user of the machine must mean the same folder.
LOCKS = "NSVIT_DEVICE_LOCKS"
#: Jobs that may share a device (small models on a large GPU); 1 unless set.
SHARE = "NSVIT_JOBS_PER_GPU"
#: The number of a job in the allocation of SLURM, PBS, LSF or SGE.
ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


@dataclass(frozen=True)
class Claim:
    """Devices that this process holds until it ends, or until `release`.

    `devices` are entries of CUDA_VISIBLE_DEVICES; none where there is no GPU or a scheduler has
    chosen. `locks` are open file descriptors, for `pass_fds` to processes that should hold on.
    """

    devices: tuple[str, ...] = ()
    locks: tuple[int, ...] = ()

    def release(self) -> None:
        """Gives the devices back."""
        for lock in self.locks:
            os.close(lock)


_mine: list[Claim] = []  # keeps the locks open until the process ends


def claim(processes: int | str = 1) -> Claim:
    """Holds a GPU for each of `processes` and makes torch see these alone.

    To be called before torch looks for GPUs. Waits while too few are free. Does nothing where
    there is no GPU, NSVIT_DEVICE names another kind of device or one GPU (cuda:1), a parent
    process holds the devices, or a scheduler gave this job no more of them than it needs.

    Args:
        processes: how many, or "auto": every GPU that is visible.

    Raises:
        NsvitError: there are too few GPUs, or the folder of locks cannot be used.
    """
    wanted = os.environ.get("NSVIT_DEVICE") or "auto"
    if wanted not in ("auto", "cuda") or HELD in os.environ:
        return Claim()
    found = visible()
    count = int(processes) if str(processes).isdigit() else len(found)
    inside = next((os.environ[name] for name in ALLOCATIONS if os.environ.get(name)), None)
    if not found or (inside and len(found) <= count):
        return Claim()
    if count > len(found):
        raise NsvitError(
            f"{count} GPUs are asked for and {len(found)} are visible ({', '.join(found)}): ask "
            f"for fewer processes, or show more in {VISIBLE}"
        )
    taken = _wait(found, count, scope=f"{inside}-" if inside else "")
    _mine.append(taken)
    os.environ[VISIBLE] = os.environ[HELD] = ",".join(taken.devices)
    log.info("GPU: %s of %d", os.environ[HELD], len(found))
    return taken


def visible(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs a process may use, by their UUIDs where nvidia-smi tells them.

    Numbers in CUDA_VISIBLE_DEVICES count in nvidia-smi's order (CUDA's own differs on machines
    with GPUs of several kinds, unless CUDA_DEVICE_ORDER=PCI_BUS_ID).
    """
    known = installed()
    if VISIBLE not in environment:
        return known
    named = [entry.strip() for entry in environment[VISIBLE].split(",") if entry.strip()]
    found = []
    for entry in named:
        if entry == "-1":  # CUDA stops reading here
            break
        number = int(entry) if entry.isdigit() else len(known)
        found.append(known[number] if number < len(known) else entry)
    return found


def installed() -> list[str]:
    """The UUIDs of this machine's GPUs, or of their MIG slices; empty without nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listing = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi -L failed (%s): no GPU is locked", error)
        return []
    return listed(listing)


def listed(listing: str) -> list[str]:
    """The UUIDs in what `nvidia-smi -L` prints; a GPU that is cut into slices is not one."""
    found: list[str] = []
    for line in listing.splitlines():
        uuid = re.search(r"UUID: ((?:GPU|MIG)-[\w/-]+)", line)
        if uuid is None:
            continue
        if line.lstrip().startswith("MIG") and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(uuid[1])
    return found


# --- locks ----------------------------------------------------------------------------------


def _wait(names: list[str], count: int, scope: str) -> Claim:
    """Locks `count` of the devices, all at once, as soon as so many are free."""
    said = 0.0
    while True:
        taken = _try(names, count, scope)
        if taken is not None:
            return taken
        if time.monotonic() - said > 300 or not said:
            said = time.monotonic()
            log.info("waiting for %d of %d GPUs: other jobs hold them", count, len(names))
        time.sleep(random.uniform(0.2, 1.0))  # two that wait for several must not march in step


def _try(names: list[str], count: int, scope: str) -> Claim | None:
    """Locks `count` of the devices, or none."""
    devices: list[str] = []
    locks: list[int] = []
    for slot in range(share()):  # every device once, before any is shared
        for name in names:
            if name in devices or len(devices) == count:
                continue
            lock = _lock(scope + name + (f".{slot}" if slot else ""))
            if lock is not None:
                devices.append(name)
                locks.append(lock)
    if len(devices) == count:
        return Claim(tuple(devices), tuple(locks))
    Claim(locks=tuple(locks)).release()
    return None


def share() -> int:
    """How many jobs may hold one GPU: NSVIT_JOBS_PER_GPU, or 1.

    Raises:
        NsvitError: not a number above 0.
    """
    text = os.environ.get(SHARE, "1")
    if not text.isdigit() or int(text) < 1:
        raise NsvitError(f"{SHARE}={text!r}: how many jobs may share a GPU, 1 or more")
    return int(text)


def _lock(name: str) -> int | None:
    """An open descriptor that holds the lock of this name, or None where another has it."""
    folder = Path(os.environ.get(LOCKS) or "/tmp/nsvit-devices")
    path = folder / re.sub(r"[^\w.-]", "_", name)
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)
        descriptor = _open(path)
    except OSError as error:
        raise NsvitError(
            f"{path}: cannot be used to lock a GPU ({error.strerror}); name another folder in "
            f"{LOCKS}"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise NsvitError(
            f"{path}: cannot be locked ({error.strerror}); name a folder on a local disk in {LOCKS}"
        ) from None
    return descriptor


def _open(path: Path) -> int:
    """Opens a lock's file; only who comes first needs to be allowed to write there."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return descriptor
