"""Colours: named by hue, saturation and value, painted as RGB in [0, 1]."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np

from nsvit.data.menagerie.geometry import Array


class Hsv(NamedTuple):
    """Hue (a turn of the wheel is 1), saturation and value in [0, 1]."""

    hue: float
    saturation: float
    value: float


def rgb(hue: float, saturation: float, value: float) -> Array:
    """RGB (3,) float32; hue wraps, saturation and value are clipped to [0, 1]."""
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def near(rng: np.random.Generator, colour: Hsv, spread: Hsv) -> Array:
    """A colour close to another; `spread` holds standard deviations."""
    offsets = rng.standard_normal(3) * spread
    return rgb(*(np.asarray(colour) + offsets))


def anything(rng: np.random.Generator) -> Array:
    """A colour that says nothing about the class."""
    return rgb(rng.random(), rng.uniform(0.0, 0.9), rng.uniform(0.2, 1.0))
