"""Learned noise with and without early stop: one path, two ends."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nsvit.config import NoiseConfig
from nsvit.noise import learn_noise
from tests.small import SIZE, small_vit

MODEL = small_vit()
POOL = torch.rand(10, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


@settings(max_examples=25, deadline=None)
@given(
    epsilon=st.floats(0, 0.5),
    length=st.integers(1, 12),
    limit=st.floats(0.01, 3),
    lr=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_early_stop_only_cuts_the_path_short(
    epsilon: float, length: int, limit: float, lr: float, seed: int
) -> None:
    config = NoiseConfig(epsilon=epsilon, max_steps=length, limit=limit, lr=lr, batch_size=4)

    def learn(**changed: object):
        start = torch.Generator().manual_seed(seed)
        return learn_noise(MODEL, POOL, config.model_copy(update=changed), generator=start)

    fixed, stopped = learn(early_stop=False), learn()
    assert fixed.steps == length
    assert fixed.epsilon_met == (fixed.distance < epsilon)
    assert torch.equal(learn(early_stop=False, epsilon=0.0).tensor, fixed.tensor)
    if stopped.epsilon_met:
        # The first place on the fixed path that is inside: it was not at any step before.
        assert stopped.steps < length and stopped.distance < epsilon
        if stopped.steps:
            until = learn(early_stop=False, max_steps=stopped.steps)
            assert torch.equal(until.tensor, stopped.tensor)
            assert not until.epsilon_met
    else:
        assert stopped.steps == length and torch.equal(stopped.tensor, fixed.tensor)
