"""The ten classes: real WordNet ids, shapes, and what usually goes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nsvit.data.menagerie import shapes
from nsvit.data.menagerie.colours import Hsv
from nsvit.data.menagerie.geometry import Part
from nsvit.data.menagerie.textures import Texture


class Scene(Enum):
    """Backgrounds: the colour of what is far and of what is near."""

    WATER = (Hsv(0.55, 0.6, 0.6), Hsv(0.58, 0.7, 0.35))
    SKY = (Hsv(0.57, 0.35, 0.95), Hsv(0.55, 0.1, 0.95))
    MEADOW = (Hsv(0.55, 0.25, 0.92), Hsv(0.28, 0.55, 0.55))
    FOREST = (Hsv(0.3, 0.4, 0.3), Hsv(0.09, 0.5, 0.3))
    ROAD = (Hsv(0.6, 0.08, 0.8), Hsv(0.6, 0.05, 0.4))
    ROOM = (Hsv(0.1, 0.2, 0.85), Hsv(0.07, 0.5, 0.5))


@dataclass(frozen=True)
class Subject:
    """One class.

    Attributes:
        name: for people.
        wnid: WordNet id, the name of the folder.
        draw: the parts of one individual; the shape always tells the class.
        colours: usual colours of the materials main, second, third.
        scene, texture: usual background and surface.
    """

    name: str
    wnid: str
    draw: Callable[[np.random.Generator], list[Part]]
    colours: tuple[Hsv, Hsv, Hsv]
    scene: Scene
    texture: Texture


def _colours(*triples: tuple[float, float, float]) -> tuple[Hsv, Hsv, Hsv]:
    main, second, third = (Hsv(*triple) for triple in triples)
    return main, second, third


#: In class order, which is the order of the WordNet ids.
SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "bird",
        "n01503061",
        shapes.bird,
        _colours((0.6, 0.55, 0.75), (0.62, 0.6, 0.5), (0.1, 0.9, 0.9)),
        Scene.SKY,
        Texture.GRAIN,
    ),
    Subject(
        "butterfly",
        "n02274259",
        shapes.butterfly,
        _colours((0.08, 0.85, 0.9), (0.75, 0.5, 0.8), (0.15, 0.7, 0.95)),
        Scene.MEADOW,
        Texture.CELLS,
    ),
    Subject(
        "fish",
        "n02512053",
        shapes.fish,
        _colours((0.06, 0.8, 0.9), (0.1, 0.8, 0.8), (0.0, 0.0, 0.95)),
        Scene.WATER,
        Texture.SCALES,
    ),
    Subject(
        "boat",
        "n02858304",
        shapes.boat,
        _colours((0.06, 0.6, 0.5), (0.0, 0.02, 0.97), (0.58, 0.6, 0.8)),
        Scene.WATER,
        Texture.PLANKS,
    ),
    Subject(
        "car",
        "n02958343",
        shapes.car,
        _colours((0.98, 0.75, 0.75), (0.6, 0.5, 0.6), (0.0, 0.0, 0.7)),
        Scene.ROAD,
        Texture.SMOOTH,
    ),
    Subject(
        "house",
        "n03544360",
        shapes.house,
        _colours((0.1, 0.3, 0.85), (0.02, 0.65, 0.6), (0.6, 0.3, 0.8)),
        Scene.SKY,
        Texture.PLANKS,
    ),
    Subject(
        "mug",
        "n03797390",
        shapes.mug,
        _colours((0.55, 0.5, 0.75), (0.12, 0.5, 0.9), (0.6, 0.2, 0.9)),
        Scene.ROOM,
        Texture.SMOOTH,
    ),
    Subject(
        "flower",
        "n11669921",
        shapes.flower,
        _colours((0.93, 0.6, 0.9), (0.33, 0.6, 0.5), (0.14, 0.85, 0.9)),
        Scene.MEADOW,
        Texture.GRAIN,
    ),
    Subject(
        "mushroom",
        "n13001041",
        shapes.mushroom,
        _colours((0.0, 0.8, 0.75), (0.1, 0.2, 0.85), (0.12, 0.1, 0.97)),
        Scene.FOREST,
        Texture.GRAIN,
    ),
    Subject(
        "tree",
        "n13104059",
        shapes.tree,
        _colours((0.33, 0.65, 0.45), (0.07, 0.6, 0.4), (0.0, 0.8, 0.8)),
        Scene.MEADOW,
        Texture.LEAVES,
    ),
)
