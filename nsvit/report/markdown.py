"""Reads tables back from the markdown that `nsvit.tables` writes for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsvit.errors import NsvitError
from nsvit.tables.sheet import Cell

if TYPE_CHECKING:
    from markdown_it.token import Token

#: A number, both ends of its interval or half its width, and perhaps a mark of one character.
_INTERVAL = re.compile(r"(.*?)\s*(\[[^\[\]]*\]|±[\d.]+)([^\w\s\]]?)", flags=re.S)


@dataclass(frozen=True)
class Part:
    """Rows under a header of their own and, where there are several parts, a heading."""

    heading: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Grid:
    """A table as a page shows it."""

    title: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def read_grid(text: str, source: str = "markdown") -> Grid:
    """The inverse of `nsvit.tables.markdown`.

    Args:
        text: a heading, tables with headings of their own, and a list of notes.
        source: what to call it in errors.

    Raises:
        NsvitError: there is no table in it.
    """
    from markdown_it import MarkdownIt

    syntax = ["heading", "list", "table", "emphasis", "entity", "escape"]  # what the writer writes
    tokens = MarkdownIt("zero").enable(syntax).parse(text)
    title, heading = "", ""
    parts: list[Part] = []
    notes: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            inline = _plain(tokens[index + 1])
            title, heading = (inline, heading) if token.tag == "h1" else (title, inline)
        elif token.type == "table_open":
            parts.append(_part(heading, tokens[index:]))
        elif token.type == "list_item_open":
            notes.append(_plain(next(t for t in tokens[index:] if t.type == "inline")))
    if not parts:
        raise NsvitError(f"{source}: there is no table in it; run its rule again")
    return Grid(title, tuple(parts), tuple(notes))


def _part(heading: str, tokens: Sequence[Token]) -> Part:
    """The table that begins with the first token."""
    rows: list[list[Token]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(token)
        elif token.type == "table_close":
            break
    header, *body = rows
    cells = tuple(tuple(_cell(token) for token in row) for row in body)
    return Part(heading, tuple(map(_plain, header)), cells)


def _plain(inline: Token) -> str:
    children = inline.children or []
    return "".join("\n" if c.type == "softbreak" else c.content for c in children)


def _cell(inline: Token) -> Cell:
    text, interval, mark = _plain(inline), "", ""
    if match := _INTERVAL.fullmatch(text):
        text, interval, mark = match[1], match[2], match[3]
    opened = {child.type for child in inline.children or ()}
    if "strong_open" in opened:
        return Cell(text, interval, "best", mark)
    return Cell(text, interval, "paper" if "em_open" in opened else "plain", mark)
