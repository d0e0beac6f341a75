"""Contact sheets: what a set looks like, on one page. No torch."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nsvit import artifacts
from nsvit.data.layouts import ImageSet
from nsvit.data.pictures import evaluation_picture

THUMB = 96  # side of a thumbnail, pixels
GAP = 4
MARGIN = 12
SIDE = 92  # for row labels
LINE = 15
TEXT, FAINT = (30, 30, 30), (110, 110, 110)
MAX_ROWS = 20  # classes shown of a large set

Cell = Path | None


def contact_sheet(image_set: ImageSet, path: str | Path, columns: int = 12) -> None:
    """Writes a labelled sheet of a set, as PNG and as SVG around the same pixels.

    A row for each class with its first pictures; of a corruption set, one picture under every
    corruption (columns) at every severity (rows).

    Args:
        image_set: what to show.
        path: the PNG; the SVG stands beside it. Both are written atomically.
        columns: pictures in a row (corruption sets: one column per corruption).
    """
    if (image_set.frame["severity"] > 0).any():
        rows, row_names, column_names = _corruption_cells(image_set)
        what = "one picture, every corruption and severity"
    else:
        rows, row_names = _class_cells(image_set, columns)
        column_names = []
        shown = len(row_names)
        what = f"{len(image_set):,} pictures, {len(set(image_set.labels.tolist()))} classes"
        what += f" (first {shown} shown)" if shown < len(set(image_set.labels.tolist())) else ""
    sheet = _layout(image_set, rows, row_names, column_names, f"{image_set.name}: {what}")
    pixels = io.BytesIO()
    sheet.save(pixels, format="PNG")
    with artifacts.atomic(path) as temporary:
        temporary.write_bytes(pixels.getvalue())
    artifacts.write_text(Path(path).with_suffix(".svg"), _svg(pixels.getvalue(), sheet.size))


def _svg(png: bytes, size: tuple[int, int]) -> str:
    """The sheet as SVG: there is nothing in it to draw as vectors but its few labels."""
    width, height = size
    data = base64.b64encode(png).decode()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/></svg>\n'
    )


def _class_cells(image_set: ImageSet, columns: int) -> tuple[list[list[Cell]], list[str]]:
    paths, labels = np.array(image_set.paths, dtype=object), image_set.labels
    shown = np.unique(labels)[:MAX_ROWS]
    rows = [list(paths[labels == label][:columns]) for label in shown]
    padded = [row + [None] * (columns - len(row)) for row in rows]
    return padded, [image_set.names[label] for label in shown]


def _corruption_cells(image_set: ImageSet) -> tuple[list[list[Cell]], list[str], list[str]]:
    one = image_set.take(1)
    corruptions = list(dict.fromkeys(one.frame["corruption"]))
    severities = sorted(set(one.frame["severity"].tolist()))
    keys = zip(one.frame["corruption"], one.frame["severity"], strict=True)
    where = dict(zip(keys, one.paths, strict=True))
    rows = [[where.get((name, level)) for name in corruptions] for level in severities]
    titles = [name.replace("_", " ") for name in corruptions]
    return rows, [f"severity {level}" for level in severities], titles


def _layout(
    image_set: ImageSet,
    rows: Sequence[Sequence[Cell]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
) -> Image.Image:
    step, small, large = THUMB + GAP, ImageFont.load_default(12), ImageFont.load_default(15)
    top = MARGIN + 24 + (2 * LINE + GAP if column_names else 0)
    width = MARGIN + SIDE + step * max(map(len, rows)) - GAP + MARGIN
    height = top + step * len(rows) - GAP + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 2), title, fill=TEXT, font=large)
    for column, name in enumerate(column_names):
        middle = MARGIN + SIDE + column * step + THUMB / 2
        text = "\n".join(textwrap.wrap(name, 14))
        pen.multiline_text(
            (middle, top - GAP), text, fill=FAINT, font=small, anchor="md", align="center"
        )
    for row, (cells, name) in enumerate(zip(rows, row_names, strict=True)):
        y = top + row * step
        text = "\n".join(textwrap.wrap(name, 13)[:4])
        pen.multiline_text((MARGIN, y + THUMB / 2), text, fill=TEXT, font=small, anchor="lm")
        for column, cell in enumerate(cells):
            if cell is not None:
                sheet.paste(_thumbnail(image_set, cell), (MARGIN + SIDE + column * step, y))
    return sheet


def _thumbnail(image_set: ImageSet, path: Path) -> Image.Image:
    """A picture as it is evaluated, enlarged in whole pixels or reduced, on white."""
    image = Image.fromarray(evaluation_picture(path, image_set.resize, image_set.crop))
    zoom = THUMB // max(image.size)
    if zoom >= 1:
        size = (image.width * zoom, image.height * zoom)
        image = image.resize(size, Image.Resampling.NEAREST)
    else:
        image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (THUMB, THUMB), "white")
    square.paste(image, ((THUMB - image.width) // 2, (THUMB - image.height) // 2))
    return square
