"""Where the pictures are."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from nsvit.config.base import PositiveInt, Section, Slug


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


class MenagerieConfig(Section):
    """The embedded benchmark. Present: the rule `render` draws the sets. Absent: on disk."""

    seed: int = Field(7, ge=0, description="seed of every picture; independent of processes")
    size: int = Field(48, ge=32, description="side of a picture in pixels")
    counts: MenagerieCounts = MenagerieCounts()
    a_candidates: PositiveInt = Field(4000, description="pictures drawn to filter set a from")
    reference_cnn: str = Field(
        "local-dir:nsvit/pretrained/cnn_a", description="timm model that filters set a"
    )


class SetConfig(Section):
    """One image set on disk."""

    path: str = Field(description="folder, relative to data.root")
    layout: Literal["wnid", "index", "corruption"] = Field(
        "wnid",
        description="<wnid>/*, <class number>/* (ImageNet-V2) or <corruption>/<severity>/<wnid>/*",
    )
    resize: int | None = Field(None, ge=1, description="shorter side after bicubic resize, pixels")
    crop: int | None = Field(None, ge=1, description="side of the centre crop, pixels")
    restrict: bool = Field(
        False, description="predict only among the classes that have a folder (ImageNet-A, -R)"
    )


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
            for other, its in paths.items():
                if other != slug and its.is_relative_to(path):
                    raise ValueError(f"data.sets.{other}.path: {its} is inside that of {slug}")
        if self.menagerie is not None:
            self._menagerie_is_sound(self.menagerie)
        return self

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
        if self.dev_images >= counts["train"]:
            raise ValueError("data.dev_images: leaves nothing of train to train on")
