"""The table of attack success, against counts by hand and statsmodels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from nsvit import cli, tables
from nsvit import records as stored
from nsvit.errors import NsvitError
from nsvit.records import read_records
from nsvit.specs import TableSpec
from nsvit.statistics.checks import Doubt
from tests import synthetic

COLUMNS = (*stored.COLUMNS, "norm", "distance")


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def record_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


def test_success_of_attacks(record_paths: list[Path], spec: TableSpec) -> None:
    """One seed: Wilson's interval of the right pictures; several: all of them together."""
    records = read_records(record_paths, COLUMNS)
    made = tables.table_attacks(record_paths, spec)
    again = tables.table_attacks(records, spec)
    pd.testing.assert_frame_equal(
        made.drop(columns=["norm", "distance"]), again.drop(columns=["norm", "distance"])
    )
    assert made["column"].unique().tolist() == ["fgsm_1", "fgsm_2", "fgsm_4", "fgsm_8"]
    cells = made.set_index(["model", "method", "column"])
    for arm in ("none", "nullspace"):
        right = broken = 0
        for _, own in records[(records["model"] == "vit_b") & (records["arm"] == arm)].groupby(
            "seed"
        ):
            wide = own.pivot(index="sample", columns="condition", values="correct")[
                ["clean", "fgsm_4"]
            ]
            wide = wide.dropna().astype(bool)
            right += wide["clean"].sum()
            broken += (wide["clean"] & ~wide["fgsm_4"]).sum()
        cell = cells.loc[("vit_b", arm, "fgsm_4")]
        assert cell["n"] == right and cell["clean"] == "clean"
        assert cell["value"] == pytest.approx(100 * broken / right, abs=0.006)
        assert cell["low"] < cell["value"] < cell["high"]
        if arm == "none":
            ends = proportion_confint(broken, right, method="wilson")
            assert (cell["low"], cell["high"]) == pytest.approx([100 * e for e in ends], abs=0.006)
    assert (made["distance"] == 0.5).all() and (made["norm"] == "linf").all()
    text = tables.markdown(tables.attacks_sheet(made, spec))
    assert text.count("±") >= len(made)


def test_several_seeds_have_the_interval_of_a_plain_loop(
    record_paths: list[Path], spec: TableSpec
) -> None:
    """Seeds are drawn, then pictures, the same for all of them."""
    many = spec.statistics.model_copy(update={"resamples": 6000})
    made = tables.table_attacks(record_paths, spec.model_copy(update={"statistics": many}))
    cell = made.set_index(["model", "method", "column"]).loc[("vit_b", "nullspace", "fgsm_8")]
    records = read_records(record_paths, COLUMNS)
    own = records[(records["model"] == "vit_b") & (records["arm"] == "nullspace")]
    right, broken = (
        own[own["condition"] == name].pivot(index="seed", columns="sample", values="correct")
        for name in ("clean", "fgsm_8")
    )
    right = right[broken.columns].to_numpy(dtype=bool)
    broken = right & ~broken.to_numpy(dtype=bool)
    seeds, pictures = right.shape
    assert seeds > 1 and cell["seeds"] == seeds
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(6000):
        at = np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, pictures, pictures))
        shares.append(100 * broken[at].sum() / right[at].sum())
    ends = np.quantile(shares, [0.025, 0.975])
    assert (cell["low"], cell["high"]) == pytest.approx(tuple(ends), abs=0.06 * np.ptp(ends))


def test_attacks_without_numbers(record_paths: list[Path], spec: TableSpec) -> None:
    records = read_records(record_paths, COLUMNS)
    records = records[(records["model"] == "vit_b") & (records["arm"] == "none")]
    wrong = records.assign(correct=records["correct"] & (records["condition"] != "clean"))
    made = tables.table_attacks(wrong, spec)
    assert made["value"].isna().all()
    assert made.loc[made["model"] == "vit_b", "n"].dropna().unique().tolist() == [0]
    lost = records[
        (records["condition"] != "clean") | (records["sample"] != records["sample"].iloc[0])
    ]
    with pytest.raises(NsvitError, match="'fgsm_1' has pictures that 'clean'"):
        tables.table_attacks(lost, spec)
    with pytest.raises(NsvitError, match="'fgsm_1' has pictures that 'clean'"):
        tables.table_attacks(pd.concat([records, records]), spec)
    doubt = Doubt.parse("vit_b/none/seed0 round -1 set val fgsm_1: more [rising_with_radius]")
    made = tables.table_attacks(records, spec, [doubt])
    assert made["doubts"].sum() == 1
    assert tables.markdown(tables.attacks_sheet(made, spec, [doubt])).count("‡ |") == 1


def test_an_attack_on_some_of_the_pictures(record_paths: list[Path], spec: TableSpec) -> None:
    records = read_records(record_paths, COLUMNS)
    kept = records["sample"].unique()[:20]
    attacked = records["condition"] != "clean"
    some = records[~attacked | records["sample"].isin(kept)]
    few = records[records["sample"].isin(kept)]
    pd.testing.assert_frame_equal(tables.table_attacks(some, spec), tables.table_attacks(few, spec))


def test_seeds_with_different_pictures_are_named(record_paths: list[Path], spec: TableSpec) -> None:
    records = read_records(record_paths, COLUMNS)
    own = (records["model"] == "vit_b") & (records["arm"] == "nullspace")
    seed = records.loc[own, "seed"].max()
    lost = own & (records["seed"] == seed) & (records["sample"] == records["sample"].iloc[0])
    with pytest.raises(NsvitError, match="vit_b, nullspace, fgsm_1: seeds have different numbers"):
        tables.table_attacks(records[~lost], spec)


def test_the_verb_of_attacks(record_paths: list[Path], spec: TableSpec, tmp_path: Path) -> None:
    arguments = ["table-attacks", "--spec", spec.model_dump_json(), "--records"]
    assert (
        cli.main([*arguments, *map(str, record_paths), "--out", str(tmp_path / "attacks.csv")]) == 0
    )
    assert len(list(tmp_path.glob("attacks.*"))) == 3
