"""Image sets on disk: what is there, what it is called, and which part of it is used. No torch.

A scan lists every picture of a set once, checks it, and writes an index; everything after reads
the index. Row order: class, then path; in a corruption set, cells (corruption, severity) first.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nsvit import artifacts
from nsvit.data.decoded import Decoded, decode, read
from nsvit.data.pictures import check_image
from nsvit.data.published import imagenet_wnids, timm_info
from nsvit.data.rows import Row, find_rows
from nsvit.errors import NsvitError
from nsvit.runtime import progress, seed_for
from nsvit.specs import ScanSpec

log = logging.getLogger(__name__)

CHUNK = 10_000  # pictures handed to the threads at a time

# --- scanning -------------------------------------------------------------------------------


def scan(spec: ScanSpec, threads: int = 1) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Lists and checks the pictures of a set.

    Args:
        spec: where the set is, and what to do with damaged pictures.
        threads: how many pictures are read at once; the result does not depend on it.

    Returns:
        frame: path (posix, relative to the set's folder), label (int64), corruption ("" if
            none), severity (int8, 0 if none).
        info: name, root, classes (wnids), names, allowed (class indices or None), resize, crop,
            content (a hash of all files), and skipped (paths of damaged pictures), if any.

    Raises:
        NsvitError: names the folder or file that is missing, empty, unknown or not an image.
    """
    classes, names = read_classes(spec.classes)
    root = Path(spec.root) / spec.set.path
    rows = find_rows(Path(spec.root), spec.set, classes)
    whole, damaged, content = _examine(root, rows, spec, threads)
    frame = pd.DataFrame(whole, columns=["path", "label", "corruption", "severity"])
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
        "content": content,
    }
    return frame, info | ({"skipped": damaged} if damaged else {})


def _examine(
    root: Path, rows: Sequence[Row], spec: ScanSpec, threads: int
) -> tuple[list[Row], list[str], str]:
    """Reads every picture: rows of the whole ones, paths of damaged ones, hash of the whole.

    In a corruption set, a picture that is damaged in one cell is left out of all of them: every
    corruption and severity must show the same pictures.
    """
    found = _hashes([root / row[0] for row in rows], spec.set.damaged == "skip", threads)
    hashes = list(progress(found, f"scan {spec.name}", len(rows)))
    damaged = [row[0] for row, digest in zip(rows, hashes, strict=True) if digest is None]
    lost = {_across_cells(path, spec.set.layout) for path in damaged}
    content, whole = hashlib.sha256(), []
    for row, digest in zip(rows, hashes, strict=True):
        if digest is not None and _across_cells(row[0], spec.set.layout) not in lost:
            whole.append(row)
            content.update(f"{row[0]} {digest}\n".encode())
    if damaged:
        log.warning(
            "%s: %d of %d pictures cannot be decoded and are left out, as data.sets.%s.damaged "
            "says; the first is %s", root, len(damaged), len(rows), spec.name, damaged[0],
        )  # fmt: skip
    if not whole:
        raise NsvitError(f"{root}: not one picture can be decoded; get the set again")
    return whole, damaged, content.hexdigest()


def _hashes(paths: Sequence[Path], skip: bool, threads: int) -> Iterator[str | None]:
    """Decoding and hashing release the interpreter's lock, so threads do them side by side."""
    look = functools.partial(_hash_whole, skip=skip)
    if threads <= 1:
        yield from map(look, paths)
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), CHUNK):  # not millions of waiting jobs
            yield from pool.map(look, paths[start : start + CHUNK])


def _hash_whole(path: Path, skip: bool) -> str | None:
    """The hash of a picture's file, or None for a damaged one that is to be skipped."""
    try:
        check_image(path)
    except NsvitError:
        if not skip:
            raise
        return None
    return artifacts.sha256(path)


def _across_cells(path: str, layout: str) -> str:
    """What a picture is called in every cell of a corruption set; its path in another."""
    return path.split("/", 2)[2] if layout == "corruption" else path


def write_index(spec: ScanSpec, out: str | Path, threads: int = 1) -> None:
    """Scans a set and writes its index (parquet, kind "index"), and its pixels if they are few."""
    frame, info = scan(spec, threads)
    paths = [Path(info["root"]) / path for path in frame["path"]]
    kept = decode(paths, spec.set.resize, spec.set.crop, Path(out).with_suffix(".pixels"))
    metrics = {"pictures": len(frame)}
    if "skipped" in info:
        metrics["skipped"] = len(info["skipped"])
    sidecar = artifacts.provenance("index", spec.model_dump(mode="json"), metrics=metrics)
    info |= {"decoded": kept.facts()} if kept else {}
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
        skipped: damaged pictures that the scan left out, as paths below `root`.
        decoded: the pixels of the whole set, if they are kept.
        rows: where in the whole set each picture is; None: these are all, in order.
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
    skipped: tuple[str, ...] = ()
    decoded: Decoded | None = None
    rows: npt.NDArray[np.int64] | None = None

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
        chosen = np.asarray(positions, dtype=np.int64)
        rows = np.arange(len(self.frame)) if self.rows is None else self.rows
        frame = self.frame.iloc[chosen].reset_index(drop=True)
        return replace(self, frame=frame, rows=rows[chosen])

    def kept_pixels(self) -> npt.NDArray[np.uint8] | None:
        """The pictures (n, H, W, 3) under the evaluation transform; None where none are kept."""
        kept = self.decoded
        if kept is None or (kept.resize, kept.crop) != (self.resize, self.crop):
            return None
        return read(kept, np.arange(len(self.frame)) if self.rows is None else self.rows)

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
    kept = info.get("decoded")
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
        skipped=tuple(info.get("skipped", ())),
        decoded=kept and _decoded(Path(index).with_name(kept["path"]), kept),
    )


def _decoded(path: Path, facts: dict[str, Any]) -> Decoded:
    return Decoded(**{**facts, "path": path, "shape": tuple(facts["shape"])})


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
