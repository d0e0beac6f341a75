"""A working folder with the project's code and no results, and Snakemake to run in it."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMOKE = ["--configfile", "config/smoke.yaml"]


class Checkout:
    """A working folder with the project's code and no results, and Snakemake to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Snakefile", "workflow", "config", "nsvit", "profiles"):
            (folder / name).symlink_to(ROOT / name)

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Runs Snakemake here; returns everything it printed."""
        binaries = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        if check:
            assert done.returncode == 0, output[-6000:]
        else:
            assert done.returncode != 0, output[-6000:]
        return output

    def digests(self, folder: str = "results") -> dict[str, str]:
        """The hash of every file below a folder, but for logs and timings."""
        found = {}
        for path in sorted((self.folder / folder).rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_file() and "/logs/" not in name and "/benchmarks/" not in name:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found
