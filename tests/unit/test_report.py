"""The report: whole, self-contained, honest about gaps, readable in every scheme."""

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsvit import artifacts, claims, cli, report, tables
from nsvit.errors import NsvitError
from nsvit.report import contents, ending, facts, folder, verdicts
from nsvit.tables.claims import bound, smallest
from tests import synthetic
from tests.results import CLAIMS, Page, write_results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("finished") / "one")


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished, tmp_path / "one"))


def test_the_end_of_a_run_fits_a_terminal_and_loses_nothing(results, monkeypatch):
    monkeypatch.chdir(results.parent)
    results = Path(results.name)
    told = ending.ending(results, ["table1"])
    table = (results / "tables/table1.md").read_text()
    assert told.split() == table.split() + told.split()[len(table.split()) :]
    notes = [line for line in told.splitlines() if not line.startswith("|")]
    assert max(map(len, notes)) <= ending.WIDTH
    for group in verdicts.read_verdicts(results / "tables/claims.csv"):
        shown = {one.title: f"{one.verdict:12}  {one.title[:40]}" in told for one in group.claims}
        assert shown == {one.title: one.verdict != "not tested" for one in group.claims}
        untested = f"not tested    {list(shown.values()).count(False)} of {len(shown)}: one/"
        assert (untested in told) == (not all(shown.values()))
    assert "# Table 1" not in ending.ending(results, ["table2"])
    for name in ("tables/table1.md", "tables/claims.csv"):
        (results / name).unlink()
    pages = [results / name for name in ("report.html", "README.md")]
    for path in pages:
        path.touch()
    assert ending.ending(results, ["table1"]).startswith(
        "\nEverything on one page: one/report.html\nWhich file is what: one/README.md"
    )
    for path in pages:  # of one rule alone, as on the command line
        path.unlink()
    assert not ending.ending(results, ["table1"]).strip()
    assert ending.ending(results, ["table1"], "Too few.") == "\nToo few."


def made(results: Path) -> Page:
    report.write_report(results, results / "report.html", results / "README.md")
    return Page((results / "report.html").read_text())


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return made(finished)


# --- a whole run ----------------------------------------------------------------------------


def test_everything_planned_is_on_the_page(page: Page) -> None:
    wanted = {"table-table1", "table-claims", "table-novel", "figure-claims"}
    wanted |= {"figure-nullspace_vit_s", "sheet-val", "sheet-c", "doubts", "run", "files"}
    assert wanted <= set(page.ids)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4


def test_ids_are_unique_and_links_lead_somewhere(page: Page, finished: Path) -> None:
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        if tag == "a":
            target = str(attributes["href"])
            inside = target.startswith("#") and target[1:] in page.ids
            assert inside or (finished / unquote(target)).is_file(), target


def test_the_page_asks_for_nothing_from_outside(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "srcset", "poster", "data", "background", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:"), (tag, name)
        if tag == "link":
            assert str(attributes["href"]).startswith("data:")
        assert "url(" not in str(attributes.get("style", ""))
    style = "".join(page.styles)
    assert "url(" not in style and "@import" not in style


def test_pictures_have_alternatives_and_headings_have_levels(page: Page) -> None:
    alternatives = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert all(alternatives) and len(set(alternatives)) == len(alternatives)
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    names = {a.get("scope") for tag, a in page.tags if tag == "th"}
    assert names == {"col", "row", "rowgroup"}


def test_verdicts_come_first_and_are_counted(page: Page) -> None:
    order = [i for i in page.ids if i in ("verdicts", "robustness", "nullspace", "other", "sheets")]
    assert order == ["verdicts", "robustness", "nullspace", "other", "sheets"]
    text = page.text("table-claims")
    assert "What the paper claims 1 ? undecided" in text
    assert "Controls that the paper lacks 1 – not tested" in text
    assert "1 supported, 1 undecided" in text and "contradicted" not in text
    assert text.count("NS <improves> clean") == 1
    assert "ViT-S ? undecided" in text
    assert text.count("‡") == 1 and "‡ rests on a number that a doubt concerns" in text
    found = "detectable 1.7, 2.6 after correction"
    for words in ("−0.7 points [−1.9, +0.5]", "p 1.000", found, "+3.3 (77 - 74)"):
        assert words in text
    assert "NS - none: Sketch, within 2" in text and "p <0.001" in text
    assert "1 not tested: there is no DAT" in text


def test_bands_are_what_cannot_be_decided_or_what_a_margin_allows(page: Page) -> None:
    bands = [a for tag, a in page.tags if tag == "rect"]
    by = 0.96 * 60 / 3.0  # the largest number of the two tests is 3
    ends = [(float(str(a["x"])), float(str(a["width"]))) for a in bands]
    assert ends == [
        (pytest.approx(-2.6 * by, abs=0.1), pytest.approx(5.2 * by, abs=0.1)),
        (pytest.approx(-2.0 * by, abs=0.1), pytest.approx(4.0 * by, abs=0.1)),
    ]


def test_tables_keep_intervals_notes_and_the_papers_rows(page: Page) -> None:
    text = page.text("table-table1")
    assert "81.5 [79.0, 84.1]‡" in text
    assert "A|B <i>" in text and "1 < 2" in text
    assert "Brackets: 95 % intervals." in text
    classes = [a.get("class") for tag, a in page.tags if tag == "tr"]
    assert classes.count("paper") == 2  # in two tables; the third is shown as verdicts


def test_doubts_and_warnings_are_told_once(page: Page) -> None:
    text = page.text("doubts")
    assert "rising with radius (1)" in text
    assert text.count("vit_s none seed 0 val: too strong <to> be true") == 1
    assert "Tables mark doubted cells and say why: Table 1: accuracy, Table 1: accuracy." in text
    assert "logits look like <probabilities> (logs/evaluate/vit_s.log)" in text
    assert "not ours" not in text and "all is well" not in text


def test_records_without_doubts_are_counted(results: Path) -> None:
    for path in (results / "records/vit_s").iterdir():
        sidecar = {**artifacts.provenance("records", {}), "doubts": []}
        artifacts.write_parquet(path, pd.DataFrame({"correct": [True]}), sidecar)
    assert "None of 2 files of records carries a doubt." in made(results).text("doubts")
    shutil.rmtree(results / "records")
    assert "There are no records" in made(results).text("doubts")


def test_facts_come_from_the_artefacts(page: Page) -> None:
    text = page.text("run")
    assert "abc123+" in text and "not committed" in text
    assert "9.8.7" in text
    assert "python 3.11.7, torch 2.9.1" in text
    assert "Some CPU, 4 cores" in text
    assert "none was used" in text
    assert "1970-01-01 00:16 UTC to 1970-01-01 01:18 UTC" in text
    # 1000 to 1100 and 4690 to 4700: pauses and what runs side by side count once.
    assert "1 min 50 s with at least one job running" in text
    assert "3 jobs took 2 min 10 s together, 1 min 55 s of CPU" in text
    assert "scan212011" in text.replace(" ", "")  # rule, jobs, seconds, CPU seconds
    assert "max_steps: 100" in text


def test_several_commits_and_machines_are_all_named(results: Path) -> None:
    path = results / "runs/vit_s/nullspace/seed0/history.json"
    content = json.loads(path.read_text())
    content["git_commit"] = "def456"
    content["made_with"] = {"torch": "3.0.0", "processor": "Other", "cores": 1, "gpu": "Big GPU"}
    path.write_text(json.dumps(content))
    text = made(results).text("run")
    assert "abc123+" in text and "def456" in text
    assert "torch 2.9.1" in text and "3.0.0" in text
    assert "Some CPU, 4 cores" in text and "Other, 1 cores" in text
    assert "Big GPU" in text


def test_a_cell_that_a_table_misses_is_named(page: Page) -> None:
    assert "Table 1: accuracy: missing: ViT-S, NS: A|B." in page.text("gaps")


def test_the_same_files_give_the_same_page(results: Path) -> None:
    texts = []
    for _ in range(2):
        made(results)
        texts.append([(results / n).read_bytes() for n in ("report.html", "README.md")])
    assert texts[0] == texts[1]


def test_the_list_of_files_names_every_file(finished: Path, page: Page) -> None:
    text = (finished / "README.md").read_text()
    for path in (p for top in ("tables", "figures") for p in (finished / top).rglob("*.*")):
        assert f"]({path.relative_to(finished).as_posix()})" in text
    for name in ("records", "runs", "logs", "benchmarks", "plan.json"):
        assert f"| `{name}` |" in text
    assert "`lambda`" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}


def test_links_fit_where_the_page_lies(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere/page.html"
    (results / "README.md").unlink()
    report.write_report(results, out, None)
    links = [str(a["href"]) for tag, a in Page(out.read_text()).tags if tag == "a"]
    outside = [link for link in links if not link.startswith("#")]
    assert outside and all((out.parent / unquote(link)).is_file() for link in outside)
    assert not (results / "README.md").exists()


# --- what is missing or damaged -------------------------------------------------------------


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_missing_files_are_named_and_the_rest_is_made(results: Path) -> None:
    (results / "tables/table1.md").unlink()
    for suffix in ("svg", "png"):
        (results / f"figures/claims.{suffix}").unlink()
    (results / "figures/sheets/c.png").unlink()
    page = made(results)
    gaps = page.text("gaps")
    for name in ("tables/table1.md", "figures/claims.svg", "figures/sheets/c.png"):
        assert f"{name}: no such file" in gaps
    assert "Missing. tables/table1.md" in page.text("table-table1")
    assert "81.5" in page.text("table-novel")
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2
    assert "`tables/table1.md`: no such file" in (results / "README.md").read_text()


def test_what_tables_left_out_is_named_once(results: Path) -> None:
    for name in ("claims", "table1", "novel"):
        with (results / f"tables/{name}.md").open("a") as file:
            file.write("\n- Left out: records/r.parquet: is missing; run again.\n")
    page = made(results)
    (line,) = [text for text in page.text("gaps").split("records/")[1:]]
    assert "r.parquet: is missing; run again. Left out of: Verdicts; " in line
    assert "Left out: records/r.parquet" in page.text("table-claims")
    assert "81.5" in page.text("table-novel")


def test_half_written_files_are_named_and_the_rest_is_made(results: Path) -> None:
    for name in ("records/vit_s/none.parquet", "figures/sheets/val.png"):
        half(results / name)
    half(results / "runs/vit_s/nullspace/seed0/history.json")
    half(results / "figures/claims.svg")
    (results / "figures/claims.png").unlink()
    half(results / "figures/nullspace_vit_s.svg")  # its pixels are still there
    (results / "tables/novel.md").write_bytes(b"\xff\xfe")
    page = made(results)
    gaps = page.text("gaps")
    for name in (
        "records/vit_s/none.parquet: damaged",
        "runs/vit_s/nullspace/seed0/history.json: not JSON",
        "figures/claims.svg: damaged",
        "figures/sheets/val.png: damaged",
        "tables/novel.md: cannot be read",
    ):
        assert name in gaps
    assert "nullspace_vit_s" not in gaps
    assert str(results) not in page.text()
    assert "? undecided" in page.text("table-claims")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "tables/claims.csv: no such file"),
        ("claim,level,model,title,origin\na,b,c,d,e\n", "no column verdict"),
        ("", "no column claim"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_unusable_claims_are_named_and_their_table_is_shown(
    results: Path, text: str | bytes | None, said: str
) -> None:
    path = results / "tables/claims.csv"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "81.5" in made(results).text("table-claims")
    (results / "tables/claims.md").unlink()
    assert said in made(results).text("gaps")


def test_without_a_plan_what_is_there_is_shown(results: Path) -> None:
    (results / "plan.json").unlink()
    page = made(results)
    assert "plan.json: no such file" in page.text("gaps")
    assert {"table-table1", "table-claims", "figure-claims", "sheet-c"} <= set(page.ids)
    assert "configuration is not known" in page.text("run")


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "model"}', '{"spec": {}}'])
def test_a_bad_plan_is_a_gap(results: Path, content: str) -> None:
    (results / "plan.json").write_text(content)
    page = made(results)
    assert "plan.json" in page.text("gaps")
    assert "table-table1" in page.ids


def test_a_plan_with_another_configuration_is_a_gap(results: Path) -> None:
    content = json.loads((results / "plan.json").read_text())
    content["spec"]["config"]["key_of_another_nsvit"] = 1
    (results / "plan.json").write_text(json.dumps(content))
    page = made(results)
    assert "plan.json" in page.text("gaps")
    assert "table-table1" in page.ids


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    page = made(tmp_path)
    assert "no verdicts" in page.text("verdicts")
    assert "there are no benchmark files" in page.text("run")


def test_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", "--results", str(tmp_path / "no"), "--out", str(tmp_path / "x.html")]
    assert cli.main(arguments) == 1
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


# --- its parts ------------------------------------------------------------------------------

#: Text with every sign that markdown could take for its own.
WORDS = st.sampled_from(
    [
        "",
        "a",
        "NS | x",
        "**b**",
        "a_b_c",
        "*",
        "1 < 2",
        "<i>",
        "C (error) ↓",
        "–",
        "10 %",
        "_x_",
        "1.",
    ]
)
CELLS = st.builds(
    tables.Cell,
    st.sampled_from(["1.5", "–", "NS", "paper: eps=0.03", "a|b", "x_y"]),
    st.sampled_from(["", "[1.0, 2.0]", "[-3, 4]", "±1.2"]),
    st.sampled_from(["plain", "best", "paper"]),
)


@st.composite
def sheets(draw: st.DrawFn) -> tables.Sheet:
    columns = draw(st.integers(1, 3))
    row = st.tuples(*[CELLS | st.builds(tables.Cell, WORDS)] * columns)
    rows = st.lists(row, min_size=1, max_size=2).map(tuple)
    part = st.builds(tables.Part, st.sampled_from(["ViT-S", "a|b", "wrong *mean*"]), rows)
    parts = draw(st.lists(part, min_size=1, max_size=2).map(tuple))
    notes = draw(st.lists(st.sampled_from(["One.", "a|b *c*", "1 < 2_3_4"]), max_size=2))
    return tables.Sheet("A title", draw(st.tuples(*[WORDS] * columns)), parts, tuple(notes))


@given(sheets())
def test_tables_read_back_as_they_were_written(sheet: tables.Sheet) -> None:
    grid = report.read_grid(tables.markdown(sheet))
    assert grid.title == sheet.title
    assert [part.heading for part in grid.parts] == [part.heading for part in sheet.parts]
    assert [part.rows for part in grid.parts] == [part.rows for part in sheet.parts]
    assert {part.header for part in grid.parts} == {sheet.header}
    assert grid.notes == sheet.notes


def test_text_without_a_table_is_refused() -> None:
    with pytest.raises(NsvitError, match=r"x\.md: there is no table"):
        report.read_grid("# A title\n\nwords\n", "x.md")


def test_figures_and_tables_find_their_section() -> None:
    names = ["runs", "nullity", "table3", "lambda_vit_s", "surprise", "claims", "own", "concept"]
    items = [contents.Item("figure", name, name) for name in names]
    placed = {
        section.slug: [item.name for item in found]
        for section, found in contents.arrange(items, accuracies=["own"])
    }
    assert placed == {
        "verdicts": ["claims"],
        "robustness": ["table3", "own"],
        "nullspace": ["concept", "nullity"],
        "noise": ["lambda_vit_s"],
        "training": ["runs"],
        "other": ["surprise"],
    }


def test_titles_name_the_model() -> None:
    models = {"s": "S", "vit_s": "ViT-S", "vit_s_wrong_norm": "ViT-S, wrong"}
    assert contents.title("nullspace_vit_s_wrong_norm", models) == (
        "Exact nullspace noise, ViT-S, wrong"
    )
    assert contents.title("something_new", models) == "Something new"


def test_pictures_of_intervals_share_a_scale_within_a_claim(tmp_path: Path) -> None:
    CLAIMS.to_csv(tmp_path / "claims.csv", index=False)
    (claim,) = verdicts.read_verdicts(tmp_path / "claims.csv")[0].claims
    one, two = (test.picture for test in claim.models[0].tests)
    assert one is not None and two is not None
    assert two.effect / two.high == pytest.approx(2.0 / 3.0, abs=0.01)
    assert one.low / two.high == pytest.approx(-1.9 / 3.0, abs=0.01)
    assert max(abs(v) for drawn in (one, two) for v in vars(drawn).values()) <= 60


@pytest.mark.parametrize("text", ["", "claim,level\n"])
def test_claims_without_their_columns_are_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "claims.csv").write_text(text)
    with pytest.raises(NsvitError, match=r"claims\.csv: no column .*verdict; run its rule again"):
        verdicts.read_verdicts(tmp_path / "claims.csv")


def test_no_difference_is_larger_than_everything() -> None:
    assert [smallest(v, "points") for v in (1.25, 100.0, 48208.4, float("nan"))] == [
        *("1.2", "100.0", ">100", ""),
    ]
    assert smallest(130.0, "% of the first norm") == "130.0"


def test_the_real_claims_are_all_shown(tmp_path: Path) -> None:
    """Against the judge itself: every claim, and every test that it made, is on the page."""
    spec = synthetic.table_spec()
    listed = claims.read_claims(ROOT / "nsvit/paper/claims.yaml")
    records = synthetic.write_records(tmp_path / "records", synthetic.experiment(), images=20)
    evidence = claims.gather(spec, synthetic.write_scores(records, tmp_path), [], [], [])
    frame = claims.judge_claims(listed, evidence)
    frame.to_csv(tmp_path / "claims.csv", index=False)
    groups = verdicts.read_verdicts(tmp_path / "claims.csv", {"vit_s": "ViT-S"})
    shown = [claim for group in groups for claim in group.claims]
    assert {claim.slug: claim.verdict for claim in shown} == dict(
        frame[frame["level"] == "claim"][["claim", "verdict"]].to_numpy().tolist()
    )
    made = frame[(frame["level"] == "test") & (frame["verdict"] != claims.NOT_TESTED)]
    assert len(made) > 10
    tests = [test for claim in shown for model in claim.models for test in model.tests]
    assert sorted(test.comparison for test in tests) == sorted(
        row["comparison"] + bound(row["test"], row["margin"]) for _, row in made.iterrows()
    )
    assert len(tests) == len(made)
    assert {model.label for claim in shown for model in claim.models} >= {"ViT-S", "vit_b"}


@pytest.mark.parametrize(
    ("jobs", "busy"),
    [([], 0), ([(0, 10), (2, 5)], 10), ([(0, 10), (5, 15)], 15), ([(20, 30), (0, 10)], 20)],
)
def test_busy_time_is_a_union(jobs: list[tuple[float, float]], busy: float) -> None:
    made = tuple(folder.Job("x", end - start, 0.0, 0.0, end) for start, end in jobs)
    assert folder.busy_seconds(made) == busy


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.2, "45 s"), (750, "12 min 30 s"), (11100, "3 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert facts.duration(seconds) == text


def test_sidecars_say_what_they_were_made_with() -> None:
    found = artifacts.provenance("model", {})["made_with"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] and found["timm"] and found["processor"] and found["cores"] >= 1
    assert "gpu" not in found


# --- colours ----------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rrggbb."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_is_readable(scheme: int) -> None:
    style = resources.files("nsvit.report").joinpath("page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", blocks[scheme]))
    pairs = [(text, on) for text in ("ink", "muted", "link") for on in ("paper", "card", "mark")]
    pairs += [("gap", "gap-card"), ("ink", "gap-card"), ("gap", "paper")]
    pairs += [(name, f"{name}-card") for name in ("yes", "no", "open")]
    for text, on in pairs:
        bright, dim = sorted((luminance(colours[text]), luminance(colours[on])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, on)


# --- without torch, and in a browser ------------------------------------------------------------


def test_the_report_needs_no_torch(finished: Path, tmp_path: Path) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "torchvision", "accelerate"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
from nsvit import cli
sys.exit(cli.main(sys.argv[1:]))
"""
    out = tmp_path / "report.html"
    arguments = ["report", "--results", str(finished), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "table-table1" in Page(out.read_text()).ids
