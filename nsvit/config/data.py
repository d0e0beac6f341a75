"""Where the pictures are."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from nsvit.config.base import PositiveInt, Radius, Section, Slug

#: Sets whose counts and classes are known: `nsvit.data.published` says more about each.
PublishedName = Literal[
    "imagenet-train",
    "imagenet-val",
    "imagenet-a",
    "imagenet-r",
    "imagenet-v2",
    "imagenet-sketch",
    "imagenet-stylized",
    "imagenet-c",
    "damagenet",
    "imagenette-train",
    "imagenette-val",
]


class MenagerieCounts(Section):
    """How many pictures each embedded set gets."""

    train: PositiveInt = 8000
    val: PositiveInt = 1500
    v2: PositiveInt = 1000
    a: PositiveInt = Field(1000, description="natural pictures the reference CNN gets wrong")
    r: PositiveInt = 1000
    sketch: PositiveInt = 1000
    stylized: PositiveInt = 1000
    c: PositiveInt = Field(200, description="val pictures that are corrupted in 75 ways each")
    damagenet: PositiveInt = Field(1000, description="val pictures that are attacked on a CNN")


class TransferConfig(Section):
    """How set damagenet is made: MI-FGSM (linf) on a model of its own, as 8-bit pictures."""

    cnn: str = Field(
        "local-dir:nsvit/pretrained/cnn_t", description="timm model that is attacked; no other use"
    )
    radius: Radius = "16/255"
    steps: PositiveInt = 10
    decay: float = Field(1.0, ge=0, description="share of the momentum kept per step")


class MenagerieConfig(Section):
    """The embedded benchmark. Present: the rule `render` draws the sets. Absent: on disk."""

    seed: int = Field(7, ge=0, description="seed of every picture; independent of processes")
    size: int = Field(48, ge=32, description="side of a picture in pixels")
    counts: MenagerieCounts = MenagerieCounts()
    a_candidates: PositiveInt = Field(4000, description="pictures drawn to filter set a from")
    reference_cnn: str = Field(
        "local-dir:nsvit/pretrained/cnn_a", description="timm model that filters set a"
    )
    transfer: TransferConfig = TransferConfig()


class CorruptConfig(Section):
    """A set of layout `corruption` that is made here, from the pictures of another set."""

    source: Slug = Field(description="a key of data.sets, cut to size as it is evaluated")
    images: PositiveInt = Field(500, description="pictures of it, each corrupted in 75 ways")
    seed: int = Field(0, ge=0, description="of the corruptions that are random")


class SetConfig(Section):
    """One image set on disk."""

    path: str = Field(description="folder, relative to data.root")
    layout: Literal["wnid", "index", "corruption", "list", "devkit"] = Field(
        "wnid",
        description="<wnid>/*, <class number>/* (ImageNet-V2), <corruption>/<severity>/<wnid>/*, "
        "a flat folder with a list file (DAmageNet), or ImageNet's flat val with its devkit",
    )
    list: str | None = Field(
        None,
        description="layout list: file of lines '<file name> <class number or wnid>'; layout "
        "devkit: the devkit's ILSVRC2012_validation_ground_truth.txt, with meta.mat beside it. "
        "Relative to data.root; in the set's folder or elsewhere",
    )
    published: PublishedName | None = Field(
        None,
        description="it is this published set: `nsvit check-data` compares counts and classes",
    )
    partial: bool = Field(
        False, description="some classes may have no pictures; predictions are among all of them"
    )
    damaged: Literal["stop", "skip"] = Field(
        "stop",
        description="a picture that cannot be decoded: stop, or leave it out, count it and say so",
    )
    resize: int | None = Field(None, ge=1, description="shorter side after bicubic resize, pixels")
    crop: int | None = Field(None, ge=1, description="side of the centre crop, pixels")
    restrict: bool = Field(
        False, description="predict only among the classes that it has (ImageNet-A, -R)"
    )
    pictures: int | None = Field(
        None, ge=1, description="how many there are; only `nsvit plan` uses it, before a scan"
    )
    corrupt: CorruptConfig | None = Field(
        None, description="made from another set by the rule `corrupt`; none: it is on disk"
    )

    @model_validator(mode="after")
    def _list_fits_layout(self) -> SetConfig:
        labelled = self.layout in ("list", "devkit")
        if labelled and self.list is None:
            raise ValueError(f"layout {self.layout!r} needs `list`, the file with the labels")
        if not labelled and self.list is not None:
            raise ValueError("only layout 'list' or 'devkit' needs `list`, a file with the labels")
        return self


class DataConfig(Section):
    """Where the pictures are and what the classes are called."""

    root: str
    classes: str = Field(
        description="file with one wnid (and optionally a name) per line, or 'imagenet-1k'"
    )
    menagerie: MenagerieConfig | None = None
    sets: dict[Slug, SetConfig]
    train: Slug = "train"
    val: Slug = Field("val", description="the clean test set")
    dev_images: PositiveInt = Field(500, description="held out of train to choose on, never test")
    split_seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sets_are_sound(self) -> DataConfig:
        for key in ("train", "val"):
            if getattr(self, key) not in self.sets:
                raise ValueError(f"data.{key} is {getattr(self, key)!r}, not in data.sets")
        paths = {slug: PurePosixPath(own.path) for slug, own in self.sets.items()}
        for slug, path in paths.items():
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"data.sets.{slug}.path: a folder below data.root, not {path}")
            listing = PurePosixPath(self.sets[slug].list or "list")
            if listing.is_absolute() or ".." in listing.parts or not listing.parts:
                raise ValueError(f"data.sets.{slug}.list: a file below data.root, not {listing}")
            for other, its in paths.items():
                if other != slug and its.is_relative_to(path):
                    raise ValueError(f"data.sets.{other}.path: {its} is inside that of {slug}")
            if self.sets[slug].corrupt is not None:
                self._corrupt_is_sound(slug)
        if self.menagerie is not None:
            self._menagerie_is_sound(self.menagerie)
        return self

    def _corrupt_is_sound(self, slug: str) -> None:
        key, own = f"data.sets.{slug}.corrupt", self.sets[slug]
        made = own.corrupt
        source = self.sets.get(made.source) if made else None
        if self.menagerie is not None:
            raise ValueError(f"{key}: the embedded benchmark draws its own set c; leave it out")
        if own.layout != "corruption":
            raise ValueError(f"{key}: needs layout 'corruption', not {own.layout!r}")
        if source is None or source.layout == "corruption":
            raise ValueError(f"{key}.source: a set of clean pictures in data.sets is needed")
        if own.resize is not None or own.crop is not None:
            raise ValueError(
                f"{key}: its pictures are made at the size that their source is evaluated at; "
                f"leave resize and crop out of data.sets.{slug}"
            )

    def _menagerie_is_sound(self, menagerie: MenagerieConfig) -> None:
        counts = menagerie.counts.model_dump()
        unknown = sorted(set(self.sets) - set(counts))
        if unknown:
            raise ValueError(
                f"data.sets: the embedded benchmark has no {unknown}, only {sorted(counts)}"
            )
        if (self.train, self.val) != ("train", "val"):
            raise ValueError("data.train and data.val: the embedded benchmark's are train and val")
        if counts["c"] > counts["val"]:
            raise ValueError("data.menagerie.counts.c: more than there are pictures in val")
        if "damagenet" in self.sets:
            self._transfer_is_sound(menagerie)
        if self.dev_images >= counts["train"]:
            raise ValueError("data.dev_images: leaves nothing of train to train on")

    def _transfer_is_sound(self, menagerie: MenagerieConfig) -> None:
        own, counts = self.sets["damagenet"], menagerie.counts
        if counts.damagenet > counts.val:
            raise ValueError("data.menagerie.counts.damagenet: more than there are pictures in val")
        if menagerie.transfer.cnn == menagerie.reference_cnn:
            raise ValueError("data.menagerie.transfer.cnn: it already filters set a; take another")
        if own.list is None or PurePosixPath(own.list).parent != PurePosixPath(own.path):
            raise ValueError(
                "data.sets.damagenet: the embedded benchmark's has layout 'list' and its list "
                f"file in its own folder ({own.path}/val_damagenet.txt)"
            )
