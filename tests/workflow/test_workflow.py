"""The smoke workflow end to end, twice, and what reruns do."""

import shutil

import pandas as pd
import pytest
import yaml

from tests.checkout import SMOKE, Checkout

pytestmark = pytest.mark.xdist_group("workflow")

TABLES = "results/smoke/tables"


def test_everything_promised_is_there(finished):
    results = finished.folder / "results/smoke"
    for name in ("table1", "table2", "nullity", "cost", "influence", "lambda", "closure"):
        for extension in ("csv", "md", "tex"):
            assert (results / f"tables/{name}.{extension}").stat().st_size > 0
    extra = ("concept", "lambda", "closure", "corruptions", "radius")
    for name in ("nullspace_vit_s", "influence", "dynamics", *extra):
        for extension in ("svg", "png"):
            assert (results / f"figures/{name}.{extension}").stat().st_size > 0
    config = yaml.safe_load((finished.folder / "config/smoke.yaml").read_text())
    sets = config["data"]["sets"]
    for name in ("plan.json", "report.html", "README.md"):
        assert (results / name).stat().st_size > 0
    assert config["note"] in (results / "report.html").read_text()
    sheets = {p.name for p in (results / "figures/sheets").iterdir()}
    assert sheets == {f"{name}.{ext}" for name in sets for ext in ("png", "svg")}


def test_table1_has_every_cell_with_an_interval(finished):
    table = pd.read_csv(finished.folder / TABLES / "table1.csv")
    assert list(table.columns) == [
        "model", "method", "minus", "column", "value", "low", "high", "n", "seeds", "paper",
        "doubts",
    ]  # fmt: skip
    assert set(table["method"]) == {"none", "random", "nullspace"}
    assert len(table) == 3 * 17
    lacking = table[table["value"].isna()]  # this attack is not run on this arm
    assert lacking[["method", "column"]].to_numpy().tolist() == [["random", "autoattack"]]
    table = table.drop(lacking.index)
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert (table["n"] > 0).all()
    assert (table.loc[table["method"] == "nullspace", "seeds"] == 2).all()


def test_attacks_of_every_kind_are_in_the_table_on_their_subsets(finished):
    table = pd.read_csv(finished.folder / TABLES / "table1.csv")
    own = table[table["method"] == "nullspace"].set_index("column")
    wanted = {"patch_fool": 6, "cw": 6, "pgd_8": 10, "autoattack": 4, "whitebox": 10}
    assert own.loc[list(wanted), "n"].tolist() == list(wanted.values())
    assert own.loc["whitebox", "value"] <= own.loc["pgd_8", "value"]


def test_table2_has_its_own_rows_and_columns_and_differences(finished):
    table = pd.read_csv(finished.folder / TABLES / "table2.csv")
    values = table[table["minus"].isna()]
    assert list(dict.fromkeys(values["method"])) == ["none", "madry", "trades", "nullspace"]
    wanted = ["clean", "fgsm_1", "autoattack", "whitebox", "a", "c", "average"]
    for _, rows in values.groupby("method"):
        assert rows["column"].tolist() == wanted
    differences = table[table["minus"].notna()]
    assert set(differences["minus"]) == {"nullspace"} and len(differences)


def test_a_finished_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.snakemake(*SMOKE, "-n")


@pytest.mark.parametrize("rule", ["table", "nullspace", "evaluate"])
def test_one_rule_again_changes_nothing(finished, rule):
    before = finished.digests()
    output = finished.snakemake(*SMOKE, "-R", rule)
    assert f"rule {rule}:" in output
    assert finished.digests() == before
    assert "Nothing to be done" in finished.snakemake(*SMOKE, "-n")


def test_a_deleted_cell_is_computed_alone(finished):
    before = finished.digests()
    folder = "results/smoke/records/vit_s/nullspace"
    (finished.folder / folder / "seed1/a.parquet").unlink()
    finished.snakemake(f"{folder}/main.all.json", *SMOKE, "--force")
    log = (finished.folder / "results/smoke/logs/evaluate/vit_s/nullspace/main.all.log").read_text()
    computed = [line.split("nsvit.matrix: ")[1] for line in log.splitlines() if "matrix: " in line]
    assert computed == ["vit_s nullspace seed 1: a"]
    finished.snakemake(*SMOKE)
    assert finished.digests() == before


def test_jobs_and_parts_are_planned(finished):
    conditions = "conditions: {fgsm_8: {job: slow}}"
    split = f"evaluate={{together: false, {conditions}}}"
    output = finished.snakemake(*SMOKE, "-n", "--config", split)
    for name in ("main.seed0", "main.seed1", "slow.seed0", "slow.seed1"):
        assert f"results/smoke/records/vit_s/nullspace/{name}.json" in output
    assert "main.all.json" not in output.replace("logs/", "")
    assert "rule finetune:" not in output


def test_a_changed_key_reruns_only_what_depends_on_it(finished):
    output = finished.snakemake(*SMOKE, "-n", "--config", "statistics={seed: 5}")
    assert "table1" in output
    for rule in ("render", "finetune", "evaluate", "nullspace"):
        assert f"\nrule {rule}:" not in output


def test_a_run_from_scratch_gives_the_same_tables(finished, checkout):
    checkout.snakemake(*SMOKE)
    for name in ("table1", "table2", "influence", "nullity", "lambda", "closure"):
        theirs = (finished.folder / TABLES / f"{name}.csv").read_bytes()
        assert (checkout.folder / TABLES / f"{name}.csv").read_bytes() == theirs


def test_a_config_without_a_name_is_not_the_default_one(checkout):
    config = yaml.safe_load((checkout.folder / "config/smoke.yaml").read_text())
    del config["experiment"]
    nameless = checkout.folder / "nameless.yaml"
    nameless.write_text(yaml.safe_dump(config))
    output = checkout.snakemake("-n", "--configfile", str(nameless), check=False)
    assert "experiment: Field required" in output


def test_a_bad_config_stops_before_the_first_job(checkout):
    output = checkout.snakemake(*SMOKE, "--config", "finetune={lrr: 1}", check=False)
    assert "finetune.lrr: no such key" in output
    assert not (checkout.folder / "results").exists()


def _with_own_pictures(run, finished, **sets):
    """A copy of a finished run's pictures, and the smoke configuration that reads it as yours."""
    pictures = run.folder / "pictures"
    shutil.copytree(finished.folder / "results/smoke/data", pictures)
    config = yaml.safe_load((run.folder / "config/smoke.yaml").read_text())
    config["data"].update(root=str(pictures), classes=str(pictures / "classes.txt"))
    config["data"]["sets"].update(sets)
    del config["data"]["menagerie"]
    own = run.folder / "own.yaml"
    own.write_text(yaml.safe_dump(config, sort_keys=False))
    return pictures, own


def test_a_missing_folder_stops_the_run_before_the_first_job(tmp_path, finished):
    run = Checkout(tmp_path)
    pictures, own = _with_own_pictures(run, finished, sketch={"path": "skech"})
    output = run.snakemake("--configfile", str(own), check=False)
    assert f"no such folder: {pictures}/skech" in output and "check-data" in output
    assert not list((run.folder / "results/smoke").rglob("*.parquet"))
    run.snakemake("--dry-run", "--configfile", str(own))


def test_a_key_given_twice_is_refused(checkout):
    twice = checkout.folder / "twice.yaml"
    text = (checkout.folder / "config/smoke.yaml").read_text()
    twice.write_text(text + "\nstatistics: {resamples: 10}\n")
    output = checkout.snakemake("-n", "--configfile", str(twice), check=False)
    assert f"{twice}: 'statistics' in line" in output and "is already in line" in output


def test_a_damaged_picture_stops_the_run_by_name_and_keeps_what_is_done(tmp_path, finished):
    run = Checkout(tmp_path)
    pictures, own = _with_own_pictures(run, finished)
    damaged = next((pictures / "val").rglob("*.png"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    output = run.snakemake("results/smoke/index/val.parquet", "--configfile", str(own), check=False)
    log = (run.folder / "results/smoke/logs/scan/val.log").read_text()
    assert damaged.name in log
    assert "results/smoke/logs/scan/val.log" in output
    run.snakemake("results/smoke/index/v2.parquet", "--configfile", str(own))
