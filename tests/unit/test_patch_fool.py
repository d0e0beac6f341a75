"""Patch-Fool against the properties of the published algorithm and a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from nsvit.attacks import ThreatModel, attack
from nsvit.attacks.patch_fool import (
    attentions,
    choose,
    mask_of,
    patch_fool,
    reading_attention,
)
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, build, frozen
from tests.tiny import KINDS, MEAN, OTHER_KINDS, STD, tiny

FREE = ThreatModel(1.0)


def predicted(model: PixelModel, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with frozen(model), torch.no_grad():
        return images, model(images).argmax(1)


def softmax_by_hand(model: PixelModel, images: torch.Tensor, layer: int) -> torch.Tensor:
    """(B, T, T) attention of a block, mean over heads, from its queries and keys."""
    module, seen = model.net.blocks[layer].attn, []
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
    handle.remove()
    count, tokens, width = seen[0].shape
    projected = module.qkv(seen[0]).view(count, tokens, 3, module.num_heads, -1)
    query, key = projected[:, :, 0].transpose(1, 2), projected[:, :, 1].transpose(1, 2)
    scores = query @ key.transpose(2, 3) / (width // module.num_heads) ** 0.5
    return scores.softmax(-1).mean(1).detach()


@pytest.mark.parametrize("kind", KINDS)
def test_changes_only_the_most_attended_patch_of_any_vit(kind: str) -> None:
    model = tiny(kind)
    images, labels = predicted(model)
    found = attack(model, images, labels, FREE, "patch_fool", layer=1, steps=4, early_exit=False)
    with frozen(model):
        attended = softmax_by_hand(model, images, 1).mean(1)[:, -16:]
    changed = (found.images != images).any(1).view(-1, 4, 8, 4, 8).permute(0, 1, 3, 2, 4)
    changed = changed.reshape(len(images), 16, 64)
    assert torch.equal(changed.any(2).sum(1), torch.ones(len(images), dtype=torch.long))
    assert torch.equal(changed.any(2).float().argmax(1), attended.argmax(1))
    assert changed.float().amax(1).mean() > 0.95


@pytest.mark.parametrize("mode", ["ce", "attention"])
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_one_patch_of_vits_with_another_attention_and_none_of_it_is_left_behind(
    kind: str, mode: str
) -> None:
    model = tiny(kind)
    images, labels = predicted(model)
    before = [getattr(module, "fused_attn", None) for module in attentions(model)]
    with frozen(model), torch.no_grad():
        logits = model(images)
        with reading_attention(model) as maps:
            assert torch.allclose(model(images), logits, atol=1e-3, rtol=1e-3)
            assert {tuple(one.shape[:2]) for one in maps} == {(8, 2)}
        (chosen,) = choose(model, images, labels, 1, 1)[0].T
    settings = {"layer": 1, "steps": 3, "mode": mode, "early_exit": False}
    found = attack(model, images, labels, FREE, "patch_fool", **settings).images
    changed = (found != images).any(1).view(-1, 4, 8, 4, 8).permute(0, 1, 3, 2, 4)
    changed = changed.reshape(len(images), 16, 64).float().mean(2)
    assert torch.equal((changed > 0).sum(1), torch.ones(len(images), dtype=torch.long))
    assert torch.equal(changed.argmax(1), chosen) and changed.amax(1).mean() > 0.9
    assert [getattr(module, "fused_attn", None) for module in attentions(model)] == before
    assert not any(module.attn_drop._forward_hooks for module in attentions(model))
    with frozen(model), torch.no_grad():
        assert torch.equal(model(images), logits)


def test_layers_beyond_the_depth_mean_the_last_block() -> None:
    model = tiny()
    images, labels = predicted(model)
    with frozen(model):
        last = choose(model, images, labels, 3, 2)[0]
        assert torch.equal(choose(model, images, labels, 3, 4)[0], last)
        attended = softmax_by_hand(model, images, 2).mean(1)[:, -16:]
    assert torch.equal(last, attended.topk(3).indices)


@pytest.mark.parametrize("mode", ["ce", "attention"])
def test_the_loss_rises_and_predictions_fall(mode: str) -> None:
    model = tiny("token")
    images, labels = predicted(model)
    found = attack(model, images, labels, FREE, "patch_fool", mode=mode, steps=20, early_exit=False)
    with frozen(model), torch.no_grad():
        before, after = (
            cross_entropy(model(x), labels, reduction="none") for x in (images, found.images)
        )
    assert (after > before).all() and found.success.any()


def test_no_iterations_and_broken_pictures_change_nothing() -> None:
    model = tiny()
    images, labels = predicted(model)
    none = attack(model, images, labels, FREE, "patch_fool", steps=0)
    assert torch.equal(none.images, images)
    labels[:4] = (labels[:4] + 1) % 5
    some = attack(model, images, labels, FREE, "patch_fool", steps=3)
    assert torch.equal(some.images[:4], images[:4])
    assert not torch.equal(some.images[4:], images[4:])


@pytest.mark.parametrize("threat", [ThreatModel(8 / 255), ThreatModel(0.7, "l2")])
def test_mild_variants_stay_inside_the_radius(threat: ThreatModel) -> None:
    model = tiny()
    images, labels = predicted(model)
    settings = {"steps": 15, "patches": 2, "early_exit": False}
    mild = attack(model, images, labels, threat, "patch_fool", **settings).images
    sizes = threat.distance(images.double(), mild.double())
    assert (sizes <= threat.radius).all() and (sizes > 0.9 * threat.radius).any()
    with frozen(model):
        mask = mask_of(model, images, choose(model, images, labels, 2, 4)[0])
        free = patch_fool(model, images, labels, **settings)
    assert torch.equal(torch.where(mask, images, mild), images)
    assert mask.sum() == len(images) * 2 * 64
    assert FREE.distance(images, free).min() > 8 / 255


@pytest.mark.parametrize("mode", ["ce", "attention"])
def test_is_the_published_loop(mode: str) -> None:
    """torch's own Adam and StepLR on normalised values, written from the publication."""
    model = tiny("token", depth=6, qkv_bias=True)
    images, labels = predicted(model, 3)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    steps, weight = 12, 0.3
    with frozen(model):
        chosen = choose(model, images, labels, 1, 4)[0][:, 0]
        mask = mask_of(model, images, chosen[:, None])
        ours = patch_fool(
            model, images, labels, mode=mode, steps=steps, early_exit=False,
            attention_weight=weight, seeds=[5, 6, 7],
        )  # fmt: skip
        start = patch_fool(
            model, images, labels, steps=1, lr=0.0, early_exit=False, seeds=[5, 6, 7]
        )
        normalised = (start / std).requires_grad_()
        adam = torch.optim.Adam([normalised], lr=0.22)
        schedule = torch.optim.lr_scheduler.StepLR(adam, step_size=10, gamma=0.95)
        for _ in range(steps):
            pixels = torch.where(mask, normalised * std, images)
            with reading_attention(model) as maps:
                logits = model(pixels)
                loss = cross_entropy(logits, labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, normalised, retain_graph=True)
                total = gradient.clone()
                for block in (1, 2) if mode == "attention" else ():
                    log = maps[block].mean(1).log()
                    for row, patch in enumerate(chosen):
                        drawn = log[row, :, 1 + patch].mean()
                        side = torch.autograd.grad(drawn, normalised, retain_graph=True)[0][row]
                        if cosine_similarity(side.flatten(), gradient[row].flatten(), dim=0) < 0:
                            unit = gradient[row] / gradient[row].norm()
                            side = side - (side * unit).sum() * unit
                        total[row] += weight * side
            normalised.grad = -total
            adam.step()
            schedule.step()
            normalised.data = (normalised.data * std).clamp(0, 1) / std
    theirs = torch.where(mask, normalised.detach() * std, images)
    assert ((ours - theirs).abs() > 1e-3).float().mean() < 1e-3
    assert (ours - start).abs().max() > 0.05


def test_attention_mode_draws_attention_to_the_patch() -> None:
    model = tiny("token", depth=6)
    images, labels = predicted(model)

    def attention_after(weight: float) -> float:
        with frozen(model):
            chosen = choose(model, images, labels, 1, 4)[0][:, 0]
            found = patch_fool(
                model, images, labels, mode="attention", attention_weight=weight, steps=25,
                early_exit=False,
            )  # fmt: skip
            maps = softmax_by_hand(model, found, 1), softmax_by_hand(model, found, 2)
        rows = torch.arange(len(images))
        return float(sum(one.mean(1)[rows, 1 + chosen].mean() for one in maps))

    assert attention_after(10.0) > attention_after(0.0) * 1.02


def test_attention_is_fused_again_also_after_an_exception() -> None:
    model = tiny()
    images, labels = predicted(model)
    before = [module.fused_attn for module in attentions(model)]
    assert any(before), "the test needs fused attention"
    with torch.no_grad(), frozen(model):
        fused = model(images)
        with reading_attention(model) as maps:
            assert torch.allclose(model(images), fused, atol=1e-5)
            assert [tuple(m.shape) for m in maps] == [(8, 2, 16, 16)] * 3
    with pytest.raises(KeyboardInterrupt), reading_attention(model):
        assert not any(module.fused_attn for module in attentions(model))
        raise KeyboardInterrupt
    labels[0] = 99  # not a class
    with pytest.raises(IndexError):
        attack(model, images, labels, FREE, "patch_fool", steps=2, early_exit=False)
    assert [module.fused_attn for module in attentions(model)] == before
    assert not any(module.attn_drop._forward_hooks for module in attentions(model))


def test_models_without_attention_are_refused_by_name() -> None:
    images = torch.rand(1, 3, 32, 32)
    labels = torch.zeros(1, dtype=torch.long)
    resnet = build("resnet10t", {"num_classes": 5}, MEAN, STD)
    with pytest.raises(NsvitError, match="resnet10t"):
        attack(resnet, images, labels, FREE, "patch_fool", steps=1)
    bare = tiny()
    bare.net.blocks[1].attn = nn.Identity()
    with pytest.raises(NsvitError, match=r"vit_tiny_patch16_224.*block 1.*Identity"):
        attack(bare, images, labels, FREE, "patch_fool", steps=1)
    with pytest.raises(NsvitError, match="no PixelModel"):
        attack(nn.Flatten(), images, labels, FREE, "patch_fool")
    model = tiny()
    with pytest.raises(NsvitError, match="17 patches of a picture with 16"):
        attack(model, images, labels, FREE, "patch_fool", patches=17)
    with pytest.raises(NsvitError, match="'cee'"):
        attack(model, images, labels, FREE, "patch_fool", mode="cee")
