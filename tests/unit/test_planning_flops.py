"""FLOPs, weights and memory of ViTs: the formulas against torch's own counters."""

from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from nsvit.config import ModelConfig
from nsvit.planning import VitShape, shape_of

ROOT = Path(__file__).parents[2]
SMALL = {"img_size": 48, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4}
KINDS = [
    ("vit_small_patch16_224", {}),
    ("vit_base_patch16_224", {"depth": 3}),
    ("vit_tiny_patch16_224", {**SMALL, "class_token": False, "global_pool": "avg"}),
    ("vit_base_patch16_224", {"reg_tokens": 4, "num_classes": 10, "depth": 2}),
    ("deit_tiny_distilled_patch16_224", {"depth": 2}),
    ("vit_base_patch32_224", {"img_size": 256, "mlp_ratio": 2.0, "depth": 2}),
]


def model_of(name: str, args: dict) -> ModelConfig:
    return ModelConfig(label="", timm=name, model_args=args, mean=(0.5,) * 3, std=(0.5,) * 3)


def on_paper(name: str, args: dict) -> tuple[torch.nn.Module, VitShape]:
    """The real model, without memory for weights, and the shape that is read off its name."""
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False, **args).eval()
    shape = shape_of(model_of(name, args))
    assert shape is not None
    return net, shape


def counted(net: torch.nn.Module, shape: VitShape, weights: bool, pixels: bool) -> tuple[int, int]:
    """What torch counts for one picture, forward and backward."""
    images = torch.empty(2, 3, shape.image, shape.image, device="meta", requires_grad=pixels)
    net.requires_grad_(weights)
    with FlopCounterMode(display=False) as counter:
        logits = net(images)
        forward = counter.get_total_flops()
        if weights or pixels:
            logits.sum().backward()
        return forward // 2, (counter.get_total_flops() - forward) // 2


@pytest.mark.parametrize(("name", "args"), KINDS)
def test_the_formulas_are_torchs_count(name, args):
    net, shape = on_paper(name, args)
    assert shape.parameters == sum(weight.numel() for weight in net.parameters())
    assert shape.forward_flops == counted(net, shape, False, False)[0]
    assert shape.input_backward_flops == counted(net, shape, False, True)[1]
    assert shape.backward_flops == counted(net, shape, True, False)[1]


def test_published_numbers():
    """GFLOPs (multiplications) and million weights, as printed for DeiT-S and DeiT-B."""
    for name, gmacs, weights in (("small", 4.6, 22), ("base", 17.6, 86.6)):
        shape = shape_of(model_of(f"vit_{name}_patch16_224.augreg_in21k_ft_in1k", {}))
        assert shape is not None
        assert shape.forward_flops / 2e9 == pytest.approx(gmacs, rel=0.01)
        assert shape.parameters / 1e6 == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize(("name", "args"), KINDS[:3])
def test_what_a_picture_leaves_behind_is_about_what_autograd_saves(name, args):
    net, shape = on_paper(name, args)
    net.requires_grad_(True)
    sizes, kept = {}, []
    own = {weight.untyped_storage()._cdata for weight in net.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # so that no storage's address is used twice
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(torch.empty(2, 3, shape.image, shape.image, device="meta"))
    assert shape.training_bytes == pytest.approx(sum(sizes.values()) / 2, rel=0.1)


def test_shapes_are_read_from_a_folder_and_others_are_not_guessed():
    shape = shape_of(model_of(f"local-dir:{ROOT}/nsvit/pretrained/vit_s", {}))
    assert shape == VitShape(48, 8, 64, 4, 4, prefix=0, classes=10)
    for name in ("resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "local-dir:/none"):
        assert shape_of(model_of(name, {})) is None
    assert shape_of(model_of("vit_base_patch16_224", {"no_such_argument": 1})) is None
