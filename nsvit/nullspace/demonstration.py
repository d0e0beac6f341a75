"""Proof by measurement that nullspace noise is invisible to the model, and the paper's Figure 1."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsvit import artifacts
from nsvit.models import PixelModel, frozen
from nsvit.nullspace.basis import NullspaceBasis, put_in_range

log = logging.getLogger(__name__)

#: Largest change of a logit under exact nullspace noise that float32 rounding explains.
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Demonstration:
    """What nullspace noise and random noise of the same norm do to the logits.

    Attributes:
        metrics: for `nullspace` and `random` each: `*_max_logit_difference` (largest absolute
            change of any logit of any image), `*_relative_logit_difference` (that, divided by the
            largest absolute clean logit), `*_agreement` (share of unchanged predictions); also
            `unclipped_max_logit_difference` (noise at the full peak, pixels may leave [0, 1]),
            `mean_norm` and `mean_peak` of the noise, and `images`.
        example: arrays for the picture: `image`, `noise`, `noisy`, `random_noisy` (3, H, W);
            `predictions` (3,) and `confidences` (3,), clean, noisy and random in turn;
            `position` (1,), which of the images it is.
    """

    metrics: dict[str, float]
    example: dict[str, Tensor]


def demonstrate(
    model: PixelModel,
    basis: NullspaceBasis,
    images: Tensor,
    peak: float,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
    labels: Tensor | None = None,
) -> Demonstration:
    """Measures what nullspace noise does to the logits, against random noise of the same norm.

    Both noises leave every pixel in [0, 1], so both noisy pictures are pictures.

    Args:
        model: computes in the precision of its weights (float32).
        basis: of this model.
        images: (n, 3, H, W) pixels in [0, 1].
        peak: largest absolute pixel value of the nullspace noise before it is fitted to [0, 1].
        generator: CPU generator.
        batch_size: pictures in a forward pass.
        labels: (n,) classes; the example is then one that the model gets right.

    Raises:
        NsvitError: the nullspace is {0}, or the images do not fit the model.
    """
    images = images.detach().cpu()
    free = basis.sample(len(images), peak=peak, generator=generator)
    noise = basis.fit_to_range(images, free)
    norms = noise.flatten(1).norm(dim=1)
    random_noise = random_in_range(images, norms, generator)
    clean, nullspace, random, unclipped = (
        _logits(model, pictures, batch_size)
        for pictures in (images, images + noise, images + random_noise, images + free)
    )
    metrics = {
        **_change("nullspace", clean, nullspace),
        **_change("random", clean, random),
        "unclipped_max_logit_difference": float((unclipped - clean).abs().max()),
        "mean_norm": float(norms.mean()),
        "mean_peak": float(noise.abs().amax(dim=(1, 2, 3)).mean()),
        "images": len(images),
    }
    worst = metrics["nullspace_max_logit_difference"]
    log.info(
        "%s: logits change by at most %.2e under nullspace noise, %.2e under random noise",
        model.architecture, worst, metrics["random_max_logit_difference"],
    )  # fmt: skip
    if worst > LOGIT_TOLERANCE:
        log.warning(
            "%s: nullspace noise changes a logit by %.2e, more than the %.0e that float32 rounding "
            "explains: is the basis of this model?",
            model.architecture, worst, LOGIT_TOLERANCE,
        )  # fmt: skip
    chosen = _telling(clean, random, norms, labels)
    pictures = {
        "image": images[chosen],
        "noise": noise[chosen],
        "noisy": (images + noise)[chosen],
        "random_noisy": (images + random_noise)[chosen],
    }
    of_chosen = torch.stack([clean[chosen], nullspace[chosen], random[chosen]])
    confidences, predictions = of_chosen.softmax(dim=1).max(dim=1)
    example = {
        **pictures,
        "predictions": predictions,
        "confidences": confidences,
        "position": torch.tensor([chosen]),
    }
    return Demonstration(metrics, example)


def random_in_range(
    images: Tensor, norms: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Gaussian noise that leaves pixels in [0, 1] and still has the norm asked for.

    Clipping shrinks noise; its scale before clipping is found by bisection, since the norm after
    clipping grows with it.

    Args:
        images: (B, 3, H, W) pixels in [0, 1].
        norms: (B,) L2 norms, pixels; far above what fits into the range, the largest that fits.
        generator: CPU generator.

    Returns:
        (B, 3, H, W) float32.
    """
    direction = torch.randn(images.shape, generator=generator)
    low, high = torch.zeros_like(norms), torch.full_like(norms, 1e4)
    for _ in range(60):
        middle = (low + high) / 2
        noise = (images + middle.view(-1, 1, 1, 1) * direction).clamp(0, 1) - images
        short = noise.flatten(1).norm(dim=1) < norms
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return put_in_range(images, noise)


def save_nullspace(
    basis: NullspaceBasis,
    demonstration: Demonstration | None,
    path: str | Path,
    sidecar: Mapping[str, Any],
) -> None:
    """Writes a basis and its demonstration (kind "nullspace").

    Args:
        basis: what to write: arrays `basis` and `singular_values`.
        demonstration: its example becomes arrays `example_*`, its metrics go to the sidecar;
            None where the nullity is 0.
        path: `*.safetensors`.
        sidecar: `artifacts.provenance(...)`; metrics are added to it.
    """
    arrays = {"basis": basis.basis, "singular_values": basis.singular_values}
    measured = {"rank": basis.rank, "nullity": basis.nullity, "rtol": basis.rtol}
    if demonstration is not None:
        arrays |= {f"example_{name}": value for name, value in demonstration.example.items()}
        measured |= demonstration.metrics
    metrics = {**sidecar.get("metrics", {}), **measured}
    artifacts.write_tensors(path, arrays, {**sidecar, "kind": "nullspace", "metrics": metrics})


@torch.no_grad()
def _logits(model: PixelModel, images: Tensor, batch_size: int) -> Tensor:
    device = model.mean.device
    with frozen(model):
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


def _change(name: str, clean: Tensor, noisy: Tensor) -> dict[str, float]:
    largest = float((noisy - clean).abs().max())
    return {
        f"{name}_max_logit_difference": largest,
        f"{name}_relative_logit_difference": largest / float(clean.abs().max()),
        f"{name}_agreement": float((noisy.argmax(1) == clean.argmax(1)).float().mean()),
    }


def _telling(clean: Tensor, random: Tensor, norms: Tensor, labels: Tensor | None) -> int:
    """The image that shows most: rightly classified, fooled by random noise, sure, strong noise."""
    predictions = clean.argmax(1)
    right = torch.ones(len(clean)) if labels is None else (predictions == labels).float()
    fooled = (random.argmax(1) != predictions).float()
    sure = clean.softmax(dim=1).amax(dim=1)
    return int((4 * right + 2 * fooled + sure * norms / norms.max().clamp_min(1e-12)).argmax())
