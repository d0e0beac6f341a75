"""Parts of a batch, and what must not change when a step is split, checkpointed or in bf16.

Several processes themselves are in tests/distributed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from nsvit import distributed, precision, runtime
from nsvit.config import FinetuneConfig, NoiseConfig
from nsvit.data.augment import light_augmentation
from nsvit.data.layouts import ImageSet
from nsvit.data.loading import train_images
from nsvit.errors import NsvitError
from nsvit.finetuning import finetune
from nsvit.noise import learn_noise
from nsvit.training import GlobalDropPath, checkpointed, refuse_coupled, rows_at_hand
from tests.runs import NOISE, same, spec, weights, without_seconds
from tests.small import image_tree, small_vit


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    root = tmp_path_factory.mktemp("pictures")
    train = image_tree(root / "train", per_class=6, seed=1, name="train")
    return train, image_tree(root / "dev", per_class=3, seed=2, name="dev")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_parts_are_the_batch_each_row_once(total: int, processes: int, pieces: int) -> None:
    rows, weight = [], 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "count", lambda: processes)
        for rank in range(processes):
            patch.setattr(distributed, "rank", lambda rank=rank: rank)
            found = distributed.parts(total, pieces)
            assert len(found) == pieces
            for part in found:
                own = list(range(total))[part.rows]
                assert own  # every process makes the same calls
                counted = round(part.weight * total)
                assert counted in (0, len(own))
                rows += own if counted else []
                weight += part.weight
    assert rows == list(range(total))
    assert weight == pytest.approx(1.0)


def test_alone_everything_is_given_back() -> None:
    distributed.start()
    assert (distributed.count(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.parts(7) == [distributed.Part(slice(0, 7), 1.0)]
    tensor = torch.rand(3)
    assert distributed.summed(tensor) is tensor and distributed.broadcast(tensor) is tensor
    assert distributed.total(torch.tensor(0.1)) == torch.tensor(0.1).item()
    assert distributed.agreed(lambda: (1, 2)) == (1, 2)
    assert [own for _, own in distributed.dealt("abc")] == [True] * 3


def test_gradients_travel_in_messages_of_one_type() -> None:
    tensors = [torch.rand(3), torch.rand(2), torch.rand(2).double(), torch.rand(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "_MESSAGE", 6)
        groups = list(distributed._messages(tensors))
    assert [len(group) for group in groups] == [2, 1, 1]
    assert [one for group in groups for one in group] == tensors


@pytest.mark.parametrize("augmentation", ["light", "imagenet", "none"])
def test_a_part_is_augmented_as_in_the_whole_batch(
    sets: tuple[ImageSet, ImageSet], augmentation: Any
) -> None:
    train, chosen = sets[0], [3, 0, 7, 7, 1, 12, 5]
    whole = train_images(train, chosen, augmentation, 16, 5, "augment", 1)
    parts = [
        train_images(train, chosen[a:b], augmentation, 16, 5, "augment", 1, first=a)
        for a, b in ((0, 3), (3, 4), (4, 7))
    ]
    assert torch.equal(torch.cat(parts), whole)
    if augmentation == "light":
        pixels = torch.randint(0, 255, (4, 3, 16, 16), dtype=torch.uint8)
        assert not torch.equal(
            light_augmentation(pixels, 1), light_augmentation(pixels, 1, first=1)
        )


def test_drop_path_is_timms_and_its_rows_are_those_of_the_batch() -> None:
    own, timms, x = GlobalDropPath(0.4), DropPath(0.4), torch.rand(12, 5, 3)
    torch.manual_seed(3)
    expected = timms(x)
    torch.manual_seed(3)
    assert torch.equal(own(x), expected)
    model = small_vit()
    model.net.blocks[0].drop_path1 = own
    batch = x.view(2, 6, 5, 3)  # two halves of a global batch of 6
    for rows in (slice(0, 2), slice(2, 5), slice(5, 6)):
        torch.manual_seed(3)
        with rows_at_hand(model, rows, 6):
            found = own(batch[:, rows].reshape(-1, 5, 3))
        assert torch.equal(found, expected.view(2, 6, 5, 3)[:, rows].reshape(-1, 5, 3))
    own.eval()
    assert own(x) is x


@pytest.mark.parametrize("kind", ["nullspace", "madry"])
@pytest.mark.parametrize("accumulate", [2, 3])
def test_a_step_in_several_passes_is_the_step(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], kind: str, accumulate: int
) -> None:
    run = spec(kind, augmentation="light", drop_path=0.3, label_smoothing=0.1)
    split = spec(
        kind, augmentation="light", drop_path=0.3, label_smoothing=0.1, accumulate=accumulate
    )
    one = finetune(small_vit(), *sets, run, tmp_path / "one")
    two = finetune(small_vit(), *sets, split, tmp_path / "two")
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in first.items():
        gap = (value - second[name]).abs()
        if name.endswith("qkv.bias"):  # the key bias has no gradient but for rounding
            gap[len(value) // 3 : 2 * len(value) // 3] = 0.0
        assert float(gap.max()) < 2e-6, name
    for row, other in zip(without_seconds(one), without_seconds(two), strict=True):
        assert other == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize("block", [0, 1])
def test_blocks_computed_twice_change_no_bit(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], block: int
) -> None:
    settings = {"drop_path": 0.3, "block": block, "noise": NOISE.model_copy(update={"limit": 3.0})}
    finetune(small_vit(), *sets, spec("nullspace", **settings), tmp_path / "kept")
    calls = []
    model = small_vit()
    model.net.blocks[1].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    again = spec("nullspace", gradient_checkpointing=True, **settings)
    finetune(model, *sets, again, tmp_path / "again")
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "again"))
    steps = again.finetune.rounds * again.finetune.steps
    assert len(calls) >= 2 * steps
    assert not model.net.grad_checkpointing


def test_bf16_trains_and_is_another_result(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = finetune(small_vit(), *sets, spec("nullspace"), tmp_path / "fp32")
    noise = NOISE.model_copy(update={"precision": "bf16"})
    two = finetune(
        small_vit(), *sets, spec("nullspace", precision="bf16", noise=noise), tmp_path / "bf16"
    )
    first, second = weights(tmp_path / "fp32"), weights(tmp_path / "bf16")
    assert not same(first, second)
    assert all(value.dtype == torch.float32 for value in second.values())
    for row, other in zip(one["rounds"][1:], two["rounds"][1:], strict=True):
        assert other["loss_clean"] != row["loss_clean"]
        assert other["loss_clean"] == pytest.approx(row["loss_clean"], rel=0.05)


def test_noise_in_bf16_is_near_that_in_fp32() -> None:
    images = torch.rand(6, 3, 16, 16, generator=runtime.generator("pictures"))
    config = NoiseConfig(limit=3.0, lr=0.05, epsilon=0.0, max_steps=5, batch_size=4)
    exact = learn_noise(small_vit(), images, config, 0, runtime.generator(1))
    mixed = config.model_copy(update={"precision": "bf16"})
    other = learn_noise(small_vit(), images, mixed, 0, runtime.generator(1))
    assert other.tensor.dtype == torch.float32 and not torch.equal(exact.tensor, other.tensor)
    assert float((exact.tensor - other.tensor).norm() / exact.tensor.norm()) < 0.05


def test_fp16_is_refused_on_cpus(tmp_path: Path, sets: tuple[ImageSet, ImageSet]) -> None:
    with pytest.raises(NsvitError, match=r"finetune\.precision: fp16 runs on GPUs only"):
        finetune(small_vit(), *sets, spec(precision="fp16"), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(NsvitError, match=r"noise\.precision: fp16 runs on GPUs only"):
        config = NoiseConfig(precision="fp16")
        learn_noise(small_vit(), torch.rand(2, 3, 16, 16), config)


def test_a_scaler_only_scales_in_fp16() -> None:
    loss = torch.tensor(2.0)
    for passes in ("fp32", "bf16"):
        assert precision.scaler(torch.device("cpu"), passes).scale(loss) is loss
    assert precision.scaler(torch.device("cpu"), "fp16").is_enabled()


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), nn.BatchNorm2d(3), DropPath(0.2)])
def test_layers_that_tie_pictures_together_are_refused(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet], layer: nn.Module
) -> None:
    model = small_vit()
    model.net.extra = layer
    with pytest.raises(NsvitError, match=rf"layer extra \({type(layer).__name__}\)"):
        refuse_coupled(model)
    with pytest.raises(NsvitError, match="layer extra"):
        finetune(model, *sets, spec(accumulate=2), tmp_path)
    model.net.extra = nn.Dropout(0.0)
    refuse_coupled(model)


def test_models_without_checkpointing_are_named() -> None:
    model = small_vit()
    model.net.set_grad_checkpointing = None
    with pytest.raises(NsvitError, match="no gradient checkpointing"), checkpointed(model, True):
        pass


def test_what_is_as_it_always_was_is_not_in_the_spec() -> None:
    assert not {"precision", "accumulate", "gradient_checkpointing"} & set(
        FinetuneConfig().model_dump()
    )
    assert "precision" not in NoiseConfig().model_dump()
    changed = FinetuneConfig(precision="bf16", accumulate=2, gradient_checkpointing=True)
    assert FinetuneConfig.model_validate_json(changed.model_dump_json()) == changed
    assert changed.model_dump()["precision"] == "bf16"


def test_more_passes_than_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulate 9 is above batch_size 8"):
        FinetuneConfig(accumulate=9, batch_size=8)
