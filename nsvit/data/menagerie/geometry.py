"""Polygons in object coordinates, and the pose that puts them into a picture.

Object coordinates: x to the right, y downwards, the object fills about [-1, 1] x [-1, 1].
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nsvit.data.menagerie.parameters import Difficulty

Array = npt.NDArray[np.floating]  # float32 in fact
Points = npt.NDArray[np.float64]


class Material(IntEnum):
    """What a part is made of.

    A hole shows the background; dark and light are the same everywhere (wheels, eyes, windows),
    the others take the colours of the picture.
    """

    HOLE = 0
    MAIN = 1
    SECOND = 2
    THIRD = 3
    DARK = 4
    LIGHT = 5


class Part(NamedTuple):
    """A filled polygon (n, 2); later parts cover earlier ones."""

    points: Points
    material: Material


def polygon(*corners: tuple[float, float]) -> Points:
    """A polygon through the corners."""
    return np.array(corners, np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """An upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, corners: int = 22) -> Points:
    """An ellipse around (x, y), turned by `tilt` radians."""
    return arc(x, y, rx, ry, 0.0, 2 * math.pi * (1 - 1 / corners), tilt, corners)


def disc(x: float, y: float, radius: float) -> Points:
    """A circle."""
    return oval(x, y, radius, radius)


def arc(
    x: float,
    y: float,
    rx: float,
    ry: float,
    start: float,
    stop: float,
    tilt: float = 0.0,
    corners: int = 14,
) -> Points:
    """A stretch of an ellipse from angle `start` to `stop`, radians, clockwise on screen."""
    points = _unit_arc(start, stop, corners) * (rx, ry)
    return (points @ rotation(tilt).T if tilt else points) + (x, y)


@functools.lru_cache(maxsize=64)
def _unit_arc(start: float, stop: float, corners: int) -> Points:
    angle = np.linspace(start, stop, corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def rotation(angle: float) -> Points:
    """The 2 x 2 rotation by `angle` radians (clockwise on screen)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


@dataclass(frozen=True)
class Pose:
    """Where an object stands in a picture: pixels = matrix @ point + centre."""

    matrix: Points
    centre: Points

    def __call__(self, points: Points) -> Points:
        """Pixel coordinates (n, 2) of points in object coordinates."""
        return points @ self.matrix.T + self.centre


def object_pose(rng: np.random.Generator, difficulty: Difficulty, size: int) -> Pose:
    """The pose of a picture's subject: turned, mirrored, stretched, sheared and moved."""
    turn = math.radians(rng.uniform(-difficulty.rotation, difficulty.rotation))
    reach = rng.uniform(*difficulty.scale) * size / 2
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    stretch = math.exp(rng.uniform(-0.18, 0.18))
    shear = np.array([[1.0, rng.uniform(-difficulty.shear, difficulty.shear)], [0.0, 1.0]])
    matrix = reach * rotation(turn) @ shear @ np.diag([mirror * stretch, 1 / stretch])
    most = difficulty.shift * size / 2
    return Pose(matrix, size / 2 + rng.uniform(-most, most, 2))


def loose_pose(rng: np.random.Generator, reach: float, centre: Points) -> Pose:
    """A pose for a fragment: any rotation, at a given scale (pixels) and place."""
    return Pose(reach * rotation(rng.uniform(0, 2 * math.pi)), centre)
