"""The exact nullspace against scipy and METHOD.md section 2, and its demonstration."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.linalg
import torch

from nsvit import artifacts, models
from nsvit.errors import NsvitError
from nsvit.models import PixelModel
from nsvit.nullspace import (
    demonstrate,
    nullity_row,
    nullity_table,
    nullspace_basis,
    save_nullspace,
)
from nsvit.nullspace.demonstration import random_in_range
from tests.tiny import KINDS, STD

#: kind, patch side, width: with D below, at and above the 3 r^2 columns.
SHAPES = [
    ("token", 8, 24), ("average", 8, 192), ("registers", 14, 64), ("distilled", 16, 48),
    ("dynamic", 32, 64), ("prenorm", 8, 200), ("deit3", 16, 96),
]  # fmt: skip


def matrix(model):
    """W acting on pixels, written without the package: entry (d, c, y, x) over std of c."""
    weight = model.net.patch_embed.proj.weight.detach().double().numpy()
    return np.stack([weight[:, c] / np.float32(STD[c]) for c in range(3)], 1).reshape(
        len(weight), -1
    )


@pytest.mark.parametrize(("kind", "patch", "width"), SHAPES)
def test_rank_and_basis_are_scipys(make_model, kind, patch, width):
    size = 2 * patch if patch < 32 else patch
    model = make_model(kind, img_size=size, patch_size=patch, embed_dim=width, depth=1)
    ours = nullspace_basis(model)
    theirs = scipy.linalg.null_space(matrix(model), rcond=1e-6)
    assert ours.nullity == theirs.shape[1] == 3 * patch**2 - ours.rank
    assert ours.rank == np.linalg.matrix_rank(matrix(model))
    basis = ours.basis.numpy()
    np.testing.assert_allclose(basis.T @ basis, np.eye(ours.nullity), atol=1e-12)
    # The same space: both orthonormal bases give the same projector.
    np.testing.assert_allclose(basis @ basis.T, theirs @ theirs.T, atol=1e-9)
    singular = np.linalg.svd(matrix(model), compute_uv=False)
    np.testing.assert_allclose(ours.singular_values, singular, rtol=1e-9, atol=1e-12)


def test_rank_deficient_weights_have_a_larger_nullspace(make_model):
    model = make_model()
    weight = model.net.patch_embed.proj.weight
    with torch.no_grad():
        weight[3] = 2 * weight[0] - weight[1]
        weight[4] = weight[2] * (1 + 1e-9)
    assert nullspace_basis(model).rank == 22
    assert nullspace_basis(model, rtol=0.9).rank < 22


def test_tolerance_is_relative_to_the_largest_singular_value(make_model):
    model = make_model()
    values = nullspace_basis(model).singular_values
    between = float((values[9] + values[10]) / 2 / values[0])
    assert nullspace_basis(model, rtol=between).rank == 10
    with torch.no_grad():
        model.net.patch_embed.proj.weight *= 1000
    assert nullspace_basis(model, rtol=between).rank == 10


def test_projection_is_the_least_squares_one(make_model, images):
    model = make_model()
    basis = nullspace_basis(model)
    projected = basis.project(images.double())
    patch = images[2, :, 8:16, 24:32].double().numpy().ravel()
    null = scipy.linalg.null_space(matrix(model), rcond=1e-6)
    coefficients = np.linalg.lstsq(null, patch, rcond=None)[0]
    ours = projected[2, :, 8:16, 24:32].numpy().ravel()
    np.testing.assert_allclose(ours, null @ coefficients, atol=1e-10)


def test_basis_of_normalised_pixels_is_the_wrong_one(make_model, images):
    """Ignoring std gives noise that moves the logits: why the matrix is W / std."""
    model = make_model().eval()
    ignorant = PixelModel(model.net, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "no std", {}).eval()
    moved = {}
    for name, basis in (("W/std", nullspace_basis(model)), ("W", nullspace_basis(ignorant))):
        noise = basis.sample(len(images), norm=5.0)
        with torch.no_grad():
            moved[name] = (model(images + noise) - model(images)).abs().max()
    assert moved["W/std"] < 1e-4
    assert moved["W"] > 100 * moved["W/std"]


def test_pixels_outside_every_patch_get_no_noise(make_model):
    model = make_model(img_size=37).eval()
    basis = nullspace_basis(model)
    noise = basis.sample(2, norm=10.0)
    assert noise.shape == (2, 3, 37, 37)
    assert basis.patches == 16
    assert noise[:, :, 32:].abs().max() == noise[:, :, :, 32:].abs().max() == 0
    images = torch.rand(2, 3, 37, 37)
    torch.testing.assert_close(model(images + noise), model(images), atol=1e-4, rtol=0)


def test_nothing_to_sample_is_refused(make_model, images):
    model = make_model(embed_dim=192)
    basis = nullspace_basis(model)
    assert (basis.rank, basis.nullity) == (192, 0)
    assert basis.project(images).abs().max() < 1e-6
    with pytest.raises(NsvitError, match="nullity 0"):
        basis.sample(1)
    with pytest.raises(NsvitError, match="nullity 0"):
        demonstrate(model, basis, images, 0.5)


def test_bad_input_is_refused(make_model):
    model = make_model()
    basis = nullspace_basis(model)
    with pytest.raises(NsvitError, match="not both"):
        basis.sample(1, norm=1.0, peak=1.0)
    with pytest.raises(NsvitError, match=r"\(1, 3, 48, 48\).*expected \(B, 3, 32, 32\)"):
        basis.project(torch.zeros(1, 3, 48, 48))
    with torch.no_grad():
        model.net.patch_embed.proj.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NsvitError, match="NaN"):
        nullspace_basis(model)
    swin = models.build("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1)}, (0,) * 3, STD)
    with pytest.raises(NsvitError, match=r"swin_tiny.*not a plain ViT"):
        nullspace_basis(swin)


@pytest.mark.parametrize("paint", [0.0, 1.0])
def test_noise_on_flat_paper_fits_too(make_model, paint):
    """Pixels at the end of the range leave room to one side only."""
    basis = nullspace_basis(make_model())
    images = torch.full((2, 3, 32, 32), paint)
    images[:, :, :16] = 0.5
    noise = basis.fit_to_range(images, basis.sample(2, peak=1.0))
    noisy = images + noise
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert (basis.project(noise) - noise).abs().max() < 2e-7
    assert noise[:, :, :16].abs().max() > 0.1


# --- demonstration --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_demonstration(make_model, images, kind):
    model = make_model(kind)
    before = [module.training for module in model.modules()]
    basis = nullspace_basis(model)
    shown = demonstrate(model, basis, images, 0.5, torch.Generator().manual_seed(1), batch_size=4)
    assert [module.training for module in model.modules()] == before
    metrics, example = shown.metrics, shown.example
    assert metrics["nullspace_max_logit_difference"] <= 1e-4
    assert metrics["unclipped_max_logit_difference"] <= 1e-4
    assert metrics["random_max_logit_difference"] > 1e-2
    assert metrics["nullspace_agreement"] == 1
    assert 0 < metrics["mean_peak"] <= 1
    for name in ("image", "noisy", "random_noisy"):
        assert example[name].min() >= 0
        assert example[name].max() <= 1
    torch.testing.assert_close(example["noisy"], example["image"] + example["noise"])
    random = example["random_noisy"] - example["image"]
    torch.testing.assert_close(random.norm(), example["noise"].norm(), rtol=1e-3, atol=0)
    model.eval()
    pictures = torch.stack([example[name] for name in ("image", "noisy", "random_noisy")])
    with torch.no_grad():
        confidence, prediction = model(pictures).softmax(1).max(1)
    assert torch.equal(prediction, example["predictions"])
    torch.testing.assert_close(confidence, example["confidences"], atol=1e-5, rtol=0)
    assert torch.equal(example["image"], images[example["position"][0]])


def test_random_noise_of_the_wrong_space_raises_the_alarm(make_model, images, caplog):
    basis = nullspace_basis(make_model(seed=1))
    with caplog.at_level(logging.WARNING):
        shown = demonstrate(make_model(seed=2), basis, images, 0.5)
    assert shown.metrics["nullspace_max_logit_difference"] > 1e-4
    assert "is the basis of this model?" in caplog.text


def test_random_noise_has_the_norm_asked_for_inside_the_range(images):
    norms = torch.linspace(0.0, 20.0, len(images))
    noise = random_in_range(images, norms)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), norms, rtol=1e-3, atol=1e-3)
    assert (images + noise).min() >= 0
    assert (images + noise).max() <= 1


def test_file_holds_basis_example_and_metrics(make_model, images, tmp_path):
    model = make_model()
    basis = nullspace_basis(model)
    shown = demonstrate(model, basis, images, 0.5)
    sidecar = artifacts.provenance("nullspace", {"model": "x"}, metrics=nullity_row(model, basis))
    save_nullspace(basis, shown, tmp_path / "a.safetensors", sidecar)
    arrays, found = artifacts.read_tensors(tmp_path / "a.safetensors", "nullspace")
    np.testing.assert_array_equal(arrays["basis"], basis.basis)
    np.testing.assert_array_equal(arrays["example_noisy"], shown.example["noisy"])
    assert found["metrics"]["nullity"] == 168
    assert found["metrics"]["columns"] == 192
    assert found["metrics"]["nullspace_agreement"] == 1
    save_nullspace(basis, None, tmp_path / "b.safetensors", sidecar)
    arrays, found = artifacts.read_tensors(tmp_path / "b.safetensors", "nullspace")
    assert set(arrays) == {"basis", "singular_values"}


# --- table ----------------------------------------------------------------------------------

#: METHOD.md section 2: r, columns, width, guaranteed nullity, N, guaranteed nullity per image.
PAPER = {
    "vit_tiny_patch16_224": ("16", 768, 192, 576, 196, 112896),
    "vit_small_patch16_224": ("16", 768, 384, 384, 196, 75264),
    "vit_base_patch16_224": ("16", 768, 768, 0, 196, 0),
    "vit_large_patch16_224": ("16", 768, 1024, 0, 196, 0),
    "vit_small_patch32_224": ("32", 3072, 384, 2688, 49, 131712),
    "vit_base_patch32_224": ("32", 3072, 768, 2304, 49, 112896),
    "vit_large_patch32_224": ("32", 3072, 1024, 2048, 49, 100352),
    "vit_small_patch8_224": ("8", 192, 384, 0, 784, 0),
    "vit_base_patch8_224": ("8", 192, 768, 0, 784, 0),
}


def test_table_is_the_specifications():
    table = nullity_table(PAPER)
    found = table.set_index("architecture").iloc[:, :6].to_dict("index")
    assert {name: tuple(row.values()) for name, row in found.items()} == PAPER
    assert table["rank"].isna().all()


def test_table_measures_where_there_are_weights(make_model, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.net.patch_embed.proj.weight[0] = 0
    models.save_local_dir(model, tmp_path)
    (row,) = nullity_table([f"local-dir:{tmp_path}"]).to_dict("records")
    assert (row["guaranteed_nullity"], row["nullity"]) == (168, 169)
    assert (row["rank"], row["nullity_per_image"]) == (23, 169 * 16)
    assert row == nullity_row(model, nullspace_basis(model))


def test_table_refuses_what_has_no_linear_patch_embedding():
    with pytest.raises(NsvitError, match="vit_small_r26_s32_224"):
        nullity_table(["vit_tiny_patch16_224", "vit_small_r26_s32_224"])
    assert nullity_table([]).empty
