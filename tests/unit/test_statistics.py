"""Every formula of nsvit.statistics against an implementation by others."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from nsvit import statistics
from nsvit.config import StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.statistics import bootstrap
from nsvit.statistics.bootstrap import seed_weights

FEW = StatisticsConfig(resamples=300)


def records(
    scores: dict[str, list[bool]],
    arm: str = "none",
    seed: int = 0,
    sets: dict[str, str] | None = None,
) -> pd.DataFrame:
    """Records of one run: condition -> correct per picture; each condition its own set."""
    parts = [
        pd.DataFrame(
            {
                "model": "m",
                "arm": arm,
                "seed": seed,
                "round": -1,
                "condition": condition,
                "set": (sets or {}).get(condition, condition),
                "corruption": "",
                "severity": 0,
                "sample": [f"{i}.png" for i in range(len(correct))],
                "correct": correct,
            }
        )
        for condition, correct in scores.items()
    ]
    return pd.concat(parts, ignore_index=True)


def corrupted(correct: np.ndarray, types: list[str], seed: int = 0) -> pd.DataFrame:
    """Records of a corruption set from correct (pictures, types, severities)."""
    rows = [
        ("m", "none", seed, -1, "c", "c", name, s + 1, f"{name}/{s + 1}/n0/{i}.png", ok)
        for t, name in enumerate(types)
        for s in range(correct.shape[2])
        for i, ok in enumerate(correct[:, t, s])
    ]
    columns = "model arm seed round condition set corruption severity sample correct"
    return pd.DataFrame(rows, columns=columns.split())


# --- proportions ----------------------------------------------------------------------------


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_statsmodels(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    found = statistics.wilson_interval(successes, n, confidence)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.0 <= found[0] <= successes / n <= found[1] <= 1.0


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(NsvitError, match=f"{successes} out of {n}"):
        statistics.wilson_interval(successes, n)


def test_accuracy_refuses_nothing() -> None:
    assert statistics.accuracy([True, False, True, True]) == 0.75
    with pytest.raises(NsvitError, match="empty"):
        statistics.accuracy([])


def test_robust_accuracy_counts_all_pictures() -> None:
    frame = records(
        {
            "clean": [True, True, False, True],
            "x": [True, False, True, True],
            "y": [False, True, True, True],
        }
    )
    assert statistics.robust_accuracy(frame, ["clean"]) == 0.75
    assert statistics.robust_accuracy(frame, ["clean", "x"]) == 0.5
    assert statistics.robust_accuracy(frame, ["clean", "x", "y"]) == 0.25


def test_robust_accuracy_goes_by_name_not_by_order() -> None:
    frame = records({"clean": [True, False, False], "x": [True, False, False]})
    shuffled = frame.sample(frac=1.0, random_state=1)
    assert statistics.robust_accuracy(shuffled, ["clean", "x"]) == pytest.approx(1 / 3)


def test_robust_accuracy_refuses_other_pictures() -> None:
    frame = records({"clean": [True, True], "x": [True]})
    with pytest.raises(NsvitError, match="'x' was evaluated on other pictures"):
        statistics.robust_accuracy(frame, ["clean", "x"])
    with pytest.raises(NsvitError, match="no condition 'z'"):
        statistics.robust_accuracy(frame, ["clean", "z"])
    with pytest.raises(NsvitError, match="more than once"):
        statistics.robust_accuracy(pd.concat([frame, frame]), ["clean"])
    with pytest.raises(NsvitError, match="no predictions"):
        statistics.robust_accuracy(frame, [])


# --- corruption errors ----------------------------------------------------------------------


@pytest.fixture
def cells() -> np.ndarray:
    """Correct, (pictures, types, severities)."""
    return np.random.default_rng(3).random((8, 15, 5)) < 0.6


TYPES = list(statistics.ALEXNET_ERRORS)


def test_corruption_errors_by_hand(cells: np.ndarray) -> None:
    errors = statistics.corruption_errors(corrupted(cells, TYPES))
    assert len(errors) == 75
    assert errors["fog", 2] == pytest.approx(1 - cells[:, TYPES.index("fog"), 1].mean())


def test_mce_by_hand(cells: np.ndarray) -> None:
    frame = corrupted(cells, TYPES)
    by_type = (~cells).mean(axis=(0, 2))
    reference = np.array([statistics.ALEXNET_ERRORS[t] for t in TYPES])
    assert statistics.mean_corruption_error(frame) == pytest.approx(by_type.mean())
    assert statistics.mean_corruption_error(frame, statistics.ALEXNET_ERRORS) == pytest.approx(
        (by_type / reference).mean()
    )


def test_mce_of_the_baseline_itself_is_one() -> None:
    frame = corrupted(np.random.default_rng(0).random((40, 3, 5)) < 0.5, TYPES[:3])
    own = 1 - frame.groupby("corruption")["correct"].mean()
    assert statistics.mean_corruption_error(frame, own.to_dict()) == pytest.approx(1.0)


def test_mce_needs_the_same_types(cells: np.ndarray) -> None:
    frame = corrupted(cells[:, :14], TYPES[:14])
    with pytest.raises(NsvitError, match="jpeg_compression"):
        statistics.mean_corruption_error(frame, statistics.ALEXNET_ERRORS)
    with pytest.raises(NsvitError, match="jpeg_compression"):
        statistics.picture_scores(frame, normalised=["c"])


@pytest.mark.parametrize(
    ("normalised", "baseline"), [((), None), (("c",), statistics.ALEXNET_ERRORS), (("x",), None)]
)
def test_picture_scores_average_to_mce(
    cells: np.ndarray, normalised: tuple[str, ...], baseline: dict | None
) -> None:
    """Each condition has a reference of its own: naming another one changes nothing."""
    frame = corrupted(cells, TYPES)
    scores = statistics.picture_scores(frame, normalised=normalised)
    assert len(scores) == len(cells)
    assert scores["error"].all()
    assert scores["score"].mean() == pytest.approx(
        statistics.mean_corruption_error(frame, baseline)
    )
    assert sorted(scores["picture"]) == [f"n0/{i}.png" for i in range(len(cells))]


def test_picture_scores_take_categories(cells: np.ndarray) -> None:
    plain = corrupted(cells, TYPES)
    kinds = dict.fromkeys(["model", "arm", "condition", "set", "corruption", "sample"], "category")
    left = statistics.picture_scores(plain).sort_values("picture")["score"]
    scores = statistics.picture_scores(plain.astype(kinds))
    np.testing.assert_array_equal(left, scores.sort_values("picture")["score"])
    assert scores["condition"].dtype == "category"
    known = list(scores["picture"].cat.categories)
    assert known == sorted(known)


def test_picture_scores_name_the_incomplete_cell(cells: np.ndarray) -> None:
    frame = corrupted(cells, TYPES)
    gone = (frame["corruption"] == "fog") & (frame["severity"] == 3)
    drop = frame[gone].index[0]
    with pytest.raises(NsvitError, match="fog severity 3 has other pictures"):
        statistics.picture_scores(frame.drop(index=drop))


# --- bootstrap ------------------------------------------------------------------------------


def test_bootstrap_of_one_seed_is_scipys() -> None:
    scores = np.random.default_rng(0).gamma(2.0, size=150)
    mine = statistics.bootstrap_interval(scores, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert mine.value == pytest.approx(scores.mean())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)
    assert (mine.n, mine.seeds) == (150, 1)


@pytest.mark.parametrize("n", [1, 7, 60])
def test_draws_do_not_depend_on_how_many_are_counted_at_a_time(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr("nsvit.statistics.bootstrap._COUNTED", 3 * n)
    weights = bootstrap._multinomial(np.random.default_rng(5), 11, n)
    draws = np.random.default_rng(5).integers(0, n, size=(11, n))
    np.testing.assert_array_equal(weights, [[(row == i).sum() for i in range(n)] for row in draws])


def test_bootstrap_over_seeds_is_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    scores = rng.random((3, 60)) + np.array([[0.0], [0.3], [0.9]])
    mine = statistics.bootstrap_interval(scores, resamples=8000)
    draws = []
    for _ in range(8000):
        pictures = rng.integers(0, 60, 60)
        draws.append(scores[rng.integers(0, 3, 3)][:, pictures].mean())
    expected = np.quantile(draws, [0.025, 0.975])
    width = expected[1] - expected[0]
    assert (mine.low, mine.high) == pytest.approx(tuple(expected), abs=0.05 * width)


def test_pictures_are_shared_between_columns() -> None:
    scores = np.random.default_rng(0).random(50)
    means = statistics.bootstrap_means(np.column_stack([scores, 1 - scores]), 100, "test")
    np.testing.assert_allclose(means.sum(axis=1), 1.0)


def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((40, 2))
    whole = statistics.bootstrap_means(values, 50, "test")
    monkeypatch.setattr("nsvit.statistics.bootstrap._CHUNK", 400)
    np.testing.assert_allclose(statistics.bootstrap_means(values, 50, "test"), whole, rtol=1e-12)


def test_a_subset_has_its_own_mean() -> None:
    values = np.random.default_rng(0).random((500, 2))
    values[100:, 1] = np.nan
    means = statistics.bootstrap_means(values, 2000, "test")
    assert means[:, 1].mean() == pytest.approx(values[:100, 1].mean(), abs=0.01)
    assert means[:, 1].std() == pytest.approx(values[:100, 1].std() / 10, rel=0.1)


def test_seed_weights_sum_to_one() -> None:
    weights = seed_weights(3, 500, "x")
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert weights.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.05)
    np.testing.assert_array_equal(seed_weights(1, 4), np.ones((4, 1)))


# --- summary --------------------------------------------------------------------------------


def test_single_proportion_uses_wilson() -> None:
    frame = records({"clean": [True] * 30 + [False] * 10})
    row = statistics.summarise(frame, config=FEW).iloc[0]
    assert row["value"] == 0.75
    assert (row["low"], row["high"]) == pytest.approx(proportion_confint(30, 40, method="wilson"))
    assert (row["n"], row["seeds"]) == (40, 1)


def test_average_counts_errors_as_accuracy(cells: np.ndarray) -> None:
    clean = records({"clean": [True, True, True, False]})
    frame = pd.concat([clean, corrupted(cells, TYPES)], ignore_index=True)
    table = statistics.summarise(frame, ["clean", "c"], FEW).set_index("condition")
    error = statistics.mean_corruption_error(frame[frame["condition"] == "c"])
    assert table.at["c", "value"] == pytest.approx(error)
    assert table.at["average", "value"] == pytest.approx((0.75 + 1 - error) / 2)
    assert table.at["average", "n"] == 12


def test_conditions_of_one_set_are_resampled_together() -> None:
    """FGSM wrong exactly where clean is right: the average is 1/2 in every replicate."""
    clean = (np.random.default_rng(0).random(60) < 0.5).tolist()
    opposite = [not ok for ok in clean]
    shared = records({"clean": clean, "x": opposite}, sets={"clean": "val", "x": "val"})
    row = statistics.summarise(shared, ["clean", "x"], FEW).set_index("condition").loc["average"]
    assert (row["low"], row["value"], row["high"]) == pytest.approx((0.5, 0.5, 0.5))
    apart = records({"clean": clean, "x": opposite})
    row = statistics.summarise(apart, ["clean", "x"], FEW).set_index("condition").loc["average"]
    assert row["high"] - row["low"] > 0.05


def test_average_of_independent_sets_against_a_plain_loop() -> None:
    rng = np.random.default_rng(2)
    scores = {name: (rng.random(80) < p).tolist() for name, p in [("x", 0.8), ("y", 0.3)]}
    config = StatisticsConfig(resamples=6000)
    row = statistics.summarise(records(scores), ["x", "y"], config).set_index("condition")
    draws = [
        np.mean([np.mean(rng.choice(s, len(s))) for s in scores.values()]) for _ in range(6000)
    ]
    expected = np.quantile(draws, [0.025, 0.975])
    found = row.loc["average", ["low", "high"]].astype(float)
    assert tuple(found) == pytest.approx(tuple(expected), abs=0.012)


def test_order_of_records_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    frame = pd.concat(
        [records({"clean": (rng.random(50) < 0.7).tolist()}, "a", seed) for seed in range(3)],
        ignore_index=True,
    )
    one = statistics.summarise(frame, config=FEW)
    other = statistics.summarise(frame.sample(frac=1.0, random_state=0), config=FEW)
    pd.testing.assert_frame_equal(one, other)
    assert one.at[0, "seeds"] == 3


def test_seeds_with_different_pictures_are_refused() -> None:
    frame = pd.concat(
        [records({"clean": [True] * (10 + seed)}, "a", seed) for seed in range(2)],
        ignore_index=True,
    )
    with pytest.raises(NsvitError, match=r"seed 0: 10, seed 1: 11"):
        statistics.summarise(frame, config=FEW)


def test_the_same_records_twice_are_refused() -> None:
    frame = records({"clean": [True, False]})
    with pytest.raises(NsvitError, match="twice"):
        statistics.summarise(pd.concat([frame, frame]), config=FEW)


def test_average_needs_every_condition() -> None:
    table = statistics.summarise(records({"clean": [True, False]}), ["clean", "x"], FEW)
    assert table["condition"].tolist() == ["clean"]


def test_no_records_are_refused() -> None:
    with pytest.raises(NsvitError, match="no records"):
        statistics.summarise(records({"clean": [True]}).iloc[:0], config=FEW)
