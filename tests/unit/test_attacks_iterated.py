"""PGD, MI-FGSM, CW and the attacks of training against foolbox and against plain loops."""

from __future__ import annotations

import foolbox
import pytest
import torch
from foolbox.attacks.gradient_descent_base import normalize_lp_norms
from torch.nn.functional import cross_entropy, kl_div

from nsvit.attacks import ATTACKS, Context, ThreatModel, attack, madry_images, trades_images
from nsvit.attacks.cw import cw
from nsvit.attacks.mi_fgsm import mi_fgsm
from nsvit.attacks.pgd import pgd
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, frozen
from tests.small import SIZE, small_vit
from tests.tiny import tiny

COUNT = 24


def pictures(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator), torch.empty(0)


def predicted(model: PixelModel, count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with the model's own predictions as labels, so that all hold at first."""
    images, _ = pictures(count)
    with frozen(model), torch.no_grad():
        return images, model(images).argmax(1)


def losses(model: PixelModel, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return cross_entropy(model(images), labels, reduction="none")


def foolbox_model(model: PixelModel) -> foolbox.PyTorchModel:
    return foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_pgd_is_foolbox_pgd(norm: str, share: float) -> None:
    model = small_vit()
    images, labels = predicted(model)
    radius = {"linf": 8 / 255, "l2": 0.4}[norm] * share
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    oracle = kind(abs_stepsize=radius / 4, steps=12, random_start=False)
    theirs, _, success = oracle(foolbox_model(model), images, labels, epsilons=radius)
    with frozen(model):
        ours = pgd(
            model,
            images,
            labels,
            ThreatModel(radius, norm),
            steps=12,
            step_size=radius / 4,
            random_start=False,
            early_exit=False,
        )
    loss, oracle_loss = losses(model, ours, labels), losses(model, theirs, labels)
    assert torch.allclose(loss, oracle_loss, rtol=0.02, atol=0.02)
    assert (loss > losses(model, images, labels)).all()
    assert torch.equal(model(ours).argmax(1) != labels, success)
    # All but pixels whose gradient has rounding size, where a sign is chance.
    assert ((ours - theirs).abs() > 1e-4).float().mean() < 0.01
    early = attack(
        model,
        images,
        labels,
        ThreatModel(radius, norm),
        "pgd",
        steps=12,
        step_size=radius / 4,
        random_start=False,
    )
    assert (early.success >= success).all()


def test_pgd_does_not_touch_broken_pictures_and_restarts_only_help() -> None:
    model = small_vit()
    images, labels = predicted(model)
    labels[::3] = (labels[::3] + 1) % 4
    threat = ThreatModel(2 / 255)
    one = attack(model, images, labels, threat, "pgd", steps=3)
    three = attack(model, images, labels, threat, "pgd", steps=3, restarts=3)
    assert torch.equal(one.images[::3], images[::3])
    assert torch.equal(three.images[::3], images[::3])
    assert (three.success >= one.success).all()
    assert not one.success.all(), "the test needs pictures that hold"
    held = ~one.success & ~three.success
    assert held.any()
    first, best = (losses(model, r.images, labels)[held] for r in (one, three))
    assert (best >= first).all() and (best > first).any()


def test_pgd_forwards_fewer_pictures_once_some_are_broken() -> None:
    model = small_vit()
    images, labels = predicted(model)
    sizes: list[int] = []
    model.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    result = attack(model, images, labels, ThreatModel(8 / 255), "pgd", steps=10)
    assert result.success.any()
    assert sizes[1] == COUNT and sizes[-2] < COUNT
    assert sizes[1:-1] == sorted(sizes[1:-1], reverse=True)


class PublishedMomentum(foolbox.attacks.LinfMomentumIterativeFastGradientMethod):
    """foolbox accumulates signs; the publication divides by the l1 norm, which is foolbox's too."""

    def normalize(self, gradients, *, x, bounds):
        return normalize_lp_norms(gradients, p=1)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_mi_fgsm_is_foolbox_with_the_published_norm(decay: float) -> None:
    source = small_vit(seed=3)
    images, labels = predicted(source)
    radius, steps = 8 / 255, 6
    oracle = PublishedMomentum(momentum=decay, abs_stepsize=radius / steps, steps=steps)
    theirs, _, success = oracle(foolbox_model(source), images, labels, epsilons=radius)
    with frozen(source):
        ours = mi_fgsm(source, images, labels, ThreatModel(radius), steps=steps, decay=decay)
    assert ((ours - theirs).abs() > 1e-5).float().mean() < 2e-3
    assert torch.allclose(losses(source, ours, labels), losses(source, theirs, labels), rtol=1e-2)
    assert torch.equal(source(ours).argmax(1) != labels, success)


def test_mi_fgsm_follows_the_source_and_refuses_the_target() -> None:
    target, source = small_vit(), small_vit(seed=3)
    images, labels = predicted(target)
    asked: list[int] = []
    target.register_forward_hook(lambda *_: asked.append(1))
    threat = ThreatModel(16 / 255)
    found = attack(target, images, labels, threat, "mi_fgsm", source=source, steps=4)
    assert len(asked) == 1, "only to see whether it worked"
    with frozen(source):
        alone = mi_fgsm(source, images, labels, threat, steps=4)
    assert torch.equal(found.images, alone)
    assert losses(source, alone, labels).mean() > losses(source, images, labels).mean()
    with pytest.raises(NsvitError, match="the target itself"):
        attack(target, images, labels, threat, "mi_fgsm", source=target)
    with pytest.raises(NsvitError, match="no source"):
        attack(target, images, labels, threat, "mi_fgsm")
    with pytest.raises(NsvitError, match=r"7\s+classes"):
        attack(target, images, labels, threat, "mi_fgsm", source=small_vit(classes=7))


@pytest.mark.parametrize("confidence", [0.0, 0.2])
def test_cw_is_foolbox_cw(confidence: float) -> None:
    model = small_vit()
    images, labels = predicted(model, 12)
    settings = {"binary_search_steps": 5, "steps": 40, "confidence": confidence}
    oracle = foolbox.attacks.L2CarliniWagnerAttack(
        **settings, stepsize=0.01, initial_const=1e-2, abort_early=False
    )
    theirs, _, success = oracle(foolbox_model(model), images, labels, epsilons=None)
    with frozen(model):
        ours = cw(model, images, labels, **settings, initial_c=1e-2, lr=0.01)
    assert success.all() and (model(ours).argmax(1) != labels).all()
    sizes, oracle_sizes = ((found - images).flatten(1).norm(dim=1) for found in (ours, theirs))
    assert torch.allclose(sizes, oracle_sizes, rtol=0.02)
    if confidence:
        best = model(ours).scatter(1, labels[:, None], -torch.inf).amax(1)
        assert (best - model(ours).gather(1, labels[:, None])[:, 0] >= confidence - 1e-4).all()


def test_cw_within_a_radius_keeps_only_small_changes() -> None:
    model = small_vit()
    images, labels = predicted(model, 12)
    labels[0] = (labels[0] + 1) % 4
    settings = {"binary_search_steps": 5, "steps": 40, "initial_c": 0.1}
    free = attack(model, images, labels, ThreatModel(float("inf"), "l2"), "cw", **settings)
    sizes = (free.images - images).flatten(1).norm(dim=1)
    assert free.success.all() and sizes[0] == 0
    radius = float(sizes[1:].median())
    bounded = attack(model, images, labels, ThreatModel(radius * 1.001, "l2"), "cw", **settings)
    small = sizes <= radius * 1.001
    assert (ThreatModel(1, "l2").distance(images, bounded.images) <= radius * 1.001).all()
    assert torch.equal(bounded.images[~small], images[~small])
    assert torch.equal(bounded.success, small) and not small.all()
    with pytest.raises(NsvitError, match="only l2"):
        attack(model, images, labels, ThreatModel(0.1), "cw", **settings)


def test_cw_at_several_radii_is_cw_at_each() -> None:
    model = small_vit()
    images, labels = predicted(model, 8)
    settings = {"binary_search_steps": 4, "steps": 30, "initial_c": 0.1}
    forwards: list[int] = []
    with frozen(model):
        started = ATTACKS["cw"](model, images, labels, Context(settings))
        handle = model.register_forward_hook(lambda module, args, out: forwards.append(len(out)))
        for radius in (0.2, 0.5, 0.1):
            again = started(ThreatModel(radius, "l2"))
            alone = ATTACKS["cw"](model, images, labels, Context(settings))
            counted = sum(forwards)
            assert torch.equal(
                model(again).argmax(1), model(alone(ThreatModel(radius, "l2"))).argmax(1)
            )
            if radius == 0.2:
                full = 8 * (4 * 30 + 1)
                assert counted < full, "pictures leave once a change within the radius is found"
        handle.remove()


def test_attacks_of_training_leave_the_model_alone_and_raise_their_loss() -> None:
    model = tiny(drop_path_rate=0.5)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 5, (6,), generator=generator)
    threat = ThreatModel(8 / 255)
    madry = madry_images(model, images, labels, threat)
    trades = trades_images(model, images, threat)
    assert model.training and all(w.requires_grad and w.grad is None for w in model.parameters())
    again = madry_images(model, images, labels, threat)
    assert torch.equal(madry, again), "drop path would differ"
    model.eval()
    assert (losses(model, madry, labels) > losses(model, images, labels)).all()
    with torch.no_grad():
        clean = model(images).softmax(1)
        change = kl_div(model(trades).log_softmax(1), clean, reduction="none").sum(1)
        step = images + 8 / 255 * torch.randn(images.shape, generator=generator).sign()
        chance = kl_div(model(step.clamp(0, 1)).log_softmax(1), clean, reduction="none").sum(1)
    assert (change > 2 * chance).all()
    for found in (madry, trades):
        assert not found.requires_grad and (found - images).abs().max() <= 8 / 255


def test_trades_is_the_published_loop() -> None:
    model = small_vit()
    images, _ = pictures(8)
    threat, step, seeds = ThreatModel(8 / 255), 2 / 255, list(range(8))
    ours = trades_images(model, images, threat, steps=4, step_size=step, seeds=seeds)
    start = trades_images(model, images, threat, steps=0, seeds=seeds)
    assert 0 < (start - images).abs().max() < 6e-3
    clean, x = model(images).softmax(1).detach(), start.clone()
    for _ in range(4):
        pixels = x.clone().requires_grad_()
        (clean * (clean.log() - model(pixels).log_softmax(1))).sum().backward()
        x = x + step * pixels.grad.sign()
        x = torch.clamp(torch.clamp(x, images - 8 / 255, images + 8 / 255), 0, 1)
    assert ((ours - x).abs() > 1e-5).float().mean() < 5e-3


def test_bad_settings_are_refused_by_name() -> None:
    model = small_vit()
    images, labels = predicted(model, 2)
    with pytest.raises(NsvitError, match=r"'pgd'.*stepz"):
        attack(model, images, labels, ThreatModel(0.1), "pgd", stepz=3)
    with pytest.raises(NsvitError, match="3 seeds for 2 pictures"):
        attack(model, images, labels, ThreatModel(0.1), "pgd", seeds=[1, 2, 3])
    with pytest.raises(NsvitError, match="only 'linf'"):
        attack(model, images, labels, ThreatModel(0.1, "l2"), "fgsm")
