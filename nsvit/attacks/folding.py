"""The gradient with respect to pixels, by one matrix product where the library convolves.

Patches do not overlap, so the gradient of their embedding is a matrix product whose rows are laid
side by side. torch computes it as a transposed convolution, a tenth of a step of the embedded
benchmark's models. Same numbers but for the order in which they are summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nsvit.errors import NsvitError
from nsvit.models import PixelModel


class _Fold(torch.autograd.Function):
    """The identity on a patch embedding's output, with the gradient of its input."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, output: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.pixels = pixels.shape, pixels.dtype
        return output.view_as(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        (count, channels, height, width), dtype = ctx.pixels
        tall, wide = weight.shape[2:]
        rows, columns = gradient.shape[2:]
        flat = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
        patches = flat @ weight.to(flat.dtype).flatten(1)
        patches = patches.view(count, rows, columns, channels, tall, wide)
        folded = patches.permute(0, 3, 1, 4, 2, 5)
        folded = folded.reshape(count, channels, rows * tall, columns * wide).to(dtype)
        # Pixels beyond the last whole patch are not seen.
        beyond = (0, width - columns * wide, 0, height - rows * tall)
        return nn.functional.pad(folded, beyond) if any(beyond) else folded, None, None


def _fold(module: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """A forward hook. The output's own graph is dropped, and the weights' gradients with it."""
    pixels = args[0]
    if not pixels.requires_grad or pixels.ndim != 4:
        return None
    return _Fold.apply(pixels, output.detach(), module.weight.detach())


@contextmanager
def folding(model: nn.Module) -> Iterator[None]:
    """Inside, gradients pass a linear patch embedding by a matrix product.

    Only for gradients of pixels: the weights of the embedding get none. Does nothing to a model
    without a `PixelModel` in it or without a linear patch embedding.
    """
    net = next((one for one in model.modules() if isinstance(one, PixelModel)), None)
    projection: nn.Conv2d | None
    try:
        projection = None if net is None else net.projection
    except NsvitError:
        projection = None
    if projection is None or any(step != 1 for step in projection.dilation):
        yield
        return
    handle = projection.register_forward_hook(_fold)
    try:
        yield
    finally:
        handle.remove()
