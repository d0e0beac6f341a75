"""Tables: what they hold, how they read, and what they refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nsvit import artifacts, paper, tables
from nsvit.errors import NsvitError
from nsvit.records import COLUMNS, read_records
from nsvit.specs import TableSpec
from nsvit.statistics import ALEXNET_ERRORS
from nsvit.tables import influence as influence_module
from nsvit.tables import main, nullity, runs
from tests import synthetic


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def record_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


@pytest.fixture(scope="module")
def frame(record_paths: list[Path], spec: TableSpec) -> pd.DataFrame:
    return tables.table1(record_paths, spec)


def value(frame: pd.DataFrame, model: str, method: str, column: str) -> pd.Series:
    mask = (frame["model"] == model) & (frame["method"] == method) & (frame["column"] == column)
    assert mask.sum() == 1
    return frame[mask].iloc[0]


# --- table 1 --------------------------------------------------------------------------------


def test_table1_has_every_cell_in_order(frame: pd.DataFrame, spec: TableSpec) -> None:
    columns = [*spec.conditions, "average"]
    assert list(frame.columns) == (
        ["model", "method", "column", "value", "low", "high", "n", "seeds", "paper"]
    )
    assert len(frame) == len(spec.models) * len(spec.arms) * len(columns)
    assert frame["column"].tolist()[: len(columns)] == columns
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()


def test_table1_values_are_means_of_records(
    frame: pd.DataFrame, record_paths: list[Path], spec: TableSpec
) -> None:
    records = pd.concat([pd.read_parquet(p) for p in record_paths])
    mine = records[(records["model"] == "vit_b") & (records["arm"] == "nullspace")]
    means = 100 * mine.groupby("condition")["correct"].mean()
    assert value(frame, "vit_b", "nullspace", "v2")["value"] == pytest.approx(means["v2"], abs=0.01)
    # Balanced cells: the mean error over types of means over severities is the plain mean.
    c = value(frame, "vit_b", "nullspace", "c")
    assert c["value"] == pytest.approx(100 - means["c"], abs=0.01)
    assert (c["n"], c["seeds"]) == (10, 3)
    averaged = [slug for slug, condition in spec.conditions.items() if condition.average]
    average = value(frame, "vit_b", "nullspace", "average")["value"]
    assert average == pytest.approx(means[averaged].mean(), abs=0.01)


def test_table1_normalises_where_the_metric_is_mce(
    record_paths: list[Path], spec: TableSpec
) -> None:
    some = [p for p in record_paths if "none" in p.parts]
    plain = tables.table1(some, spec)
    c = spec.conditions["c"].model_copy(update={"metric": "mce"})
    published = spec.model_copy(update={"conditions": {**spec.conditions, "c": c}})
    normalised = tables.table1(some, published)
    records = pd.read_parquet(some[0])
    errors = 1 - records[records["condition"] == "c"].groupby("corruption")["correct"].mean()
    expected = 100 * (errors / pd.Series(ALEXNET_ERRORS)).mean()
    model = records["model"].iloc[0]
    assert value(normalised, model, "none", "c")["value"] == pytest.approx(expected, abs=0.01)
    assert value(plain, model, "none", "c")["value"] == pytest.approx(100 * errors.mean(), abs=0.01)


def test_table1_carries_the_papers_numbers(frame: pd.DataFrame, spec: TableSpec) -> None:
    assert value(frame, "vit_s", "none", "clean")["paper"] == 74.19
    assert value(frame, "vit_b", "nullspace", "c")["paper"] == 47.82
    assert value(frame, "vit_s", "random", "r")["paper"] == 35.05
    assert value(frame, "vit_s_wrong_norm", "nullspace", "clean")["paper"] == 77.47
    assert np.isnan(value(frame, "vit_b", "random", "r")["paper"])
    assert np.isnan(value(frame, "vit_s", "plain", "clean")["paper"])
    assert np.isnan(value(frame, "vit_s", "none", "fgsm_8")["paper"])
    names = ["clean", "fgsm", "damagenet", "a", "v2", "r", "sketch", "stylized"]
    row = paper.row("ViT-S", "none")
    recomputed = (sum(row[name] for name in names) + 100 - row["c_mce"]) / 9
    assert value(frame, "vit_s", "none", "average")["paper"] == pytest.approx(recomputed)
    assert np.isnan(value(frame, "vit_s", "random", "average")["paper"])


def test_papers_average_is_printed_one_over_all_columns(spec: TableSpec) -> None:
    """With the paper's eleven columns counting, its own average stands beside ours."""
    clean = spec.conditions["clean"]
    conditions = {c: clean.model_copy(update={"paper": c}) for c in paper.COLUMNS}
    eleven = spec.model_copy(update={"conditions": conditions})
    assert main._paper_value(eleven, "vit_b", "nullspace", "average") == 39.39


def test_table1_is_the_same_from_files_and_frame(
    frame: pd.DataFrame, record_paths: list[Path], spec: TableSpec
) -> None:
    joined = read_records(record_paths)
    pd.testing.assert_frame_equal(tables.table1(joined, spec), frame)
    pd.testing.assert_frame_equal(tables.table1(record_paths[::-1], spec), frame)


def test_table1_ignores_rounds_in_between(record_paths: list[Path], spec: TableSpec) -> None:
    joined = read_records(record_paths[:1])
    both = pd.concat([joined, joined.assign(round=3)], ignore_index=True)
    pd.testing.assert_frame_equal(tables.table1(both, spec), tables.table1(joined, spec))


def test_table1_files_are_byte_identical(
    record_paths: list[Path], spec: TableSpec, tmp_path: Path
) -> None:
    texts = []
    for name in ("one", "two"):
        made = tables.table1(record_paths, spec)
        paths = [tmp_path / name / f"table1.{suffix}" for suffix in ("csv", "md", "tex")]
        tables.write(made, main.DECIMALS, tables.table1_sheet(made, spec), *paths)
        texts.append([path.read_bytes() for path in paths])
    assert texts[0] == texts[1]


def test_csv_has_fixed_decimals_and_reads_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    text = tables.csv_text(frame, main.DECIMALS)
    assert re.search(r"^vit_s,none,clean,\d+\.\d\d,\d+\.\d\d,\d+\.\d\d,60,1,74\.19$", text, re.M)
    path = tmp_path / "x.csv"
    path.write_text(text)
    np.testing.assert_allclose(pd.read_csv(path)["value"], frame["value"])


def test_gaps_are_shown_and_named(record_paths: list[Path], spec: TableSpec) -> None:
    lost = ("vit_s", "random", "seed2.parquet")
    kept = [p for p in record_paths if p.parts[-3:-1] != ("vit_b", "plain")]
    kept = [p for p in kept if p.parts[-3:] != lost]
    records = read_records(kept)
    gone = (
        (records["model"] == "vit_s") & (records["arm"] == "none") & (records["condition"] == "r")
    )
    gapped = tables.table1(records[~gone], spec)
    assert np.isnan(value(gapped, "vit_b", "plain", "clean")["value"])
    assert np.isnan(value(gapped, "vit_s", "none", "average")["value"])
    assert value(gapped, "vit_s", "random", "clean")["seeds"] == 2
    text = tables.markdown(tables.table1_sheet(gapped, spec))
    note = next(line for line in text.splitlines() if "Missing" in line)
    assert "ViT-B, plain (no records)" in note
    assert "ViT-S, random noise: 2 of 3 seeds" in note
    assert "ViT-S, none: R, Average" in note
    assert "| –" in text or " – " in text


def test_models_with_fewer_seeds_are_named_and_not_called_incomplete(
    record_paths: list[Path], spec: TableSpec
) -> None:
    records = read_records(record_paths, [*COLUMNS])
    model = spec.models["vit_b"].model_copy(update={"max_seeds": 2})
    fewer = spec.model_copy(update={"models": {**spec.models, "vit_b": model}})
    kept = records[(records["model"] != "vit_b") | (records["seed"] < 2)]
    note = tables.table1_sheet(tables.table1(kept, fewer), fewer).notes[-1]
    assert note == "Fewer seeds where time forbids more: ViT-B: at most 2."


def test_nothing_missing_is_not_mentioned(frame: pd.DataFrame, spec: TableSpec) -> None:
    assert "Missing" not in tables.markdown(tables.table1_sheet(frame, spec))


def test_best_is_bold_and_lowest_for_errors(frame: pd.DataFrame, spec: TableSpec) -> None:
    sheet = tables.table1_sheet(frame, spec)
    column = [*spec.conditions].index("c") + 1
    cells = {row[0].text: row[column] for row in sheet.parts[0].rows}
    ours = [spec.arms[slug].label for slug in spec.arms]
    lowest = min(ours, key=lambda name: float(cells[name].text))
    assert cells[lowest].style == "best"
    for part in sheet.parts:
        for i in range(1, len(sheet.header) - 1):
            assert sum(row[i].style == "best" for row in part.rows) >= 1
            assert all(row[i].style != "best" for row in part.rows if "paper" in row[0].text)


def test_markdown_is_a_table_with_notes(frame: pd.DataFrame, spec: TableSpec) -> None:
    text = tables.markdown(tables.table1_sheet(frame, spec))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {len(spec.conditions) + 4}
    assert "## ViT-S, wrong mean/std" in text
    assert "*paper: NS*" in text
    assert "only the sign of a difference" in text
    assert "recomputed over the columns" in text


def test_tex_is_balanced(frame: pd.DataFrame, spec: TableSpec) -> None:
    text = tables.tex(tables.table1_sheet(frame, spec))
    assert text.isascii()
    plain = re.sub(r"\\\\|\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r" \\") and " & " in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(spec.conditions) + 2}
    assert not re.search(r"(?<!\\)[%#_]", "".join(rows))
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1


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


def test_sheets_refuse_ragged_rows() -> None:
    with pytest.raises(ValueError, match="1 cells under 2"):
        tables.Sheet("t", ("a", "b"), (tables.Part("", ((tables.Cell("x"),),)),))


def test_write_refuses_other_formats(frame: pd.DataFrame, spec: TableSpec, tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match=r"t\.html"):
        tables.write(frame, {}, tables.table1_sheet(frame, spec), tmp_path / "t.html")


# --- bad records ----------------------------------------------------------------------------


def test_half_written_file_is_named(
    record_paths: list[Path], spec: TableSpec, tmp_path: Path
) -> None:
    half = tmp_path / "half.parquet"
    half.write_bytes(record_paths[0].read_bytes()[:5000])
    with pytest.raises(NsvitError, match=r"half\.parquet: damaged"):
        tables.table1([*record_paths, half], spec)


def test_missing_file_is_named(spec: TableSpec) -> None:
    with pytest.raises(NsvitError, match=r"nowhere\.parquet: no such file"):
        tables.table1(["nowhere.parquet"], spec)
    with pytest.raises(NsvitError, match="no records files"):
        tables.table1([], spec)
    with pytest.raises(NsvitError, match="no records files"):
        read_records([])


def test_absent_column_is_named(record_paths: list[Path], spec: TableSpec, tmp_path: Path) -> None:
    records = pd.read_parquet(record_paths[0]).drop(columns="severity")
    path = tmp_path / "old.parquet"
    artifacts.write_parquet(path, records, artifacts.provenance("records", {}))
    with pytest.raises(NsvitError, match=r"old\.parquet: no column severity"):
        tables.table1([path], spec)


@pytest.mark.parametrize("key", ["model", "arm", "condition"])
def test_unknown_names_are_refused(key: str, record_paths: list[Path], spec: TableSpec) -> None:
    records = read_records(record_paths[:1]).astype({key: str})
    with pytest.raises(NsvitError, match=f"{key} surprise"):
        tables.table1(records.assign(**{key: "surprise"}), spec)


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


# --- runs -----------------------------------------------------------------------------------


def test_runs_from_histories(spec: TableSpec, tmp_path: Path) -> None:
    paths = []
    for arm, seed in [("nullspace", 1), ("none", 0), ("nullspace", 0)]:
        path = tmp_path / arm / f"seed{seed}" / "history.json"
        artifacts.write_json(path, synthetic.history("vit_s", arm, seed))
        paths.append(path)
    frame = tables.table_runs(paths, spec)
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
    text = tables.markdown(tables.runs_sheet(frame, spec))
    assert text.count("–") >= 4
    assert "nan" not in text + tables.csv_text(frame, runs.DECIMALS)


def test_runs_refuse_what_is_no_history(spec: TableSpec, tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"rounds": [')
    with pytest.raises(NsvitError, match=r"history\.json: not JSON"):
        tables.table_runs([path], spec)
    content = synthetic.history("surprise", "none", 0)
    path.write_text(json.dumps(content))
    with pytest.raises(NsvitError, match="surprise"):
        tables.table_runs([path], spec)
    path.write_text(json.dumps({**content, "rounds": []}))
    with pytest.raises(NsvitError, match="no rounds"):
        tables.table_runs([path], spec)


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
    tables.write_table1(record_paths[:2], spec, tmp_path / "table1.csv")
    tables.write_nullity(architectures, [nullspace], spec, tmp_path / "out.csv")
    tables.write_influence([influences], spec, tmp_path / "influence.csv")
    tables.write_runs([history], spec, tmp_path / "runs.csv")
    for name in ("table1", "out", "influence", "runs"):
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
