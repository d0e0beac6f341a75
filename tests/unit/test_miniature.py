"""The real trees in miniature: every layout is read as it lies on disk, odd files included."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsvit import config, specs
from nsvit.data.layouts import open_set, read_classes, scan, write_index
from nsvit.data.loading import load_pixels, train_images
from nsvit.data.pictures import evaluation_picture, read_rgb
from nsvit.data.published import PUBLISHED, class_subset
from nsvit.errors import NsvitError
from tests import miniature

EVERY, NAMES = read_classes("imagenet-1k")
SETS = miniature.sections()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("miniature")
    miniature.build(folder, train_per_class=3)
    return folder


def spec(root: Path, slug: str, **more: object) -> specs.ScanSpec:
    own = config.SetConfig.model_validate({**SETS[slug], **more})
    return specs.ScanSpec(name=slug, root=str(root), classes="imagenet-1k", set=own)


@pytest.mark.parametrize("slug", SETS)
def test_every_set_is_read(slug, root, tmp_path):
    write_index(spec(root, slug), tmp_path / "i.parquet")
    found = open_set(tmp_path / "i.parquet")
    shown = [EVERY.index(wnid) for wnid in miniature.shown_wnids(2)]
    each = 3 if slug == "train" else 2
    cells = 75 if slug == "c" else 1
    assert len(found) == 2 * each * cells
    assert sorted(set(found.labels)) == shown
    assert found.allowed == (tuple(shown) if slug in "ar" else None)
    assert len(found.classes) == 1000 and found.names[shown[0]] == NAMES[shown[0]]
    pixels = load_pixels(found.take(2))
    assert pixels.shape[1:] == (3, 224, 224)
    assert pixels.float().std() > 5  # there is something on them


def test_predictions_are_among_all_classes_of_a_partial_set_only(root):
    with pytest.raises(NsvitError, match=r"no folder for 998 of 1000.*partial"):
        scan(spec(root, "val", partial=False))


def test_odd_training_pictures_are_augmented(root, tmp_path):
    """ImageNet's train set has CMYK, grey and PNG pictures under the name JPEG."""
    write_index(spec(root, "train"), tmp_path / "i.parquet")
    train = open_set(tmp_path / "i.parquet")
    kinds = {(Image.open(path).format, Image.open(path).mode) for path in train.paths}
    assert kinds == {("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB")}
    images = train_images(train, range(len(train)), "imagenet", 224, 0)
    assert images.shape == (6, 3, 224, 224) and images.min() >= 0 and images.max() <= 1


def test_class_lists_are_those_of_the_published_sets():
    for name in ("imagenet-a", "imagenet-r"):
        wnids = class_subset(name)
        assert len(set(wnids)) == PUBLISHED[name].classes == 200 and set(wnids) < set(EVERY)
        assert [EVERY.index(w) for w in wnids] == sorted(EVERY.index(w) for w in wnids)
    assert class_subset("imagenet-c") == EVERY
    # ImageNet-A has the bald eagle, ImageNet-R the goldfish, neither the tench.
    assert "n01614925" in class_subset("imagenet-a")
    assert "n01443537" in class_subset("imagenet-r")
    assert "n01440764" not in {*class_subset("imagenet-a"), *class_subset("imagenet-r")}


# --- the flat val set and its devkit --------------------------------------------------------


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flat")
    miniature.build_flat_val(folder, classes=3)
    return folder


def flat_spec(root: Path) -> specs.ScanSpec:
    return spec(root, "val", layout="devkit", list=miniature.GROUND_TRUTH)


def test_the_devkit_says_what_torchvision_reads_in_it(flat, tmp_path, monkeypatch):
    from torchvision.datasets import imagenet

    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(flat / "ILSVRC2012/ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)
    imagenet.parse_devkit_archive(tmp_path)
    _, theirs = imagenet.load_meta_file(tmp_path)
    frame, _ = scan(flat_spec(flat))
    ours = frame.sort_values("path")
    assert [EVERY[label] for label in ours["label"]] == theirs
    assert list(ours["path"]) == [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 7)]
    assert sorted(set(theirs)) == sorted(miniature.shown_wnids(3))


def test_flat_and_sorted_val_have_the_same_labels(flat, tmp_path):
    """As people sort val into folders: what is in the list moves into a folder of its wnid."""
    frame, _ = scan(flat_spec(flat))
    for path, label in zip(frame["path"], frame["label"], strict=True):
        target = tmp_path / miniature.VAL / EVERY[label] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((flat / miniature.VAL / path).read_bytes())
    ordered, _ = scan(spec(tmp_path, "val"))
    assert [path.split("/")[1] for path in ordered["path"]] == list(frame["path"])
    assert list(ordered["label"]) == list(frame["label"])


DAMAGES = {
    "no list": (lambda truth: truth.unlink(), "ground_truth.txt: no such list file"),
    "no meta": (lambda truth: (truth.parent / "meta.mat").unlink(), "meta.mat: no such file"),
    "bad meta": (lambda truth: miniature.cut(truth.parent / "meta.mat"), "not the devkit's"),
    "inner node": (lambda truth: edit(truth, "1001"), "line 1: '1001' is no ILSVRC id"),
    "word": (lambda truth: edit(truth, "n01440764"), "line 1: 'n01440764' is no ILSVRC id"),
    "too few": (lambda truth: edit(truth, ""), "JPEG: not listed in"),
    "too many": (lambda truth: edit(truth, "1\n1"), "00000007.JPEG: no such picture"),
    "empty": (lambda truth: rewrite(truth, ""), "lists no pictures"),
}


def rewrite(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def edit(path: Path, first: str) -> None:
    rewrite(path, "\n".join([first, *path.read_text().splitlines()[1:]]))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_devkit_is_refused(name, flat, tmp_path):
    damage, message = DAMAGES[name]
    copy = miniature.copy(flat, tmp_path / "copy")
    damage(copy / miniature.GROUND_TRUTH)
    with pytest.raises(NsvitError, match=message):
        scan(flat_spec(copy))


def test_a_class_that_the_configuration_lacks_is_named(flat, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("\n".join(miniature.shown_wnids(2)))
    own = flat_spec(flat).model_copy(update={"classes": str(few)})
    with pytest.raises(NsvitError, match=r"line \d: n\d+ .*none of the 2 classes"):
        scan(own)


# --- damaged and odd pictures ---------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_a_truncated_picture_stops_the_scan_or_is_left_out(threads, root, tmp_path):
    copy = miniature.copy(root, tmp_path / "copy")
    whole, before = scan(spec(copy, "val"), threads)
    lost = miniature.cut(copy / miniature.VAL / whole["path"][1])
    with pytest.raises(NsvitError, match=f"{lost}: not an image .*truncated"):
        scan(spec(copy, "val"), threads)
    frame, info = scan(spec(copy, "val", damaged="skip"), threads)
    assert list(frame["path"]) == [path for k, path in enumerate(whole["path"]) if k != 1]
    assert info["skipped"] == [whole["path"][1]] and info["content"] != before["content"]
    lost.unlink()  # a set that never had it
    again, without = scan(spec(copy, "val"), threads)
    assert again.equals(frame) and without["content"] == info["content"]
    assert "skipped" not in without


def test_a_picture_that_is_damaged_in_one_cell_is_left_out_of_all(root, tmp_path):
    copy = miniature.copy(root, tmp_path / "copy")
    whole, _ = scan(spec(copy, "c"))
    lost = whole["path"][whole["corruption"] == "snow"].iloc[0]
    miniature.cut(copy / miniature.C / lost)
    write_index(spec(copy, "c", damaged="skip"), tmp_path / "i.parquet")
    found = open_set(tmp_path / "i.parquet")
    assert len(found) == 75 * 3 and found.skipped == (lost,)
    assert not found.frame["path"].str.contains(Path(lost).name).any()
    assert found.take(1).skipped == (lost,)


def test_a_set_of_nothing_but_damage_is_refused(root, tmp_path):
    copy = miniature.copy(root, tmp_path / "copy")
    for path in (copy / miniature.DAMAGENET).glob("*.png"):
        miniature.cut(path)
    with pytest.raises(NsvitError, match="not one picture can be decoded"):
        scan(spec(copy, "damagenet", damaged="skip"))


def test_exif_does_not_turn_a_picture(tmp_path):
    """The published numbers are of the pixels as stored."""
    image = Image.fromarray(np.arange(60 * 90, dtype=np.uint8).reshape(60, 90)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "turned.JPEG", exif=exif, quality=95)
    image.save(tmp_path / "plain.JPEG", quality=95)
    turned = evaluation_picture(tmp_path / "turned.JPEG", None, None)
    assert turned.shape == (60, 90, 3)
    assert np.array_equal(turned, evaluation_picture(tmp_path / "plain.JPEG", None, None))


def test_a_picture_too_large_to_be_decoded_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (60, 50)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1400)
    with pytest.raises(NsvitError, match=r"huge\.png: too large to be decoded safely"):
        read_rgb(tmp_path / "huge.png")


def test_old_indices_stay_valid():
    """Keys that a configuration leaves alone are not in the spec of its scan."""
    own = config.SetConfig(path="val")
    dumped = specs.ScanSpec(name="s", root="r", classes="c", set=own).model_dump(mode="json")
    assert set(dumped["set"]) == {"path", "layout", "list", "resize", "crop", "restrict"}
    skip = specs.ScanSpec(
        name="s", root="r", classes="c", set=config.SetConfig(path="v", damaged="skip")
    )
    assert skip.model_dump(mode="json")["set"]["damaged"] == "skip"
    assert specs.ScanSpec.model_validate_json(skip.model_dump_json()) == skip
