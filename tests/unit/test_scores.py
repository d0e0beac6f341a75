"""Records reduced once: the same scores, doubts and losses as from the records themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from nsvit import artifacts, cli, scores, statistics, tables
from nsvit.errors import NsvitError
from nsvit.records import read_scores
from nsvit.specs import TableSpec
from tests import synthetic
from tests.unit.test_accuracy_tables import doubt


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


@pytest.fixture(scope="module")
def file(paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_scores(paths, tmp_path_factory.mktemp("scores"))


def of(paths: list[Path], model: str, arm: str) -> Path:
    return next(path for path in paths if path.parts[-3:-1] == (model, arm))


def test_scores_are_those_of_the_records(file: Path, paths: list[Path], spec: TableSpec) -> None:
    found, expected = scores.read(file), read_scores(paths, normalised=spec.normalised)
    texts = list(expected.columns)  # rows come folder by folder
    pd.testing.assert_frame_equal(
        *(one.sort_values(texts, ignore_index=True) for one in (found.frame, expected))
    )
    assert found.doubts == () and found.lost == ()


def test_tables_from_scores_and_from_records_are_equal(
    file: Path, paths: list[Path], spec: TableSpec
) -> None:
    own = synthetic.accuracy_spec()
    whole = scores.read(file, own.runs()).frame
    pd.testing.assert_frame_equal(
        tables.accuracy_table(whole, own), tables.accuracy_table(paths, own)
    )
    pd.testing.assert_frame_equal(
        tables.table_paired(whole, spec), tables.table_paired(paths, spec)
    )


def test_the_draws_do_not_depend_on_which_runs_are_read(file: Path, spec: TableSpec) -> None:
    """What other runs there are leaves intervals as they are."""
    whole, pair = scores.read(file).frame, ("vit_s", "nullspace")
    every = list(zip(whole["model"], whole["arm"], strict=True))
    found = []
    for runs in ([pair], [pair, ("vit_b", "plain")], every):
        frame = whole[[run in runs for run in every]].reset_index(drop=True)
        resampled = statistics.resample(frame, spec.statistics)
        found.append(resampled.estimate((*pair, -1), ["clean", "a", "c"]))
    assert found[0] == found[1] == found[2]


def test_doubts_and_losses_belong_to_their_runs(
    paths: list[Path], spec: TableSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "records" / "vit_s"
    doubted, damaged = (folder / arm / "x.parquet" for arm in ("plain", "none"))
    sidecar = {**artifacts.provenance("records", {}), "doubts": [doubt(arm="plain")]}
    artifacts.write_parquet(doubted, pd.read_parquet(of(paths, "vit_s", "plain")), sidecar)
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(of(paths, "vit_s", "none").read_bytes()[:5000])
    out = tmp_path / "scores.parquet"
    scores.write([doubted, damaged, of(paths, "vit_b", "none")], spec, out)
    own = scores.read(out, [("vit_s", "plain")])
    assert [str(one) for one in own.doubts] == [doubt(arm="plain")] and own.lost == ()
    other = scores.read(out, [("vit_s", "none"), ("vit_b", "none")])
    assert other.doubts == () and len(other.frame)
    (lost,) = other.lost
    assert f"{damaged}: damaged" in lost
    with pytest.raises(NsvitError, match=r"none/x\.parquet: damaged"):
        scores.read(out, [("vit_s", "none")])
    elsewhere = tmp_path / "odd" / "x.parquet"  # a folder that names no run concerns every table
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"")
    scores.write([doubted, elsewhere], spec, out)
    assert len(scores.read(out, [("vit_s", "plain")]).lost) == 1


def test_cells_that_contradict_each_other_cost_their_run_alone(
    spec: TableSpec, tmp_path: Path
) -> None:
    paths = synthetic.write_records(tmp_path / "records", synthetic.experiment())
    bad = of(paths, "vit_s", "nullspace")
    frame, sidecar = artifacts.read_parquet(bad, "records")
    odd = frame.index[(frame["corruption"] != "") & (frame["round"] == -1)][0]
    artifacts.write_parquet(bad, frame.drop(odd).reset_index(drop=True), sidecar)
    out = tmp_path / "scores.parquet"
    scores.write(paths, spec, out)
    others = scores.read(out, [("vit_b", "plain")])
    assert others.lost == () and len(others.frame)
    (lost,) = scores.read(out).lost
    assert lost.startswith("vit_s nullspace") and "other pictures" in lost
    with pytest.raises(NsvitError, match="other pictures"):
        scores.read(out, [("vit_s", "nullspace")])


def test_nothing_of_use_is_refused(spec: TableSpec, tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match=r"gone\.json"):
        scores.write([tmp_path / "gone.json"], spec, tmp_path / "s.parquet")
    with pytest.raises(NsvitError, match="no records were given"):
        scores.write([], spec, tmp_path / "s.parquet")
    with pytest.raises(NsvitError, match=r"s\.parquet: no such file"):
        scores.read(tmp_path / "s.parquet")
    assert not (tmp_path / "s.parquet").exists()


def test_the_verb_loads_no_torch(paths: list[Path], spec: TableSpec, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    given = ["scores", "--spec", spec.model_dump_json(), "--records", *map(str, paths)]
    code = "import sys; sys.modules['torch'] = None; from nsvit.cli import main; "
    command = [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *given]
    assert subprocess.run([*command, "--out", str(out)]).returncode == 0
    first = out.read_bytes()
    assert cli.main([*given, "--out", str(out)]) == 0 and out.read_bytes() == first
