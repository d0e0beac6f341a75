"""The numbers the paper printed, as data: what our tables and figures stand beside.

Source: arXiv 2403.10476 and its OpenReview threads; points of figures are digitised and
approximate. See README.md in this folder.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import pandas as pd

#: The eleven columns of the paper's Table 1, in its order.
COLUMNS = (
    "clean",
    "patchfool",
    "cw",
    "fgsm",
    "damagenet",
    "a",
    "c_mce",
    "v2",
    "r",
    "sketch",
    "stylized",
)
#: Columns where lower is better; they enter an average as 100 - value.
ERRORS = frozenset({"c_mce"})
FILES = ("table1", "table2", "table3_epsilon", "table4_rebuttal", "figures")


@functools.cache
def _read(name: str) -> pd.DataFrame:
    import pandas as pd

    if name not in FILES:
        raise NsvitError(f"the paper's data has no table {name!r}; there are {', '.join(FILES)}")
    with (resources.files("nsvit.paper") / f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=None)


def table(name: str) -> pd.DataFrame:
    """One of the paper's tables, as printed (per cent), or "figures": digitised points.

    Raises:
        NsvitError: there is no such table.
    """
    return _read(name).copy()


def row(model: str | None, method: str | None) -> dict[str, float]:
    """The numbers the paper prints for a model and a method: column -> per cent.

    Looked up in Table 1, then in Tables 2 and 3, then in the replies to reviewers (Table 4); a
    row that stands in several is the same in all. Empty if the paper has no such row; columns it
    leaves empty are absent. `average` is there only where it is printed over all eleven columns
    (Table 1); the replies print averages over nine.
    """
    return dict(_rows().get((model, method), {}))


@functools.cache
def _rows() -> dict[tuple[str | None, str | None], dict[str, float]]:
    found: dict[tuple[str | None, str | None], dict[str, float]] = {}
    # The later one wins.
    for name in ("table4_rebuttal", "table3_epsilon", "table2", "table1"):
        for row in _read(name).to_dict("records"):
            model, method = str(row.pop("model")), str(row.pop("method"))
            if name != "table1":
                row.pop("average")
            found[model, method] = {
                str(column): float(value) for column, value in row.items() if value == value
            }
    return found


def methods() -> list[str]:
    """The methods that the paper's tables have a row for."""
    return sorted({str(method) for _, method in _rows()})


def average(model: str | None, method: str | None, columns: Sequence[str | None]) -> float | None:
    """The paper's average over the given columns (C as 100 - mCE), in per cent.

    Over exactly the eleven columns of Table 1 it is the printed figure; over others it is
    recomputed from the printed columns. None where the paper lacks one of them.
    """
    numbers = row(model, method)
    if sorted(map(str, columns)) == sorted(COLUMNS) and "average" in numbers:
        return numbers["average"]
    return recomputed_average(numbers, columns)


def recomputed_average(numbers: dict[str, float], columns: Sequence[str | None]) -> float | None:
    """The mean of a row's columns with errors as 100 - error; None where one is missing."""
    values = [numbers.get(column) if column else None for column in columns]
    if not values or None in values:
        return None
    signed = [
        100.0 - value if column in ERRORS else value
        for column, value in zip(columns, values, strict=True)
        if value is not None
    ]
    return sum(signed) / len(signed)
