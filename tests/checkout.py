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

    def snakemake(
        self,
        *arguments: str,
        check: bool = True,
        modules: Path | None = None,
        binaries: Path | None = None,
    ) -> str:
        """Runs Snakemake here; returns everything it printed.

        Modules in the folder `modules` are found before all others, in every job, and so are
        programs in the folder `binaries`.
        """
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        env = self.environment(modules, binaries)
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        if check:
            assert done.returncode == 0, output[-6000:]
        else:
            assert done.returncode != 0, output[-6000:]
        return output

    def environment(
        self, modules: Path | None = None, binaries: Path | None = None
    ) -> dict[str, str]:
        """What commands here run with; modules and programs in a folder are found first."""
        path = [binaries, Path(sys.executable).parent, os.environ["PATH"]]
        return {
            **os.environ,
            "PATH": os.pathsep.join(str(p) for p in path if p),
            "PYTHONPATH": os.pathsep.join(str(p) for p in (modules, ROOT) if p),
        }

    def digests(self, folder: str = "results") -> dict[str, str]:
        """The hash of every file below a folder, but for logs, timings and the page with them."""
        found = {}
        for path in sorted((self.folder / folder).rglob("*")):
            name = str(path.relative_to(self.folder))
            timed = path.name == "report.html" or "/logs/" in name or "/benchmarks/" in name
            if path.is_file() and not timed:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found
