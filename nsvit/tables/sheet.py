"""A table as people read it, and the one writer of csv, markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nsvit import artifacts
from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd

#: A number that is not there; and one that the configuration does not ask for.
GAP = "–"
NOT_ASKED = "—"
#: How a note on a file that had to be left out begins; at most so many of them.
LEFT_OUT = "Left out: "
MOST_LOST = 10
#: Longer LaTeX tables are cut between their parts, where a page may break.
_ROWS_ON_A_PAGE = 45


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its interval (set small), a mark, and whether best or the paper's."""

    text: str
    interval: str = ""
    style: Literal["plain", "best", "paper"] = "plain"
    mark: str = ""


@dataclass(frozen=True)
class Part:
    """Rows under one heading; "" for a table without headings, () for the sheet's header."""

    heading: str
    rows: tuple[tuple[Cell, ...], ...]
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A whole table: every row has as many cells as the header of its part has texts."""

    title: str
    header: tuple[str, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses rows of another width."""
        for part in self.parts:
            header = self.header_of(part)
            for row in part.rows:
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells under {len(header)} headings")

    def header_of(self, part: Part) -> tuple[str, ...]:
        """The headings over a part."""
        return part.header or self.header


def number(value: float | None, decimals: int = 1) -> str:
    """A number with fixed decimals, or a gap where there is none."""
    if value is None or math.isnan(value):
        return GAP
    # A float a hair off a tie would be rounded another way than the csv's number, read again.
    text = f"{round(value, 9):.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def signed(value: float | None, decimals: int = 1) -> str:
    """A number with its sign, as differences are written."""
    text = number(value, decimals)
    return f"+{text}" if text != GAP and float(text) > 0 else text.replace("-", "−")


def interval(low: float, high: float, decimals: int = 1) -> str:
    """The text of an interval, "" where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, decimals)}, {number(high, decimals)}]"


def half_width(value: float, low: float, high: float, decimals: int = 1) -> str:
    """The larger half of an interval as "±1.2", "" where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"±{number(max(value - low, high - value), decimals)}"


def estimate_cell(value: float, low: float, high: float, decimals: int = 1) -> Cell:
    """A cell with a value and its interval."""
    return Cell(number(value, decimals), interval(low, high, decimals))


# --- markdown -------------------------------------------------------------------------------


def markdown(sheet: Sheet) -> str:
    """The sheet as GitHub markdown: a table for each part, then the notes."""
    lines = [f"# {sheet.title}", ""]
    for part in sheet.parts:
        if part.heading:
            lines += [f"## {_markdown_text(part.heading)}", ""]
        body = [[_markdown_cell(cell) for cell in row] for row in part.rows]
        header = [_markdown_text(text) for text in sheet.header_of(part)]
        lines += [*_pipes(header, body), ""]
    lines += [f"- {_markdown_text(note)}" for note in sheet.notes]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_text(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_text(cell.text)
    if text and cell.style == "best":
        text = f"**{text}**"
    if text and cell.style == "paper":
        text = f"*{text}*"
    return f"{text} {cell.interval}".strip() + cell.mark


def _pipes(header: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(3, *(len(row[i]) for row in [header, *body])) for i in range(len(header))]

    def line(row: list[str]) -> str:
        padded = [text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(
            zip(row, widths, strict=True)
        )]  # fmt: skip
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(header), f"| {' | '.join(rule)} |", *(line(row) for row in body)]


# --- LaTeX ----------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "±": r"$\pm$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "≈": r"$\approx$",
    "‖": r"$\|$",
    "·": r"$\cdot$",
}


def tex_escape(text: str) -> str:
    """The text with every character LaTeX would read as a command made literal."""
    return "".join(_TEX.get(character, character) for character in text)


def tex(sheet: Sheet) -> str:
    r"""The sheet as a LaTeX fragment for `\input`; never wider than a line.

    A table of many rows is cut between its parts, so that pages can break there: such a one goes
    into the text and not into a float.
    """
    lines = [
        "% Made by nsvit, do not edit. Needs \\usepackage{booktabs,graphicx}.",
        f"% {tex_escape(sheet.title)}",
        r"\par{\footnotesize\setlength{\tabcolsep}{3pt}\setlength{\parindent}{0pt}%",
    ]
    for block in _blocks(sheet):
        lines += [r"\setbox0=\hbox{%", *_tabular(sheet, block), "}%"]
        lines.append(r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi")
        lines.append(r"\par\smallskip")
    lines += [rf"{{\scriptsize {tex_escape(note)}\par}}" for note in sheet.notes]
    return "\n".join([*lines, "}"]) + "\n"


def _blocks(sheet: Sheet) -> list[list[Part]]:
    """The parts that share a tabular: all of them if they are few and have one header."""
    rows = sum(len(part.rows) + 1 for part in sheet.parts)
    alike = len({sheet.header_of(part) for part in sheet.parts}) == 1
    if alike and rows <= _ROWS_ON_A_PAGE:
        return [list(sheet.parts)]
    return [[part] for part in sheet.parts]


def _tabular(sheet: Sheet, block: list[Part]) -> list[str]:
    header = sheet.header_of(block[0])
    columns = len(header)
    lines = [
        rf"\begin{{tabular}}{{l{'c' * (columns - 1)}}}",
        r"\toprule",
        " & ".join(tex_escape(text) for text in header) + r" \\",
    ]
    for part in block:
        lines.append(r"\midrule")
        if part.heading:
            text = tex_escape(part.heading)
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\textbf{{{text}}}}} \\[2pt]")
        lines += [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in part.rows]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _tex_cell(cell: Cell) -> str:
    text = tex_escape(cell.text)
    if text and cell.style == "best":
        text = rf"\textbf{{{text}}}"
    if text and cell.style == "paper":
        text = rf"\emph{{{text}}}"
    if cell.interval.startswith("±"):
        text += rf"{{\tiny\,{tex_escape(cell.interval)}}}"
    elif cell.interval:
        # The braces keep LaTeX from reading [..] as the optional length of a line break.
        text = rf"\shortstack{{{text}\\{{\tiny {tex_escape(cell.interval)}}}}}"
    return text + tex_escape(cell.mark)


def with_lost(sheet: Sheet, lost: Sequence[str]) -> Sheet:
    """The table with a note for everything that had to be left out of it.

    Args:
        sheet: the table.
        lost: texts of `records.usable`.
    """
    notes = [f"{LEFT_OUT}{text}." for text in lost[:MOST_LOST]]
    if len(lost) > MOST_LOST:
        notes.append(f"{LEFT_OUT}{len(lost) - MOST_LOST} more; the log of this table names them.")
    return replace(sheet, notes=(*sheet.notes, *notes))


# --- writing --------------------------------------------------------------------------------


def csv_text(frame: pd.DataFrame, decimals: Mapping[str, int]) -> str:
    """The frame as csv; the named columns with fixed decimals, so that files are byte-stable."""
    texts = frame.copy()
    for name, places in decimals.items():
        values = frame[name].astype(float)
        texts[name] = ["" if math.isnan(v) else number(v, places) for v in values]
    return texts.to_csv(index=False, lineterminator="\n")


def write(
    frame: pd.DataFrame, decimals: Mapping[str, int], sheet: Sheet, *paths: str | Path
) -> None:
    """Writes a table to each path, in the format of its suffix (.csv, .md, .tex), atomically.

    Args:
        frame: the long table (csv).
        decimals: fixed decimals per column of the csv.
        sheet: the table to read (md, tex).
        *paths: where to.

    Raises:
        NsvitError: another suffix.
    """
    for path in paths:
        suffix = Path(path).suffix
        if suffix not in (".csv", ".md", ".tex"):
            raise NsvitError(f"{path}: tables are written as .csv, .md or .tex")
        if suffix == ".csv":
            artifacts.write_text(path, csv_text(frame, decimals))
        else:
            artifacts.write_text(path, markdown(sheet) if suffix == ".md" else tex(sheet))
