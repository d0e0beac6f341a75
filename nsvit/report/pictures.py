"""Pictures inside the page: as data, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from nsvit.errors import NsvitError

if TYPE_CHECKING:
    from PIL.Image import Image

#: A drawing with more bytes than this is shown as pixels where those are fewer.
_LARGE = 400_000
#: Figures are drawn a text column wide; on a page they may be larger.
_ZOOM = 1.75
_INCH = 96.0  # CSS pixels
#: Of contact sheets; and WebP's effort, of 0 to 6: half the time of its usual 4, an eighth more
#: bytes.
_QUALITY, _EFFORT = 85, 1


@dataclass(frozen=True)
class Shown:
    """A picture in a page: its content as a data URI and its width in CSS pixels."""

    uri: str
    width: int


def figure(svg: Path, png: Path) -> Shown:
    """A figure as a drawing, or as pixels where there is no drawing or it is too large.

    Raises:
        NsvitError: neither can be used; naming the drawing.
    """
    try:
        drawing = _drawing(svg)
    except NsvitError:
        if not png.exists():
            raise
        return _pixels(png)
    if len(drawing.uri) > _LARGE and png.exists() and png.stat().st_size < svg.stat().st_size:
        return _pixels(png)
    return drawing


def _drawing(path: Path) -> Shown:
    try:
        text = path.read_text(encoding="utf-8")
        width = ElementTree.fromstring(text).get("width", "")
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise NsvitError(f"{path}: damaged ({error}); delete it and run again") from None
    # DejaVu comes with matplotlib, not with the reader's system; Verdana has the same widths.
    text = re.sub(r"'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif", text)
    points = re.fullmatch(r"([\d.]+)pt", width)
    pixels = _ZOOM * _INCH / 72.0 * float(points[1]) if points else 560.0
    return Shown(_uri(text.encode(), "image/svg+xml"), round(pixels))


def _pixels(path: Path) -> Shown:
    content, image = _read(path)
    dpi = 300.0  # of nsvit.figures.style
    return Shown(_uri(content, "image/png"), round(_ZOOM * _INCH / dpi * image.width))


def sheet(path: Path) -> Shown:
    """A contact sheet at its own size, compressed for the page (the file itself is not).

    Raises:
        NsvitError: missing or damaged.
    """
    from PIL import features

    content, image = _read(path)
    if not features.check("webp"):
        return Shown(_uri(content, "image/png"), image.width)
    packed = io.BytesIO()
    image.convert("RGB").save(packed, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return Shown(_uri(packed.getvalue(), "image/webp"), image.width)


def _read(path: Path) -> tuple[bytes, Image]:
    """A picture's bytes, and what they decode to."""
    from PIL import Image

    try:
        content = path.read_bytes()
        image = Image.open(io.BytesIO(content))
        image.load()
        return content, image
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise NsvitError(f"{path}: damaged ({error}); delete it and run again") from None


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
