"""Pixels kept beside an index: the same as from the files, and never in their way."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nsvit.config import SetConfig
from nsvit.data import decoded, layouts
from nsvit.data.loading import batches, load_pixels, train_images
from nsvit.specs import ScanSpec

from ..small import image_tree

PICTURES = 12


@pytest.fixture
def kept(tmp_path):
    """An index with pixels, and the folder of the pictures."""
    return scanned(tmp_path), tmp_path / "val"


def scanned(folder: Path, **more) -> layouts.ImageSet:
    if not (folder / "val").exists():
        tree = image_tree(folder / "val", per_class=3, size=20)
        (folder / "classes.txt").write_text("\n".join(tree.classes))
    own = SetConfig(path="val", **more)
    spec = ScanSpec(name="val", root=str(folder), classes=str(folder / "classes.txt"), set=own)
    layouts.write_index(spec, folder / "index" / "val.parquet")
    return layouts.open_set(folder / "index" / "val.parquet")


def from_files(image_set: layouts.ImageSet) -> torch.Tensor:
    return load_pixels(replace(image_set, decoded=None))


def lose(folder: Path) -> None:
    for picture in folder.rglob("*.png"):
        picture.unlink()


@pytest.mark.parametrize("transform", [{}, {"resize": 16}, {"resize": 16, "crop": 12}])
def test_the_pixels_are_those_of_the_files(transform, tmp_path):
    whole = scanned(tmp_path, **transform)
    files = from_files(whole)
    lose(tmp_path / "val")
    assert len(whole) == PICTURES and torch.equal(load_pixels(whole), files)


@given(st.lists(st.integers(0, PICTURES - 1), min_size=1, max_size=20), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_part_of_a_part_in_any_order(kept, rows, data):
    part = kept[0].subset(rows)
    inner = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=9))
    assert torch.equal(load_pixels(part.subset(inner)), from_files(part)[inner])


def test_every_reader_uses_them(kept):
    whole, folder = kept
    train, dev = layouts.split_dev(whole, 4, 0)
    bare = replace(train, decoded=None)
    light = train_images(bare, [3, 0], "light", 20, 7)
    streamed = torch.cat([images for images, _, _ in batches(replace(dev, decoded=None), 3)])
    lose(folder)
    assert torch.equal(train_images(train, [3, 0], "light", 20, 7), light)
    assert torch.equal(torch.cat([images for images, _, _ in batches(dev, 3)]), streamed)


def test_another_transform_is_not_served(kept):
    other = replace(kept[0], resize=16, crop=12)
    assert load_pixels(other).shape == (PICTURES, 3, 12, 12)
    assert torch.equal(load_pixels(other), from_files(other))


def test_large_sets_are_not_kept(tmp_path, monkeypatch):
    assert scanned(tmp_path).decoded is not None
    file = tmp_path / "index" / "val.pixels"
    assert file.stat().st_size == PICTURES * 20 * 20 * 3
    monkeypatch.setattr(decoded, "MOST_BYTES", file.stat().st_size - 1)
    large = scanned(tmp_path)
    assert large.decoded is None and not file.exists()
    assert len(load_pixels(large)) == PICTURES


def test_pictures_of_different_sizes_are_not_kept(tmp_path):
    scanned(tmp_path)
    picture = max((tmp_path / "val").rglob("*.png"))
    Image.fromarray(np.zeros((9, 20, 3), np.uint8)).save(picture)
    assert scanned(tmp_path).decoded is None
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["val.parquet"]


@pytest.mark.parametrize("harm", ["change", "shorten", "delete"])
def test_a_damaged_file_costs_time_only(harm, kept, caplog):
    whole, _ = kept
    file = whole.decoded.path
    if harm == "delete":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content if harm == "change" else content[:-5])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_pixels(whole), from_files(whole))
    assert ("val.pixels: damaged" in caplog.text) == (harm != "delete")


def test_an_index_without_them_is_read_as_ever(kept):
    whole, _ = kept
    assert whole.decoded is not None and replace(whole, decoded=None).kept_pixels() is None
