"""Doubts: raised when they should be, silent when they should not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from nsvit.attacks import ThreatModel, attack, examine
from nsvit.statistics import checks
from tests.small import SIZE, small_vit


def rows(condition: str, attack: str, radius: str, correct: list[int], **more) -> pd.DataFrame:
    columns = {"model": "m", "arm": "none", "seed": 0, "round": -1, "set": "val", "norm": "linf"}
    columns |= {"condition": condition, "attack": attack, "radius": radius, **more}
    samples = [f"{n}.png" for n in range(len(correct))]
    return pd.DataFrame({**columns, "sample": samples, "correct": np.array(correct, bool)})


#: Right under a weak attack and, of fewer pictures, under a stronger one.
WEAK, STRONG = [1, 0, 0, 0], [1, 1, 1]
CLEAN = rows("clean", "", "", [1, 1, 1, 1], norm="")


def found(*parts: pd.DataFrame) -> list[str]:
    records = pd.concat([CLEAN, *parts], ignore_index=True)
    plain = [doubt.check for doubt in checks.doubts(records)]
    texts = ["condition", "attack", "radius", "norm", "sample", "model"]
    categories = records.astype(dict.fromkeys(texts, "category"))
    assert [doubt.check for doubt in checks.doubts(categories)] == plain
    return plain


def test_attacks_that_behave_raise_no_doubt() -> None:
    assert found() == []
    assert (
        found(
            rows("f1", "fgsm", "1/255", [1, 1, 1, 0]),
            rows("p1", "pgd", "1/255", [1, 1, 0, 0]),
            rows("aa", "autoattack", "1/255", [1, 1, 0, 0]),
            rows("f8", "fgsm", "8/255", [1, 0, 0, 0]),
            rows("cw", "cw", "", [1, 1, 1, 1], norm="l2"),
        )
        == []
    )


def test_a_strong_attack_that_leaves_more_than_a_weak_one() -> None:
    weak, strong = rows("f1", "fgsm", "1/255", WEAK), rows("p1", "pgd", "1/255", STRONG)
    records = pd.concat([CLEAN, strong, weak])
    (doubt,) = checks.doubts(records)
    assert doubt.check == "weaker_than_smaller"
    assert "m/none/seed0" in str(doubt) and "p1" in doubt.where
    # Of the three pictures that both have, two more are right.
    assert "66.7 points" in doubt.text


@pytest.mark.parametrize(
    "change", [{"radius": "0/255"}, {"norm": "l2"}, {"arm": "plain"}, {"set": "v2"}, {"seed": 1}]
)
def test_only_like_is_compared_with_like(change: dict) -> None:
    strong = rows("p1", "pgd", **{"radius": "1/255", "correct": [1, 1, 1, 1], **change})
    assert found(rows("f1", "fgsm", "1/255", [1, 0, 0, 0]), strong) == []


def test_a_strong_attack_at_a_larger_radius_is_compared_too() -> None:
    weak, weaker = rows("f2", "fgsm", "2/255", WEAK), rows("f4", "fgsm", "4/255", STRONG)
    strong = rows("p8", "pgd", "8/255", STRONG)
    records = pd.concat([CLEAN, weak, strong])
    (doubt,) = checks.weaker_than_smaller(records)
    assert doubt.where.endswith(" p8") and "than fgsm (f2) at a smaller one" in doubt.text
    # Told once, of the one that it falls behind most.
    assert checks.weaker_than_smaller(pd.concat([records, weaker])) == [doubt]


def test_autoattack_outdoes_cw_and_cw_outdoes_fgsm() -> None:
    left = {"cw": WEAK, "autoattack": STRONG}
    one, other = (rows(name, name, "0.5", left[name], norm="l2") for name in left)
    assert found(one, other) == ["weaker_than_smaller"]
    cw = rows("cw", "cw", "0.5", STRONG, norm="l2")
    assert found(rows("p", "pgd", "0.5", WEAK, norm="l2"), cw) == []
    assert found(rows("f", "fgsm", "0.5", WEAK, norm="l2"), cw) == ["weaker_than_smaller"]


def test_accuracy_that_rises_with_the_radius() -> None:
    low, high = rows("f9", "fgsm", "9/255", WEAK), rows("f10", "fgsm", "10/255", STRONG)
    assert found(high, low) == ["rising_with_radius"]
    low, high = (rows(n, "pgd", n, [1, c, c], norm="l2") for n, c in (("0.5", 0), ("1", 1)))
    assert found(low, high) == ["rising_with_radius"]
    assert found(rows("f9", "fgsm", "9/255", [1, 1]), rows("f10", "fgsm", "10/255", [1, 0])) == []


def test_an_attack_that_leaves_more_than_there_was() -> None:
    before = rows("clean_4", "", "", [1, 0, 0, 0], norm="")
    attacked = [
        rows("patch", "patch_fool", "", [1, 1, 1]),
        rows("mim", "mi_fgsm", "8/255", [1, 1, 1, 0]),
        rows("cw", "cw", "0.5", [1, 1, 0, 0], norm="l2"),  # a single picture is chance
    ]
    records = pd.concat([before, *attacked], ignore_index=True)
    said = checks.doubts(records)
    assert [(one.check, one.place().condition) for one in said] == [
        ("better_than_clean", "patch"),
        ("better_than_clean", "mim"),
    ]
    assert "66.7 points more accuracy than no attack" in said[0].text
    # Better than one clean condition of two, or compared with fewer pictures, is no contradiction.
    assert found(before, *attacked) == []
    assert checks.doubts(pd.concat([before[:2], *attacked])) == []
    assert checks.doubts(pd.concat([before.assign(set="v2"), *attacked])) == []


def test_small_contradictions_are_left_to_chance() -> None:
    many = [1] * 500 + [0] * 500
    weak, strong = rows("f", "fgsm", "1/255", many), rows("p", "pgd", "1/255", [1] + many[:-1])
    assert found(weak, strong) == []
    three = rows("p", "pgd", "1/255", [1] * 503 + [0] * 497)
    assert found(weak, three) == []
    assert checks.doubts(pd.concat([weak, three]), tolerance=0.0)


@pytest.mark.parametrize("n", [80, 120, 200, 400])
def test_contradictions_are_counted_in_pictures(n: int) -> None:
    """A single picture is chance; two of 400 are just the tolerance, which is allowed."""
    weak = rows("f", "fgsm", "1/255", [0] * n)
    for more, expected in [(1, 0), (2, n < 400), (3, 1)]:
        strong = rows("p", "pgd", "1/255", [1] * more + [0] * (n - more))
        assert len(found(weak, strong)) == expected
        large = rows("f2", "fgsm", "2/255", [1] * more + [0] * (n - more))
        assert len(found(weak, large)) == expected


def test_doubts_are_read_back_from_what_is_stored() -> None:
    weak, strong = rows("f1", "fgsm", "1/255", WEAK), rows("p1", "pgd", "1/255", STRONG)
    (doubt,) = checks.doubts(pd.concat([CLEAN, strong, weak]))
    assert checks.Doubt.parse(str(doubt)) == doubt
    assert checks.Doubt.parse(doubt.as_dict()) == doubt
    assert doubt.place() == checks.Place("m", "none", 0, "val", "p1")
    where = "model 'vit_s' (arm none, seed 3) on set 'val'"
    of_a_set = checks.Doubt.parse(f"{where}: 2 of 4 pictures: none [zero_gradients]")
    assert of_a_set == checks.Doubt("zero_gradients", where, "2 of 4 pictures: none")
    assert of_a_set.place() == checks.Place("vit_s", "none", 3, "val", "")
    source = checks.Doubt.parse("source model 'cnn_a' on set 'val': none [zero_gradients]").place()
    assert source == checks.Place("", "", -1, "val", "", source="cnn_a")
    assert checks.Doubt.parse("something else").place() is None
    assert checks.Doubt.parse("something else").text == "something else"


def test_gradients_and_outputs() -> None:
    gradient = np.random.default_rng(0).normal(size=(4, 3, 2, 2))
    assert checks.zero_gradients(gradient, "x") == []
    gradient[1], gradient[2, 0, 0, 0] = 0, np.nan
    (doubt,) = checks.zero_gradients(gradient, "x")
    assert doubt.text.startswith("2 of 4") and doubt.where == "x"
    logits = np.random.default_rng(0).normal(size=(4, 5))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert checks.probabilities(logits, "x") == []
    assert [d.check for d in checks.probabilities(shares, "x")] == ["probabilities"]
    excluded = np.hstack([shares, np.full((4, 2), -np.inf)])
    assert [d.check for d in checks.probabilities(excluded, "x")] == ["probabilities"]
    assert checks.random_forward(logits, logits * (1 + 1e-6), "x") == []
    assert checks.random_forward(excluded, excluded, "x") == []
    assert [d.check for d in checks.random_forward(logits, logits + 0.1, "x")] == ["random_forward"]


class Wrapped(nn.Module):
    """A model whose outputs are changed by a function."""

    def __init__(self, change) -> None:
        super().__init__()
        self.model, self.change = small_vit(), change

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.change(self.model(images))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda logits: logits, None),
        (lambda logits: logits.softmax(1), "probabilities"),
        (lambda logits: logits + torch.randn_like(logits), "random_forward"),
        (lambda logits: logits.round().detach() + 0 * logits, "zero_gradients"),
    ],
)
def test_a_model_is_examined(change, check: str | None) -> None:
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    labels = torch.zeros(6, dtype=torch.long)
    raised = [doubt.check for doubt in examine(Wrapped(change), images, labels, "here")]
    assert raised == ([check] if check else [])


def test_masked_gradients_make_the_attack_stand() -> None:
    """What the check warns of: nothing moves although the model is not robust."""
    model = Wrapped(lambda logits: (logits * 1e4).softmax(1).round() * 1e3)
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    labels = model(images).argmax(1)
    found = attack(model, images, labels, ThreatModel(8 / 255), "pgd", random_start=False)
    assert torch.equal(found.images, images) and not found.success.any()
