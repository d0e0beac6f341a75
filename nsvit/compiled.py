"""Encoder blocks through torch.compile, where the configuration asks for it.

Only the blocks' own computation is compiled. What surrounds it stays as it is: the patch embedding,
the hooks by which noise enters (`models.inject`), and passes that begin at a block (`prefixes`).
torch keeps what it compiled beside timm's code, for all blocks alike and for later calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nsvit.errors import NsvitError
from nsvit.models import PixelModel

#: For torch.compile. Random numbers (drop path) are those drawn without it.
HOW: dict[str, Any] = {"backend": "inductor", "options": {"fallback_random": True}}

#: Ways in which each block may be passed before torch gives up and leaves it as it is: with
#: gradients and without, in training and not, in two precisions, one picture or more.
WAYS = 8


def refuse(device: torch.device, wanted: bool, key: str) -> None:
    """Refuses to compile where torch.compile does not work, tried once on a sum.

    Raises:
        NsvitError: names the key of the configuration.
    """
    problem = _problem(device.type, HOW["backend"]) if wanted else None
    if problem is not None:
        raise NsvitError(
            f"{key}: torch.compile does not work here ({device.type}): {problem}. It needs a C++ "
            "compiler and Python's headers, on GPUs triton too; install what is missing, or set "
            f"{key} to false"
        )


@functools.cache
def _problem(device: str, backend: object) -> str | None:
    try:
        torch.compile(lambda x: x.sin() + 1, **HOW)(torch.zeros(8, device=device))
    except Exception as error:  # compilers, triton and torch raise many types
        return _reason(error)
    return None


@contextmanager
def blocks(model: PixelModel, wanted: bool, key: str) -> Iterator[None]:
    """Inside, the blocks of a plain ViT are computed by compiled code, if wanted.

    The same numbers but for rounding. A first pass of its kind takes as long as compiling does.

    Args:
        model: also with noise, prefixes, gradient checkpointing or autocast inside.
        wanted: False changes nothing.
        key: of the configuration, for messages.

    Raises:
        NsvitError: a pass inside comes to a block that cannot be compiled.
    """
    if not wanted:
        yield
        return
    # The name that torch 2.4 has too.
    limit = torch._dynamo.config.patch(cache_size_limit=WAYS * len(model.blocks))
    with limit, ExitStack() as stack:
        for block in model.blocks:
            stack.enter_context(_replaced(block))
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:  # also on the way back
            raise NsvitError(
                f"{key}: torch.compile cannot compile the blocks of model {model.architecture!r}: "
                f"{_reason(error)}; set {key} to false"
            ) from None


@contextmanager
def _replaced(block: nn.Module) -> Iterator[None]:
    own = block.__dict__.get("forward")
    block.forward = _compiled(block.forward)
    try:
        yield
    finally:
        if own is None:
            del block.__dict__["forward"]
        else:
            block.forward = own


def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    run = torch.compile(forward, **HOW)

    def through(tokens: Tensor, *rest: Any, **more: Any) -> Tensor:
        # One code for all batches from the start, so that it is the same wherever work goes on.
        torch._dynamo.maybe_mark_dynamic(tokens, 0)
        return run(tokens, *rest, **more)

    return through


def _reason(error: Exception) -> str:
    text = str(getattr(error, "inner_exception", error))  # what is around it names the backend
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
