"""Image sets on disk: what is there, what it is called, and which part of it is used. No torch.

A scan lists every picture of a set once, checks it, and writes an index; everything after reads
the index. Row order: class, then path; in a corruption set, cells (corruption, severity) first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nsvit import artifacts
from nsvit.data.pictures import check_image
from nsvit.data.published import imagenet_wnids, timm_info
from nsvit.data.rows import find_rows
from nsvit.errors import NsvitError
from nsvit.runtime import progress, seed_for
from nsvit.specs import ScanSpec

# --- scanning -------------------------------------------------------------------------------


def scan(spec: ScanSpec) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Lists and checks the pictures of a set.

    Returns:
        frame: path (posix, relative to the set's folder), label (int64), corruption ("" if
            none), severity (int8, 0 if none).
        info: name, root, classes (wnids), names, allowed (class indices or None), resize, crop,
            content (a hash of all files).

    Raises:
        NsvitError: names the folder or file that is missing, empty, unknown or not an image.
    """
    classes, names = read_classes(spec.classes)
    root = Path(spec.root) / spec.set.path
    rows = find_rows(Path(spec.root), spec.set, classes)
    content = hashlib.sha256()
    for path, *_ in progress(rows, f"scan {spec.name}"):
        check_image(root / path)
        content.update(f"{path} {artifacts.sha256(root / path)}\n".encode())
    frame = pd.DataFrame(rows, columns=["path", "label", "corruption", "severity"])
    frame = frame.astype({"label": np.int64, "severity": np.int8})
    allowed = sorted({int(label) for label in frame["label"]}) if spec.set.restrict else None
    info = {
        "name": spec.name,
        "root": str(root),
        "classes": list(classes),
        "names": list(names),
        "allowed": allowed,
        "resize": spec.set.resize,
        "crop": spec.set.crop,
        "content": content.hexdigest(),
    }
    return frame, info


def write_index(spec: ScanSpec, out: str | Path) -> None:
    """Scans a set and writes its index (parquet, kind "index")."""
    frame, info = scan(spec)
    sidecar = artifacts.provenance(
        "index", spec.model_dump(mode="json"), metrics={"pictures": len(frame)}
    )
    artifacts.write_parquet(out, frame, {**sidecar, "set": info})


def read_classes(source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """WordNet ids and names of the classes, in class order.

    Args:
        source: a file with a line `wnid` or `wnid<TAB>name` per class, or 'imagenet-1k' (the
            list that timm carries).

    Raises:
        NsvitError: no such file, nothing in it, or a class twice.
    """
    if source == "imagenet-1k":
        return _imagenet_classes()
    path = Path(source)
    if not path.is_file():
        raise NsvitError(f"{path}: no such classes file; write 'imagenet-1k' for ImageNet's")
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines() if line.strip()]
    wnids = tuple(line[0].strip() for line in lines)
    if not wnids:
        raise NsvitError(f"{path}: no classes in it")
    twice = sorted({wnid for wnid in wnids if wnids.count(wnid) > 1})
    if twice:
        raise NsvitError(f"{path}: class {twice[0]!r} is listed twice")
    return wnids, tuple(line[1].strip() if len(line) > 1 else line[0].strip() for line in lines)


def _imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    wnids = imagenet_wnids()
    lemmas = (timm_info() / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    name = dict(line.split("\t", 1) for line in lemmas if "\t" in line)
    return wnids, tuple(name[wnid].split(",")[0] for wnid in wnids)


# --- sets in use ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some or all pictures of a set.

    Attributes:
        name: slug of the set.
        root: folder of the set.
        frame: one row per picture (see `scan`).
        classes, names: WordNet ids and names, in class order.
        allowed: the classes predictions are restricted to, or None.
        resize, crop: evaluation transform in pixels, or None.
        content: a hash of all files of the set when it was scanned.
    """

    name: str
    root: Path
    frame: pd.DataFrame
    classes: tuple[str, ...]
    names: tuple[str, ...]
    allowed: tuple[int, ...] | None = None
    resize: int | None = None
    crop: int | None = None
    content: str = ""

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices (n,)."""
        return self.frame["label"].to_numpy(np.int64)

    @property
    def paths(self) -> list[Path]:
        """Files, in row order."""
        return [self.root / path for path in self.frame["path"]]

    def subset(self, positions: Sequence[int] | npt.NDArray[np.integer]) -> ImageSet:
        """The pictures at some positions, in that order."""
        rows = self.frame.iloc[np.asarray(positions, dtype=np.int64)].reset_index(drop=True)
        return replace(self, frame=rows)

    def take(self, n: int) -> ImageSet:
        """The first `n` pictures going round the classes: the first of each, the second, ...

        In a corruption set, `n` of every corruption and severity, the same in every cell.
        Fewer if there are fewer.
        """
        cells = self.frame.groupby(["corruption", "severity"], sort=False).ngroup()
        turn = self.frame.groupby(["corruption", "severity", "label"], sort=False).cumcount()
        order = np.lexsort((self.labels, turn.to_numpy(), cells.to_numpy()))
        place = pd.Series(cells.to_numpy()[order]).groupby(cells.to_numpy()[order]).cumcount()
        return self.subset(order[place.to_numpy() < n])


def open_set(index: str | Path) -> ImageSet:
    """The set an index describes.

    Raises:
        NsvitError: no such index, or damaged.
    """
    frame, sidecar = artifacts.read_parquet(index, "index")
    info = sidecar["set"]
    return ImageSet(
        name=info["name"],
        root=Path(info["root"]),
        frame=frame,
        classes=tuple(info["classes"]),
        names=tuple(info["names"]),
        allowed=None if info["allowed"] is None else tuple(info["allowed"]),
        resize=info["resize"],
        crop=info["crop"],
        content=info.get("content", ""),
    )


def split_dev(image_set: ImageSet, dev_images: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Holds `dev_images` pictures out of a set: (the rest, the dev pictures), in row order.

    Every class gives its share (largest remainders first); which pictures depends on the seed
    and on how many each class has.

    Raises:
        NsvitError: the set has too few pictures.
    """
    labels = image_set.labels
    if not 0 < dev_images < len(labels):
        raise NsvitError(
            f"set {image_set.name!r} has {len(labels)} pictures: cannot hold out {dev_images} of "
            "them (data.dev_images) and train on the rest"
        )
    classes, counts = np.unique(labels, return_counts=True)
    shares = dev_images * counts / len(labels)
    quota = np.floor(shares).astype(int)
    spare = dev_images - int(quota.sum())
    quota[np.argsort(quota - shares, kind="stable")[:spare]] += 1
    is_dev = np.zeros(len(labels), bool)
    for label, count in zip(classes, quota, strict=True):
        rng = np.random.default_rng(seed_for(seed, "dev", int(label)))
        is_dev[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return image_set.subset(np.flatnonzero(~is_dev)), image_set.subset(np.flatnonzero(is_dev))
