"""Injection against timm's forward written out by hand; loading and saving."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from nsvit import artifacts, models
from nsvit.errors import NsvitError
from nsvit.models import frozen, inject, load_model
from tests.tiny import KINDS, MEAN, SMALL, STD

SIDECAR = artifacts.provenance("model", {})


def by_hand(model, images, noise, block):
    """timm's forward with the noise added where the paper says, without hooks.

    Only `norm_pre`, `_pos_embed`, `norm` and `forward_head` are timm's; the loop is ours.
    """
    net = model.net
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    tokens = net.patch_embed((images - mean) / std)
    if block == 0:
        tokens = tokens + noise.view(1, *tokens.shape[1:])
    tokens = net.norm_pre(net._pos_embed(tokens))
    for position, layer in enumerate(net.blocks):
        if position == block and block > 0:
            tokens = tokens.clone()
            tokens[:, -noise.shape[1] :] += noise
        tokens = layer(tokens)
    return net.forward_head(net.norm(tokens))


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_injection_is_the_forward_written_by_hand(make_model, images, kind, block):
    model = make_model(kind).eval()
    noise = torch.randn(1, *model.token_shape)
    with torch.no_grad(), inject(model, noise, block):
        noisy = model(images)
    with torch.no_grad():
        torch.testing.assert_close(noisy, by_hand(model, images, noise, block))
        assert (model(images) - noisy).abs().max() > 1e-2


def test_noise_of_each_image_is_added_to_that_image(make_model, images):
    model = make_model("token").eval()
    noise = torch.randn(len(images), *model.token_shape)
    with torch.no_grad(), inject(model, noise, 1):
        together = model(images)
    for position in range(len(images)):
        only = slice(position, position + 1)
        with torch.no_grad(), inject(model, noise[only], 1):
            torch.testing.assert_close(model(images[only]), together[only])


@pytest.mark.parametrize("kind", ["token", "registers", "distilled"])
def test_prefix_tokens_are_left_alone(make_model, images, kind):
    model = make_model(kind).eval()
    prefix, noise = model.net.num_prefix_tokens, torch.randn(1, *model.token_shape)
    seen = []
    with inject(model, noise, 1):  # registered first, so it runs first
        handle = model.blocks[1].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        model(images)
    model(images)
    handle.remove()
    assert torch.equal(seen[0][:, :prefix], seen[1][:, :prefix])
    torch.testing.assert_close(seen[0][:, prefix:] - seen[1][:, prefix:], noise.expand(6, -1, -1))


@pytest.mark.parametrize("architecture", ["cait_xxs24_224", "convit_tiny", "beit_base_patch16_224"])
def test_models_that_add_tokens_late_get_noise_on_every_patch(architecture):
    args = {"embed_dim": 48, "num_heads": 4, "depth": 11, "num_classes": 5, "img_size": 32}
    model = models.build(architecture, args, MEAN, STD).eval()
    noise = torch.randn(1, *model.token_shape)
    images = torch.rand(2, 3, 32, 32)

    def at_input(block, injected):
        seen = []
        with inject(model, injected, block):
            handle = model.blocks[block].register_forward_pre_hook(lambda m, x: seen.append(x[0]))
            model(images)
        handle.remove()
        return seen[0]

    for block in (1, 10):
        moved = at_input(block, noise) - at_input(block, torch.zeros_like(noise))
        torch.testing.assert_close(moved[:, -noise.shape[1] :], noise.expand(2, -1, -1))
        assert moved[:, : -noise.shape[1]].abs().sum() == 0


def test_hooks_are_gone_after_an_exception(make_model, images):
    model = make_model("token").eval()
    clean = model(images)
    for block in (0, 1):
        with (
            pytest.raises(ZeroDivisionError),
            inject(model, torch.ones(1, *model.token_shape), block),
        ):
            raise ZeroDivisionError
    assert torch.equal(model(images), clean)
    assert not model.net.patch_embed._forward_hooks
    assert not model.net.blocks[1]._forward_pre_hooks


def test_frozen_restores_modes_and_gradients_also_after_an_exception(make_model):
    model = make_model("token").train()
    model.net.blocks[0].eval()
    model.net.head.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wanted = [weight.requires_grad for weight in model.parameters()]
    with pytest.raises(ZeroDivisionError), frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(weight.requires_grad for weight in model.parameters())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == wanted


@pytest.mark.parametrize(
    ("shape", "block", "message"),
    [
        ((1, 15, 24), 0, r"\(1, 15, 24\) does not fit .*expected \(1, 16, 24\)"),
        ((1, 16, 23), 1, r"\(1, 16, 23\) does not fit"),
        ((16, 24), 0, r"\(16, 24\) does not fit"),
        ((1, 16, 24), 3, "block 3.*injection points 0 to 2"),
        ((1, 16, 24), -1, "block -1"),
    ],
)
def test_noise_that_does_not_fit_is_refused(make_model, shape, block, message):
    with pytest.raises(NsvitError, match=message), inject(make_model(), torch.zeros(shape), block):
        pass


def test_dropped_patches_are_refused(make_model, images):
    model = make_model("token", patch_drop_rate=0.5).train()
    noise = torch.zeros(1, *model.token_shape)
    with pytest.raises(NsvitError, match="block 1 gets tokens"), inject(model, noise, 1):
        model(images)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vit_small_r26_s32_224", "no linear patch embedding"),
        ("xcit_nano_12_p16_224", "no linear patch embedding"),
        ("resnet18", "not a plain ViT"),
        ("swin_tiny_patch4_window7_224", "not a plain ViT"),
        ("pit_ti_224", "not a plain ViT"),
        ("levit_128s", "not a plain ViT"),
    ],
)
def test_other_stems_are_refused(architecture, message):
    with torch.device("meta"):
        model = models.build(architecture, {}, MEAN, STD)
    with pytest.raises(NsvitError, match=f"{architecture}.*{message}"):
        model.token_shape


def test_overlapping_patches_are_refused(make_model):
    model = make_model()
    model.net.patch_embed.proj = torch.nn.Conv2d(3, 24, kernel_size=8, stride=4)
    with pytest.raises(NsvitError, match="overlap"):
        model.projection


# --- loading and saving ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_local_dir_round_trip_is_bit_equal(make_model, images, tmp_path, kind):
    model = make_model(kind).eval()
    models.save_local_dir(model, tmp_path)
    again = load_model(f"local-dir:{tmp_path}").eval()
    assert torch.equal(again(images), model(images))
    spec = models.model_spec(again)
    assert list(spec.pop("said")["mean"]) == model.mean.flatten().tolist()
    assert spec == models.model_spec(model)
    plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(plain((images - model.mean) / model.std), model(images))
    assert plain.pretrained_cfg["mean"] == list(model.mean.flatten())


def test_checkpoint_round_trip_is_bit_equal(make_model, images, tmp_path):
    model = make_model("distilled").eval()
    path = tmp_path / "model.safetensors"
    models.save_model(model, path, SIDECAR)
    again = load_model(path).eval()
    assert torch.equal(again(images), model(images))
    assert models.model_spec(again) == models.model_spec(model)


def test_checkpoint_can_be_read_with_other_statistics(make_model, images, tmp_path):
    model = make_model().eval()
    models.save_model(model, tmp_path / "model.safetensors", SIDECAR)
    other = load_model(tmp_path / "model.safetensors", mean=(0.1, 0.2, 0.3), std=STD).eval()
    shifted = images + (model.mean - other.mean)
    torch.testing.assert_close(other(images), model(shifted), rtol=1e-4, atol=1e-4)


def spoil(folder, name, tensor):
    weights = load_file(folder / "model.safetensors")
    weights.pop(name, None)
    if tensor is not None:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("blocks.1.mlp.fc1.weight", torch.zeros(7, 7)),
        ("blocks.1.mlp.fc1.weight", None),
        ("surplus", torch.zeros(1)),
    ],
    ids=["shape", "missing", "left over"],
)
def test_weights_that_do_not_fit_are_refused_by_name(make_model, tmp_path, name, tensor):
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "folder"
    models.save_model(make_model(), checkpoint / "model.safetensors", SIDECAR)
    models.save_local_dir(make_model(), folder)
    for source in (checkpoint / "model.safetensors", f"local-dir:{folder}"):
        spoil(checkpoint if "checkpoint" in str(source) else folder, name, tensor)
        with pytest.raises(NsvitError, match=name):
            load_model(source)


def test_random_weights_are_the_same_every_time():
    first = load_model("vit_tiny_patch16_224", MEAN, STD, pretrained=False, **SMALL)
    state = torch.random.get_rng_state()
    torch.rand(3)
    second = load_model("vit_tiny_patch16_224", MEAN, STD, pretrained=False, **SMALL)
    assert models.same_weights(first, second)
    torch.random.set_rng_state(state)
    expected = torch.rand(3)
    torch.random.set_rng_state(state)
    load_model("vit_tiny_patch16_224", MEAN, STD, pretrained=False, **SMALL)
    assert torch.equal(torch.rand(3), expected)  # the caller's own draws are left alone


def test_a_new_head_is_told_and_is_the_same_every_time(make_model, tmp_path, caplog):
    models.save_local_dir(make_model(), tmp_path / "dir")
    found = [load_model(f"local-dir:{tmp_path / 'dir'}", num_classes=4) for _ in range(2)]
    assert models.same_weights(*found) and found[0].num_classes == 4
    assert "weights are for 5 classes; the head for 4 is new and untrained" in caplog.text
    caplog.clear()
    load_model(f"local-dir:{tmp_path / 'dir'}")
    assert "new" not in caplog.text


def test_what_cannot_be_loaded_is_named(make_model, tmp_path):
    with pytest.raises(NsvitError, match="vit_of_tomorrow"):
        load_model("vit_of_tomorrow")
    with pytest.raises(NsvitError, match="vit_of_tomorrow"):
        models.build("vit_of_tomorrow", {}, MEAN, STD)
    with pytest.raises(NsvitError, match=r"nowhere.config\.json"):
        load_model(f"local-dir:{tmp_path}/nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    with pytest.raises(NsvitError, match=r"no model\.safetensors"):
        load_model(f"local-dir:{tmp_path}")
    with pytest.raises(NsvitError, match=r"gone\.json: no such file"):
        load_model(tmp_path / "gone.safetensors")
    models.save_model(make_model(), tmp_path / "model.safetensors", SIDECAR)
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(NsvitError, match=r"model\.safetensors: damaged"):
        load_model(tmp_path / "model.safetensors")
