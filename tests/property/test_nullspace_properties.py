"""What holds for the nullspace of every patch embedding."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsvit.nullspace import nullspace_basis
from tests.tiny import KINDS, tiny

kinds = st.sampled_from(sorted(KINDS))
seeds = st.integers(0, 2**31)
few = settings(max_examples=25, deadline=None)


def world(kind, seed, width=24):
    model = tiny(kind, seed, embed_dim=width, depth=1).eval()
    generator = torch.Generator().manual_seed(seed)
    return model, nullspace_basis(model), generator, torch.rand(3, 3, 32, 32, generator=generator)


@few
@given(kinds, seeds, st.sampled_from([8, 24, 64, 190]))
def test_basis_is_orthonormal_and_unseen(kind, seed, width):
    model, found, _, _ = world(kind, seed, width)
    weight = model.net.patch_embed.proj.weight.detach().double() / model.std.double()
    matrix = weight.flatten(1)
    assert found.rank + found.nullity == 192
    eye = torch.eye(found.nullity, dtype=torch.float64)
    torch.testing.assert_close(found.basis.T @ found.basis, eye, atol=1e-12, rtol=0)
    assert (matrix @ found.basis).norm() < 1e-10 * matrix.norm()
    assert (found.row_space.T @ found.basis).norm() < 1e-10


@few
@given(kinds, seeds, st.sampled_from([24, 150]))
def test_projection_is_idempotent_and_symmetric(kind, seed, width):
    _, found, generator, images = world(kind, seed, width)
    images = images.double()
    other = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    once = found.project(images)
    torch.testing.assert_close(found.project(once), once, atol=1e-12, rtol=0)
    inner = (once * other).sum(), (images * found.project(other)).sum()
    torch.testing.assert_close(*inner, atol=1e-9, rtol=1e-9)
    sample = found.sample(1, norm=1.0, generator=generator)
    torch.testing.assert_close(found.project(sample), sample, atol=1e-6, rtol=0)


@few
@given(kinds, seeds, st.floats(0.1, 30))
def test_norm_and_peak_are_as_asked(kind, seed, size):
    _, found, generator, _ = world(kind, seed)
    by_norm = found.sample(3, norm=size, generator=generator)
    by_peak = found.sample(3, peak=size, generator=generator)
    assert by_norm.shape == by_peak.shape == (3, 3, 32, 32)
    torch.testing.assert_close(by_norm.flatten(1).norm(dim=1), torch.full((3,), size))
    torch.testing.assert_close(by_peak.flatten(1).abs().amax(dim=1), torch.full((3,), size))
    patches = by_norm.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(48, -1)
    assert torch.linalg.matrix_rank(patches) == 48  # no two patches share their noise


@few
@given(kinds, seeds)
def test_model_sees_random_noise_but_not_nullspace_noise(kind, seed):
    model, found, generator, images = world(kind, seed)
    noise = found.sample(3, norm=10.0, generator=generator)
    random = torch.randn(images.shape, generator=generator)
    random *= 10 / random.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        clean, null, other = model(images), model(images + noise), model(images + random)
    assert (null - clean).abs().max() < 1e-4
    assert (other - clean).abs().max() > 1e-3


@few
@given(kinds, seeds, st.floats(0.05, 3), st.integers(0, 100))
def test_fitted_noise_stays_in_range_and_in_the_nullspace(kind, seed, peak, contrast):
    _, found, generator, images = world(kind, seed)
    images = ((images - 0.5) * (1 + contrast / 25) + 0.5).clamp(0, 1)  # some pixels saturate
    noise = found.fit_to_range(images, found.sample(3, peak=peak, generator=generator))
    noisy = images + noise
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert (found.project(noise) - noise).abs().max() < 3e-7


@few
@given(kinds, seeds)
def test_noise_that_fits_already_is_not_touched(kind, seed):
    _, found, generator, images = world(kind, seed)
    images = 0.3 + 0.4 * images
    noise = found.sample(3, peak=0.25, generator=generator)
    torch.testing.assert_close(found.fit_to_range(images, noise), noise, atol=1e-6, rtol=0)
