"""Claims: what the file says, how each test decides, and what is said where something lacks."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import yaml
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from nsvit import artifacts, claims, cli, figures, paper, specs, statistics, tables
from nsvit.claims import rows, studies, verdicts
from nsvit.config import StatisticsConfig
from nsvit.errors import NsvitError
from nsvit.figures.style import WIDTH
from nsvit.statistics.checks import Doubt
from tests import synthetic

FILE = Path(paper.__file__).parent / "claims.yaml"
NS = {"paper": "NS", "kind": "nullspace"}
PLAIN = {"kind": "plain"}


def claims_of(tmp_path: Path, *made: dict) -> tuple[claims.Claim, ...]:
    """Claims with the facts that a test does not care about filled in."""
    facts = {"title": "t", "text": "x", "where": "w", "models": ["ViT-S"]}
    content = {"claims": [{"id": f"c{i}", **facts, **one} for i, one in enumerate(made)]}
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    return claims.read_claims(path)


def contrast(kind: str, columns: list[str], row=NS, versus=PLAIN, **more) -> dict:
    return {
        "test": {
            "kind": kind,
            "contrasts": [{"row": row, "versus": versus, "columns": columns}],
            **more,
        }
    }


@pytest.fixture(scope="module")
def spec() -> specs.TableSpec:
    return synthetic.table_spec()


def records(gain: float, images: int = 150) -> pd.DataFrame:
    """ViT-S with three seeds of each arm; NS better by `gain`."""
    exp = synthetic.experiment()
    runs = [("none", 0), *((arm, s) for arm in ("plain", "random", "nullspace") for s in range(3))]
    return pd.concat(
        [
            synthetic.run_records(
                "vit_s",
                arm,
                seed,
                exp.evaluate.conditions,
                images=images,
                gain=gain if arm == "nullspace" else 0.0,
            )
            for arm, seed in runs
        ],
        ignore_index=True,
    )


def evidence(spec: specs.TableSpec, gain: float = 0.0, **studied: pd.DataFrame) -> claims.Evidence:
    scores = statistics.picture_scores(records(gain))
    frames = {name: studied.get(name, f"no {name}") for name in ("influence", "lambda")}
    return claims.Evidence(
        spec, statistics.resample(scores, spec.statistics), "no histories", frames
    )


@pytest.fixture(scope="module")
def helpful(spec: specs.TableSpec) -> claims.Evidence:
    return evidence(spec, gain=0.25)


def verdict_of(frame: pd.DataFrame, claim: str = "c0", **where: str) -> pd.Series:
    mask = (frame["claim"] == claim) & (frame["level"] == where.pop("level", "test"))
    for column, value in where.items():
        mask &= frame[column] == value
    assert mask.sum() == 1
    return frame[mask].iloc[0]


# --- the file -------------------------------------------------------------------------------


def test_the_papers_claims_are_all_there() -> None:
    found = {claim.id: claim for claim in claims.read_claims(FILE)}
    wanted = {"ns_average", "ns_clean", "ns_shifted", "ns_random", "adversarial_training"}
    wanted |= {"epsilon", "early_stop", "agreement", "norm_lambda", "regrowth", "dat", "ns_plain"}
    assert wanted <= set(found)
    assert found["ns_plain"].origin == "control"
    contrasts = found["ns_shifted"].test.contrasts
    assert set(contrasts[0].columns) == {"a", "c_mce", "v2", "r", "sketch", "stylized"}
    assert "verdict" not in FILE.read_text().split("claims:", 1)[1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test": {"kind": "better", "contrasts": []}}, "contrasts"),
        (contrast("better", ["clean"], row={}), "named by `paper`, `kind` or both"),
        (contrast("equivalent", ["clean"]), "margin"),
        (contrast("better", ["clean"]) | {"verdict": "supported"}, "verdict: no such key"),
        ({"test": {"kind": "guess"}}, "guess"),
    ],
)
def test_a_malformed_claim_is_named(tmp_path: Path, change: dict, says: str) -> None:
    with pytest.raises(NsvitError, match=r"claims\.yaml: .*problem") as caught:
        claims_of(tmp_path, change)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (contrast("better", ["klean"]), "no column 'klean'"),
        (contrast("better", ["clean"], row={"paper": "N S"}), "no row 'N S'"),
        ({"test": {"kind": "regrowth", "row": {"paper": "N S"}}}, "no row 'N S'"),
    ],
)
def test_a_claim_about_what_the_paper_lacks_is_named_and_the_others_are_tested(
    tmp_path: Path, helpful: claims.Evidence, change: dict, says: str
) -> None:
    listed = (*claims.read_claims(FILE), *claims_of(tmp_path, change))
    found = claims.judge_claims(listed, helpful)
    wrong = found[(found["claim"] == listed[-1].id) & (found["level"] == "test")]
    assert len(wrong) and wrong["verdict"].eq("not tested").all()
    assert wrong["reason"].str.contains(says).any()
    rest = found[found["claim"] != listed[-1].id].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, claims.judge_claims(listed[:-1], helpful))


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text, says in (("a: [", "not YAML"), ("- 1", "expected a mapping"), (None, "be read")):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(NsvitError, match=rf"mine\.yaml: .*{says}"):
            claims.read_claims(path)
    one = {"id": "a", "title": "", "text": "", "where": "", "models": ["ViT-S"]}
    path.write_text(yaml.safe_dump({"claims": [one | contrast("better", ["clean"])] * 2}))
    with pytest.raises(NsvitError, match="same id: a"):
        claims.read_claims(path)


# --- two rows of a table --------------------------------------------------------------------


def test_a_large_effect_decides_and_errors_are_turned_round(
    tmp_path: Path, helpful: claims.Evidence
) -> None:
    found = claims.judge_claims(
        claims_of(
            tmp_path,
            contrast("better", ["clean", "c_mce", "average"]),
            contrast("better", ["clean", "c_mce"], row=PLAIN, versus=NS),
        ),
        helpful,
    )
    for column in ("clean", "c", "average"):
        row = verdict_of(found, column=column, model="vit_s")
        assert (row["verdict"], row["effect"] > 5) == (claims.SUPPORTED, True)
    assert verdict_of(found, "c1", column="c", model="vit_s")["verdict"] == claims.CONTRADICTED
    assert verdict_of(found, "c1", level="claim")["verdict"] == claims.CONTRADICTED
    assert verdict_of(found, level="model", model="vit_s")["verdict"] == claims.SUPPORTED


def test_numbers_are_those_of_the_paired_table(
    tmp_path: Path, spec: specs.TableSpec, helpful: claims.Evidence
) -> None:
    made = claims_of(tmp_path, contrast("better", ["r", "average"]))
    found = claims.judge_claims(made, helpful)
    table = tables.table_paired(records(0.25), spec)
    table = table[(table["method"] == "nullspace") & (table["versus"] == "plain")]
    table = table[table["model"] == "vit_s"].set_index("column")
    for column in ("r", "average"):
        row = verdict_of(found, column=column, model="vit_s")
        for name in ("effect", "low", "high", "detectable"):
            assert row[name] == pytest.approx(table.at[column, name], abs=1e-3)
        assert row["p"] == pytest.approx(table.at[column, "p"])


def test_p_values_are_corrected_over_everything_tested(
    spec: specs.TableSpec, helpful: claims.Evidence
) -> None:
    found = claims.judge_claims(claims.read_claims(FILE), helpful)
    tested = found[(found["level"] == "test") & found["p"].notna()]
    assert len(tested) > 10
    corrected = multipletests(tested["p"], method="holm")[1]
    np.testing.assert_allclose(tested["p_holm"], corrected)
    decided = tested["verdict"] != claims.UNDECIDED
    np.testing.assert_array_equal(decided, corrected < 0.05)
    assert (tested["verdict"] == claims.SUPPORTED).equals(decided & (tested["effect"] > 0))


def test_what_is_undecided_is_nearer_than_what_could_be_decided(spec: specs.TableSpec) -> None:
    found = claims.judge_claims(claims.read_claims(FILE), evidence(spec, gain=0.04))
    tests = found[(found["level"] == "test") & found["detectable_holm"].notna()]
    left = int((tests["verdict"] == claims.UNDECIDED).sum())
    assert 5 < left < len(tests)
    assert claims.next_level(found["p_holm"].tolist(), 0.05) == pytest.approx(0.05 / left)
    assert (tests["detectable_holm"] > tests["detectable"]).all()
    border = tests["margin"].fillna(0.0)
    far = (tests["effect"].abs() - border).abs()
    undecided = tests["verdict"] == claims.UNDECIDED
    assert (far < tests["detectable_holm"])[undecided].all()
    assert (far > tests["detectable"])[undecided].any()  # which alone would not say so
    one = tests[tests["margin"].isna()].iloc[0]
    t = scipy.stats.t(degrees_of(one))
    ratio = (t.ppf(1 - 0.025 / left) + t.ppf(0.8)) / (t.ppf(0.975) + t.ppf(0.8))
    assert one["detectable_holm"] / one["detectable"] == pytest.approx(ratio, rel=1e-4)


def degrees_of(row: pd.Series) -> float:
    """The degrees of freedom of the t behind a row's interval and detectable effect."""
    wanted = 2 * row["detectable"] / (row["high"] - row["low"])

    def excess(df: float) -> float:
        t = scipy.stats.t(df)
        return 1 + t.ppf(0.8) / t.ppf(0.975) - wanted

    return float(scipy.optimize.brentq(excess, 1.0, 1e6))


def test_the_papers_numbers_are_looked_up(
    tmp_path: Path, spec: specs.TableSpec, helpful: claims.Evidence
) -> None:
    none = {"paper": "none"}
    made = claims_of(
        tmp_path,
        contrast("better", ["clean", "c_mce", "average"], versus=none),
        contrast("better", ["fgsm"], row={"paper": "Madry"}, versus=NS),
    )
    found = claims.judge_claims(made, helpful)
    ours, theirs = paper.row("ViT-S", "NS"), paper.row("ViT-S", "none")
    clean = verdict_of(found, column="clean", model="vit_s")
    assert clean["paper"] == pytest.approx(ours["clean"] - theirs["clean"])
    assert clean["printed"] == "77.47 − 74.19"
    c = verdict_of(found, column="c", model="vit_s")
    assert c["paper"] == pytest.approx(theirs["c_mce"] - ours["c_mce"])
    names = [one.paper for one in spec.conditions.values() if one.average]
    expected = paper.average("ViT-S", "NS", names) - paper.average("ViT-S", "none", names)
    assert verdict_of(found, column="average", model="vit_s")["paper"] == pytest.approx(expected)
    madry = verdict_of(found, "c1", model="vit_s")
    assert madry["verdict"] == claims.NOT_TESTED
    table2 = paper.table("table2").set_index("method")["fgsm"]
    assert madry["paper"] == pytest.approx(table2["Madry"] - table2["NS"])


def compared(first: np.ndarray, second: np.ndarray) -> statistics.Comparison:
    """One seed; columns of no error."""
    return statistics.compare_with(first - second, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.019, 0.021, 0.03, 0.05, -0.05])
def test_equivalence_is_two_one_sided_tests(shift: float) -> None:
    rng = np.random.default_rng(0)
    first = rng.random(400)
    second = first - shift + 0.05 * rng.standard_normal(400)
    found = compared(first, second)
    p, inside = rows.within(found, 0.02, below=True)
    assert inside == (abs(found.effect) < 0.02)
    if inside:
        theirs = ttost_paired(first, second, -0.02, 0.02)[0]
        assert p == pytest.approx(min(1, 2 * theirs))
    else:
        side = "greater" if found.effect > 0 else "less"
        bound = math.copysign(0.02, found.effect)
        theirs = scipy.stats.ttest_1samp(first - second, bound, alternative=side).pvalue
        assert p == pytest.approx(min(1, 2 * theirs))
    # The rule by intervals: decided where the 95 % interval does not cross the margin.
    crosses = any(found.low < margin < found.high for margin in (-0.02, 0.02))
    assert (p < 0.05) == (not crosses)


@pytest.mark.parametrize("shift", [0.05, 0.0, -0.019, -0.021, -0.05])
def test_not_worse_has_one_border(shift: float) -> None:
    rng = np.random.default_rng(1)
    found = compared(shift + 0.05 * rng.standard_normal(400), np.zeros(400))
    p, inside = rows.within(found, 0.02, below=False)
    assert inside == (found.effect > -0.02)
    assert (p < 0.05) == (not found.low < -0.02 < found.high)


def test_equivalence_is_supported_contradicted_or_open(
    tmp_path: Path, spec: specs.TableSpec, helpful: claims.Evidence
) -> None:
    none = {"paper": "none"}
    made = claims_of(
        tmp_path,
        contrast("equivalent", ["clean"], row=PLAIN, versus=PLAIN, margin=10.0),
        contrast("equivalent", ["clean"], margin=2.0),
        contrast("equivalent", ["a"], row=PLAIN, versus=none, margin=0.01),
        contrast("not_worse", ["clean"], margin=2.0),
        contrast("not_worse", ["clean"], row=PLAIN, versus=NS, margin=2.0),
    )
    found = claims.judge_claims(made, helpful)
    got = [verdict_of(found, f"c{i}", model="vit_s")["verdict"] for i in range(5)]
    assert got == [
        claims.SUPPORTED,
        claims.CONTRADICTED,
        claims.UNDECIDED,
        claims.SUPPORTED,
        claims.CONTRADICTED,
    ]
    assert verdict_of(found, "c1", model="vit_s")["margin"] == 2.0
    text = tables.markdown(tables.claims_sheet(found, spec))
    assert text.count(", within 2 |") and text.count(", above −2 |")


def test_what_is_not_there_is_not_tested_and_named(
    tmp_path: Path, spec: specs.TableSpec, helpful: claims.Evidence
) -> None:
    made = claims_of(
        tmp_path,
        contrast("better", ["clean"], row={"paper": "DAT+NS"}, versus={"paper": "DAT"}),
        contrast("better", ["cw"]),
        {"models": ["ResNet50"], **contrast("better", ["clean"])},
        contrast("better", ["clean"]),
    )
    arms = dict(spec.arms)
    arms["plain"] = arms["plain"].model_copy(update={"models": ("vit_s",)})
    conditions = dict(spec.conditions)
    less = spec.model_copy(update={"arms": arms, "conditions": conditions})
    found = claims.judge_claims(made, claims.Evidence(less, helpful.records, "", {}))
    reasons = found[found["level"] == "test"].set_index(["claim", "model"])["reason"]
    assert reasons["c0", "vit_s"] == "no arm has paper: DAT+NS"
    assert reasons["c1", "vit_s"] == "no condition has paper: cw"
    assert "no model is named 'ResNet50'" in reasons["c2", "ResNet50"]
    assert reasons["c3", "vit_s_wrong_norm"] == "vit_s_wrong_norm is not finetuned with plain"
    assert reasons["c3", "vit_s"] == ""
    assert verdict_of(found, "c0", level="claim")["verdict"] == claims.NOT_TESTED


def test_an_arm_is_found_by_its_name_before_its_kind(spec: specs.TableSpec) -> None:
    arms = {
        "other": spec.arms["nullspace"].model_copy(update={"paper": "NS eps=0.1"}),
        "bare": spec.arms["nullspace"].model_copy(update={"paper": None}),
        "nullspace": spec.arms["nullspace"],
    }
    wanted = claims.schema.Arm(paper="NS", kind="nullspace")
    assert rows.find_arm(spec.model_copy(update={"arms": arms}), "vit_s", wanted) == "nullspace"
    arms.pop("nullspace")
    assert rows.find_arm(spec.model_copy(update={"arms": arms}), "vit_s", wanted) == "bare"
    arms.pop("bare")  # another epsilon is not NS
    with pytest.raises(rows.NotTested, match="paper: NS or kind: nullspace"):
        rows.find_arm(spec.model_copy(update={"arms": arms}), "vit_s", wanted)


def test_rules_of_combination() -> None:
    s, c, u, n = claims.VERDICTS
    assert claims.combine([s, s, n]) == s
    assert claims.combine([s, u]) == u
    assert claims.combine([s, u, c]) == c
    assert claims.combine([n, n]) == claims.combine([]) == n


# --- the noise ------------------------------------------------------------------------------


def lambda_frame(
    learned: float, permuted: float, norms: list[float], images: int = 300, model: str = "vit_s"
) -> pd.DataFrame:
    """What the lambda study writes: agreement with those chances, and norms."""
    rng = np.random.default_rng(0)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model": model,
                    "lambda": 0.1 * (i + 1),
                    "draw": 0,
                    "noise": noise,
                    "sample": [f"{k}.png" for k in range(images)],
                    "agree": rng.random(images) < chance,
                    "norm": norm,
                }
            )
            for i, norm in enumerate(norms)
            for noise, chance in (("learned", learned), ("permuted", permuted))
        ],
        ignore_index=True,
    )


AGREEMENT = {"test": {"kind": "agreement", "study": "lambda", "threshold": 98.0}}


def judged(made, spec: specs.TableSpec, **studied: pd.DataFrame) -> pd.DataFrame:
    frames = {name: studied.get(name, f"no {name}") for name in ("influence", "lambda")}
    histories = studied.get("histories", "no histories")
    return claims.judge_claims(made, claims.Evidence(spec, "no records", histories, frames))


def test_agreement_is_a_t_test_over_pictures(tmp_path: Path, spec: specs.TableSpec) -> None:
    frame = lambda_frame(0.996, 0.93, [1, 2, 3, 4, 5])
    found = judged(claims_of(tmp_path, AGREEMENT), spec, **{"lambda": frame})
    own = found[(found["level"] == "test") & (found["model"] == "vit_s")]
    for (_, row), noise, sign in zip(own.iterrows(), ("learned", "permuted"), (1, -1), strict=True):
        kept = frame[frame["noise"] == noise].groupby("sample")["agree"].mean()
        theirs = scipy.stats.ttest_1samp(kept, 0.98)
        assert row["effect"] == pytest.approx(100 * sign * (kept.mean() - 0.98))
        assert row["p"] == pytest.approx(theirs.pvalue)
        assert (row["verdict"], row["n"], row["seeds"]) == (claims.SUPPORTED, 300, 1)
        points = paper.table("figures")
        points = points[(points["model"] == "ViT-S") & (points["series"] == noise)]
        points = points[points["y_name"] == "match_pct"]
        assert row["paper"] == pytest.approx(sign * (points["y"].mean() - 98))
    lost = found[(found["model"] == "vit_s_wrong_norm") & (found["level"] == "test")]
    assert set(lost["reason"]) == {"vit_s_wrong_norm is not in the lambda study"}


def test_agreement_of_everything_is_the_binomial() -> None:
    found = studies.against(np.ones((1, 400)), 0.98, 0.95, larger=True)
    theirs = scipy.stats.binomtest(400, 400, 0.98, alternative="greater").pvalue
    assert found.p == pytest.approx(2 * theirs)
    low = scipy.stats.binomtest(400, 400).proportion_ci(0.95, "wilson").low
    assert (found.low, found.high) == (pytest.approx(low - 0.98), pytest.approx(0.02))
    below = studies.against(np.ones((1, 400)), 0.98, 0.95, larger=False)
    assert below.effect == pytest.approx(-0.02)
    assert (below.low, below.high) == (pytest.approx(-0.02), pytest.approx(0.98 - low))
    few = studies.against(np.ones((1, 20)), 0.98, 0.95, larger=True)
    assert few.p == 1.0  # twenty of twenty say nothing about 98 %


def test_agreement_of_the_influence_study_is_at_the_patch_embedding(
    tmp_path: Path, spec: specs.TableSpec
) -> None:
    frame = synthetic.influence_frame("vit_s")
    made = claims_of(tmp_path, {"test": {**AGREEMENT["test"], "study": "influence"}})
    found = judged(made, spec, influence=frame)
    learned = found[(found["level"] == "test") & (found["model"] == "vit_s")].iloc[0]
    block = frame[(frame["block"] == 0) & (frame["noise"] == "learned")]
    assert learned["effect"] == pytest.approx(100 * block["agree"].mean() - 98)
    assert (learned["seeds"], math.isnan(learned["paper"])) == (3, True)


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ([1, 2, 3, 5, 8, 9, 11], claims.SUPPORTED),
        ([9, 8, 7, 6, 5, 4, 3], claims.CONTRADICTED),
        ([3, 1, 4, 1.5, 9, 2, 6], claims.UNDECIDED),
        ([1, 2, 3], claims.NOT_TESTED),
        ([2, 2, 2, 2], claims.NOT_TESTED),
    ],
)
def test_norm_against_lambda(
    tmp_path: Path, spec: specs.TableSpec, norms: list[float], verdict: str
) -> None:
    made = claims_of(tmp_path, {"test": {"kind": "monotone"}})
    found = judged(made, spec, **{"lambda": lambda_frame(1, 1, norms, images=5)})
    row = verdict_of(found, model="vit_s")
    assert (row["verdict"], row["unit"]) == (verdict, "tau")
    assert row["paper"] == pytest.approx(1.0)  # it grows at every step
    if verdict != claims.NOT_TESTED:
        theirs = scipy.stats.kendalltau(range(len(norms)), norms)
        assert (row["effect"], row["p"]) == pytest.approx((theirs.statistic, theirs.pvalue))
        assert (abs(row["effect"]) >= row["detectable"] - 1e-12) == (row["p"] < 0.05)


@pytest.mark.parametrize(
    ("n", "tau"), [(5, 1.0), (6, 0.867), (7, 0.714), (8, 0.643), (9, 0.556), (10, 0.511)]
)
def test_the_smallest_tau_is_that_of_printed_tables(n: int, tau: float) -> None:
    """Critical values of Kendall's tau, two-sided 5 %, as textbooks print them."""
    assert studies.smallest_tau(n, 0.05) == pytest.approx(tau, abs=5e-4)
    assert math.isnan(studies.smallest_tau(4, 0.05))


def noise_history(seed: int, norms: list[float], arm: str = "nullspace") -> dict:
    rounds = [{"round": 0, "noise_norm": None}]
    rounds += [{"round": i, "noise_norm": norm} for i, norm in enumerate(norms, 1)]
    return {"spec": {"model": "vit_s", "arm": arm, "seed": seed}, "rounds": rounds[::-1]}


def test_the_norm_falls_and_grows_again(tmp_path: Path, spec: specs.TableSpec) -> None:
    made = claims_of(tmp_path, {"test": {"kind": "regrowth", "row": NS}})
    norms = [[100, 70, 75, 90], [80, 57, 60, 71], [120, 82, 99, 108]]
    histories = [noise_history(seed, own) for seed, own in enumerate(norms)]
    histories += [noise_history(9, [1, 2, 3], arm="random")]
    found = judged(made, spec, histories=histories)
    own = found[(found["level"] == "test") & (found["model"] == "vit_s")]
    falls = [100 * (a - b) / a for a, b, *_ in norms]
    growths = [100 * (own[-1] - own[1]) / own[0] for own in norms]
    for (_, row), each, printed in zip(own.iterrows(), (falls, growths), (32.2, 20.1), strict=True):
        theirs = scipy.stats.ttest_1samp(each, 0)
        assert row["effect"] == pytest.approx(np.mean(each))
        assert row["p"] == pytest.approx(theirs.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.confidence_interval()))
        assert row["paper"] == pytest.approx(printed)
        assert (row["verdict"], row["seeds"]) == (claims.SUPPORTED, 3)
    for histories, says in (
        ([noise_history(0, norms[0])], "one seed"),
        ([noise_history(0, [2.0, 1.0])], "2 noises in a run"),
        ([], "no histories"),
    ):
        found = judged(made, spec, histories=histories)
        assert says in found[found["model"] == "vit_s"]["reason"].iloc[-1]


# --- from files -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder, exp = tmp_path_factory.mktemp("inputs"), synthetic.experiment()
    records = synthetic.write_records(folder, exp)
    out: dict[str, list[Path]] = {"scores": [synthetic.write_scores(records, folder)]}
    out |= {"histories": [], "influences": [], "lambdas": []}
    for model, arm, seed in exp.runs():
        out["histories"].append(folder / f"{model}_{arm}_{seed}.json")
        artifacts.write_json(out["histories"][-1], synthetic.history(model, arm, seed))
    frames = {
        "influences": ("influence", synthetic.influence_frame("vit_s")),
        "lambdas": ("lambda", lambda_frame(0.99, 0.9, list(range(1, 11)))),
    }
    for name, (kind, frame) in frames.items():
        out[name] = [folder / f"{kind}.parquet"]
        artifacts.write_parquet(out[name][0], frame, artifacts.provenance(kind, {}))
    return out


def run(spec: specs.TableSpec, inputs: dict[str, list[Path]], out: Path) -> int:
    arguments = ["table-claims", "--spec", spec.model_dump_json(), "--claims", str(FILE)]
    for name, paths in inputs.items():
        arguments += [f"--{name}", *map(str, paths)]
    return cli.main([*arguments, "--out", str(out)])


def test_the_verbs_write_tables_and_the_figure(
    spec: specs.TableSpec, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    texts = []
    for name in ("one", "two"):
        assert run(spec, inputs, tmp_path / name / "claims.csv") == 0
        table, out = tmp_path / name / "claims.csv", tmp_path / name / "claims.svg"
        arguments = ["figure-claims", "--spec", spec.model_dump_json(), "--table", str(table)]
        assert cli.main([*arguments, "--out", str(out)]) == 0
        names = ["claims.csv", "claims.md", "claims.png", "claims.svg", "claims.tex"]
        assert sorted(path.name for path in table.parent.iterdir()) == names
        texts.append([(table.parent / one).read_bytes() for one in names])
    assert texts[0] == texts[1]
    read = pd.read_csv(tmp_path / "one/claims.csv")
    assert list(read.columns) == verdicts.COLUMNS
    assert (read["level"] == "claim").sum() == len(claims.read_claims(FILE))
    markdown = (tmp_path / "one/claims.md").read_text()
    for text in ("## Verdicts", "NS improves clean accuracy", "no arm has paper: DAT"):
        assert text in markdown
    assert (
        read.set_index(["claim", "level"]).loc[("norm_lambda", "test"), "verdict"].tolist()[0]
        == "supported"
    )


def test_tests_on_doubted_numbers_say_so(spec: specs.TableSpec) -> None:
    where = "vit_s/nullspace/seed0 round -1 set val fgsm_1"
    doubt = Doubt.parse(f"{where}: 9.9 points more [rising_with_radius]")
    judged = claims.judge_claims(claims.read_claims(FILE), evidence(spec, 0.25))
    frame = tables.with_doubts(judged, spec, [doubt])
    noted = frame[frame["note"] != ""]
    assert len(noted) and set(noted["model"]) == {"vit_s"} and set(noted["level"]) == {"test"}
    assert set(noted["column"]) <= {"fgsm_1", "average"}
    assert noted["row"].eq("nullspace").mean() + noted["versus"].eq("nullspace").mean() == 1
    text = tables.markdown(tables.claims_sheet(frame, spec, [doubt]))
    assert text.count("‡ |") == len(noted)
    assert "rests on a number that a doubt concerns" in text and "9.9 points more" in text
    pd.testing.assert_frame_equal(tables.with_doubts(judged, spec, []), judged)


def test_damaged_and_missing_files_leave_the_rest(
    spec: specs.TableSpec, inputs: dict[str, list[Path]], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(inputs["influences"][0].read_bytes()[:-100])
    given = {**inputs, "influences": [broken], "lambdas": []}
    assert run(spec, given, tmp_path / "claims.csv") == 0
    tests = pd.read_csv(tmp_path / "claims.csv").query("level == 'test'").set_index("claim")
    assert tests.loc["agreement_epsilon", "reason"].str.contains("broken.parquet: damaged").all()
    assert "has no lambda study" in tests.loc["norm_lambda", "reason"].iloc[0]
    assert tests.loc["ns_average", "p"].notna().all()
    one = [inputs["lambdas"][0], broken]
    assert run(spec, {**inputs, "lambdas": one}, tmp_path / "claims.csv") == 0
    tests = pd.read_csv(tmp_path / "claims.csv").query("level == 'test'").set_index("claim")
    assert tests.loc["norm_lambda", "p"].notna().any()
    (left,) = [t for t in (tmp_path / "claims.md").read_text().split("\n- ") if "Left out" in t]
    assert "broken.parquet: damaged" in left
    missing = [tmp_path / "lost.parquet"]
    assert run(spec, {**inputs, "scores": missing}, tmp_path / "claims.csv") == 0
    tests = pd.read_csv(tmp_path / "claims.csv").query("level == 'test'").set_index("claim")
    assert tests.loc["ns_average", "reason"].str.contains("lost.parquet: no such file").all()
    assert tests.loc["norm_lambda", "p"].notna().any()


# --- the figure -----------------------------------------------------------------------------


def forest_rows() -> pd.DataFrame:
    """Each verdict once, a margin, something beyond the axis, another unit."""
    base = {"claim": "c", "level": "test", "model": "vit_s", "unit": "points", "margin": np.nan}
    good, bad, unsure = "supported", "contradicted", "undecided"
    made = [
        {"comparison": "plus", "effect": 3, "low": 1, "high": 5, "paper": 7.7, "verdict": good},
        {"comparison": "minus", "effect": -3, "low": -5, "high": -1, "verdict": bad},
        {"comparison": "open", "effect": 0, "low": -40, "high": 40, "verdict": unsure},
        {"comparison": "far", "effect": 30, "low": 20, "high": 40, "paper": 40, "verdict": good},
        {"comparison": "same", "effect": 0.1, "low": -1, "high": 1, "verdict": good, "margin": 2},
        {"comparison": "not worse", "effect": 1, "low": 0, "high": 2, "verdict": good, "margin": 2}
        | {"test": "not_worse"},
        {"comparison": "tau", "effect": 1, "unit": "tau", "verdict": good},
        {"comparison": "none", "verdict": "not tested"},
    ]
    return pd.DataFrame([{**base, "paper": np.nan, **row} for row in made])


def test_the_forest_shows_what_was_tested(spec: specs.TableSpec) -> None:
    more = forest_rows().assign(model="vit_b")
    frame = pd.concat([forest_rows(), more], ignore_index=True)
    figure = figures.figure_claims(frame, spec)
    assert figure.get_figwidth() == pytest.approx(WIDTH)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ViT-S", "ViT-B"]
    axes = figure.axes[0]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == ["plus", "minus", "open", "far", "same", "not worse"]
    low, high = axes.get_xlim()
    assert (low, high) == (-15, 15)
    places = {
        (line.get_marker(), line.get_color()): line.get_xydata().tolist()
        for line in axes.get_lines()
    }
    assert places["o", "#0072B2"] == [[1.0, 5.0]]
    assert places["s", "#D55E00"] == [[-3.0, 1.0]]
    markers = [line.get_marker() for line in axes.get_lines()]
    assert markers.count(">") == 3  # far: interval and paper; open: interval
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(-2.0, 4.0), (-2.0, 17.0)]  # to both sides; nothing but worse is excluded
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["supported", "contradicted", "undecided", "paper", "margin"]
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    page = figure.bbox
    assert drawn.x0 >= page.x0 - 1 and drawn.x1 <= page.x1 + 1
    assert drawn.y0 >= page.y0 - 1 and drawn.y1 <= page.y1 + 1


def test_a_forest_of_nothing_says_so(spec: specs.TableSpec) -> None:
    figure = figures.figure_claims(forest_rows().query("verdict == 'not tested'"), spec)
    assert [text.get_text() for text in figure.texts] == ["no claim could be tested"]


def test_the_level_follows_the_configuration(tmp_path: Path, spec: specs.TableSpec) -> None:
    """At 70 % confidence a test with 0.05 < p < 0.3 is decided."""
    made = claims_of(tmp_path, {"test": {"kind": "regrowth", "row": NS}})
    histories = [noise_history(s, [100, 85 + 5 * s, 70, 99 + s]) for s in range(3)]
    strict = judged(made, spec, histories=histories)
    loose_spec = spec.model_copy(update={"statistics": StatisticsConfig(confidence=0.7)})
    loose = judged(made, loose_spec, histories=histories)
    fall = (strict["comparison"].str.startswith("fall")) & (strict["model"] == "vit_s")
    assert 0.05 < strict[fall]["p_holm"].iloc[0] < 0.3
    assert strict[fall]["verdict"].iloc[0] == claims.UNDECIDED
    assert loose[fall]["verdict"].iloc[0] == claims.SUPPORTED
