"""Decoding, the evaluation transform, streaming and augmentation."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import v2

from nsvit.data import augment
from nsvit.data.augment import light_augmentation
from nsvit.data.layouts import ImageSet
from nsvit.data.loading import batches, load_pixels, to_float, train_images
from nsvit.data.pictures import evaluation_picture, read_rgb
from nsvit.errors import NsvitError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def make_set(folder: Path, n: int = 6, size: int = 16, **more) -> ImageSet:
    for k in range(n):
        Image.fromarray(noise(size, size, k)).save(folder / f"{k}.png")
    rows = {"path": [f"{k}.png" for k in range(n)], "label": [k // 3 for k in range(n)]}
    frame = pd.DataFrame({**rows, "corruption": "", "severity": 0})
    return ImageSet("s", folder, frame, ("a", "b"), ("a", "b"), **more)


# --- decoding -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_rgb(path)
    assert found.mode == "RGB" and found.size == (8, 8)
    assert np.asarray(found).min() >= 250  # white stays white


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = np.asarray(read_rgb(tmp_path / "a.png"))
    assert np.abs(found[..., 0].astype(int).ravel() - np.arange(256)).max() <= 1


def test_transparent_palettes_are_read(tmp_path):
    image = Image.fromarray(noise(8, 8)).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes([0] * 8 + [255] * 8))
    assert np.asarray(read_rgb(tmp_path / "a.png")).shape == (8, 8, 3)


def test_what_is_not_an_image_is_named(tmp_path):
    whole = make_set(tmp_path)
    (tmp_path / "4.png").write_bytes(b"GIF89a nonsense")
    with pytest.raises(NsvitError, match=r"4\.png: not an image"):
        load_pixels(whole)
    (tmp_path / "2.png").unlink()
    with pytest.raises(NsvitError, match=r"2\.png: no such picture"):
        list(batches(whole, 2))


# --- evaluation transform -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (50, 50), (33, 90), (20, 24)])
def test_the_evaluation_transform_is_torchvisions(shape, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(*shape)).save(path)
    oracle = v2.Compose([v2.Resize(36, v2.InterpolationMode.BICUBIC), v2.CenterCrop(31)])
    expected = np.asarray(oracle(Image.open(path)))
    assert np.array_equal(evaluation_picture(path, 36, 31), expected)


def test_no_transform_leaves_pixels_alone(tmp_path):
    Image.fromarray(noise(9, 7)).save(tmp_path / "a.png")
    assert np.array_equal(evaluation_picture(tmp_path / "a.png", None, None), noise(9, 7))


def test_pictures_smaller_than_the_crop_are_refused(tmp_path):
    with pytest.raises(NsvitError, match=r"0\.png: 16 x 16 pixels, smaller than the crop of 17"):
        load_pixels(make_set(tmp_path, crop=17))


def test_pictures_of_different_sizes_are_refused(tmp_path):
    whole = make_set(tmp_path)
    Image.fromarray(noise(16, 18)).save(tmp_path / "3.png")
    with pytest.raises(NsvitError, match=r"3\.png: 16 x 18 pixels.*`resize` and a `crop`"):
        load_pixels(whole)


# --- tensors --------------------------------------------------------------------------------


def test_load_pixels(tmp_path):
    pixels = load_pixels(make_set(tmp_path))
    assert pixels.shape == (6, 3, 16, 16) and pixels.dtype == torch.uint8
    assert np.array_equal(pixels[2].permute(1, 2, 0).numpy(), noise(16, 16, 2))
    floats = to_float(pixels)
    assert floats.dtype == torch.float32 and floats.max() == 1 and floats.min() == 0


def test_load_pixels_can_be_limited_going_round_the_classes(tmp_path):
    whole = make_set(tmp_path)
    assert torch.equal(load_pixels(whole, 3), load_pixels(whole)[[0, 3, 1]])


def test_empty_sets_are_refused(tmp_path):
    with pytest.raises(NsvitError, match="no pictures to load"):
        load_pixels(make_set(tmp_path).subset([]))


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches_stream_the_whole_set_in_order(batch_size, tmp_path):
    whole = make_set(tmp_path)
    images, labels, starts = zip(*batches(whole, batch_size), strict=True)
    assert torch.equal(torch.cat(images), to_float(load_pixels(whole)))
    assert torch.cat(labels).tolist() == [0, 0, 0, 1, 1, 1]
    assert list(starts) == list(range(0, 6, batch_size))


# --- augmentation ---------------------------------------------------------------------------


def test_no_augmentation_is_the_evaluation_transform(tmp_path):
    whole = make_set(tmp_path)
    found = train_images(whole, [5, 0], "none", 16, 1)
    assert torch.equal(found, to_float(load_pixels(whole))[[5, 0]])


@pytest.mark.parametrize("augmentation", ["light", "imagenet", "crop"])
def test_augmentation_depends_on_seed_and_place_alone(augmentation, tmp_path):
    whole = make_set(tmp_path)
    random_state = torch.random.get_rng_state()
    batch = train_images(whole, [0, 1, 2, 3], augmentation, 16, 7, "batch", 0)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.float32
    assert batch.min() >= 0 and batch.max() <= 1
    np.random.seed(0)
    torch.rand(3)
    alone = train_images(whole, [0, 4], augmentation, 16, 7, "batch", 0)
    assert torch.equal(alone[0], batch[0])
    same_picture = train_images(whole, [0] * 8, augmentation, 16, 7, "batch", 0)
    assert len({tuple(image.flatten().tolist()) for image in same_picture}) > 4
    other = train_images(whole, [0, 1, 2, 3], augmentation, 16, 7, "batch", 1)
    assert not torch.equal(other, batch)


def test_imagenet_augmentation_stays_in_the_pixel_range_when_it_erases(tmp_path):
    Image.new("RGB", (16, 16), (128, 128, 128)).save(tmp_path / "0.png")
    frame = make_set(tmp_path / ".", n=1).frame
    Image.new("RGB", (16, 16), (128, 128, 128)).save(tmp_path / "0.png")
    whole = ImageSet("s", tmp_path, frame, ("a",), ("a",))
    images = train_images(whole, [0] * 40, "imagenet", 16, 0)
    assert images.min() >= 0 and images.max() <= 1
    # A grey picture stays flat under crop, flip and colour changes: noise means erasing.
    erased = [(image.std() > 0.1).item() for image in images]
    assert 0 < sum(erased) < 30
    assert train_images(whole, [0] * 40, "crop", 16, 0).std() < 0.01


def test_the_imagenet_recipe_is_that_of_the_authors_main_script():
    """What METHOD.md section 5 says of it, asked of timm's own transforms."""
    shown = [str(step) for step in augment._imagenet_transform((224, 224), True).transforms]
    text = "\n".join(shown)
    assert "scale=(0.08, 1.0)" in text and "bilinear bicubic" in text
    assert "RandomHorizontalFlip(p=0.5)" in text and "RandAugment(n=2" in text
    erasing = augment._imagenet_transform((224, 224), True).transforms[-1]
    assert isinstance(erasing, RandomErasing)
    assert erasing.probability == 0.25 and erasing.per_pixel
    plain = augment._imagenet_transform((224, 224), False).transforms
    assert [type(step).__name__ for step in plain][:2] == [
        "RandomResizedCropAndInterpolation",
        "RandomHorizontalFlip",
    ]
    assert not any("Erasing" in str(step) or "RandAugment" in str(step) for step in plain)


def test_every_operation_of_randaugment_works_at_every_magnitude_that_it_may_draw():
    (steps,) = [
        step.ops
        for step in augment._imagenet_transform((24, 24), True).transforms
        if isinstance(step, RandAugment)
    ]
    assert len(steps) == 15
    picture = Image.fromarray(noise(24, 24))
    for op in steps:
        # Drawn from N(9, 0.5) and cut off at 10; lower ones are as good as never drawn.
        assert (op.magnitude, op.magnitude_std, op.magnitude_max) == (9, 0.5, None)
        for magnitude in (0.0, 5.0, *np.arange(7, 10.1, 0.125)):
            always = copy.copy(op)
            always.prob, always.magnitude, always.magnitude_std = 1.0, float(magnitude), 0.0
            result = always(picture)
            assert result.mode == "RGB" and result.size == picture.size, op.name


@pytest.mark.parametrize("bits", [0, 1, 2, 4, 8])
def test_posterizing_keeps_so_many_bits_none_of_them_too(bits):
    steps = augment._imagenet_transform((24, 24), True).transforms
    (op,) = [one for step in steps for one in getattr(step, "ops", ()) if "Poster" in one.name]
    pixels = noise(24, 24)
    found = np.asarray(op.aug_fn(Image.fromarray(pixels), bits, **op.kwargs))
    shift = 8 - bits
    assert np.array_equal(found, (pixels.astype(int) >> shift << shift).astype(np.uint8))


def test_imagenet_augmentation_takes_pictures_of_any_size(tmp_path):
    whole = make_set(tmp_path)
    Image.fromarray(noise(40, 70)).save(tmp_path / "1.png")
    assert train_images(whole, [0, 1], "imagenet", (24, 32), 0).shape == (2, 3, 24, 32)


def test_light_augmentation_moves_and_mirrors():
    # Red rises to the right, green downwards: shifts and flips can be read off.
    ramp = torch.arange(32, dtype=torch.uint8) * 4
    pixels = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    pixels[:, 0], pixels[:, 1] = ramp, ramp[:, None]
    images = light_augmentation(pixels, 0)
    slope = images[:, 0, :, 17] - images[:, 0, :, 15]
    flipped = (slope < 0).all(dim=1)
    assert 15 < flipped.sum() < 49 and ((slope > 0).all(dim=1) | flipped).all()
    assert (images[:, 1, 17] > images[:, 1, 15]).all()  # never upside down


def test_light_augmentation_without_jitter_is_a_reflected_crop(monkeypatch):
    monkeypatch.setattr("nsvit.data.augment.JITTER", 0.0)
    pixels = torch.from_numpy(noise(16, 16)).permute(2, 0, 1)[None].repeat(40, 1, 1, 1)
    padded = torch.nn.functional.pad(to_float(pixels[:1]), (2, 2, 2, 2), mode="reflect")[0]
    windows = [padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    allowed = torch.stack([*windows, *(window.flip(-1) for window in windows)])
    distance = (light_augmentation(pixels, 1)[:, None] - allowed).abs().amax(dim=(2, 3, 4))
    closest, which = distance.min(dim=1)
    assert closest.max() < 1e-5
    assert len(set(which.tolist())) > 15


def test_light_jitter_is_brightness_contrast_and_saturation(monkeypatch):
    """Against torchvision's three operations on a picture that they do not clip."""
    monkeypatch.setattr("nsvit.data.augment.SHIFT", 0.0)
    from nsvit.data import augment

    images = 0.4 + 0.2 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([[0.9, 1.1, 0.8], [1.2, 0.9, 1.1], [1.0, 1.2, 1.2], [0.8, 0.8, 0.9]])
    found = augment._jitter(images, *(f.view(-1, 1, 1, 1) for f in factors.unbind(dim=1)))
    for image, (brightness, contrast, saturation), ours in zip(images, factors, found, strict=True):
        theirs = v2.functional.adjust_brightness(image, brightness.item())
        theirs = v2.functional.adjust_contrast(theirs, contrast.item())
        theirs = v2.functional.adjust_saturation(theirs, saturation.item())
        assert (ours - theirs).abs().max() < 2e-3  # torchvision rounds the luma weights


def test_pictures_that_do_not_fit_the_model_are_refused(tmp_path):
    whole = make_set(tmp_path)
    with pytest.raises(NsvitError, match=r"0\.png: 16 x 16 pixels.*the model takes 24 x 24"):
        train_images(whole, [0], "light", 24, 0)
