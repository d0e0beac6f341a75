"""Weight files of others: read as timm reads them, refused where they do not fit."""

from __future__ import annotations

import argparse
import pickle
import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from nsvit import artifacts, config, models, specs
from nsvit.errors import NsvitError
from nsvit.models import load_model
from tests.augreg import augreg_arrays, dat_state

NAME = "vit_tiny_patch16_224"
ARGS = {"img_size": 48, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7}
HALF, IMAGENET = (0.5, 0.5, 0.5), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        net = timm.create_model(NAME, **ARGS).eval()
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return net


@pytest.fixture
def inputs():
    return torch.randn(2, 3, 48, 48)


def dat(net) -> dict[str, torch.Tensor]:
    return dat_state(net, *map(torch.tensor, IMAGENET))


def write(path, content):
    torch.save(content, path)
    return path


def read(path, **kwargs):
    return load_model(NAME, checkpoint=path, **{**ARGS, **kwargs}).eval()


# --- what is read ---------------------------------------------------------------------------


def test_augreg_npz_gives_the_same_logits(net, inputs, tmp_path):
    path = tmp_path / "S_16-i21k.npz"
    np.savez(path, **augreg_arrays(net))
    model = read(path)
    torch.testing.assert_close(model.net(inputs), net(inputs), rtol=0, atol=0)
    # The file says nothing of mean and std: timm's settings of these weights do.
    assert model.said.mean == HALF and "augreg" in model.said.source
    assert model.mean.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_bare_state_dict_is_read(net, inputs, tmp_path, ending, prefix):
    path, state = tmp_path / f"w{ending}", net.state_dict()
    state = {prefix + name: value for name, value in state.items()}
    save_file(state, path) if ending == ".safetensors" else write(path, state)
    model = read(path, mean=HALF, std=HALF)
    assert torch.equal(model.net(inputs), net(inputs))
    assert model.said is None and model.warnings == []


def test_dats_checkpoint_is_read_with_its_mean_and_std(net, inputs, tmp_path):
    """As timm's trainer writes it: the average beside the raw weights, arguments and optimiser."""
    raw = {name: torch.zeros_like(value) for name, value in dat(net).items()}
    content = {"epoch": 299, "arch": NAME, "state_dict": raw, "state_dict_ema": dat(net)}
    content |= {"optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.1), "metric": 81.4}
    path = write(tmp_path / "model_best.pth.tar", content)
    model = read(path)
    assert torch.equal(model.net(inputs), net(inputs))
    assert model.mean.flatten().tolist() == pytest.approx(IMAGENET[0])
    assert model.warnings == []
    pixels = torch.rand(2, 3, 48, 48)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    torch.testing.assert_close(model(pixels), net((pixels - mean) / std))
    assert not bool(read(path, ema=False).net.head.weight.any())


def test_raw_weights_stand_for_a_missing_average(net, inputs, tmp_path):
    path = write(tmp_path / "w.pth", {"state_dict": net.state_dict()})
    assert torch.equal(read(path, mean=HALF, std=HALF).net(inputs), net(inputs))


# --- mean and std ---------------------------------------------------------------------------


def test_a_model_read_with_other_statistics_says_so_wherever_it_goes(net, tmp_path, caplog):
    path = write(tmp_path / "dat.pth", dat(net))
    model = read(path, mean=HALF, std=HALF)
    (warning,) = model.warnings
    assert "mean 0.5 and std 0.5" in warning and "0.485/0.456/0.406" in warning
    assert "dat.pth" in warning
    models.save_model(model, tmp_path / "model.safetensors", artifacts.provenance("model", {}))
    assert artifacts.read_json(tmp_path / "model.json")["warnings"] == [warning]
    assert load_model(tmp_path / "model.safetensors").warnings == [warning]


def test_local_dirs_are_checked_against_their_config(net, tmp_path):
    model = read(write(tmp_path / "w.pth", net.state_dict()), mean=HALF, std=HALF)
    models.save_local_dir(model, tmp_path / "own")
    name = f"local-dir:{tmp_path}/own"
    assert load_model(name).warnings == []
    (warning,) = load_model(name, *IMAGENET).warnings
    assert "config.json" in warning and "mean 0.5 and std 0.5" in warning


def test_random_weights_say_nothing():
    assert load_model(NAME, *IMAGENET, pretrained=False, **ARGS).warnings == []


# --- what is refused ------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return print, ("it ran",)


def raw(path, content):
    path.write_bytes(content)
    return path


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def npz(path, net, **changes):
    arrays = augreg_arrays(net) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def state(net, **changes):
    found = {**net.state_dict(), **changes}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p, n: p / "absent.pth", "no such checkpoint"),
        (lambda p, n: write(p / "w.pth", {"w": Evil()}), "print, which would run code"),
        (lambda p, n: truncated(write(p / "w.pth", state(n))), "damaged"),
        (lambda p, n: write(p / "w.pth", [1, 2]), "not a dictionary of weights but list"),
        (lambda p, n: write(p / "w.pth", {"epoch": 3}), "'epoch' is no tensor"),
        (lambda p, n: write(p / "w.pth", state(n, **{"head.bias": None})), "head.bias is missing"),
        (lambda p, n: write(p / "w.pth", state(n, more=torch.ones(1))), "more is left over"),
        (
            lambda p, n: write(p / "w.pth", state(n, **{"head.bias": torch.ones(9)})),
            r"head.bias is \(9,\), the model's \(7,\)",
        ),
        (
            lambda p, n: write(p / "w.pth", state(n, **{"head.bias": torch.full((7,), torch.nan)})),
            "head.bias holds values that are not finite",
        ),
        (lambda p, n: raw(p / "w.pth", b"<html>Please log in"), "begins with b'<html>"),
        (lambda p, n: raw(p / "w.pth", pickle.dumps(Evil())), "not weights as torch.save"),
        (lambda p, n: truncated(npz(p / "w.npz", n)), "damaged"),
        (lambda p, n: npz(p / "w.npz", n, **{"head/bias": None}), "head/bias is missing"),
        # A checkpoint of ImageNet-21k: timm would leave the head at its random start.
        (lambda p, n: npz(p / "w.npz", n, **{"head/bias": np.ones(21843)}), r"\(21843,\)"),
        # A /32 checkpoint: timm would resample the patch embedding.
        (
            lambda p, n: npz(p / "w.npz", n, **{"embedding/kernel": np.ones((32, 32, 3, 24))}),
            "embedding/kernel is",
        ),
        (
            lambda p, n: npz(p / "w.npz", n, **{"Transformer/encoder_norm/scale": None}),
            "Transformer/encoder_norm/scale",
        ),
    ],
)
def test_what_does_not_fit_is_named(net, tmp_path, capsys, make, says):
    path = make(tmp_path, net)
    with pytest.raises(NsvitError, match=says) as caught:
        read(path, mean=HALF, std=HALF)
    assert str(path) in str(caught.value)
    assert "it ran" not in capsys.readouterr().out
    assert "Re-running" not in str(caught.value)  # torch's advice, which would run the code


def test_an_npz_of_another_depth_or_number_of_heads_is_named(net, tmp_path):
    path = npz(tmp_path / "w.npz", net)
    with pytest.raises(NsvitError, match="3 blocks, the model has 2"):
        read(path, depth=2)
    with pytest.raises(NsvitError, match=r"encoderblock_0/.*query/kernel is \(24, 3, 8\)"):
        read(path, num_heads=2)


def test_damaged_safetensors_are_named(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(NsvitError, match=r"w\.safetensors: damaged"):
        read(truncated(tmp_path / "w.safetensors"), mean=HALF, std=HALF)


def test_weights_that_are_not_to_be_had_are_explained(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NsvitError, match=r"neither in the Hugging Face cache .*checkpoint"):
        load_model("vit_small_patch16_224.augreg_in21k_ft_in1k")


# --- the configuration ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpoint": "w.pkl"}, "ends in none of"),
        ({"checkpoint": "w.pth", "timm": "local-dir:x"}, "weights of its own"),
    ],
)
def test_senseless_checkpoints_are_refused(changes, says):
    section = {"label": "x", "timm": NAME, "mean": HALF, "std": HALF, **changes}
    with pytest.raises(ValueError, match=re.escape(says)):
        config.ModelConfig.model_validate(section)


def test_prepared_models_name_their_checkpoint(net, tmp_path):
    from tests.small import image_tree

    path = write(tmp_path / "w.pth", net.state_dict())
    spec = specs.PrepareSpec(
        name="mine", timm=NAME, pretrained=True, checkpoint=str(path), model_args=ARGS,
        mean=HALF, std=HALF,
    )  # fmt: skip
    models.prepare(spec, image_tree(tmp_path / "p", 1, classes=7), tmp_path / "model.safetensors")
    sidecar = artifacts.read_json(tmp_path / "model.json")
    assert sidecar["inputs"] == {str(path): artifacts.sha256(path)}
    assert sidecar["spec"]["checkpoint"] == str(path)
