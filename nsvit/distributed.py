"""Several processes that compute one result: who does what, and what they tell each other.

Every process plans the same global batch and takes its own part of it; what it finds is weighted
by how many pictures it saw, and summed. Alone, every function here gives back what it was given,
bit for bit. The processes are started by `nsvit.launcher`; Accelerate finds out which one this is,
sets its GPU, and makes them talk (gloo on CPUs, nccl on GPUs).

Accelerate's own wrapping of models is not used: it averages over processes, so that a picture of
a smaller part would count more.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nsvit import launcher, stopping
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Tensors are joined into messages of about so many numbers, so that small ones share a message
#: and all gradients are never copied at once.
_MESSAGE = 1 << 24


def start() -> None:
    """Joins the other processes, if this one was started as one of several; else does nothing.

    Called again it does nothing either.

    Raises:
        NsvitError: the others cannot be reached, or not every process of this machine has a GPU.
    """
    if launcher.started() == 1 or dist.is_initialized():
        return
    from accelerate import PartialState

    named = os.environ.get("NSVIT_DEVICE") or "auto"
    if named not in ("auto", "cpu", "cuda"):
        raise NsvitError(
            f"NSVIT_DEVICE={named}: several processes cannot share one device; unset it, or name "
            "GPUs in CUDA_VISIBLE_DEVICES"
        )
    on_cpu = named == "cpu" or not torch.cuda.is_available()
    own = int(os.environ.get("LOCAL_RANK", "0"))
    if not on_cpu and own >= torch.cuda.device_count():
        raise NsvitError(
            f"process {own} of this machine has no GPU, {torch.cuda.device_count()} are visible: "
            "lower machine.processes, ask for more GPUs, or set NSVIT_DEVICE=cpu"
        )
    _die_with_parent()
    limit = launcher.timeout()
    try:
        PartialState(
            cpu=on_cpu,
            backend="gloo" if on_cpu else "nccl",
            timeout=timedelta(seconds=limit),
        )
        barrier()
    except (RuntimeError, ValueError) as error:
        raise NsvitError(
            f"{launcher.started()} processes could not join within {limit:g} s (NSVIT_TIMEOUT): "
            f"{str(error).splitlines()[0]}"
        ) from None
    log.info("%d processes (%s)", count(), dist.get_backend())


def _die_with_parent() -> None:
    """Ends this process when the one that started it is killed, so that nothing writes on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def count() -> int:
    """How many processes compute this result together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_main() -> bool:
    """Whether this is the one that writes files."""
    return rank() == 0


# --- who does what --------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Rows of a global batch.

    Attributes:
        rows: which.
        weight: their share of the batch: what a mean over them counts in the batch's mean.
    """

    rows: slice
    weight: float


def parts(total: int, pieces: int = 1) -> list[Part]:
    """The rows of a global batch that are this process's, in some pieces.

    The parts of all processes are the batch's rows in order, each once, and differ by at most one
    row for each piece. A batch with fewer rows than there are parts is not lost either: a part
    that would be empty is the first row with weight 0, so that every process makes the same calls.
    """
    every, first = count() * pieces, rank() * pieces
    found = []
    for number in range(first, first + pieces):
        begin, end = total * number // every, total * (number + 1) // every
        rows = slice(begin, end) if end > begin else slice(0, 1)
        found.append(Part(rows, (end - begin) / total))
    return found


def part(total: int) -> Part:
    """`parts` in one piece."""
    return parts(total)[0]


def dealt(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Items, each with whether it is this process's: dealt out like cards."""
    for item, owner in zip(items, itertools.cycle(range(count())), strict=False):
        yield item, owner == rank()


def refuse_small_batch(size: int, key: str) -> None:
    """Refuses more processes than a global batch has parts.

    Raises:
        NsvitError: names the key of the configuration.
    """
    launcher.refuse_small_batch(count(), size, key)


# --- what they tell each other --------------------------------------------------------------


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Says in words that another process has ended or does not answer."""
    try:
        yield
    except RuntimeError as error:
        raise NsvitError(
            f"process {rank()} of {count()}: another process has ended, or has not answered for "
            f"{launcher.timeout():g} s (NSVIT_TIMEOUT): {str(error).splitlines()[0]}"
        ) from None


def summed(tensor: Tensor) -> Tensor:
    """A tensor's sum over all processes, in place."""
    if count() > 1:
        moved = tensor.to(_device())
        with _talking():
            dist.all_reduce(moved)
        if moved is not tensor:
            tensor.copy_(moved)
    return tensor


def total(value: Tensor | float) -> float:
    """A number's sum over all processes, added in order of rank, so that all find the same."""
    own = torch.as_tensor(value)
    if count() == 1:
        return own.item()
    every = [torch.empty(1, dtype=torch.float64, device=_device()) for _ in range(count())]
    with _talking():
        dist.all_gather(every, own.detach().reshape(1).double().to(_device()))
    return sum((one.item() for one in every), start=0.0)


def sum_gradients(weights: Iterable[nn.Parameter | Tensor]) -> None:
    """Sums the gradients of weights over all processes, in place.

    The loss of each process is weighted by `Part.weight` before. A weight without a gradient has
    none in any process.
    """
    if count() == 1:
        return
    for group in _messages([weight.grad for weight in weights if weight.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in group])
        with _talking():
            dist.all_reduce(flat)
        for gradient, part in zip(group, flat.split([g.numel() for g in group]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _messages(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type in groups of about `_MESSAGE` numbers."""
    group: list[Tensor] = []
    for tensor in tensors:
        full = sum(one.numel() for one in group) + tensor.numel() > _MESSAGE
        if group and (full or group[0].dtype != tensor.dtype):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


def broadcast(tensor: Tensor) -> Tensor:
    """The main process's tensor, in place; every process has one of the same shape."""
    if count() > 1:
        moved = tensor.detach().to(_device()).contiguous()
        with _talking():
            dist.broadcast(moved, 0)
        with torch.no_grad():
            tensor.copy_(moved)
    return tensor


def agreed(make: Callable[[], T]) -> T:
    """What the main process makes, for all; the others do not make it.

    Args:
        make: gives something that JSON can hold (keys are text).
    """
    if count() == 1:
        return make()
    text = json.dumps(make()).encode() if is_main() else b""
    size = broadcast(torch.tensor([len(text)]))
    content = torch.tensor(list(text), dtype=torch.uint8) if is_main() else None
    if content is None:
        content = torch.empty(int(size), dtype=torch.uint8)
    return json.loads(bytes(broadcast(content).tolist()).decode())


def on_main(work: Callable[[], object]) -> None:
    """Does something in the main process; the others wait until it is done."""
    if is_main():
        work()
    barrier()


def main_first(work: Callable[[], T]) -> T:
    """What every process does for itself, the others only when the main one has done it."""
    if is_main():
        done = work()
        barrier()
        return done
    barrier()
    return work()


@contextlib.contextmanager
def stopping_together() -> Iterator[None]:
    """Inside, all processes stop at the same point when any of them is asked to."""
    if count() == 1:
        yield
        return
    with stopping.together(lambda asked: total(float(asked)) > 0):
        yield


def refuse_different(value: float, what: str) -> None:
    """Refuses processes that do not find the same on disk.

    Raises:
        NsvitError: says what.
    """
    if total(float(value != agreed(lambda: value))):
        raise NsvitError(
            f"{what}: the processes do not see the same files; results must be in a folder that "
            "all nodes share"
        )


def barrier() -> None:
    """Waits until every process is here."""
    if count() > 1:
        summed(torch.zeros(1))


def refuse_drift(weights: Iterable[Tensor], where: str) -> None:
    """Refuses processes whose weights have come apart, which would spoil all that follows.

    Raises:
        NsvitError: says where.
    """
    if count() == 1:
        return
    own = torch.stack([weight.detach().double().sum() for weight in weights]).cpu()
    if total(float(not torch.equal(own, broadcast(own.clone())))):
        raise NsvitError(
            f"{where}: the processes' weights are no longer the same; are their machines, torch "
            "and timm alike? Run it with machine.processes: 1"
        )


def _device() -> torch.device:
    """Where messages have to be."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
