"""Evaluation as published: one full pass over the pictures for every condition (section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nsvit.models import PixelModel

#: From a model, a batch, its labels and the names of its pictures to adversarial pictures.
Attack = Callable[[PixelModel, Tensor, Tensor, Sequence[str]], Tensor]


@dataclass(frozen=True)
class Condition:
    """Pictures on disk, their labels and what is done to them."""

    root: Path
    paths: Sequence[str]
    labels: Sequence[int]
    attack: Attack | None = None


def decode(path: Path) -> Tensor:
    """(3, H, W) in [0, 1], as torchvision's ToTensor."""
    with Image.open(path) as image:
        array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def evaluate(
    model: PixelModel, conditions: Mapping[str, Condition], batch_size: int
) -> dict[str, np.ndarray]:
    """The predicted class of every picture under every condition.

    Each condition decodes its pictures anew. The 75 cells of ImageNet-C, each a loader of its own
    in the published evaluator, are one condition here: a cell of the real set fills whole batches.
    """
    model.eval()
    device = model.mean.device
    found = {}
    for name, condition in conditions.items():
        predictions = []
        for first in range(0, len(condition.paths), batch_size):
            paths = condition.paths[first : first + batch_size]
            images = torch.stack([decode(condition.root / path) for path in paths]).to(device)
            labels = torch.tensor(condition.labels[first : first + batch_size]).to(device)
            if condition.attack is not None:
                images = condition.attack(model, images, labels, paths)
                model.zero_grad(set_to_none=True)
            with torch.no_grad():
                logits = model(images)
            predictions.append(logits.argmax(1).cpu())
        found[name] = torch.cat(predictions).numpy()
    return found
