"""Noise at every block and its controls, against numbers computed one picture at a time."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from nsvit import artifacts
from nsvit.config import InfluenceConfig, NoiseConfig
from nsvit.errors import NsvitError
from nsvit.influence import _versions, influence, learn_blocks, load_noises, save_noises
from nsvit.models import inject
from nsvit.noise import learn_noise

CONFIG = InfluenceConfig(
    models=("x",),
    draws=2,
    limits=(3.0, 9.0),
    noise=NoiseConfig(epsilon=0.0, max_steps=3, batch_size=4),
)
SAMPLES = [f"n0/{position}.png" for position in range(6)]


@pytest.fixture
def learned(make_model, images):
    model = make_model("token")
    return model, learn_blocks(model, images, CONFIG, ("seed", 0))


def test_noise_is_learned_at_every_block_with_its_limit(learned, images):
    _, noises = learned
    places = [(noise.block, draw) for draw, noise in noises]
    assert places == [(block, draw) for block in range(3) for draw in range(2)]
    assert [noise.config["limit"] for _, noise in noises] == [3, 3, 9, 9, 9, 9]
    assert len({noise.norm for _, noise in noises}) == 6  # every draw starts elsewhere


def test_learning_does_not_depend_on_what_was_learned_before(learned, images):
    from nsvit import runtime

    model, noises = learned
    alone = learn_noise(
        model,
        images,
        CONFIG.noise.model_copy(update={"limit": 9.0}),
        1,
        runtime.generator("seed", 0, "noise", 1, 1),
    )
    assert torch.equal(alone.tensor, noises[3][1].tensor)


def test_rows_are_what_one_picture_at_a_time_gives(learned, images):
    model, noises = learned
    frame = influence(model, "x", images, SAMPLES, noises, 5, batch_size=4)
    assert len(frame) == 6 * 3 * 6
    assert list(frame["noise"].unique()) == ["learned", "permuted", "gaussian"]
    assert model.training
    model.eval()
    for draw, noise in noises:
        for kind, tensor in _versions(noise, draw, 5).items():
            rows = frame[
                (frame["block"] == noise.block) & (frame["draw"] == draw) & (frame["noise"] == kind)
            ].set_index("sample")
            assert list(rows.index) == SAMPLES
            assert rows["norm"].iloc[0] == pytest.approx(noise.norm, rel=1e-5)
            for position, sample in enumerate(SAMPLES):
                with torch.no_grad():
                    clean = model(images[position : position + 1])[0]
                    with inject(model, tensor, noise.block):
                        noisy = model(images[position : position + 1])[0]
                row = rows.loc[sample]
                assert row["agree"] == (clean.argmax() == noisy.argmax()).item()
                logits = float((clean - noisy).pow(2).sum().sqrt())
                probabilities = float((clean.softmax(0) - noisy.softmax(0)).pow(2).sum())
                assert row["logit_distance"] == pytest.approx(logits, abs=1e-4)
                assert row["probability_distance"] == pytest.approx(probabilities, abs=1e-5)
    assert frame["agree"].dtype == bool
    assert 0 < frame["agree"].mean() < 1


def test_controls_keep_the_norm_and_lose_the_direction(learned):
    _, noises = learned
    draw, noise = noises[0]
    versions = _versions(noise, draw, 5)
    permuted = versions["permuted"].flatten()
    assert torch.equal(permuted.sort().values, noise.tensor.flatten().sort().values)
    for kind in ("permuted", "gaussian"):
        control = versions[kind]
        assert float(control.norm()) == pytest.approx(noise.norm, rel=1e-5)
        cosine = torch.cosine_similarity(control.flatten(), noise.tensor.flatten(), dim=0)
        assert cosine.abs() < 0.3
    assert versions["gaussian"].abs().max() > noise.tensor.abs().max()  # not a permutation
    other = _versions(noise, draw, 6)
    assert not torch.equal(other["permuted"], versions["permuted"])
    assert torch.equal(_versions(noise, draw, 5)["gaussian"], versions["gaussian"])


def test_frame_does_not_depend_on_batches_or_order_of_noises(learned, images):
    model, noises = learned
    order = ["block", "draw", "noise", "sample"]
    one = influence(model, "x", images, SAMPLES, noises, 5, batch_size=6).sort_values(order)
    two = influence(model, "x", images, SAMPLES, noises[::-1], 5, batch_size=1).sort_values(order)
    pd.testing.assert_frame_equal(
        one.reset_index(drop=True), two.reset_index(drop=True), atol=1e-5, rtol=1e-4
    )


def test_folder_round_trip(learned, images, tmp_path):
    model, noises = learned
    save_noises(noises, tmp_path, artifacts.provenance("noise", {}))
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names[0] == "block0_draw0.safetensors"
    assert len(names) == 6
    again = load_noises(tmp_path)
    assert [draw for draw, _ in again] == [draw for draw, _ in noises]
    frames = [influence(model, "x", images, SAMPLES, n, 5) for n in (noises, again)]
    pd.testing.assert_frame_equal(*frames)
    artifacts.write_parquet(
        tmp_path / "i.parquet", frames[0], artifacts.provenance("influence", {})
    )
    back, _ = artifacts.read_parquet(tmp_path / "i.parquet", "influence")
    pd.testing.assert_frame_equal(back, frames[0])


def test_bad_input_is_refused(learned, images, make_model, tmp_path):
    model, noises = learned
    with pytest.raises(NsvitError, match="6 images for 5 sample paths"):
        influence(model, "x", images, SAMPLES[:5], noises, 5)
    with pytest.raises(NsvitError, match="does not fit"):
        influence(make_model("token", embed_dim=32), "x", images, SAMPLES, noises, 5)
    with pytest.raises(NsvitError, match="learn-noise"):
        load_noises(tmp_path)
