"""The smoke workflow through a SLURM of one node, disturbed, against the same run without SLURM.

`make test-slurm`; needs root, and apt unless SLURM is installed. Ends with 0 where all is well, 77
where this machine cannot start a SLURM (nothing was tested), 1 otherwise.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.checkout import ROOT, SMOKE, Checkout
from tests.slurm import checks
from tests.slurm.disturbances import Disturbances
from tests.slurm.local_slurm import Cluster, Unavailable, install

log = logging.getLogger("test-slurm")

LEFT_OUT = 77
LOCAL_LIMIT, SLURM_LIMIT, SHORT_LIMIT = 900, 1500, 300  # seconds; a quiet machine needs a sixth
#: Seconds that the smoke workflow should take through SLURM; told only: a machine may be busy.
TARGET = 180
PROFILES = "workflow/profiles"
#: What belongs to this cluster, over the profile as it is shipped.
HERE = [
    *("--workflow-profile", f"{PROFILES}/slurm", "--jobs", "12"),
    *("--default-resources", "slurm_partition=main", "mem_mb=1000", "runtime=10"),
    *("--set-resources", "finetune:slurm_partition=scavenge"),
    *("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "15"),
]


def main() -> int:
    """Starts SLURM, runs everything in it and ends it; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="test-slurm: %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the cluster is ended too
    try:
        install()
        with Cluster(cpus=os.cpu_count() or 1) as cluster, tempfile.TemporaryDirectory() as folder:
            log.info("SLURM is up, in %s", cluster.base)
            failures = run(cluster, Path(folder))
        if left := checks.leftovers(cluster.base):
            failures.append(f"left behind: {left}")
    except Unavailable as reason:
        log.info("left out, SLURM cannot be had on this machine: %s", reason)
        return LEFT_OUT
    for failure in failures:
        log.error("FAILED: %s", failure)
    log.info("%s", "failed" if failures else "all is well")
    return 1 if failures else 0


def run(cluster: Cluster, folder: Path) -> list[str]:
    """Everything that is tested with a cluster; returns what failed."""
    environment = {
        **cluster.environment,
        "NSVIT_DEVICE": "cpu",  # the cluster's GPUs are fakes
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{cluster.environment['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    local, remote = (checkout(folder / name) for name in ("local", "slurm"))
    if finished := os.environ.get("NSVIT_TEST_LOCAL"):  # a finished run, to try things quickly
        local = Checkout.__new__(Checkout)
        local.folder = Path(finished)
    else:
        with snakemake(local, environment, SMOKE, "--cores", str(cluster.cpus)) as process:
            if not ended(process, LOCAL_LIMIT, "the local run"):
                return [f"the local run failed:\n{tail(local)}"]
    failures = []
    started = time.monotonic()
    with snakemake(remote, environment, SMOKE, *HERE) as process:
        disturbances = Disturbances(cluster, remote.folder)
        with disturbances.watching():
            good = ended(process, SLURM_LIMIT, "the run through SLURM", disturbances.step)
    log.info("%s", disturbances.report())
    if not good:
        return [f"the run through SLURM failed:\n{tail(remote)}"]
    seconds = time.monotonic() - started
    judged = "within" if seconds <= TARGET else "MORE THAN"
    log.info(
        "the smoke workflow through SLURM, disturbed three times: %.0f s, %s the %d s that it "
        "should take on a quiet machine", seconds, judged, TARGET,
    )  # fmt: skip
    failures += disturbances.failures()
    failures += checks.differences(local.folder, remote.folder)
    failures += generic(remote, environment)
    failures += bad_partition(remote, environment)
    return failures


def generic(remote: Checkout, environment: dict[str, str]) -> list[str]:
    """The generic profile, whose commands are SLURM's as shipped: one job again."""
    again = ["--workflow-profile", f"{PROFILES}/cluster-generic", "--force"]
    target = "results/smoke/nullspace/nullity.csv"
    with snakemake(remote, environment, SMOKE, *again, "--", target) as process:
        if ended(process, SHORT_LIMIT, "one job through the generic profile"):
            return []
    return [f"the generic profile failed:\n{tail(remote)}"]


def bad_partition(remote: Checkout, environment: dict[str, str]) -> list[str]:
    """A partition that the cluster does not have is refused before the first job."""
    wrong = ["--default-resources", "slurm_partition=nowhere", "--set-resources"]
    options = [*HERE[:4], *wrong, "finetune:slurm_partition=nowhere", "-R", "nullity"]
    with snakemake(remote, environment, SMOKE, *options) as process:
        ended(process, SHORT_LIMIT, "a run with a wrong partition (fails)")
    text = (remote.folder / "output.txt").read_text()
    wanted = "no partition 'nowhere'"
    return [] if wanted in text else [f"a wrong partition was not refused:\n{tail(remote)}"]


# --- running Snakemake ------------------------------------------------------------------------


def checkout(folder: Path) -> Checkout:
    """A working folder without results."""
    folder.mkdir()
    return Checkout(folder)


@contextmanager
def snakemake(
    place: Checkout, environment: dict[str, str], *arguments: str | list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Snakemake in a checkout, what it prints in output.txt there; ended with the block."""
    flat = [a for each in arguments for a in ([each] if isinstance(each, str) else each)]
    with (place.folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *flat],
            cwd=place.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()  # its jobs carry the cluster's mark and end with it
        process.wait()


def ended(
    process: subprocess.Popen[bytes],
    limit: float,
    what: str,
    step: Callable[[], None] = lambda: None,
) -> bool:
    """Waits for Snakemake, taking a step now and then. Did it succeed within its time?"""
    started = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - started > limit:
            log.error("%s is not done after %.0f s", what, limit)
            return False
        step()
        time.sleep(0.1)
    load = os.getloadavg()[0]
    log.info("%s: %.0f s (load %.1f)", what, time.monotonic() - started, load)
    return process.returncode == 0


def tail(place: Checkout) -> str:
    """The end of what Snakemake printed, and of the logs of jobs that failed."""
    text = (place.folder / "output.txt").read_text(errors="replace")[-6000:]
    logs = sorted((place.folder / ".snakemake/slurm_logs").rglob("*.log"))
    return text + "".join(f"\n--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in logs)


if __name__ == "__main__":
    sys.exit(main())
