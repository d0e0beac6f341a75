"""Models and pictures that the stages measure on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import nsvit
from nsvit.data.layouts import ImageSet
from nsvit.data.menagerie.render import label, picture
from nsvit.models import PixelModel, build, load_model

SHIPPED = Path(nsvit.__file__).parent / "pretrained"
NAIVE = "naive"
#: Timed repeats of what takes seconds.
FEW = 3


@dataclass(frozen=True)
class Size:
    """A model on a device, and how much of it a case takes.

    Attributes:
        name: as the tables show it.
        model: never changed; on the device.
        batch: pictures of a step.
        threads: torch's; None: those of the command line.
        repeats: at most so many.
        big: its matrix products are wide enough for 16 bits to pay.
    """

    name: str
    model: PixelModel
    batch: int
    threads: int | None = None
    repeats: int | None = None
    big: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.mean.device

    @cached_property
    def images(self) -> Tensor:
        """(batch, 3, H, W): random pixels, always the same, since their content costs nothing."""
        drawn = torch.Generator().manual_seed(0)
        return torch.rand(self.batch, 3, *self.model.image_size, generator=drawn).to(self.device)

    @cached_property
    def flops(self) -> float:
        """Floating-point operations of one picture's forward pass."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            deepcopy(self.model).cpu().eval()(self.images[:1].cpu())
        return float(counter.get_total_flops())

    def wanting(self) -> PixelModel:
        """A copy whose weights want gradients."""
        return deepcopy(self.model).requires_grad_(True)


def sizes(args: argparse.Namespace) -> list[Size]:
    """The shipped models, and random ones at 224 pixels: on the CPU, and on a GPU if there is one.

    At 224 pixels all cores are used. On the CPU ViT-B/16 needs `--large`, and `--quick` leaves out
    both.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        Size(f"Menagerie {name}", shipped(name), 48, repeats=FEW) for name in ("vit_s", "vit_b")
    ]
    if not args.quick:
        names = ("small", "base") if args.large else ("small",)
        found += [Size(_title(name), random_vit(name), 4, cores, FEW, big=True) for name in names]
    if torch.cuda.is_available():
        found += [
            Size(f"GPU, {_title(name)}", random_vit(name).cuda(), 128, repeats=10, big=True)
            for name in ("small", "base")
        ]
    return found


def _title(name: str) -> str:
    return f"ViT-{name[0].upper()}/16 at 224"


def shipped(name: str) -> PixelModel:
    """A model of the embedded benchmark."""
    return load_model(f"local-dir:{SHIPPED / name}").eval()


def random_vit(name: str) -> PixelModel:
    """A ViT/16 at 224 pixels with random weights and ten classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(f"vit_{name}_patch16_224", {"num_classes": 10}, (0.5,) * 3, (0.5,) * 3).eval()


def drawn_set(root: Path, count: int, size: int, kind: str = "val") -> ImageSet:
    """Pictures of the embedded benchmark as PNG files, enlarged where they are to be larger."""
    root.mkdir(parents=True)
    for index in range(count):
        image = Image.fromarray(picture(7, kind, index, 48))
        image.resize((size, size)).save(root / f"{index}.png")
    cells = [(f"{index}.png", label(index), "", 0) for index in range(count)]
    return image_set(kind, root, cells)


def drawn_pixels(count: int, size: int) -> Tensor:
    """(count, 3, size, size) in [0, 1]: training pictures of the embedded benchmark."""
    shown = np.stack([picture(7, "train", index, size) for index in range(count)])
    return torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255


def image_set(name: str, root: Path, rows: Sequence[tuple[str, int, str, int]]) -> ImageSet:
    """A set of files: path, label, corruption and severity of each."""
    frame = pd.DataFrame(rows, columns=["path", "label", "corruption", "severity"])
    frame = frame.astype({"label": np.int64, "severity": np.int8})
    classes = tuple(map(str, range(10)))
    return ImageSet(name, root, frame, classes, classes, None, None, None)


def apart(one: Tensor, other: Tensor) -> float:
    """How far two changes differ, as a share of the first's size; 0: not at all."""
    gap = (one - other).norm() / one.norm().clamp_min(1e-12)
    return float(gap)
