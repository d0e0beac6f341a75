"""The world's surfaces: a bank of grey textures and a bank of paintings for stylization.

Textures are the same for every seed and every set (they are the world, not a sample of it), so
a model trained on one seed is meaningful on another. Sizes are in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from scipy import ndimage

from nsvit.data.menagerie.colours import rgb
from nsvit.data.menagerie.geometry import Array
from nsvit.runtime import seed_for

VARIANTS = 6  # of every texture
PAINTINGS = 24


class Texture(IntEnum):
    """Kinds of surface."""

    GRAIN = 0
    PLANKS = 1
    SCALES = 2
    CELLS = 3
    LEAVES = 4
    SMOOTH = 5


class TextureBank:
    """Grey textures of zero mean and unit deviation, twice as wide as a picture.

    Attributes:
        size: side of a picture in pixels.
        paintings: a grey texture (2 size, 2 size) and three colours (3, 3), dark to light, each.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        rng = np.random.default_rng(seed_for("menagerie", "textures"))
        draw = _Surface(rng, 2 * size)
        self._textures = {kind: [draw(kind) for _ in range(VARIANTS)] for kind in Texture}
        self.paintings = [self._painting(rng) for _ in range(PAINTINGS)]

    def cut(self, rng: np.random.Generator, kind: Texture | None = None) -> Array:
        """A random patch (size, size) of a kind of surface, or of any."""
        chosen = Texture(int(rng.integers(len(Texture)))) if kind is None else kind
        texture = self._textures[chosen][int(rng.integers(VARIANTS))]
        top, left = rng.integers(0, self.size, 2)
        patch = texture[top : top + self.size, left : left + self.size]
        return patch.T if rng.random() < 0.5 else patch

    def _painting(self, rng: np.random.Generator) -> tuple[Array, Array]:
        kind = Texture(int(rng.integers(len(Texture) - 1)))  # all but smooth
        texture = self._textures[kind][int(rng.integers(VARIANTS))]
        values = rng.uniform(0.05, 0.35), rng.uniform(0.4, 0.7), rng.uniform(0.75, 1.0)
        colours = [rgb(rng.random(), rng.uniform(0.3, 1.0), value) for value in values]
        return texture, np.stack(colours)


@functools.lru_cache(maxsize=2)
def texture_bank(size: int) -> TextureBank:
    """The bank for pictures of a size; built once per process."""
    return TextureBank(size)


class _Surface:
    """Draws one texture (side, side) of each kind."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.side = rng, side
        self.y, self.x = np.mgrid[:side, :side].astype(np.float64)
        self.recipes: dict[Texture, Callable[[], np.ndarray]] = {
            Texture.GRAIN: lambda: 0.7 * self.clouds(0.8) + 0.5 * self.clouds(3),
            Texture.PLANKS: self.planks,
            Texture.SCALES: self.scales,
            Texture.CELLS: self.cells,
            Texture.LEAVES: lambda: np.tanh(1.5 * self.clouds(1.4) + 0.6 * self.clouds(4)),
            Texture.SMOOTH: lambda: self.clouds(8),
        }

    def __call__(self, kind: Texture) -> Array:
        grey = self.recipes[kind]()
        return ((grey - grey.mean()) / grey.std()).astype(np.float32)

    def clouds(self, sigma: float) -> np.ndarray:
        """Gaussian noise smoothed over `sigma` pixels, unit deviation."""
        noise = self.rng.standard_normal((self.side, self.side))
        smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
        return smooth / smooth.std()

    def planks(self) -> np.ndarray:
        """Slightly wavy stripes 3 to 6 pixels wide, in any direction."""
        period, angle = self.rng.uniform(3, 6), self.rng.uniform(0, np.pi)
        along = self.x * np.cos(angle) + self.y * np.sin(angle) + 0.6 * self.clouds(4)
        return 0.8 * np.sign(np.sin(2 * np.pi * along / period)) + 0.3 * self.clouds(1)

    def scales(self) -> np.ndarray:
        """Staggered rows of bumps 4 to 6 pixels wide."""
        period = self.rng.uniform(4, 6)
        stagger = np.pi * (np.floor(self.x / period) % 2)
        across = np.sin(2 * np.pi * self.x / period)
        bumps = across * np.sin(2 * np.pi * self.y / period + stagger)
        return 1.2 * bumps + 0.4 * self.clouds(1.5)

    def cells(self) -> np.ndarray:
        """The distance to the nearest of sixty random points."""
        points = self.rng.uniform(0, self.side, (60, 2))
        squared = (self.x[..., None] - points[:, 0]) ** 2 + (self.y[..., None] - points[:, 1]) ** 2
        return np.sqrt(squared.min(axis=-1))
