"""The verbs `nullspace` and `nullity`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nsvit import artifacts, runtime
from nsvit.models import PixelModel
from nsvit.nullspace.basis import nullspace_basis
from nsvit.nullspace.demonstration import demonstrate, save_nullspace
from nsvit.nullspace.table import nullity_row, nullity_table

if TYPE_CHECKING:
    from nsvit.data.layouts import ImageSet
    from nsvit.specs import NullitySpec, NullspaceSpec


def run(
    spec: NullspaceSpec,
    model: PixelModel,
    pictures: ImageSet,
    out: str | Path,
    inputs: Sequence[str | Path] = (),
) -> None:
    """The verb `nullspace`: basis, nullity and demonstration of one model.

    Args:
        spec: tolerance, pictures and peak.
        model: on the device to compute on.
        pictures: the validation set.
        out: `*.safetensors`; metrics (those of `nullity_row` and `Demonstration`) in its sidecar.
        inputs: files whose hashes go into the sidecar.
    """
    from nsvit.data import loading

    config = spec.nullspace
    basis = nullspace_basis(model, config.rtol)
    demonstration = None
    if basis.nullity:
        shown = pictures.take(config.images)
        images = loading.to_float(loading.load_pixels(shown))
        labels = torch.tensor(shown.labels)
        seed = runtime.generator("nullspace", spec.model)
        demonstration = demonstrate(model, basis, images, config.peak, seed, labels=labels)
    row = {**nullity_row(model, basis), "names": list(pictures.names)}
    sidecar = artifacts.provenance("nullspace", spec.model_dump(), inputs, metrics=row)
    save_nullspace(basis, demonstration, out, sidecar)


def write_nullity(spec: NullitySpec, out: str | Path) -> None:
    """The verb `nullity`: the table of timm architectures as csv; empty cells are not measured."""
    artifacts.write_text(out, nullity_table(spec.architectures, spec.rtol).to_csv(index=False))
