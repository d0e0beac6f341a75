"""A small results folder as a run leaves it, and a reader of the page made from it. No torch."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from PIL import Image

from nsvit import artifacts, figures, report, specs, tables
from nsvit.figures.style import figure_of_text
from tests import synthetic

SHEET = tables.Sheet(
    "Table 1: accuracy",
    ("Method", "Clean", "A|B <i>"),
    (
        tables.Part(
            "ViT-S",
            (
                (
                    tables.Cell("NS"),
                    tables.Cell("81.5", "[79.0, 84.1]", "best", "‡"),
                    tables.Cell("–"),
                ),
                tuple(tables.Cell(text, style="paper") for text in ("paper: NS", "77.5", "")),
            ),
        ),
        tables.Part("ViT-B", (tuple(tables.Cell(text) for text in ("NS", "1 < 2", "3")),)),
    ),
    ("Brackets: 95 % intervals.", "‡ Clean: not to be trusted.", "Missing: ViT-S, NS: A|B."),
)
_CLEAN = {"claim": "clean", "title": "NS <improves> clean", "where": "Table 1", "origin": "paper"}
_TEST = {**_CLEAN, "level": "test", "model": "vit_s", "unit": "points", "detectable": 1.7}
_TEST |= {"detectable_holm": 2.6}
_FIRST = {"comparison": "NS - none: Clean", "printed": "77 - 74", "paper": 3.3, "p_holm": 1.0}
_SECOND = {"comparison": "NS - none: Sketch", "margin": 2.0, "p_holm": 0.0001}
_SECOND |= {"test": "equivalent", "note": "rests on a number that a doubt concerns"}
_LOST = {"comparison": "NS - none: DAT", "verdict": "not tested", "reason": "there is no DAT"}
_CONTROL = {"claim": "plain", "title": "NS beats plain", "where": "", "origin": "control"}
_UNDECIDED = {**_CLEAN, "verdict": "undecided", "reason": "1 supported, 1 undecided"}
#: As `nsvit.claims.judge_claims` makes it, with one column more.
CLAIMS = pd.DataFrame(
    [
        {**_UNDECIDED, "level": "claim"},
        {**_UNDECIDED, "level": "model", "model": "vit_s"},
        {**_TEST, **_FIRST, "effect": -0.72, "low": -1.9, "high": 0.5, "verdict": "undecided"},
        {**_TEST, **_SECOND, "effect": 2.0, "low": 1.0, "high": 3.0, "verdict": "supported"},
        {**_TEST, **_LOST},
        {**_CONTROL, "level": "claim", "verdict": "not tested", "reason": "1 not tested"},
    ]
).assign(extra="x")
MADE_WITH = {"python": "3.11.7", "torch": "2.9.1", "processor": "Some CPU", "cores": 4}


def write_results(folder: Path) -> Path:
    """Writes a whole results folder; nothing in it is missing but the cell that a note names."""
    exp = synthetic.experiment()
    known = {"table1": "The main table.", "claims": "What the paper claims.", "novel": ""}
    drawn = {"claims": "Every effect.", "nullspace_vit_s": "An example <here>."}
    spec = specs.plan(exp, known, drawn, "Some pictures.")
    report.write_plan(spec.model_copy(update={"sheets": ("val", "c")}), folder / "plan.json")
    for name in known:
        paths = [folder / f"tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")]
        tables.write(pd.DataFrame({"a": [1]}), {}, SHEET, *paths)
    CLAIMS.to_csv(folder / "tables/claims.csv", index=False)
    for name in drawn:
        paths = [folder / f"figures/{name}.{suffix}" for suffix in ("svg", "png")]
        figures.save(figure_of_text(f"figure {name}"), *paths)
    (folder / "figures/sheets").mkdir()
    for name in ("val", "c"):
        Image.new("RGB", (60, 40), "teal").save(folder / f"figures/sheets/{name}.png")
    _write_records(folder)
    _write_jobs(folder)
    return folder


def _write_records(folder: Path) -> None:
    made = {"git_commit": "abc123+", "nsvit": "9.8.7", "made_with": MADE_WITH}
    for arm in ("none", "nullspace"):
        sidecar = {**artifacts.provenance("records", {}), **made}
        sidecar["doubts"] = ["vit_s none seed 0 val: too strong <to> be true [rising_with_radius]"]
        path = folder / f"records/vit_s/{arm}.parquet"
        artifacts.write_parquet(path, pd.DataFrame({"correct": [True]}), sidecar)
    history = {**synthetic.history("vit_s", "nullspace", 0), **made}
    artifacts.write_json(folder / "runs/vit_s/nullspace/seed0/history.json", history)


def _write_jobs(folder: Path) -> None:
    """Two jobs of 60 s that overlap by 20 s, and one of 10 s an hour later."""
    head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    jobs = {"scan/a": (60, 1060.0), "scan/b": (60, 1100.0), "table1": (10, 4700.0)}
    for name, (seconds, ended) in jobs.items():
        path = folder / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}{seconds}\t0:01:00\t512.5\t0\t0\t0\t0\t0\t0\t{seconds - 5}\n")
        os.utime(path, (ended, ended))
    log = folder / "logs/evaluate/vit_s.log"
    log.parent.mkdir(parents=True)
    stamp = "2026-01-02 03:04:05,678"
    log.write_text(
        "nsvit evaluate --spec {}\n"
        f"{stamp} INFO nsvit.evaluation: all is well\n"
        f"{stamp} WARNING nsvit.scoring: logits look like <probabilities>\n"
        f"{stamp} WARNING nsvit.scoring: vit_s none seed 0 val: too strong <to> be true "
        "[rising_with_radius]\n"
        f"{stamp} WARNING elsewhere: not ours\n"
    )


class Page(HTMLParser):
    """What tests ask of a page; refuses tags that are not closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "rect", "path", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.sections: dict[str, list[str]] = {}
        self._within: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if "id" in found:
            self.ids.append(str(found["id"]))
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)
            self._within.append(str(found.get("id", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"
        self._within.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
            return
        self.words.append(data)
        for name in filter(None, self._within):
            self.sections.setdefault(name, []).append(data)

    def text(self, section: str | None = None) -> str:
        """All its text, or that inside the element of an id, with single spaces."""
        parts = self.words if section is None else self.sections.get(section, [])
        return " ".join("".join(parts).split())
