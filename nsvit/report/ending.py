"""What the workflow prints at its end: a table to read on a terminal, and the verdicts in short."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from pathlib import Path

from nsvit.claims import NOT_TESTED
from nsvit.errors import NsvitError
from nsvit.report.verdicts import read_verdicts

#: Columns of the terminal that is reckoned with; a table itself may be wider.
WIDTH = 100


def ending(results: Path, shown: Collection[str], note: str = "") -> str:
    """Table 1 with its notes wrapped, each claim with its verdict, and where the rest is.

    Args:
        results: `results/<experiment>`; what it lacks is left out.
        shown: the configuration's tables of accuracies.
        note: the configuration's, for readers.
    """
    why = f"{results}/tables/claims.md"
    pages = {"Everything on one page": "report.html", "Which file is what": "README.md"}
    there = {what: results / name for what, name in pages.items() if (results / name).exists()}
    parts = ["\n".join(f"{what}: {path}" for what, path in there.items())]
    try:
        groups = read_verdicts(results / "tables/claims.csv")
    except NsvitError:
        groups = ()
    for group in reversed(groups):
        tested = [one for one in group.claims if one.verdict != NOT_TESTED]
        lines = [_wrapped(f"{one.verdict:12}  {one.title}", 14) for one in tested]
        if left := len(group.claims) - len(tested):
            lines.append(f"{NOT_TESTED:12}  {left} of {len(group.claims)}: {why} says why")
        parts.insert(0, "\n".join([f"{group.heading}, at this scale:", *lines]))
    table = results / "tables/table1.md"
    if table.stem in shown and table.exists():
        lines = table.read_text(encoding="utf-8").strip().splitlines()
        parts.insert(0, "\n".join(_wrapped(one, 2) if one[:2] == "- " else one for one in lines))
    return "\n" + "\n\n".join(filter(None, (*parts, _wrapped(note, 0))))


def _wrapped(line: str, indent: int) -> str:
    """A line in lines that fit, all but the first of them indented."""
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)
