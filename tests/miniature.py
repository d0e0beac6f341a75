"""The real trees in miniature: ImageNet-1k and its siblings as they lie on disk, in a second.

Every folder, file name, file type and picture size is as after unpacking the published archives;
what is on the pictures is drawn by nsvit's own renderer. `build` makes all of them below a root,
`build_flat_val` the val set as its own archive unpacks, with the devkit that says the labels.

All 1000 classes are known, but only a few have folders: sets made here need `partial: true`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES
from nsvit.data.layouts import read_classes
from nsvit.data.menagerie.render import picture
from nsvit.data.published import class_subset

#: Folder of each set below the root, as `build` makes it.
TRAIN, VAL = "ILSVRC2012/train", "ILSVRC2012/val"
A, R, V2 = "imagenet-a", "imagenet-r", "imagenetv2-matched-frequency-format-val"
SKETCH, STYLIZED, C = "sketch", "imagenet-stylized/val", "imagenet-c"
DAMAGENET, DAMAGENET_LIST = "damagenet", "damagenet/val_damagenet.txt"
DEVKIT = "ILSVRC2012/ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"

PHOTO = (250, 330)  # height, width; those of ImageNet vary, most are larger
DRAWN = 48  # side at which a picture is drawn, before it is enlarged


def shown_wnids(classes: int) -> list[str]:
    """Classes that have pictures, in class order: those that both A and R have come first."""
    every, _ = read_classes("imagenet-1k")
    both = set(class_subset("imagenet-a")) & set(class_subset("imagenet-r"))
    chosen = sorted(every, key=lambda wnid: wnid not in both)[:classes]
    return sorted(chosen, key=every.index)


def build(
    root: Path, classes: int = 2, per_class: int = 2, train_per_class: int | None = None
) -> None:
    """Makes every set below `root`.

    Args:
        root: becomes `data.root`; made if it is missing.
        classes: how many of the 1000 classes have pictures.
        per_class: pictures of each class in each set (and each cell of ImageNet-C).
        train_per_class: pictures of each class in the training set; none: `per_class`.
    """
    wnids = shown_wnids(classes)
    every, _ = read_classes("imagenet-1k")
    of_a, of_r = class_subset("imagenet-a"), class_subset("imagenet-r")
    for k, wnid in enumerate(wnids):
        _train(root / TRAIN / wnid, k, train_per_class or per_class)
        for i, name in _val_names(k, per_class):
            photo = _photo("val", i)
            _save(photo.convert("L") if i % 4 == 3 else photo, root / VAL / wnid / name)
            _save(_square("stylized", i), root / STYLIZED / wnid / _png(name))
            _save(_square("val", i), root / DAMAGENET / _png(name))
            _sketches(root / SKETCH / wnid, i)
            _save(_photo("v2", i), root / V2 / str(every.index(wnid)) / f"{_hex(i)}.jpeg")
            if wnid in of_a:
                file = f"0.{i:06d}_digital clock _ digital clock_0.865662.jpg"
                _save(_photo("a", i), root / A / wnid / file)
            if wnid in of_r:
                _save(_photo("r", i), root / R / wnid / f"{('art', 'sculpture')[i % 2]}_{i}.jpg")
            _corrupted(root / C, wnid, name, i)
    lines = [
        f"{name} {every.index(wnid)}"
        for k, wnid in enumerate(wnids)
        for _, name in _val_names(k, per_class)
    ]
    (root / DAMAGENET_LIST).write_text("\n".join(lines) + "\n")
    for folder in (A, R):
        if (root / folder).is_dir():
            (root / folder / "README.txt").write_text("As in the published archive.\n")


def build_flat_val(root: Path, classes: int = 2, per_class: int = 2) -> None:
    """Makes val as its archive unpacks (one flat folder), and the devkit beside it.

    The devkit's ILSVRC ids are not in the order of the 1000 classes, as in the real one.
    """
    wnids = shown_wnids(classes)
    number = _write_devkit(root / DEVKIT)
    truth = []
    for i in range(classes * per_class):
        _save(_photo("val", i), root / VAL / f"ILSVRC2012_val_{i + 1:08d}.JPEG")
        truth.append(number[wnids[i % classes]])
    (root / GROUND_TRUTH).write_text("".join(f"{ilsvrc_id}\n" for ilsvrc_id in truth))


def _write_devkit(folder: Path) -> dict[str, int]:
    """Writes meta.mat; returns the ILSVRC id, 1 to 1000, of every wnid."""
    every, names = read_classes("imagenet-1k")
    folder.mkdir(parents=True)
    order = np.random.default_rng(0).permutation(len(every))
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children"]
    fields += ["wordnet_height", "num_train_images"]
    synsets = np.zeros((len(every) + 2, 1), [(name, object) for name in fields])
    for place, index in enumerate(order):
        synsets[place, 0] = (place + 1, every[index], names[index], "", 0, [], 0, 1300)
    for place in (len(every), len(every) + 1):  # inner nodes of WordNet, which are no classes
        synsets[place, 0] = (place + 1, f"n0000{place}", "thing", "", 2, [1, 2], 9, 0)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})
    return {every[index]: place + 1 for place, index in enumerate(order)}


# --- pictures -------------------------------------------------------------------------------


def _val_names(k: int, per_class: int) -> Iterator[tuple[int, str]]:
    """Number and file name of the pictures of the k-th shown class."""
    for i in range(k * per_class, (k + 1) * per_class):
        yield i, f"ILSVRC2012_val_{293 + 7 * i:08d}.JPEG"


def _train(folder: Path, k: int, count: int) -> None:
    """Among them the odd files that the real train set has: CMYK, and PNG under the wrong name."""
    for i in range(count):
        path = folder / f"{folder.name}_{10026 + 31 * i}.JPEG"
        photo = _photo("train", 2 * i + k % 2)
        if (k, i) == (0, 1):
            photo = photo.convert("CMYK")
        _save(photo, path, "PNG" if (k, i) == (1, 1) else None)


def _sketches(folder: Path, i: int) -> None:
    _save(_photo("sketch", i).convert("L" if i % 2 else "RGB"), folder / f"sketch_{i}.JPEG")


def _corrupted(root: Path, wnid: str, name: str, i: int) -> None:
    """224 pixels, as published; the corruption is only hinted at by noise."""
    clean = np.asarray(_square("val", i), np.int16)
    noise = np.random.default_rng(i).integers(-12, 13, clean.shape, np.int16)
    for severity in SEVERITIES:
        # One file per severity, written fifteen times: encoding it is what takes time.
        content = io.BytesIO()
        noisy = np.clip(clean + severity * noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(content, "JPEG", quality=85)
        for corruption in CORRUPTIONS:
            path = root / corruption / str(severity) / wnid / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())


@functools.cache
def _drawn(kind: str, index: int) -> Image.Image:
    return Image.fromarray(picture(7, kind, index, DRAWN))


def _photo(kind: str, index: int) -> Image.Image:
    height, width = PHOTO
    size = (width, height) if index % 3 else (height, width)  # some are upright
    return _drawn(kind, index).resize(size, Image.Resampling.BILINEAR)


def _square(kind: str, index: int) -> Image.Image:
    return _drawn(kind, index).resize((224, 224), Image.Resampling.BILINEAR)


def _png(name: str) -> str:
    return name.replace(".JPEG", ".png")


def _hex(i: int) -> str:
    return hashlib.sha1(str(i).encode()).hexdigest()


def _save(image: Image.Image, path: Path, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = kind or ("PNG" if path.suffix == ".png" else "JPEG")
    image.save(path, kind, **({"compress_level": 1} if kind == "PNG" else {}))


# --- configurations and copies ---------------------------------------------------------------


def sections() -> dict[str, dict[str, object]]:
    """`data.sets` of everything that `build` makes, with the paper's transforms."""
    photo, as_is = {"resize": 256, "crop": 224}, {}
    folders = {
        "train": (TRAIN, "imagenet-train", photo),
        "val": (VAL, "imagenet-val", photo),
        "a": (A, "imagenet-a", {**photo, "restrict": True}),
        "r": (R, "imagenet-r", {**photo, "restrict": True}),
        "v2": (V2, "imagenet-v2", {**photo, "layout": "index"}),
        "sketch": (SKETCH, "imagenet-sketch", photo),
        "stylized": (STYLIZED, "imagenet-stylized", as_is),
        "c": (C, "imagenet-c", {"layout": "corruption"}),
        "damagenet": (DAMAGENET, "damagenet", {**photo, "layout": "list", "list": DAMAGENET_LIST}),
    }
    return {
        slug: {"path": path, "published": name, "partial": True, **more}
        for slug, (path, name, more) in folders.items()
    }


def copy(source: Path, target: Path) -> Path:
    """A copy that shares its files' contents: replace files in it, do not edit them."""
    return Path(shutil.copytree(source, target, copy_function=os.link))


def cut(path: Path, keep: float = 0.6) -> Path:
    """Replaces a file by its beginning."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: int(keep * len(content))])
    return path
