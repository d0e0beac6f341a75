"""Small sets decoded once: the pixels of all pictures in one file beside the index. No torch.

Some sixty jobs of the default run read the same pictures, and each decoded them anew. Larger
sets, where the file would be large too, are still decoded by every job that reads them.
The file is a saving and nothing else: without it, or where it is damaged, pictures are decoded.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nsvit import artifacts
from nsvit.data.pictures import evaluation_picture

log = logging.getLogger(__name__)

#: A set is kept decoded if its pixels take at most so many bytes.
MOST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Decoded:
    """The pixels of a set under one evaluation transform.

    Attributes:
        path: the file: uint8, (n, H, W, 3), in the index's order.
        sha256: of its bytes.
        shape: H and W.
        resize, crop: the transform.
    """

    path: Path
    sha256: str
    shape: tuple[int, int]
    resize: int | None
    crop: int | None

    def facts(self) -> dict[str, Any]:
        """What an index says of it; the file lies beside the index."""
        return {**asdict(self), "path": self.path.name}


def decode(
    paths: Sequence[Path], resize: int | None, crop: int | None, out: Path
) -> Decoded | None:
    """Writes the pixels of a set, if they are few and all of one size; else deletes the file.

    Raises:
        NsvitError: not an image, or smaller than the crop.
    """
    first = evaluation_picture(paths[0], resize, crop)
    if first.size * len(paths) > MOST_BYTES:
        out.unlink(missing_ok=True)
        return None
    pixels = np.empty((len(paths), *first.shape), np.uint8)
    for row, path in enumerate(paths):
        picture = evaluation_picture(path, resize, crop)
        if picture.shape != first.shape:  # whoever reads the set says so
            out.unlink(missing_ok=True)
            return None
        pixels[row] = picture
    with artifacts.atomic(out) as temporary:
        pixels.tofile(temporary)
    height, width = first.shape[:2]
    return Decoded(out, artifacts.sha256(out), (height, width), resize, crop)


def read(decoded: Decoded, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
    """The pictures of some rows of the whole set, (n, H, W, 3); None if the file is of no use."""
    if not _is_whole(decoded.path, decoded.sha256):
        return None
    found = np.empty((len(rows), *decoded.shape, 3), np.uint8)
    size = found[:1].nbytes
    # Rows that follow each other in one go. Not mapped: that memory would count as the job's.
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    with open(decoded.path, "rb", buffering=0) as file:
        for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            wanted = found[start:stop].data.cast("B")
            file.seek(int(rows[start]) * size)
            if file.readinto(wanted) != len(wanted):
                return None
    return found


@functools.cache
def _is_whole(path: Path, sha256: str) -> bool:
    """Looked at once in every process: the file is as it was written."""
    try:
        whole = artifacts.sha256(path) == sha256
    except FileNotFoundError:
        log.debug("%s: not there; pictures are decoded", path)
        return False
    if not whole:
        log.warning("%s: damaged; pictures are decoded anew. `-R scan` makes it again", path)
    return whole
