"""Small models and image trees, in the layout of the real sets, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from nsvit.data.layouts import ImageSet
from nsvit.models import PixelModel, build

SIZE = 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def small_vit(classes: int = 4, seed: int = 0, **args: object) -> PixelModel:
    """A ViT for 16-pixel pictures; its weights are large enough to predict something."""
    arguments = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    arguments |= {"num_classes": classes, **args}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build("vit_tiny_patch16_224", arguments, MEAN, STD)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def image_tree(
    root: Path,
    per_class: int,
    classes: int = 4,
    seed: int = 0,
    cells: Sequence[tuple[str, int]] = (("", 0),),
    size: int = SIZE,
    name: str = "val",
    allowed: tuple[int, ...] | None = None,
) -> ImageSet:
    """Random pictures whose brightness tells the class, on disk and as an image set.

    `cells` are (corruption, severity) pairs: ("", 0) is a plain tree.
    """
    rng = np.random.default_rng(seed)
    wnids = [f"n{index:08d}" for index in range(classes)]
    shown = range(classes) if allowed is None else allowed
    rows = []
    for corruption, severity in cells:
        prefix = f"{corruption}/{severity}/" if corruption else ""
        for label in shown:
            for number in range(per_class):
                path = f"{prefix}{wnids[label]}/{number:03d}.png"
                level = 40 + 170 * label // max(classes - 1, 1)
                pixels = np.clip(rng.normal(level, 40, (size, size, 3)), 0, 255)
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(root / path)
                rows.append((path, label, corruption, severity))
    frame = pd.DataFrame(rows, columns=["path", "label", "corruption", "severity"])
    frame = frame.astype({"label": "int64", "severity": "int8"})
    return ImageSet(
        name=name,
        root=root,
        frame=frame,
        classes=tuple(wnids),
        names=tuple(wnids),
        allowed=allowed,
        resize=None,
        crop=None,
    )


def read_pictures(image_set: ImageSet) -> torch.Tensor:
    """(n, 3, H, W) pixels in [0, 1], read with PIL alone: the tests' own decoding."""
    arrays = [np.array(Image.open(image_set.root / path)) for path in image_set.frame["path"]]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
