"""The smoke workflow, killed again and again, ends with the tables of one that was left alone.

`make test-kills`; minutes. NSVIT_KILLS sets another number of kills.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.checkout import SMOKE, Checkout
from tests.kills.victims import Workflow

KILLS = int(os.environ.get("NSVIT_KILLS", "24"))
HOW = ["all TERM", "all KILL", "snakemake KILL", "job KILL", "job TERM", "snakemake TERM"]
#: Kills are spread over so many finished jobs of the workflow, which has more.
SPREAD = 52


def same_files(one: Path, two: Path, pattern: str) -> int:
    """Asserts that two folders have the same files of a pattern, byte for byte."""
    names = sorted(str(path.relative_to(one)) for path in one.glob(pattern))
    assert names == sorted(str(path.relative_to(two)) for path in two.glob(pattern))
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    return len(names)


def names(folder: Path) -> set[str]:
    """All but seconds: of a job that ends as Snakemake is killed, nobody writes them."""
    found = {path.relative_to(folder) for path in folder.rglob("*")}
    return {str(path) for path in found if path.parts[0] != "benchmarks"}


def without_seconds(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "tables/cost.csv")
    return table.drop(columns=[name for name in table if "seconds" in name])


@pytest.mark.timeout(3600)
def test_tables_after_many_kills_are_those_of_a_run_left_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    reference = Checkout(tmp_path_factory.mktemp("alone"))
    reference.snakemake(*SMOKE, "--cores", "2")
    killed = Checkout(tmp_path_factory.mktemp("killed"))
    run = Workflow(killed, *SMOKE, cores=2)
    chance = random.Random(20240)
    hits: list[str] = []
    try:
        for after in sorted(chance.choices(range(SPREAD), k=KILLS)):
            hits.append(one_kill(run, after, HOW[len(hits) % len(HOW)], chance))
            say(f"kill {len(hits)} of {KILLS} after {run.done()} jobs; {hits[-1]}")
        finish(run)
    finally:
        run.end()
    assert len(hits) == KILLS
    compare(*(checkout.folder / "results/smoke" for checkout in (reference, killed)))


def compare(one: Path, two: Path) -> None:
    """Asserts that all but seconds, logs and the pages that show them is the same."""
    tables = [path.stem for path in one.glob("tables/*.csv") if path.stem != "cost"]
    assert len(tables) >= 8
    for name in tables:
        assert same_files(one, two, f"tables/{name}.*") == 3
    pd.testing.assert_frame_equal(without_seconds(one), without_seconds(two))
    assert same_files(one, two, "runs/**/*.safetensors") > 20
    assert same_files(one, two, "noise/**/*.safetensors") > 0
    assert same_files(one, two, "figures/*.svg") > 5
    assert names(two) == names(one), "something is left over, or missing"


def one_kill(run: Workflow, after: int, how: str, chance: random.Random) -> str:
    """Lets the workflow finish some jobs, waits a random while, and kills while a job runs."""
    pace = 1.0
    while True:
        if run.ended():
            pace = run.start()
            assert not run.ended(), run.output.read_text()[-4000:]
        run.wait_until(lambda: run.done() >= after or run.ended())
        time.sleep(min(chance.expovariate(2.0 / pace), 2 * pace))
        run.wait_until(lambda: bool(run.jobs()) or run.ended())
        if not run.ended() and run.jobs():
            return run.hit(how, chance.randrange(100))


def finish(run: Workflow) -> None:
    """Goes on until all is done; a run of which a job was killed ends with an error first."""
    for _ in range(3):
        if run.ended():
            run.start()
        run.wait_until(run.ended)
        assert run.process is not None
        if run.process.returncode == 0:
            run.wait_until(lambda: not run.orphans())
            return
    raise AssertionError(run.output.read_text()[-6000:])


def say(line: str) -> None:
    sys.__stderr__.write(f"{line}\n")
    sys.__stderr__.flush()
