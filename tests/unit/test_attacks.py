"""FGSM against foolbox and against autograd by hand."""

import foolbox
import pytest
import torch
from torch.nn.functional import cross_entropy

from nsvit.attacks import ATTACKS, ThreatModel, attack
from nsvit.attacks.fgsm import fgsm_direction
from nsvit.errors import NsvitError
from tests.small import SIZE, small_vit


def pictures(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(count, 3, SIZE, SIZE, generator=generator)
    return images, torch.randint(0, 4, (count,), generator=generator)


@pytest.mark.parametrize("radius", [1 / 255, 4 / 255, 8 / 255, 0.3])
def test_fgsm_is_foolbox_fgsm(radius: float) -> None:
    model = small_vit()
    images, labels = pictures()
    ours = attack(model, images, labels, ThreatModel(radius)).images
    oracle = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs, _, success = oracle(wrapped, images, labels, epsilons=radius)
    assert torch.allclose(ours, theirs, atol=2e-7, rtol=0)
    assert not torch.allclose(ours, images, atol=radius / 2)
    assert torch.equal(attack(model, images, labels, ThreatModel(radius)).success, success)


def test_direction_is_the_sign_of_each_pictures_own_gradient() -> None:
    model = small_vit()
    images, labels = pictures()
    direction = fgsm_direction(model, images, labels)
    for index in range(len(images)):
        pixels = images[index : index + 1].clone().requires_grad_()
        cross_entropy(model(pixels), labels[index : index + 1]).backward()
        sure = pixels.grad.abs() > 1e-6
        assert sure.float().mean() > 0.9
        assert torch.equal(direction[index][sure[0]], pixels.grad.sign()[sure])


def test_model_and_images_are_left_alone() -> None:
    model = small_vit().train()
    images, labels = pictures()
    before = images.clone()
    attack(model, images, labels, ThreatModel(0.1))
    assert torch.equal(images, before) and not images.requires_grad
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_gradient_is_taken_once_for_all_radii() -> None:
    model = small_vit()
    images, labels = pictures()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    started = ATTACKS["fgsm"](model, images, labels)
    several = [started(ThreatModel(k / 255)) for k in (1, 2, 4, 8)]
    assert len(calls) == 1
    assert torch.equal(several[2], attack(model, images, labels, ThreatModel(4 / 255)).images)


@pytest.mark.parametrize("radius", [-0.1, 1.1, 8.0, float("nan")])
def test_a_radius_outside_the_pixel_range_is_refused(radius: float) -> None:
    with pytest.raises(NsvitError, match="radius"):
        ThreatModel(radius)


def test_unknown_attacks_and_norms_are_refused() -> None:
    images, labels = pictures(2)
    with pytest.raises(NsvitError, match=r"'pgdd'.*fgsm"):
        attack(small_vit(), images, labels, ThreatModel(0.1), name="pgdd")
    with pytest.raises(NsvitError, match="l7"):
        ThreatModel(0.1, norm="l7")
