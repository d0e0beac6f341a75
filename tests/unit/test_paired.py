"""Paired comparisons against scipy, statsmodels and closed forms."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from nsvit import cli, statistics, tables
from nsvit.config import RobustConfig, StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.records import read_records
from nsvit.specs import TableSpec
from nsvit.statistics.checks import Doubt
from nsvit.tables import paired
from tests import synthetic

CONFIG = StatisticsConfig(resamples=4000)


def scores(
    table: np.ndarray,
    arm: str,
    condition: str = "clean",
    set_name: str = "val",
    error: bool = False,
    seeds: tuple[int, ...] | None = None,
) -> pd.DataFrame:
    """Scores of one arm from (S, n) values."""
    table = np.atleast_2d(table).astype(float)
    parts = [
        pd.DataFrame(
            {
                "model": "m",
                "arm": arm,
                "seed": seed,
                "round": -1,
                "condition": condition,
                "set": set_name,
                "picture": [f"{i:05d}" for i in range(table.shape[1])],
                "score": row,
                "error": error,
            }
        )
        for seed, row in zip(seeds or range(len(table)), table, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def compared(
    *frames: pd.DataFrame,
    conditions: tuple[str, ...] = ("clean",),
    untrained: tuple[str, ...] = (),
):
    resampled = statistics.resample(pd.concat(frames, ignore_index=True), CONFIG)
    return statistics.compare(resampled, ("m", "a"), ("m", "b"), conditions, untrained=untrained)


# --- McNemar and Holm -----------------------------------------------------------------------


def pairs(only_first: int, only_second: int, both: int = 5) -> tuple[np.ndarray, np.ndarray]:
    first = np.array([True] * only_first + [False] * only_second + [True] * both)
    second = np.array([False] * only_first + [True] * only_second + [True] * both)
    return first, second


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_mcnemar_is_statsmodels(b: int, c: int) -> None:
    expected = statsmodels_mcnemar(np.array([[5, b], [c, 0]]), exact=True).pvalue
    found = statistics.mcnemar(*pairs(b, c), method="exact")
    assert found == pytest.approx(min(1.0, float(expected)), rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_is_the_sum_over_outcomes(b: int, c: int) -> None:
    """Outcomes less probable than the observed one count whole, equally probable ones half."""
    outcomes = scipy.stats.binom.pmf(np.arange(b + c + 1), b + c, 0.5)
    seen = outcomes[b]
    equal = np.isclose(outcomes, seen, rtol=1e-9, atol=0)
    expected = outcomes[~equal & (outcomes < seen)].sum() + outcomes[equal].sum() / 2
    if b == c:
        expected = 1.0
    assert statistics.mcnemar(*pairs(b, c)) == pytest.approx(expected, rel=1e-9)
    assert statistics.mcnemar(*pairs(b, c)) <= statistics.mcnemar(*pairs(b, c), method="exact")


def test_mcnemar_of_many_pictures_does_not_underflow() -> None:
    p = statistics.mcnemar(*pairs(10_000, 10_400))
    assert p == pytest.approx(2 * scipy.stats.norm.sf(400 / math.sqrt(20_400)), rel=0.01)
    with pytest.raises(NsvitError, match="3 pictures against 2"):
        statistics.mcnemar([True, False, True], [True, False])


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_holm_is_statsmodels(m: int) -> None:
    values = np.round(np.random.default_rng(m).random(m) ** 4, 3)  # some are equal
    np.testing.assert_allclose(statistics.holm(values), multipletests(values, method="holm")[1])


def test_holm_leaves_out_what_was_not_tested() -> None:
    found = statistics.holm([0.01, np.nan, 0.04, np.nan, 0.02])
    np.testing.assert_allclose(found, [0.03, np.nan, 0.04, np.nan, 0.04])
    assert np.isnan(statistics.holm([np.nan])).all()
    assert statistics.holm([]).shape == (0,)
    with pytest.raises(NsvitError, match="outside"):
        statistics.holm([0.5, 1.2])


# --- robust sets ----------------------------------------------------------------------------


def test_robust_sets_are_conditions() -> None:
    rng = np.random.default_rng(0)
    clean, fgsm, pgd = (rng.random((2, 50)) < p for p in (0.9, 0.6, 0.5))
    frame = pd.concat(
        [scores(clean, "a"), scores(fgsm, "a", "fgsm"), scores(pgd, "a", "pgd")], ignore_index=True
    )
    shuffled = frame.sample(frac=1.0, random_state=1).astype({"condition": "category"})
    more = statistics.add_robust(shuffled, {"worst": ("clean", "fgsm", "pgd")})
    worst = more[more["condition"] == "worst"]
    table = statistics.resample(more, CONFIG)
    found = table.estimate(("m", "a", -1), ["worst"])
    assert found is not None and (found.n, found.seeds) == (50, 2)
    assert found.value == pytest.approx((clean & fgsm & pgd).mean())
    for seed in (0, 1):
        one = shuffled[shuffled["seed"] == seed].rename(columns={"picture": "sample"})
        share = statistics.robust_accuracy(
            one.assign(correct=one["score"] > 0.5), ["clean", "fgsm", "pgd"]
        )
        assert worst[worst["seed"] == seed]["score"].mean() == pytest.approx(share)
    assert len(more) == len(frame) + 100
    assert len(statistics.add_robust(frame, {})) == len(frame)


def test_a_run_without_a_member_has_no_robust_score() -> None:
    frame = pd.concat(
        [scores(np.ones(4), "a"), scores(np.ones(4), "b"), scores(np.ones(4), "b", "x")]
    )
    more = statistics.add_robust(frame, {"worst": ("clean", "x")})
    assert more[more["condition"] == "worst"]["arm"].unique().tolist() == ["b"]


def test_a_robust_set_is_about_the_pictures_of_its_smallest_member() -> None:
    frame = pd.concat([scores(np.array([1, 0, 1, 1]), "a"), scores(np.array([1, 1, 0]), "a", "x")])
    more = statistics.add_robust(frame, {"worst": ("clean", "x")}, {"x": 3})
    assert more[more["condition"] == "worst"]["score"].tolist() == [1, 0, 0]
    assert len(statistics.add_robust(frame, {"worst": ("clean", "x")}, {"x": 3, "clean": 9})) == 10


@pytest.mark.parametrize("images", [{}, {"clean": 3}, {"x": 2}, {"x": 4}, {"x": 9}])
def test_a_member_that_lost_pictures_is_named(images: dict[str, int]) -> None:
    """Fewer pictures are only those that the configuration leaves out."""
    frame = pd.concat([scores(np.array([1, 0, 1, 1]), "a"), scores(np.array([1, 1, 0]), "a", "x")])
    with pytest.raises(NsvitError, match=r"'worst': m, a, seed 0: .*clean \(4\), x \(3\)"):
        statistics.add_robust(frame, {"worst": ("clean", "x")}, images)


def test_robust_sets_name_what_is_wrong() -> None:
    clean = scores(np.ones(4), "a")
    with pytest.raises(NsvitError, match="'worst': m, a, seed 0: .* different pictures"):
        other = scores(np.ones(3), "a", "x")
        other["picture"] = "other " + other["picture"].astype(str)
        statistics.add_robust(pd.concat([clean, other]), {"worst": ("clean", "x")})
    with pytest.raises(NsvitError, match="errors have no robust"):
        wrong = scores(np.ones(4), "a", "c", error=True)
        statistics.add_robust(pd.concat([clean, wrong]), {"worst": ("clean", "c")})
    with pytest.raises(NsvitError, match="condition of that name"):
        statistics.add_robust(clean, {"clean": ("clean",)})
    with pytest.raises(NsvitError, match="twice"):
        statistics.add_robust(pd.concat([clean, clean]), {"worst": ("clean",)})


# --- comparisons ----------------------------------------------------------------------------


def test_one_seed_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(300), rng.random(300) + 0.04
    found = compared(scores(first, "a", error=True), scores(second, "b", error=True))
    theirs = scipy.stats.ttest_rel(second, first)  # errors: lower is better
    low, high = theirs.confidence_interval(0.95)
    assert found is not None and found.test == "t"
    assert found.effect == pytest.approx((second - first).mean())
    assert found.se == pytest.approx(found.effect / theirs.statistic, rel=0.04)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert (found.n, found.seeds) == (300, 1)
    assert found.df == pytest.approx(299)


def test_one_seed_of_a_proportion_is_mcnemars() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.random(200) < 0.8, rng.random(200) < 0.7
    found = compared(scores(first, "a"), scores(second, "b"))
    assert found is not None and found.test == "mcnemar"
    assert found.p == statistics.mcnemar(first, second)


@pytest.mark.parametrize("gap", [0.15, 0.0])
def test_several_seeds_add_their_variance(gap: float) -> None:
    """By hand: mean squares of an analysis of variance, seeds and pictures crossed.

    Seeds that differ less than pictures explain add nothing.
    """
    rng = np.random.default_rng(3)
    first = (rng.random((3, 400)) < 0.7 + np.array([[0.0], [0.05], [gap]])).astype(float)
    second = (rng.random((3, 400)) < 0.7 + np.array([[0.0], [0.05], [0.0]])).astype(float)
    found = compared(scores(first, "a"), scores(second, "b"))
    d = first - second
    by_picture, by_seed = d.mean(axis=0), d.mean(axis=1)
    rest = ((d - by_picture - by_seed[:, None] + d.mean()) ** 2).sum() / (2 * 399)
    pictures, seeds = 3 * by_picture.var(ddof=1), 400 * by_seed.var(ddof=1)
    assert (seeds > rest) == (gap > 0)
    total = (pictures + max(seeds - rest, 0.0)) / (3 * 400)
    df = total**2 / ((pictures / 1200) ** 2 / 399 + (seeds / 1200) ** 2 / 2)
    t = scipy.stats.t(df)
    se = math.sqrt(total)
    assert found is not None and (found.test, found.seeds) == ("t", 3)
    assert found.se == pytest.approx(se, rel=0.04)
    assert found.df == pytest.approx(df, rel=0.1)
    assert found.high - found.effect == pytest.approx(t.ppf(0.975) * se, rel=0.06)
    assert found.p == pytest.approx(2 * t.sf(d.mean() / se), rel=0.3)
    exact = scipy.stats.t(found.df)
    assert found.detectable == pytest.approx((exact.ppf(0.975) + exact.ppf(0.8)) * found.se)


def test_arms_of_a_model_share_their_spread() -> None:
    """By hand: the mean over pairs of arms of the variance of their differences, without noise."""
    base, shape = np.random.default_rng(32).random(300), (4, 3)
    runs = 0.04 * np.random.default_rng(33).normal(size=shape)
    frames = [
        scores(base + own[:, None], arm, error=True) for arm, own in zip("abcd", runs, strict=True)
    ]
    found = compared(*frames)
    pairs = [np.var(runs[i] - runs[j], ddof=1) for i in range(4) for j in range(i)]
    assert found is not None
    assert found.se == pytest.approx(math.sqrt(np.mean(pairs) / 3))
    assert found.df == pytest.approx(3 * 2)  # (arms - 1) (seeds - 1)
    untrained = scores(base, "b", error=True)
    found = compared(frames[0], *frames[2:], untrained, untrained=("b",))
    kept = runs[[0, 2, 3]]
    assert found is not None
    assert found.se == pytest.approx(math.sqrt(kept.var(axis=1, ddof=1).mean() / 3))
    assert 2 <= found.df <= 6
    moved = runs[0] + np.array([[0.0], [0.01], [0.02]])  # what arms share has the seeds' degrees
    frames = [
        scores(base + own[:, None], arm, error=True) for arm, own in zip("acd", moved, strict=True)
    ]
    found = compared(*frames, untrained, untrained=("b",))
    assert found is not None and found.df == pytest.approx(2)


def test_the_average_weighs_columns_alike_and_turns_errors_round() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 100)), rng.random((2, 100))
    ca, cb = rng.random((2, 30)), rng.random((2, 30))
    found = compared(
        scores(a, "a"),
        scores(b, "b"),
        scores(ca, "a", "c", "c", error=True),
        scores(cb, "b", "c", "c", error=True),
        conditions=("clean", "c"),
    )
    assert found is not None
    assert found.effect == pytest.approx(((a - b).mean() - (ca - cb).mean()) / 2)
    assert found.n == 130


def test_the_other_way_round_is_the_negative() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random((3, 80)) < 0.6, rng.random((3, 80)) < 0.5
    one = compared(scores(first, "a"), scores(second, "b"))
    other = compared(scores(second, "a"), scores(first, "b"))
    assert one is not None and other is not None
    assert one.effect == pytest.approx(-other.effect)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert (one.p, one.detectable) == pytest.approx((other.p, other.detectable))


def test_equal_rows_do_not_differ() -> None:
    for seeds in (1, 3):
        same = np.random.default_rng(6).random((seeds, 40)) < 0.5
        found = compared(scores(same, "a"), scores(same, "b"))
        assert found is not None
        assert (found.effect, found.p) == (0.0, 1.0)
        # As if one picture differed; nobody knows that they are equal from 40 pictures.
        assert found.se == pytest.approx(1 / 42)
        assert -found.low == found.high > 1 / 42


def test_few_equal_pictures_do_not_show_equality() -> None:
    same = np.ones((2, 30))
    found = compared(scores(same, "a"), scores(same, "b"))
    assert found is not None and found.above(-0.02) > 0.05
    many = np.ones((2, 3000))
    found = compared(scores(many, "a"), scores(many, "b"))
    assert found is not None and found.above(-0.02) < 1e-6


def test_an_effect_without_any_spread_has_no_p() -> None:
    values = {"a": 0.7, "b": 0.5}
    frames = [scores(np.full((2, 9), x), arm, error=True) for arm, x in values.items()]
    found = compared(*frames)
    assert found is not None and math.isnan(found.p)


def test_seeds_are_paired_by_number() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.random((3, 50)), rng.random((2, 50))
    found = compared(scores(first, "a", seeds=(0, 1, 5)), scores(second, "b", seeds=(5, 0)))
    assert found is not None
    expected = np.array([first[0] - second[1], first[2] - second[0]])
    assert (found.effect, found.seeds) == (pytest.approx(expected.mean()), 2)
    one = compared(scores(first, "a"), scores(second[0], "b", seeds=(9,)))
    assert one is not None
    assert (one.effect, one.seeds) == (pytest.approx((first - second[0]).mean()), 3)
    assert compared(scores(first[:2], "a"), scores(second, "b", seeds=(7, 8))) is None


def test_what_cannot_be_compared() -> None:
    frame = scores(np.ones(5), "a")
    assert compared(frame) is None
    with pytest.raises(NsvitError, match="m, a against m, b: 'clean' was evaluated on different"):
        compared(frame, scores(np.ones(5), "b").replace({"picture": {"00004": "other"}}))


def test_seeds_that_agree_by_luck_borrow_the_usual_spread() -> None:
    """Another model says how much seeds differ: by hand, its variance of paired differences."""
    rng = np.random.default_rng(12)
    base = rng.random(400)
    lucky = [
        scores(np.stack([base, base]) + shift, arm, error=True)
        for arm, shift in [("a", 0.02), ("b", 0)]
    ]
    spread = np.array([[0.0], [0.06], [0.01]])
    others = [
        scores(rng.random(400) + factor * spread, arm, error=True).assign(model="m2")
        for arm, factor in [("a", 1.0), ("b", -0.5)]
    ]
    alone, found = compared(*lucky), compared(*lucky, *others)
    assert alone is not None and found is not None
    assert math.isnan(alone.p)
    usual = (1 * 0.0 + 2 * (1.5 * spread).var(ddof=1)) / 3  # weighted by degrees of freedom
    assert found.se == pytest.approx(math.sqrt(usual / 2))
    assert found.df == pytest.approx(3)  # one from this model, two from the other
    assert found.effect == pytest.approx(alone.effect)


def test_an_interval_has_at_least_one_degree_of_freedom() -> None:
    """Seeds that look much less sure than they are gave intervals of thousands of points."""
    square, pictures = 1e-3, 1e-5
    found = statistics.paired._settle(
        np.array([0.01, 0.012]), pictures, (0.0, square, 1.0), 800, 0.95
    )
    assert pictures**2 / square**2 < 1 and found.df == 1.0
    t = scipy.stats.t(1)
    assert found.high == pytest.approx(0.011 + t.ppf(0.975) * math.sqrt(pictures))
    assert found.p == pytest.approx(2 * t.sf(0.011 / math.sqrt(pictures)))


def test_one_seed_of_a_trained_arm_is_one_of_many() -> None:
    """By hand: its variance is that of the other arm's seeds; without such there is none."""
    base = np.random.default_rng(14).random(300)
    spread = np.array([[0.0], [0.05], [0.01]])
    one, several = scores(base, "a", error=True), scores(base + spread, "b", error=True)
    found, alone = compared(one, several), compared(one, several, untrained=("a",))
    assert found is not None and alone is not None
    usual = spread.var(ddof=1)
    assert found.se == pytest.approx(math.sqrt(usual / 3 + usual))
    assert alone.se == pytest.approx(math.sqrt(usual / 3))
    assert found.df == alone.df == pytest.approx(2)
    assert not found.unknown_spread
    both = compared(one, scores(base[::-1], "b", error=True))
    against_none = compared(one, scores(base[::-1], "b", error=True), untrained=("b",))
    assert both is not None and both.unknown_spread and against_none.unknown_spread
    assert both.se == pytest.approx(against_none.se)
    untrained = compared(one, scores(base[::-1], "b", error=True), untrained=("a", "b"))
    assert untrained is not None and not untrained.unknown_spread
    other = scores(base + spread, "c", error=True)
    both = compared(one, scores(base, "b", error=True), other)
    assert both is not None and both.se == pytest.approx(math.sqrt(2 * usual))
    # The spread between seeds is no part of McNemar's test.
    right = [scores(np.tile(base > 0.3 + 0.1 * i, (1, 1)), arm) for i, arm in enumerate("ab")]
    seeds = scores(np.stack([base > 0.2, base > 0.4]), "c")
    assert [compared(*right).test, compared(*right, seeds).test] == ["mcnemar", "t"]


def test_one_seed_against_three_is_not_too_sure() -> None:
    """Of two arms that are equal, p < 0.05 in about 5 % or less; without the spread in many."""
    rng = np.random.default_rng(21)
    n, repeats, config = 60, 150, StatisticsConfig(resamples=100)
    low = {(): 0, ("a",): 0}
    for _ in range(repeats):
        pictures = rng.normal(0, 0.3, n)
        frame = pd.concat([
            scores(
                pictures + 0.03 * rng.normal(size=(seeds, 1)) + 0.1 * rng.normal(size=(seeds, n)),
                arm,
                error=True,
            )
            for arm, seeds in [("a", 1), ("b", 3), ("c", 3)]
        ])  # fmt: skip
        resampled = statistics.resample(frame, config)
        for untrained in low:
            found = statistics.compare(
                resampled, ("m", "a"), ("m", "b"), ("clean",), untrained=untrained
            )
            low[untrained] += found.p < 0.05
    assert low[()] / repeats < 0.08 < low["a",] / repeats


@pytest.mark.parametrize(
    ("seeds", "ratio", "versus"),
    [
        (2, 0.0, "b"),
        (2, 0.5, "b"),
        (3, 0.5, "b"),
        (3, 2.0, "b"),
        (3, 0.5, "none"),
        (3, 2.0, "none"),
    ],
)
def test_intervals_cover_the_truth(seeds: int, ratio: float, versus: str) -> None:
    """95 % intervals hold a true effect of 0 between two of three arms, or an arm and none.

    `ratio` is the seeds' variance over the pictures' in the mean. docs/overview.md says where they
    fall short: few seeds that differ much more than pictures do.
    """
    rng = np.random.default_rng(8)
    n, repeats, arms = 40, 200, ("a", "b", "c")
    shape = (repeats, len(arms), seeds, n)
    values = 0.7 * rng.normal(size=(repeats, len(arms), 1, n)) + 0.5 * rng.normal(size=shape)
    own = math.sqrt(ratio * seeds / n / (1.0 if versus == "none" else 2.0))
    values += own * rng.normal(size=(*shape[:-1], 1))
    frames = []
    for i, drawn in enumerate(values):  # each on a set of its own
        frames += [
            scores(runs, arm, f"c{i}", f"s{i}", True) for arm, runs in zip(arms, drawn, strict=True)
        ]
        frames.append(scores(np.zeros(n), "none", f"c{i}", f"s{i}", True))
    resampled = statistics.resample(pd.concat(frames), StatisticsConfig(resamples=100))
    found = [
        statistics.compare(resampled, ("m", "a"), ("m", versus), (f"c{i}",), untrained=("none",))
        for i in range(repeats)
    ]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.915 <= covered <= 0.995


def test_detectable_effects_are_found_four_times_in_five() -> None:
    """Drawn around `detectable`, the test finds about 80 % (one seed, known spread)."""
    rng = np.random.default_rng(9)
    n, spread = 200, 0.5
    t = scipy.stats.t(n - 1)
    effect = (t.ppf(0.975) + t.ppf(0.8)) * spread / math.sqrt(n)
    found = [
        statistics.compare_with(rng.normal(effect, spread, n), 0.0).p < 0.05 for _ in range(1000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
    one = statistics.compare_with(rng.normal(effect, spread, n), 0.0)
    assert one.detectable == pytest.approx(effect, rel=0.2)


# --- a mean against a number ----------------------------------------------------------------


@pytest.mark.parametrize(("null", "larger"), product([0.4, 0.5], [True, False]))
def test_a_mean_against_a_number_is_the_t_test(null: float, larger: bool) -> None:
    values = np.random.default_rng(10).random(60)
    found = statistics.compare_with(values, null, larger=larger)
    theirs = scipy.stats.ttest_1samp(values, null)
    assert found.effect == pytest.approx((values.mean() - null) * (1 if larger else -1))
    assert found.p == pytest.approx(theirs.pvalue)
    ends = sorted((np.array(theirs.confidence_interval()) - null) * (1 if larger else -1))
    assert (found.low, found.high) == pytest.approx(tuple(ends))


def test_tails_are_one_sided_t_tests() -> None:
    values = np.random.default_rng(11).random(60)
    found = statistics.compare_with(values, 0.5)
    for bound in (-0.1, 0.0, 0.02):
        theirs = scipy.stats.ttest_1samp(values, 0.5 + bound, alternative="greater")
        assert found.above(bound) == pytest.approx(theirs.pvalue)
    flat = statistics.compare_with(np.ones(10), 0.9)
    assert (flat.above(0.05), flat.above(0.2)) == (0.0, 1.0)
    with pytest.raises(NsvitError, match="1 pictures"):
        statistics.compare_with([0.5], 0.5)


# --- the table ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    """The default config's, with a robust set."""
    robust = {"worst": RobustConfig(label="Worst FGSM", conditions=("clean", "fgsm_8"))}
    return synthetic.table_spec().model_copy(update={"robust": robust})


@pytest.fixture(scope="module")
def record_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return synthetic.write_records(tmp_path_factory.mktemp("records"), synthetic.experiment())


@pytest.fixture(scope="module")
def frame(record_paths: list[Path], spec: TableSpec) -> pd.DataFrame:
    return tables.table_paired(record_paths, spec)


def test_the_table_has_every_pair_and_column(frame: pd.DataFrame, spec: TableSpec) -> None:
    pairs = frame[["method", "versus"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(pairs) == [
        ("plain", "none"),
        *((method, versus) for method in ("random", "nullspace") for versus in ("none", "plain")),
    ]
    columns = [*spec.conditions, "worst", "average"]
    assert frame["column"].tolist()[: len(columns)] == columns
    assert len(frame) == len(spec.models) * 5 * len(columns)
    np.testing.assert_allclose(frame["p_holm"], multipletests(frame["p"], method="holm")[1])
    assert (frame["note"] == "").all()


def test_its_effects_are_differences_of_means(
    frame: pd.DataFrame, record_paths: list[Path], spec: TableSpec
) -> None:
    records = read_records(record_paths)
    records = records[(records["model"] == "vit_b") & (records["condition"] != "worst")]
    means = 100 * records.groupby(["arm", "condition"], observed=True)["correct"].mean()
    own = frame[(frame["method"] == "nullspace") & (frame["versus"] == "plain")]
    effects = own[own["model"] == "vit_b"].set_index("column")["effect"]
    difference = means["nullspace"] - means["plain"]  # all arms have equally many seeds and cells
    for column in ("clean", "fgsm_8", "c"):  # C: of accuracies, so that better is positive
        assert effects[column] == pytest.approx(difference[column], abs=1e-3)
    averaged = [slug for slug, condition in spec.conditions.items() if condition.average]
    assert effects["average"] == pytest.approx(difference[averaged].mean(), abs=1e-3)


def test_the_sheet_marks_what_holm_leaves(frame: pd.DataFrame, spec: TableSpec) -> None:
    sheet = tables.paired_sheet(frame, spec)
    assert [part.heading for part in sheet.parts] == [m.label for m in spec.models.values()]
    marked = sum(cell.text.endswith("*") for p in sheet.parts for row in p.rows for cell in row)
    assert marked == (frame["p_holm"] < 0.05).sum() > 0
    text = tables.markdown(sheet)
    assert f"over all {len(frame)} comparisons" in text
    assert "NS − plain" in text and "Worst FGSM" in text


def test_rows_that_do_not_fit_are_named_and_the_rest_is_made(
    record_paths: list[Path], spec: TableSpec
) -> None:
    records = read_records(record_paths)
    odd = (records["model"] == "vit_s") & (records["arm"] == "plain")
    odd &= (records["condition"] == "v2") & records["sample"].astype(str).str.contains("00007")
    gone = (records["model"] == "vit_b") & (records["condition"] == "r")
    gapped = tables.table_paired(records[~odd & ~gone], spec).set_index(
        ["model", "method", "versus", "column"]
    )
    assert "different pictures" in gapped.loc[("vit_s", "plain", "none", "v2"), "note"]
    assert np.isnan(gapped.loc[("vit_b", "plain", "none", "r"), "effect"])
    assert gapped.loc[("vit_s", "random", "none", "v2"), "note"] == ""
    text = tables.markdown(tables.paired_sheet(gapped.reset_index(), spec))
    assert "Not compared: vit\\_s, plain against vit\\_s, none: 'v2'" in text


def test_doubts_are_marked_and_told(record_paths: list[Path], spec: TableSpec) -> None:
    where = "vit_s/plain/seed0 round -1 set val fgsm_1"
    doubt = Doubt.parse(f"{where}: 9.9 points more [rising_with_radius]")
    made = tables.table_paired(record_paths, spec, [doubt])
    marked = made[made["doubts"] > 0]
    assert set(marked["model"]) == {"vit_s"}
    assert set(marked["column"]) == {"fgsm_1", "average"}
    assert ((marked["method"] == "plain") | (marked["versus"] == "plain")).all()
    text = tables.markdown(tables.paired_sheet(made, spec, [doubt]))
    assert text.count("‡ |") == len(marked) == 6
    assert "‡ FGSM 1/255, ViT-S plain (0): 9.9 points more" in text


def test_seeds_nobody_ran_are_noted(record_paths: list[Path], spec: TableSpec) -> None:
    records = read_records(record_paths)
    single = records[records["seed"] == 0]
    made = tables.table_paired(single, spec)
    assert (made["note"] == paired.UNKNOWN_SPREAD).all()
    text = tables.markdown(tables.paired_sheet(made, spec))
    assert "Of runs, not of methods" in text and "Not compared" not in text
    one = records[(records["seed"] == 0) | (records["arm"] != "nullspace")]
    made = tables.table_paired(one, spec)
    assert (made["note"] == "").all()
    wide = made[made["method"] == "nullspace"].set_index(["model", "versus", "column"])
    full = tables.table_paired(records, spec)
    full = full[full["method"] == "nullspace"].set_index(["model", "versus", "column"])
    assert (wide["detectable"] > full["detectable"]).mean() > 0.9


def test_a_config_without_plain_has_one_reference(record_paths: list[Path], spec: TableSpec):
    arms = {slug: arm for slug, arm in spec.arms.items() if slug != "plain"}
    paths = [path for path in record_paths if "plain" not in path.parts]
    made = tables.table_paired(paths, spec.model_copy(update={"arms": arms}))
    assert set(made["versus"]) == {"none"}


def test_the_verb_writes_three_forms(record_paths: list[Path], spec: TableSpec, tmp_path: Path):
    scores = synthetic.write_scores(record_paths, tmp_path / "in")
    arguments = ["table-paired", "--spec", spec.model_dump_json(), "--scores", str(scores)]
    assert cli.main([*arguments, "--out", str(tmp_path / "paired.csv")]) == 0
    assert sorted(p.name for p in tmp_path.glob("*.*")) == ["paired.csv", "paired.md", "paired.tex"]
    read = pd.read_csv(tmp_path / "paired.csv")
    assert read.columns.tolist()[:5] == ["model", "method", "versus", "column", "effect"]
    assert "multicolumn" in (tmp_path / "paired.tex").read_text()
