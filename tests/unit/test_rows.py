"""A flat folder with a list file, as DAmageNet is published: what is found, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nsvit import config, specs
from nsvit.data.layouts import open_set, scan, write_index
from nsvit.data.loading import load_pixels
from nsvit.data.sheets import contact_sheet
from nsvit.errors import NsvitError

#: The first labels of ImageNet's val, published in many places, with the name of each class.
VAL = {1: (65, "sea snake"), 2: (970, "alp"), 3: (230, "Shetland sheepdog"), 4: (809, "soup bowl")}
WNIDS = ["n01440764", "n01443537", "n01484850"]


def save(path: Path, shade: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 10, 20)).save(path)


def spec(root: Path, classes: str = "", **more) -> specs.ScanSpec:
    own = {"path": "flat", "layout": "list", "list": "flat/list.txt", **more}
    classes = classes or str(root / "classes.txt")
    return specs.ScanSpec(name="s", root=str(root), classes=classes, set=config.SetConfig(**own))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five pictures of two of three classes, listed inside their folder."""
    (tmp_path / "classes.txt").write_text("\n".join(WNIDS))
    for shade, name in enumerate("abcde"):
        save(tmp_path / "flat" / f"{name}.png", shade)
    (tmp_path / "flat/list.txt").write_text("a.png 2\nb.png 0\nc.png 2\nd.png 0\ne.png 0\n")
    return tmp_path


def test_as_damagenet_is_published(tmp_path):
    """PNG files, and beside their folder val's own list, whose names end in .JPEG."""
    for number in VAL:
        path = tmp_path / f"DAmageNet/ILSVRC2012_val_{number:08d}.png"
        save(path, number, size=(224, 224))
    lines = [f"ILSVRC2012_val_{number:08d}.JPEG {label}" for number, (label, _) in VAL.items()]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    own = spec(tmp_path, "imagenet-1k", path="DAmageNet", list="val.txt", crop=224)
    write_index(own, tmp_path / "i.parquet")
    found = open_set(tmp_path / "i.parquet")
    assert found.frame["path"].tolist() == [f"ILSVRC2012_val_0000000{n}.png" for n in (1, 3, 4, 2)]
    assert found.labels.tolist() == [65, 230, 809, 970]
    assert [found.names[label] for label in found.labels] == [
        "sea snake", "Shetland sheepdog", "soup bowl", "alp",
    ]  # fmt: skip
    assert found.allowed is None and len(found.classes) == 1000
    assert load_pixels(found)[:, 0, 0, 0].tolist() == [1, 3, 4, 2]


def test_rows_are_in_the_order_of_classes_and_names(root):
    frame, info = scan(spec(root))
    assert frame["path"].tolist() == ["b.png", "d.png", "e.png", "a.png", "c.png"]
    assert frame["label"].tolist() == [0, 0, 0, 2, 2]
    assert set(frame["corruption"]) == {""} and frame["severity"].dtype == np.int8
    assert info["root"] == str(root / "flat") and info["allowed"] is None
    assert scan(spec(root, restrict=True))[1]["allowed"] == [0, 2]


def test_labels_may_be_wnids_and_the_folder_may_hold_a_readme(root):
    numbers, _ = scan(spec(root))
    (root / "flat/README.md").write_text("as published")
    (root / "flat/.DS_Store").write_bytes(b"x")
    text = (root / "flat/list.txt").read_text()
    for number, wnid in enumerate(WNIDS):
        text = text.replace(f" {number}\n", f"\t{wnid}\n\n")
    (root / "flat/list.txt").write_text(text, "utf-8-sig")  # as editors on Windows write it
    wnids, _ = scan(spec(root))
    assert wnids.equals(numbers)


def test_names_may_have_spaces_and_numbers_are_indices(root):
    (root / "classes.txt").write_text("2\n1\n0\n")
    (root / "flat/e.png").rename(root / "flat/e 1.png")
    text = (root / "flat/list.txt").read_text().replace("e.png", "e 1.png")
    (root / "flat/list.txt").write_text(text)
    frame, _ = scan(spec(root))
    assert frame.query("label == 0")["path"].tolist() == ["b.png", "d.png", "e 1.png"]


def test_what_reads_an_index_reads_a_list(root):
    write_index(spec(root), root / "i.parquet")
    whole = open_set(root / "i.parquet")
    assert whole.take(3).frame["path"].tolist() == ["b.png", "a.png", "d.png"]
    contact_sheet(whole, root / "sheet.png", columns=3)
    pixels = np.asarray(Image.open(root / "sheet.png"))
    # Two rows of 96-pixel thumbnails, in the folder's first colours b, d, e and a, c.
    reds = {tuple(row) for row in pixels[..., :3].reshape(-1, 3) if tuple(row[1:]) == (10, 20)}
    assert reds == {(shade, 10, 20) for shade in range(5)}


# --- refusals -------------------------------------------------------------------------------


def edit(root: Path, old: str, new: str) -> Path:
    path = root / "flat/list.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def break_no_list(root: Path) -> str:
    (root / "flat/list.txt").unlink()
    return f"{root / 'flat/list.txt'}: no such list file"


def break_empty_list(root: Path) -> str:
    (root / "flat/list.txt").write_text("\n")
    return f"{root / 'flat/list.txt'}: lists no pictures"


def break_binary_list(root: Path) -> str:
    (root / "flat/list.txt").write_bytes(b"\xff\xfe\x00")
    return f"{root / 'flat/list.txt'}: 'utf-8' codec can't decode"


def break_no_label(root: Path) -> str:
    return f"{edit(root, 'b.png 0', 'b.png')}, line 2: 'b.png', expected '<file name> <label>'"


def break_label_too_large(root: Path) -> str:
    return f"{edit(root, 'c.png 2', 'c.png 3')}, line 3: label '3' is no class (0 to 2)"


def break_negative_label(root: Path) -> str:
    return f"{edit(root, 'c.png 2', 'c.png -1')}, line 3: label '-1' is no class (0 to 2)"


def break_unknown_wnid(root: Path) -> str:
    path = edit(root, "c.png 2", "c.png n99")
    return f"{path}, line 3: label 'n99' is no class ({WNIDS[0]}, ..., {WNIDS[2]})"


def break_lost_picture(root: Path) -> str:
    (root / "flat/d.png").unlink()
    return f"{root / 'flat/d.png'}: no such picture, but line 4 of {root / 'flat/list.txt'} lists"


def break_unlisted_picture(root: Path) -> str:
    path = edit(root, "d.png 0\n", "")
    return f"{root / 'flat/d.png'}: not listed in {path} (1 of 5 are not); remove it or add"


def break_stray_text(root: Path) -> str:
    (root / "flat/other.txt").write_text("a.png 1")
    return f"{root / 'flat/other.txt'}: not listed"


def break_listed_twice(root: Path) -> str:
    path = edit(root, "e.png 0", "e.png 0\na.JPEG 2")
    return f"{path}, line 6: a.JPEG is listed twice, first in line 1"


def break_two_endings(root: Path) -> str:
    save(root / "flat/c.jpg")
    edit(root, "c.png", "c.JPEG")
    return f"{root / 'flat/c.JPEG'}: it could be c.jpg or c.png, but line 3"


def break_folder_inside(root: Path) -> str:
    (root / "flat/more").mkdir()
    return f"{root / 'flat/more'}: a folder where only pictures"


def break_no_folder(root: Path) -> str:
    (root / "flat").rename(root / "moved")
    return f"{root / 'flat'}: no such folder"


def break_damaged_picture(root: Path) -> str:
    path = root / "flat/b.png"
    save(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-40])
    return f"{path}: not an image"


BREAKS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__[6:])
def test_damaged_listed_sets_are_refused_by_name(root, damage):
    message = damage(root)
    with pytest.raises(NsvitError) as refused:
        scan(spec(root))
    assert str(refused.value).startswith(message)
