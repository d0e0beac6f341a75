"""One picture file: checked, decoded, and cut to the size it is evaluated at. No torch."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from nsvit.errors import NsvitError


def check_image(path: Path) -> None:
    """Refuses a file that cannot be decoded.

    JPEG is decoded at the lowest resolution, which still reads the whole file.

    Raises:
        NsvitError: naming the file.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise not_an_image(path, error) from None


def not_an_image(path: Path, error: Exception) -> NsvitError:
    """The error for a file that is not a whole image, or one too large to be decoded safely."""
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return NsvitError(
            f"{path}: too large to be decoded safely, more than {most:.0f} million pixels; scale "
            "it down or remove it"
        )
    reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)
    return NsvitError(f"{path}: not an image ({reason}); remove or replace it")


def read_rgb(path: Path) -> Image.Image:
    """A picture as 8-bit RGB, whatever it is on disk (grey, palette, CMYK, alpha, 16 bits).

    A rotation that EXIF asks for is not done: the published numbers of ImageNet and its siblings
    are of the pixels as stored, and so is what models were trained on.

    Raises:
        NsvitError: not an image, or a damaged one; names the file.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            return _to_rgb(image)
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such picture; scan the set again") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise not_an_image(path, error) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits: Pillow would clip instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def evaluation_picture(path: Path, resize: int | None, crop: int | None) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) under the evaluation transform.

    The shorter side is resized (bicubic) to `resize`, then the central `crop` x `crop` pixels
    are cut out: torchvision's Resize and CenterCrop (METHOD.md section 6). None leaves a step
    out.

    Raises:
        NsvitError: not an image, or smaller than the crop.
    """
    image = read_rgb(path)
    width, height = image.size
    if resize is not None and min(width, height) != resize:
        short = min(width, height)
        width, height = int(resize * width / short), int(resize * height / short)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if crop is not None and (width, height) != (crop, crop):
        if min(width, height) < crop:
            raise NsvitError(
                f"{path}: {width} x {height} pixels, smaller than the crop of {crop}; set the "
                "set's `resize`"
            )
        left, top = round((width - crop) / 2), round((height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(image)
