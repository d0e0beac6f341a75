"""What noise on patch tokens does to predictions, picture by picture: shared by the studies."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from nsvit.models import PixelModel, inject
from nsvit.noise import logit_distance, probability_distance


def all_logits(
    model: PixelModel,
    images: Tensor,
    batch_size: int,
    noise: Tensor | None = None,
    block: int = 0,
) -> Tensor:
    """Logits (n, classes) on the CPU, without gradients.

    Args:
        model: frozen by the caller.
        images: (n, 3, H, W) pixels in [0, 1].
        batch_size: pictures in a forward pass.
        noise: (1, N, D) token units, added at `block`; None for the clean pass.
        block: injection point.
    """
    device = model.mean.device
    if noise is not None:
        with inject(model, noise.to(device), block):
            return all_logits(model, images, batch_size)
    with torch.no_grad():
        return torch.cat([model(batch.to(device)).cpu() for batch in images.split(batch_size)])


def compare(clean: Tensor, noisy: Tensor, samples: Sequence[str]) -> pd.DataFrame:
    """What changes between two passes over the same pictures, one row for each (METHOD.md 3).

    Args:
        clean: logits (n, classes) without noise.
        noisy: the same with noise.
        samples: n paths.

    Returns:
        Columns sample, agree (same arg-max), logit_distance (L2), probability_distance (sum of
        squared differences over classes), confidence_error (squared difference of the
        probability of the class that the clean pass predicts).
    """
    predicted = clean.argmax(dim=1)
    difference = noisy.softmax(dim=1) - clean.softmax(dim=1)
    own = difference.gather(1, predicted[:, None])[:, 0]
    return pd.DataFrame(
        {
            "sample": list(samples),
            "agree": (noisy.argmax(dim=1) == predicted).numpy(),
            "logit_distance": logit_distance(clean, noisy).numpy(),
            "probability_distance": probability_distance(clean, noisy).numpy(),
            "confidence_error": own.square().numpy(),
        }
    )


def permuted(noise: Tensor, generator: torch.Generator) -> Tensor:
    """All N*D entries of (1, N, D) noise in random order: norm kept, direction destroyed.

    Args:
        noise: on the CPU, where random numbers are drawn.
        generator: CPU generator of the order.
    """
    order = torch.randperm(noise.numel(), generator=generator)
    return noise.flatten()[order].view_as(noise)
