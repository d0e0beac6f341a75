"""Photographs: background, clutter, shadow, the subject, what stands before it, the camera."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

from nsvit.data.menagerie.classes import SUBJECTS, Scene, Subject
from nsvit.data.menagerie.colours import Hsv, anything, near, rgb
from nsvit.data.menagerie.geometry import (
    Array,
    Material,
    Points,
    box,
    loose_pose,
    object_pose,
    oval,
)
from nsvit.data.menagerie.parameters import Difficulty
from nsvit.data.menagerie.raster import blend, coverage, draw
from nsvit.data.menagerie.textures import TextureBank

Rng = np.random.Generator
SCENES = tuple(Scene)


def photograph(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """A photograph (size, size, 3), about in [0, 1]."""
    return camera(scenery(subject, rng, bank, difficulty), rng, difficulty)


def scenery(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """What the camera sees: the subject somewhere, among other things."""
    image = background(subject, rng, bank, difficulty)
    image = clutter(image, rng, bank, difficulty)
    pose = object_pose(rng, difficulty, bank.size)
    parts = subject.draw(rng)
    shares = coverage(draw([(pose(p.points), p.material) for p in parts], bank.size))
    image = shadow(image, shares, rng)
    image = surfaces(image, shares, subject, rng, bank, difficulty)
    if rng.random() < difficulty.occlusion:
        image = obstacle(image, pose.centre, rng, bank)
    return image


def background(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """Far and near ground on both sides of a more or less soft, tilted horizon."""
    usual = rng.random() < difficulty.own_scene
    scene = subject.scene if usual else SCENES[int(rng.integers(len(SCENES)))]
    far, close = (near(rng, colour, Hsv(0.04, 0.12, 0.15)) for colour in scene.value)
    y, x = _grid(bank.size)
    height, tilt, sharpness = rng.uniform(0.25, 0.75), rng.uniform(-0.3, 0.3), rng.uniform(3, 40)
    ground = 1 / (1 + np.exp(-sharpness * (y + tilt * (x - 0.5) - height)))
    image = far + ground * (close - far)
    relief = difficulty.relief * rng.uniform(0.3, 1.0)
    image += relief * ground * bank.cut(rng)[..., None]
    return image + 0.06 * rng.random() * (1 - ground) * bank.cut(rng)[..., None]


@functools.lru_cache(maxsize=2)
def _grid(size: int) -> tuple[Array, Array]:
    axis = np.arange(size, dtype=np.float32) / np.float32(size)
    return axis[:, None, None], axis[None, :, None]


def clutter(image: Array, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """Fragments behind the subject, coloured like some class: they say nothing about this one."""
    fewest, most = difficulty.clutter
    number = int(rng.integers(fewest, most + 1))
    fragments, paints = [], []
    for k in range(number):
        reach = rng.uniform(0.25, 0.55) * bank.size / 2
        pose = loose_pose(rng, reach, rng.uniform(0, bank.size, 2))
        fragments.append((pose(_fragment(rng)), k + 1))
        lender = SUBJECTS[int(rng.integers(len(SUBJECTS)))]
        colour = lender.colours[int(rng.integers(3))]
        paints.append(near(rng, colour, Hsv(0.06, 0.2, 0.2)) + 0.08 * bank.cut(rng)[..., None])
    if fragments:
        for k, share in coverage(draw(fragments, bank.size)).items():
            image = blend(image, share, paints[k - 1])
    return image


def _fragment(rng: Rng) -> Points:
    """A single part of some class, or a blob, or a shard, around its own centre."""
    kind = rng.random()
    if kind < 0.5:
        parts = SUBJECTS[int(rng.integers(len(SUBJECTS)))].draw(rng)
        points = parts[int(rng.integers(len(parts)))].points
    elif kind < 0.75:
        points = oval(0, 0, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.6))
    else:
        points = rng.uniform(-0.6, 0.6, (4, 2))
    return points - points.mean(axis=0)


def shadow(image: Array, shares: dict[int, Array], rng: Rng) -> Array:
    """A soft shadow of the whole subject, fallen a few pixels to one side, most of the time."""
    if rng.random() >= 0.6 or not shares:
        return image
    shape = np.minimum(sum(shares.values()), np.float32(1))[..., 0]
    down, right = int(rng.integers(0, 4)), int(rng.integers(-3, 4))
    soft = ndimage.gaussian_filter(shape, 1.5)
    fallen = np.roll(soft, (down, right), axis=(0, 1))
    return image * (1 - 0.45 * rng.random() * fallen[..., None])


def surfaces(
    image: Array,
    shares: dict[int, Array],
    subject: Subject,
    rng: Rng,
    bank: TextureBank,
    difficulty: Difficulty,
) -> Array:
    """The subject's materials, textured and lit from one side."""
    own_colours = rng.random() < difficulty.own_colours
    own_texture = rng.random() < difficulty.own_texture
    relief = difficulty.relief * rng.uniform(0.3, 1.0)
    texture = relief * bank.cut(rng, subject.texture if own_texture else None)[..., None]
    y, x = _grid(bank.size)
    light = 1 + rng.uniform(-0.5, 0.5) * (x - 0.5) + rng.uniform(-0.5, 0.5) * (y - 0.5)
    for number, share in shares.items():
        material = Material(number)
        if material in (Material.DARK, Material.LIGHT):
            paint = neutral(rng, material)
        else:
            usual = subject.colours[number - 1]
            plain = near(rng, usual, Hsv(0.04, 0.12, 0.12)) if own_colours else anything(rng)
            paint = np.clip(plain + texture, 0, 1.2)
        image = blend(image, share, paint * light)
    return image


def neutral(rng: Rng, material: Material) -> Array:
    """A nearly grey colour, dark or light."""
    low, high = (0.05, 0.25) if material is Material.DARK else (0.8, 1.0)
    return rgb(rng.random(), 0.2, rng.uniform(low, high))


def obstacle(image: Array, centre: Points, rng: Rng, bank: TextureBank) -> Array:
    """A bar or a shard before the subject."""
    if rng.random() < 0.5:
        points = rng.uniform(-0.5, 0.5, (4, 2))
        # Corners in order of their angle: a shard, not a bow tie.
        points = points[np.argsort(np.arctan2(*(points - points.mean(axis=0)).T))]
    else:
        half = rng.uniform(0.06, 0.16)
        points = box(-1.5, -half, 1.5, half)
    place = centre + rng.uniform(-0.25, 0.25, 2) * bank.size
    pose = loose_pose(rng, 0.4 * bank.size, place)
    share = coverage(draw([(pose(points - points.mean(axis=0)), 1)], bank.size))
    paint = anything(rng) + 0.1 * bank.cut(rng)[..., None]
    return blend(image, share[1], paint) if share else image


def camera(image: Array, rng: Rng, difficulty: Difficulty) -> Array:
    """Contrast, exposure, at times a soft focus, and sensor noise."""
    image = (image - 0.5) * rng.uniform(*difficulty.contrast) + 0.5 + rng.uniform(-0.12, 0.12)
    if rng.random() < difficulty.blur:
        sigma = rng.uniform(0.3, 0.8)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=3)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(difficulty.noise * rng.uniform(0.2, 1.0)) * noise
