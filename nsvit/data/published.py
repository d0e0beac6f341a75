"""The published sets: what each must hold, where it is had, how large it is, on which terms.

Numbers are those their authors document; nothing here was downloaded. No torch.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from nsvit.config.data import PublishedName
from nsvit.data.corruptions import CORRUPTIONS
from nsvit.errors import NsvitError

MB, GB = 10**6, 10**9

_IMAGENET_TERMS = "ImageNet's terms of access: research and education, not commerce"
_DERIVED = "; its pictures are derived from ImageNet's, whose terms hold too"


@dataclass(frozen=True)
class Archive:
    """One file to download.

    Attributes:
        file: its name.
        url: where it is.
        size: bytes; rounded where `exact` is false.
        checksum: 'md5:...' or 'sha256:...'.
        parts: folders of the set's folder that it brings; none: the whole of it.
        exact: `size` is documented to the byte.
    """

    file: str
    url: str
    size: int
    checksum: str
    parts: tuple[str, ...] = ()
    exact: bool = True


@dataclass(frozen=True)
class Published:
    """One published set.

    Attributes:
        title: as people call it.
        pictures: how many there are; in a corruption set, in each corruption and severity.
        classes: how many classes have pictures.
        each: pictures of every class where they are all the same, else None.
        place: where it is had.
        size: bytes on disk, about; None where nobody documents it.
        licence: terms, as its authors state them.
        archives: what `nsvit fetch-data` downloads; none: by hand.
        how: what to do by hand.
    """

    title: str
    pictures: int
    classes: int
    each: int | None
    place: str
    size: int | None
    licence: str
    archives: tuple[Archive, ...] = ()
    how: str = ""


_C = "https://zenodo.org/records/2235448/files"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
_IMAGENETTE = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"
_IMAGENETTE_HOW = (
    "download imagenette2-320.tgz (md5 3df6f0d01a2c9592104656642f5e78a3) and unpack it in "
    "data.root: it holds imagenette2-320/train and imagenette2-320/val"
)

PUBLISHED: dict[PublishedName, Published] = {
    "imagenet-train": Published(
        "ImageNet-1k, train",
        1_281_167,
        1000,
        None,
        "https://image-net.org/download.php (free account, terms to accept)",
        148 * GB,
        _IMAGENET_TERMS,
        how="download ILSVRC2012_img_train.tar; it holds 1000 archives, one per class: unpack "
        "each into a folder named like it (n01440764.tar into n01440764/)",
    ),
    "imagenet-val": Published(
        "ImageNet-1k, val",
        50_000,
        1000,
        50,
        "https://image-net.org/download.php (free account, terms to accept)",
        7 * GB,
        _IMAGENET_TERMS,
        how="download ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, unpack both, and "
        "say `layout: devkit` and `list: .../ILSVRC2012_validation_ground_truth.txt`; or sort "
        "the pictures into one folder per wnid and say nothing",
    ),
    "imagenet-a": Published(
        "ImageNet-A",
        7_500,
        200,
        None,
        "https://github.com/hendrycks/natural-adv-examples",
        688 * MB,
        "MIT (its repository)",
        (
            Archive(
                "imagenet-a.tar",
                f"{_HENDRYCKS}/imagenet-a.tar",
                687_552_512,
                "md5:c3e55429088dc681f30d81f4726b6595",
            ),
        ),
    ),
    "imagenet-r": Published(
        "ImageNet-R",
        30_000,
        200,
        None,
        "https://github.com/hendrycks/imagenet-r",
        2_191 * MB,
        "as its repository states",
        (
            Archive(
                "imagenet-r.tar",
                f"{_HENDRYCKS}/imagenet-r.tar",
                2_191_079_936,
                "md5:a61312130a589d0ca1a8fca1f2bd3337",
            ),
        ),
    ),
    "imagenet-v2": Published(
        "ImageNet-V2, matched frequency",
        10_000,
        1000,
        10,
        "https://github.com/modestyachts/ImageNetV2",
        1_264 * MB,
        "MIT (its repository)",
        (
            Archive(
                "imagenetv2-matched-frequency.tar.gz",
                "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                "imagenetv2-matched-frequency.tar.gz",
                1_264_079_360,
                "sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
            ),
        ),
    ),
    "imagenet-sketch": Published(
        "ImageNet-Sketch",
        50_889,
        1000,
        None,
        "https://github.com/HaohanWang/ImageNet-Sketch",
        7_594 * MB,
        "MIT (its repository)",
        (
            Archive(
                "ImageNet-Sketch.zip",
                "https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/main/data/"
                "ImageNet-Sketch.zip",
                7_593_573_012,
                "sha256:4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed",
            ),
        ),
    ),
    "imagenet-stylized": Published(
        "Stylized-ImageNet, val",
        50_000,
        1000,
        50,
        "https://github.com/rgeirhos/Stylized-ImageNet",
        None,
        f"code MIT{_DERIVED}",
        how="there is no archive: its authors' code makes it from ImageNet and a set of paintings "
        "(on a GPU); take the folder `val` that it writes",
    ),
    "imagenet-c": Published(
        "ImageNet-C",
        50_000,
        1000,
        50,
        "https://zenodo.org/records/2235448",
        47 * GB,
        f"as stated on Zenodo{_DERIVED}",
        (
            Archive(
                "noise.tar",
                f"{_C}/noise.tar",
                21 * GB,
                "md5:e80562d7f6c3f8834afb1ecf27252745",
                ("gaussian_noise", "shot_noise", "impulse_noise"),
                exact=False,
            ),
            Archive(
                "blur.tar",
                f"{_C}/blur.tar",
                7 * GB,
                "md5:2d8e81fdd8e07fef67b9334fa635e45c",
                ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
                exact=False,
            ),
            Archive(
                "weather.tar",
                f"{_C}/weather.tar",
                12 * GB,
                "md5:33ffea4db4d93fe4a428c40a6ce0c25d",
                ("snow", "frost", "fog", "brightness"),
                exact=False,
            ),
            Archive(
                "digital.tar",
                f"{_C}/digital.tar",
                7 * GB,
                "md5:89157860d7b10d5797849337ca2e5c03",
                ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
                exact=False,
            ),
        ),
    ),
    "imagenette-train": Published(
        "Imagenette, 320 px, train",
        9_469,
        10,
        None,
        _IMAGENETTE,
        None,
        f"Apache-2.0 (its repository){_DERIVED}",
        how=_IMAGENETTE_HOW,
    ),
    "imagenette-val": Published(
        "Imagenette, 320 px, val",
        3_925,
        10,
        None,
        _IMAGENETTE,
        None,
        f"Apache-2.0 (its repository){_DERIVED}",
        how=_IMAGENETTE_HOW,
    ),
    "damagenet": Published(
        "DAmageNet",
        50_000,
        1000,
        None,
        "its authors' page (search for DAmageNet, Shanghai Jiao Tong University)",
        None,
        f"not stated{_DERIVED}",
        how="download DAmageNet.zip and its list of labels from its authors' page; its folder is "
        "flat, so say `layout: list` and `list:` with the list's path",
    ),
}


# --- classes --------------------------------------------------------------------------------


def timm_info() -> Path:
    """The folder of timm's lists of classes, found without importing timm and so torch.

    Raises:
        NsvitError: timm is not installed.
    """
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        raise NsvitError("classes 'imagenet-1k': timm, which carries the list, is not installed")
    return Path(found.submodule_search_locations[0]) / "data" / "_info"


def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids in class order."""
    return tuple((timm_info() / "imagenet_synsets.txt").read_text("utf-8").split())


#: In class order; as torchvision lists them.
_IMAGENETTE_WNIDS = (
    *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
    *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
)


def class_subset(name: PublishedName) -> tuple[str, ...]:
    """The WordNet ids of the classes that a set has pictures of, in class order."""
    if name in ("imagenette-train", "imagenette-val"):
        return _IMAGENETTE_WNIDS
    every = imagenet_wnids()
    listed = {"imagenet-a": "imagenet_a_indices.txt", "imagenet-r": "imagenet_r_indices.txt"}
    if name not in listed:
        return every
    indices = (timm_info() / listed[name]).read_text("utf-8").split()
    return tuple(every[int(index)] for index in indices)


assert {part for a in PUBLISHED["imagenet-c"].archives for part in a.parts} == set(CORRUPTIONS)
