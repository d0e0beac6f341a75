"""The embedded benchmark's counterpart of DAmageNet: val, attacked on a CNN of its own.

DAmageNet (Chen et al. 2020, IEEE TPAMI) is ImageNet's val attacked on VGG19 with AoA, to be shown
to other models. Here the attack is MI-FGSM as published (Dong et al. 2018), and the CNN is neither
under test nor the one that filters set a. What is copied is the layout: a flat folder of PNG files
named like the pictures of val, and a list file with their class numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nsvit import artifacts
from nsvit.attacks.mi_fgsm import mi_fgsm
from nsvit.attacks.threat import ThreatModel
from nsvit.config import TransferConfig, local_dir, radius_value
from nsvit.data.loading import to_float
from nsvit.data.menagerie.classes import SUBJECTS
from nsvit.data.menagerie.render import label
from nsvit.data.menagerie.write import complete_folder, first_of_val, save
from nsvit.data.pictures import read_rgb
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, frozen, load_model
from nsvit.runtime import progress
from nsvit.specs import TransferSpec

log = logging.getLogger(__name__)

#: Pictures attacked together. Fixed, because gradients depend on it by rounding, and the sign of
#: a rounding error is a whole step.
BATCH = 50


def render_to(
    spec: TransferSpec, root: str | Path, out: str | Path, inputs: Sequence[str | Path] = ()
) -> None:
    """Attacks the first pictures of val and writes the set below `root`, last the sidecar `out`.

    On the CPU whatever the device, so that the pictures are the same. The folder appears when it
    is complete.

    Args:
        spec: how many, on which model and how.
        root: the folder of all sets; val is there.
        out: the sidecar (kind "rendered"); its metrics are the number of files and the attacked
            model's accuracy on the pictures before and after, as fractions.
        inputs: files to name as inputs, beside the model's own.

    Raises:
        NsvitError: val has too few pictures, the folder was not made here, or the model cannot be
            loaded or has other classes.
    """
    cnn = _load(spec.transfer)
    val_dir, folder = Path(root) / spec.val_path, Path(root) / spec.path
    paths = first_of_val(val_dir, spec.count, "damagenet")
    labels = torch.tensor([label(index) for index in range(spec.count)])
    starts = range(0, spec.count, BATCH)
    right = np.zeros(2, np.int64)
    with complete_folder(folder) as partial:
        for start in progress(starts, "render damagenet", len(starts)):
            part = slice(start, start + BATCH)
            clean = _read([val_dir / path for path in paths[part]])
            attacked = attacked_pixels(cnn, clean, labels[part], spec.transfer)
            for path, picture in zip(paths[part], attacked.permute(0, 2, 3, 1), strict=True):
                save(picture.numpy(), partial / path.name)
            right += [_right(cnn, pixels, labels[part]) for pixels in (clean, attacked)]
        lines = sorted(f"{p.name} {int(k)}\n" for p, k in zip(paths, labels, strict=True))
        artifacts.write_text(partial / Path(spec.list).relative_to(spec.path), "".join(lines))
    before, after = (float(share) for share in right / spec.count)
    log.info("the attacked model is right on %.3f of the pictures, before on %.3f", after, before)
    metrics = {"files": spec.count, "accuracy_before": before, "accuracy_after": after}
    own = local_dir(spec.transfer.cnn)
    if own is not None:
        inputs = [*inputs, own / "config.json", own / "model.safetensors"]
    sidecar = artifacts.provenance("rendered", spec.model_dump(mode="json"), inputs, None, metrics)
    artifacts.write_json(out, sidecar)


def attacked_pixels(
    cnn: PixelModel, pixels: Tensor, labels: Tensor, config: TransferConfig
) -> Tensor:
    """Adversarial 8-bit pictures of a model.

    Rounding to whole grey levels stays inside the radius, which is a whole number of them, as the
    clean pictures are.

    Args:
        cnn: takes pixels in [0, 1].
        pixels: (B, 3, H, W) uint8.
        labels: (B,) class indices.
        config: bound and steps.

    Returns:
        (B, 3, H, W) uint8.
    """
    threat = ThreatModel(radius_value(config.radius))
    with frozen(cnn):
        moved = mi_fgsm(
            cnn, to_float(pixels), labels, threat, steps=config.steps, decay=config.decay
        )
    return (moved * 255).round().to(torch.uint8)


def _load(config: TransferConfig) -> PixelModel:
    cnn = load_model(config.cnn)
    if cnn.num_classes != len(SUBJECTS):
        raise NsvitError(
            f"data.menagerie.transfer.cnn: {config.cnn} has {cnn.num_classes} classes, the "
            f"embedded benchmark {len(SUBJECTS)}"
        )
    return cnn


def _read(paths: Sequence[Path]) -> Tensor:
    """Pictures as uint8 (B, 3, H, W)."""
    stacked = np.stack([np.asarray(read_rgb(path)) for path in paths])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def _right(cnn: PixelModel, pixels: Tensor, labels: Tensor) -> int:
    with frozen(cnn), torch.inference_mode():
        return int((cnn(to_float(pixels)).argmax(1) == labels).sum())
