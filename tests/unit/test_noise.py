"""The noise loops against a naive re-implementation, their stop rule, files and bad input."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch.nn import functional as F

from nsvit import artifacts
from nsvit.config import NoiseConfig, RandomNoiseConfig
from nsvit.errors import NsvitError
from nsvit.models import inject
from nsvit.noise import Pool, learn_noise, load_noise, probability_distance, random_noise

STRICT = NoiseConfig(epsilon=0.0, max_steps=12, batch_size=4, limit=3.0)
RANDOM = RandomNoiseConfig(std=2.5, shrink=0.6)


@pytest.fixture
def exact():
    """Everything in float64: AdamW turns a rounding error of a small gradient into a whole step."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def pool():
    """(10, 3, 32, 32): two batches of 4 and one of 2."""
    return torch.rand(10, 3, 32, 32)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def forward(net, model, images, noise, block):
    tokens = net.patch_embed((images - model.mean) / model.std)
    if noise is not None and block == 0:
        tokens = tokens + noise.view(1, *tokens.shape[1:])
    tokens = net.norm_pre(net._pos_embed(tokens))
    for position, layer in enumerate(net.blocks):
        if noise is not None and position == block > 0:
            prefix = net.num_prefix_tokens
            tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:] + noise], 1)
        tokens = layer(tokens)
    return net.forward_head(net.norm(tokens))


def naive(model, pool, config, block, generator):
    """METHOD.md section 4 the slow way: weights collect gradients, the clean pass is repeated.

    Also AdamW written out, from its paper.
    """
    net = copy.deepcopy(model.net).eval().requires_grad_(True)
    tokens = (pool.shape[-1] // 8) ** 2
    v = torch.rand(1, tokens, net.embed_dim, generator=generator) * 2 * config.limit - config.limit
    v.requires_grad_()
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    batches = [pool[i : i + config.batch_size] for i in range(0, len(pool), config.batch_size)]
    for step in range(config.max_steps):
        images = batches[step % len(batches)]
        clean = forward(net, model, images, None, block).detach()
        noisy = forward(net, model, images, v, block)
        s = ((F.softmax(clean, -1) - F.softmax(noisy, -1)) ** 2).sum(-1).mean().item()
        if s < config.epsilon and config.early_stop:
            return v.detach(), step, s, True
        distance = ((clean - noisy) ** 2).sum(-1)
        loss = (distance if config.loss == "squared" else distance.sqrt()).mean()
        v.grad = None
        loss.backward()
        with torch.no_grad():
            v *= 1 - config.lr * config.weight_decay
            first = 0.9 * first + 0.1 * v.grad
            second = 0.999 * second + 0.001 * v.grad**2
            unbiased = second / (1 - 0.999 ** (step + 1))
            v -= config.lr * (first / (1 - 0.9 ** (step + 1))) / (unbiased.sqrt() + 1e-8)
    return v.detach(), config.max_steps, s, s < config.epsilon


@pytest.mark.parametrize("loss", ["squared", "unsquared"])
@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("kind", ["token", "average", "registers", "distilled", "dynamic"])
def test_learned_noise_is_the_naive_loops(exact, make_model, pool, kind, block, loss):
    model = make_model(kind)
    config = STRICT.model_copy(update={"loss": loss, "weight_decay": 0.3})
    expected, steps, distance, met = naive(model, pool, config, block, seeded())
    found = learn_noise(model, pool, config, block, seeded())
    torch.testing.assert_close(found.tensor, expected, atol=1e-8, rtol=0)
    assert (found.steps, found.epsilon_met) == (steps, met) == (12, False)
    assert found.distance == pytest.approx(distance, abs=1e-9)
    assert found.norm == pytest.approx(float(expected.norm()), abs=1e-6)


def test_it_stops_where_the_naive_loop_stops(exact, make_model, pool):
    model = make_model("token")
    config = STRICT.model_copy(update={"max_steps": 300, "lr": 0.05, "epsilon": 0.001})
    expected, steps, distance, met = naive(model, pool, config, 0, seeded())
    found = learn_noise(model, pool, config, 0, seeded())
    assert met
    assert 3 < steps < 300  # more than one round of the pool
    assert (found.steps, found.epsilon_met) == (steps, True)
    assert found.distance == pytest.approx(distance, abs=1e-9)
    assert found.distance < config.epsilon
    torch.testing.assert_close(found.tensor, expected, atol=1e-6, rtol=0)
    # The batch it stopped on, measured from outside.
    batch = (pool[:4], pool[4:8], pool[8:])[steps % 3]
    model.eval()
    with torch.no_grad():
        clean = model(batch)
        with inject(model, found.tensor):
            outside = probability_distance(clean, model(batch)).mean()
    assert found.distance == pytest.approx(float(outside), abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.001, 2.0])
def test_without_early_stop_it_runs_its_length(exact, make_model, pool, epsilon):
    model = make_model("token")
    changed = {"max_steps": 40, "lr": 0.05, "epsilon": epsilon, "early_stop": False}
    config = STRICT.model_copy(update=changed)
    expected, steps, distance, met = naive(model, pool, config, 0, seeded())
    found = learn_noise(model, pool, config, 0, seeded())
    assert (found.steps, steps) == (40, 40)
    assert found.epsilon_met == met == (distance < epsilon)
    assert found.distance == pytest.approx(distance, abs=1e-9)
    assert found.history[-1]["step"] == 39
    torch.testing.assert_close(found.tensor, expected, atol=1e-6, rtol=0)
    if epsilon == 2.0:  # inside from the beginning, and moved all the same
        start = (torch.rand(1, 16, 24, generator=seeded()) * 2 - 1) * 3
        assert met and float((found.tensor - start).abs().max()) > 0.1


def test_inside_epsilon_at_once_the_start_is_returned(make_model, pool):
    model = make_model()
    found = learn_noise(model, pool, STRICT.model_copy(update={"epsilon": 2.0}), 0, seeded())
    start = (torch.rand(1, 16, 24, generator=seeded()) * 2 - 1) * 3
    assert torch.equal(found.tensor, start)
    assert (found.steps, found.epsilon_met, len(found.history)) == (0, True, 1)
    assert found.tensor.abs().max() <= STRICT.limit


def test_limit_scales_the_start(make_model, pool):
    config = STRICT.model_copy(update={"epsilon": 2.0, "limit": 5.0})
    found = learn_noise(make_model(), pool, config, 0, seeded())
    assert 4.5 < found.tensor.max() <= 5
    assert -5 <= found.tensor.min() < -4.5


@pytest.mark.parametrize("make", [learn_noise, None], ids=["learned", "random"])
def test_pool_loader_and_bytes_give_the_same(make_model, pool, make):
    model = make_model()
    pool = (pool * 255).round() / 255

    def run(source):
        if make is None:
            return random_noise(model, source, STRICT, RANDOM, 1, seeded()).tensor
        return learn_noise(model, source, STRICT, 1, seeded()).tensor

    expected = run(pool)
    assert torch.equal(run(list(pool.split(4))), expected)
    assert torch.equal(run([(batch, "labels") for batch in pool.split(4)]), expected)
    assert torch.equal(run((pool * 255).round().to(torch.uint8)), expected)
    shared = Pool(model, pool, 4)
    assert torch.equal(run(shared), expected)
    assert torch.equal(run(shared), expected)


def test_clean_pass_of_a_pool_is_done_once_per_batch(make_model, pool):
    model = make_model()
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    learn_noise(model, pool, STRICT)
    handle.remove()
    assert len(passes) == STRICT.max_steps + 3


def test_the_model_is_left_as_it_was(make_model, pool):
    model = make_model("token").train()
    weights = copy.deepcopy(model.state_dict())
    model.net.cls_token.requires_grad_(False)
    with torch.no_grad():  # and the caller's grad mode does not matter
        found = learn_noise(model, pool, STRICT)
    assert all(module.training for module in model.modules())
    assert not model.net.cls_token.requires_grad
    assert model.net.head.weight.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not found.tensor.requires_grad
    assert not model.net.patch_embed._forward_hooks


def test_history_is_thin_and_ends_with_the_last_measurement(make_model, pool, caplog):
    config = STRICT.model_copy(update={"max_steps": 25})
    with caplog.at_level(logging.WARNING):
        found = learn_noise(make_model(), pool, config, 0, seeded())
    assert [entry["step"] for entry in found.history] == [0, 10, 20, 24]
    assert found.history[-1]["distance"] == found.distance
    assert "not met" in caplog.text
    fewer = config.model_copy(update={"max_steps": 10})
    assert found.history[1]["norm"] == learn_noise(make_model(), pool, fewer, 0, seeded()).norm


# --- random noise ---------------------------------------------------------------------------


def test_random_noise_is_the_start_shrunk_until_inside(exact, make_model, pool):
    model = make_model("token")
    config = STRICT.model_copy(update={"epsilon": 0.002, "max_steps": 100})
    found = random_noise(model, pool, config, RANDOM, 0, seeded())
    net = copy.deepcopy(model.net).eval()
    v, steps = torch.randn(1, 16, 24, generator=seeded()) * 2.5, 0
    while True:
        images = (pool[:4], pool[4:8], pool[8:])[steps % 3]
        with torch.no_grad():
            clean, noisy = (forward(net, model, images, x, 0) for x in (None, v))
        s = float(((clean.softmax(1) - noisy.softmax(1)) ** 2).sum(1).mean())
        if s < config.epsilon:
            break
        v, steps = v * 0.6, steps + 1
    assert steps > 1
    assert (found.steps, found.epsilon_met, found.kind) == (steps, True, "random")
    torch.testing.assert_close(found.tensor, v)
    assert found.distance == pytest.approx(s, abs=1e-6)


def test_random_noise_out_of_budget_says_so(make_model, pool):
    config = STRICT.model_copy(update={"max_steps": 2})
    found = random_noise(make_model(), pool, config, RANDOM, 0, seeded())
    assert (found.steps, found.epsilon_met) == (2, False)
    start = torch.randn(1, 16, 24, generator=seeded()) * 2.5
    torch.testing.assert_close(found.tensor, start * 0.36)


def test_random_noise_of_a_fixed_length_is_refused(make_model, pool):
    model = make_model()
    model.register_forward_hook(lambda *_: pytest.fail("computed"))
    with pytest.raises(NsvitError, match="early_stop must be true"):
        random_noise(model, pool, STRICT.model_copy(update={"early_stop": False}), RANDOM)


# --- files and bad input --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["learned", "random"])
def test_file_round_trip(make_model, pool, tmp_path, kind):
    model, path = make_model(), tmp_path / "noise.safetensors"
    if kind == "learned":
        noise = learn_noise(model, pool, STRICT, 1, seeded())
    else:
        noise = random_noise(model, pool, STRICT, RANDOM, 1, seeded())
    noise.save(path, artifacts.provenance("noise", {"model": "x"}, metrics={"round": 7}))
    again = load_noise(path)
    assert torch.equal(again.tensor, noise.tensor)
    plain = {name: value for name, value in vars(noise).items() if name != "tensor"}
    assert {name: value for name, value in vars(again).items() if name != "tensor"} == plain
    sidecar = artifacts.read_json(path.with_suffix(".json"))
    assert sidecar["spec"] == {"model": "x"}
    assert sidecar["metrics"]["round"] == 7
    assert sidecar["metrics"]["epsilon_met"] is False
    noise.save(path)
    assert torch.equal(load_noise(path).tensor, noise.tensor)


def test_other_files_are_refused(tmp_path):
    artifacts.write_tensors(tmp_path / "m.safetensors", {}, artifacts.provenance("model", {}))
    with pytest.raises(NsvitError, match=r"m\.safetensors: expected a 'noise' file"):
        load_noise(tmp_path / "m.safetensors")


def test_no_images_and_no_such_block_are_refused(make_model, pool):
    model = make_model()
    with pytest.raises(NsvitError, match="pool of images is empty"):
        learn_noise(model, pool[:0], STRICT)
    with pytest.raises(NsvitError, match="no images"):
        learn_noise(model, [], STRICT)
    with pytest.raises(NsvitError, match=r"block 3.*0 to 2"):
        learn_noise(model, pool, STRICT, block=3)


def test_a_one_way_iterator_ends_the_budget(make_model, pool):
    found = learn_noise(make_model(), iter(pool.split(4)), STRICT, 0, seeded())
    assert (found.steps, found.epsilon_met) == (3, False)
    assert found.history[-1]["step"] == 2


def test_nan_is_an_error_that_names_the_step(make_model, pool):
    model = make_model()
    poisoned = [pool[:4], pool[4:8] * torch.nan]
    with pytest.raises(NsvitError, match=r"learned noise at block 1: .*nan at step 1"):
        learn_noise(model, poisoned, STRICT, 1)
    with pytest.raises(NsvitError, match=r"random noise at block 0: .*nan at step 1"):
        random_noise(model, poisoned, STRICT, RANDOM)
    assert not model.net.blocks[1]._forward_pre_hooks
    assert model.net.head.weight.requires_grad


def test_infinite_loss_is_an_error(make_model, pool):
    model = make_model()
    with torch.no_grad():
        model.net.head.weight *= 1e30
    with pytest.raises(NsvitError, match="inf at step 0"):
        learn_noise(model, pool, STRICT)
