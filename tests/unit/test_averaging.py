"""The moving average of the weights, alone and inside a finetuning."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from nsvit.averaging import Average
from nsvit.config import MixingConfig
from nsvit.finetuning import finetune
from tests.runs import interrupted, same, spec, weights, without_seconds
from tests.small import image_tree, small_vit


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return image_tree(root / "train", 6, name="train"), image_tree(root / "dev", 3, seed=1)


def test_it_is_the_average_and_the_net_gets_its_own_weights_back():
    net = torch.nn.Linear(2, 1, bias=False)
    values = [torch.tensor([[float(k), -1.0]]) for k in range(4)]
    net.load_state_dict({"weight": values[0]})
    average, expected = Average(net, 0.75), values[0]
    for value in values[1:]:
        net.load_state_dict({"weight": value})
        average.update()
        expected = 0.75 * expected + 0.25 * value
    with average.applied():
        torch.testing.assert_close(net.weight.detach(), expected)
        assert torch.equal(average.raw()["weight"], values[3])
    assert torch.equal(net.weight.detach(), values[3]) and average.raw() == {}
    again = Average(torch.nn.Linear(2, 1, bias=False), 0.75)
    again.load(average.tensors())
    with again.applied():
        torch.testing.assert_close(again.net.weight.detach(), expected)


def test_without_a_decay_it_does_nothing():
    net = torch.nn.Linear(2, 1)
    average = Average(net, None)
    average.update()
    with average.applied():
        assert average.raw() == average.tensors() == {}


def test_a_run_ends_with_the_average_and_trains_as_without(tmp_path, sets):
    """Decay 0.5 over two steps: by hand from the raw weights after each step."""
    steps = []
    for count in (1, 2):
        out = tmp_path / str(count)
        finetune(small_vit(), *sets, spec(rounds=1, steps=count, lr_min=1e-3), out)
        steps.append(weights(out))
    averaged = tmp_path / "averaged"
    finetune(small_vit(), *sets, spec(rounds=1, steps=2, lr_min=1e-3, ema_decay=0.5), averaged)
    start, found = small_vit().net.state_dict(), weights(averaged)
    for name, value in found.items():
        expected = 0.25 * start[name] + 0.25 * steps[0][name] + 0.5 * steps[1][name]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    assert same(found, load_file(averaged / "rounds/1/model.safetensors"))


def test_an_interrupted_run_with_everything_ends_as_if_it_had_not_been(tmp_path, sets, monkeypatch):
    mixing = MixingConfig(mixup=0.8, cutmix=1.0)
    run = spec("nullspace", ema_decay=0.9, mixing=mixing, drop_path=0.3, label_smoothing=0.1)
    whole = finetune(small_vit(), *sets, run, tmp_path / "whole")
    interrupted(monkeypatch, sets, run, tmp_path / "cut", 3)
    cut = finetune(small_vit(), *sets, run, tmp_path / "cut")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert without_seconds(whole) == without_seconds(cut)


@pytest.mark.parametrize("kind", ["plain", "random", "madry", "trades"])
def test_every_kind_trains_on_mixed_pictures(tmp_path, sets, kind):
    losses = []
    for mixing in (MixingConfig(), MixingConfig(mixup=0.8, cutmix=1.0)):
        out = tmp_path / str(mixing.is_on)
        run = spec(kind, rounds=1, mixing=mixing)
        losses.append(finetune(small_vit(), *sets, run, out)["rounds"][1]["loss_clean"])
    assert losses[0] != losses[1]
