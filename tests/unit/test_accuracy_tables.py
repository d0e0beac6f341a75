"""Tables of accuracies: what they hold, how they read, what they doubt and what they refuse."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from nsvit import artifacts, config, paper, specs, tables
from nsvit.errors import NsvitError
from nsvit.records import read_doubts, read_records
from nsvit.specs import AccuracySpec
from nsvit.statistics import ALEXNET_ERRORS
from nsvit.statistics.checks import Doubt
from nsvit.tables import accuracy, accuracy_notes
from nsvit.tables.sheet import with_lost
from tests import synthetic

FGSM = ("clean", "fgsm_1", "fgsm_8")


@pytest.fixture(scope="module")
def exp() -> config.Experiment:
    """The default experiment with a robust set."""
    exp = synthetic.experiment()
    robust = config.RobustConfig(label="all FGSM", conditions=FGSM)
    evaluate = exp.evaluate.model_copy(update={"robust": {"all_fgsm": robust}})
    return exp.model_copy(update={"evaluate": evaluate})


def spec_of(exp: config.Experiment, **own: object) -> AccuracySpec:
    """The spec of a table that is in no config."""
    table = config.TableConfig(**{"title": "T", **own})
    return specs.accuracy(exp.model_copy(update={"tables": {"t": table}}), "t")


@pytest.fixture(scope="module")
def spec(exp: config.Experiment) -> AccuracySpec:
    return spec_of(exp)


@pytest.fixture(scope="module")
def record_paths(tmp_path_factory: pytest.TempPathFactory, exp: config.Experiment) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), exp)


@pytest.fixture(scope="module")
def records(record_paths: list[Path]) -> pd.DataFrame:
    return read_records(record_paths)


@pytest.fixture(scope="module")
def frame(record_paths: list[Path], spec: AccuracySpec) -> pd.DataFrame:
    return tables.accuracy_table(record_paths, spec)


def cell(frame: pd.DataFrame, model: str, method: str, column: str, minus: str = "") -> pd.Series:
    wanted = {"model": model, "method": method, "column": column, "minus": minus}
    found = frame[np.logical_and.reduce([frame[key] == value for key, value in wanted.items()])]
    assert len(found) == 1
    return found.iloc[0]


def rows_of(text: str, label: str) -> list[list[str]]:
    """The cells of every markdown row that begins with a label."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[part.strip() for part in line] for line in lines if line[0].strip() == label]


# --- numbers --------------------------------------------------------------------------------


def test_every_cell_in_order(frame: pd.DataFrame, spec: AccuracySpec) -> None:
    columns = [*spec.conditions, "all_fgsm", "average"]
    assert list(frame.columns) == [
        *("model", "method", "minus", "column", "value", "low", "high", "n", "seeds"),
        *("paper", "doubts"),
    ]
    assert len(frame) == len(spec.models) * len(spec.arms) * len(columns)
    assert frame["column"].tolist()[: len(columns)] == columns
    assert ((frame["low"] <= frame["value"]) & (frame["value"] <= frame["high"])).all()


def test_values_are_means_of_records(
    frame: pd.DataFrame, records: pd.DataFrame, spec: AccuracySpec
) -> None:
    mine = records[(records["model"] == "vit_b") & (records["arm"] == "nullspace")]
    means = 100 * mine.groupby("condition", observed=True)["correct"].mean()
    assert cell(frame, "vit_b", "nullspace", "v2")["value"] == pytest.approx(means["v2"], abs=0.01)
    # Balanced cells: the mean error over types of means over severities is the plain mean.
    c = cell(frame, "vit_b", "nullspace", "c")
    assert c["value"] == pytest.approx(100 - means["c"], abs=0.01)
    assert (c["n"], c["seeds"]) == (10, 3)
    averaged = [slug for slug, condition in spec.conditions.items() if condition.average]
    average = cell(frame, "vit_b", "nullspace", "average")["value"]
    assert average == pytest.approx(means[averaged].mean(), abs=0.01)


def test_robust_sets_count_pictures_that_are_right_everywhere(
    frame: pd.DataFrame, records: pd.DataFrame
) -> None:
    mine = records[(records["model"] == "vit_s") & (records["arm"] == "random")]
    mine = mine[mine["condition"].isin(FGSM)].astype({"sample": str, "condition": str})
    wide = mine.pivot(index=["seed", "sample"], columns="condition", values="correct")
    robust = cell(frame, "vit_s", "random", "all_fgsm")
    assert robust["value"] == pytest.approx(100 * wide.all(axis=1).mean(), abs=0.01)
    assert (robust["n"], robust["seeds"]) == (60, 3)
    assert np.isnan(robust["paper"])


def test_mce_is_normalised_and_a_plain_error_beside_it_is_not(
    exp: config.Experiment, records: pd.DataFrame
) -> None:
    spec = spec_of(exp, models=["vit_s"], arms=["none"], conditions=["clean", "c"])
    error = spec.conditions["c"].model_copy(update={"label": "C"})
    mce = error.model_copy(update={"metric": "mce"})
    both = spec.model_copy(
        update={
            "columns": ("clean", "c", "c2"),
            "conditions": {"clean": spec.conditions["clean"], "c": mce, "c2": error},
        }
    )
    mine = records[(records["model"] == "vit_s") & (records["arm"] == "none")]
    again = mine[mine["condition"] == "c"].astype({"condition": str}).assign(condition="c2")
    frame = tables.accuracy_table(pd.concat([mine, again], ignore_index=True), both)
    errors = (
        1 - mine[mine["condition"] == "c"].groupby("corruption", observed=True)["correct"].mean()
    )
    expected = 100 * (errors / pd.Series(ALEXNET_ERRORS)).mean()
    assert cell(frame, "vit_s", "none", "c")["value"] == pytest.approx(expected, abs=0.01)
    assert cell(frame, "vit_s", "none", "c2")["value"] == pytest.approx(
        100 * errors.mean(), abs=0.01
    )
    text = tables.markdown(tables.accuracy_sheet(frame, both))
    assert rows_of(text, "C (mCE) ↓") and rows_of(text, "C ↓")
    assert "divided by AlexNet's" in text and "so not an mCE" in text


def test_a_table_shows_only_its_rows_and_columns(
    exp: config.Experiment, records: pd.DataFrame, frame: pd.DataFrame
) -> None:
    wanted = ["r", "all_fgsm", "clean"]
    small = spec_of(exp, models=["vit_b"], arms=["nullspace", "none"], conditions=wanted)
    assert set(small.conditions) == {"clean", "r", *FGSM}
    mine = records[(records["model"] == "vit_b") & records["arm"].isin(["none", "nullspace"])]
    made = tables.accuracy_table(mine, small)
    assert made["column"].tolist() == [*wanted, "average"] * 2
    assert made["method"].drop_duplicates().tolist() == ["nullspace", "none"]
    for column in wanted:
        here, there = (cell(f, "vit_b", "none", column)["value"] for f in (made, frame))
        assert here == there
    # Robust sets and the members that are not shown do not count in the Average.
    mean = np.mean([cell(made, "vit_b", "none", one)["value"] for one in ("r", "clean")])
    assert cell(made, "vit_b", "none", "average")["value"] == pytest.approx(mean, abs=0.01)


def test_the_same_from_files_and_frame(
    frame: pd.DataFrame, record_paths: list[Path], records: pd.DataFrame, spec: AccuracySpec
) -> None:
    pd.testing.assert_frame_equal(tables.accuracy_table(records, spec), frame)
    pd.testing.assert_frame_equal(tables.accuracy_table(record_paths[::-1], spec), frame)


def test_rounds_in_between_are_ignored(records: pd.DataFrame, spec: AccuracySpec) -> None:
    few = records[(records["model"] == "vit_s") & (records["arm"] == "none")]
    both = pd.concat([few, few.assign(round=3)], ignore_index=True)
    pd.testing.assert_frame_equal(
        tables.accuracy_table(both, spec), tables.accuracy_table(few, spec)
    )


def test_files_are_byte_identical(
    record_paths: list[Path], spec: AccuracySpec, tmp_path: Path
) -> None:
    texts = []
    scores = synthetic.write_scores(record_paths[:3], tmp_path)
    for name in ("one", "two"):
        tables.write_accuracy(scores, spec, tmp_path / name / "t.csv")
        paths = [tmp_path / name / f"t.{suffix}" for suffix in ("csv", "md", "tex")]
        texts.append([path.read_bytes() for path in paths])
    assert texts[0] == texts[1]


def test_csv_has_fixed_decimals_and_reads_back(frame: pd.DataFrame, tmp_path: Path) -> None:
    text = tables.csv_text(frame, accuracy.DECIMALS)
    line = r"^vit_s,none,,clean,\d+\.\d\d,\d+\.\d\d,\d+\.\d\d,60,1,74\.19,0$"
    assert re.search(line, text, re.M)
    path = tmp_path / "x.csv"
    path.write_text(text)
    np.testing.assert_allclose(pd.read_csv(path)["value"], frame["value"], atol=0.00501)


# --- differences ----------------------------------------------------------------------------


def test_differences_are_paired(exp: config.Experiment, records: pd.DataFrame) -> None:
    """The same predictions under another arm's name differ by nothing.

    How surely says `statistics.compare`: as if one picture differed, so by 1 / (n + 2).
    """
    own = spec_of(exp, models=["vit_s"], arms=["none", "plain"], against=["none"])
    mine = records[(records["model"] == "vit_s") & (records["arm"] == "none")]
    twin = mine.astype({"arm": str}).assign(arm="plain")
    made = tables.accuracy_table(pd.concat([mine, twin], ignore_index=True), own)
    zero = made[made["minus"] == "none"]
    assert len(zero) == len(own.columns) + 1
    assert (zero["value"] == 0).all()
    np.testing.assert_array_equal(zero["low"], -zero["high"])
    (clean,) = zero.loc[zero["column"] == "clean", "high"]
    assert clean == pytest.approx(100 / 62 * scipy.stats.t(59).ppf(0.975), abs=0.01)
    spread = made[made["minus"] == ""]
    assert (spread["low"] < spread["high"]).all()


def test_differences_are_those_of_the_numbers(
    exp: config.Experiment, record_paths: list[Path]
) -> None:
    own = spec_of(exp, against=["none", "plain"])
    made = tables.accuracy_table(record_paths, own)
    pairs = made[["method", "minus"]].drop_duplicates().to_numpy().tolist()
    assert [pair for pair in pairs if pair[1]] == [
        *(["plain", "none"], ["random", "none"], ["nullspace", "none"]),
        *(["random", "plain"], ["nullspace", "plain"]),
    ]
    for column in ("clean", "c", "all_fgsm", "average"):
        one, two = (cell(made, "vit_b", m, column) for m in ("nullspace", "plain"))
        difference = cell(made, "vit_b", "nullspace", column, "plain")
        assert difference["value"] == pytest.approx(one["value"] - two["value"], abs=0.011)
        assert difference["low"] <= difference["value"] <= difference["high"]
    printed = cell(made, "vit_b", "nullspace", "clean", "none")["paper"]
    assert printed == pytest.approx(81.42 - 77.68)
    text = tables.markdown(tables.accuracy_sheet(made, own))
    assert "NS − plain" in text and "*+3.7*" in text


def test_the_control_says_what_finetuning_alone_gains(record_paths: list[Path]) -> None:
    exp = synthetic.experiment()
    own = specs.accuracy(exp, "control")
    runs = set(exp.table_runs("control"))
    mine = [path for path in record_paths if path.parts[-3:-1] in runs]
    made = tables.accuracy_table(mine, own)
    (note,) = [n for n in tables.accuracy_sheet(made, own).notes if "Re-adaptation" in n]
    found = cell(made, "vit_s_wrong_norm", "plain", "average", "none")
    assert f"ViT-S, wrong mean/std: plain {found['value']:+.1f} ±" in note
    assert "ViT-S: plain" in note and "over none" in note


# --- the paper ------------------------------------------------------------------------------


def test_the_papers_numbers_stand_beside_ours(frame: pd.DataFrame) -> None:
    assert cell(frame, "vit_s", "none", "clean")["paper"] == 74.19
    assert cell(frame, "vit_b", "nullspace", "c")["paper"] == 47.82
    assert cell(frame, "vit_s", "random", "r")["paper"] == 35.05
    assert cell(frame, "vit_s_wrong_norm", "nullspace", "clean")["paper"] == 77.47
    assert np.isnan(cell(frame, "vit_b", "random", "r")["paper"])
    assert np.isnan(cell(frame, "vit_s", "plain", "clean")["paper"])
    assert np.isnan(cell(frame, "vit_s", "none", "fgsm_8")["paper"])
    names = ["clean", "fgsm", "damagenet", "a", "v2", "r", "sketch", "stylized"]
    row = paper.row("ViT-S", "none")
    recomputed = (sum(row[name] for name in names) + 100 - row["c_mce"]) / 9
    assert cell(frame, "vit_s", "none", "average")["paper"] == pytest.approx(recomputed)
    assert np.isnan(cell(frame, "vit_s", "random", "average")["paper"])


PRINTED = {
    ("ViT-S", "none"): 26.54,
    ("ViT-S", "NS"): 34.45,
    ("ViT-B", "none"): 34.01,
    ("ViT-B", "NS"): 39.39,
    ("ViT-B", "DAT"): 43.41,
    ("ViT-B", "DAT+NS"): 43.61,
}


def test_the_papers_own_numbers_give_its_averages(exp: config.Experiment) -> None:
    """Records with exactly the paper's accuracies go through the table; so does its Average."""
    slug = {"ViT-S": "vit_s", "ViT-B": "vit_b"}
    arms = {m: f"arm{i}" for i, m in enumerate(dict.fromkeys(m for _, m in PRINTED))}
    plain = {"label": "x", "kind": "plain"}
    conditions = {name: {"label": name, "set": name, "paper": name} for name in paper.COLUMNS} | {
        "c_mce": {"label": "C", "set": "c_mce", "metric": "corruption_error", "paper": "c_mce"}
    }
    spec = AccuracySpec.model_validate(
        {
            "title": "the paper's Table 1",
            "models": {slug[m]: exp.models[slug[m]] for m in slug},
            "arms": {arm: {**plain, "paper": method} for method, arm in arms.items()},
            "columns": list(paper.COLUMNS),
            "conditions": conditions,
            "robust": {},
            "statistics": {"resamples": 5},
        }
    )
    n = 10_000
    parts = []
    for model, method in PRINTED:
        for column, number in paper.row(model, method).items():
            if column == "average":
                continue
            error = column == "c_mce"
            right = round(n * (100 - number if error else number) / 100)
            rows = {"model": slug[model], "arm": arms[method], "seed": 0, "round": -1}
            rows |= {"condition": column, "set": column, "sample": [f"{i}" for i in range(n)]}
            rows |= {"corruption": "fog" if error else "", "severity": int(error)}
            parts.append(pd.DataFrame({**rows, "correct": np.arange(n) < right}))
    made = tables.accuracy_table(pd.concat(parts, ignore_index=True), spec)
    for (model, method), printed in PRINTED.items():
        average = cell(made, slug[model], arms[method], "average")
        # The paper rounds 34.0145 down and truncates 43.616.
        expected = 43.616 if method == "DAT+NS" else printed
        assert average["value"] == pytest.approx(expected, abs=0.0055)
        assert average["paper"] == printed


def test_paper_rows_of_the_other_tables_are_found() -> None:
    assert paper.row("ViT-S", "Madry")["fgsm"] == 39.37
    assert paper.row("ViT-S", "TRADES")["a"] == 16.53
    assert paper.row("ViT-S", "NS eps=0.1")["clean"] == 77.06
    assert paper.row("ViT-S", "NS fixed iterations (no early stop)")["r"] == 44.21
    # Table 2 repeats a row of Table 1 without its average and two of its columns.
    assert paper.row("ViT-S", "NS")["average"] == 34.45
    assert paper.row("ViT-S", "none")["cw"] == 4.63


# --- cells that are not there ---------------------------------------------------------------


def limited(exp: config.Experiment, **limits: dict[str, tuple[str, ...]]) -> config.Experiment:
    """The experiment with conditions for some models or arms only."""
    conditions = {
        slug: condition.model_copy(update=limits.get(slug, {}))
        for slug, condition in exp.evaluate.conditions.items()
    }
    evaluate = exp.evaluate.model_copy(update={"conditions": conditions})
    return exp.model_copy(update={"evaluate": evaluate})


def test_what_is_not_evaluated_is_a_dash_and_not_missing(
    exp: config.Experiment, records: pd.DataFrame
) -> None:
    less = limited(exp, fgsm_8={"arms": ("none",)}, sketch={"models": ("vit_s",)})
    own = spec_of(less)
    gone = (records["condition"] == "fgsm_8") & (records["arm"] != "none")
    gone |= (records["condition"] == "sketch") & (records["model"] != "vit_s")
    made = tables.accuracy_table(records[~gone], own)
    text = tables.markdown(tables.accuracy_sheet(made, own))
    assert "missing" not in text.lower()
    assert "—: not evaluated there, by configuration" in text
    assert all(row[3:] == ["—"] * 3 and "±" in row[2] for row in rows_of(text, "FGSM 8/255"))
    # A robust set needs all of its members.
    assert all(row[3:] == ["—"] * 3 and "±" in row[2] for row in rows_of(text, "all FGSM"))
    # The Average of a model is over what all of its arms have; the others keep theirs.
    counted = [slug for slug, one in own.conditions.items() if one.average]
    assert accuracy.average_columns(own, "vit_s") == tuple(counted)
    assert accuracy.average_columns(own, "vit_b") == tuple(c for c in counted if c != "sketch")
    values = [cell(made, "vit_b", "none", one)["value"] for one in counted if one != "sketch"]
    signs = [own.conditions[one].is_error for one in counted if one != "sketch"]
    mean = np.mean([100 - v if error else v for v, error in zip(values, signs, strict=True)])
    assert cell(made, "vit_b", "none", "average")["value"] == pytest.approx(mean, abs=0.01)
    assert "Average of ViT-B, ViT-S, wrong mean/std: mean of Clean" in text


def test_gaps_are_shown_and_named(record_paths: list[Path], spec: AccuracySpec) -> None:
    lost = ("vit_s", "random", "seed2.parquet")
    kept = [p for p in record_paths if p.parts[-3:-1] != ("vit_b", "plain")]
    kept = [p for p in kept if p.parts[-3:] != lost]
    records = read_records(kept)
    gone = (
        (records["model"] == "vit_s") & (records["arm"] == "none") & (records["condition"] == "r")
    )
    gapped = tables.accuracy_table(records[~gone], spec)
    assert np.isnan(cell(gapped, "vit_b", "plain", "clean")["value"])
    assert np.isnan(cell(gapped, "vit_s", "none", "average")["value"])
    assert cell(gapped, "vit_s", "random", "clean")["seeds"] == 2
    text = tables.markdown(tables.accuracy_sheet(gapped, spec))
    note = next(line for line in text.splitlines() if "Missing" in line)
    assert "ViT-B, plain (no records)" in note
    assert "ViT-S, random noise: 2 of 3 seeds" in note
    assert "ViT-S, none: R, Average" in note
    assert rows_of(text, "R")[0][2] == "missing"
    assert rows_of(text, "Clean")[1][3] == "missing"


def test_models_with_fewer_seeds_are_named_and_not_called_incomplete(
    records: pd.DataFrame, spec: AccuracySpec
) -> None:
    model = spec.models["vit_b"].model_copy(update={"max_seeds": 2})
    fewer = spec.model_copy(update={"models": {**spec.models, "vit_b": model}})
    kept = records[(records["model"] != "vit_b") | (records["seed"] < 2)]
    made = tables.accuracy_table(kept, fewer)
    note = tables.accuracy_sheet(made, fewer).notes[-1]
    assert note == "Fewer seeds where time forbids more: ViT-B: at most 2."


# --- doubts ---------------------------------------------------------------------------------


def doubt(condition: str = "fgsm_8", arm: str = "none", seed: int = 0, model: str = "vit_s") -> str:
    where = f"{model}/{arm}/seed{seed} round -1 set val {condition}"
    return f"{where}: leaves 9.9 points more accuracy: the step overshoots [rising_with_radius]"


def made_with(
    doubts: list[str], records: pd.DataFrame, spec: AccuracySpec
) -> tuple[pd.DataFrame, str]:
    parsed = [Doubt.parse(text) for text in doubts]
    made = tables.accuracy_table(records, spec, parsed)
    return made, tables.markdown(tables.accuracy_sheet(made, spec, parsed))


def test_doubted_cells_are_marked_and_explained(records: pd.DataFrame, spec: AccuracySpec) -> None:
    made, text = made_with([doubt()], records, spec)
    marked = made[made["doubts"] > 0]
    # FGSM 8/255 does not count in the Average; the robust set has it.
    assert marked[["model", "method", "column"]].to_numpy().tolist() == [
        ["vit_s", "none", "fgsm_8"],
        ["vit_s", "none", "all_fgsm"],
    ]
    assert [row[2].endswith("‡") for row in rows_of(text, "FGSM 8/255")] == [True, False, False]
    assert text.count("±") > 50 and text.count("‡ |") == 2
    assert "‡ FGSM 8/255, ViT-S none (0): leaves 9.9 points more accuracy" in text
    average, _ = made_with([doubt("fgsm_1")], records, spec)
    assert cell(average, "vit_s", "none", "average")["doubts"] == 1


def test_a_doubt_about_a_set_concerns_every_attack_on_it(
    records: pd.DataFrame, spec: AccuracySpec
) -> None:
    where = "model 'vit_b' (arm nullspace, seed 2) on set 'val'"
    stored = str(Doubt("zero_gradients", where, "3 of 16 pictures have no gradient: they stand"))
    made, text = made_with([stored], records, spec)
    marked = made[made["doubts"] > 0]
    attacks = ["fgsm_1", "fgsm_2", "fgsm_4", "fgsm_8", "all_fgsm", "average"]
    assert marked["column"].tolist() == attacks
    assert set(marked["method"]) == {"nullspace"}
    assert "‡ attacks on val, ViT-B NS (2): 3 of 16 pictures" in text


def test_a_doubt_about_a_source_model_concerns_what_follows_it(
    exp: config.Experiment, records: pd.DataFrame
) -> None:
    conditions = dict(exp.evaluate.conditions)
    follows = config.MiFgsmConfig(name="mi_fgsm", radius="8/255", source="cnn_a")
    conditions["fgsm_8"] = conditions["fgsm_8"].model_copy(update={"attack": follows})
    evaluate = exp.evaluate.model_copy(update={"conditions": conditions})
    own = spec_of(exp.model_copy(update={"evaluate": evaluate}), arms=["none", "plain"])
    mine = records[records["arm"].isin(["none", "plain"])]
    where = "source model 'cnn_a' on set 'val'"
    made, text = made_with([str(Doubt("zero_gradients", where, "they stand"))], mine, own)
    marked = made[made["doubts"] > 0]
    assert set(marked["column"]) == {"fgsm_8", "all_fgsm"}
    assert len(marked) == 2 * len(own.runs())
    assert f"‡ {where}: they stand" in text.replace("\\_", "_")
    made, text = made_with(
        [str(Doubt("zero_gradients", where.replace("_a", "_b"), "they stand"))], mine, own
    )
    assert (made["doubts"] == 0).all() and "they stand" not in text


def test_doubts_are_grouped_and_do_not_explode(records: pd.DataFrame, spec: AccuracySpec) -> None:
    records = records[(records["model"] == "vit_s") & (records["seed"] == 0)]
    seeds = [doubt(arm="plain", seed=seed) for seed in range(3)]
    _, text = made_with([*seeds, doubt(arm="random")], records, spec)
    lines = [line for line in text.splitlines() if line.startswith("- ‡")]
    assert len(lines) == 2
    assert "ViT-S plain (0, 1, 2); ViT-S random noise (0): first of them: leaves" in lines[1]
    strange = [f"place {i}: text [check{i}]" for i in range(20)]
    _, text = made_with(strange, records, spec)
    lines = [line for line in text.splitlines() if line.startswith("- ‡")]
    assert len(lines) == accuracy_notes.MOST_DOUBTS + 2 <= 10
    assert "12 more doubts" in lines[-1] and "records/" in lines[-1]


def test_doubts_about_other_tables_are_not_told(
    exp: config.Experiment, records: pd.DataFrame
) -> None:
    small = spec_of(exp, models=["vit_s"], arms=["none"], conditions=["clean", "r"])
    mine = records[(records["model"] == "vit_s") & (records["arm"] == "none")]
    made, text = made_with([doubt(), doubt(model="vit_b")], mine, small)
    assert (made["doubts"] == 0).all() and "‡" not in text


def test_doubts_are_read_from_the_records(
    record_paths: list[Path], spec: AccuracySpec, tmp_path: Path
) -> None:
    sidecar = {**artifacts.provenance("records", {}), "doubts": [doubt(), doubt()]}
    path = tmp_path / "doubted.parquet"
    none = next(p for p in record_paths if p.parts[-3:-1] == ("vit_s", "none"))
    artifacts.write_parquet(path, pd.read_parquet(none), sidecar)
    others = [p for p in record_paths if p != none]
    assert read_doubts([path, *others]) == [doubt()]
    scores = synthetic.write_scores([path, *others], tmp_path)
    tables.write_accuracy(scores, spec, tmp_path / "t.csv")
    assert "‡" in (tmp_path / "t.md").read_text()
    assert r"\ddag{}" in (tmp_path / "t.tex").read_text()
    assert (pd.read_csv(tmp_path / "t.csv")["doubts"] > 0).sum() == 2


# --- to read --------------------------------------------------------------------------------


def test_nothing_missing_and_nothing_doubted_is_not_mentioned(
    frame: pd.DataFrame, spec: AccuracySpec
) -> None:
    text = tables.markdown(tables.accuracy_sheet(frame, spec))
    assert "Missing" not in text and "‡" not in text and "—" not in text


def test_best_is_bold_and_lowest_for_errors(frame: pd.DataFrame, spec: AccuracySpec) -> None:
    sheet = tables.accuracy_sheet(frame, spec)
    for part in sheet.parts:
        for row in part.rows:
            ours = [one for one in row[2:] if one.interval]
            numbers = [float(one.text) for one in ours]
            if not ours:
                assert all(one.style != "best" for one in row)
                continue
            best = min(numbers) if "↓" in row[0].text else max(numbers)
            assert [one.style == "best" for one in ours] == [n == best for n in numbers]


def test_markdown_fits_a_terminal_and_has_every_interval(
    frame: pd.DataFrame, spec: AccuracySpec
) -> None:
    text = tables.markdown(tables.accuracy_sheet(frame, spec))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= 100
    assert {line.count("|") for line in lines} == {len(spec.arms) + 3}
    assert text.count("±") == len(frame) + 1  # the note
    assert "## ViT-S, wrong mean/std" in text
    assert "only the sign of a difference" in text and "random noise: Random eps=0.03" in text
    assert "recomputed over the columns" in text
    assert rows_of(text, "runs (seeds)") == [["runs (seeds)", "", "1", "3", "3", "3"]] * 3
    first = rows_of(text, "Clean")[0]
    found = cell(frame, "vit_s", "none", "clean")
    half = max(found["value"] - found["low"], found["high"] - found["value"])
    assert first[1] == "60" and f"±{half:.1f}" in first[2]


def test_conditions_among_all_classes_say_so(exp: config.Experiment, records: pd.DataFrame) -> None:
    own = spec_of(limited(exp, r={"restricted": False}))
    text = tables.markdown(tables.accuracy_sheet(tables.accuracy_table(records, own), own))
    assert "- R: predicted among all classes." in text


def test_tex_is_balanced(frame: pd.DataFrame, spec: AccuracySpec) -> None:
    text = tables.tex(tables.accuracy_sheet(frame, spec))
    assert text.isascii()
    plain = re.sub(r"\\\\|\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r" \\") and " & " in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(spec.arms) + 1}
    assert not re.search(r"(?<!\\)[%#_]", "".join(rows))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_reads_it_and_it_fits_the_page(
    exp: config.Experiment, record_paths: list[Path], tmp_path: Path
) -> None:
    own = spec_of(exp, against=["none", "plain"])
    scores = synthetic.write_scores(record_paths, tmp_path)
    tables.write_accuracy(scores, own, tmp_path / "t.csv")
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}Text."
        "\n" r"\input{t.tex}" "\n" r"\end{document}"
    )  # fmt: skip
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "too large" not in done.stdout


# --- bad records ----------------------------------------------------------------------------


def test_half_written_file_is_named(
    record_paths: list[Path], spec: AccuracySpec, tmp_path: Path
) -> None:
    half = tmp_path / "half.parquet"
    half.write_bytes(record_paths[0].read_bytes()[:5000])
    with pytest.raises(NsvitError, match=r"half\.parquet: damaged"):
        tables.accuracy_table([*record_paths, half], spec)
    with pytest.raises(NsvitError, match=r"half\.parquet: damaged"):
        read_doubts([half])


def test_missing_file_is_named(spec: AccuracySpec) -> None:
    with pytest.raises(NsvitError, match=r"nowhere\.parquet: no such file"):
        tables.accuracy_table(["nowhere.parquet"], spec)
    with pytest.raises(NsvitError, match="no records files"):
        tables.accuracy_table([], spec)
    with pytest.raises(NsvitError, match="no records files"):
        read_records([])


def test_absent_column_is_named(
    record_paths: list[Path], spec: AccuracySpec, tmp_path: Path
) -> None:
    records = pd.read_parquet(record_paths[0]).drop(columns="severity")
    path = tmp_path / "old.parquet"
    artifacts.write_parquet(path, records, artifacts.provenance("records", {}))
    with pytest.raises(NsvitError, match=r"old\.parquet: no column severity"):
        tables.accuracy_table([path], spec)


def test_columns_of_other_types_are_named(
    record_paths: list[Path], spec: AccuracySpec, tmp_path: Path
) -> None:
    records = pd.read_parquet(record_paths[0]).astype({"seed": str})
    path = tmp_path / "odd.parquet"
    artifacts.write_parquet(path, records, artifacts.provenance("records", {}))
    with pytest.raises(NsvitError, match=r"odd\.parquet: seed is of another type than in "):
        tables.accuracy_table([record_paths[1], path], spec)


def test_a_difference_has_one_interval_in_every_table(
    records: pd.DataFrame, spec: AccuracySpec
) -> None:
    """Arms that a table does not show say how much seeds differ there too."""
    whole = spec.model_copy(update={"against": ("nullspace",)})
    kept = {slug: whole.arms[slug] for slug in ("none", "nullspace")}
    models = {"vit_s": whole.models["vit_s"]}
    few = whole.model_copy(update={"arms": kept, "models": models})
    there, here = (tables.accuracy_table(records, one) for one in (whole, few))
    for column in ("clean", "r", "c", "all_fgsm"):
        ends = [
            [cell(frame, "vit_s", "none", column, "nullspace")[key] for key in ("low", "high")]
            for frame in (there, here)
        ]
        assert ends[0] == ends[1] and np.isfinite(ends).all()
    shown = records[records["model"].isin(models) & records["arm"].isin(kept)]
    alone = tables.accuracy_table(shown, few)
    assert not alone[["low", "high"]].equals(here[["low", "high"]])


def test_seeds_with_other_pictures_are_refused(records: pd.DataFrame, spec: AccuracySpec) -> None:
    mine = records[(records["model"] == "vit_b") & (records["arm"] == "random")]
    cut = mine[(mine["condition"] == "v2") & (mine["seed"] == 1)].index[:5]
    with pytest.raises(NsvitError, match=r"vit_b, random, v2: .*seed 0: 60, seed 1: 55"):
        tables.accuracy_table(mine.drop(index=cut), spec)


def test_robust_sets_need_the_same_pictures(records: pd.DataFrame, spec: AccuracySpec) -> None:
    mine = records[(records["model"] == "vit_b") & (records["arm"] == "none")]
    cut = mine[mine["condition"] == "fgsm_8"].index[:5]
    with pytest.raises(NsvitError, match=r"(?=.*vit_b)(?=.*'all_fgsm').*pictures"):
        tables.accuracy_table(mine.drop(index=cut), spec)


def test_the_verbs_make_tables_without_what_is_damaged_and_say_so(
    record_paths: list[Path], spec: AccuracySpec, frame: pd.DataFrame, tmp_path: Path
) -> None:
    half = tmp_path / "half.parquet"
    lost = next(path for path in record_paths if path.parts[-3:-1] == ("vit_s", "none"))
    half.write_bytes(lost.read_bytes()[:5000])
    given = [half if path == lost else path for path in record_paths]
    tables.write_accuracy(synthetic.write_scores(given, tmp_path), spec, tmp_path / "t.csv")
    text = (tmp_path / "t.md").read_text()
    assert "- Missing: ViT-S, none (no records)." in text
    assert "- Left out: " in text and "half.parquet: damaged" in text
    assert "Left out: " in (tmp_path / "t.tex").read_text()
    assert rows_of(text, "Clean")[0][2] == "missing"
    made = pd.read_csv(tmp_path / "t.csv").fillna({"minus": ""})
    own = cell(made, "vit_s", "plain", "clean")
    assert own["value"] == round(cell(frame, "vit_s", "plain", "clean")["value"], 2)
    with pytest.raises(NsvitError, match=r"half\.parquet: damaged"):
        synthetic.write_scores([half], tmp_path)


def test_many_losses_are_counted(frame: pd.DataFrame, spec: AccuracySpec) -> None:
    whole = tables.accuracy_sheet(frame, spec)
    sheet = with_lost(whole, [f"f{i}.parquet: no such file" for i in range(14)])
    assert sheet.notes[-1] == "Left out: 4 more; the log of this table names them."
    assert len(sheet.notes) == len(whole.notes) + 11
    assert with_lost(whole, []) == whole
