"""Copies the default run into the documentation: `make docs` after `make`.

Writes docs/default_run.md with the tables and pictures of results/menagerie, and the parts of
README.md between its markers. No number in either is typed by hand.
"""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from nsvit import config
from nsvit.tables.sheet import signed

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "results" / "menagerie"
PICTURES = ROOT / "docs" / "default_run"
SHEETS = ("train", "v2", "a", "r", "sketch", "stylized", "c", "damagenet")
FIGURES = (
    *("claims", "concept", "nullspace_vit_s", "nullspace_vit_b", "lambda", "closure"),
    *("influence", "dynamics", "corruptions", "radius"),
)
#: Rules that together take less than this share of the time are one row of the cost table.
SMALL = 0.01


def table(name: str) -> str:
    """A table's markdown with its headings two levels down."""
    text = (RUN / f"tables/{name}.md").read_text()
    return re.sub(r"^#", "###", text, flags=re.M).strip()


def first_part(name: str) -> str:
    """The first part of a table (its first model)."""
    return table(name).split("\n#### ", 2)[1].partition("\n")[2].strip()


def verdicts() -> str:
    """The claims in short: what is claimed, how its tests came out, the verdict."""
    with (RUN / "tables/claims.csv").open(encoding="utf-8") as file:
        every = list(csv.DictReader(file))
    rows = [row for row in every if row["level"] == "claim"]
    lines = ["| claim | its tests here | verdict |", "|---|---|---|"]
    for origin, mark in (("paper", ""), ("control", " (a control that the paper lacks)")):
        lines += [
            f"| {row['title']}{mark} | {outcomes(row, every)} | {row['verdict']} |"
            for row in rows
            if row["origin"] == origin
        ]
    return "\n".join(lines)


def finding() -> str:
    """What the noise adds to the same finetuning without it, and finetuning to nothing."""
    with (RUN / "tables/claims.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "ns_plain"]
    models = config.load(ROOT / "config/config.yaml").models
    parts = [
        f"{models[row['model']].label} {signed(float(row['effect']))} "
        + f"[{signed(float(row['low']))}, {signed(float(row['high']))}]"
        for row in rows
        if row["level"] == "test" and row["effect"]
    ]
    (verdict,) = (row["verdict"] for row in rows if row["level"] == "claim")
    noise = (
        f"- NS minus the same finetuning without noise: {'; '.join(parts)}. Better? **{verdict}**."
    )
    notes = (RUN / "tables/control.md").read_text()
    found = re.search(r"^- Re-adaptation, in points of (.*)$", notes, re.M)
    return noise if found is None else f"{noise}\n- Finetuning itself, in points of {found[1]}"


def outcomes(claim: dict[str, str], rows: Sequence[dict[str, str]]) -> str:
    """How a claim's tests came out, with the models of those that were decided."""
    models = config.load(ROOT / "config/config.yaml").models
    told = claim["reason"]
    for verdict in ("supported", "contradicted"):
        decided = [
            models[row["model"]].label
            for row in rows
            if row["claim"] == claim["claim"]
            and (row["level"], row["verdict"]) == ("test", verdict)
            and row["model"] in models
        ]
        where = "; ".join(dict.fromkeys(decided))
        told = told.replace(f" {verdict}", f" {verdict} ({where})") if where else told
    return told


def names() -> list[str]:
    """Every table of the run: the claims first, then those of the configuration."""
    own = ("claims", *config.load(ROOT / "config/config.yaml").tables)
    rest = sorted(path.stem for path in (RUN / "tables").glob("*.md"))
    return [*own, *(name for name in rest if name not in own)]


def cost() -> str:
    """Seconds per rule, summed over its jobs (which run side by side), and the largest memory."""
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in (RUN / "benchmarks").rglob("*.tsv"):
        with path.open() as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        rule = path.relative_to(RUN / "benchmarks").parts[0].removesuffix(".tsv")
        rows[rule].append((float(row["s"]), float(row["max_rss"])))
    lines = ["| rule | jobs | seconds, all jobs | memory of one, MB |", "|---|---:|---:|---:|"]
    total = sum(r[0] for part in rows.values() for r in part)
    shown: dict[str, list[tuple[float, float]]] = {}
    for rule, own in rows.items():
        large = sum(r[0] for r in own) >= SMALL * total
        shown.setdefault(f"`{rule}`" if large else "all others", []).extend(own)
    for rule in sorted(shown, key=lambda rule: -sum(r[0] for r in shown[rule])):
        seconds, memory = sum(r[0] for r in shown[rule]), max(r[1] for r in shown[rule])
        lines.append(f"| {rule} | {len(shown[rule])} | {seconds:.0f} | {memory:.0f} |")
    lines.append(f"| together | {sum(map(len, rows.values()))} | {total:.0f} | |")
    return "\n".join(lines)


def replace(text: str, marker: str, content: str) -> str:
    """The text with what stands between <!-- marker --> and <!-- /marker --> exchanged."""
    pattern = rf"(<!-- {marker} -->).*?(<!-- /{marker} -->)"
    if not re.search(pattern, text, flags=re.S):
        raise SystemExit(f"README.md has no marker {marker}")
    return re.sub(pattern, lambda m: f"{m[1]}\n{content}\n{m[2]}", text, flags=re.S)


def figure(name: str) -> str:
    """A figure over its caption."""
    kind = name.split("_")[0]
    caption = " ".join((ROOT / f"workflow/report/figure_{kind}.rst").read_text().split())
    return f"![{name}](default_run/{name}.png)\n\n{caption}"


def main() -> None:
    """Writes both documents."""
    if not (RUN / "tables/table1.md").exists():
        sys.exit("results/menagerie is not there: run `make` first")
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)
    for name in FIGURES:
        shutil.copyfile(RUN / f"figures/{name}.png", PICTURES / f"{name}.png")
    for name in SHEETS:
        shutil.copyfile(RUN / f"figures/sheets/{name}.png", PICTURES / f"sheet_{name}.png")
    parts = ["# The default run", "Made by `make docs` from `results/menagerie`, not typed."]
    parts += ["## Tables", *map(table, names())]
    parts += ["## Figures", *map(figure, FIGURES)]
    parts += ["## Pictures", *(f"![set {n}](default_run/sheet_{n}.png)" for n in SHEETS)]
    parts += ["## Cost", cost()]
    (ROOT / "docs/default_run.md").write_text("\n\n".join(parts) + "\n")
    readme = (ROOT / "README.md").read_text()
    readme = replace(readme, "finding", finding())
    readme = replace(readme, "verdicts", verdicts())
    readme = replace(readme, "table1", first_part("table1"))
    readme = replace(readme, "cost", cost())
    (ROOT / "README.md").write_text(readme)


if __name__ == "__main__":
    main()
