"""Adversarial training against plain loops, and the two terms of the loss against scipy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn.functional import cross_entropy

import nsvit.finetuning
from nsvit import runtime
from nsvit.attacks import ThreatModel, attack
from nsvit.config import AdversarialConfig, FinetuneConfig
from nsvit.data.layouts import ImageSet
from nsvit.draws import attack_seeds, batch_positions
from nsvit.finetuning import finetune
from nsvit.losses import divergence, two_terms
from nsvit.models import PixelModel
from nsvit.specs import FinetuneSpec
from tests.runs import ATTACK, same, spec, weights
from tests.small import image_tree, read_pictures, small_vit

KINDS = ("madry", "trades")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    root = tmp_path_factory.mktemp("pictures")
    train = image_tree(root / "train", per_class=6, seed=1, name="train")
    return train, image_tree(root / "dev", per_class=3, seed=2, name="dev")


# --- the whole step -------------------------------------------------------------------------


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) summed over classes and pictures, from its definition."""
    return (p * (p / q).log()).sum()


def found_by_hand(
    model: PixelModel, kind: str, x: torch.Tensor, y: torch.Tensor, run: FinetuneSpec, place: tuple
) -> torch.Tensor:
    """Signed steps of 6/255 within 16/255, each picture from a start of its own."""
    seeds = [runtime.seed_for(run.seed, "attack", *place, position) for position in range(len(x))]
    model.eval()
    with torch.no_grad():
        clean = model(x).softmax(1)
    draws = [
        runtime.generator(seed, *(("pgd", 0) if kind == "madry" else (kind,))) for seed in seeds
    ]
    if kind == "madry":
        start = [(2 * torch.rand(3, 16, 16, generator=g) - 1) * 16 / 255 for g in draws]
    else:
        start = [0.001 * torch.randn(3, 16, 16, generator=g) for g in draws]
    found = (x + torch.stack(start)).clamp(0, 1)
    for _ in range(3):
        pixels = found.clone().requires_grad_()
        logits = model(pixels)
        loss = cross_entropy(logits, y) if kind == "madry" else kl(clean, logits.softmax(1))
        loss.backward()
        found = found + 6 / 255 * pixels.grad.sign()
        found = torch.clamp(torch.clamp(found, x - 16 / 255, x + 16 / 255), 0, 1)
    model.zero_grad()
    model.train()
    return found


def by_hand(model: PixelModel, kind: str, train: ImageSet, run: FinetuneSpec) -> PixelModel:
    """Two forward passes per step, torch's own AdamW; no decay, one round of two steps."""
    config, pictures = run.finetune, read_pictures(train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0, foreach=False)
    batches = batch_positions(len(train), config.batch_size, 2, run.seed, 1)
    for step, lr in enumerate([config.lr, (config.lr + config.lr_min) / 2]):
        optimizer.param_groups[0]["lr"] = lr
        x, y = pictures[batches[step]], torch.tensor(train.labels[batches[step]])
        adversarial = found_by_hand(model, kind, x, y, run, (1, step))
        clean, other = model(x), model(adversarial)
        if kind == "madry":
            second = cross_entropy(other, y)
        else:
            second = kl(clean.softmax(1), other.softmax(1)) / len(x)
        optimizer.zero_grad()
        (cross_entropy(clean, y) + config.adversarial.beta * second).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("beta", [1.0, 6.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_plain_loop(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str, beta: float
) -> None:
    settings = ATTACK.model_copy(update={"beta": beta})
    changes: dict[str, Any] = {"rounds": 1, "weight_decay": 0.0, "label_smoothing": 0.0}
    run = spec(kind, seed=3, adversarial=settings, **changes)
    finetune(small_vit(), *sets, run, tmp_path)
    expected = by_hand(small_vit(), kind, sets[0], run).net.state_dict()
    start, found = small_vit().net.state_dict(), weights(tmp_path)
    for name, value in expected.items():
        compared = torch.ones_like(value, dtype=torch.bool)
        if name.endswith("qkv.bias"):  # the key bias has no effect: see test_finetuning.py
            compared[len(value) // 3 : 2 * len(value) // 3] = False
        # A step is about 1e-3; Adam makes much of a rounding where a gradient is nearly zero.
        assert float((found[name] - value).abs()[compared].max()) < 5e-5, name
    assert max(float((found[name] - start[name]).abs().max()) for name in start) > 1e-3


# --- the terms ------------------------------------------------------------------------------


def test_the_terms_are_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(14, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (7,), generator=generator)
    log_p, log_q = (special.log_softmax(half.numpy(), axis=1) for half in logits.split(7))
    clean, noisy = (-half[np.arange(7), labels.numpy()].mean() for half in (log_p, log_q))
    change = special.rel_entr(np.exp(log_p), np.exp(log_q)).sum() / 7
    config = FinetuneConfig(label_smoothing=0.0, adversarial=AdversarialConfig(beta=2.5))
    seconds = {"plain": noisy, "nullspace": noisy, "madry": 2.5 * noisy, "trades": 2.5 * change}
    for kind, second in seconds.items():
        terms = two_terms(logits, labels, kind, config)
        assert terms.tolist() == pytest.approx([clean, second], rel=1e-12), kind


def test_label_smoothing_is_in_every_cross_entropy_and_in_no_divergence() -> None:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    sharp, smooth = (FinetuneConfig(label_smoothing=s) for s in (0.0, 0.2))
    for kind in ("plain", "madry", "trades"):
        change = two_terms(logits, labels, kind, smooth) - two_terms(logits, labels, kind, sharp)
        assert change[0] != 0
        assert (change[1] == 0) == (kind == "trades")


def test_gradients_go_through_both_predictions() -> None:
    clean, other = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    # Finite differences; a detached clean prediction would have no gradient.
    inputs = (clean.requires_grad_(), other.requires_grad_())
    assert torch.autograd.gradcheck(divergence, inputs)


def test_a_probability_that_rounds_to_zero_has_a_gradient() -> None:
    clean = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    other = torch.tensor([[0.0, 1.0], [0.0, 300.0]], requires_grad=True)
    change = divergence(clean, other)
    change.backward()
    entropy = special.entr(special.expit([1, -1])).sum()
    expected = (math.log(1 + math.e) + 300 * special.expit(-1) - entropy) / 2
    assert change.item() == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(clean.grad).all() and torch.isfinite(other.grad).all()


# --- what a run draws and does --------------------------------------------------------------


def test_seeds_of_attacks_depend_on_seed_round_step_and_place_only() -> None:
    assert attack_seeds(3, 0, 1, 2) == attack_seeds(5, 0, 1, 2)[:3]
    places = [(seed, number, step) for seed in (0, 1) for number in (1, 2) for step in (0, 1)]
    assert len({one for place in places for one in attack_seeds(5, *place)}) == 8 * 5


def test_the_arms_name_changes_nothing_and_both_kinds_start_from_the_same_seeds(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    original = nsvit.finetuning.attacked

    def spy(*args: Any) -> torch.Tensor:
        drawn.append(args[-1])
        return original(*args)

    monkeypatch.setattr(nsvit.finetuning, "attacked", spy)
    for name, kind in [("one", "madry"), ("two", "madry"), ("three", "trades")]:
        finetune(small_vit(), *sets, spec(kind, arm=name, rounds=1), tmp_path / name)
    assert drawn[0:2] == drawn[2:4] == drawn[4:6]
    assert drawn[0] != drawn[1]
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "three"))


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_run_in_evaluation_mode_and_the_step_in_one_pass_of_both_halves(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str
) -> None:
    passes: list[tuple[int, bool, bool]] = []
    model = small_vit()

    def seen(module: PixelModel, args: tuple[torch.Tensor], _: torch.Tensor) -> None:
        trainable = all(weight.requires_grad for weight in module.parameters())
        passes.append((len(args[0]), module.training, trainable))

    model.register_forward_hook(seen)
    finetune(model, *sets, spec(kind, rounds=1, steps=2, batch_size=8, drop_path=0.3), tmp_path)
    attacking = ATTACK.steps + (kind == "trades")
    step = [(8, False, False)] * attacking + [(16, True, True)]
    assert passes == [(12, False, False), *2 * step, (12, False, False)]


@pytest.mark.parametrize("kind", KINDS)
def test_beta_weighs_the_second_term_only(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str
) -> None:
    rows = {}
    for beta in (1.0, 3.0):
        settings = ATTACK.model_copy(update={"beta": beta})
        run = spec(kind, rounds=1, steps=1, adversarial=settings)
        rows[beta] = finetune(small_vit(), *sets, run, tmp_path / f"{beta}")["rounds"][1]
    assert rows[3.0]["loss_clean"] == rows[1.0]["loss_clean"]
    assert rows[3.0]["loss_noisy"] == pytest.approx(3 * rows[1.0]["loss_noisy"], rel=1e-6)
    assert not same(weights(tmp_path / "1.0"), weights(tmp_path / "3.0"))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_say_what_the_attack_cost(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str
) -> None:
    start, *rows = finetune(small_vit(), *sets, spec(kind), tmp_path)["rounds"]
    assert start["attack_seconds"] is None
    for row in rows:
        assert row.keys() == start.keys()
        assert 0 < row["attack_seconds"] < row["train_seconds"]
        assert row["noise_norm"] is row["noise_steps"] is row["epsilon_met"] is None
    assert not list(tmp_path.rglob("noise.*"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_withstand(tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str) -> None:
    """Measured by an attack with other draws, more steps, on pictures it never saw."""
    images, labels = read_pictures(sets[1]), torch.tensor(sets[1].labels)

    def under_attack(model: PixelModel) -> float:
        found = attack(
            model, images, labels, ThreatModel(16 / 255), "pgd", steps=10, early_exit=False
        )
        model.eval()
        with torch.no_grad():
            return float(cross_entropy(model(found.images), labels))

    settings = {"rounds": 4, "steps": 12, "batch_size": 16, "lr": 3e-3, "lr_min": 3e-3}
    losses = {"start": under_attack(small_vit())}
    for name in ("plain", kind):
        model = small_vit()
        finetune(model, *sets, spec(name, **settings), tmp_path / name)
        losses[name] = under_attack(model)
    assert losses[kind] < 0.7 * losses["start"]
    assert losses[kind] < 0.9 * losses["plain"]
