"""The machine's ceiling: matrix products, which the tables set the steps beside."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.runner import Case
from benchmarks.subjects import FEW
from nsvit.autoprecision import has_bf16
from nsvit.errors import NsvitError

FP32, BF16 = "fp32", "bf16"


def cases(args: argparse.Namespace) -> list[Case]:
    """On the CPU with all cores, and on a GPU if there is one."""
    found = [product("cpu", 1024)]
    if torch.cuda.is_available():
        found.append(product("cuda", 8192))
    return found


def product(device: str, side: int) -> Case:
    """One square product in each precision."""
    drawn = torch.Generator().manual_seed(0)
    one, two = (torch.randn(side, side, generator=drawn).to(device) for _ in range(2))
    repeats = 10
    operands = {FP32: (one, two)}
    if has_bf16(torch.device(device)):
        operands[BF16] = (one.bfloat16(), two.bfloat16())

    def work(pair: tuple[Tensor, Tensor]) -> Tensor:
        for _ in range(repeats):
            result = pair[0] @ pair[1]
        return result

    def check(found: Mapping[str, Tensor]) -> str:
        exact = found[FP32]
        gaps = {name: float((own - exact).norm() / exact.norm()) for name, own in found.items()}
        if max(gaps.values()) > 0.02:
            raise NsvitError(f"products differ: {gaps}")
        return ", ".join(f"{name} differs by {gap:.1e}" for name, gap in gaps.items())

    return Case(
        f"matrix product of side {side}, {device}",
        {name: (lambda pair=pair: work(pair)) for name, pair in operands.items()},  # type: ignore[misc]
        check,
        items=repeats,
        unit="product",
        clock="wall",
        repeats=FEW,
        threads=os.cpu_count() if device == "cpu" else None,
        flops=dict.fromkeys(operands, 2.0 * side**3),
    )
