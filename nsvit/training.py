"""What finetuning and pretraining share: the optimiser, the schedule and the dev measurement."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from timm.layers import DropPath
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvit import distributed, stopping
from nsvit.errors import NsvitError
from nsvit.inputs import Pictures
from nsvit.models import PixelModel, frozen


def adamw(net: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with timm's convention: no weight decay on biases, norms and position embeddings.

    The fused kernel is used: one call for all weights, the same on every run.
    """
    exempt = getattr(net, "no_weight_decay", lambda: ())()
    groups = param_groups_weight_decay(net, weight_decay, no_weight_decay_list=exempt)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` (progress 0) to `end` (progress 1)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def measure(model: PixelModel, pictures: Pictures, batch_size: int = 250) -> tuple[float, float]:
    """Accuracy (a fraction) and mean cross-entropy (nats) under the evaluation transform."""
    device, total = model.mean.device, len(pictures.image_set)
    starts = range(0, total, batch_size)
    found = torch.zeros(len(starts), 2, dtype=torch.float64)
    with frozen(model), torch.inference_mode():
        for (row, start), own in distributed.dealt(enumerate(starts)):
            if not own:
                continue
            stopping.own_point()
            batch = pictures.part(start, start + batch_size)
            for images, labels in batch.batches(batch_size, device):
                logits = model(images)
                found[row, 0] = int((logits.argmax(1) == labels).sum())
                found[row, 1] = float(cross_entropy(logits, labels, reduction="sum"))
    correct, loss = 0.0, 0.0
    for row in distributed.summed(found).tolist():  # in order, whoever measured it
        correct, loss = correct + row[0], loss + row[1]
    return correct / total, loss / total


@contextlib.contextmanager
def drop_path(model: PixelModel, rate: float) -> Iterator[None]:
    """Stochastic depth rising linearly to `rate` over the blocks (timm); 0 changes nothing."""
    if rate == 0.0:
        yield
        return
    replaced = []
    rates = torch.linspace(0, rate, len(model.blocks)).tolist()
    for block, own in zip(model.blocks, rates, strict=True):
        for name in ("drop_path", "drop_path1", "drop_path2"):
            if hasattr(block, name):
                replaced.append((block, name, getattr(block, name)))
                setattr(block, name, GlobalDropPath(own))
    try:
        yield
    finally:
        for block, name, before in replaced:
            setattr(block, name, before)


class GlobalDropPath(nn.Module):
    """timm's DropPath whose draws are those of a global batch, of which some rows are at hand.

    Alone and in one pass it is timm's, bit for bit.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.total: int | None = None
        self.rows: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drops (B, N, D) of some pictures and scales the others up."""
        if self.rate == 0.0 or not self.training:
            return x
        kept = 1.0 - self.rate
        drawn = x.new_empty((self.total or len(x),) + (1,) * (x.ndim - 1)).bernoulli_(kept)
        if kept > 0.0:
            drawn.div_(kept)
        return x * (drawn if self.rows is None else drawn[self.rows])


@contextlib.contextmanager
def rows_at_hand(model: PixelModel, rows: slice, total: int, halves: int = 2) -> Iterator[None]:
    """Tells `GlobalDropPath` which rows of a global batch, made of so many halves, it will see."""
    layers = [module for module in model.modules() if isinstance(module, GlobalDropPath)]
    index = torch.arange(rows.start, rows.stop)
    if len(index) == total:
        layers = []
    try:
        for layer in layers:
            layer.total = halves * total
            layer.rows = torch.cat([index + half * total for half in range(halves)])
        yield
    finally:
        for layer in layers:
            layer.total = layer.rows = None


def refuse_coupled(model: PixelModel) -> None:
    """Refuses layers for which parts of a batch are not the batch: batch norm, and dropout.

    Their statistics or draws would depend on how many processes and passes a batch is split over.

    Raises:
        NsvitError: names the layer.
    """
    for name, module in model.net.named_modules():
        random = isinstance(module, nn.Dropout) and module.p > 0
        random = random or (isinstance(module, DropPath) and bool(module.drop_prob))
        if random or isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise NsvitError(
                f"model {model.architecture!r}: layer {name} ({type(module).__name__}) makes a "
                "picture's result depend on its batch; finetune it in one process "
                "(machine.processes: 1) and one pass (finetune.accumulate: 1), or set the model's "
                "dropout rates to 0 and use finetune.drop_path"
            )


@contextlib.contextmanager
def checkpointed(model: PixelModel, wanted: bool) -> Iterator[None]:
    """Blocks are computed again on the way back instead of being kept (timm), if wanted.

    What changes a forward pass (noise, rows at hand) must last until the backward pass is done.

    Raises:
        NsvitError: timm cannot do it for this architecture.
    """
    if not wanted:
        yield
        return
    switch = getattr(model.net, "set_grad_checkpointing", None)
    if switch is None:
        raise NsvitError(
            f"model {model.architecture!r} has no gradient checkpointing in timm: set "
            "finetune.gradient_checkpointing to false"
        )
    switch(True)
    try:
        yield
    finally:
        switch(False)
