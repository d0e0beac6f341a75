"""A moving average of the weights over the steps of a finetuning (timm's ModelEmaV3).

METHOD.md section 5: optional in the authors' code, decay 0.9998. Where it is on, the average is
what is measured, kept for each round and selected; training goes on from the raw weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timm.utils import ModelEmaV3
from torch import Tensor, nn


class Average:
    """The average of a model's weights, or without a decay nothing at all.

    Attributes:
        net: whose weights are averaged.
    """

    def __init__(self, net: nn.Module, decay: float | None) -> None:
        """Begins with the weights as they are."""
        self.net = net
        self._raw: dict[str, Tensor] = {}
        self._average = None if decay is None else ModelEmaV3(net, decay=decay)

    def update(self) -> None:
        """Takes in the weights after a step."""
        if self._average is not None:
            self._average.update(self.net)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the net has the averaged weights; its own come back afterwards."""
        if self._average is None:
            yield
            return
        self._raw = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self._average.module.state_dict())
        try:
            yield
        finally:
            self.net.load_state_dict(self._raw)
            self._raw = {}

    def raw(self) -> dict[str, Tensor]:
        """Inside `applied`, the net's own weights; empty otherwise, and without a decay."""
        return dict(self._raw)

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights by the net's names; empty without a decay."""
        return {} if self._average is None else dict(self._average.module.state_dict())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what `tensors` gave."""
        if self._average is not None:
            self._average.module.load_state_dict(dict(tensors))

    def go_on(self, raw: Mapping[str, Tensor]) -> None:
        """Goes on from a kept round: the net holds the average and is given its own weights."""
        if self._average is not None:
            self.load(self.net.state_dict())
            self.net.load_state_dict(dict(raw))
