"""config/paper.yaml from end to end on the real trees in miniature.

The overlay replaces where the sets are, the weights by tiny ones of every kind that is read, and
the budgets by single steps; sets, layouts, transforms, arms, attacks and tables are the file's own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from nsvit import artifacts, cells, models
from nsvit.data.corruptions import CORRUPTIONS
from nsvit.data.layouts import read_classes
from nsvit.models import PixelModel, load_model
from nsvit.statistics import ALEXNET_ERRORS
from tests import miniature
from tests.augreg import augreg_arrays, dat_state
from tests.checkout import Checkout
from tests.warm import warm_nsvit

pytestmark = [pytest.mark.xdist_group("miniature"), pytest.mark.timeout(1800)]

PAPER = "config/paper.yaml"
ROOT = Path(__file__).parents[2]
ARGS = {"patch_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NPZ = "weights/S_16-i21k.npz"


def net(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        net = timm.create_model("vit_small_patch16_224", **ARGS).eval()
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        # Right on one of the two classes that have pictures: dynamics are relative to the start.
        wnids, _ = read_classes("imagenet-1k")
        net.head.bias[wnids.index(miniature.shown_wnids(2)[0])] += 5.0
    return net


def write_weights(root: Path) -> dict[str, dict[str, object]]:
    """One file of each kind below root/weights; the keys of each model that change."""
    folder = root / "weights"
    folder.mkdir()
    small, base, dat, source = (net(seed) for seed in range(4))
    np.savez(root / NPZ, **augreg_arrays(small))
    own = PixelModel(base, (0.5,) * 3, (0.5,) * 3, "vit_base_patch16_224", ARGS)
    models.save_local_dir(own, folder / "base")
    save_file(base.state_dict(), folder / "base.safetensors")
    averaged = dat_state(dat, *map(torch.tensor, IMAGENET))
    raw = {name: torch.zeros_like(value) for name, value in averaged.items()}
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, folder / "dat.pth.tar")
    torch.save(source.state_dict(), folder / "deit.pth")
    npz = {"checkpoint": NPZ, "model_args": ARGS}
    return {
        "vit_s": npz,
        "vit_s_wrong_norm": npz,
        "vit_b": {"timm": "local-dir:weights/base"},
        "vit_b_wrong_norm": {"checkpoint": "weights/base.safetensors", "model_args": ARGS},
        "vit_b_dat": {"checkpoint": "weights/dat.pth.tar", "model_args": ARGS},
        "deit_tiny": {"checkpoint": "weights/deit.pth", "model_args": ARGS},
    }


def overlay(weights: dict[str, dict[str, object]]) -> dict[str, object]:
    paper = yaml.safe_load((ROOT / PAPER).read_text())
    sets, arms = paper["data"]["sets"], paper["arms"]
    partial = {name: {"partial": True} for name, own in sets.items() if "restrict" not in own}
    one = {"models": ["vit_s"], "seeds": [0]}
    attacks = {
        "patch_fool": {"steps": 1},
        "cw": {"binary_search_steps": 1, "steps": 1},
        "pgd_4": {"steps": 1, "restarts": 2},
        "autoattack_4": {"parts": ["apgd-ce"], "steps": 1},
        "mi_fgsm": {"steps": 1},
    }
    conditions: dict[str, dict[str, object]] = {
        name: {"attack": attack, "images": 2} for name, attack in attacks.items()
    }
    # One job for each run: what jobs share or not changes no record.
    for name in paper["evaluate"]["conditions"]:
        conditions.setdefault(name, {})["job"] = "main"
    noise = {"max_steps": 1, "pool": 4, "batch_size": 4}
    return {
        "experiment": "miniature",
        "data": {"root": "data", "dev_images": 4, "sets": partial},
        "models": {name: own for name, own in weights.items() if name in paper["models"]},
        "nullspace": {"images": 2, "architectures": ["vit_small_patch32_224"]},
        "influence": {"models": ["vit_s"], "images": 2, "draws": 1, "noise": noise},
        "lambda_study": {
            "models": ["vit_s"],
            "lambdas": [0.3, 1.0],
            "steps": 1,
            "pool": 4,
            "batch_size": 4,
            "images": 4,
            "closure": {"images": 2, "factors": [2], "weights": [0.5]},
        },
        "finetune": {
            "rounds": 1,
            "steps": 1,
            "batch_size": 4,
            "noise": noise,
            "adversarial": {"steps": 1},
        },
        "arms": {
            **{name: one for name, arm in arms.items() if arm["kind"] != "none"},
            "none": {"models": ["vit_s", "vit_s_wrong_norm"]},
            "nullspace": {"models": ["vit_s", "vit_b"], "seeds": [0]},
            "ns_round7": {**one, "overrides": {"rounds": 1}},
            "ns_fixed": {**one, "overrides": {"noise": {"max_steps": 2}}},
            "dat_ns": {"seeds": [0]},
            # Every run takes seconds, and these are as others are.
            **{name: {"models": []} for name in ("ns_eps_001", "random_eps_001", "random_eps_01")},
            **{name: {"models": []} for name in ("dat_plain", "dat_random")},
        },
        "evaluate": {
            "batch_size": 4,
            "together": True,
            "sources": {"deit_tiny": weights["deit_tiny"]},
            "conditions": conditions,
        },
        "dynamics": {"models": ["vit_s"], "images": 2, "corrupted_images": 1},
        "statistics": {"resamples": 50},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Checkout:
    run = Checkout(tmp_path_factory.mktemp("miniature"))
    miniature.build(run.folder / "data", train_per_class=6)
    (run.folder / "miniature.yaml").write_text(yaml.safe_dump(overlay(write_weights(run.folder))))
    with warm_nsvit(run.folder) as binaries:
        run.snakemake("--configfile", PAPER, "miniature.yaml", binaries=binaries)
    return run


def results(run: Checkout, name: str) -> Path:
    return run.folder / "results/miniature" / name


def records(run: Checkout, model: str, arm: str) -> pd.DataFrame:
    found, _ = cells.read_manifest(results(run, f"records/{model}/{arm}/main.all.json"))
    return pd.concat([artifacts.read_parquet(one.path, "records")[0] for one in found])


def test_everything_is_there(finished):
    for name in ("table1", "table2", "table3", "table4", "control", "claims", "paired", "attacks"):
        assert results(finished, f"tables/{name}.md").stat().st_size > 0
    for name in ("report.html", "figures/dynamics.svg", "figures/corruptions.svg"):
        assert results(finished, name).stat().st_size > 0
    table = pd.read_csv(results(finished, "tables/table1.csv"))
    assert set(table["column"]) >= {"clean", "c", "a", "r", "damagenet", "average", "strong"}
    trained = [("vit_s", arm) for arm in ("none", "plain", "random", "nullspace", "ns_round7")]
    trained += [("vit_b", "nullspace"), ("vit_b_dat", "dat"), ("vit_b_dat", "dat_ns")]
    shown = set(zip(table["model"], table["method"], strict=True))
    assert shown >= set(trained)


@pytest.mark.parametrize(
    ("model", "kind"), [("vit_s", 0), ("vit_b", 1), ("vit_b_wrong_norm", 1), ("vit_b_dat", 2)]
)
def test_every_kind_of_weights_is_the_model_that_was_written(finished, model, kind):
    own, expected = (
        load_model(results(finished, f"models/{model}/model.safetensors")).eval(),
        net(kind),
    )
    inputs = torch.randn(2, 3, 224, 224)
    assert torch.equal(own.net(inputs), expected(inputs))


def test_models_read_wrongly_say_so_in_models_and_records(finished):
    for model, wrong in (("vit_s", False), ("vit_s_wrong_norm", True), ("vit_b_dat", False)):
        sidecar = artifacts.read_json(results(finished, f"models/{model}/model.json"))
        assert bool(sidecar["warnings"]) == wrong
    manifest = json.loads(
        results(finished, "records/vit_s_wrong_norm/none/main.all.json").read_text()
    )
    (warning,) = manifest["warnings"]
    assert "0.485/0.456/0.406" in warning and "augreg" in warning


def test_every_set_is_read_whole(finished):
    found = records(finished, "vit_s", "none")
    sizes = found.groupby("condition", observed=True).size()
    assert sizes["c"] == 4 * 75 and set(found["corruption"]) == {"", *CORRUPTIONS}
    for name in ("clean", "v2", "sketch", "stylized", "damagenet", "fgsm_8"):
        assert sizes[name] == 4


@pytest.mark.parametrize(
    ("condition", "folder", "resized"),
    [
        ("clean", miniature.VAL, True),
        ("v2", miniature.V2, True),
        ("a", miniature.A, True),
        ("r", miniature.R, True),
        ("sketch", miniature.SKETCH, True),
        ("damagenet", miniature.DAMAGENET, True),
        ("stylized", miniature.STYLIZED, False),
        ("c", miniature.C, False),
    ],
)
def test_pictures_are_shown_as_the_protocol_says(finished, condition, folder, resized):
    """Against torchvision's transforms; among the set's own classes for A and R, else 1000."""
    steps = [Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)] if resized else []
    transform = Compose([*steps, ToTensor()])
    own = records(finished, "vit_s", "none").query("condition == @condition")
    own = own.iloc[:: max(len(own) // 4, 1)]
    model = load_model(results(finished, "models/vit_s/model.safetensors")).eval()
    for row in own.itertuples():
        with Image.open(finished.folder / "data" / folder / row.sample) as image:
            pixels = transform(image.convert("RGB"))[None]
        with torch.no_grad():
            logits = model(pixels)[0]
        if condition in ("a", "r"):
            kept = own["label"].unique()
            masked = torch.full_like(logits, -torch.inf)
            masked[kept] = logits[kept]
            logits = masked
        probabilities = logits.softmax(0)
        assert row.prediction == int(logits.argmax())
        assert row.confidence == pytest.approx(float(probabilities.max()), rel=1e-4)
        assert row.label_probability == pytest.approx(float(probabilities[row.label]), rel=1e-3)


def test_the_mce_is_divided_by_alexnets_errors(finished):
    own = records(finished, "vit_s", "none").query("condition == 'c'")
    errors = 1 - own.groupby("corruption", observed=True)["correct"].mean()
    expected = 100 * np.mean([errors[name] / ALEXNET_ERRORS[name] for name in CORRUPTIONS])
    table = pd.read_csv(results(finished, "tables/table1.csv")).set_index(["model", "method"])
    shown = table.loc[("vit_s", "none")].set_index("column").loc["c", "value"]
    assert shown == pytest.approx(expected, abs=0.006)  # per cent, two decimals


def test_a_changed_checkpoint_is_read_again(finished):
    arrays = augreg_arrays(net(9))
    np.savez(finished.folder / NPZ, **arrays)
    planned = finished.snakemake("-n", "--configfile", PAPER, "miniature.yaml")
    jobs = planned.split("Job stats:")[1]
    assert "prepare_model" in jobs and "scan" not in jobs
