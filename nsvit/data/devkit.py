"""Lists that say which picture is of which class, among them ImageNet's own devkit. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsvit.errors import NsvitError

#: Line number, file name and class index.
Line = tuple[int, str, int]


def read_listing(path: Path) -> str:
    """The text of a list file.

    Raises:
        NsvitError: no such file, or not text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such list file" if isinstance(error, FileNotFoundError) else str(error)
        raise NsvitError(f"{path}: {reason}; it is the set's `list`") from None


def devkit_lines(truth: Path, classes: Sequence[str]) -> list[Line]:
    """What ImageNet's devkit says about its flat val set, a line for every picture.

    Args:
        truth: the devkit's ILSVRC2012_validation_ground_truth.txt; its i-th line is the ILSVRC
            id, 1 to 1000, of picture ILSVRC2012_val_<i, 8 digits>.JPEG. The order of these ids
            is not that of the classes: meta.mat beside it says which wnid each is.
        classes: WordNet ids in class order.

    Raises:
        NsvitError: a file is missing or damaged, or a line is no id, or of no known class.
    """
    wnids = _read_meta(truth.parent / "meta.mat")
    number = {wnid: i for i, wnid in enumerate(classes)}
    found = []
    for line, word in enumerate(read_listing(truth).split(), 1):
        wnid = wnids.get(int(word)) if word.isdecimal() else None
        if wnid is None:
            raise NsvitError(
                f"{truth}, line {line}: {word!r} is no ILSVRC id (1 to {max(wnids)}); unpack the "
                "devkit again"
            )
        if wnid not in number:
            raise NsvitError(
                f"{truth}, line {line}: {wnid} (ILSVRC id {word}) is none of the {len(classes)} "
                "classes of data.classes"
            )
        found.append((line, f"ILSVRC2012_val_{line:08d}.JPEG", number[wnid]))
    if not found:
        raise NsvitError(f"{truth}: lists no pictures; unpack the devkit again")
    return found


def _read_meta(path: Path) -> dict[int, str]:
    """The wnid of every ILSVRC id that is a class: inner nodes of WordNet are left out."""
    import scipy.io

    if not path.is_file():
        raise NsvitError(
            f"{path}: no such file; the devkit's ground truth is of no use without it, unpack "
            "ILSVRC2012_devkit_t12.tar.gz"
        )
    try:
        synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        return {
            int(one["ILSVRC2012_ID"]): str(one["WNID"])
            for one in synsets
            if int(one["num_children"]) == 0
        }
    except Exception as error:  # scipy raises whatever a damaged file leads it to
        raise NsvitError(
            f"{path}: not the devkit's meta.mat ({error}); unpack ILSVRC2012_devkit_t12.tar.gz "
            "again"
        ) from None
