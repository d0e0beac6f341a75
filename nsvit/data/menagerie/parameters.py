"""How hard the pictures of a set are."""

from __future__ import annotations

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True)
class Difficulty:
    """How far pictures stray from the plain view of their class.

    Attributes:
        scale: half the object's extent as a share of half the picture.
        rotation: largest rotation, degrees.
        shift: largest displacement of the object as a share of half the picture.
        shear: largest shear.
        own_colours, own_scene, own_texture: probability that the class's usual colours, scene
            and surface are used; otherwise they say nothing about the class.
        clutter: fewest and most foreign fragments behind the object.
        occlusion: probability of something in front of it.
        contrast: range of the contrast.
        noise: largest standard deviation of sensor noise, pixels in [0, 1].
        relief: largest strength of surface texture, pixels in [0, 1].
        blur: probability of a slightly soft picture.
    """

    scale: Range = (0.65, 0.98)
    rotation: float = 18.0
    shift: float = 0.12
    shear: float = 0.12
    own_colours: float = 0.75
    own_scene: float = 0.7
    own_texture: float = 0.8
    clutter: tuple[int, int] = (0, 4)
    occlusion: float = 0.2
    contrast: Range = (0.65, 1.1)
    noise: float = 0.03
    relief: float = 0.16
    blur: float = 0.2


#: train, val and the sets that change only the way of drawing.
USUAL = Difficulty()

#: The fresh test set: the same process with slightly harder numbers.
FRESH = replace(
    USUAL,
    scale=(0.58, 0.96),
    rotation=24.0,
    shift=0.16,
    own_colours=0.65,
    own_scene=0.6,
    own_texture=0.7,
    clutter=(1, 5),
    occlusion=0.27,
    contrast=(0.55, 1.15),
)

#: Candidates for set a, of which the reference CNN's mistakes are kept.
HARD = replace(
    USUAL,
    scale=(0.5, 0.9),
    rotation=32.0,
    shift=0.2,
    shear=0.2,
    own_colours=0.4,
    own_scene=0.2,
    own_texture=0.4,
    clutter=(2, 7),
    occlusion=0.4,
    contrast=(0.5, 1.1),
)
