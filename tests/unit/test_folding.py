"""The gradient of the patch embedding by matrix product, against torch's convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nsvit.attacks.folding import folding
from nsvit.models import PixelModel, build
from tests.tiny import KINDS, MEAN, STD, tiny


def gradient(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    pixels = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(pixels).square().sum(), pixels)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_same_gradient_and_same_logits(kind: str, images: torch.Tensor) -> None:
    model = tiny(kind).eval()
    expected, logits = gradient(model, images), model(images)
    with folding(model):
        assert torch.equal(model(images), logits)
        assert torch.equal(model(images.clone().requires_grad_()), logits)
        found = gradient(model, images)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    assert not model.projection._forward_hooks


def test_pixels_beyond_the_last_patch_have_no_gradient() -> None:
    model = tiny(img_size=(37, 34)).eval()
    images = torch.rand(2, 3, 37, 34)
    with folding(model):
        found = gradient(model, images)
    assert torch.allclose(found, gradient(model, images), atol=1e-6)
    assert found[:, :, :32, :32].abs().min() > 0
    assert not found[:, :, 32:].any() and not found[:, :, :, 32:].any()


def test_weights_elsewhere_keep_their_gradients(images: torch.Tensor) -> None:
    model = tiny().eval()
    with folding(model):
        model(images.clone().requires_grad_()).sum().backward()
    assert model.projection.weight.grad is None
    assert model.net.head.weight.grad is not None
    model(images.clone().requires_grad_()).sum().backward()
    assert model.projection.weight.grad is not None


def test_other_models_are_left_to_torch(images: torch.Tensor) -> None:
    resnet = build("resnet10t", {"num_classes": 5}, MEAN, STD).eval()
    for model in (resnet, nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten())):
        expected = gradient(model, images)
        with folding(model):
            assert torch.equal(gradient(model, images), expected)


def test_lower_precision_keeps_its_type(images: torch.Tensor) -> None:
    model: PixelModel = tiny().eval()
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradient(model, images)
        with folding(model):
            found = gradient(model, images)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), 0) > 0.99
