"""How large a ViT is and what a pass through it costs, from its shape alone. No torch.

The formulas count what torch's own counter counts (`torch.utils.flop_counter`): matrix products,
convolutions and attention; norms, activations and softmax are left out, which are below 1 % of a
ViT's work. A test compares both, and the published numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nsvit import artifacts
from nsvit.config import ModelConfig, local_dir
from nsvit.errors import NsvitError

#: Width, depth and heads of timm's ViT sizes.
_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
#: vit_base_patch16_224.augreg_in21k_ft_in1k, deit_small_distilled_patch16_224, ...
_NAME = re.compile(
    r"(?P<family>vit|deit|deit3)_(?P<size>tiny|small|base|large|huge)(?P<distilled>_distilled)?"
    r"_patch(?P<patch>\d+)_(?P<image>\d+)(\..+)?"
)
#: Arguments of `timm.create_model` that change a shape, and those that change no cost.
_SHAPING = {
    "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes",
    "class_token", "reg_tokens", "in_chans", "global_pool", "pre_norm", "no_embed_class",
    "qkv_bias", "drop_path_rate", "drop_rate", "attn_drop_rate", "proj_drop_rate", "init_values",
    "dynamic_img_size", "checkpoint_path",
}  # fmt: skip
_BYTES = 4  # of a float32


@dataclass(frozen=True)
class VitShape:
    """The shape of a plain ViT.

    Attributes:
        image, patch: sides in pixels.
        width, depth, heads: of the encoder.
        mlp_ratio: width of the hidden layer over `width`.
        prefix: class, distillation and register tokens.
        classes: width of the logits.
    """

    image: int
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    prefix: int = 1
    classes: int = 1000

    @property
    def patches(self) -> int:
        """N, patch tokens of a picture."""
        return (self.image // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """T, all tokens of a picture."""
        return self.patches + self.prefix

    @property
    def hidden(self) -> int:
        """The width of the hidden layer."""
        return int(self.mlp_ratio * self.width)

    @property
    def block_flops(self) -> float:
        """FLOPs of one encoder block for one picture: two for each multiplication."""
        linear = self.tokens * self.width * (4 * self.width + 2 * self.hidden)
        attention = 2 * self.tokens**2 * self.width
        return 2.0 * (linear + attention)

    @property
    def embed_flops(self) -> float:
        """FLOPs of the patch embedding for one picture."""
        return 2.0 * self.patches * 3 * self.patch**2 * self.width

    @property
    def forward_flops(self) -> float:
        """FLOPs of a forward pass for one picture; published GFLOPs are half of it (MACs)."""
        heads = 2 if self.prefix == 2 else 1
        head = 2.0 * heads * self.width * self.classes
        return self.embed_flops + self.depth * self.block_flops + head

    @property
    def input_backward_flops(self) -> float:
        """FLOPs of a backward pass to the pixels, with frozen weights.

        As much as the forward pass, and the two products of attention a second time.
        """
        attention = 2.0 * 2 * self.tokens**2 * self.width
        return self.forward_flops + self.depth * attention

    @property
    def backward_flops(self) -> float:
        """FLOPs of a backward pass to every weight; pixels need no gradient."""
        attention = 2.0 * 2 * self.tokens**2 * self.width
        linear = self.depth * (self.block_flops - attention)
        head = self.forward_flops - self.embed_flops - self.depth * self.block_flops
        return self.embed_flops + 2 * (linear + self.depth * attention + head)

    @property
    def parameters(self) -> int:
        """Weights, biases and embeddings."""
        width, hidden = self.width, self.hidden
        attention = 4 * width * width + 4 * width
        mlp = 2 * width * hidden + width + hidden
        block = attention + mlp + 4 * width
        embed = 3 * self.patch**2 * width + width
        positions = self.tokens * width + self.prefix * width
        return (
            embed + positions + self.depth * block + 2 * width
            + (width + 1) * self.classes * (2 if self.prefix == 2 else 1)
        )  # fmt: skip

    @property
    def weight_bytes(self) -> int:
        """The weights in single precision."""
        return _BYTES * self.parameters

    @property
    def training_bytes(self) -> int:
        """What one picture leaves behind for the backward pass to every weight, float32.

        Per token and block: 11 times the width (both norms and what enters them, query, key and
        value, attention's result, and the block's sums) and 2 times the hidden layer. Fused
        attention keeps no map.
        """
        per_token = 11 * self.width + 2 * self.hidden
        pixels = 3 * self.image**2
        return _BYTES * (self.depth * self.tokens * per_token + pixels)


def shape_of(model: ModelConfig) -> VitShape | None:
    """The shape of a model in the configuration; None for what is not one of timm's plain ViTs.

    A `local-dir:` model is looked up in its config.json. One that is not there has no shape: a
    plan must be possible before anything is downloaded.
    """
    name, args = model.timm, dict(model.model_args)
    folder = local_dir(name)
    if folder is not None:
        try:
            content = artifacts.read_json(folder / "config.json")
        except NsvitError:
            return None
        name = str(content.get("architecture", ""))
        classes = {"num_classes": content.get("num_classes", 1000)}
        args = {**classes, **(content.get("model_args") or {}), **args}
    return _from_name(name.removeprefix("hf_hub:timm/"), args)


def _from_name(name: str, args: Mapping[str, Any]) -> VitShape | None:
    match = _NAME.fullmatch(name)
    if match is None or set(args) - _SHAPING:
        return None
    width, depth, heads = _SIZES[match["size"]]
    prefix = int(bool(args.get("class_token", True))) + int(args.get("reg_tokens") or 0)
    image = args.get("img_size", int(match["image"]))
    return VitShape(
        image=int(image[0] if isinstance(image, list | tuple) else image),
        patch=int(args.get("patch_size", match["patch"])),
        width=int(args.get("embed_dim", width)),
        depth=int(args.get("depth", depth)),
        heads=int(args.get("num_heads", heads)),
        mlp_ratio=float(args.get("mlp_ratio", 4.0)),
        prefix=prefix + bool(match["distilled"]),
        classes=int(args.get("num_classes", 1000)),
    )
