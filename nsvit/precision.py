"""The precision of forward passes: single, or mixed with 16-bit matrix products (autocast).

Weights, optimiser, losses and what is measured stay in single precision.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from nsvit.config import Precision
from nsvit.errors import NsvitError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager:
    """Forward passes inside are in this precision; nothing at all for "fp32".

    Raises:
        NsvitError: the precision is still to be chosen (`nsvit.autoprecision`).
    """
    if precision == "auto":
        raise NsvitError("precision auto: choose one first (nsvit.autoprecision.settled)")
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, _TYPES[precision])


def full(logits: Tensor, precision: Precision) -> Tensor:
    """Logits in single precision again; as they are for "fp32"."""
    return logits if precision == "fp32" else logits.float()


def scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Scales losses so that gradients in fp16 do not vanish; does nothing for the others."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def refuse(device: torch.device, precision: Precision, key: str) -> None:
    """Refuses a precision that a device does not have; "auto" never is one of these.

    Raises:
        NsvitError: names the key of the configuration.
    """
    if precision == "auto":
        return
    if precision == "fp16" and device.type != "cuda":
        raise NsvitError(f"{key}: fp16 runs on GPUs only, here is {device.type}; use bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise NsvitError(f"{key}: this GPU has no bf16; use fp16 or fp32")
