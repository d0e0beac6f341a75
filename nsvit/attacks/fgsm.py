"""FGSM (Goodfellow et al. 2015): one step along the sign of the loss gradient.

The gradient is taken at the clean picture (no random start), in pixels. METHOD.md section 6.1
lists the radii found in the paper's code; which one its table uses is not known.
"""

from __future__ import annotations

from torch import Tensor, nn

from nsvit.attacks.steps import Context, Started, value_and_gradient


def fgsm_direction(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The sign of the gradient of the cross-entropy with respect to the pixels.

    It is the same for every radius. The loss is summed over the batch, so that no picture's
    gradient is scaled by how many others share the batch.

    Args:
        model: takes pixels in [0, 1]; freeze it first (`nsvit.models.frozen`) to save the
            gradients of its weights.
        images: (B, 3, H, W) pixels in [0, 1].
        labels: (B,) class indices.

    Returns:
        (B, 3, H, W) of -1, 0 and 1.
    """
    return value_and_gradient(model, images, labels)[1].sign_()


def start(
    model: nn.Module, images: Tensor, labels: Tensor, context: Context | None = None
) -> Started:
    """Takes the gradient once; the function returned applies it at any radius."""
    direction = fgsm_direction(model, images, labels)
    return lambda threat: threat.move(images, direction)
