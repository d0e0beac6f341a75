"""What holds for any pictures and any radius."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsvit.attacks import ThreatModel, attack
from nsvit.attacks.fgsm import fgsm_direction
from tests.small import SIZE, small_vit

MODEL = small_vit()


def pictures(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    # Some pixels at the ends of the range, where clamping matters.
    images = images.mul(1.4).sub(0.2).clamp(0, 1)
    return images, torch.randint(0, 4, (count,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), radius=st.floats(0, 1, width=32), count=st.integers(1, 4))
def test_inside_the_radius_and_the_pixel_range_exactly(
    seed: int, radius: float, count: int
) -> None:
    images, labels = pictures(seed, count)
    found = attack(MODEL, images, labels, ThreatModel(radius)).images
    assert found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert (found.double() - images.double()).abs().max() <= radius


@settings(max_examples=100, deadline=None)
@given(k=st.integers(0, 255), seed=st.integers(0, 2**32))
def test_radii_of_config_are_never_exceeded_by_rounding(k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (4000,), generator=generator).float() / 255
    direction = torch.randint(-1, 2, (4000,), generator=generator).float()
    moved = ThreatModel(k / 255).move(images, direction)
    distance = (moved.double() - images.double()).abs().max()
    assert distance <= k / 255
    assert k == 0 or distance > k / 255 - 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_radius_zero_is_the_clean_picture(seed: int) -> None:
    images, labels = pictures(seed, 3)
    assert torch.equal(attack(MODEL, images, labels, ThreatModel(0.0)).images, images)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 6))
def test_a_picture_does_not_depend_on_its_batch(seed: int, cut: int) -> None:
    images, labels = pictures(seed, 7)
    whole = fgsm_direction(MODEL, images, labels)
    parts = [
        fgsm_direction(MODEL, images[part], labels[part])
        for part in (slice(0, cut), slice(cut, None))
    ]
    # Gradients of rounding size may flip sign: kernels sum in another order.
    assert (whole != torch.cat(parts)).float().mean() < 1e-3
