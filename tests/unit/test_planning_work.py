"""Passes of a plan against passes that the code really makes, on small models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from nsvit import config, prefixes, specs, visits
from nsvit.evaluation import evaluate
from nsvit.finetuning import finetune
from nsvit.influence import influence, learn_blocks
from nsvit.noise import learn_noise
from nsvit.planning import Costs, Work, work
from nsvit.planning.vit import shape_of
from tests.small import SIZE, image_tree, read_pictures, small_vit

SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
TRAIN, DEV, VAL = 32, 12, 20


def experiment(**finetune) -> config.Experiment:
    noise = {"max_steps": 3, "pool": 10, "batch_size": 5, "early_stop": False}
    settings = {"rounds": 2, "steps": 3, "batch_size": 8, "noise": noise, "augmentation": "none"}
    fgsm = {"set": "val", "attack": {"name": "fgsm", "radius": "8/255"}}
    pgd = {"name": "pgd", "radius": "1/255", "steps": 3, "random_start": False}
    return config.validate(
        {
            "experiment": "small",
            "data": {
                "root": ".",
                "classes": "classes.txt",
                "sets": {
                    "train": {"path": "train", "pictures": TRAIN + DEV},
                    "val": {"path": "val", "pictures": VAL},
                    "r": {"path": "r", "pictures": 10, "restrict": True},
                },
                "dev_images": DEV,
            },
            "models": {
                "small": {
                    "label": "small",
                    "timm": "vit_tiny_patch16_224",
                    "model_args": {**SMALL, "num_classes": 4},
                    "mean": [0.4, 0.5, 0.6],
                    "std": [0.2, 0.3, 0.25],
                }
            },
            "influence": {"models": ["small"], "images": 7, "draws": 2, "noise": noise},
            "finetune": {**settings, **finetune},
            "arms": {
                kind: {"label": kind, "kind": kind, "overrides": overrides}
                for kind, overrides in {
                    "none": {},
                    "plain": {},
                    "nullspace": {},
                    "random": {"noise": {"early_stop": True}},
                    "madry": {"adversarial": {"steps": 2}},
                    "trades": {"adversarial": {"steps": 2}},
                }.items()
            },
            "evaluate": {
                "batch_size": 8,
                "conditions": {
                    "clean": {"label": "", "set": "val"},
                    "fgsm_8": {"label": "", **fgsm},
                    "fgsm_4": {
                        "label": "", "set": "val", "attack": {"name": "fgsm", "radius": "4/255"},
                    },
                    "r": {"label": "", "set": "r"},
                    "r_all": {"label": "", "set": "r", "restricted": False},
                    "pgd": {"label": "", "set": "val", "images": 6, "attack": pgd},
                },
            },
        }
    )  # fmt: skip


ATEN = torch.ops.aten
FORMULAS = {
    **flop_registry,
    ATEN._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


class Flops(TorchDispatchMode):
    """Torch's formulas for every operation; its own counter cannot be used with autograd.grad."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket not in FORMULAS:  # under inference_mode: linear and the like
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        if formula := FORMULAS.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def counting(model) -> Iterator[SimpleNamespace]:
    """Counts pictures through forward passes, and FLOPs of all passes."""
    seen = SimpleNamespace(forward=0, flops=0)

    def count(module, inputs, output):
        seen.forward += len(output)

    handle = model.net.register_forward_hook(count)
    try:
        with Flops() as counter:
            yield seen
        seen.flops = counter.total
    finally:
        handle.remove()


def trees(tmp_path: Path):
    every = image_tree(tmp_path / "train", (TRAIN + DEV) // 4, name="train")
    return every.subset(range(DEV, TRAIN + DEV)), every.subset(range(DEV))


@pytest.mark.parametrize("kind", ["none", "plain", "nullspace", "madry", "trades"])
def test_a_finetuning_makes_the_planned_passes(kind, tmp_path):
    exp, model = experiment(), small_vit()
    train, dev = trees(tmp_path)
    with counting(model) as seen:
        finetune(model, train, dev, specs.finetune(exp, "small", kind, 0), tmp_path / "run")
    planned = Costs(exp).of_rule("finetune", "small", kind, "0").total
    assert planned.flops == pytest.approx(seen.flops, rel=0.02)
    assert planned.forward == seen.forward
    assert not planned.at_most


def test_random_noise_is_planned_as_at_most_what_it_takes(tmp_path):
    exp, model = experiment(), small_vit()
    train, dev = trees(tmp_path)
    with counting(model) as seen:
        finetune(model, train, dev, specs.finetune(exp, "small", "random", 0), tmp_path / "run")
    planned = Costs(exp).of_rule("finetune", "small", "random", "0").total
    assert planned.at_most
    assert seen.forward <= planned.forward


def test_an_evaluation_makes_the_planned_passes(tmp_path):
    exp, model = experiment(), small_vit()
    sets = {
        "val": image_tree(tmp_path / "val", VAL // 4),
        "r": image_tree(tmp_path / "r", 5, name="r", allowed=(1, 2)),
    }
    spec = specs.evaluate(exp, "small", "none", "main", "seed0")
    light = {k: v for k, v in spec.conditions.items() if k != "pgd"}
    for conditions, exact in ((light, True), (spec.conditions, False)):
        own = exp.evaluate.model_copy(update={"conditions": conditions})
        with counting(model) as seen:
            evaluate(model, sets, spec.model_copy(update={"conditions": conditions}))
        costs = Costs(exp.model_copy(update={"evaluate": own}))
        planned = costs.of_rule("evaluate", "small", "none", "main", "seed0").total
        assert planned.at_most != exact
        if exact:
            assert planned.forward == seen.forward
            assert planned.flops == pytest.approx(seen.flops, rel=0.02)
            assert planned.decoded == VAL + 10 + 8  # and a batch to look at before attacks
        else:
            assert planned.forward >= seen.forward
            assert planned.flops * 1.02 >= seen.flops


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("block", [0, 1])
def test_a_noise_makes_the_planned_passes(block, room, tmp_path, monkeypatch):
    assert (work.TRIED, work.KEEP_PREFIXES) == (prefixes.TRIED, visits.KEEP_PREFIXES)
    if not room:  # a pool keeps nothing of what comes before the noise
        monkeypatch.setattr(visits, "KEEP_PREFIXES", 0)
        monkeypatch.setattr(work, "KEEP_PREFIXES", 0)
    exp, model = experiment(), small_vit()
    noise = exp.finetune.noise.model_copy(update={"max_steps": 5})
    pool = read_pictures(image_tree(tmp_path / "pool", 3))[:10]
    with counting(model) as seen:
        learn_noise(model, pool, noise, block)
    planned = work.learned(shape_of(exp.models["small"]), noise, block, "noise")
    assert planned.forward == seen.forward
    # Fused attention forms its map again on the way back, which a plan leaves out.
    assert planned.flops == pytest.approx(seen.flops, rel=0.01)


def test_the_study_of_noise_makes_the_planned_passes(tmp_path):
    exp, model = experiment(), small_vit()
    costs = Costs(exp)
    assert exp.influence is not None
    pool = read_pictures(image_tree(tmp_path / "pool", 3))[:10]
    with counting(model) as seen:
        noises = learn_blocks(model, pool, exp.influence, (0,))
    planned = costs.of_rule("learn_noise", "small").total
    # Clean logits of a pool in memory are shared by all noises; the plan counts them for each.
    assert 0 <= planned.forward - seen.forward <= 10 * len(noises)
    held_out = read_pictures(image_tree(tmp_path / "dev", 2))[:7]
    with counting(model) as seen:
        influence(model, "small", held_out, [str(k) for k in range(7)], noises, 0)
    assert costs.of_rule("influence", "small").total.forward == seen.forward


def test_works_add_up_and_unknown_models_stay_unknown():
    from nsvit.planning.work import added, passes

    one, two = Work("a", 1, 2, 3, 4.0, 5, True, 6.0), Work("b", 10, 20, 30, 40.0, 50)
    assert added("sum", [one, two]) == Work("sum", 11, 22, 33, 44.0, 55, True, 6.0)
    unknown = passes("x", None, forward=3)
    assert unknown.flops is None
    assert added("sum", [one, unknown]).flops is None
