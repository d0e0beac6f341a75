"""Seeds are functions of their parts; global random state is put back."""

import random

import numpy as np
import pytest
import torch

from nsvit import runtime
from nsvit.errors import NsvitError


def test_seed_depends_on_every_part_and_their_borders():
    seeds = {
        runtime.seed_for(*parts)
        for parts in [
            (0, "noise", 1),
            (0, "noise", 2),
            (1, "noise", 1),
            (0, "batch", 1),
            (0, "noise1"),
        ]
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_is_the_same_in_every_version():
    # a change of this number changes every result: raise the recipe numbers with it
    assert runtime.seed_for(0, "noise", 1) == 8188269915554620730


def test_generators_repeat():
    draw = [torch.randn(3, generator=runtime.generator(0, "x")) for _ in range(2)]
    assert torch.equal(*draw)


def test_seeded_sets_and_restores_every_global_generator():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with runtime.seeded("a"):
        first = draw()
    before = draw()
    with runtime.seeded("a"):
        assert draw() == first
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with runtime.seeded("b"):
        assert draw() != first
    assert draw() == expected != before


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("NSVIT_DEVICE", "cuda:77")
    with pytest.raises(NsvitError, match="cuda:77"):
        runtime.device()
    monkeypatch.setenv("NSVIT_DEVICE", "cpu")
    assert runtime.device() == torch.device("cpu")
