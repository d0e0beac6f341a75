"""Figures: they show what they are given, and come out the same twice."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nsvit import artifacts, cli, figures, tables
from nsvit.errors import NsvitError
from nsvit.figures import dynamics, style
from nsvit.figures.nullspace import scientific
from nsvit.specs import TableSpec
from nsvit.tables.influence import DECIMALS
from tests import synthetic


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    """With the dynamics of the runs that `dynamics_records` has."""
    made = synthetic.table_spec()
    assert made.dynamics is not None
    runs = {"models": ("vit_s", "vit_b"), "arms": ("nullspace",)}
    shown = made.dynamics.model_copy(update=runs)
    return made.model_copy(update={"dynamics": shown})


@pytest.fixture(scope="module")
def dynamics_records() -> pd.DataFrame:
    exp = synthetic.experiment()
    return pd.concat(
        [synthetic.dynamics_records(exp, model, rounds=4) for model in ("vit_b", "vit_s")],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def histories() -> list[dict]:
    return [synthetic.history(m, "nullspace", s) for m in ("vit_s", "vit_b") for s in (1, 0)]


@pytest.fixture(scope="module")
def influence(spec: TableSpec) -> pd.DataFrame:
    frames = [synthetic.influence_frame(model) for model in ("vit_s", "vit_b")]
    return tables.table_influence(pd.concat(frames, ignore_index=True), spec)


def svg_text(figure: Figure, folder: Path) -> str:
    path = folder / "figure.svg"
    figures.save(figure, path)
    return path.read_text(encoding="utf-8")


def boxes_inside(figure: Figure) -> bool:
    """Whether everything drawn lies on the page."""
    figure.draw_without_rendering()
    page, drawn = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    return bool(
        drawn.x0 >= page.x0 - 1
        and drawn.y0 >= page.y0 - 1
        and drawn.x1 <= page.x1 + 1
        and drawn.y1 <= page.y1 + 1
    )


# --- style ----------------------------------------------------------------------------------


def test_style_leaves_matplotlib_as_it_was(influence: pd.DataFrame, spec: TableSpec) -> None:
    before = dict(matplotlib.rcParams)
    figures.figure_influence(influence, spec)
    assert dict(matplotlib.rcParams) == before


def test_files_are_byte_identical_and_undated(
    influence: pd.DataFrame, spec: TableSpec, tmp_path: Path
) -> None:
    contents = []
    for name in ("one", "two"):
        figure = figures.figure_influence(influence, spec)
        paths = [tmp_path / name / "f.svg", tmp_path / name / "f.png"]
        figures.save(figure, *paths)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0][0]


@pytest.mark.parametrize("form", ["svg", "png"])
def test_layout_is_that_of_matplotlib(
    influence: pd.DataFrame, spec: TableSpec, tmp_path: Path, form: str
) -> None:
    own, theirs = tmp_path / f"own.{form}", tmp_path / "theirs.svg"
    figures.save(figures.figure_influence(influence, spec), own)
    figure = figures.figure_influence(influence, spec)
    with style.style():
        figure.savefig(theirs, metadata={"Date": None, "Creator": None})
        if form == "png":  # placed by the svg before it
            figure.set_layout_engine(None)
            theirs = tmp_path / "theirs.png"
            figure.savefig(theirs, metadata={"Software": None})
    assert own.read_bytes() == theirs.read_bytes()


def test_png_is_a_column_wide_at_300_dpi(
    influence: pd.DataFrame, spec: TableSpec, tmp_path: Path
) -> None:
    path = tmp_path / "f.png"
    figures.save(figures.figure_influence(influence, spec), path)
    with Image.open(path) as image:
        assert image.width == int(8.5 / 2.54 * 300)


def test_save_refuses_other_formats(tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match=r"f\.pdf"):
        figures.save(style.new_figure(1.0), tmp_path / "f.pdf")


# --- nullspace ------------------------------------------------------------------------------


def test_nullspace_shows_predictions_and_differences(tmp_path: Path) -> None:
    arrays, sidecar = synthetic.nullspace_example()
    names = ["fish", "bird", "butterfly"] + ["other"] * 7
    figure = figures.figure_nullspace(arrays, sidecar, names, "ViT-S")
    text = svg_text(figure, tmp_path)
    for word in ("fish", "butterfly", "98.1 %", "63.4 %", "3.1·10⁻⁶", "rank 64, nullity 128"):
        assert word in text
    assert len(figure.axes) == 4
    assert boxes_inside(figure)


def test_nullspace_pictures_are_the_arrays() -> None:
    arrays, sidecar = synthetic.nullspace_example()
    figure = figures.figure_nullspace(arrays, sidecar)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_allclose(shown[0], arrays["example_image"].transpose(1, 2, 0), atol=1e-6)
    noise = arrays["example_noise"].transpose(1, 2, 0)
    assert shown[1].max() <= 1.0
    assert shown[1].min() >= 0.0
    correlation = np.corrcoef(np.ravel(shown[1]), noise.ravel())[0, 1]
    assert correlation == pytest.approx(1.0)
    assert "class 2" in figure.axes[3].get_xlabel()


def test_nullspace_without_example_is_refused() -> None:
    arrays, sidecar = synthetic.nullspace_example()
    with pytest.raises(NsvitError, match="vit_s: no example_image"):
        figures.figure_nullspace({"basis": arrays["basis"]}, sidecar)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (7.42, "7.4"), (0.05, "0.05"), (3.1e-6, "3.1·10⁻⁶"), (2e-12, "2.0·10⁻¹²")],
)
def test_scientific(value: float, text: str) -> None:
    assert scientific(value) == text


# --- influence ------------------------------------------------------------------------------


def test_influence_has_a_column_per_model(
    influence: pd.DataFrame, spec: TableSpec, tmp_path: Path
) -> None:
    figure = figures.figure_influence(influence, spec)
    assert len(figure.axes) == 6
    text = svg_text(figure, tmp_path)
    ElementTree.fromstring(text)
    for word in ("ViT-S", "ViT-B", "learned", "permuted", "Gaussian", "censored", "agreement (%)"):
        assert f">{word}<" in text  # text is text, not paths
    assert boxes_inside(figure)


def test_influence_plots_the_table(influence: pd.DataFrame, spec: TableSpec) -> None:
    figure = figures.figure_influence(influence, spec)
    drawn = [container.lines[0].get_ydata() for container in figure.axes[0].containers]
    mine = influence[influence["model"] == "vit_s"].set_index("noise")["agreement"]
    for noise, y in zip(("learned", "permuted", "gaussian"), drawn, strict=True):
        np.testing.assert_allclose(y, mine[noise])


def test_influence_of_nothing_is_refused(influence: pd.DataFrame, spec: TableSpec) -> None:
    with pytest.raises(NsvitError, match="no rows"):
        figures.figure_influence(influence.iloc[:0], spec)


# --- dynamics -------------------------------------------------------------------------------


def test_dynamics_has_a_panel_per_run_and_the_papers(
    dynamics_records: pd.DataFrame, histories: list[dict], spec: TableSpec, tmp_path: Path
) -> None:
    figure = figures.figure_dynamics(dynamics_records, histories, spec)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["ViT-S", "ViT-B", "paper, ViT-S (digitised)"]
    text = svg_text(figure, tmp_path)
    assert re.search(r">OOD<", text)
    assert boxes_inside(figure)


def test_dynamics_curves_are_ratios_of_means(
    dynamics_records: pd.DataFrame, histories: list[dict], spec: TableSpec
) -> None:
    figure = figures.figure_dynamics(dynamics_records, histories, spec)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    mine = dynamics_records[dynamics_records["model"] == "vit_s"]
    accuracy = mine.groupby(["round", "condition"])["correct"].mean().unstack()
    ood = accuracy[list(spec.dynamics.ood)].mean(axis=1)  # C as accuracy: 1 - error
    np.testing.assert_allclose(lines["OOD"].get_ydata(), ood / ood[0])
    np.testing.assert_allclose(lines["clean"].get_ydata(), accuracy["clean"] / accuracy["clean"][0])
    everything = ["clean", *spec.dynamics.adversarial, *spec.dynamics.ood]
    average = accuracy[everything].mean(axis=1)
    np.testing.assert_allclose(lines["average"].get_ydata(), average / average[0])
    np.testing.assert_array_equal(lines["clean"].get_xdata(), [0, 20, 40, 60, 80])


def test_noise_is_plotted_at_the_step_it_was_learned_at() -> None:
    rounds = synthetic.history("vit_s", "nullspace", 0, rounds=3)["rounds"]
    curve = dynamics.noise_curve(rounds)
    assert curve is not None
    assert curve.steps.tolist() == [0, 20, 40]
    np.testing.assert_allclose(curve.values, [1, 66 / 90, 69 / 90])
    assert dynamics.noise_curve(synthetic.history("vit_s", "plain", 0)["rounds"]) is None


def test_papers_curves_start_at_one() -> None:
    curves = dynamics.paper_curves()
    assert set(curves) == set(dynamics.LOOKS)
    assert all(curve.values[0] == 1.0 and len(curve.steps) == 20 for curve in curves.values())
    assert curves["noise_norm"].values[1] == 0.678


def test_dynamics_names_what_is_missing(
    dynamics_records: pd.DataFrame, histories: list[dict], spec: TableSpec
) -> None:
    with pytest.raises(NsvitError, match="no history of vit_b/nullspace/seed0"):
        figures.figure_dynamics(dynamics_records, histories[:2], spec)
    with pytest.raises(NsvitError, match="round 0 is missing"):
        late = dynamics_records[dynamics_records["round"] > 0]
        figures.figure_dynamics(late, histories, spec)
    with pytest.raises(NsvitError, match="lacks one of clean"):
        blind = dynamics_records[dynamics_records["condition"] != "clean"]
        figures.figure_dynamics(blind, histories, spec)
    with pytest.raises(NsvitError, match=r"history lacks rounds \[4\]"):
        short = [{**h, "rounds": h["rounds"][:4]} for h in histories]
        figures.figure_dynamics(dynamics_records, short, spec)
    with pytest.raises(NsvitError, match="surprise/nullspace is not in the config"):
        figures.figure_dynamics(blind.assign(model="surprise"), histories, spec)
    with pytest.raises(NsvitError, match="no section `dynamics`"):
        figures.figure_dynamics(
            dynamics_records, histories, spec.model_copy(update={"dynamics": None})
        )


# --- verbs ----------------------------------------------------------------------------------


def test_verbs_write_svg_and_png(
    influence: pd.DataFrame, histories: list[dict], spec: TableSpec, tmp_path: Path
) -> None:
    arrays, sidecar = synthetic.nullspace_example()
    names = ["fish", "bird", "butterfly", *["other"] * 7]
    sidecar = {**sidecar, "schema_version": 1, "metrics": {**sidecar["metrics"], "names": names}}
    artifacts.write_tensors(tmp_path / "nullspace.safetensors", arrays, sidecar)
    figures.write_nullspace(tmp_path / "nullspace.safetensors", spec, tmp_path / "a.svg")
    assert "butterfly" in (tmp_path / "a.svg").read_text(encoding="utf-8")

    (tmp_path / "influence.csv").write_text(tables.csv_text(influence, DECIMALS))
    figures.write_influence(tmp_path / "influence.csv", spec, tmp_path / "b.svg")

    exp = synthetic.experiment()
    rounds = synthetic.dynamics_records(exp, "vit_s", rounds=2, images=20)
    artifacts.write_parquet(tmp_path / "r.parquet", rounds, artifacts.provenance("records", {}))
    artifacts.write_json(tmp_path / "history.json", histories[1])
    figures.write_dynamics(
        [tmp_path / "r.parquet"], [tmp_path / "history.json"], spec, tmp_path / "c.svg"
    )
    for name in "abc":
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("damaged", ["records", "history"])
def test_damage_to_one_run_leaves_the_dynamics_of_the_other(
    histories: list[dict],
    spec: TableSpec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damaged: str,
) -> None:
    exp = synthetic.experiment()
    given = {"records": [], "history": []}
    for model, history in (("vit_s", histories[1]), ("vit_b", histories[3])):
        given["records"].append(tmp_path / f"{model}.parquet")
        rounds = synthetic.dynamics_records(exp, model, rounds=2, images=20)
        artifacts.write_parquet(given["records"][-1], rounds, artifacts.provenance("records", {}))
        given["history"].append(tmp_path / f"{model}.json")
        artifacts.write_json(given["history"][-1], history)
    out = tmp_path / "f.svg"
    command = ["figure-dynamics", "--spec", spec.model_dump_json(), "--out", str(out)]
    command += ["--records", *map(str, given["records"])]
    command += ["--histories", *map(str, given["history"])]
    assert cli.main(command) == 0
    assert dynamics.GAP not in out.read_text(encoding="utf-8")

    bad = given[damaged][0]
    bad.write_bytes(bad.read_bytes()[:-100])  # half-written
    assert cli.main(command) == 0
    assert f"left out: {bad}" in capsys.readouterr().err
    text = out.read_text(encoding="utf-8")
    assert (text.count(dynamics.GAP), ">ViT-S<" in text, ">ViT-B<" in text) == (1, True, True)

    given[damaged][1].write_text("")
    out.unlink()
    assert cli.main(command) == 1
    assert not out.exists()


def test_a_model_without_nullspace_gets_a_figure_that_says_so(
    spec: TableSpec, tmp_path: Path
) -> None:
    sidecar = artifacts.provenance("nullspace", {"model": "vit_b"}, metrics={"nullity": 0})
    path = tmp_path / "nullspace.safetensors"
    artifacts.write_tensors(path, {"basis": np.zeros((192, 0))}, sidecar)
    figures.write_nullspace(path, spec, tmp_path / "f.svg")
    assert "ViT-B: nullity 0" in (tmp_path / "f.svg").read_text(encoding="utf-8")


def test_verbs_name_bad_files(spec: TableSpec, tmp_path: Path) -> None:
    with pytest.raises(NsvitError, match=r"gone\.csv"):
        figures.write_influence(tmp_path / "gone.csv", spec, tmp_path / "f.svg")
    artifacts.write_json(tmp_path / "history.json", artifacts.provenance("model", {}))
    with pytest.raises(NsvitError, match="expected a 'history' file"):
        figures.write_dynamics([], [tmp_path / "history.json"], spec, tmp_path / "f.svg")
