"""Everything that a report shows, read from the results folder; gaps in place of what is not."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from nsvit import artifacts
from nsvit.errors import NsvitError
from nsvit.report import contents, facts, pictures
from nsvit.report.contents import CLAIMS, Item, Plan
from nsvit.report.facts import Facts
from nsvit.report.folder import Evidence, Problem
from nsvit.report.markdown import Grid, read_grid
from nsvit.report.pictures import Shown
from nsvit.report.verdicts import Group, read_verdicts
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy_notes import DOUBTED
from nsvit.tables.sheet import LEFT_OUT

PLAN = "plan.json"
_NOTED_GAP = "Missing: "


@dataclass(frozen=True)
class File:
    """A file of the run: its name below the results folder and a link from the page."""

    name: str
    link: str


@dataclass(frozen=True)
class Entry:
    """A table, figure or contact sheet as the page shows it, or why it does not.

    Exactly one of grid, verdicts, shown and gap is given; `left_out` are the notes on what a table
    had to leave out.
    """

    anchor: str
    title: str
    caption: str
    files: tuple[File, ...]
    grid: Grid | None = None
    verdicts: tuple[Group, ...] | None = None
    left_out: tuple[str, ...] = ()
    shown: Shown | None = None
    gap: str = ""


@dataclass(frozen=True)
class Chapter:
    """A question and the entries that answer it."""

    slug: str
    question: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class View:
    """The whole report.

    Attributes:
        name: of the experiment.
        note: what the configuration says to readers.
        facts: what was run.
        chapters: tables and figures by question, the verdicts first.
        sheets: contact sheets; what they show, which is the same for all, in `sheet_caption`.
        gaps: what is missing or damaged, files and cells.
        doubts: of the self-checks, by check.
        evidence: warnings among it.
    """

    name: str
    note: str
    facts: Facts
    chapters: tuple[Chapter, ...]
    sheets: tuple[Entry, ...]
    sheet_caption: str
    gaps: tuple[Problem, ...]
    doubts: dict[str, tuple[Doubt, ...]]
    evidence: Evidence

    @property
    def marked(self) -> tuple[Entry, ...]:
        """Tables that mark doubted cells."""
        return tuple(
            entry
            for entry in self.entries
            if entry.grid and any(note.startswith(DOUBTED) for note in entry.grid.notes)
        )

    @property
    def checked(self) -> int:
        """How many files of records were checked for doubts."""
        return sum("doubts" in sidecar for sidecar in self.evidence.sidecars.values())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry of every chapter, then the contact sheets."""
        return (*(entry for chapter in self.chapters for entry in chapter.entries), *self.sheets)


def look(results: Path, page_folder: Path, evidence: Evidence) -> View:
    """Reads everything that the plan of a results folder names.

    Args:
        results: the folder; without a plan, whatever is in it is shown.
        page_folder: where the page will be, for its links to files.
        evidence: of the same folder.
    """
    plan, problems = _plan(results)
    models = plan.config.models.items() if plan.config else ()
    links = _Links(results, page_folder, {slug: model.label for slug, model in models})
    accuracies = list(plan.config.tables) if plan.config else []
    chapters = tuple(
        Chapter(section.slug, section.question, tuple(_entry(item, links) for item in items))
        for section, items in contents.arrange(plan.items, accuracies)
    )
    sheets = tuple(_sheet(name, links) for name in plan.sheets)
    name = plan.config.experiment if plan.config else results.resolve().name
    found = facts.gather(name, plan, evidence)
    doubts = _doubts(evidence)
    note = plan.config.note if plan.config else ""
    view = View(name, note, found, chapters, sheets, plan.sheet_caption, (), doubts, evidence)
    return replace(view, gaps=(*problems, *evidence.damaged, *_gaps(view, results)))


@dataclass(frozen=True)
class _Links:
    """What entries need: the results folder, links to its files, and labels of models."""

    results: Path
    page_folder: Path
    labels: dict[str, str]

    def files(self, *names: str) -> tuple[File, ...]:
        """Those of the names that are there."""
        return tuple(
            File(name, quote(Path(os.path.relpath(path, self.page_folder)).as_posix()))
            for name in names
            if (path := self.results / name).exists()
        )


def _plan(results: Path) -> tuple[Plan, list[Problem]]:
    """The plan of a folder and what was wrong with it."""
    path = results / PLAN
    try:
        return contents.from_sidecar(artifacts.read_json(path), str(path)), []
    except (NsvitError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, NsvitError) else f"{path}: of another nsvit"
        text = f"{_reason(reason, path)}; what is here is shown, what else was planned is unknown"
        stems = {
            folder: sorted({p.stem for p in (results / folder).glob(f"*.{suffix}")})
            for folder, suffix in (("tables", "md"), ("figures", "svg"), ("figures/sheets", "png"))
        }
        return contents.of_what_is_there(*stems.values()), [Problem(PLAN, text)]


def _reason(message: str, path: Path) -> str:
    """An error's text without the path that the page says anyway."""
    return message.removeprefix(f"{path}: ")


# --- entries ----------------------------------------------------------------------------------


def _entry(item: Item, links: _Links) -> Entry:
    return _table(item, links) if item.kind == "table" else _figure(item, links)


def _table(item: Item, links: _Links) -> Entry:
    names = [f"tables/{item.name}.{suffix}" for suffix in ("csv", "md", "tex")]
    entry = Entry(f"table-{item.name}", item.title, item.caption, links.files(*names))
    path = links.results / names[1]
    try:
        grid = read_grid(path.read_text(encoding="utf-8"), str(path))
        left_out = tuple(note for note in grid.notes if note.startswith(LEFT_OUT))
        title = grid.title or entry.title
        entry = replace(entry, grid=grid, title=title, left_out=left_out)
    except (OSError, UnicodeDecodeError):
        found = "cannot be read" if path.exists() else "no such file"
        entry = replace(entry, gap=f"{names[1]}: {found}")
    except NsvitError as error:
        entry = replace(entry, gap=f"{names[1]}: {_reason(str(error), path)}")
    return entry if item.name != CLAIMS else _claims(entry, links)


def _claims(entry: Entry, links: _Links) -> Entry:
    """The table of claims as verdicts, if its csv can be read; else as it is."""
    name = f"tables/{CLAIMS}.csv"
    source = links.results / name
    try:
        verdicts = read_verdicts(source, links.labels)
        return replace(entry, title="Verdicts", verdicts=verdicts, grid=None, gap="")
    except NsvitError as error:
        return entry if entry.grid else replace(entry, gap=f"{name}: {_reason(str(error), source)}")


def _figure(item: Item, links: _Links) -> Entry:
    names = [f"figures/{item.name}.{suffix}" for suffix in ("svg", "png")]
    entry = Entry(f"figure-{item.name}", item.title, item.caption, links.files(*names))
    svg, png = (links.results / name for name in names)
    try:
        return replace(entry, shown=pictures.figure(svg, png))
    except NsvitError as error:
        return replace(entry, gap=_below(str(error), links.results))


def _sheet(name: str, links: _Links) -> Entry:
    files = [f"figures/sheets/{name}.{suffix}" for suffix in ("png", "svg")]
    entry = Entry(f"sheet-{name}", f"Set {name}", "", links.files(*files))
    try:
        return replace(entry, shown=pictures.sheet(links.results / files[0]))
    except NsvitError as error:
        return replace(entry, gap=_below(str(error), links.results))


def _below(message: str, results: Path) -> str:
    """An error's text with paths from the results folder on."""
    return message.replace(f"{results}{os.sep}", "")


# --- doubts and gaps ---------------------------------------------------------------------------


def _doubts(evidence: Evidence) -> dict[str, tuple[Doubt, ...]]:
    by_check: dict[str, list[Doubt]] = {}
    for warned in evidence.doubts:
        doubt = Doubt.parse(warned.text)
        by_check.setdefault(doubt.check or "other", []).append(doubt)
    return {check: tuple(found) for check, found in by_check.items()}


def _gaps(view: View, results: Path) -> list[Problem]:
    """Entries that are not there, cells that tables say are missing, and what they leave out."""
    found = []
    left_out: dict[str, list[str]] = {}
    for entry in view.entries:
        if entry.gap:
            path, _, text = entry.gap.partition(": ")
            found.append(Problem(path, text))
        for note in entry.grid.notes if entry.grid else ():
            if note.startswith(_NOTED_GAP):
                found.append(Problem(entry.title, f"missing: {note.removeprefix(_NOTED_GAP)}"))
        for note in entry.left_out:
            left_out.setdefault(note.removeprefix(LEFT_OUT), []).append(entry.title)
    for note, titles in left_out.items():
        path, _, text = _below(note, results).partition(": ")
        found.append(Problem(path, f"{text or 'left out.'} Left out of: {'; '.join(titles)}."))
    return found
