"""Rank and nullity of patch embeddings: guaranteed by the shape, and measured on weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nsvit.specs import TableSpec
from nsvit.tables.sheet import GAP, Cell, Part, Sheet

if TYPE_CHECKING:
    import pandas as pd

#: What `nullspace.nullity_row` gives, in order.
SHAPE = (
    "patch",
    "columns",
    "width",
    "guaranteed_nullity",
    "patches",
    "guaranteed_nullity_per_image",
)
MEASURED = ("rank", "nullity", "nullity_per_image")
DIFFERENCES = ("nullspace_max_logit_difference", "random_max_logit_difference")
DECIMALS: dict[str, int] = {}


def table_nullity(
    architectures: pd.DataFrame, sidecars: Sequence[Mapping[str, Any]], spec: TableSpec
) -> pd.DataFrame:
    """Nullity of timm architectures, then of the models under test (METHOD.md section 2).

    Args:
        architectures: from `nullspace.nullity_table` (or its csv).
        sidecars: of the nullspace artefacts of the models under test: what `nullity_row` says
            is read from their metrics where it is there.
        spec: labels of the models.

    Returns:
        Columns name, measured (whether weights were looked at), the shape's guarantees per
        patch and per image, rank, nullity, nullity_per_image, and the largest change of a logit
        under nullspace noise and under random noise of the same norm (scientific notation).
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for row in architectures.to_dict("records"):
        known = {str(key): value for key, value in row.items()}
        rows.append({"name": known["architecture"], **_numbers(known)})
    for sidecar in sidecars:
        slug, metrics = sidecar["spec"]["model"], sidecar["metrics"]
        found = {"columns": metrics["rank"] + metrics["nullity"], **metrics}
        rows.append({"name": spec.models[slug].label, **_numbers(found)})
    frame = pd.DataFrame(rows)
    whole = [column for column in (*SHAPE, *MEASURED) if column != "patch"]
    frame = frame.astype(dict.fromkeys(whole, "Int64"))
    frame.insert(1, "measured", frame["rank"].notna())
    return frame


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    differences = {
        name: f"{row[name]:.1e}" if row.get(name) is not None else "" for name in DIFFERENCES
    }
    patch = row.get("patch")
    shape = {name: row.get(name) for name in (*SHAPE, *MEASURED)}
    return {**shape, "patch": "" if patch is None else str(patch), **differences}


def nullity_sheet(frame: pd.DataFrame, spec: TableSpec) -> Sheet:
    """The nullity table to read: architectures by shape, then weights measured."""
    header: tuple[str, ...] = (
        "Model",
        "Patch",
        "Columns",
        "Width",
        "Guaranteed",
        "Rank",
        "Nullity",
    )
    header += ("Per image", "Change of logits", "Random")
    parts = [
        Part(heading, tuple(_cells(row) for row in part.to_dict("records")))
        for heading, part in (
            ("Guaranteed by the shape", frame[~frame["measured"]]),
            ("Measured on the weights", frame[frame["measured"]]),
        )
        if len(part)
    ]
    notes = (
        "Columns: channels × patch height × patch width. Guaranteed: columns − width, the least "
        "nullity per patch that the shape allows. Rank and nullity: SVD in float64. Per image: "
        "nullity (guaranteed where not measured) times the number of patches.",
        "Change of logits: largest change of any logit under exact nullspace noise in pixels; "
        "Random: under random noise of the same norm.",
    )
    return Sheet("Nullity of the patch embedding", header, tuple(parts), notes)


def _cells(row: dict[Any, Any]) -> tuple[Cell, ...]:
    import pandas as pd

    per_image = row["nullity_per_image"] if row["measured"] else None
    if per_image is None or pd.isna(per_image):
        per_image = row["guaranteed_nullity_per_image"]
    values = (
        *(row[name] for name in ("columns", "width", "guaranteed_nullity", "rank", "nullity")),
        per_image,
    )
    numbers = tuple(Cell(GAP if pd.isna(value) else str(value)) for value in values)
    changes = tuple(Cell(row[name] or GAP) for name in DIFFERENCES)
    return (Cell(row["name"]), Cell(row["patch"] or GAP), *numbers, *changes)
