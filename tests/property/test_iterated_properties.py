"""What holds for every attack, any pictures and any radius."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsvit.attacks import AttackResult, ThreatModel, attack
from nsvit.models import frozen
from tests.small import SIZE, small_vit

MODEL, SOURCE = small_vit(), small_vit(seed=3)

#: Each attack in a cheap form, by its name, and after a space a variant's.
CHEAP = {
    "fgsm": {},
    "pgd": {"steps": 3, "restarts": 2},
    "pgd clean-start": {"steps": 3, "random_start": False},
    "mi_fgsm": {"steps": 3, "source": SOURCE},
    "patch_fool": {"steps": 3, "patches": 2, "layer": 1},
    "patch_fool attention": {"steps": 3, "layer": 1, "mode": "attention", "attention_weight": 1.0},
    "cw": {"steps": 6, "binary_search_steps": 3, "initial_c": 1.0},
    "autoattack": {"steps": 2, "queries": 3},
}
CASES = [("fgsm", "linf"), ("cw", "l2"), ("pgd clean-start", "linf")]
CASES += [("patch_fool attention", "linf")]
CASES += [(n, p) for n in ("pgd", "mi_fgsm", "patch_fool") for p in ("linf", "l2")]
SLOW = [("autoattack", "linf"), ("autoattack", "l2")]


def pictures(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    # Some pixels at the ends of the range, where clipping matters.
    images = images.mul(1.4).sub(0.2).clamp(0, 1)
    with frozen(MODEL), torch.no_grad():
        labels = MODEL(images).argmax(1)
    # Every fourth picture is misclassified from the beginning.
    labels[::4] = (labels[::4] + 1) % 4
    return images, labels


def run(
    name: str, images: torch.Tensor, labels: torch.Tensor, threat: ThreatModel, first: int = 0
) -> AttackResult:
    seeds = list(range(first, first + len(images)))
    return attack(MODEL, images, labels, threat, name.split()[0], seeds=seeds, **CHEAP[name])


def check_bound(name: str, norm: str, seed: int, radius: float, count: int) -> None:
    images, labels = pictures(seed, count)
    threat = ThreatModel(radius, norm)
    found = run(name, images, labels, threat).images
    assert found.dtype == torch.float32 and found.shape == images.shape
    assert found.min() >= 0 and found.max() <= 1
    assert (threat.distance(images.double(), found.double()) <= radius).all()


@pytest.mark.parametrize(("name", "norm"), CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), radius=st.floats(0, 1, width=32), count=st.integers(1, 4))
def test_inside_the_radius_and_the_pixel_range_exactly(
    name: str, norm: str, seed: int, radius: float, count: int
) -> None:
    check_bound(name, norm, seed, radius, count)


@pytest.mark.parametrize(("name", "norm"), SLOW)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32), radius=st.floats(0.001, 0.1))
def test_autoattack_is_inside_too(name: str, norm: str, seed: int, radius: float) -> None:
    check_bound(name, norm, seed, radius, 2)


@pytest.mark.parametrize(("name", "norm"), CASES + SLOW)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_radius_zero_is_the_clean_picture(name: str, norm: str, seed: int) -> None:
    images, labels = pictures(seed, 3)
    assert torch.equal(run(name, images, labels, ThreatModel(0.0, norm)).images, images)


@functools.cache
def whole(name: str, norm: str, radius: float, count: int) -> AttackResult:
    return run(name, *pictures(7, count), ThreatModel(radius, norm))


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize(("name", "norm"), CASES + SLOW)
def test_a_picture_does_not_depend_on_its_batch(name: str, norm: str, size: int) -> None:
    count = 8 if name == "autoattack" else 64
    radius = {"linf": 2 / 255, "l2": 0.2}[norm]
    images, labels = pictures(7, count)
    at_once = whole(name, norm, radius, count)
    parts = [
        run(name, images[at : at + size], labels[at : at + size], ThreatModel(radius, norm), at)
        for at in range(0, count, size)
    ]
    success = torch.cat([part.success for part in parts])
    check_equal(at_once, AttackResult(torch.cat([part.images for part in parts]), success))
    assert at_once.success.any()


def check_equal(one: AttackResult, other: AttackResult) -> None:
    """Up to sums in another order; signs of gradients of rounding size are chance."""
    assert (one.success != other.success).sum() <= len(one.success) // 64
    assert ((one.images - other.images).abs() > 1e-4).float().mean() < 5e-3


@pytest.fixture
def two_threads() -> Iterator[Callable[[], None]]:
    """A switch to two threads; back to what was at the end."""
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(2)
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "norm"), CASES + SLOW)
def test_threads_do_not_matter(name: str, norm: str, two_threads: Callable[[], None]) -> None:
    count = 2 if name == "autoattack" else 64
    threat = ThreatModel({"linf": 2 / 255, "l2": 0.2}[norm], norm)
    images, labels = pictures(7, count)
    torch.set_num_threads(1)
    one = run(name, images, labels, threat)
    two_threads()
    assert torch.get_num_threads() == 2
    check_equal(one, run(name, images, labels, threat))


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    radius=st.floats(0, 1, width=32),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-3, 0.1, 10.0]),
)
def test_projection_is_inside_and_leaves_what_is_inside(
    norm: str, radius: float, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 16, 16, generator=generator)
    moved = (images + scale * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    threat = ThreatModel(radius, norm)
    near = threat.project(images, moved)
    assert near.min() >= 0 and near.max() <= 1
    assert (threat.distance(images.double(), near.double()) <= radius).all()
    inside = threat.distance(images, moved) <= 0.99 * radius - 1e-4
    assert torch.allclose(near[inside], moved[inside], atol=1e-6)
    assert torch.allclose(threat.project(images, near), near, atol=1e-6)
