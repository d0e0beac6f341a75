"""Seeds are functions of their parts; global random state is put back."""

import platform
import random
import subprocess
import sys

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


#: Prints by how many MiB the process grew while it made and freed batches of 9 MiB, three at a
#: time, and kept a little of each.
BATCHES = """
import re, torch
from nsvit import runtime

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def batch():
    return torch.ones(9 * 2**18)

runtime.prepare(1)
batch()
kept, before = [], resident()
for _ in range(20):
    batches = [batch() for _ in range(3)]
    kept.append(torch.ones(1000))
    del batches
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_batches_that_are_freed_leave_nothing_in_the_heap():
    """Without `_steady_memory` it is 18 MiB: glibc keeps what it has mapped once."""
    process = subprocess.run(
        [sys.executable, "-c", BATCHES], capture_output=True, text=True, check=True
    )
    assert float(process.stdout) < 5
