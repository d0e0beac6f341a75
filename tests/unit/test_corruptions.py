"""The published corruptions, seeded."""

from __future__ import annotations

import imagecorruptions
import numpy as np
import pytest

from nsvit.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from nsvit.data.menagerie.render import picture
from nsvit.errors import NsvitError

STILL = ("zoom_blur", "defocus_blur", "brightness", "contrast", "pixelate", "jpeg_compression")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(0, "val", 7, 48)


def test_names_are_those_of_the_library_in_its_order():
    assert list(CORRUPTIONS) == imagecorruptions.get_corruption_names("common")
    assert set(EXTRA_CORRUPTIONS) == set(imagecorruptions.get_corruption_names("validation"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_depends_on_its_seed_alone(name, image):
    np.random.seed(1)
    first = corrupt(image, name, 3, seed=5)
    np.random.seed(2)
    again, other = corrupt(image, name, 3, seed=5), corrupt(image, name, 3, seed=6)
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name in STILL)


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "frost", "glass_blur"])
def test_numpy_state_is_left_alone(name, image):
    np.random.seed(11)
    expected = np.random.random(3)
    np.random.seed(11)
    corrupt(image, name, 1, seed=0)
    assert np.array_equal(np.random.random(3), expected)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_five_changes_more_than_severity_one(name, image):
    def change(severity: int) -> float:
        changed = [corrupt(image, name, severity, seed).astype(float) for seed in range(6)]
        return float(np.mean([np.abs(each - image).mean() for each in changed]))

    # Frost starts bright: its five severities differ in what is left of the picture.
    assert change(5) > (0.8 if name == "frost" else 1.1) * change(1)


def test_unknown_names_severities_and_small_pictures_are_refused(image):
    with pytest.raises(NsvitError, match="'rain'"):
        corrupt(image, "rain", 1, 0)
    with pytest.raises(NsvitError, match="severity 6 of fog"):
        corrupt(image, "fog", 6, 0)
    with pytest.raises(NsvitError, match="at least 32"):
        corrupt(image[:31], "fog", 1, 0)
