"""What must hold after the run through SLURM."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.slurm.local_slurm import ETC, marked

#: Seconds differ from run to run; every other table must be the same byte for byte.
TIMED = "cost"


def differences(local: Path, remote: Path) -> list[str]:
    """How the tables of two runs differ."""
    here, there = (folder / "results/smoke/tables" for folder in (local, remote))
    names = sorted(path.name for path in here.iterdir())
    found = []
    if names != sorted(path.name for path in there.iterdir()):
        found.append("other tables than in the local run")
    compared = [name for name in names if not name.startswith(f"{TIMED}.")]
    if len(compared) < 15:
        found.append(f"only {len(compared)} files of tables to compare")
    for name in compared:
        if not (there / name).exists() or (here / name).read_bytes() != (there / name).read_bytes():
            found.append(f"tables/{name} differs from the local run's")
    if untimed(here / f"{TIMED}.csv") != untimed(there / f"{TIMED}.csv"):
        found.append(f"tables/{TIMED}.csv differs from the local run's in more than seconds")
    return found


def untimed(path: Path) -> list[dict[str, str]]:
    """The rows of a table without its columns of seconds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def leftovers(base: Path) -> str:
    """Processes, folders and links that should be gone."""
    left = [f"process {pid}" for pid in marked(base)]
    left += [str(base)] if base.exists() else []
    left += [str(path) for path in ETC.glob("*.conf") if path.is_symlink() and not path.exists()]
    return ", ".join(left)
