"""What the library asks of models and pictures that a caller brings, said before any pass.

The workflow's own pictures are decoded to what is asked here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nsvit.errors import NsvitError
from nsvit.models import PixelModel

#: How far resampling or rounding may leave [0, 1].
_SLACK = 1e-3


def check_model(model: object, where: str) -> None:
    """Refuses a bare timm model, which would take pixels for normalised input.

    Raises:
        NsvitError: it is no `PixelModel`.
    """
    if not isinstance(model, PixelModel):
        raise NsvitError(
            f"{where}: {type(model).__name__} is no PixelModel; nsvit.load_model gives one, or "
            "nsvit.models.PixelModel(timm_model, mean, std)"
        )


def check_pixels(images: object, where: str, model: PixelModel | None = None) -> None:
    """Refuses what is not a batch of pixels in [0, 1], or of 8-bit pixels.

    Grey levels 0 to 255 as floats and normalised pictures would give numbers without an error.

    Args:
        images: to be (B, 3, H, W).
        where: what they are for, for the message.
        model: whose size they are to have, if it has a fixed one.

    Raises:
        NsvitError: says what was found.
    """
    if not isinstance(images, Tensor):
        raise NsvitError(f"{where}: images are a {type(images).__name__}, not a torch tensor")
    if images.ndim != 4 or images.shape[1] != 3:
        raise NsvitError(
            f"{where}: images of shape {tuple(images.shape)}; expected (B, 3, height, width)"
        )
    embed = None if model is None else getattr(model.net, "patch_embed", None)
    fixed = getattr(embed, "strict_img_size", False) and not getattr(embed, "dynamic_img_pad", True)
    if model is not None and fixed and tuple(images.shape[2:]) != model.image_size:
        raise NsvitError(
            f"{where}: images of {images.shape[2]} x {images.shape[3]} pixels; model "
            f"{model.architecture!r} takes {model.image_size[0]} x {model.image_size[1]}"
        )
    if images.dtype == torch.uint8 or not images.numel():
        return
    wanted = torch.float32 if model is None else model.mean.dtype
    if images.dtype != wanted:
        raise NsvitError(f"{where}: images are {images.dtype}; expected {wanted} or torch.uint8")
    low, high = (float(end) for end in images.aminmax())
    if not (low >= -_SLACK and high <= 1.0 + _SLACK):
        raise NsvitError(
            f"{where}: pixels from {low:.4g} to {high:.4g}; they are to be in [0, 1], not "
            "normalised and not grey levels (divide these by 255): the model normalises itself"
        )
