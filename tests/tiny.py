"""Tiny timm models whose logits react to their input."""

from __future__ import annotations

import torch

from nsvit import runtime
from nsvit.models import PixelModel, build

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
SMALL |= {"num_classes": 5}

#: One timm architecture and arguments for each way tokens come before or after the patches.
KINDS = {
    "token": ("vit_tiny_patch16_224", {}),
    "average": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 4, "no_embed_class": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "dynamic": ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
    "prenorm": ("vit_tiny_patch16_224", {"pre_norm": True}),
    "deit3": ("deit3_small_patch16_224", {}),
}

#: ViTs whose attention is not that of timm's VisionTransformer.
OTHER_KINDS = {
    "eva": ("eva02_tiny_patch14_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "cait": ("cait_xxs24_224", {}),
    "relpos": ("vit_relpos_base_patch16_224", {}),
}


def tiny(kind: str = "average", seed: int = 0, **changes) -> PixelModel:
    """A tiny model of one of the kinds, every weight random, in training mode as timm makes it."""
    name, args = (KINDS | OTHER_KINDS)[kind]
    with runtime.seeded("tiny", kind, seed), torch.no_grad():
        model = build(name, {**SMALL, **args, **changes}, MEAN, STD)
        for weight in model.parameters():
            # timm's own start is so small that all logits nearly agree.
            weight += 0.2 * torch.randn_like(weight)
    return model
