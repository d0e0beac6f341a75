"""`precision: auto`: what is measured, recorded, kept by work that goes on, and left alone."""

from __future__ import annotations

import json

import pytest
import torch

from nsvit import artifacts, autoprecision, specs
from nsvit.config import FinetuneConfig, NoiseConfig
from nsvit.data import layouts
from nsvit.errors import NsvitError
from nsvit.finetuning import finetune
from nsvit.influence import run_learn
from nsvit.noise import learn_noise
from tests.small import image_tree, small_vit

NOISE = NoiseConfig(limit=0.5, lr=0.05, epsilon=0.0, max_steps=4, batch_size=4, pool=8)
AUTO = NOISE.model_copy(update={"precision": "auto"})


@pytest.fixture(autouse=True)
def bf16_products(monkeypatch):
    """Both precisions are measured whatever the CPU has."""
    monkeypatch.setattr(autoprecision, "has_bf16", lambda device: True)


def bf16_takes(monkeypatch, share, asked=None):
    """Instead of a measurement: bf16 takes so much of fp32's time."""
    clock = {"now": 0.0}

    def step(model, count, training):
        def one(passes):
            clock["now"] += 1.0 if passes == "fp32" else share
            if asked is not None:
                asked.append(training)

        return one

    monkeypatch.setattr(autoprecision, "_step", step)
    monkeypatch.setattr(autoprecision.runtime, "clock", lambda device: clock["now"])


@pytest.mark.parametrize(("share", "expected"), [(0.5, "bf16"), (0.9, "fp32"), (3.0, "fp32")])
def test_bf16_is_taken_where_it_pays(monkeypatch, share, expected):
    bf16_takes(monkeypatch, share)
    found = autoprecision.choose(small_vit(), {"key": ("auto", 4, False)})
    assert found["key"]["precision"] == expected
    assert found["key"]["seconds"] == {"fp32": 1.0, "bf16": pytest.approx(share)}
    assert json.loads(json.dumps(found)) == found


def test_emulated_products_are_not_measured(monkeypatch):
    asked = []
    bf16_takes(monkeypatch, 0.5, asked)
    monkeypatch.setattr(autoprecision, "has_bf16", lambda device: False)
    found = autoprecision.choose(small_vit(), {"key": ("auto", 4, False)})
    assert found["key"]["precision"] == "fp32" and "seconds" not in found["key"]
    assert not asked


@pytest.mark.parametrize("share", [0.5, 3.0])
def test_noise_is_that_of_the_chosen_precision(monkeypatch, share):
    bf16_takes(monkeypatch, share)
    model, images = small_vit(), torch.rand(8, 3, 16, 16)
    named = NOISE.model_copy(update={"precision": "bf16" if share < 1 else "fp32"})
    found = learn_noise(model, images, AUTO, 1, torch.Generator().manual_seed(0))
    expected = learn_noise(model, images, named, 1, torch.Generator().manual_seed(0))
    assert torch.equal(found.tensor, expected.tensor)
    assert found.config == expected.config == named.model_dump()


@pytest.mark.parametrize("training", [False, True])
def test_the_measurement_leaves_no_trace(training):
    model = small_vit(drop_path_rate=0.5).train()
    model.net.blocks[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    found = autoprecision.choose(model, {"key": ("auto", 4, training)})
    assert set(found["key"]["seconds"]) == {"fp32", "bf16"}
    assert all(seconds > 0 for seconds in found["key"]["seconds"].values())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_is_measured_unless_asked_for(monkeypatch):
    monkeypatch.setattr(autoprecision, "_step", None)
    assert autoprecision.choose(small_vit(), {"key": ("fp32", 4, False)}) == {}
    assert autoprecision.settled(small_vit(), NOISE) is NOISE


def test_what_was_chosen_elsewhere_is_refused_where_it_does_not_run():
    with pytest.raises(NsvitError, match=r"finetune.precision .*fp16 runs on GPUs only"):
        autoprecision.choose(
            small_vit(),
            {"finetune.precision": ("auto", 4, True)},
            lambda: {"finetune.precision": {"precision": "fp16"}},
        )


@pytest.fixture
def pictures(tmp_path):
    return image_tree(tmp_path / "train", 8)


def run_spec(precision, noise, rounds=2):
    settings = FinetuneConfig(
        rounds=rounds, steps=2, batch_size=4, lr=1e-3, augmentation="light", noise=noise
    )
    return specs.FinetuneSpec(
        model="m", arm="nullspace", seed=0, kind="nullspace",
        finetune=settings.model_copy(update={"precision": precision}),
        split=specs.Split(dev_images=8, seed=0),
    )  # fmt: skip


def run(pictures, spec, out):
    train, dev = layouts.split_dev(pictures, 8, 0)
    return finetune(small_vit(), train, dev, spec, out)


def test_a_run_records_what_was_chosen_and_keeps_it(monkeypatch, pictures, tmp_path):
    asked = []
    bf16_takes(monkeypatch, 0.5, asked)
    found = run(pictures, run_spec("auto", AUTO), tmp_path / "a")
    assert set(asked) == {False, True}
    chosen = {key: own["precision"] for key, own in found["precision"].items()}
    assert chosen == {"finetune.precision": "bf16", "finetune.noise.precision": "bf16"}
    sidecar = artifacts.read_json(tmp_path / "a/model.json")
    assert sidecar["precision"] == found["precision"]
    assert sidecar["spec"]["finetune"]["precision"] == "auto"
    named = NOISE.model_copy(update={"precision": "bf16"})
    run(pictures, run_spec("bf16", named), tmp_path / "b")
    ours, theirs = (tmp_path / name / "model.safetensors" for name in "ab")
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_that_goes_on_keeps_what_was_chosen(monkeypatch, pictures, tmp_path):
    bf16_takes(monkeypatch, 0.5)
    spec = run_spec("auto", AUTO)
    run(pictures, spec, tmp_path / "whole")

    class Ended(Exception):
        pass

    def end(*_):
        raise Ended

    with monkeypatch.context() as patched, pytest.raises(Ended):
        patched.setattr("nsvit.finetuning._train_round", end)
        run(pictures, spec, tmp_path / "halved")
    bf16_takes(monkeypatch, 3.0)  # now fp32 would be chosen
    found = run(pictures, spec, tmp_path / "halved")
    assert found["precision"]["finetune.precision"]["precision"] == "bf16"
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "halved"))
    assert one.read_bytes() == other.read_bytes()


def test_noises_of_all_blocks_have_one_precision(monkeypatch, pictures, tmp_path):
    spec = specs.LearnSpec(
        model="m", draws=1, limits=(0.5,), noise=AUTO, split=specs.Split(dev_images=8, seed=0)
    )
    bf16_takes(monkeypatch, 0.5)
    model = small_vit()

    def fail(*_):
        raise NsvitError("ended")

    with monkeypatch.context() as patched, pytest.raises(NsvitError, match="ended"):
        patched.setattr("nsvit.influence.learn_noise", fail)
        run_learn(spec, model, pictures, tmp_path / "noise")
    bf16_takes(monkeypatch, 3.0)
    run_learn(spec, model, pictures, tmp_path / "noise")
    for block in (0, 1):
        sidecar = artifacts.read_json(tmp_path / f"noise/block{block}_draw0.json")
        assert sidecar["precision"]["precision"] == "bf16"
        assert sidecar["noise"]["config"]["precision"] == "bf16"
