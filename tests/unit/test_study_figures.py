"""Figures of the studies, the concept, corruptions and radii: they show what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from nsvit import artifacts, config, figures, statistics, tables
from nsvit.errors import NsvitError
from nsvit.figures import corruptions, radius
from nsvit.figures.arms import first_of_kind
from nsvit.scores import read
from nsvit.specs import TableSpec
from nsvit.tables import studies
from tests import synthetic
from tests.unit.test_figures import boxes_inside, svg_text


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    return synthetic.table_spec()


@pytest.fixture(scope="module")
def table(spec: TableSpec) -> pd.DataFrame:
    parts = [synthetic.lambda_frame(model) for model in ("vit_s", "vit_b")]
    return tables.table_lambda(pd.concat(parts, ignore_index=True), spec)


@pytest.fixture(scope="module")
def closed(spec: TableSpec) -> pd.DataFrame:
    parts = [synthetic.closure_frame(model) for model in ("vit_s", "vit_b")]
    return tables.table_closure(pd.concat(parts, ignore_index=True), spec)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


@pytest.fixture(scope="module")
def records(paths: list[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def lines_of(axes) -> dict[str, np.ndarray]:
    return {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}


# --- the lambda study and closure -----------------------------------------------------------


def test_lambda_plots_the_table(table: pd.DataFrame, spec: TableSpec, tmp_path: Path) -> None:
    figure = figures.figure_lambda(table, spec)
    assert len(figure.axes) == 6
    assert boxes_inside(figure)  # before it is saved, which fixes the places for other forms
    for column, model in enumerate(("vit_s", "vit_b")):
        for row, name in enumerate(("agreement", "confidence_mse", "norm")):
            drawn = lines_of(figure.axes[2 * row + column])
            assert set(drawn) == ({"learned"} if name == "norm" else {"learned", "permuted"})
            for noise, y in drawn.items():
                mine = table[(table["model"] == model) & (table["noise"] == noise)]
                np.testing.assert_allclose(y, mine[name])
    text = svg_text(figure, tmp_path)
    for word in ("ViT-S", "ViT-B", "learned", "permuted, paper (≈)", "confidence MSE", "λ"):
        assert f">{word}<" in text  # text is text, not paths


def test_without_the_papers_points_there_are_no_grey_lines(spec: TableSpec) -> None:
    own = tables.table_lambda(synthetic.lambda_frame("vit_s", (0.25, 0.5)), spec)
    figure = figures.figure_lambda(own, spec)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["learned", "permuted"]


def test_closure_plots_the_table(closed: pd.DataFrame, spec: TableSpec, tmp_path: Path) -> None:
    figure = figures.figure_closure(closed, spec)
    assert len(figure.axes) == 4
    mine = closed[(closed["model"] == "vit_b") & (closed["kind"] == "scaled")]
    for noise, y in lines_of(figure.axes[1]).items():
        np.testing.assert_allclose(y, mine[mine["noise"] == noise]["agreement"])
    text = svg_text(figure, tmp_path)
    for word in ("v₁ + v₂", "factor a in a·v", "agreement (%)"):
        assert f">{word}<" in text
    assert boxes_inside(figure)


def test_empty_tables_are_refused(
    table: pd.DataFrame, closed: pd.DataFrame, spec: TableSpec
) -> None:
    with pytest.raises(NsvitError, match="lambda study: there are no rows"):
        figures.figure_lambda(table.iloc[:0], spec)
    with pytest.raises(NsvitError, match="closure: there are no rows"):
        figures.figure_closure(closed.iloc[:0], spec)


# --- the concept ----------------------------------------------------------------------------


def test_concept_says_what_the_method_does(tmp_path: Path) -> None:
    figures.write_concept(tmp_path / "concept.svg")
    text = (tmp_path / "concept.svg").read_text(encoding="utf-8")
    for words in ("W v = 0", "CE(f(u), y) + CE(f(u + ṽ), y)", "fresh noise", "learn noise ṽ"):
        assert words in text
    assert (tmp_path / "concept.png").stat().st_size > 1000
    assert boxes_inside(figures.figure_concept())


# --- corruptions ----------------------------------------------------------------------------


def test_cells_are_changes_of_errors(
    paths: list[Path], records: pd.DataFrame, spec: TableSpec
) -> None:
    figure = figures.figure_corruptions(corruptions.read_errors(paths, spec), spec)
    assert len(figure.axes) == 9  # three models, three arms
    c = records[records["condition"] == "c"]
    errors = 1 - c.groupby(["model", "arm", "corruption", "severity"])["correct"].mean()
    expected = 100 * (errors["vit_b"]["nullspace"] - errors["vit_b"]["none"])
    shown = np.asarray(figure.axes[5].images[0].get_array())
    names = [t.get_text() for t in figure.axes[3].get_yticklabels()]
    assert len(names) == 16 and names[-1] == "mean"
    types = list(dict.fromkeys(c["corruption"]))
    np.testing.assert_allclose(shown[:15], expected.unstack().loc[types], atol=1e-9)
    np.testing.assert_allclose(shown[15], expected.unstack().mean(), atol=1e-9)
    texts = [text.get_text() for text in figure.axes[5].texts if text.get_text()]
    value = expected.unstack().loc[types[0], 1]
    signed = f"{round(value):+d}".replace("-", "−") if round(value) else "0"
    assert texts[0] == signed


def test_the_mean_change_has_a_paired_interval(
    paths: list[Path], records: pd.DataFrame, spec: TableSpec
) -> None:
    figure = figures.figure_corruptions(corruptions.read_errors(paths, spec), spec)
    title = figure.axes[2].get_title()
    c = records[(records["condition"] == "c") & (records["model"] == "vit_s")]
    error = 1 - c.groupby("arm")["correct"].mean()
    change = 100 * (error["nullspace"] - error["none"])
    assert title.startswith("NS\n" + f"{change:+.1f}".replace("-", "−"))
    low, high = (float(v.replace("−", "-")) for v in title[title.index("[") + 1 : -1].split(", "))
    assert low <= change <= high
    # Unpaired, the interval would be as wide as that of either error.
    alone = statistics.summarise(c[c["arm"] == "none"], config=spec.statistics).iloc[0]
    assert high - low < 100 * (alone["high"] - alone["low"])


def test_corruptions_fit_the_page(paths: list[Path], spec: TableSpec, tmp_path: Path) -> None:
    figure = figures.figure_corruptions(corruptions.read_errors(paths, spec), spec)
    text = svg_text(figure, tmp_path)
    for word in ("gauss. noise", "mean/std", "severity", "plain"):
        assert f">{word}<" in text
    assert boxes_inside(figure)


def test_only_the_first_arm_of_a_kind_is_shown(spec: TableSpec) -> None:
    arms = {"early": spec.arms["nullspace"], **spec.arms}
    kinds = ("none", "plain", "nullspace", "madry")
    shown = first_of_kind(spec.model_copy(update={"arms": arms}), kinds)
    assert shown == {"none": "none", "plain": "plain", "nullspace": "early"}


def test_corruptions_without_records_are_refused(
    paths: list[Path], spec: TableSpec, tmp_path: Path
) -> None:
    untouched = [path for path in paths if "none" in path.parts]
    with pytest.raises(NsvitError, match="no model has records of an arm of kind none"):
        figures.figure_corruptions(corruptions.read_errors(untouched, spec), spec)
    frame = pd.read_parquet(paths[0])
    clean = tmp_path / "clean.parquet"
    artifacts.write_parquet(
        clean, frame[frame["condition"] == "clean"], artifacts.provenance("records", {})
    )
    with pytest.raises(NsvitError, match="no records of a corruption set"):
        corruptions.read_errors([clean], spec)


# --- radii ----------------------------------------------------------------------------------


def test_curves_are_accuracies_at_radii(
    paths: list[Path], records: pd.DataFrame, spec: TableSpec, tmp_path: Path
) -> None:
    scores = read(synthetic.write_scores(paths, tmp_path)).frame
    ((slugs, clean),) = config.attack_series(spec.conditions)
    assert clean == "clean"
    mine = scores[scores["model"] == "vit_b"]
    curves = radius.robustness(
        radius.resampled(mine, slugs, clean, spec), "vit_b", slugs, clean, spec
    )
    assert list(curves) == list(spec.arms)
    accuracy = records[records["model"] == "vit_b"].groupby(["arm", "condition"])["correct"].mean()
    order = ["clean", "fgsm_1", "fgsm_2", "fgsm_4", "fgsm_8"]
    for arm, curve in curves.items():
        assert curve.radii.tolist() == [0, 1, 2, 4, 8]
        np.testing.assert_allclose(curve.values, 100 * accuracy[arm][order])
        assert curve.n == 60
    none, ns = curves["none"], curves["nullspace"]
    assert none.change is None
    np.testing.assert_allclose(ns.change, ns.values - none.values, atol=1e-9)
    assert (ns.change_ends[0] <= ns.change).all() and (ns.change <= ns.change_ends[1]).all()
    for value, low, high in zip(none.values, *none.ends, strict=True):
        expected = proportion_confint(round(value * 0.6), 60, method="wilson")
        assert (low, high) == pytest.approx((100 * expected[0], 100 * expected[1]))
    figure = figures.figure_radius(scores, spec)
    assert len(figure.axes) == 6
    text = svg_text(figure, tmp_path)
    for word in ("FGSM radius (/255)", "accuracy (%)", "random noise", "n = 60"):
        assert f">{word}<" in text
    assert boxes_inside(figure)


def few(spec: TableSpec, images: int) -> TableSpec:
    """The same conditions, attacks on a subset."""
    conditions = {
        slug: c.model_copy(update={"images": images}) if c.attack else c
        for slug, c in spec.conditions.items()
    }
    return spec.model_copy(update={"conditions": conditions})


def test_at_radius_0_are_the_attacked_pictures_only(records: pd.DataFrame, spec: TableSpec) -> None:
    own = few(spec, 20)
    names = sorted(records.loc[records["condition"] == "clean", "sample"].unique())[:20]
    mine = records[(records["model"] == "vit_s") & (records["corruption"] == "")]
    part = mine[(mine["condition"] == "clean") | mine["sample"].isin(names)]
    scores = statistics.picture_scores(part)
    ((slugs, clean),) = config.attack_series(own.conditions)
    curve = radius.robustness(
        radius.resampled(scores, slugs, clean, own), "vit_s", slugs, clean, own
    )["none"]
    assert curve.n == 20
    none = part[(part["arm"] == "none") & (part["condition"] == "clean")]
    expected = none[none["sample"].isin(names)]["correct"].mean()
    assert curve.values[0] == pytest.approx(100 * expected)


def test_radii_with_different_pictures_are_refused(records: pd.DataFrame, spec: TableSpec) -> None:
    mine = records[(records["model"] == "vit_s") & (records["corruption"] == "")]
    odd = mine[~((mine["condition"] == "fgsm_4") & (mine["sample"].str.endswith("0.png")))]
    ((slugs, clean),) = config.attack_series(spec.conditions)
    with pytest.raises(NsvitError, match="vit_s/none has different numbers of pictures"):
        found = radius.resampled(statistics.picture_scores(odd), slugs, clean, spec)
        radius.robustness(found, "vit_s", slugs, clean, spec)


def test_an_arm_with_other_pictures_costs_its_difference_alone(
    records: pd.DataFrame, spec: TableSpec, caplog: pytest.LogCaptureFixture
) -> None:
    mine = records[(records["model"] == "vit_s") & (records["corruption"] == "")]
    odd = mine[~((mine["arm"] == "plain") & mine["sample"].str.endswith("0.png"))]
    ((slugs, clean),) = config.attack_series(spec.conditions)
    found = radius.resampled(statistics.picture_scores(odd), slugs, clean, spec)
    curves = radius.robustness(found, "vit_s", slugs, clean, spec)
    assert curves["plain"].change is None and len(curves["plain"].values) == 5
    assert curves["nullspace"].change is not None
    assert "vit_s, plain against vit_s, none" in caplog.text
    assert "was evaluated on different pictures" in caplog.text


def test_series_are_of_one_attack_on_one_set(spec: TableSpec) -> None:
    def condition(name: str, **more: object) -> config.ConditionConfig:
        attack = {"name": name, **more}
        return config.ConditionConfig.model_validate({"label": "x", "set": "val", "attack": attack})

    pgd = {
        "b": condition("pgd", radius="4/255", steps=5, step_size=0.01),
        "a": condition("pgd", radius="1/255", steps=5, step_size=0.002),
        "other_steps": condition("pgd", radius="2/255", steps=7),
        "l2_far": condition("pgd", norm="l2", radius=1.5, steps=5),
        "l2_near": condition("pgd", norm="l2", radius=0.5, steps=5),
        "alone": condition("fgsm", radius="1/255"),
        "subset": condition("fgsm", radius="2/255").model_copy(update={"images": 10}),
    }
    assert config.attack_series(pgd) == [(("a", "b"), None), (("l2_near", "l2_far"), None)]
    clean = config.ConditionConfig(label="clean", set="val", images=50)
    subset = {k: c.model_copy(update={"images": 20}) for k, c in pgd.items()}
    assert config.attack_series({"clean": clean, **subset})[0] == (("a", "b"), "clean")
    whole = config.attack_series({"clean": clean, **pgd})
    assert whole[0] == (("a", "b"), None)  # clean has fewer pictures than the attack


def test_radii_without_records_are_refused(records: pd.DataFrame, spec: TableSpec) -> None:
    calm = statistics.picture_scores(records[records["condition"] == "clean"])
    with pytest.raises(NsvitError, match="no records of an attack at two radii"):
        figures.figure_radius(calm, spec)


# --- verbs ----------------------------------------------------------------------------------


def test_verbs_write_svg_and_png(
    table: pd.DataFrame,
    closed: pd.DataFrame,
    paths: list[Path],
    spec: TableSpec,
    tmp_path: Path,
) -> None:
    decimals = {**studies.DECIMALS, **studies.PAPER_DECIMALS}
    (tmp_path / "lambda.csv").write_text(tables.csv_text(table, decimals))
    (tmp_path / "closure.csv").write_text(tables.csv_text(closed, studies.DECIMALS))
    figures.write_lambda(tmp_path / "lambda.csv", spec, tmp_path / "a.svg")
    figures.write_closure(tmp_path / "closure.csv", spec, tmp_path / "b.svg")
    figures.write_corruptions(paths, spec, tmp_path / "c.svg")
    figures.write_radius(synthetic.write_scores(paths, tmp_path), spec, tmp_path / "d.svg")
    for name in "abcd":
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert "<text" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")


def test_where_nothing_can_be_drawn_the_figure_says_so(
    paths: list[Path], spec: TableSpec, tmp_path: Path
) -> None:
    untouched = [path for path in paths if "none" in path.parts]
    figures.write_corruptions(untouched, spec, tmp_path / "c.svg")
    assert "kind none and of another one" in (tmp_path / "c.svg").read_text()
    one = {slug: c for slug, c in spec.conditions.items() if slug in ("clean", "fgsm_1")}
    scores = synthetic.write_scores(untouched, tmp_path)
    figures.write_radius(scores, spec.model_copy(update={"conditions": one}), tmp_path / "r.svg")
    assert "attack at two radii" in (tmp_path / "r.svg").read_text()
    assert (tmp_path / "r.png").stat().st_size > 1000
    with pytest.raises(NsvitError, match=r"gone\.parquet"):  # a damaged input is an error still
        figures.write_radius(tmp_path / "gone.parquet", spec, tmp_path / "x.svg")
