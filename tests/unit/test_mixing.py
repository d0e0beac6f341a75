"""Mixup and CutMix: as timm does them, with draws of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy

from nsvit.config import FinetuneConfig, MixingConfig
from nsvit.data.mixing import mix
from nsvit.losses import two_terms
from nsvit.runtime import seed_for

BOTH = MixingConfig(mixup=0.8, cutmix=1.0)


@pytest.fixture
def batch():
    return torch.rand(8, 3, 16, 16), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])


@pytest.mark.parametrize("config", [BOTH, MixingConfig(mixup=0.8), MixingConfig(cutmix=1.0)])
def test_it_is_timms_with_the_seed_of_the_step(batch, config):
    images, labels = batch
    for step in range(6):
        mixed, targets = mix(images, labels, config, 5, 0.1, 3, step)
        oracle = Mixup(config.mixup, config.cutmix, label_smoothing=0.1, num_classes=5)
        np.random.seed(seed_for(3, step, "mix") % 2**32)
        expected, soft = oracle(images.clone(), labels)
        assert torch.equal(mixed, expected) and torch.equal(targets, soft)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_steps_differ_and_nothing_outside_changes(batch):
    images, labels = batch
    before, state = images.clone(), np.random.get_state()[1].tolist()
    first, second = (mix(images, labels, BOTH, 5, 0.0, 3, step)[0] for step in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(images, before) and np.random.get_state()[1].tolist() == state


def test_the_loss_takes_soft_labels_and_does_not_smooth_them_again():
    config = FinetuneConfig(label_smoothing=0.1)
    logits, labels = torch.randn(8, 5), torch.tensor([0, 3, 1, 4])
    off = 0.1 / 5
    soft = torch.full((4, 5), off).scatter_(1, labels[:, None], 1 - 0.1 + off)
    losses = two_terms(logits, soft, "nullspace", config)
    expected = [SoftTargetCrossEntropy()(half, soft) for half in logits.chunk(2)]
    torch.testing.assert_close(losses, torch.stack(expected))
    # Unmixed labels give the same through torch's own smoothing.
    torch.testing.assert_close(two_terms(logits, labels, "plain", config), losses)


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(ValueError, match="odd; mixing needs pairs"):
        FinetuneConfig(batch_size=7, mixing=BOTH)
    assert FinetuneConfig(batch_size=7).mixing.is_on is False
