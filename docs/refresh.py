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
from pathlib import Path

from nsvit import config

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "results" / "menagerie"
PICTURES = ROOT / "docs" / "default_run"
SHEETS = ("train", "v2", "a", "r", "sketch", "stylized", "c", "damagenet")
FIGURES = ("nullspace_vit_s", "nullspace_vit_b", "influence", "dynamics")


def table(name: str) -> str:
    """A table's markdown with its headings two levels down."""
    text = (RUN / f"tables/{name}.md").read_text()
    return re.sub(r"^#", "###", text, flags=re.M).strip()


def names() -> list[str]:
    """Every table of the run: those of the configuration first."""
    own = config.load(ROOT / "config/config.yaml").tables
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
    order = sorted(rows, key=lambda rule: -sum(r[0] for r in rows[rule]))
    for rule in order:
        seconds, memory = sum(r[0] for r in rows[rule]), max(r[1] for r in rows[rule])
        lines.append(f"| `{rule}` | {len(rows[rule])} | {seconds:.0f} | {memory:.0f} |")
    total = sum(r[0] for part in rows.values() for r in part)
    lines.append(f"| together | {sum(map(len, rows.values()))} | {total:.0f} | |")
    return "\n".join(lines)


def replace(text: str, marker: str, content: str) -> str:
    """The text with what stands between <!-- marker --> and <!-- /marker --> exchanged."""
    pattern = rf"(<!-- {marker} -->).*?(<!-- /{marker} -->)"
    if not re.search(pattern, text, flags=re.S):
        raise SystemExit(f"README.md has no marker {marker}")
    return re.sub(pattern, lambda m: f"{m[1]}\n{content}\n{m[2]}", text, flags=re.S)


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
    parts += ["## Figures", *(f"![{n}](default_run/{n}.png)" for n in FIGURES)]
    parts += ["## Pictures", *(f"![set {n}](default_run/sheet_{n}.png)" for n in SHEETS)]
    parts += ["## Cost", cost()]
    (ROOT / "docs/default_run.md").write_text("\n\n".join(parts) + "\n")
    readme = (ROOT / "README.md").read_text()
    readme = replace(readme, "table1", table("table1"))
    readme = replace(readme, "cost", cost())
    (ROOT / "README.md").write_text(readme)


if __name__ == "__main__":
    main()
