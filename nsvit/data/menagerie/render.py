"""One picture: a function of seed, kind of set and index, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nsvit.data.menagerie import styles
from nsvit.data.menagerie.classes import SUBJECTS, Subject
from nsvit.data.menagerie.geometry import Array
from nsvit.data.menagerie.parameters import FRESH, HARD, USUAL, Difficulty
from nsvit.data.menagerie.photos import photograph
from nsvit.data.menagerie.raster import to_bytes
from nsvit.data.menagerie.textures import TextureBank, texture_bank
from nsvit.runtime import seed_for

Style = Callable[[Subject, np.random.Generator, TextureBank, Difficulty], Array]


@dataclass(frozen=True)
class Kind:
    """How the pictures of one set are made."""

    style: Style
    difficulty: Difficulty = USUAL


#: Every set but c, whose pictures are made from those of val.
KINDS: dict[str, Kind] = {
    "train": Kind(photograph),
    "val": Kind(photograph),
    "v2": Kind(photograph, FRESH),
    "a": Kind(photograph, HARD),
    "r": Kind(styles.rendition),
    "sketch": Kind(styles.sketch),
    "stylized": Kind(styles.stylized),
}


def label(index: int) -> int:
    """The class of the picture at an index: classes take turns."""
    return index % len(SUBJECTS)


def picture(seed: int, kind: str, index: int, size: int) -> npt.NDArray[np.uint8]:
    """The picture (size, size, 3) at an index of a set.

    It has a random generator of its own, so it depends neither on how many pictures are drawn
    nor on which process draws it.
    """
    rng = np.random.default_rng(seed_for(seed, kind, index))
    how = KINDS[kind]
    image = how.style(SUBJECTS[label(index)], rng, texture_bank(size), how.difficulty)
    return to_bytes(image)
