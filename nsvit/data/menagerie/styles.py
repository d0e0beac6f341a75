"""The same subjects drawn in other ways: renditions, sketches, replaced textures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from nsvit.data.menagerie.classes import Subject
from nsvit.data.menagerie.colours import Hsv, anything, near
from nsvit.data.menagerie.geometry import Array, Material, Points, object_pose
from nsvit.data.menagerie.parameters import Difficulty
from nsvit.data.menagerie.photos import scenery
from nsvit.data.menagerie.raster import DETAIL, blend, blocks, coverage, draw, outlines
from nsvit.data.menagerie.textures import Texture, TextureBank

Rng = np.random.Generator
PAPER = np.array([0.95, 0.93, 0.88], np.float32)
INK = np.array([0.05, 0.05, 0.08], np.float32)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def by_hand(subject: Subject, rng: Rng, size: int, difficulty: Difficulty) -> Image.Image:
    """The subject as a map of materials, with the slightly wavy outlines of a drawing."""
    pose = object_pose(rng, difficulty, size)
    amplitude, frequency = rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.35)
    phase = rng.uniform(0, 2 * np.pi)

    def place(points: Points) -> Points:
        steady = pose(points)
        return steady + amplitude * np.sin(frequency * steady[:, ::-1] + phase)

    return draw([(place(part.points), part.material) for part in subject.draw(rng)], size)


# --- renditions -----------------------------------------------------------------------------


def rendition(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """A cartoon, a paper cut-out, an embroidery or pixel art, in free colours."""
    labels = by_hand(subject, rng, bank.size, difficulty)
    shares = coverage(labels)
    paints = {number: _free_colour(subject, number, rng) for number in shares}
    craft = RENDITIONS[int(rng.integers(len(RENDITIONS)))]
    return craft(labels, shares, paints, rng, bank)


def _free_colour(subject: Subject, number: int, rng: Rng) -> Array:
    if rng.random() < 0.7:
        return anything(rng)
    usual = subject.colours[min(number, Material.THIRD) - 1]
    return near(rng, usual, Hsv(0.05, 0.2, 0.2))


def _fill(image: Array, shares: dict[int, Array], paints: dict[int, Array]) -> Array:
    for number, share in shares.items():
        image = blend(image, share, paints[number])
    return image


def _ground(bank: TextureBank, colour: Array) -> Array:
    return np.zeros((bank.size, bank.size, 3), np.float32) + colour


def _bold_line(labels: Image.Image, rng: Rng) -> Array:
    return outlines(labels, 5 if rng.random() < 0.5 else 3)


def cartoon(
    labels: Image.Image,
    shares: dict[int, Array],
    paints: dict[int, Array],
    rng: Rng,
    bank: TextureBank,
) -> Array:
    """Flat colours and ink outlines on a plain coloured ground."""
    image = _fill(_ground(bank, anything(rng)), shares, paints)
    ink = INK if rng.random() < 0.7 else 0.4 * anything(rng)
    return blend(image, _bold_line(labels, rng), ink)


def cut_out(
    labels: Image.Image,
    shares: dict[int, Array],
    paints: dict[int, Array],
    rng: Rng,
    bank: TextureBank,
) -> Array:
    """Coloured paper on cream paper: each piece throws a small shadow, some have outlines."""
    image = _ground(bank, PAPER)
    shape = np.minimum(sum(shares.values(), np.zeros_like(image[..., :1])), np.float32(1))
    image = image * (1 - 0.3 * np.roll(shape, (1, 1), axis=(0, 1)))
    image = _fill(image, shares, paints)
    return blend(image, _bold_line(labels, rng), INK) if rng.random() < 0.6 else image


def embroidery(
    labels: Image.Image,
    shares: dict[int, Array],
    paints: dict[int, Array],
    rng: Rng,
    bank: TextureBank,
) -> Array:
    """Stitches on woven cloth, the outline in back stitch."""
    cloth = 0.1 * bank.cut(rng, Texture.PLANKS)[..., None]
    stitches = 0.18 * bank.cut(rng, Texture.PLANKS)[..., None]
    image = _ground(bank, anything(rng)) + cloth
    image = _fill(image, shares, {number: paint + stitches for number, paint in paints.items()})
    thread = INK if rng.random() < 0.7 else 0.4 * anything(rng)
    return blend(image, _bold_line(labels, rng), thread)


def pixel_art(
    labels: Image.Image,
    shares: dict[int, Array],
    paints: dict[int, Array],
    rng: Rng,
    bank: TextureBank,
) -> Array:
    """Hard-edged blocks of two pixels in a small palette, over a patterned ground."""
    pattern = 0.12 * bank.cut(rng, Texture.CELLS)[..., None]
    surface = 0.12 * bank.cut(rng, Texture.LEAVES)[..., None]
    image = _ground(bank, anything(rng)) + pattern
    materials = coverage(blocks(labels, side=2))
    image = _fill(image, materials, {number: paint + surface for number, paint in paints.items()})
    coarse = np.repeat(np.repeat(image[::2, ::2], 2, axis=0), 2, axis=1)
    return np.round(np.clip(coarse[: bank.size, : bank.size], 0, 1) * 4) / np.float32(4)


Craft = Callable[
    [Image.Image, dict[int, Array], dict[int, Array], Rng, TextureBank],
    Array,
]
RENDITIONS: tuple[Craft, ...] = (cartoon, cut_out, embroidery, pixel_art)


# --- sketches -------------------------------------------------------------------------------


def sketch(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """Pencil on paper: outlines, usually tones, often hatching, at times a ground line."""
    labels = by_hand(subject, rng, bank.size, difficulty)
    shares = coverage(labels)
    empty = np.zeros((bank.size, bank.size, 1), np.float32)
    grey = rng.uniform(0.8, 1.0) + 0.02 * bank.cut(rng, Texture.GRAIN)[..., None]
    if rng.random() < 0.75:
        grain = 0.06 * bank.cut(rng, Texture.GRAIN)[..., None]
        for number, tone in _tones(rng).items():
            grey = blend(grey, shares.get(number, empty), tone + grain)
    if rng.random() < 0.6:
        strokes = bank.cut(rng, Texture.PLANKS)[..., None] > 0
        grey = grey - 0.35 * rng.uniform(0.4, 1.0) * strokes * shares.get(Material.MAIN, empty)
    if rng.random() < 0.4:
        grey = grey - 0.3 * shares.get(Material.DARK, empty)
    if rng.random() < 0.3:
        behind = 1 - np.minimum(sum(shares.values(), empty), np.float32(1))
        grey = grey * (1 - behind * _ground_line(rng, bank.size))
    grey = blend(grey, _bold_line(labels, rng), np.array(rng.uniform(0.0, 0.3), np.float32))
    return np.repeat(grey.astype(np.float32), 3, axis=2)


def _tones(rng: Rng) -> dict[int, float]:
    return {
        Material.MAIN: rng.uniform(0.35, 0.7),
        Material.SECOND: rng.uniform(0.3, 0.8),
        Material.THIRD: rng.uniform(0.4, 0.9),
        Material.DARK: 0.15,
        Material.LIGHT: 0.95,
    }


def _ground_line(rng: Rng, size: int) -> Array:
    """Darkness (size, size, 1) of one stroke across the picture."""
    side = size * DETAIL
    left = rng.uniform(0.5, 0.9) * side
    right = left + rng.uniform(-0.12, 0.12) * side
    image = Image.new("L", (side, side), 0)
    ImageDraw.Draw(image).line([(0, left), (side, right)], fill=170, width=DETAIL)
    return np.asarray(image.reduce(DETAIL), np.float32)[..., None] / np.float32(255)


# --- stylized -------------------------------------------------------------------------------


def stylized(subject: Subject, rng: Rng, bank: TextureBank, difficulty: Difficulty) -> Array:
    """A photograph's light and dark repainted with the colours and strokes of a painting.

    Colour and texture say nothing about the class any more; the shape is left in the luminance,
    which also bends the strokes.
    """
    grey = ndimage.gaussian_filter(scenery(subject, rng, bank, difficulty) @ LUMA, 0.5)
    luminance = np.clip(0.5 + 0.27 * (grey - grey.mean()) / (grey.std() + 1e-3), 0, 1)
    strokes, colours = bank.paintings[int(rng.integers(len(bank.paintings)))]
    top, left = rng.integers(0, bank.size, 2)
    bend = (6 * luminance).astype(int)
    last = 2 * bank.size - 1
    rows = np.minimum(np.arange(bank.size)[:, None] + top + bend, last)
    columns = np.minimum(np.arange(bank.size)[None, :] + left + bend, last)
    return _ramp(colours, 0.95 * luminance + 0.1 * strokes[rows, columns])


def _ramp(colours: Array, level: Array) -> Array:
    """Three colours (3, 3) spread over levels (size, size) from 0 to 1."""
    steps = np.array([0.0, 0.5, 1.0])
    channels = [np.interp(level, steps, colours[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
