"""Both reports of the finished smoke run, and what is left of ours when a run fails."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.checkout import SMOKE, Checkout
from tests.results import Page
from tests.workflow.test_rules import ROOT, rules

pytestmark = pytest.mark.xdist_group("workflow")

#: On the path of a job as `sitecustomize`, this keeps it from importing torch.
NO_TORCH = """\
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "torchvision", "accelerate"):
            raise ImportError(f"{name} was imported")


sys.meta_path.insert(0, Refuse())
"""


def shown(run: Checkout, name: str = "report.html") -> Page:
    return Page((run.folder / "results/smoke" / name).read_text())


def test_the_report_shows_every_table_figure_and_sheet(finished):
    page, results = shown(finished), finished.folder / "results/smoke"
    assert "gaps" not in page.ids
    wanted = {f"table-{p.stem}" for p in (results / "tables").glob("*.md")}
    wanted |= {f"figure-{p.stem}" for p in (results / "figures").glob("*.svg")}
    wanted |= {f"sheet-{p.stem}" for p in (results / "figures/sheets").glob("*.png")}
    assert wanted <= set(page.ids)
    pictures = [name for name in wanted if not name.startswith("table-")]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(pictures)


def test_the_report_says_what_was_run(finished):
    text = shown(finished).text("run")
    for words in ("ViT-S", "random noise", "FGSM 1/255", "evaluate", "torch", "max_steps: 10"):
        assert words in text
    assert "not recorded" not in text


def test_every_table_and_figure_has_a_caption(finished):
    text = (finished.folder / "results/smoke/README.md").read_text()
    rows = [line for line in text.splitlines() if re.search(r"\]\((tables|figures)/\w+\.", line)]
    assert rows
    assert all(re.match(r"\| \*\*.+\*\*: \w", row) for row in rows)


def test_captions_are_plain_text():
    """Snakemake reads them as reStructuredText with templates, our report as they are."""
    for path in (ROOT / "workflow/report").glob("*.rst"):
        assert not re.search(r"[`*_{}\\]|::|^ |^[=~-]{3}", path.read_text(), flags=re.M), path


def test_tables_figures_and_report_rebuild_without_torch(finished, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    names = [n for n in rules() if n.startswith(("table", "figure")) or n in ("plan", "report")]
    before = finished.digests()
    output = finished.snakemake(*SMOKE, "-R", *names, modules=tmp_path)
    assert {"table", "table_claims", "figure_dynamics", "report"} <= set(names)
    for name in names:
        assert f"rule {name}:" in output
    assert finished.digests() == before
    assert "gaps" not in shown(finished).ids
    again = [sys.executable, "-c", "import sitecustomize, torch"]
    done = subprocess.run(
        again, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert b"torch was imported" in done.stderr


def test_snakemakes_own_report_has_captions_and_categories(finished):
    finished.snakemake(*SMOKE, "--report", "snakemake.html")
    path = finished.folder / "snakemake.html"
    text = path.read_text()
    path.unlink()
    for category in ("Tables", "Figures", "Pictures"):
        assert f'"{category}"' in text
    for caption in (ROOT / "workflow/report").glob("*.rst"):
        name = caption.stem.removeprefix("figure_")
        if f"{name}." in text or caption.stem == "contact_sheet":
            assert caption.read_text().split("\n")[0].replace('"', "&quot;") in text, caption


def test_a_run_that_fails_says_how_to_see_what_there_is(finished, tmp_path):
    run = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    shutil.copytree(finished.folder / ".snakemake", tmp_path / ".snakemake", symlinks=True)
    # A record, of an arm that both tables show, costs its cells; a model stops the job.
    damaged = tmp_path / "results/smoke/records/vit_s/none/seed0/c.parquet"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    model = tmp_path / "results/smoke/models/vit_s/model.safetensors"
    made = model.stat()
    model.write_bytes(model.read_bytes()[:2000])
    os.utime(model, ns=(made.st_atime_ns, made.st_mtime_ns))  # else all that follows runs again
    output = run.snakemake(*SMOKE, "--keep-going", "-R", "nullspace", "scores", check=False)
    assert "models/vit_s/model.safetensors: damaged" in output
    command = re.search(r"nsvit (report --results \S+ --out \S+)", output)
    assert command, output[-3000:]
    subprocess.run(
        [sys.executable, "-m", "nsvit.cli", *command[1].split()], cwd=tmp_path, check=True
    )
    page = shown(run, "partial.html")
    gaps = page.text("gaps")
    assert f"{damaged.relative_to(tmp_path / 'results/smoke')}: damaged" in gaps
    assert "missing: ViT-S, none: C (error)" in gaps
    assert "Agreement %" in page.text("table-influence")
