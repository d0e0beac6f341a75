"""Pictures and models that the library refuses before any pass."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from nsvit import attacks, noise, nullspace
from nsvit.attacks import ThreatModel
from nsvit.config import NoiseConfig
from nsvit.errors import NsvitError
from nsvit.pixels import check_pixels
from tests.tiny import SMALL, tiny

GOOD = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NOISE = NoiseConfig(max_steps=2, pool=4, batch_size=4)

BAD = [
    (GOOD * 255, r"pixels from 0\.\d+ to 25\d.*divide these by 255"),
    (GOOD * 2 - 1, r"pixels from -0\.\d+ to "),
    (GOOD.masked_fill(GOOD > 0.99, torch.nan), "pixels from nan"),
    (GOOD.double(), r"images are torch\.float64"),
    (GOOD.long(), r"images are torch\.int64"),
    (GOOD.permute(0, 2, 3, 1), r"shape \(4, 32, 32, 3\); expected \(B, 3"),
    (GOOD[0], r"shape \(3, 32, 32\)"),
    (GOOD.numpy(), "images are a ndarray"),
    (GOOD[..., :16], "32 x 16 pixels; model 'vit_tiny_patch16_224' takes 32 x 32"),
]


@pytest.mark.parametrize(("images", "says"), BAD)
def test_odd_pictures_are_refused(images, says):
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(NsvitError, match=says):
        attacks.attack(tiny(), images, labels, ThreatModel(8 / 255))
    if not isinstance(images, np.ndarray):  # anything else is taken for a loader
        with pytest.raises(NsvitError, match=says):
            noise.learn_noise(tiny(), images, NOISE)
    with pytest.raises(NsvitError, match=says):
        noise.learn_noise(tiny(), [images], NOISE)


def test_pixels_pass():
    for images in (GOOD, (GOOD * 255).byte(), GOOD.clamp(0, 1) * 1.0005, GOOD[:0]):
        check_pixels(images, "here", tiny())
    check_pixels(torch.rand(2, 3, 40, 48), "here", tiny("dynamic"))
    check_pixels(torch.rand(2, 3, 40, 48), "here")


def test_8_bit_pictures_are_for_noise_alone():
    pixels = (GOOD * 255).byte()
    found, batches, same = (
        noise.learn_noise(tiny(), one, NOISE, generator=torch.Generator().manual_seed(0))
        for one in (pixels, [pixels], pixels / 255)
    )
    assert found.distance == batches.distance == same.distance > 0
    with pytest.raises(NsvitError, match="uint8; divide them by 255"):
        attacks.attack(tiny(), pixels, torch.zeros(4, dtype=torch.long), ThreatModel(0.1))


def test_a_bare_timm_model_is_refused():
    net = timm.create_model("vit_tiny_patch16_224", **SMALL)
    with pytest.raises(NsvitError, match=r"VisionTransformer is no PixelModel; nsvit\.load_model"):
        nullspace.nullspace_basis(net)
    with pytest.raises(NsvitError, match="is no PixelModel"):
        noise.learn_noise(net, GOOD, NOISE)


def test_a_radius_as_text_is_refused():
    with pytest.raises(NsvitError, match=r"'4/255': a number is wanted"):
        ThreatModel("4/255")
