"""Small trees in the layouts of the real sets: what is found, and what is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsvit import artifacts, config, specs
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES
from nsvit.data.layouts import open_set, read_classes, scan, split_dev, write_index
from nsvit.errors import NsvitError

WNIDS = [f"n{number:08d}" for number in (1440764, 1443537, 1484850)]


def save(path: Path, shade: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, 10, 20)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lines = [f"{WNIDS[0]}\ttench", WNIDS[1], f"{WNIDS[2]}\tgreat white shark", ""]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    return tmp_path


def spec(root: Path, path: str, layout: str = "wnid", **more) -> specs.ScanSpec:
    section = config.SetConfig(path=path, layout=layout, **more)
    return specs.ScanSpec(name="s", root=str(root), classes=str(root / "classes.txt"), set=section)


def make_val(root: Path, each: int = 3) -> Path:
    folder = root / "val"
    for wnid in WNIDS:
        for k in range(each):
            save(folder / wnid / f"ILSVRC2012_val_{k:08d}.JPEG", k)
    return folder


def make_corrupted(root: Path) -> Path:
    folder = root / "imagenet-c"
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            for wnid in WNIDS:
                for k in range(2):
                    file = f"ILSVRC2012_val_{k:08d}.JPEG"
                    save(folder / name / str(severity) / wnid / file, k)
    return folder


# --- layouts --------------------------------------------------------------------------------


def test_wnid_layout(root):
    folder = make_val(root)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / WNIDS[0] / "._hidden.JPEG").write_bytes(b"x")
    frame, info = scan(spec(root, "val", resize=256, crop=224))
    assert list(frame.columns) == ["path", "label", "corruption", "severity"]
    assert frame["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert frame["path"][3] == f"{WNIDS[1]}/ILSVRC2012_val_00000000.JPEG"
    assert (frame["label"].dtype, frame["severity"].dtype) == (np.int64, np.int8)
    assert info["names"] == ["tench", WNIDS[1], "great white shark"]
    assert info["classes"] == WNIDS and info["allowed"] is None
    assert (info["root"], info["resize"], info["crop"]) == (str(folder), 256, 224)


def test_index_layout_takes_folders_as_numbers(root):
    (root / "classes.txt").write_text("\n".join(f"n{k:08d}" for k in range(12)))
    for k in range(12):
        save(root / "v2" / str(k) / "0af3f1.jpeg")
    frame, _ = scan(spec(root, "v2", "index"))
    assert frame["label"].tolist() == list(range(12))
    assert [path.split("/")[0] for path in frame["path"]][-3:] == ["9", "10", "11"]


def test_restricted_sets_allow_the_classes_that_have_a_folder(root):
    save(root / "imagenet-a" / WNIDS[2] / "0.00_a.jpg")
    save(root / "imagenet-a" / WNIDS[0] / "0.00_b.jpg")
    (root / "imagenet-a" / "README.txt").write_text("as in the published archive")
    _, info = scan(spec(root, "imagenet-a", restrict=True))
    assert info["allowed"] == [0, 2]
    with pytest.raises(NsvitError, match=f"no folder for 1 of 3 classes .{WNIDS[1]}.*restrict"):
        scan(spec(root, "imagenet-a"))


def test_corruption_layout(root):
    folder = make_corrupted(root)
    save(folder / "speckle_noise" / "1" / WNIDS[0] / "extra.JPEG")  # of extra.tar: left out
    frame, _ = scan(spec(root, "imagenet-c", "corruption"))
    assert len(frame) == 15 * 5 * 3 * 2
    cells = frame.groupby(["corruption", "severity"]).size()
    assert len(cells) == 75 and set(cells) == {6}
    first = frame.iloc[0]
    assert first["path"] == f"gaussian_noise/1/{WNIDS[0]}/ILSVRC2012_val_00000000.JPEG"
    assert (first["corruption"], first["severity"]) == ("gaussian_noise", 1)


def test_the_index_opens_as_it_was_scanned(root):
    make_val(root)
    write_index(spec(root, "val", crop=8), root / "val.parquet")
    opened = open_set(root / "val.parquet")
    frame, _ = scan(spec(root, "val", crop=8))
    assert opened.frame.equals(frame) and len(opened) == 9
    assert opened.root == root / "val" and opened.paths[0].is_file()
    assert (opened.allowed, opened.resize, opened.crop) == (None, None, 8)
    _, sidecar = artifacts.read_parquet(root / "val.parquet", "index")
    assert sidecar["metrics"] == {"pictures": 9}


def test_imagenet_classes_are_timms_without_loading_it():
    loaded = set(sys.modules)
    wnids, names = read_classes("imagenet-1k")
    assert not {"timm"} & (set(sys.modules) - loaded)
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    assert list(wnids) == info.label_names()
    assert len(names) == 1000 and names[0].startswith("tench")


# --- refusals -------------------------------------------------------------------------------


def break_missing(folder: Path) -> str:
    folder.rename(folder.with_name("moved"))
    return f"{folder}: no such folder"


def break_empty_set(folder: Path) -> str:
    for path in list(folder.iterdir()):
        path.rename(folder.parent / path.name)
    return f"{folder}: empty"


def break_empty_class(folder: Path) -> str:
    for path in (folder / WNIDS[1]).iterdir():
        path.unlink()
    return f"{folder / WNIDS[1]}: empty"


def break_unknown_class(folder: Path) -> str:
    save(folder / "n99999999" / "a.png")
    return f"{folder / 'n99999999'}: not a class folder"


def break_text_as_image(folder: Path) -> str:
    path = folder / WNIDS[2] / "z.JPEG"
    path.write_text("not pixels")
    return f"{path}: not an image"


def break_truncated(folder: Path) -> str:
    path = folder / WNIDS[0] / "ILSVRC2012_val_00000001.JPEG"
    save(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-40])
    return f"{path}: not an image"


def break_truncated_png(folder: Path) -> str:
    path = folder / WNIDS[0] / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    return f"{path}: not an image"


def break_empty_file(folder: Path) -> str:
    path = folder / WNIDS[0] / "a.png"
    path.touch()
    return f"{path}: not an image"


def break_stray_file(folder: Path) -> str:
    (folder / "list.csv").write_text("a,b")
    return f"{folder / 'list.csv'}: a file where only folders"


def break_stray_file_in_class(folder: Path) -> str:
    (folder / WNIDS[0] / "README.txt").write_text("hello")
    return f"{folder / WNIDS[0] / 'README.txt'}: not an image"


def break_nested_folder(folder: Path) -> str:
    (folder / WNIDS[0] / "more").mkdir()
    return f"{folder / WNIDS[0] / 'more'}: a folder where only pictures"


BREAKS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__[6:])
def test_damaged_sets_are_refused_by_name(root, damage):
    message = damage(make_val(root))
    with pytest.raises(NsvitError) as refused:
        scan(spec(root, "val"))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("name", ["3", "-1", "one", "²"])
def test_index_folders_that_are_no_class_are_refused(root, name):
    for folder in ("0", "1", "2", name):
        save(root / "v2" / folder / "a.png")
    with pytest.raises(NsvitError, match="not a class folder"):
        scan(spec(root, "v2", "index"))


def test_one_class_in_two_index_folders_is_refused(root):
    for folder in ("0", "1", "01", "2"):
        save(root / "v2" / folder / "a.png")
    with pytest.raises(NsvitError, match="class 1 has two folders"):
        scan(spec(root, "v2", "index"))


def test_incomplete_corruption_sets_are_refused(root):
    folder = make_corrupted(root)
    lost = folder / "snow" / "4" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG"
    lost.unlink()
    with pytest.raises(NsvitError, match=f"{lost}: every corruption and severity"):
        scan(spec(root, "imagenet-c", "corruption"))
    save(lost, 1)
    (folder / "fog" / "5").rename(folder / "fog" / "6")
    with pytest.raises(NsvitError, match="fog/6: not a severity"):
        scan(spec(root, "imagenet-c", "corruption"))
    (folder / "fog").rename(folder / "smoke")
    with pytest.raises(NsvitError, match="smoke: not one of the 15"):
        scan(spec(root, "imagenet-c", "corruption"))


def test_bad_classes_files_are_refused(root):
    with pytest.raises(NsvitError, match=r"none\.txt: no such classes file"):
        read_classes(str(root / "none.txt"))
    (root / "classes.txt").write_text("\n\n")
    with pytest.raises(NsvitError, match="no classes in it"):
        read_classes(str(root / "classes.txt"))
    (root / "classes.txt").write_text("n1\ta\nn2\nn1\tb\n")
    with pytest.raises(NsvitError, match="'n1' is listed twice"):
        read_classes(str(root / "classes.txt"))


# --- taking and splitting -------------------------------------------------------------------


def test_take_goes_round_the_classes(root):
    make_val(root)
    save(root / "val" / WNIDS[1] / "zz.png")
    write_index(spec(root, "val"), root / "i.parquet")
    whole = open_set(root / "i.parquet")
    assert whole.take(5).labels.tolist() == [0, 1, 2, 0, 1]
    assert whole.take(99).labels.tolist() == [0, 1, 2] * 3 + [1]


def test_take_of_a_corruption_set_is_the_same_in_every_cell(root):
    make_corrupted(root)
    write_index(spec(root, "imagenet-c", "corruption"), root / "i.parquet")
    taken = open_set(root / "i.parquet").take(4)
    assert len(taken) == 75 * 4
    cells = taken.frame.groupby(["corruption", "severity"])
    own = {tuple(path.split("/", 2)[2] for path in cell["path"]) for _, cell in cells}
    file = "ILSVRC2012_val_0000000"
    first = [f"{wnid}/{file}0.JPEG" for wnid in WNIDS]
    assert own == {(*first, f"{WNIDS[0]}/{file}1.JPEG")}


def test_dev_must_leave_something_to_train_on(root):
    make_val(root)
    write_index(spec(root, "val"), root / "i.parquet")
    with pytest.raises(NsvitError, match="has 9 pictures: cannot hold out 9"):
        split_dev(open_set(root / "i.parquet"), 9, 0)
