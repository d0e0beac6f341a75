"""AutoAttack's adapter: at least as strong as PGD, inside the radius, seeded, refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nsvit.attacks import ThreatModel, attack
from nsvit.attacks.auto import autoattack, check
from nsvit.errors import NsvitError
from nsvit.models import frozen
from nsvit.scoring import Restricted
from tests.small import SIZE, small_vit

CHEAP = {"steps": 6, "queries": 20}


def predicted(model: nn.Module, count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    with frozen(model), torch.no_grad():
        return images, model(images).argmax(1)


@pytest.mark.parametrize("threat", [ThreatModel(1 / 255), ThreatModel(0.08, "l2")])
def test_robust_accuracy_is_at_most_that_of_pgd(threat: ThreatModel) -> None:
    model = small_vit(classes=6)
    images, labels = predicted(model, 16)
    labels[0] = (labels[0] + 1) % 6
    weak = attack(model, images, labels, threat, "pgd", steps=6)
    strong = attack(
        model, images, labels, threat, "autoattack", steps=10, queries=20, together=True
    )
    assert 0 < weak.success.sum() < len(images), "the test needs a mixed result"
    assert strong.success.sum() >= weak.success.sum()
    assert torch.equal(strong.images[0], images[0])
    sizes = threat.distance(images.double(), strong.images.double())
    assert (sizes <= threat.radius).all() and strong.images.dtype == torch.float32
    assert strong.images.min() >= 0 and strong.images.max() <= 1


def test_results_depend_on_the_seed_of_the_picture_only() -> None:
    model = small_vit()
    images, labels = predicted(model)
    seeds = list(range(len(images)))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    whole = attack(model, images, labels, ThreatModel(1 / 255), "autoattack", seeds=seeds, **CHEAP)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    order = [7, 2, 5]
    some = attack(
        model,
        images[order],
        labels[order],
        ThreatModel(1 / 255),
        "autoattack",
        seeds=order,
        **CHEAP,
    )
    assert torch.allclose(some.images, whole.images[order], atol=1e-6)


def test_excluded_classes_are_no_targets() -> None:
    model = small_vit(classes=7)
    restricted = Restricted(model, (1, 2, 4, 6), "here")
    images, labels = predicted(restricted)
    assert set(labels.tolist()) <= {1, 2, 4, 6}
    with frozen(model):
        found, broken = autoattack(restricted, images, labels, ThreatModel(4 / 255), **CHEAP)
        assert torch.isfinite(found).all() and broken.any()
        assert torch.equal(restricted(found).argmax(1) != labels, broken)


def test_too_few_classes_are_refused() -> None:
    images, labels = predicted(small_vit())
    with pytest.raises(NsvitError, match=r"3 classes.*apgd-t needs at least 4"):
        model = small_vit(classes=3)
        attack(model, images, labels % 3, ThreatModel(0.1), "autoattack")


@pytest.mark.parametrize(
    ("part", "classes"),
    [("apgd-ce", 2), ("apgd-dlr", 3), ("apgd-t", 4), ("fab", 2), ("fab-t", 2), ("square", 2)],
)
def test_each_part_runs_with_as_few_classes_as_it_needs_and_is_refused_with_fewer(
    part: str, classes: int
) -> None:
    model = small_vit(classes=classes)
    images, labels = predicted(model, 4)
    found = attack(
        model, images, labels, ThreatModel(16 / 255), "autoattack", parts=[part], **CHEAP
    )
    assert torch.isfinite(found.images).all()
    assert (found.images != images).any() or part.startswith("fab")
    check(classes, [part])
    with pytest.raises(NsvitError, match=f"{classes - 1} classes.*{part} needs at least {classes}"):
        check(classes - 1, [part])


class Stuck(nn.Module):
    """Logits that no pixel changes: every gradient is zero."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[9.0, 1.0, 0.0, 2.0]]) + 0 * images.sum((1, 2, 3))[:, None]


def test_what_the_package_warns_of_is_logged_once(caplog, recwarn) -> None:
    images, labels = torch.rand(3, 3, SIZE, SIZE), torch.zeros(3, dtype=torch.long)
    attack(Stuck(), images, labels, ThreatModel(0.1), "autoattack", parts=["apgd-dlr"], steps=3)
    (said,) = [one.getMessage() for one in caplog.records if "zero gradient" in one.getMessage()]
    assert said.startswith("autoattack, 3 of 3 calls: there are 1 points with zero gradient")
    assert {one.name for one in caplog.records if one.levelname == "WARNING"} == {
        "nsvit.attacks.auto"
    }
    assert "flags_doc" not in caplog.text and not recwarn.list
    caplog.clear()
    model = small_vit()
    images, labels = predicted(model, 3)
    attack(model, images, labels, ThreatModel(0.1), "autoattack", parts=["apgd-dlr"], steps=3)
    assert not caplog.records, "the test needs a model that gives no reason to warn"
