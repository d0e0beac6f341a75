"""Attacks beside foolbox's: same pictures, steps, starts and radius.

foolbox is measured twice: as its documentation shows it, with a model whose weights still want
gradients, which it then computes and throws away; and with frozen weights. nsvit always freezes.
It is measured as evaluation uses it, where broken pictures drop out, and with that switched off
("all steps"), which is foolbox's number of passes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import torch
from foolbox.attacks.gradient_descent_base import normalize_lp_norms
from torch import Tensor
from torch.nn.functional import cross_entropy

import nsvit
from benchmarks.naive import attacks as naive
from benchmarks.runner import Case
from benchmarks.subjects import NAIVE
from nsvit.attacks import ATTACKS, ThreatModel, attack
from nsvit.attacks.steps import uniform
from nsvit.data.loading import to_float
from nsvit.data.menagerie.render import label, picture
from nsvit.errors import NsvitError
from nsvit.models import PixelModel, build, frozen, load_model

SHIPPED = Path(nsvit.__file__).parent / "pretrained"
FOOLBOX, FROZEN, OURS, ALL_STEPS = "foolbox", "foolbox, frozen", "nsvit", "nsvit, all steps"
BASELINES = (FOOLBOX, FROZEN)
#: Times as fast as foolbox's documentation, with as many passes and as evaluation runs it.
TARGET = 1.5

Sides = dict[str, Callable[[], Any]]


class PublishedMomentum(foolbox.attacks.LinfMomentumIterativeFastGradientMethod):
    """foolbox's MI-FGSM with the publication's l1 norm; foolbox accumulates signs."""

    def normalize(self, gradients: Any, *, x: Any, bounds: Any) -> Any:
        """The place foolbox has for it."""
        return normalize_lp_norms(gradients, p=1)


@dataclass(frozen=True)
class Subject:
    """What is attacked: a model, its frozen copy, pictures and labels."""

    model: PixelModel
    still: PixelModel
    images: Tensor
    labels: Tensor

    def first(self, count: int) -> Subject:
        """The same with only the first pictures."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def broken(self, images: Tensor) -> int:
        """How many are misclassified."""
        with torch.no_grad():
            return int((self.still(images).argmax(1) != self.labels).sum())

    def loss(self, images: Tensor) -> float:
        """Mean cross-entropy."""
        with torch.no_grad():
            return float(cross_entropy(self.still(images), self.labels))


def drawn(count: int) -> Subject:
    """The shipped vit_s and pictures of val as the default experiment draws them."""
    model = load_model(f"local-dir:{SHIPPED / 'vit_s'}").eval()
    shown = np.stack([picture(7, "val", index, model.image_size[0]) for index in range(count)])
    labels = torch.tensor([label(index) for index in range(count)])
    images = to_float(torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous())
    return Subject(model, deepcopy(model).requires_grad_(False), images, labels)


def large(count: int) -> Subject:
    """ViT-S/16 at 224 pixels with random weights, on noise, labelled by its own predictions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("vit_small_patch16_224", {}, (0.5,) * 3, (0.5,) * 3).eval()
        images = torch.rand(count, 3, *model.image_size)
    still = deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        return Subject(model, still, images, still(images).argmax(1))


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    on = drawn(args.pictures)
    small = on.first(max(args.pictures * 2 // 5, 1))
    found = [
        fgsm(on, (1,)),
        fgsm(on, (1, 2, 4, 8)),
        *(pgd(on, ThreatModel(k / 255), f"{k}/255") for k in (1, 8)),
        pgd(on, ThreatModel(0.5, "l2"), "0.5"),
        restarts(small),
        mi_fgsm(on),
        cw(small, None),
        cw(small, 0.5),
        patch_fool(on),
        auto(on.first(2)),
    ]
    if args.large:
        big = large(4)
        found += [fgsm(big, (1,)), pgd(big, ThreatModel(8 / 255), "8/255", steps=3)]
        found[-2:] = [replace(one, name=f"ViT-S/16, 224: {one.name}") for one in found[-2:]]
    return found


# --- one case each --------------------------------------------------------------------------


def fgsm(on: Subject, radii: tuple[int, ...]) -> Case:
    """One step; nsvit takes the gradient once for all radii, as evaluation does."""
    named = ", ".join(map(str, radii))
    oracle = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    sides = theirs(on, oracle, [k / 255 for k in radii])

    def ours() -> Tensor:
        with frozen(on.still):
            started = ATTACKS["fgsm"](on.still, on.images, on.labels)
            for k in radii:
                moved = started(ThreatModel(k / 255))
                with torch.no_grad():
                    on.still(moved).argmax(1)
        return moved

    return case(f"FGSM linf {named}/255", on, {**sides, OURS: ours})


def pgd(on: Subject, threat: ThreatModel, named: str, steps: int = 10) -> Case:
    """From the clean picture, since the two libraries draw different starts."""
    kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}
    step = 2.5 * threat.radius / steps
    oracle = kinds[threat.norm](abs_stepsize=step, steps=steps, random_start=False)
    sides = theirs(on, oracle, threat.radius)
    settings = {"steps": steps, "step_size": step, "random_start": False}
    sides[ALL_STEPS] = ours(on, "pgd", threat, early_exit=False, **settings)
    sides[OURS] = ours(on, "pgd", threat, **settings)
    return case(f"PGD {threat.norm} {named}, {steps} steps", on, sides)


def restarts(on: Subject) -> Case:
    """Three random starts, different ones in the two libraries."""
    radius = 4 / 255
    settings: dict[str, Any] = {"steps": 10, "random_start": True}
    oracle = foolbox.attacks.LinfPGD(abs_stepsize=radius / 4, **settings).repeat(3)
    threat = ThreatModel(radius)
    sides = theirs(on, oracle, radius)
    settings |= {"restarts": 3, "step_size": radius / 4}
    sides[ALL_STEPS] = ours(on, "pgd", threat, early_exit=False, **settings)
    sides[OURS] = ours(on, "pgd", threat, **settings)
    return case("PGD linf 4/255, 10 steps, 3 random starts", on, sides, apart=0.1, same=False)


def mi_fgsm(on: Subject) -> Case:
    """The target is a copy of the source, so that both libraries try the result on one model."""
    radius, steps = 8 / 255, 10
    oracle = PublishedMomentum(momentum=1.0, abs_stepsize=radius / steps, steps=steps)
    target = deepcopy(on.still)
    sides = theirs(on, oracle, radius)
    follow = partial(attack, target, on.images, on.labels, ThreatModel(radius), "mi_fgsm")
    sides[OURS] = lambda: follow(source=on.still, steps=steps).images
    return case(f"MI-FGSM linf 8/255, {steps} steps", on, sides)


def cw(on: Subject, radius: float | None) -> Case:
    """The same search; with a radius, nsvit ends it on a picture once it is inside."""
    search, steps, start = 2, 20, 1.0
    oracle = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=search,
        steps=steps,
        stepsize=0.01,
        initial_const=start,
        abort_early=False,
    )
    threat = ThreatModel(float("inf") if radius is None else radius, "l2")
    settings = {"binary_search_steps": search, "steps": steps, "initial_c": start}
    sides = {**theirs(on, oracle, radius), OURS: ours(on, "cw", threat, **settings)}
    named = "" if radius is None else f", within {radius}"
    return case(f"CW l2, {search} x {steps} steps{named}", on, sides, apart=0.1, same=False)


def patch_fool(on: Subject) -> Case:
    """Foolbox has nothing like it: the published loop, in our own words, from the same starts."""
    steps, wanting = 25, deepcopy(on.model).requires_grad_(True)
    start = uniform(on.images, list(range(len(on.images))), "patch")

    def published() -> Tensor:
        return naive.patch_fool(wanting, on.images, on.labels, start=start, steps=steps)

    call = partial(ours, on, "patch_fool", ThreatModel(1.0), steps=steps)
    sides = {NAIVE: published, ALL_STEPS: call(early_exit=False), OURS: call()}
    return case(f"Patch-Fool, 1 patch, {steps} steps", on, sides, apart=0.1, same=False)


def auto(on: Subject) -> Case:
    """Foolbox has none. Each picture is attacked alone, unless told otherwise."""
    call = partial(ours, on, "autoattack", ThreatModel(4 / 255), steps=5, queries=50)
    sides = {OURS: call(), "nsvit, together": call(together=True)}
    return case("AutoAttack linf 4/255, 5 steps, 50 queries", on, sides, same=False)


# --- sides and checks -----------------------------------------------------------------------


def theirs(on: Subject, oracle: Any, radii: Any) -> Sides:
    """Foolbox with wanted and with frozen weights; the images at the last radius."""

    def side(model: PixelModel) -> Callable[[], Tensor]:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def work() -> Tensor:
            model.zero_grad(set_to_none=True)  # else it adds up over the repeats
            _, moved, _ = oracle(wrapped, on.images, on.labels, epsilons=radii)
            return moved[-1] if isinstance(moved, list) else moved

        return work

    return {FOOLBOX: side(on.model), FROZEN: side(on.still)}


def ours(on: Subject, which: str, threat: ThreatModel, **settings: Any) -> Callable[[], Tensor]:
    """Nsvit's attack, which ends, as foolbox's, by looking whether it worked."""
    seeds = list(range(len(on.images)))
    call = partial(attack, on.model, on.images, on.labels, threat, which, seeds=seeds, **settings)
    return lambda: call().images


def case(name: str, on: Subject, sides: Sides, apart: float = 0.025, same: bool = True) -> Case:
    """A case whose sides must break as many pictures and, if `same`, raise the loss as far.

    Args:
        name: of the case.
        on: what is attacked.
        sides: each gives its adversarial images.
        apart: share of the pictures (at least one) by which the numbers broken may differ. Early
            exit may break more.
        same: whether the loss is compared too, within 2 %; not for early exit.
    """

    def check(found: Mapping[str, Tensor]) -> str:
        allowed = max(1, round(apart * len(on.images)))
        broken = {side: on.broken(images) for side, images in found.items()}
        loss = {side: on.loss(images) for side, images in found.items()}
        first = next(iter(found))
        for side in found:
            early = side == OURS and ALL_STEPS in found
            more = broken[side] - broken[first]
            if (more < -allowed) or (more > allowed and not early):
                raise NsvitError(f"{side} breaks {broken[side]}, {first} {broken[first]}")
            if same and not early and abs(loss[side] - loss[first]) > 0.02 * loss[first]:
                raise NsvitError(f"loss of {side} {loss[side]:.3f}, of {first} {loss[first]:.3f}")
        told = (f"{side} {broken[side]} (loss {loss[side]:.2f})" for side in found)
        return f"broken of {len(on.images)}: " + ", ".join(told)

    baselines = [side for side in (NAIVE, *BASELINES) if side in sides]
    targets = {side: TARGET for side in sides if FOOLBOX in sides and side not in baselines}
    return Case(name, sides, check, baselines, items=len(on.images), targets=targets)
