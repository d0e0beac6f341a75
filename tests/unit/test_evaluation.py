"""Records against a plain loop over timm's own forward."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

import nsvit.attacks
import nsvit.inputs
from nsvit.artifacts import provenance, read_parquet, write_json
from nsvit.config import ConditionConfig
from nsvit.data.layouts import ImageSet
from nsvit.errors import NsvitError
from nsvit.evaluation import dynamics, evaluate, run_dynamics
from nsvit.models import PixelModel, build, save_model
from nsvit.scoring import COLUMNS
from nsvit.specs import DynamicsSpec, EvaluateSpec
from tests.small import MEAN, STD, image_tree, read_pictures, small_vit

FGSM = {"name": "fgsm", "radius": "4/255"}
L2 = {"name": "pgd", "norm": "l2", "radius": 0.5}


def spec(conditions: dict[str, dict], batch_size: int = 5) -> EvaluateSpec:
    parsed = {k: ConditionConfig(label=k, **v) for k, v in conditions.items()}
    return EvaluateSpec(
        model="small", arm="none", seeds=(3,), batch_size=batch_size, conditions=parsed
    )


def plain_logits(model: PixelModel, pixels: torch.Tensor) -> torch.Tensor:
    """Normalises by hand and calls timm, one picture at a time."""
    normalised = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        return torch.cat([model.net(picture[None]) for picture in normalised])


def check(records: pd.DataFrame, logits: torch.Tensor, image_set: ImageSet) -> None:
    probabilities = logits.double().softmax(1).numpy()
    labels = image_set.labels
    assert list(records["sample"]) == list(image_set.frame["path"])
    assert list(records["label"]) == list(labels)
    assert list(records["prediction"]) == list(logits.argmax(1).numpy())
    assert list(records["correct"]) == list(logits.argmax(1).numpy() == labels)
    assert np.allclose(records["confidence"], probabilities.max(1), atol=1e-5)
    assert np.allclose(
        records["label_probability"], probabilities[np.arange(len(labels)), labels], atol=1e-5
    )


def test_clean_and_attacked_records_equal_a_plain_loop(tmp_path: Path) -> None:
    model, val = small_vit(), image_tree(tmp_path, per_class=4)
    records = evaluate(
        model,
        {"val": val},
        spec({"attacked": {"set": "val", "attack": FGSM}, "clean": {"set": "val"}}),
    )
    assert tuple(records.columns) == COLUMNS
    assert list(dict.fromkeys(records["condition"])) == ["attacked", "clean"]
    pixels = read_pictures(val)
    check(records[records["condition"] == "clean"], plain_logits(model, pixels), val)
    moved = pixels.clone().requires_grad_()
    loss = cross_entropy(model(moved), torch.tensor(val.labels), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, moved)
    attacked = (pixels + 4 / 255 * gradient.sign()).clamp(0, 1)
    check(records[records["condition"] == "attacked"], plain_logits(model, attacked), val)
    constants = records[["model", "arm", "seed", "round", "set"]].drop_duplicates()
    assert constants.values.tolist() == [["small", "none", 3, -1, "val"]]
    by_condition = records.groupby("condition")[["attack", "radius"]].first()
    assert by_condition.loc["attacked"].tolist() == ["fgsm", "4/255"]
    assert by_condition.loc["clean"].tolist() == ["", ""]
    assert records["confidence"].dtype == np.float32
    assert records["correct"].dtype == bool


def test_only_allowed_classes_are_predicted_and_share_the_probability(tmp_path: Path) -> None:
    model = small_vit(classes=6)
    full = image_tree(tmp_path, per_class=5, classes=6, name="a", allowed=(1, 4))
    logits = plain_logits(model, read_pictures(full))
    assert not set(logits.argmax(1).tolist()) <= {1, 4}, "the test needs a model that errs"
    records = evaluate(
        model, {"a": full}, spec({"a": {"set": "a"}, "f": {"set": "a", "attack": FGSM}})
    )
    assert set(records["prediction"]) <= {1, 4}
    masked = torch.full_like(logits, -torch.inf)
    masked[:, [1, 4]] = logits[:, [1, 4]]
    check(records[records["condition"] == "a"], masked, full)


def test_conditions_of_a_set_share_decoding_clean_pass_and_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, val = small_vit(), image_tree(tmp_path, per_class=5)
    read: list[str] = []
    forwards: list[int] = []
    original = nsvit.inputs.read_spans

    def counted(image_set: ImageSet, spans: list[tuple[int, int]]):
        for (start, stop), found in zip(spans, original(image_set, spans), strict=True):
            read.extend(image_set.frame["path"].iloc[start:stop])
            yield found

    monkeypatch.setattr(nsvit.inputs, "read_spans", counted)
    model.register_forward_hook(lambda module, args, out: forwards.append(len(out)))
    radii = {
        f"f{k}": {"set": "val", "attack": {"name": "fgsm", "radius": f"{k}/255"}} for k in (1, 2, 8)
    }
    evaluate(model, {"val": val}, spec({"clean": {"set": "val"}, "again": {"set": "val"}, **radii}))
    # The first batch is looked at beforehand: one gradient, and one pass more.
    examined = val.frame["path"][:5]
    assert Counter(read) == Counter(val.frame["path"]) + Counter(examined)
    # One clean pass, one pass for the gradient and one per radius, over every picture.
    assert sum(forwards) == len(val) * (1 + 1 + 3) + 2 * len(examined)


def test_a_condition_on_n_pictures_has_the_rows_of_the_whole_set(tmp_path: Path) -> None:
    cells = [("fog", 1), ("fog", 5), ("snow", 1)]
    model, corrupted = small_vit(), image_tree(tmp_path, per_class=4, cells=cells, name="c")
    few = {"set": "c", "images": 6, "metric": "corruption_error"}
    whole = {"set": "c", "metric": "corruption_error"}
    records = evaluate(model, {"c": corrupted}, spec({"few": few, "whole": whole}))
    alone = evaluate(model, {"c": corrupted}, spec({"few": few}))
    few_rows = records[records["condition"] == "few"].reset_index(drop=True)
    taken = set(corrupted.take(6).frame["path"])
    assert list(few_rows["sample"]) == [p for p in corrupted.frame["path"] if p in taken]
    assert few_rows.groupby(["corruption", "severity"]).size().tolist() == [6, 6, 6]
    pd.testing.assert_frame_equal(few_rows, alone, check_exact=True)
    whole_rows = records[records["condition"] == "whole"]
    check(whole_rows, plain_logits(model, read_pictures(corrupted)), corrupted)
    assert list(whole_rows["corruption"]) == list(corrupted.frame["corruption"])
    assert list(whole_rows["severity"]) == list(corrupted.frame["severity"])


def test_records_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    model, val = small_vit(), image_tree(tmp_path, per_class=4)
    conditions = {"clean": {"set": "val"}, "f": {"set": "val", "attack": FGSM}}
    one, all_ = (evaluate(model, {"val": val}, spec(conditions, size)) for size in (1, 100))
    pd.testing.assert_frame_equal(one, all_, rtol=1e-4)


ATTACKS = {
    "fgsm": FGSM,
    "pgd": {"name": "pgd", "radius": "4/255", "steps": 3},
    "pgd_8": {"name": "pgd", "radius": "8/255", "steps": 3},
    "pgd_l2": {"name": "pgd", "norm": "l2", "radius": 0.5, "steps": 3},
    "mim": {"name": "mi_fgsm", "radius": "8/255", "source": "cnn", "steps": 3},
    "cw": {"name": "cw", "steps": 10, "binary_search_steps": 3, "initial_c": 1.0},
    "cw_small": {"name": "cw", "radius": 0.1, "steps": 10, "binary_search_steps": 3},
    "patch": {"name": "patch_fool", "steps": 4},
    "patch_mild": {"name": "patch_fool", "radius": "8/255", "steps": 4, "mode": "attention"},
    "auto": {"name": "autoattack", "radius": "4/255", "steps": 2, "queries": 3},
}


def test_every_attack_works_as_a_condition(tmp_path: Path) -> None:
    model, val = small_vit(), image_tree(tmp_path, per_class=3)
    conditions = {k: {"set": "val", "attack": v} for k, v in ATTACKS.items()}
    conditions["few"] = {"set": "val", "attack": ATTACKS["pgd"], "images": 5}
    conditions["clean"] = {"set": "val"}
    sources = {"cnn": small_vit(seed=3).train()}
    one, all_ = (
        evaluate(model, {"val": val}, spec(conditions, size), sources=sources) for size in (2, 100)
    )
    loose = ["confidence", "label_probability", "distance"]
    pd.testing.assert_frame_equal(one.drop(columns=loose), all_.drop(columns=loose))
    assert np.abs(one[loose].to_numpy() - all_[loose].to_numpy()).max() < 0.02
    assert sources["cnn"].training
    first = one.groupby("condition").first()
    assert first.loc["pgd_l2", ["norm", "radius"]].tolist() == ["l2", "0.5"]
    assert first.loc["cw", ["norm", "radius"]].tolist() == ["l2", ""]
    assert first.loc["patch", ["norm", "radius"]].tolist() == ["linf", ""]
    assert first.loc["pgd", ["norm", "radius"]].tolist() == ["linf", "4/255"]
    assert first.loc["clean", ["norm", "distance"]].tolist() == ["", 0]
    largest, accuracy = (one.groupby("condition")[c].agg(f) for c, f in
                         (("distance", "max"), ("correct", "mean")))  # fmt: skip
    assert one["distance"].dtype == np.float32
    assert 0 < largest["pgd"] <= 4 / 255 < largest["pgd_8"] <= 8 / 255
    assert largest["cw_small"] <= 0.1 and largest["patch"] > 0.5 > largest["patch_mild"]
    assert accuracy["pgd_8"] <= accuracy["pgd"] < accuracy["clean"]
    # A picture's random start is its own, whichever pictures are in the condition.
    both = one[one["condition"] == "pgd"].merge(
        one[one["condition"] == "few"], on="sample", suffixes=("", "_few")
    )
    assert len(both) == 5 and np.allclose(both["confidence"], both["confidence_few"], atol=0.02)


def test_attacks_that_cannot_run_are_refused_before_any_forward(tmp_path: Path) -> None:
    val = image_tree(tmp_path / "val", per_class=2)
    masked = image_tree(tmp_path / "a", per_class=2, name="a", allowed=(0, 2))
    model, twin, other = small_vit(), small_vit(), small_vit(classes=5, seed=3)
    larger = small_vit(seed=3, img_size=32)
    cnn = build("resnet18", {"num_classes": 4, "layers": [1, 1, 1, 1]}, MEAN, STD)
    without = small_vit()
    without.net.blocks[0].attn = torch.nn.Identity()
    for one in (model, twin, other, larger, cnn, without):
        one.register_forward_hook(lambda *_: pytest.fail("computed"))
    many = {**ATTACKS["patch"], "patches": 5}
    for target, set_, attack, sources, message in (
        (without, val, ATTACKS["patch"], {}, r"'x'.*vit_tiny.*block 0"),
        (cnn, val, ATTACKS["patch"], {}, r"'x'.*resnet18.*not a plain ViT"),
        (model, val, many, {}, r"'x'.*5 patches of a picture with 4"),
        (model, masked, ATTACKS["auto"], {}, r"'x'.*2 classes"),
        (model, val, {**L2, "radius": 28}, {}, r"'x'.*pgd: l2 radius 28; no change of 16 x 16"),
        (model, val, ATTACKS["mim"], {}, r"'x'.*no source"),
        (model, val, ATTACKS["mim"], {"cnn": model}, r"'x'.*the target itself"),
        (model, val, ATTACKS["mim"], {"cnn": twin}, r"'x'.*the target's own weights"),
        (model, val, ATTACKS["mim"], {"cnn": other}, r"'x'.*5 classes"),
        (model, val, ATTACKS["mim"], {"cnn": larger}, r"'val'.*takes 32 x 32"),
    ):
        # A clean condition comes first: it is not computed either.
        wanted = spec({"clean": {"set": "val"}, "x": {"set": "val", "attack": attack}})
        with pytest.raises(NsvitError, match=message):
            evaluate(target, {"val": set_}, wanted, sources=sources)
    largest = ConditionConfig(label="", set="val", attack={**L2, "radius": 27}).attack
    assert largest is not None
    nsvit.attacks.refuse(largest, model, None, 4, "x")


def test_autoattack_among_all_classes_of_a_small_set_is_not_refused(tmp_path: Path) -> None:
    few = image_tree(tmp_path, per_class=1, name="a", allowed=(0, 2))
    attack = {"set": "a", "attack": ATTACKS["auto"], "restricted": False}
    assert len(evaluate(small_vit(), {"a": few}, spec({"x": attack}))) == 2


def test_a_condition_has_the_same_rows_alone_and_beside_others(tmp_path: Path) -> None:
    """To the bit: no search, start or batch is shared in a way that shows."""
    model = small_vit()
    sets = {
        "val": image_tree(tmp_path / "val", per_class=3),
        "a": image_tree(tmp_path / "a", per_class=3, name="a", allowed=(0, 1, 3)),
    }
    conditions: dict[str, dict] = {k: {"set": "val", "attack": v} for k, v in ATTACKS.items()}
    conditions |= {"clean": {"set": "val"}, "clean_5": {"set": "val", "images": 5}}
    conditions["pgd_5"] = {"set": "val", "images": 5, "attack": ATTACKS["pgd"]}
    conditions |= {"a": {"set": "a"}, "a_open": {"set": "a", "restricted": False}}
    conditions["a_f"] = {"set": "a", "attack": FGSM}
    # The search without a radius goes on where this one ends.
    conditions["cw_1"] = {"set": "val", "attack": {**ATTACKS["cw"], "radius": 1.0}}
    conditions["a_f_open"] = {"set": "a", "attack": FGSM, "restricted": False}
    sources = {"cnn": small_vit(seed=3)}
    together = evaluate(model, sets, spec(conditions), sources=sources)
    for slug, condition in conditions.items():
        alone = evaluate(model, sets, spec({slug: condition}), sources=sources)
        mine = together[together["condition"] == slug].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, alone, check_exact=True)


def test_a_condition_can_predict_among_all_classes(tmp_path: Path) -> None:
    model = small_vit(classes=6)
    some = image_tree(tmp_path, per_class=5, classes=6, name="a", allowed=(1, 4))
    open_ = {"set": "a", "restricted": False}
    wanted = spec({"masked": {"set": "a"}, "open": open_, "f": {**open_, "attack": FGSM}})
    records = evaluate(model, {"a": some}, wanted)
    check(records[records["condition"] == "open"], plain_logits(model, read_pictures(some)), some)
    shown = records.groupby("condition")["prediction"].agg(set)
    assert shown["masked"] <= {1, 4} and not shown["open"] <= {1, 4} and not shown["f"] <= {1, 4}


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model, val = small_vit().train(), image_tree(tmp_path, per_class=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, {"val": val}, spec({"f": {"set": "val", "attack": FGSM}}))
    assert model.training and all(w.requires_grad and w.grad is None for w in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_logits_that_are_not_finite_name_model_and_set(tmp_path: Path) -> None:
    model, val = small_vit(), image_tree(tmp_path, per_class=2)
    with torch.no_grad():
        model.net.head.bias[1] = float("nan")
    with pytest.raises(NsvitError, match=r"'small'.*'val'.*not finite"):
        evaluate(model, {"val": val}, spec({"clean": {"set": "val"}}))


def test_sets_that_do_not_fit_are_refused_before_any_forward(tmp_path: Path) -> None:
    model = small_vit()
    model.register_forward_hook(lambda *_: pytest.fail("computed"))
    good = image_tree(tmp_path / "good", per_class=2)
    large = image_tree(tmp_path / "large", per_class=2, size=24, name="large")
    more = image_tree(tmp_path / "more", per_class=2, classes=5, name="more")
    for bad, message in ((large, r"'large'.*24 x 24"), (more, r"'more'.*5 classes")):
        with pytest.raises(NsvitError, match=message):
            evaluate(
                model, {"val": good, "bad": bad}, spec({"v": {"set": "val"}, "b": {"set": "bad"}})
            )


def finished_run(folder: Path, rounds: int) -> list[PixelModel]:
    """A run's folder with other weights in every round."""
    saved = []
    for number in range(rounds):
        model = small_vit(seed=number)
        save_model(model, folder / f"rounds/{number}/model.safetensors", provenance("model", {}))
        saved.append(model)
    history = {**provenance("history", {}), "rounds": [{"round": r} for r in range(rounds)]}
    write_json(folder / "history.json", history)
    return saved


def test_dynamics_is_evaluate_on_subsets_of_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = image_tree(tmp_path / "val", per_class=5)
    cells = [("fog", 1), ("snow", 2)]
    corrupted = image_tree(tmp_path / "c", per_class=3, cells=cells, name="c")
    sets = {"val": val, "c": corrupted}
    models = finished_run(tmp_path / "run", rounds=3)
    conditions = {
        "clean": {"set": "val"},
        "f": {"set": "val", "attack": FGSM, "images": 2},
        "c": {"set": "c", "metric": "corruption_error"},
    }
    wanted = spec(conditions)
    dynamic = DynamicsSpec(**dict(wanted), images=6, corrupted_images=4)
    decoded = []
    original = nsvit.inputs.load_pixels
    monkeypatch.setattr(
        nsvit.inputs,
        "load_pixels",
        lambda image_set: decoded.append(len(image_set)) or original(image_set),
    )
    records, _ = dynamics(tmp_path / "run", sets, dynamic)
    # Beside single pictures to know the size: each subset once, not once per round.
    assert sorted(n for n in decoded if n > 1) == [6, 8]
    assert list(dict.fromkeys(records["round"])) == [0, 1, 2]
    subsets = {"val": val.take(6), "c": corrupted.take(4)}
    for number, model in enumerate(models):
        for slug, condition in conditions.items():
            found = records[(records["round"] == number) & (records["condition"] == slug)]
            subset = subsets[condition["set"]]
            alone = spec({slug: {**condition, "images": None}})
            expected = evaluate(model, {condition["set"]: subset}, alone, round=number)
            pd.testing.assert_frame_equal(found.reset_index(drop=True), expected, rtol=1e-4)
    assert records.groupby("round")["confidence"].mean().nunique() == 3


def test_dynamics_of_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    wanted = DynamicsSpec(**dict(spec({"clean": {"set": "val"}})), images=2, corrupted_images=1)
    with pytest.raises(NsvitError, match=r"history\.json"):
        dynamics(tmp_path, {"val": image_tree(tmp_path, per_class=1)}, wanted)


def test_dynamics_keeps_its_doubts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "run", rounds=2)
    # A PGD that does nothing.
    monkeypatch.setitem(nsvit.attacks.ATTACKS, "pgd", lambda model, x, *_: lambda threat: x)
    wanted = spec({k: {"set": "val", "attack": ATTACKS[k]} for k in ("fgsm", "pgd")})
    dynamic = DynamicsSpec(**dict(wanted), images=24, corrupted_images=1)
    val = image_tree(tmp_path / "val", per_class=6)
    run_dynamics(dynamic, tmp_path / "run", {"val": val}, tmp_path / "d.parquet")
    frame, sidecar = read_parquet(tmp_path / "d.parquet", "records")
    assert tuple(frame.columns) == COLUMNS and len(frame) == 2 * 2 * 24
    assert sidecar["doubts"] and all("weaker_than_smaller" in d for d in sidecar["doubts"])
