"""The table of rank and nullity (METHOD.md section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch

from nsvit.config import local_dir
from nsvit.models import PixelModel, build, load_model
from nsvit.nullspace.basis import NullspaceBasis, nullspace_basis

GUARANTEED = (
    "columns", "width", "guaranteed_nullity", "patches", "guaranteed_nullity_per_image",
)  # fmt: skip


def nullity_row(model: PixelModel, basis: NullspaceBasis | None = None) -> dict[str, Any]:
    """One row of the nullity table: METHOD.md section 2, measured too if there is a basis.

    Returns:
        architecture, patch (side in pixels, "h x w" if not square), columns (c * r_h * r_w),
        width (D), guaranteed_nullity, patches (N), guaranteed_nullity_per_image; rank, nullity
        and nullity_per_image are None without a basis.
    """
    tokens, width = model.token_shape
    weight = model.projection.weight
    columns, (rows, side) = weight[0].numel(), weight.shape[2:]
    guaranteed = max(0, columns - width)
    return {
        "architecture": model.architecture,
        "patch": str(rows) if rows == side else f"{rows} x {side}",
        "columns": columns,
        "width": width,
        "guaranteed_nullity": guaranteed,
        "patches": tokens,
        "guaranteed_nullity_per_image": guaranteed * tokens,
        "rank": basis.rank if basis else None,
        "nullity": basis.nullity if basis else None,
        "nullity_per_image": basis.nullity * tokens if basis else None,
    }


def nullity_table(architectures: Iterable[str], rtol: float = 1e-6) -> pd.DataFrame:
    """Rank and nullity of timm architectures, one `nullity_row` each.

    Args:
        architectures: timm names, built without memory for weights (only the shape counts), or
            `local-dir:FOLDER`, whose weights are read and whose rank is measured.
        rtol: tolerance of the measured rank.

    Raises:
        NsvitError: timm does not know a name, or it has no linear patch embedding.
    """
    rows = []
    for name in architectures:
        if local_dir(name) is not None:
            model = load_model(name)
            rows.append(nullity_row(model, nullspace_basis(model, rtol)))
        else:
            with torch.device("meta"):
                model = build(name, {}, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
            rows.append(nullity_row(model))
    measured = {"rank": "Int64", "nullity": "Int64", "nullity_per_image": "Int64"}
    columns = ["architecture", "patch", *GUARANTEED, *measured]
    return pd.DataFrame(rows, columns=columns).astype(measured)
