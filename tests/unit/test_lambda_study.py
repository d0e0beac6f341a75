"""The lambda study against a plain re-implementation and numbers of one picture at a time."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from nsvit import artifacts, runtime, specs
from nsvit.comparison import compare, permuted
from nsvit.config import ClosureConfig, LambdaConfig
from nsvit.errors import NsvitError
from nsvit.lambda_noise import LambdaNoise, learn, learn_all
from nsvit.lambda_study import closure, hold_out, measure, run
from nsvit.models import inject
from tests.small import image_tree, small_vit
from tests.unit.test_noise import forward

SAMPLES = [f"n0/{position}.png" for position in range(6)]
CONFIG = LambdaConfig(
    models=("x",),
    lambdas=(0.1, 1.0),
    limit=1.0,
    lr=0.1,
    steps=4,
    batch_size=4,
    images=6,
    closure=ClosureConfig(at=1.0, images=4, factors=(0, 1, 2), weights=(0, 0.5, 1)),
)


@pytest.fixture
def exact():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def learned(make_model, images):
    """A model, the noises of `CONFIG` and held-out pictures (here those learned on)."""
    model = make_model("token")
    return model, learn_all(model, images, CONFIG, ("seed", 0)), hold_out(model, images, SAMPLES)


def naive(model, pool, weight, config, generator):
    """METHOD.md section 3 the slow way, with Adam and its cosine written out."""
    net = model.net.eval()
    tokens = (pool.shape[-1] // 8) ** 2
    v = torch.rand(1, tokens, net.embed_dim, generator=generator) * 2 * config.limit - config.limit
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    batches = [pool[i : i + config.batch_size] for i in range(0, len(pool), config.batch_size)]
    for step in range(config.steps):
        v = v.detach().requires_grad_()
        images = batches[step % len(batches)]
        change = forward(net, model, images, v, 0) - forward(net, model, images, None, 0).detach()
        loss = change.pow(2).sum(1).sqrt().mean() - weight * v.pow(2).sum().sqrt().log()
        (slope,) = torch.autograd.grad(loss, v)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        lr = config.lr * (1 + math.cos(math.pi * step / config.steps)) / 2
        unbiased = (second / (1 - 0.999 ** (step + 1))).sqrt()
        v = v - lr * first / (1 - 0.9 ** (step + 1)) / (unbiased + 1e-8)
    return v.detach()


@pytest.mark.parametrize("weight", [0.05, 2.0])
@pytest.mark.parametrize("kind", ["token", "average"])
def test_learning_is_the_naive_loop(exact, make_model, kind, weight):
    model, pool = make_model(kind), torch.rand(10, 3, 32, 32)
    config = CONFIG.model_copy(update={"steps": 9})
    expected = naive(make_model(kind), pool, weight, config, torch.Generator().manual_seed(3))
    found = learn(model, pool, weight, config, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found.tensor, expected, atol=1e-7, rtol=0)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_larger_lambda_gives_larger_noise(make_model, images):
    config = CONFIG.model_copy(update={"steps": 40})
    norms = []
    for weight in (0.01, 1.0, 3.0):
        start = torch.Generator().manual_seed(0)
        norms.append(float(learn(make_model("token"), images, weight, config, start).tensor.norm()))
    assert norms[0] < norms[1] < norms[2]


def test_every_noise_has_a_start_of_its_own_and_closure_has_two(learned, images):
    model, noises, _ = learned
    assert [(n.weight, n.draw) for n in noises] == [(0.1, 0), (1.0, 0), (1.0, 1)]
    alone = learn(model, images, 1.0, CONFIG, runtime.generator("seed", 0, "lambda", 1.0, 1), 1)
    assert torch.equal(alone.tensor, noises[2].tensor)
    assert not torch.equal(noises[1].tensor, noises[2].tensor)


def test_a_loss_that_is_not_finite_is_refused_with_its_lambda(make_model, images):
    model = make_model("token")
    with torch.no_grad():
        model.net.blocks[1].mlp.fc1.weight[0, 0] = float("nan")
    with pytest.raises(NsvitError, match=r"lambda 0\.7: .* not finite at step 0"):
        learn(model, images, 0.7, CONFIG, torch.Generator())


def test_an_unbounded_loss_is_refused_with_its_lambda(make_model, images):
    """Noise so large that the norm layers see nothing else: more of it changes nothing."""
    config = CONFIG.model_copy(update={"limit": 1e4})
    with pytest.raises(NsvitError, match=r"lambda 0\.7: the loss is unbounded"):
        # Of this seed, because others predict one class whatever they see.
        learn(make_model("token", seed=3), images, 0.7, config, torch.Generator())


def test_no_pictures_are_refused(make_model):
    with pytest.raises(NsvitError, match="no training pictures"):
        learn(make_model("token"), iter(()), 0.7, CONFIG, torch.Generator())


# --- measuring ------------------------------------------------------------------------------


def test_a_permutation_keeps_entries_and_norm():
    noise = torch.randn(1, 5, 7)
    found = permuted(noise, torch.Generator().manual_seed(1))
    assert found.shape == noise.shape
    assert torch.equal(found.flatten().sort().values, noise.flatten().sort().values)
    assert not torch.equal(found, noise)
    assert float(found.norm()) == pytest.approx(float(noise.norm()))
    assert torch.equal(found, permuted(noise, torch.Generator().manual_seed(1)))


def test_comparison_against_numpy():
    rng = np.random.default_rng(0)
    clean, noisy = rng.normal(size=(2, 20, 4))
    frame = compare(torch.tensor(clean), torch.tensor(noisy), [str(i) for i in range(20)])
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (clean, noisy))
    own = clean.argmax(1)
    rows = np.arange(20)
    np.testing.assert_array_equal(frame["agree"], own == noisy.argmax(1))
    np.testing.assert_allclose(frame["confidence_error"], (p - q)[rows, own] ** 2)
    np.testing.assert_allclose(frame["probability_distance"], ((p - q) ** 2).sum(1))
    np.testing.assert_allclose(frame["logit_distance"], np.sqrt(((clean - noisy) ** 2).sum(1)))
    assert 0 < frame["agree"].mean() < 1


def test_rows_are_what_one_picture_at_a_time_gives(learned, images):
    model, noises, held_out = learned
    frame = measure(model, "x", held_out, noises, 5)
    assert len(frame) == 3 * 2 * 6
    model.eval()
    for own in noises:
        mine = frame[(frame["lambda"] == own.weight) & (frame["draw"] == own.draw)]
        norms = mine.groupby("noise")["norm"].first()
        assert norms["permuted"] == pytest.approx(norms["learned"], rel=1e-6)
        rows = mine[mine["noise"] == "learned"].set_index("sample")
        for position, sample in enumerate(SAMPLES):
            with torch.no_grad():
                clean = model(images[position : position + 1])[0]
                with inject(model, own.tensor):
                    noisy = model(images[position : position + 1])[0]
            best = int(clean.argmax())
            assert rows.loc[sample, "agree"] == (best == int(noisy.argmax()))
            change = float(clean.softmax(0)[best] - noisy.softmax(0)[best])
            assert rows.loc[sample, "confidence_error"] == pytest.approx(change**2, abs=1e-6)
    assert frame["agree"].dtype == bool


def test_other_pictures_per_batch_change_nothing(learned, images):
    model, noises, held_out = learned
    one = measure(model, "x", held_out, noises, 5)
    two = measure(model, "x", hold_out(model, images, SAMPLES, batch_size=1), noises[::-1], 5)
    order = ["lambda", "draw", "noise", "sample"]
    pd.testing.assert_frame_equal(
        one.sort_values(order, ignore_index=True),
        two.sort_values(order, ignore_index=True),
        atol=1e-5,
        rtol=1e-4,
    )


def test_closure_of_nothing_once_and_twice(learned):
    model, noises, held_out = learned
    few = held_out.only(SAMPLES[1:5])
    frame = closure(model, "x", few, noises, CONFIG, 5)
    assert set(frame["sample"]) == set(SAMPLES[1:5])
    zero = frame[(frame["kind"] == "scaled") & (frame["factor"] == 0)]
    assert zero["agree"].all()
    assert (zero["norm"] == 0).all()
    assert zero["confidence_error"].max() < 1e-10
    studied = measure(model, "x", held_out, noises, 5)
    common = ["draw", "noise", "sample", "agree", "confidence_error", "norm"]
    once = frame[(frame["kind"] == "scaled") & (frame["factor"] == 1)]
    same = studied[(studied["lambda"] == 1.0) & studied["sample"].isin(SAMPLES[1:5])]
    order = ["draw", "noise", "sample"]
    pd.testing.assert_frame_equal(
        once[common].sort_values(order, ignore_index=True),
        same[common].sort_values(order, ignore_index=True),
        atol=1e-6,
    )


def test_mixtures_end_at_their_noises_and_the_sum_is_twice_their_mean(learned):
    model, noises, held_out = learned
    frame = closure(model, "x", held_out, noises, CONFIG, 5)
    frame = frame[frame["noise"] == "learned"].set_index("sample")
    mixed = frame[frame["kind"] == "combined"]
    for weight, draw in ((1.0, 0), (0.0, 1)):
        end = mixed[mixed["factor"] == weight]
        own = frame[(frame["kind"] == "scaled") & (frame["factor"] == 1) & (frame["draw"] == draw)]
        np.testing.assert_allclose(end["logit_distance"], own["logit_distance"], atol=1e-5)
    added = frame[frame["kind"] == "added"]["norm"].iloc[0]
    assert added == pytest.approx(2 * mixed[mixed["factor"] == 0.5]["norm"].iloc[0], rel=1e-5)
    assert (mixed["draw"] == -1).all()


def test_bad_input_is_refused(learned, images):
    model, noises, held_out = learned
    with pytest.raises(NsvitError, match="6 images for 5 sample paths"):
        hold_out(model, images, SAMPLES[:5])
    with pytest.raises(NsvitError, match=r"needs 2 noises of lambda 1, got 1"):
        closure(model, "x", held_out, noises[:2], CONFIG, 5)
    with pytest.raises(NsvitError, match="does not fit"):
        measure(model, "x", held_out, [LambdaNoise(1.0, 0, torch.zeros(1, 3, 3), 0.0)], 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"closure": {"at": 0.2}}, "closure.at 0.2 is not among lambdas"),
        ({"lambdas": (1.0, 1.0)}, "contain a repetition"),
        ({"images": 3}, "closure.images 4 is above images 3"),
        ({"lambdas": (1.0, 0.0)}, "greater than 0"),
    ],
)
def test_a_study_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LambdaConfig.model_validate({**CONFIG.model_dump(), **change})


def test_the_verb_writes_both_files(tmp_path):
    pictures = image_tree(tmp_path / "train", per_class=8)
    study = CONFIG.model_copy(update={"models": (), "pool": 16, "images": 8})
    split = specs.Split(dev_images=12, seed=0)
    spec = specs.LambdaSpec(model="mine", study=study, split=split)
    out, also = tmp_path / "l.parquet", tmp_path / "c.parquet"
    run(spec, small_vit(), pictures, out, also)
    rows, sidecar = artifacts.read_parquet(out, "lambda")
    assert len(rows) == 2 * 1 * 2 * 8  # lambdas, draws, noises, pictures
    assert sidecar["spec"]["study"]["steps"] == 4
    assert rows["sample"].nunique() == 8
    built, _ = artifacts.read_parquet(also, "closure")
    assert len(built) == (3 * 2 + 3 + 1) * 2 * 4
    assert set(built["sample"]) <= set(rows["sample"])
    again = tmp_path / "again.parquet"
    run(spec, small_vit(), pictures, again, also)
    pd.testing.assert_frame_equal(artifacts.read_parquet(again, "lambda")[0], rows)
