"""Blocks through torch.compile: the numbers they give without it, and nothing left behind.

Mostly by a backend that compiles to torch's own operators, which is quick; once by the real one.
"""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nsvit import compiled, precision, visits
from nsvit.config import FinetuneConfig, NoiseConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.finetuning import finetune
from nsvit.models import frozen, inject
from nsvit.noise import learn_noise
from nsvit.prefixes import can_resume, clean_pass, resumed
from tests.runs import NOISE, spec, weights
from tests.small import image_tree, small_vit
from tests.tiny import tiny

CONFIG = NoiseConfig(limit=0.5, lr=0.05, epsilon=0.0, max_steps=7, batch_size=4)


class Backend:
    """Compiles to torch's own operators, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    torch._dynamo.reset()
    own = Backend()
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest collects all
    monkeypatch.setattr(compiled, "HOW", {"backend": own})
    yield own
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    root = tmp_path_factory.mktemp("pictures")
    train = image_tree(root / "train", per_class=6, seed=1, name="train")
    return train, image_tree(root / "dev", per_class=3, seed=2, name="dev")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def close(found: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= bound * max(float(expected.abs().max()), 1.0)


@pytest.mark.parametrize("kind", ["token", "beit"])
def test_logits_and_gradients_of_noise_are_those_without_it(
    backend: Backend, images: Tensor, kind: str
) -> None:
    model = tiny(kind, depth=2)
    for block in (0, 1):
        noise = torch.randn(1, *model.token_shape).requires_grad_()

        def passed(block: int = block, noise: Tensor = noise) -> tuple[Tensor, Tensor]:
            with frozen(model), inject(model, noise, block):
                logits = model(images)
                return logits, torch.autograd.grad(logits.square().sum(), noise)[0]

        expected = passed()
        before = backend.graphs
        with compiled.blocks(model, True, "key"):
            found = passed()
        assert backend.graphs > before or block
        for one, other in zip(found, expected, strict=True):
            close(one, other, 1e-4)


@pytest.mark.parametrize(("block", "passes"), [(0, "fp32"), (1, "bf16")])
def test_passes_that_begin_at_a_block_are_still_whole_passes_bit_for_bit(
    backend: Backend, images: Tensor, block: int, passes: Any
) -> None:
    model = tiny("token")
    noise = torch.randn(1, *model.token_shape).requires_grad_()
    with frozen(model), compiled.blocks(model, True, "key"):
        assert can_resume(model, images, block, passes)
        _, prefix = clean_pass(model, images, block, passes)
        device = torch.device("cpu")
        with inject(model, noise, block), precision.autocast(device, passes):
            whole = model(images)
            with resumed(model, prefix):
                part = model(torch.zeros_like(images))
        assert torch.equal(part, whole)
    assert backend.graphs


def test_afterwards_the_model_is_as_it_was(backend: Backend, images: Tensor) -> None:
    model = tiny()
    own = [block.forward for block in model.blocks]

    def untouched() -> bool:
        same = all(block.forward == one for block, one in zip(model.blocks, own, strict=True))
        return same and not any("forward" in block.__dict__ for block in model.blocks)

    with compiled.blocks(model, False, "key"):
        assert untouched()
    with compiled.blocks(model, True, "key"):
        assert not untouched()
        model(images)
    assert untouched() and backend.graphs
    with pytest.raises(ZeroDivisionError), compiled.blocks(model, True, "key"):
        raise ZeroDivisionError
    assert untouched()
    model.blocks[1].forward = mine = lambda tokens: tokens
    with compiled.blocks(model, True, "key"):
        assert model.blocks[1].forward is not mine
    assert model.blocks[1].forward is mine
    seen = backend.graphs
    model(torch.rand(5, 3, 32, 32))
    assert backend.graphs == seen


def test_no_model_is_kept(backend: Backend, images: Tensor) -> None:
    model = tiny()
    with compiled.blocks(model, True, "key"):
        model(images)
    gone = weakref.ref(model.blocks[0])
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("block", "passes", "source"), [(0, "fp32", "pool"), (1, "fp32", "loader"), (1, "bf16", "pool")]
)
def test_noise_is_that_learned_without_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, block: int, passes: Any, source: str
) -> None:
    model, images = small_vit(), torch.rand(10, 3, 16, 16)
    shown = images if source == "pool" else list(images.split(4))
    config = CONFIG.model_copy(update={"precision": passes})
    expected = learn_noise(model, shown, config, block, seeded())
    resumes: list[bool] = []

    def tried(*args: Any) -> bool:
        resumes.append(can_resume(*args))
        return resumes[-1]

    monkeypatch.setattr(visits, "can_resume", tried)
    found = learn_noise(model, shown, config.model_copy(update={"compile": True}), block, seeded())
    assert backend.graphs and resumes == [True]
    close(found.tensor, expected.tensor, 1e-3 if passes == "fp32" else 0.1)
    assert found.distance == pytest.approx(expected.distance, rel=1e-3, abs=1e-3)
    assert (found.config["compile"], "compile" in expected.config) == (True, False)


def test_blocks_share_their_code_and_batches_of_another_size_need_no_more(
    backend: Backend,
) -> None:
    config = CONFIG.model_copy(update={"compile": True})

    def graphs(depth: int, pictures: int, batch: int) -> int:
        torch._dynamo.reset()
        before = backend.graphs
        settings = config.model_copy(update={"batch_size": batch})
        learn_noise(small_vit(depth=depth), torch.rand(pictures, 3, 16, 16), settings)
        return backend.graphs - before

    compiled.refuse(torch.device("cpu"), True, "key")
    few = graphs(2, 8, 4)
    assert few <= 3
    assert graphs(6, 8, 4) == few
    assert graphs(2, 9, 6) == graphs(2, 12, 5) == few  # last batches of 3 and 2
    assert graphs(2, 9, 4) <= 2 * few  # of 1, a case of its own for torch


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("plain", {"drop_path": 0.3, "accumulate": 2, "ema_decay": 0.5}),
        ("nullspace", {"gradient_checkpointing": True, "drop_path": 0.3, "block": 1}),
        ("random", {"precision": "bf16"}),
        ("madry", {}),
    ],
)
def test_finetuned_weights_are_those_without_it(
    tmp_path: Path,
    backend: Backend,
    sets: tuple[ImageSet, ImageSet],
    kind: str,
    settings: dict[str, Any],
) -> None:
    noise = NOISE.model_copy(update={"compile": True})
    settings = {"rounds": 1, "steps": 3, **settings}
    plain, own = spec(kind, **settings), spec(kind, compile=True, noise=noise, **settings)
    finetune(small_vit(), *sets, plain, tmp_path / "without")
    assert not backend.graphs
    finetune(small_vit(), *sets, own, tmp_path / "with")
    assert backend.graphs
    start, found, expected = small_vit().net.state_dict(), *map(weights, folders(tmp_path))
    bound = 5e-4 if settings.get("precision") == "bf16" or kind in ("madry", "trades") else 1e-5
    for name, value in expected.items():
        compared = torch.ones_like(value, dtype=torch.bool)
        if name.endswith("qkv.bias"):  # the key's has no effect: see test_finetuning
            compared[len(value) // 3 : 2 * len(value) // 3] = False
        assert float((found[name] - value).abs()[compared].max()) < bound, name
    assert max(float((found[name] - start[name]).abs().max()) for name in start) > 1e-3


def folders(root: Path) -> tuple[Path, Path]:
    return root / "with", root / "without"


class Killed(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    sets: tuple[ImageSet, ImageSet],
) -> None:
    noise = NOISE.model_copy(update={"compile": True})
    run = spec("nullspace", compile=True, noise=noise, rounds=2)
    finetune(small_vit(), *sets, run, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("nsvit.finetuning._train_round", killed)
        finetune(small_vit(), *sets, run, tmp_path / "cut")
    torch._dynamo.reset()
    finetune(small_vit(), *sets, run, tmp_path / "cut")
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()


def killed(*_: Any) -> None:
    raise Killed


def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    raise OSError("no compiler\nat all")


def only_sums(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    """Compiles what is tried first, and no block."""
    if len(inputs) > 1:
        raise OSError("no such operator")
    return graph


def test_where_it_does_not_work_it_is_refused_before_any_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[ImageSet, ImageSet]
) -> None:
    monkeypatch.setattr(compiled, "HOW", {"backend": broken})
    noise = NOISE.model_copy(update={"compile": True})
    message = r"compile: torch\.compile does not work here \(cpu\): .*no compiler.*set "
    for own in (spec(compile=True), spec("nullspace", noise=noise)):
        with pytest.raises(NsvitError, match=r"finetune\.(noise\.)?" + message):
            finetune(small_vit(), *sets, own, tmp_path)
        assert not list(tmp_path.iterdir())
    with pytest.raises(NsvitError, match=r"noise\.compile: .*set noise\.compile to false"):
        learn_noise(small_vit(), torch.rand(4, 3, 16, 16), noise)
    compiled.refuse(torch.device("cpu"), False, "key")


def test_a_block_that_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "HOW", {"backend": only_sums})
    noise, model = NOISE.model_copy(update={"compile": True}), small_vit()
    with pytest.raises(NsvitError, match=r"noise\.compile: .* cannot compile the blocks .*no such"):
        learn_noise(model, torch.rand(4, 3, 16, 16), noise)
    assert not any("forward" in block.__dict__ for block in model.blocks)


def test_what_is_not_compiled_says_nothing_of_it() -> None:
    assert "compile" not in NoiseConfig().model_dump()
    assert "compile" not in FinetuneConfig().model_dump()
    own = FinetuneConfig(compile=True, noise=NoiseConfig(compile=True))
    assert own.model_dump()["compile"] is own.model_dump()["noise"]["compile"] is True
    assert FinetuneConfig.model_validate_json(own.model_dump_json()) == own


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler, here g++")
def test_by_the_real_compiler(images: Tensor) -> None:
    torch._dynamo.reset()
    compiled.refuse(torch.device("cpu"), True, "key")
    model = tiny(depth=2)
    noise = torch.randn(1, *model.token_shape).requires_grad_()

    def passed() -> list[Tensor]:
        with frozen(model), inject(model, noise):
            logits = model(images)
            return [logits, *torch.autograd.grad(logits.square().sum(), noise)]

    expected, before = passed(), graphs()
    with compiled.blocks(model, True, "key"):
        found = passed()
    seen = graphs()
    assert seen > before
    with compiled.blocks(model, True, "key"):
        again = passed()
    assert graphs() == seen, "compiled again"
    for one, two, other in zip(found, again, expected, strict=True):
        close(one, other, 1e-4)
        assert torch.equal(one, two)
    torch._dynamo.reset()
