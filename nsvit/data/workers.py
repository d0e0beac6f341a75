"""Work done ahead in other processes, in order: results never depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from nsvit.errors import NsvitError

T = TypeVar("T")

#: Items that each process may be ahead.
AHEAD = 2


def in_order(make: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """`make(0)`, `make(1)`, ..., each made by one of `workers` processes; by this one if 0.

    Args:
        make: picklable; what it draws must depend on its argument alone.
        count: how many.
        workers: processes.

    Raises:
        NsvitError: as `make`, whichever process it was in.
    """
    if workers == 0 or count < 2:
        yield from map(make, range(count))
        return
    loader: DataLoader[Any] = DataLoader(
        _Items(make, count),
        batch_size=None,
        num_workers=min(workers, count),
        prefetch_factor=AHEAD,
        pin_memory=torch.cuda.is_available(),
        # Its own, since the loader draws a seed for its workers: from torch's global state if none.
        generator=torch.Generator().manual_seed(0),
    )
    for item in loader:
        if isinstance(item, _Refusal):
            raise NsvitError(item.text)
        yield item


class _Refusal:
    """A user's error on its way out of a worker, without the worker's traceback."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Items(Dataset[Any], Generic[T]):
    def __init__(self, make: Callable[[int], T], count: int) -> None:
        self.make = make
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> T | _Refusal:
        try:
            return self.make(index)
        except NsvitError as error:
            return _Refusal(str(error))
