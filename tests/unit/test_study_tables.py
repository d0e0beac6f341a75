"""The tables of the lambda study and of closure: their numbers, and how they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from nsvit import artifacts, statistics, tables
from nsvit.errors import NsvitError
from nsvit.specs import TableSpec
from nsvit.tables import noises, studies
from tests import synthetic


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Two models: one noise per lambda, and three."""
    parts = [synthetic.lambda_frame("vit_b", draws=3), synthetic.lambda_frame("vit_s")]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def table(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    return tables.table_lambda(frame, spec)


def test_numbers_are_numpys_in_the_configs_order(frame: pd.DataFrame, table: pd.DataFrame) -> None:
    assert table["model"].tolist() == ["vit_s"] * 6 + ["vit_b"] * 6
    assert table["noise"].tolist() == ["learned", "permuted"] * 6
    assert table["lambda"].tolist() == [0.01, 0.01, 0.3, 0.3, 2.0, 2.0] * 2
    for row in table.to_dict("records"):
        mine = (frame["model"] == row["model"]) & (frame["noise"] == row["noise"])
        part = frame[mine & (frame["lambda"] == row["lambda"])]
        assert row["agreement"] == pytest.approx(100 * part["agree"].mean())
        assert row["confidence_mse"] == pytest.approx(part["confidence_error"].mean())
        assert row["norm"] == pytest.approx(part.groupby("draw")["norm"].first().mean())
        assert (row["n"], row["draws"]) == (40, 1 if row["model"] == "vit_s" else 3)
        for name in ("agreement", "confidence_mse", "norm"):
            assert row[f"{name}_low"] <= row[name] + 1e-12
            assert row[name] <= row[f"{name}_high"] + 1e-12


def test_agreement_of_one_noise_has_wilsons_interval(table: pd.DataFrame) -> None:
    row = table[(table["model"] == "vit_s") & (table["noise"] == "permuted")].iloc[-1]
    right = round(row["agreement"] / 100 * 40)
    expected = proportion_confint(right, 40, method="wilson")
    assert 0 < right < 40
    assert (row["agreement_low"], row["agreement_high"]) == pytest.approx(
        (100 * expected[0], 100 * expected[1])
    )


def test_means_of_many_columns_are_those_of_each(frame: pd.DataFrame, spec: TableSpec) -> None:
    part = frame[
        (frame["model"] == "vit_b") & (frame["noise"] == "permuted") & (frame["lambda"] == 2.0)
    ]
    columns = ["agree", "confidence_error", "logit_distance"]
    found = noises.means_of(part, columns, "test", spec.statistics)
    for column in columns:
        values = part.pivot(index="draw", columns="sample", values=column).to_numpy(dtype=float)
        config = spec.statistics
        expected = statistics.bootstrap_interval(
            values, config.confidence, config.resamples, config.seed
        )
        assert vars(found[column]) == pytest.approx(vars(expected))


def test_the_papers_points_stand_beside(table: pd.DataFrame) -> None:
    keyed = table.set_index(["model", "lambda", "noise"])
    assert keyed.loc[("vit_s", 0.01, "learned"), "paper_agreement"] == 99.5
    assert keyed.loc[("vit_b", 2.0, "permuted"), "paper_confidence_mse"] == 0.0657
    assert keyed.loc[("vit_b", 0.3, "learned"), "paper_norm"] == 40.8  # the fourth point
    assert keyed.loc[("vit_s", 2.0, "permuted"), "paper_norm"] == 44.3
    points = studies.paper_points()
    assert len(points) == 2 * 2 * 10 * 2 + 2 * 10


def test_a_lambda_or_model_that_the_paper_lacks_has_no_point(spec: TableSpec) -> None:
    own = tables.table_lambda(synthetic.lambda_frame("vit_s", (0.25,)), spec)
    assert own[["paper_agreement", "paper_confidence_mse", "paper_norm"]].isna().all(axis=None)
    assert "Paper ≈: points" not in tables.markdown(tables.lambda_sheet(own, spec))


def test_closure_has_every_row_in_order(spec: TableSpec) -> None:
    frame = synthetic.closure_frame("vit_s")
    table = tables.table_closure(frame, spec)
    kinds = table[table["noise"] == "learned"][["kind", "factor"]]
    expected = [("scaled", -1), ("scaled", 1), ("scaled", 2), ("combined", 0.5), ("added", 1)]
    assert list(kinds.itertuples(index=False, name=None)) == expected
    assert table["draws"].tolist() == [2] * 6 + [1] * 4
    part = frame[
        (frame["kind"] == "scaled") & (frame["factor"] == 2) & (frame["noise"] == "permuted")
    ]
    row = table[(table["factor"] == 2) & (table["noise"] == "permuted")].iloc[0]
    assert row["agreement"] == pytest.approx(100 * part["agree"].mean())
    assert row["confidence_mse"] == pytest.approx(np.mean(part["confidence_error"]))


def test_how_they_read(table: pd.DataFrame, spec: TableSpec) -> None:
    text = tables.markdown(tables.lambda_sheet(table, spec))
    assert "## ViT-S" in text
    assert "*99.5*" in text
    assert "digitised" in text and "approximate" in text
    closed = tables.table_closure(synthetic.closure_frame("vit_s"), spec)
    text = tables.markdown(tables.closure_sheet(closed, spec))
    for words in ("-1 · v", "0.5 · v1 + 0.5 · v2", "v1 + v2", "λ = 0.3"):
        assert words in text
    latex = tables.tex(tables.lambda_sheet(table, spec))
    assert latex.isascii()
    assert r"$\lambda$" in latex


def test_bad_frames_are_refused_by_name(frame: pd.DataFrame, spec: TableSpec) -> None:
    with pytest.raises(NsvitError, match="lambda study names model surprise"):
        tables.table_lambda(frame.assign(model="surprise"), spec)
    lacking = frame.drop(index=frame.index[frame["draw"] == 1][0])
    with pytest.raises(NsvitError, match=r"lambda study vit_b 0\.01 learned: its draws"):
        tables.table_lambda(lacking, spec)
    with pytest.raises(NsvitError, match="closure names model surprise"):
        tables.table_closure(synthetic.closure_frame("vit_s").assign(model="surprise"), spec)


def test_verbs_write_three_forms(frame: pd.DataFrame, spec: TableSpec, tmp_path: Path) -> None:
    paths = [tmp_path / "s.parquet", tmp_path / "b.parquet"]
    for path, model in zip(paths, ("vit_s", "vit_b"), strict=True):
        artifacts.write_parquet(
            path, frame[frame["model"] == model], artifacts.provenance("lambda", {})
        )
    tables.write_lambda(paths, spec, tmp_path / "lambda.csv")
    closed = tmp_path / "c.parquet"
    artifacts.write_parquet(
        closed, synthetic.closure_frame("vit_s"), artifacts.provenance("closure", {})
    )
    tables.write_closure([closed], spec, tmp_path / "closure.csv")
    for name, rows in (("lambda", 12), ("closure", 10)):
        assert len(artifacts.read_csv(tmp_path / f"{name}.csv")) == rows
        for suffix in (".md", ".tex"):
            assert (tmp_path / f"{name}{suffix}").stat().st_size > 500
    with pytest.raises(NsvitError, match="expected a 'lambda' file"):
        tables.write_lambda([closed], spec, tmp_path / "x.csv")
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    tables.write_lambda(paths, spec, tmp_path / "lambda.csv")
    assert set(artifacts.read_csv(tmp_path / "lambda.csv")["model"]) == {"vit_b"}
    assert "Left out: " in (tmp_path / "lambda.md").read_text()
