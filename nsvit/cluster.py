"""Whether a SLURM cluster can take the jobs of a run, asked before the first is submitted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from nsvit.errors import NsvitError

PROFILE = "workflow/profiles/slurm/config.yaml"
#: Partition, `*` behind the default one; generic resources.
COLUMNS = "%P|%G"


def check_slurm(partitions: Mapping[str, str | None], gpus: set[str]) -> None:
    """Refuses rules whose partition does not exist, or has no GPU for rules that ask for one.

    Args:
        partitions: the partition of each rule (`slurm_partition`), or None for the default one;
            several with commas between.
        gpus: the rules that ask for a GPU.

    Raises:
        NsvitError: that, or SLURM's commands are not here or do not answer.
    """
    check(partitions, gpus, _ask())


def check(partitions: Mapping[str, str | None], gpus: set[str], listing: str) -> None:
    """Refuses rules that what `sinfo -h -o '%P|%G'` printed cannot take; see `check_slurm`."""
    generic: dict[str, str] = {}
    default = None
    for line in listing.splitlines():
        name, _, resources = line.strip().partition("|")
        if name.endswith("*"):
            default = name = name.rstrip("*")
        generic[name] = generic.get(name, "") + resources
    known = ", ".join(sorted(generic))
    for rule, wanted in partitions.items():
        if not wanted and default is None:
            raise NsvitError(
                f"rule {rule} names no partition and the cluster has no default one: set "
                f"slurm_partition under default-resources in {PROFILE} to one of {known}"
            )
        names = [name.strip() for name in (wanted or default or "").split(",")]
        for name in names:
            if name not in generic:
                raise NsvitError(
                    f"rule {rule}: the cluster has no partition {name!r}; set slurm_partition in "
                    f"{PROFILE} to one of {known}"
                )
        if rule in gpus and not any("gpu" in generic[name] for name in names):
            raise NsvitError(
                f"rule {rule} asks for a GPU and partition {', '.join(names)} has none: under "
                f"set-resources in {PROFILE} give it another partition, or gpu: 0"
            )


def _ask() -> str:
    for program in ("sbatch", "squeue", "sinfo"):
        if shutil.which(program) is None:
            raise NsvitError(
                f"{program} is not in PATH: SLURM's commands are needed where Snakemake runs; "
                "start it on a login node of the cluster"
            )
    command = ["sinfo", "--noheader", "-o", COLUMNS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise NsvitError("sinfo does not answer: is SLURM's controller down?") from None
    if done.returncode:
        raise NsvitError(f"sinfo failed: {done.stderr.strip()}")
    return done.stdout
