"""Weights in the layout of Google's AugReg files, for tests: the reverse of timm's reader."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn


def augreg_arrays(net: nn.Module) -> dict[str, np.ndarray]:
    """The arrays of an AugReg .npz with a ViT's weights, under the names and shapes of Flax."""
    own = {name: value.numpy() for name, value in net.state_dict().items()}
    width, heads = net.embed_dim, net.blocks[0].attn.num_heads
    found = {
        "cls": own["cls_token"],
        "embedding/kernel": own["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": own["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": own["pos_embed"],
        "Transformer/encoder_norm/scale": own["norm.weight"],
        "Transformer/encoder_norm/bias": own["norm.bias"],
        "head/kernel": own["head.weight"].T,
        "head/bias": own["head.bias"],
    }
    for number in range(len(net.blocks)):
        here, there = f"blocks.{number}.", f"Transformer/encoderblock_{number}/"
        attention = f"{there}MultiHeadDotProductAttention_1/"
        for position, name in enumerate(("query", "key", "value")):
            rows = slice(position * width, (position + 1) * width)
            weight, bias = own[f"{here}attn.qkv.weight"][rows], own[f"{here}attn.qkv.bias"][rows]
            found[f"{attention}{name}/kernel"] = weight.T.reshape(width, heads, -1)
            found[f"{attention}{name}/bias"] = bias.reshape(heads, -1)
        projection = own[f"{here}attn.proj.weight"]
        found[f"{attention}out/kernel"] = projection.T.reshape(heads, -1, width)
        found[f"{attention}out/bias"] = own[f"{here}attn.proj.bias"]
        for layer, norm in ((0, "norm1"), (2, "norm2")):
            found[f"{there}LayerNorm_{layer}/scale"] = own[f"{here}{norm}.weight"]
            found[f"{there}LayerNorm_{layer}/bias"] = own[f"{here}{norm}.bias"]
        for layer, dense in enumerate(("fc1", "fc2")):
            found[f"{there}MlpBlock_3/Dense_{layer}/kernel"] = own[f"{here}mlp.{dense}.weight"].T
            found[f"{there}MlpBlock_3/Dense_{layer}/bias"] = own[f"{here}mlp.{dense}.bias"]
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def dat_state(net: nn.Module, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """A state dict as DAT's models have it: the normalisation and the net in a sequence."""
    return {"0.mean": mean, "0.std": std, **{f"1.{k}": v for k, v in net.state_dict().items()}}
