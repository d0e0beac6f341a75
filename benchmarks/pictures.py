"""Pictures: the 75 corruptions beside the library they come from, for the record; and rendering."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Mapping

import numpy as np
from imagecorruptions import corrupt as library

from benchmarks.runner import Case
from benchmarks.subjects import FEW
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from nsvit.data.menagerie.render import KINDS, picture
from nsvit.errors import NsvitError

LIBRARY, OURS = "imagecorruptions", "nsvit"


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    wide = [sweep(224)] if args.large else []
    return [sweep(48), *wide, *(rendering(kind, 48) for kind in ("train", "stylized"))]


def sweep(size: int) -> Case:
    """One picture under every corruption and severity."""
    image = picture(7, "val", 0, size)
    cells = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]

    def theirs() -> list[np.ndarray]:
        found = []
        for name, severity in cells:
            np.random.seed(0)
            extra = {"seed": 0} if name in ("impulse_noise", "glass_blur") else {}
            with contextlib.redirect_stdout(io.StringIO()):
                found.append(library(image, severity=severity, corruption_name=name, **extra))
        return found

    def ours() -> list[np.ndarray]:
        return [corrupt(image, name, severity, 0) for name, severity in cells]

    def check(found: Mapping[str, list[np.ndarray]]) -> str:
        pairs = zip(cells, found[LIBRARY], found[OURS], strict=True)
        other = [f"{name} {severity}" for (name, severity), a, b in pairs if not (a == b).all()]
        if other:
            raise NsvitError(f"other pixels: {', '.join(other)}")
        return "the same pixels"

    sides = {LIBRARY: theirs, OURS: ours}
    name = f"75 corruptions, {size} pixels"
    return Case(name, sides, check, (LIBRARY,), items=len(cells), repeats=FEW)


def rendering(kind: str, size: int, count: int = 40) -> Case:
    """Pictures of one set, by one process."""
    order = list(range(count))

    def check(found: Mapping[str, list[np.ndarray]]) -> str:
        (pictures,) = found.values()
        again = [picture(7, kind, index, size) for index in reversed(order[:4])]
        if not all((a == b).all() for a, b in zip(reversed(pictures[:4]), again, strict=True)):
            raise NsvitError("drawn in another order, pictures differ")
        return "the same pictures in any order"

    sides = {OURS: lambda: [picture(7, kind, index, size) for index in order]}
    return Case(
        f"rendering {KINDS[kind].style.__name__} pictures, {size} pixels", sides, check, items=count
    )
