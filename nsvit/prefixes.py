"""The part of a network before the place where noise enters: computed once per batch of pictures.

Noise at block k does not change what the blocks before it give. That is kept, and a pass with noise
begins at block k: the same numbers from the same operations, fewer of them. The pass is still
timm's own; only the modules before the noise give what they gave before. Not in the authors' code,
which learns noise at the patch embedding only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nsvit import precision
from nsvit.config import Precision
from nsvit.models import PixelModel, inject

log = logging.getLogger(__name__)

#: Pictures on which it is tried whether a network can begin at a block.
TRIED = 2


@dataclass(frozen=True)
class Prefix:
    """What a network's modules before a block gave for a batch.

    Attributes:
        block: k; 0 is the end of the patch embedding.
        tokens: what block k - 1 gave, mostly (B, N, D) with class and register tokens; of block 0
            what the patch embedding gave.
        embedded: shape and type of what the patch embedding gave.
    """

    block: int
    tokens: Tensor
    embedded: tuple[torch.Size, torch.dtype]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.tokens.numel() * self.tokens.element_size()


class _Reached(Exception):
    """A pass came to the block; the rest of it is not needed."""


def clean_pass(
    model: PixelModel, images: Tensor, block: int, passes: Precision
) -> tuple[Tensor, Prefix]:
    """Logits (B, classes) without noise, and the prefix that this pass computes anyway.

    Args:
        model: frozen, a plain ViT.
        images: (B, 3, H, W) pixels in [0, 1].
        block: where noise will enter.
        passes: precision.
    """
    with torch.no_grad(), precision.autocast(images.device, passes), _recorded(model, block) as got:
        logits = precision.full(model(images), passes)
    return logits, got()


def prefix_of(model: PixelModel, images: Tensor, block: int, passes: Precision) -> Prefix:
    """The prefix alone: the pass ends where noise would enter. Arguments as `clean_pass`."""
    with torch.no_grad(), precision.autocast(images.device, passes):
        try:
            with _recorded(model, block, stop=True) as got:
                model(images)
        except _Reached:
            pass
    return got()


@contextmanager
def resumed(model: PixelModel, prefix: Prefix | None) -> Iterator[None]:
    """Inside, passes over the pictures of the prefix begin at its block; None: passes are whole.

    What enters the block may be changed there (`models.inject`).
    """
    if prefix is None:
        yield
        return
    embedding, before = _embedding(model), list(model.blocks[: prefix.block])
    given = prefix.tokens
    if before:  # its own numbers are not looked at any more
        shape, dtype = prefix.embedded
        given = torch.zeros((), dtype=dtype, device=given.device).expand(shape)
    with ExitStack() as stack:
        stack.enter_context(_gives(embedding, given))
        for module in before[:-1]:
            stack.enter_context(_gives(module, None))
        if before:
            stack.enter_context(_gives(before[-1], prefix.tokens))
        yield


def can_resume(model: PixelModel, images: Tensor, block: int, passes: Precision) -> bool:
    """Whether passes that begin at a block give the same logits as whole ones, bit for bit.

    Tried on a few pictures. Not so where a network looks at its early blocks elsewhere again.

    Args:
        model: frozen, a plain ViT.
        images: (B, 3, H, W) pixels in [0, 1].
        block: where noise will enter; any noise is tried.
        passes: precision.
    """
    few, shape = images[:TRIED], (1, *model.token_shape)
    noise = torch.linspace(-1, 1, math.prod(shape), device=few.device).view(shape)
    with torch.no_grad(), precision.autocast(few.device, passes), inject(model, noise, block):
        whole = model.forward(few)
        try:
            prefix = prefix_of(model, few, block, passes)
            with resumed(model, prefix):
                same = torch.equal(model.forward(few), whole)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            log.debug("model %s cannot begin at block %d: %s", model.architecture, block, error)
            same = False
    if not same:
        log.info("model %s: passes with noise at block %d are whole", model.architecture, block)
    return same


def _embedding(model: PixelModel) -> nn.Module:
    return model.net.patch_embed  # type: ignore[return-value]


@contextmanager
def _recorded(model: PixelModel, block: int, stop: bool = False) -> Iterator[Any]:
    """Gives what says what the pass inside has given; with `stop` the pass ends there."""
    found: dict[str, Tensor] = {}

    def embedded(module: nn.Module, args: Any, output: Tensor) -> None:
        found["embedded"] = output
        if block == 0 and stop:
            raise _Reached

    def reached(module: nn.Module, args: Any, output: Tensor) -> None:
        found["tokens"] = output
        if stop:
            raise _Reached

    def prefix() -> Prefix:
        first = found["embedded"]
        tokens = found["tokens"] if block else first
        return Prefix(block, tokens.detach(), (first.shape, first.dtype))

    # First of all hooks, so that it sees what the module gave and not what hooks made of it.
    handles = [_embedding(model).register_forward_hook(embedded, prepend=True)]
    if block:
        handles.append(model.blocks[block - 1].register_forward_hook(reached, prepend=True))
    try:
        yield prefix
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _gives(module: nn.Module, output: Tensor | None) -> Iterator[None]:
    """Inside, a module computes nothing and gives `output`, or its own input if None."""
    own = module.__dict__.get("forward")
    module.forward = lambda first, *rest, **more: first if output is None else output  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.forward = own  # type: ignore[method-assign]
