"""Fixtures for every test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import torch

from nsvit import runtime
from nsvit.models import PixelModel
from tests.tiny import tiny

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Verbs set the root logger up, and benchmarks quieten the package's own."""
    levels = {name: logging.getLogger(name).level for name in (None, "nsvit")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PixelModel]:
    """`tiny`, as a fixture; a fresh model for each call."""
    return tiny


@pytest.fixture
def images() -> torch.Tensor:
    """(6, 3, 32, 32) pixels in [0, 1]."""
    return torch.rand(6, 3, 32, 32, generator=runtime.generator("test images"))
