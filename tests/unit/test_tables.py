"""Tables: what they hold, how they read, and what they refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsvit import artifacts, tables
from nsvit.errors import NsvitError
from nsvit.specs import TableSpec
from nsvit.tables import cost, nullity
from nsvit.tables import influence as influence_module
from nsvit.tables.sheet import GAP, signed
from tests import synthetic


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def record_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


# --- sheets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("character", list("\\&%$#_{}~^"))
def test_tex_escapes(character: str) -> None:
    sheet = tables.Sheet("t", ("a",), (tables.Part("", ((tables.Cell(f"x{character}y"),),)),))
    row = next(line for line in tables.tex(sheet).splitlines() if line.startswith("x"))
    assert row.startswith("x\\")
    assert row.endswith(r"y \\")


def test_markdown_escapes_pipes() -> None:
    sheet = tables.Sheet(
        "t", ("a", "b"), (tables.Part("", ((tables.Cell("x|y"), tables.Cell("z")),)),)
    )
    assert "x\\|y" in tables.markdown(sheet)


@pytest.mark.parametrize(
    ("value", "text"), [(1.24, "+1.2"), (-1.26, "−1.3"), (-0.04, "0.0"), (float("nan"), GAP)]
)
def test_differences_have_signs(value: float, text: str) -> None:
    assert signed(value) == text


def test_sheets_refuse_ragged_rows() -> None:
    with pytest.raises(ValueError, match="1 cells under 2"):
        tables.Sheet("t", ("a", "b"), (tables.Part("", ((tables.Cell("x"),),)),))


def test_a_part_can_have_headings_of_its_own() -> None:
    cell = tables.Cell("x", "±1.0", "best", "‡")
    one = tables.Part("first", ((cell,),))
    two = tables.Part("second", ((cell, cell),), ("b", "c"))
    sheet = tables.Sheet("t", ("a",), (one, two))
    assert "| **x** ±1.0‡ | **x** ±1.0‡ |" in tables.markdown(sheet)
    text = tables.tex(sheet)
    assert text.count("\\begin{tabular}") == 2
    assert r"\textbf{x}{\tiny\,$\pm$1.0}\ddag{}" in text
    with pytest.raises(ValueError, match="1 cells under 2"):
        tables.Sheet("t", ("a",), (tables.Part("", ((cell,),), ("b", "c")),))


def test_write_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match=r"t\.html"):
        tables.write(pd.DataFrame(), {}, tables.Sheet("t", ("a",), ()), tmp_path / "t.html")


# --- influence ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def influence(tmp_path_factory: pytest.TempPathFactory, spec: TableSpec) -> pd.DataFrame:
    paths = []
    for model in ("vit_b", "vit_s"):
        path = tmp_path_factory.mktemp("influence") / f"{model}.parquet"
        sidecar = artifacts.provenance("influence", {})
        artifacts.write_parquet(path, synthetic.influence_frame(model), sidecar)
        paths.append(path)
    return tables.table_influence(tables.read_influence(paths), spec)


def test_influence_has_one_row_per_block_and_noise(influence: pd.DataFrame) -> None:
    assert influence["model"].tolist() == ["vit_s"] * 12 + ["vit_b"] * 12
    assert influence["noise"].tolist()[:3] == ["learned", "permuted", "gaussian"]
    row = influence.iloc[0]
    raw = synthetic.influence_frame("vit_s")
    mine = raw[(raw["block"] == 0) & (raw["noise"] == "learned")]
    assert row["agreement"] == pytest.approx(100 * mine["agree"].mean())
    assert row["logit_distance"] == pytest.approx(mine["logit_distance"].mean())
    assert row["agreement_low"] < row["agreement"] < row["agreement_high"]
    assert row["epsilon_met"] == pytest.approx(200 / 3)
    assert (row["n"], row["draws"]) == (40, 3)
    assert row["norm_low"] <= row["norm"] <= row["norm_high"]


def test_censored_norms_are_marked(influence: pd.DataFrame, spec: TableSpec) -> None:
    assert influence["censored"].tolist()[:12] == [False] * 9 + [True] * 3
    sheet = tables.influence_sheet(influence, spec)
    assert "†" in tables.markdown(sheet)
    assert tables.tex(sheet).isascii()
    free = influence.assign(censored=False)
    assert "†" not in tables.markdown(tables.influence_sheet(free, spec))


def test_influence_files_have_fixed_decimals(influence: pd.DataFrame) -> None:
    text = tables.csv_text(influence, influence_module.DECIMALS)
    assert text == tables.csv_text(influence.copy(), influence_module.DECIMALS)
    assert re.match(r"vit_s,0,learned,\d+\.\d\d,", text.splitlines()[1])


def test_influence_refuses_draws_with_other_pictures(spec: TableSpec) -> None:
    raw = synthetic.influence_frame("vit_s")
    with pytest.raises(NsvitError, match="vit_s 0 learned"):
        tables.table_influence(raw.drop(index=0), spec)
    with pytest.raises(NsvitError, match="surprise"):
        tables.table_influence(raw.assign(model="surprise"), spec)


# --- nullity --------------------------------------------------------------------------------


def test_nullity_joins_shape_and_measurement(spec: TableSpec) -> None:
    architectures = pd.DataFrame(
        {
            "architecture": ["vit_small_patch16_224"],
            "patch": ["16"],
            "columns": [768],
            "width": [384],
            "guaranteed_nullity": [384],
            "patches": [196],
            "guaranteed_nullity_per_image": [75264],
            "rank": pd.array([None], dtype="Int64"),
            "nullity": pd.array([None], dtype="Int64"),
            "nullity_per_image": pd.array([None], dtype="Int64"),
        }
    )
    sidecar = {
        "spec": {"model": "vit_s"},
        "metrics": {
            "rank": 64,
            "nullity": 128,
            "nullspace_max_logit_difference": 3.2e-6,
            "random_max_logit_difference": 4.1,
        },
    }
    frame = tables.table_nullity(architectures, [sidecar], spec)
    assert frame["name"].tolist() == ["vit_small_patch16_224", "ViT-S"]
    assert frame["measured"].tolist() == [False, True]
    assert frame.at[1, "columns"] == 192
    assert frame.at[0, "guaranteed_nullity_per_image"] == 75264
    text = tables.csv_text(frame, nullity.DECIMALS)
    assert "3.2e-06" in text
    assert "75264" in tables.markdown(tables.nullity_sheet(frame, spec))
    from_csv = tables.table_nullity(architectures.astype(object), [], spec)
    assert len(from_csv) == 1


# --- cost -----------------------------------------------------------------------------------


def test_costs_from_histories(spec: TableSpec, tmp_path: Path) -> None:
    paths = []
    for arm, seed in [("nullspace", 1), ("none", 0), ("nullspace", 0)]:
        path = tmp_path / arm / f"seed{seed}" / "history.json"
        artifacts.write_json(path, synthetic.history("vit_s", arm, seed))
        paths.append(path)
    frame = tables.table_cost(paths, spec)
    assert frame[["method", "seed"]].to_numpy().tolist() == (
        [["none", 0], ["nullspace", 0], ["nullspace", 1]]
    )
    last = frame.iloc[2]
    assert (last["rounds"], last["selected"]) == (8, 8)
    assert last["noise_norm"] == 84.0
    assert last["noise_steps"] == pytest.approx(84.5)
    assert last["epsilon_met"] == pytest.approx(87.5)
    assert (last["noise_seconds"], last["train_seconds"]) == (26.0, 12.0)
    assert last["dev_start"] == pytest.approx(84.0)
    assert np.isnan(frame.iloc[0]["noise_norm"])
    # Batches of 128: eight rounds of 20 steps, 676 steps of the noise and the 7 tests it passed.
    assert last["pictures"] == 8 * 20 * 128
    assert last["noise_pictures"] == (676 + 7) * 128
    assert np.isnan(last["attack_seconds"])
    text = tables.markdown(tables.cost_sheet(frame, spec))
    assert "7 of 8" in text and "84.0 → 85.6" in text
    assert text.count("–") >= 4
    assert "nan" not in text + tables.csv_text(frame, cost.DECIMALS)


def test_attack_seconds_are_part_of_the_cost(spec: TableSpec, tmp_path: Path) -> None:
    content = synthetic.history("vit_s", "plain", 0)
    for row in content["rounds"]:
        row["attack_seconds"] = 2.5 if row["round"] else None
    path = tmp_path / "history.json"
    artifacts.write_json(path, content)
    frame = tables.table_cost([path], spec)
    assert frame.at[0, "attack_seconds"] == 20.0
    assert "20.0" in tables.markdown(tables.cost_sheet(frame, spec))


def test_costs_refuse_what_is_no_history(spec: TableSpec, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"rounds": [')
    with pytest.raises(NsvitError, match=r"history\.json: not JSON"):
        tables.table_cost([path], spec)
    content = synthetic.history("surprise", "none", 0)
    path.write_text(json.dumps(content))
    with pytest.raises(NsvitError, match="surprise"):
        tables.table_cost([path], spec)
    path.write_text(json.dumps({**content, "spec": {"model": "vit_s"}}))
    with pytest.raises(NsvitError, match=r"history\.json: no 'finetune'"):
        tables.table_cost([path], spec)
    path.write_text(json.dumps({**content, "rounds": []}))
    with pytest.raises(NsvitError, match="no rounds"):
        tables.table_cost([path], spec)


# --- verbs ----------------------------------------------------------------------------------


def test_verbs_write_three_forms(record_paths: list[Path], spec: TableSpec, tmp_path: Path) -> None:
    architectures = tmp_path / "nullity.csv"
    architectures.write_text(
        "architecture,patch,columns,width,guaranteed_nullity,patches,guaranteed_nullity_per_image,"
        "rank,nullity,nullity_per_image\nvit_small_patch16_224,16,768,384,384,196,75264,,,\n"
    )
    nullspace = tmp_path / "nullspace.json"
    artifacts.write_json(nullspace, synthetic.nullspace_example()[1] | {"schema_version": 1})
    influences = tmp_path / "vit_s.parquet"
    sidecar = artifacts.provenance("influence", {})
    artifacts.write_parquet(influences, synthetic.influence_frame("vit_s"), sidecar)
    history = tmp_path / "history.json"
    artifacts.write_json(history, synthetic.history("vit_s", "nullspace", 0))
    scores = synthetic.write_scores(record_paths, tmp_path)
    tables.write_accuracy(scores, synthetic.accuracy_spec(), tmp_path / "table1.csv")
    tables.write_nullity(architectures, [nullspace], spec, tmp_path / "out.csv")
    tables.write_influence([influences], spec, tmp_path / "influence.csv")
    tables.write_cost([history], spec, tmp_path / "cost.csv")
    for name in ("table1", "out", "influence", "cost"):
        for suffix in ("csv", "md", "tex"):
            assert (tmp_path / f"{name}.{suffix}").stat().st_size > 100
    assert (
        "vit_small_patch16_224,False,16,768,384,384,196,75264" in (tmp_path / "out.csv").read_text()
    )


def test_nullity_verb_names_bad_files(spec: TableSpec, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(NsvitError, match=r"empty\.csv"):
        tables.write_nullity(empty, [], spec, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_file_costs_its_own_rows_only(spec: TableSpec, tmp_path: Path) -> None:
    histories = [tmp_path / f"history{seed}.json" for seed in range(3)]
    for seed, path in enumerate(histories):
        artifacts.write_json(path, synthetic.history("vit_s", "nullspace", seed))
    histories[1].write_text('{"rounds": [')
    tables.write_cost(histories, spec, tmp_path / "cost.csv")
    assert pd.read_csv(tmp_path / "cost.csv")["seed"].tolist() == [0, 2]
    influences = [tmp_path / "vit_s.parquet", tmp_path / "vit_b.parquet"]
    for path in influences:
        sidecar = artifacts.provenance("influence", {})
        artifacts.write_parquet(path, synthetic.influence_frame(path.stem), sidecar)
    influences[0].write_bytes(influences[0].read_bytes()[:-100])
    tables.write_influence(influences, spec, tmp_path / "influence.csv")
    assert set(pd.read_csv(tmp_path / "influence.csv")["model"]) == {"vit_b"}
    for name, says in (
        ("cost", "history1.json: not JSON"),
        ("influence", "vit_s.parquet: damaged"),
    ):
        (note,) = (
            line
            for line in (tmp_path / f"{name}.md").read_text().splitlines()
            if line.startswith("- Left out: ")
        )
        assert says in note.replace("\\", "")
    with pytest.raises(NsvitError, match=r"history1\.json"):
        tables.write_cost(histories[1:2], spec, tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


# --- without torch --------------------------------------------------------------------------


def test_tables_and_figures_need_no_torch() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "torchvision", "accelerate"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
import nsvit.statistics, nsvit.tables, nsvit.figures, nsvit.paper
nsvit.paper.table("figures")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
