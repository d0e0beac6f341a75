"""Training from scratch: what it saves, and that it depends on its seed alone."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import nsvit.pretrain
from nsvit import artifacts
from nsvit.config import PretrainConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.models import load_model
from nsvit.pretrain import initial_model, pretrain
from nsvit.specs import PretrainSpec, Split
from tests.small import MEAN, SIZE, STD, image_tree, read_pictures

VIT = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet, ImageSet]:
    root = tmp_path_factory.mktemp("pictures")
    train = image_tree(root / "train", per_class=16, seed=1, name="train")
    dev = image_tree(root / "dev", per_class=6, seed=2, name="dev")
    return train, dev, image_tree(root / "val", per_class=8, seed=3, name="val")


def spec(**changes: object) -> PretrainSpec:
    settings = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {**VIT, "num_classes": 4},
        "mean": MEAN,
        "std": STD,
        "epochs": 8,
        "batch_size": 16,
        "lr": 5e-3,
        **changes,
    }
    config = PretrainConfig.model_validate(settings)
    return PretrainSpec(name="small", config=config, split=Split(dev_images=24, seed=0))


def test_it_learns_and_saves_a_folder_that_timm_opens(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet, ImageSet]
) -> None:
    run = spec(epochs=30, augmentation="none")
    metrics = pretrain(run, *sets, tmp_path / "small")
    val = sets[2]
    net = timm.create_model(f"local-dir:{tmp_path / 'small'}", pretrained=True).eval()
    pixels = (read_pictures(val) - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(
        1, 3, 1, 1
    )
    with torch.no_grad():
        prediction = net(pixels).argmax(1).numpy()
    assert metrics["val_accuracy"] == np.mean(prediction == val.labels)
    assert metrics["val_accuracy"] > 0.8, "brightness tells the class"
    assert metrics["n"] == len(val)
    sidecar = artifacts.read_json(tmp_path / "small" / "nsvit.json")
    artifacts.check_kind(sidecar, "pretrained", tmp_path)
    assert sidecar["metrics"] == metrics
    assert PretrainSpec.model_validate(sidecar["spec"]) == run
    assert load_model(f"local-dir:{tmp_path / 'small'}").mean.flatten().tolist() == pytest.approx(
        MEAN
    )


@pytest.mark.parametrize("augmentation", ["light", "imagenet", "none"])
def test_the_seed_decides_the_weights(
    tmp_path: Path, sets: tuple[ImageSet, ImageSet, ImageSet], augmentation: str
) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(name))
        few = {"epochs": 1, "augmentation": augmentation, "seed": seed}
        pretrain(spec(**few), *sets, tmp_path / name)
        return load_file(tmp_path / name / "model.safetensors")

    one, again, other = weights("one", 0), weights("again", 0), weights("other", 1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_sincos_positions_are_alike_when_near_and_leave_prefix_tokens_at_zero() -> None:
    args = {**VIT, "patch_size": 2, "num_classes": 4}
    embedding = initial_model(spec(model_args=args).config).net.pos_embed[0].detach()
    patches = embedding[1:]
    assert torch.equal(embedding[0], torch.zeros(16)) and len(patches) == 64
    similarity = (patches @ patches.T).reshape(8, 8, 8, 8)
    assert torch.allclose(patches.norm(dim=1), torch.full((64,), 8.0**0.5))
    assert similarity[3, 3, 3, 4] > similarity[3, 3, 3, 6]
    assert similarity[3, 3, 4, 3] > similarity[3, 3, 6, 3]
    random = initial_model(spec(model_args=args, sincos=False).config).net.pos_embed[0]
    assert not torch.allclose(random[1:], patches)


def test_a_cnn_has_no_position_embedding() -> None:
    with pytest.raises(NsvitError, match="sincos: false"):
        initial_model(spec(architecture="resnet18", model_args={"num_classes": 4}).config)


def test_a_loss_that_is_not_a_number_names_epoch_and_step_and_saves_nothing(
    tmp_path: Path,
    sets: tuple[ImageSet, ImageSet, ImageSet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = nsvit.pretrain.light_augmentation

    def poisoned(pixels: torch.Tensor, *parts: object) -> torch.Tensor:
        return original(pixels, *parts) * (float("nan") if parts[-1] == 6 else 1.0)

    monkeypatch.setattr(nsvit.pretrain, "light_augmentation", poisoned)
    with pytest.raises(NsvitError, match="pretrain small: loss is nan in epoch 1, step 2"):
        pretrain(spec(epochs=3), *sets, tmp_path / "small")
    assert not (tmp_path / "small").exists()
