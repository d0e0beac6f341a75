"""The embedded benchmark: the same pictures whatever draws them, in the real sets' folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nsvit import config, specs
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES
from nsvit.data.layouts import open_set, scan, write_index
from nsvit.data.menagerie import render_set, write_classes
from nsvit.data.menagerie.classes import SUBJECTS
from nsvit.data.menagerie.geometry import Material
from nsvit.data.menagerie.raster import coverage, draw, outlines
from nsvit.data.menagerie.render import KINDS, picture
from nsvit.data.sheets import contact_sheet
from nsvit.errors import NsvitError


def render_spec(kind: str, **counts: int) -> specs.RenderSpec:
    return specs.RenderSpec(
        kind=kind,
        seed=3,
        size=32,
        count=counts.get(kind, 10),
        candidates=120,
        path=kind,
    )


def scan_spec(root: Path, kind: str, layout: str = "wnid", restrict: bool = False):
    write_classes(root / "classes.txt")
    return specs.ScanSpec(
        name=kind,
        root=str(root),
        classes=str(root / "classes.txt"),
        set=config.SetConfig(path=kind, layout=layout, restrict=restrict),
    )


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.png"))
        if path.is_file()
    }


class Always(torch.nn.Module):
    """A classifier that always says one class."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.min() >= 0 and images.max() <= 1
        logits = torch.zeros(len(images), len(SUBJECTS))
        logits[:, self.label] = 1
        return logits


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "val"
    render_set(render_spec("val", val=20), folder)
    return folder


def test_classes_are_in_the_order_of_their_wordnet_ids():
    wnids = [subject.wnid for subject in SUBJECTS]
    assert wnids == sorted(set(wnids)) and len(wnids) == 10
    assert SUBJECTS[0].name == "bird" and SUBJECTS[-1].name == "tree"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_picture_depends_on_seed_kind_and_index_alone(kind):
    first = picture(1, kind, 4, 48)
    picture(1, kind, 5, 48)
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert np.array_equal(first, picture(1, kind, 4, 48))
    others = [picture(2, kind, 4, 48), picture(1, kind, 14, 48)]
    others += [picture(1, other, 4, 48) for other in KINDS if other != kind]
    assert not any(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_pictures_are_not_blank(kind):
    contrasts = [picture(0, kind, index, 32).std() for index in range(30)]
    assert min(contrasts) > 4  # grey levels of 255


def test_sketches_are_grey_and_renditions_are_not():
    sketches = np.stack([picture(0, "sketch", index, 32) for index in range(10)]).astype(int)
    assert (sketches.max(axis=-1) == sketches.min(axis=-1)).all()
    renditions = np.stack([picture(0, "r", index, 32) for index in range(10)]).astype(int)
    assert (renditions.max(axis=-1) - renditions.min(axis=-1)).max() > 50


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_individual_fills_its_frame(subject):
    for seed in range(20):
        parts = subject.draw(np.random.default_rng(seed))
        points = np.concatenate([part.points for part in parts])
        extent = np.ptp(points, axis=0)
        assert np.abs(points).max() < 1.4 and extent.max() > 1.2
        assert Material.MAIN in {part.material for part in parts}


def test_coverage_is_the_share_of_each_pixel():
    square = np.array([[1.0, 1.0], [2.99, 1.0], [2.99, 2.99], [1.0, 2.99]])
    shares = coverage(draw([(square, 2)], 6))
    assert list(shares) == [2]
    # PIL draws the border too, one sub-pixel more on the far sides.
    assert shares[2].sum() == pytest.approx(4.0, abs=1.5)
    assert shares[2][1, 1] == 1 and shares[2][4, 4] == 0


def test_outlines_lie_on_the_border_of_a_shape():
    square = np.array([[2.0, 2.0], [9.0, 2.0], [9.0, 9.0], [2.0, 9.0]])
    line = outlines(draw([(square, 1)], 12), 3)
    assert line[2, 5] > 0.5 and line[5, 2] > 0.5
    assert line[5, 5] == 0 and line[0, 0] == 0


@pytest.mark.parametrize("kind", ["val", "v2", "c"])
def test_the_same_bytes_for_one_and_for_two_processes(kind, val, tmp_path):
    spec = render_spec(kind)
    render_set(spec, tmp_path / "one", processes=1, val_dir=val)
    render_set(spec, tmp_path / "two", processes=2, val_dir=val)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_larger_set_contains_the_smaller_one(val, tmp_path):
    render_set(render_spec("val", val=11), tmp_path / "val")
    small, large = tree(tmp_path / "val"), tree(val)
    assert len(small) == 11 and len(large) == 20
    assert small.items() <= large.items()


def test_folders_are_those_of_the_real_sets(val, tmp_path):
    fish = SUBJECTS[2].wnid
    assert (val / fish / f"{fish}_00012.png").is_file()
    render_set(render_spec("v2", v2=12), tmp_path / "v2")
    assert {path.name for path in (tmp_path / "v2").glob("[!.]*")} == {str(k) for k in range(10)}
    assert (tmp_path / "v2" / "1" / "00011.png").is_file()
    frame, _ = scan(scan_spec(tmp_path, "v2", "index"))
    assert frame["label"].value_counts().to_dict() == {0: 2, 1: 2, **{k: 1 for k in range(2, 10)}}


def test_corrupted_pictures_come_from_the_first_of_val(val, tmp_path):
    made = render_set(render_spec("c", c=11), tmp_path / "c", val_dir=val)
    assert made == {"files": 11 * 15 * 5}
    write_index(scan_spec(tmp_path, "c", "corruption"), tmp_path / "c.parquet")
    write_index(scan_spec(val.parent, "val"), tmp_path / "val.parquet")
    corrupted = open_set(tmp_path / "c.parquet")
    first = open_set(tmp_path / "val.parquet").take(11)
    cell = corrupted.frame.query("corruption == 'fog' and severity == 3")["path"]
    assert sorted(cell) == sorted(f"fog/3/{path}" for path in first.frame["path"])
    assert set(corrupted.frame["corruption"]) == set(CORRUPTIONS)
    assert set(corrupted.frame["severity"]) == set(SEVERITIES)


def test_set_c_says_which_picture_of_val_is_missing(val, tmp_path):
    with pytest.raises(NsvitError, match="n01503061_00020.png.*first 21"):
        render_set(render_spec("c", c=21), tmp_path / "c", val_dir=val)
    with pytest.raises(NsvitError, match="val_dir"):
        render_set(render_spec("c"), tmp_path / "c")


def test_set_a_keeps_the_mistakes_of_the_reference(tmp_path):
    made = render_set(render_spec("a", a=40), tmp_path / "a", reference=Always(3))
    kept = tree(tmp_path / "a")
    assert made["files"] == len(kept) == 40
    assert not any(name.startswith(SUBJECTS[3].wnid) for name in kept)
    # In the order they are drawn: the first candidates that are not of class 3.
    wrong = [index for index in range(120) if index % 10 != 3][:40]
    assert sorted(int(name[-9:-4]) for name in kept) == wrong
    image = np.asarray(Image.open(tmp_path / "a" / min(kept)))
    assert np.array_equal(image, picture(3, "a", 0, 32))


def test_set_a_says_how_many_mistakes_there_were(tmp_path):
    with pytest.raises(NsvitError, match=r"only 108 of 120 candidates wrong, 109 are wanted"):
        render_set(render_spec("a", a=109), tmp_path / "a", reference=Always(3))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_render_leaves_the_old_folder_and_nothing_half(val, tmp_path, monkeypatch):
    render_set(render_spec("val"), tmp_path / "val")
    before = tree(tmp_path / "val")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("nsvit.data.menagerie.write.picture", stop)
    with pytest.raises(KeyboardInterrupt):
        render_set(render_spec("val"), tmp_path / "val")
    assert tree(tmp_path / "val") == before
    assert [path.name for path in tmp_path.iterdir()] == ["val"]


def test_unknown_sets_and_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(NsvitError, match="set 'imagenet'"):
        render_set(render_spec("imagenet"), tmp_path / "x")
    with pytest.raises(NsvitError, match=r"counts\.sketch is 9"):
        render_set(render_spec("sketch", sketch=9), tmp_path / "x")


def test_contact_sheets(val, tmp_path):
    root = val.parent
    write_index(scan_spec(root, "val"), tmp_path / "val.parquet")
    contact_sheet(open_set(tmp_path / "val.parquet"), tmp_path / "val.png", columns=2)
    render_set(render_spec("c"), tmp_path / "c", val_dir=val)
    write_index(scan_spec(tmp_path, "c", "corruption"), tmp_path / "c.parquet")
    contact_sheet(open_set(tmp_path / "c.parquet"), tmp_path / "c.png")
    plain, corrupted = Image.open(tmp_path / "val.png"), Image.open(tmp_path / "c.png")
    assert plain.height > 10 * 96 and plain.width < 4 * 100
    assert corrupted.height > 5 * 96 and corrupted.width > 15 * 96
    # The first thumbnail is the first picture, three times as large.
    pixels, first = np.asarray(plain), picture(3, "val", 0, 32)
    big = np.repeat(np.repeat(first, 3, axis=0), 3, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, big.shape)[:, :, 0]
    corner = (windows[:60, :160, :3, :3] == big[:3, :3]).all(axis=(2, 3, 4))
    assert any(np.array_equal(windows[y, x], big) for y, x in np.argwhere(corner))


def test_pictures_that_were_not_drawn_here_are_never_replaced(tmp_path):
    real = tmp_path / "train/n01440764"
    real.mkdir(parents=True)
    (real / "tench.JPEG").write_bytes(b"precious")
    with pytest.raises(NsvitError, match=r"train.*not drawn by nsvit"):
        render_set(render_spec("train"), tmp_path / "train")
    assert (real / "tench.JPEG").read_bytes() == b"precious"
    render_set(render_spec("val"), tmp_path / "val")
    render_set(render_spec("val"), tmp_path / "val")  # its own it replaces
