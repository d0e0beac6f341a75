"""Passes that begin at a block against whole ones, for every kind of ViT that noise enters."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nsvit import visits
from nsvit.config import InfluenceConfig, NoiseConfig
from nsvit.influence import learn_blocks
from nsvit.models import build, frozen, inject
from nsvit.noise import learn_noise
from nsvit.prefixes import can_resume, clean_pass, prefix_of, resumed
from tests.small import MEAN, STD, small_vit

ARGS = {"img_size": 32, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
KINDS = {
    "registers": ("vit_tiny_patch16_224", {"reg_tokens": 4}),
    "no class token": ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    "norm before blocks": ("vit_base_patch16_clip_224", {}),
    "class token later": ("deit3_small_patch16_224", {}),
    "two class tokens": ("deit_tiny_distilled_patch16_224", {}),
    "relative positions": ("beit_base_patch16_224", {}),
    "rotary positions": ("eva02_tiny_patch14_224", {"img_size": 28}),
    "class token between blocks": ("convit_tiny", {"local_up_to_layer": 2}),
    "class token after blocks": ("cait_xxs24_224", {}),
}
CONFIG = NoiseConfig(limit=0.5, lr=0.05, epsilon=0.0, max_steps=5, batch_size=4)


def make(kind):
    name, more = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name, {**ARGS, **more}, MEAN, STD)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def pictures(model, count=6):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, *model.image_size, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_passes_that_begin_at_a_block_are_whole_passes_bit_for_bit(kind):
    model = make(kind)
    images = pictures(model)
    with frozen(model):
        for block in range(3):
            assert can_resume(model, images, block, "fp32")
            noise = torch.randn(1, *model.token_shape).requires_grad_()
            with inject(model, noise, block):
                whole = model(images)
            (expected,) = torch.autograd.grad(whole.square().sum(), noise)
            clean, prefix = clean_pass(model, images, block, "fp32")
            assert torch.equal(clean, model(images))
            assert torch.equal(prefix.tokens, prefix_of(model, images, block, "fp32").tokens)
            with inject(model, noise, block), resumed(model, prefix):
                part = model(torch.zeros_like(images))  # the pictures are not looked at again
            (found,) = torch.autograd.grad(part.square().sum(), noise)
            assert torch.equal(part, whole)
            assert torch.equal(found, expected)
    with torch.no_grad():
        assert torch.equal(model(images), clean)


def seeded():
    return torch.Generator().manual_seed(0)


def whole_passes_only(monkeypatch):
    monkeypatch.setattr(visits, "can_resume", lambda *_: False)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("room", [0, 4 * 4 * 16 * 5, 1 << 20])
@pytest.mark.parametrize("source", ["pool", "loader"])
def test_noise_is_the_same_with_prefixes_and_without(monkeypatch, block, room, source):
    model = small_vit()
    images = pictures(model, 10)
    shown = images if source == "pool" else list(images.split(4))
    monkeypatch.setattr(visits, "KEEP_PREFIXES", room)
    found = learn_noise(model, shown, CONFIG, block, torch.Generator().manual_seed(0))
    whole_passes_only(monkeypatch)
    expected = learn_noise(model, shown, CONFIG, block, torch.Generator().manual_seed(0))
    assert torch.equal(found.tensor, expected.tensor)
    assert found.history == expected.history


def test_noises_of_all_blocks_share_a_pool(monkeypatch):
    model = small_vit(depth=3)
    images = pictures(model, 10)
    config = InfluenceConfig(models=("m",), draws=2, noise=CONFIG)
    found = learn_blocks(model, images, config, (0,))
    whole_passes_only(monkeypatch)
    expected = learn_blocks(model, images, config, (0,))
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert torch.equal(one.tensor, other.tensor)


def test_steps_compute_nothing_before_their_block():
    model = small_vit(depth=4)
    pool = visits.Pool(model, pictures(model, 4), 4)

    def work(block):
        learn_noise(model, pool, CONFIG.model_copy(update={"max_steps": 1}), block)
        with FlopCounterMode(display=False) as counter:
            learn_noise(model, pool, CONFIG.model_copy(update={"max_steps": 20}), block)
        return counter.get_total_flops()

    assert work(3) < 0.35 * work(0)


def test_a_pool_tries_a_block_once(monkeypatch):
    model, tried = small_vit(depth=3), []

    def count(*given):
        tried.append(given[2])
        return can_resume(*given)

    monkeypatch.setattr(visits, "can_resume", count)
    pool = visits.Pool(model, pictures(model, 4), 4)
    found = [learn_noise(model, pool, CONFIG, block, seeded()) for block in (1, 1, 2, 1)]
    assert tried == [1, 2]
    assert torch.equal(found[0].tensor, found[1].tensor)
    assert torch.equal(found[0].tensor, found[3].tensor)


def test_a_network_that_looks_at_early_blocks_again_has_whole_passes():
    model = small_vit(depth=3)
    first = []
    model.net.blocks[0].register_forward_hook(lambda *given: first.append(given[2]))
    # Hooks prepended later come earlier: the record of the prefix is what the block itself gives.
    head = model.net.forward_head
    model.net.forward_head = lambda tokens: head(tokens + first[-1])
    images = pictures(model)
    with frozen(model):
        assert not can_resume(model, images, 2, "fp32")
    found = learn_noise(model, images, CONFIG, 2, torch.Generator().manual_seed(0))
    assert found.steps == CONFIG.max_steps


def test_modules_are_put_back_when_a_pass_fails():
    model = small_vit()
    images = pictures(model)
    with frozen(model):
        prefix = prefix_of(model, images, 1, "fp32")
        with pytest.raises(ZeroDivisionError), resumed(model, prefix):
            raise ZeroDivisionError
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
