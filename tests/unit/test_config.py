"""The configuration schema: what is refused, and what a refusal says."""

import json
import re
from pathlib import Path

import pytest
import yaml

from nsvit import config, paper, specs
from nsvit.errors import NsvitError
from nsvit.tables import accuracy

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in (ROOT / "config").glob("*.yaml"))


@pytest.fixture
def raw():
    return yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def put(raw, path, value):
    *parents, last = path.split(".")
    inner = raw
    for key in parents:
        inner = inner[key]
    inner[last] = value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configs_are_valid(path):
    assert config.load(path).runs()


def test_schema_json_is_in_step():
    assert (ROOT / "config/schema.json").read_text() == config.schema_text(), "run `make schema`"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("finetune.lrr", 1e-3, "no such key"),
        ("modelz", {}, "no such key"),
        ("finetune.rounds", "many", "integer"),
        ("finetune.rounds", -1, "greater than or equal to 0"),
        ("finetune.lr", 0, "greater than 0"),
        ("finetune.noise.epsilon", 3, "less than or equal to 2"),
        ("finetune.noise.early_stop", "sometimes", "boolean"),
        ("finetune.noise.early_stop", False, "arms.random: random noise is shrunk until"),
        ("finetune.adversarial.radius", "8/225", "k/255"),
        ("finetune.adversarial.steps", 0, "greater than or equal to 1"),
        ("finetune.adversarial.beta", 0, "greater than 0"),
        ("finetune.select", "test", "'last' or 'dev'"),
        ("evaluate.conditions.fgsm_1.attack.radius", "0.03", "k/255"),
        ("evaluate.conditions.fgsm_1.attack.radius", "8/225", "k/255"),
        ("evaluate.conditions.fgsm_1.attack.radius", "256/255", "k/255"),
        ("evaluate.conditions.fgsm_1.attack.name", "fgsn", "fgsm"),
        ("evaluate.conditions.clean.set", "vall", "['vall'] not among"),
        ("evaluate.conditions.c.metric", "accuracy", "corruption_error"),
        ("models.vit_s.std", [0.5, 0.0, 0.5], "std must be above 0"),
        ("models.vit_s.std", [58.4, 57.1, 57.4], "at most 1"),
        ("models.vit_s.mean", [123.7, 116.3, 103.5], "mean must be in [0, 1]"),
        ("models.vit_s.mean", [-0.1, 0.5, 0.5], "mean must be in [0, 1]"),
        ("arms.Bad-slug", {"label": "x", "kind": "plain"}, "lower-case"),
        ("arms.nullspace.seeds", [0, 0], "repetition"),
        ("arms.nullspace.seeds", [], "at least 1 item"),
        ("arms.nullspace.models", ["vit_x"], "['vit_x'] not among"),
        ("arms.nullspace.overrides", {"noise": {"epsilonn": 1}}, "noise.epsilonn"),
        ("data.train", "trein", "not in data.sets"),
        ("data.val", "vall", "not in data.sets"),
        ("data.sets.v2.path", "train", "inside that of"),
        ("data.sets.v2.path", "val/more", "inside that of val"),
        ("data.sets.v2.path", "../v2", "below data.root"),
        ("data.sets.v2.path", "/v2", "below data.root"),
        ("data.sets.v3", {"path": "v3"}, "no ['v3']"),
        ("data.menagerie.counts.c", 61, "more than there are pictures in val"),
        ("data.menagerie.counts.damagenet", 61, "more than there are pictures in val"),
        ("data.menagerie.transfer.radius", "0.06", "k/255"),
        ("data.menagerie.transfer.cnn", "local-dir:nsvit/pretrained/cnn_a", "already filters"),
        ("data.menagerie.transfer.cnn", "local-dir:nsvit/pretrained/vit_s", "under test 'vit_s'"),
        ("data.sets.damagenet.list", None, "needs `list`"),
        ("data.sets.damagenet.list", "../val.txt", "below data.root"),
        ("data.sets.damagenet.list", "val.txt", "in its own folder"),
        ("data.sets.val.list", "val.txt", "needs `list`"),
        ("data.dev_images", 400, "leaves nothing"),
        ("finetune.lr_min", 1.0, "above lr"),
        ("finetune.lr", "inf", "finite"),
        ("dynamics.ood", [], "at least 1 item"),
        ("evaluate.conditions.fgsm_1.attack.radius", "008/255", "k/255"),
        ("dynamics.seed", 9, "no run vit_s/nullspace with seed 9"),
        ("influence.models", ["vit_l"], "['vit_l'] not among"),
        ("tables", {"cost": {"title": "x"}}, "tables.cost: a rule of its own"),
        ("tables", {"attacks": {"title": "x"}}, "tables.attacks: a rule of its own"),
        ("tables", {"t": {"title": "x", "conditions": ["pdg"]}}, "tables.t.conditions: ['pdg']"),
        ("tables", {"t": {"title": "x", "arms": ["nul"]}}, "tables.t.arms: ['nul'] not among"),
        (
            "tables",
            {"t": {"title": "x", "arms": ["none"], "against": ["random"]}},
            "tables.t.against: ['random'] not among ['none']",
        ),
    ],
)
def test_bad_values_are_refused_by_name(raw, key, value, says):
    put(raw, key, value)
    with pytest.raises(NsvitError) as caught:
        config.validate(raw, "my.yaml")
    assert says in str(caught.value)
    assert str(caught.value).startswith("my.yaml")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("modelz", "models"),
        ("finetune.ruonds", "rounds"),
        ("finetune.noise.epsilonn", "epsilon"),
        ("models.vit_s.lable", "label"),
        ("data.sets.val.pth", "path"),
        ("data.menagerie.counts.stylised", "stylized"),
        ("evaluate.conditions.fgsm_1.attack.raduis", "radius"),
        ("arms.nullspace.overrides", "early_stop"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_right_one(raw, key, meant):
    overrides = key.endswith("overrides")
    put(raw, key, {"noise": {"earlystop": False}} if overrides else 1)
    with pytest.raises(NsvitError, match=rf"no such key \(did you mean {meant}\?\)"):
        config.validate(raw)


@pytest.mark.parametrize("key", ["finetune.zzz", "finetune.resamples", "influence.label"])
def test_a_key_of_another_section_is_not_suggested(raw, key):
    put(raw, key, 1)
    with pytest.raises(NsvitError, match="no such key; config/README"):
        config.validate(raw)


@pytest.mark.parametrize(
    ("timm", "args", "side"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", {}, 224),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", {"img_size": 384}, 384),
        ("deit3_small_patch16_384", {}, 384),
        ("vit_base_patch14_reg4_dinov2", {}, None),
        ("vit_base_patch16_224", {"dynamic_img_size": True}, None),
        ("resnet50", {}, None),
        ("local-dir:nsvit/pretrained/vit_s", {}, None),
    ],
)
def test_a_crop_that_a_model_cannot_take_is_refused(raw, timm, args, side):
    raw["models"]["vit_s"] |= {"timm": timm, "model_args": args}
    raw["data"]["sets"]["sketch"]["crop"] = 300
    if side is None:
        config.validate(raw)
        return
    with pytest.raises(NsvitError, match=rf"sketch\.crop: 300, but models\.vit_s takes {side} x"):
        config.validate(raw)
    # Another condition on the set, of another model, does not hide it.
    raw["models"]["other"] = {**raw["models"]["vit_s"], "timm": "resnet50", "model_args": {}}
    own = {"label": "Other", "set": "sketch", "models": ["other"]}
    raw["evaluate"]["conditions"]["sketch_of_other"] = own
    with pytest.raises(NsvitError, match=r"sketch\.crop: 300, but models\.vit_s takes"):
        config.validate(raw)
    raw["data"]["sets"]["sketch"]["crop"] = side
    config.validate(raw)


def test_robust_sets_are_over_clean_pictures_and_the_same_classes(raw):
    fgsm = raw["evaluate"]["conditions"]["fgsm_1"]
    raw["evaluate"]["conditions"]["fgsm_9"] = {**fgsm, "restricted": False}
    raw["evaluate"]["robust"]["worst"] = {"label": "w", "conditions": ["clean", "fgsm_1"]}
    config.validate(raw)
    put(raw, "evaluate.robust.worst.conditions", ["clean", "fgsm_9"])
    with pytest.raises(NsvitError, match="worst: .* same `restricted`"):
        config.validate(raw)
    raw["evaluate"]["conditions"]["fgsm_9"] = fgsm
    put(raw, "evaluate.robust.worst.conditions", ["fgsm_1", "fgsm_9"])
    with pytest.raises(NsvitError, match="worst: none of its conditions is without an attack"):
        config.validate(raw)


def test_mce_is_among_all_classes(raw):
    raw["data"]["classes"] = "imagenet-1k"
    put(raw, "evaluate.conditions.c.metric", "mce")
    config.validate(raw)
    put(raw, "data.sets.c.restrict", True)
    with pytest.raises(NsvitError, match=r"c.metric: AlexNet's .*data.sets.c.restrict"):
        config.validate(raw)


def test_the_default_tables_hold_the_papers_columns_and_rows():
    exp = config.load(ROOT / "config/config.yaml")
    for model in ("vit_s", "vit_b"):
        table = specs.accuracy(exp, "table1")
        averaged = accuracy.average_columns(table, model)
        assert sorted(table.conditions[slug].paper for slug in averaged) == sorted(paper.COLUMNS)
    kinds = [exp.arms[arm].paper for _, arm in exp.table_runs("table2")]
    assert {"Madry", "TRADES", "NS"} <= set(kinds)


SOURCE = {"label": "s", "timm": "resnet18", "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        ({"name": "pgd", "radius": 0.5}, "k/255"),
        ({"name": "pgd", "radius": "0.5"}, "k/255"),
        ({"name": "pgd", "radius": "8/225"}, "k/255"),
        ({"name": "pgd", "norm": "l2", "radius": "8/255"}, "pixel units"),
        ({"name": "pgd", "norm": "l2", "radius": -0.5}, "greater than 0"),
        ({"name": "pgd", "norm": "l1", "radius": "8/255"}, "'linf' or 'l2'"),
        ({"name": "pgd", "radius": "8/255", "stepz": 3}, "no such key"),
        ({"name": "pgd", "radius": "256/255"}, "pgd.radius: a radius is written k/255"),
        ({"name": "pgd", "norm": "l2", "radius": -1}, "1 problem(s)"),
        ({"name": "pgd", "radius": "8/255", "step_size": 2}, "step_size 2 is larger"),
        ({"name": "pgd"}, "required"),
        ({"name": "fgsm", "radius": "8/255", "norm": "l2"}, "no such key"),
        ({"name": "cw", "norm": "linf"}, "'l2'"),
        ({"name": "cw", "binary_search_steps": 0}, "greater than or equal to 1"),
        ({"name": "patch_fool", "mode": "grad"}, "'ce' or 'attention'"),
        ({"name": "patch_fool", "norm": "l2"}, "needs a radius"),
        ({"name": "patch_fool", "radius": 0.5}, "k/255"),
        ({"name": "autoattack", "radius": "8/255", "parts": ["apgd"]}, "apgd-ce"),
        ({"name": "autoattack", "radius": "8/255", "parts": []}, "at least 1 item"),
        ({"name": "mi_fgsm", "radius": "8/255"}, "required"),
        ({"name": "mi_fgsm", "radius": "8/255", "source": "other"}, "['other'] not among"),
    ],
)
def test_bad_attacks_are_refused_by_name(raw, attack, says):
    put(raw, "evaluate.conditions.fgsm_1.attack", attack)
    with pytest.raises(NsvitError, match="fgsm_1") as caught:
        config.validate(raw)
    assert says in str(caught.value)


def test_autoattack_with_too_few_classes_is_refused_where_the_config_says_how_many(raw):
    put(raw, "models.vit_s.model_args", {"num_classes": 3})
    put(raw, "evaluate.conditions.fgsm_1.attack", {"name": "autoattack", "radius": "8/255"})
    with pytest.raises(NsvitError, match=r"fgsm_1.*models.vit_s has 3 .*apgd-t needs at least 4"):
        config.validate(raw)
    put(raw, "evaluate.conditions.fgsm_1.attack.parts", ["apgd-dlr", "square"])
    config.validate(raw)
    put(raw, "models.vit_s.model_args.num_classes", 2)
    with pytest.raises(NsvitError, match="apgd-dlr needs at least 3"):
        config.validate(raw)


@pytest.mark.parametrize(
    "attack",
    [
        {"name": "pgd", "radius": "8/255"},
        {"name": "pgd", "norm": "l2", "radius": 1},
        {"name": "cw"},
        {"name": "cw", "radius": 0.5},
        {"name": "patch_fool"},
        {"name": "patch_fool", "radius": "8/255"},
        {"name": "patch_fool", "norm": "l2", "radius": 2.0},
        {"name": "autoattack", "radius": "4/255", "parts": ["apgd-ce", "square"]},
        {"name": "mi_fgsm", "radius": "8/255", "source": "cnn"},
    ],
)
def test_attacks_are_told_apart_by_name(raw, attack):
    del raw["evaluate"]["conditions"]["mi_fgsm"]
    put(raw, "evaluate.conditions.fgsm_1.attack", attack)
    put(raw, "evaluate.sources", {"cnn": SOURCE})
    exp = config.validate(raw)
    parsed = exp.evaluate.conditions["fgsm_1"].attack
    assert parsed.model_dump(mode="json", include=set(attack)) == attack
    spec = specs.evaluate(exp, *exp.runs()[0][:2], "main", "all")
    assert list(spec.sources) == (["cnn"] if attack["name"] == "mi_fgsm" else [])
    again = specs.EvaluateSpec.model_validate_json(spec.model_dump_json())
    assert again == spec


def test_a_source_model_is_not_a_target(raw):
    del raw["evaluate"]["conditions"]["mi_fgsm"]
    under_test = raw["models"]["vit_s"]
    renamed = {**under_test, "label": "renamed"}
    spelt = {**under_test, "timm": "local-dir:./nsvit/../nsvit/pretrained/vit_s/"}
    for sources in ({"vit_s": SOURCE}, {"other": renamed}, {"other": spelt}):
        put(raw, "evaluate.sources", sources)
        with pytest.raises(NsvitError, match="model under test 'vit_s' itself"):
            config.validate(raw)
    put(raw, "evaluate.sources", {})
    put(raw, "data.menagerie.transfer.cnn", spelt["timm"])
    with pytest.raises(NsvitError, match=r"transfer.cnn: the model under test 'vit_s' itself"):
        config.validate(raw)


def test_a_spec_with_fgsm_only_is_what_it_was(raw):
    """What the workflow compares to decide whether records are still valid."""
    del raw["evaluate"]["conditions"]["mi_fgsm"]
    exp = config.validate(raw)
    spec = json.loads(specs.evaluate(exp, *exp.runs()[0][:2], "main", "all").model_dump_json())
    assert set(spec) == {"model", "arm", "seeds", "batch_size", "conditions"}
    assert spec["conditions"]["fgsm_1"]["attack"] == {"name": "fgsm", "radius": "1/255"}


def test_conditions_and_seeds_are_spread_over_jobs(raw):
    put(raw, "evaluate.conditions.fgsm_8.job", "slow")
    put(raw, "evaluate.conditions.fgsm_8.arms", ["nullspace"])
    exp = config.validate(raw)
    assert exp.jobs("vit_s", "nullspace") == ("main", "slow") and exp.jobs("vit_s", "none") == (
        "main",
    )
    slow = specs.evaluate(exp, "vit_s", "nullspace", "slow", "seed1")
    assert list(slow.conditions) == ["fgsm_8"] and slow.seeds == (1,)
    main = specs.evaluate(exp, "vit_s", "nullspace", "main", "all")
    assert "fgsm_8" not in main.conditions and main.seeds == (0, 1)
    assert specs.parts(exp, "vit_s", "nullspace") == ["all"]
    put(raw, "evaluate.together", False)
    assert specs.parts(config.validate(raw), "vit_s", "nullspace") == ["seed0", "seed1"]


def test_every_problem_is_reported_at_once(raw):
    put(raw, "finetune.rounds", "many")
    put(raw, "statistics.confidence", 2)
    with pytest.raises(NsvitError, match="2 problem") as caught:
        config.validate(raw)
    assert "finetune.rounds" in str(caught.value)
    assert "statistics.confidence" in str(caught.value)


def test_scientific_notation_without_a_dot_is_a_number(raw):
    raw["finetune"]["lr"] = "1e-3"  # what PyYAML makes of 1e-3
    assert config.validate(raw).finetune.lr == 1e-3


def test_overrides_change_only_their_arm(raw):
    raw["arms"]["wide"] = {
        "label": "wide",
        "kind": "nullspace",
        "overrides": {"noise": {"epsilon": 0.1}},
    }
    exp = config.validate(raw)
    assert exp.resolve("wide").noise.epsilon == 0.1
    assert exp.resolve("wide").noise.max_steps == exp.finetune.noise.max_steps
    assert exp.resolve("nullspace") == exp.finetune


def test_only_random_noise_has_to_stop(raw):
    raw["finetune"]["noise"]["early_stop"] = False
    raw["arms"]["random"]["overrides"] = {"noise": {"early_stop": True}}
    exp = config.validate(raw)
    assert not exp.resolve("nullspace").noise.early_stop
    assert exp.resolve("random").noise.early_stop
    raw["arms"]["random"]["overrides"] = {}
    raw["arms"]["random"]["kind"] = "plain"
    config.validate(raw)  # makes no noise


def test_a_model_can_have_fewer_seeds(raw):
    raw["models"]["other"] = {**raw["models"]["vit_s"], "max_seeds": 1}
    runs = config.validate(raw).runs()
    assert [s for m, a, s in runs if (m, a) == ("vit_s", "nullspace")] == [0, 1]
    assert [s for m, a, s in runs if (m, a) == ("other", "nullspace")] == [0]


def test_the_arm_none_never_trains(raw):
    assert config.validate(raw).resolve("none").rounds == 0


def test_values_cannot_be_changed(raw):
    with pytest.raises(Exception, match="frozen"):
        config.validate(raw).finetune.lr = 1


@pytest.mark.parametrize("radius", ["0/255", "1/255", "8/255", "255/255"])
def test_radius_value(radius):
    assert config.radius_value(radius) == int(radius.split("/")[0]) / 255


def test_files_that_are_not_configs(tmp_path):
    with pytest.raises(NsvitError, match="cannot be read"):
        config.load(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(NsvitError, match="not YAML"):
        config.load(bad)
    bad.write_text("- 1")
    with pytest.raises(NsvitError, match="mapping"):
        config.load(bad)


NOISY = {"finetune random 0", "finetune nullspace 0", "finetune nullspace 1"}
ADVERSARIAL = {"finetune madry 0", "finetune trades 0"}
RUNS = NOISY | ADVERSARIAL
EVALUATIONS = {f"evaluate {arm}" for arm in ("none", "random", "nullspace", "madry", "trades")}


def every_spec(exp) -> dict[str, str]:
    """The JSON of every job's spec but those of tables and figures."""
    jobs = {f"render {n}": specs.render(exp, n) for n in exp.data.sets if n != "damagenet"}
    jobs["render damagenet"] = specs.render_transfer(exp)
    jobs |= {f"scan {n}": specs.scan(exp, n) for n in exp.data.sets}
    for model in exp.models:
        jobs[f"prepare {model}"] = specs.prepare_model(exp, model)
        jobs[f"nullspace {model}"] = specs.nullspace(exp, model)
    for model in exp.influence.models:
        jobs[f"learn {model}"] = specs.learn_noise(exp, model)
        jobs[f"influence {model}"] = specs.influence(exp, model)
    for model, arm, seed in exp.runs():
        jobs[f"finetune {arm} {seed}"] = specs.finetune(exp, model, arm, seed)
        jobs[f"evaluate {arm}"] = specs.evaluate(exp, model, arm, "main", "all")
    return {name: spec.model_dump_json() for name, spec in jobs.items()}


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("statistics.seed", 5, set()),
        ("models.vit_s.label", "Small", set()),
        ("models.vit_s.paper", None, set()),
        ("arms.nullspace.label", "noise", set()),
        ("evaluate.conditions.clean.label", "val", set()),
        ("evaluate.conditions.clean.average", False, set()),
        (
            "evaluate.conditions.fgsm_8.arms",
            ["none", "random"],
            {"evaluate nullspace", "evaluate madry", "evaluate trades"},
        ),
        ("evaluate.conditions.a.restricted", False, EVALUATIONS),
        ("influence.images", 30, {"influence vit_s"}),
        ("influence.draws", 2, {"learn vit_s"}),
        ("nullspace.images", 8, {"nullspace vit_s"}),
        ("data.menagerie.counts.r", 30, {"render r"}),
        ("data.menagerie.transfer.steps", 4, {"render damagenet"}),
        ("data.sets.v2.crop", 48, {"scan v2"}),
        ("arms.random.seeds", [0, 1], {"finetune random 1", "evaluate random"}),
        ("arms.random.overrides", {"random": {"shrink": 0.5}}, {"finetune random 0"}),
        ("finetune.lr", 2e-4, RUNS),
        ("finetune.noise.lr", 0.5, NOISY),
        ("finetune.block", 1, NOISY),
        ("finetune.adversarial.beta", 2, ADVERSARIAL),
        ("evaluate.conditions.clean.images", 5, EVALUATIONS),
    ],
)  # fmt: skip
def test_a_changed_key_changes_only_the_specs_that_depend_on_it(raw, key, value, changed):
    before = every_spec(config.validate(raw))
    put(raw, key, value)
    after = every_spec(config.validate(raw))
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_a_table_without_a_run_is_refused(raw):
    raw["models"]["vit_b"] = {**raw["models"]["vit_s"], "label": "ViT-B"}
    raw["arms"]["none"]["models"] = ["vit_b"]
    raw["tables"] = {"t": {"title": "x", "models": ["vit_s"], "arms": ["none"]}}
    with pytest.raises(NsvitError, match=r"tables\.t: none of its arms has runs"):
        config.validate(raw)


def test_the_spec_of_a_table_holds_only_its_own(raw):
    raw["tables"] = {
        "one": {"title": "One", "arms": ["none"], "conditions": ["clean"]},
        "two": {"title": "Two", "arms": ["nullspace", "none"], "against": ["none"]},
    }
    exp = config.validate(raw)
    before = {name: specs.accuracy(exp, name) for name in exp.tables}
    assert list(before["one"].conditions) == ["clean"] and list(before["one"].arms) == ["none"]
    assert before["two"].runs() == [("vit_s", "nullspace"), ("vit_s", "none")]
    assert exp.table_runs("two") == before["two"].runs()
    text = before["two"].model_dump_json()
    assert specs.AccuracySpec.model_validate_json(text) == before["two"]
    put(raw, "evaluate.conditions.r.label", "Renditions")
    put(raw, "evaluate.conditions.clean.job", "own")
    after = config.validate(raw)
    changed = [name for name in before if specs.accuracy(after, name) != before[name]]
    assert changed == ["two"]


def test_specs_survive_json(raw):
    exp = config.validate(raw)
    spec = specs.table(exp)
    assert specs.TableSpec.model_validate_json(spec.model_dump_json()) == spec
    assert list(json.loads(spec.model_dump_json())["conditions"]) == list(exp.evaluate.conditions)


def test_documentation_names_every_key():
    text = re.sub(r"```.*?```", "", (ROOT / "config/README.md").read_text(), flags=re.S)
    code = re.findall(r"`([^`]+)`", text)
    words = {word for span in code for word in re.findall(r"[a-z_0-9]+", span)}
    schema = json.loads(config.schema_text())
    counts = set(schema["$defs"].pop("MenagerieCounts")["properties"])
    keys = {k for section in schema["$defs"].values() for k in section.get("properties", {})}
    assert keys | set(schema["properties"]) <= words
    assert counts <= set(config.load(ROOT / "config/config.yaml").data.sets)


def test_the_documented_example_is_valid():
    text = (ROOT / "config/README.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    example, training = (yaml.safe_load(block) for block in blocks[:2])
    assert config.validate(example).runs() == [("mine", "none", 0)]
    kinds = [arm for _, arm, _ in config.validate({**example, **training}).runs()]
    assert kinds == ["none", "plain", "plain", "nullspace", "nullspace"]


def test_the_overlay_of_strong_attacks_adds_conditions_and_changes_none():
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    before = config.validate(base)
    overlay = yaml.safe_load((ROOT / "config/overlays/strong.yaml").read_text())
    for section in ("evaluate", "tables"):
        base[section] = _merged(base[section], overlay[section])
    after = config.validate(base)
    added = set(after.evaluate.conditions) - set(before.evaluate.conditions)
    assert added == {"mi_fgsm", "pgd_restarts", "autoattack_linf", "autoattack_l2"}
    old = specs.evaluate(before, "vit_s", "plain", "main", "all")
    assert specs.evaluate(after, "vit_s", "plain", "main", "all") == old
    assert after.jobs("vit_s", "plain") == ("main", "transfer", "strong")


def test_paper_yaml_is_the_papers_matrix():
    """METHOD.md sections 6, 10 and 12, as far as they say."""
    exp = config.load(ROOT / "config/paper.yaml")
    read = {slug: (m.timm, m.mean[0]) for slug, m in exp.models.items()}
    for size in ("small", "base"):
        name, slug = f"vit_{size}_patch16_224.augreg_in21k_ft_in1k", f"vit_{size[0]}"
        assert read[slug] == (name, 0.5) and read[f"{slug}_wrong_norm"] == (name, 0.485)
        for arm in ("plain", "random", "nullspace"):
            assert exp.seeds(slug, arm) == exp.seeds(f"{slug}_wrong_norm", arm) == (0, 1, 2)
    sets = exp.data.sets
    assert {(s, o.resize, o.crop) for s, o in sets.items() if s in ("c", "stylized")} == {
        ("c", None, None),
        ("stylized", None, None),
    }
    others = [own for slug, own in sets.items() if slug not in ("c", "stylized")]
    assert {(own.resize, own.crop) for own in others} == {(256, 224)}
    assert {slug for slug, own in sets.items() if own.restrict} == {"a", "r"}
    among_all = [c for c in exp.evaluate.conditions.values() if not c.restricted]
    assert {(c.set, c.average, c.paper) for c in among_all} == {
        ("a", False, None),
        ("r", False, None),
    }
    columns = [c.paper for c in exp.evaluate.conditions.values() if c.paper]
    assert tuple(columns) == paper.COLUMNS
    assert exp.evaluate.conditions["c"].metric == "mce"
    radii = [c.attack.radius for c in exp.evaluate.conditions.values() if c.attack is not None
             and c.attack.name == "fgsm"]  # fmt: skip
    assert radii == ["1/255", "2/255", "4/255", "8/255"]
    named = {(exp.models[m].paper, exp.arms[a].paper) for m, a, _ in exp.runs()}
    rows = set(paper._rows())
    ours = {row for row in rows if row[0] in ("ViT-S", "ViT-B")}
    copied = {"MixUp", "RandAugment", "PR", "RandAugment+PR", "AugMix", "AugMix+PR", "SAM"}
    copied |= {"RobustViT", "NS eps=0.03", "NS eps=0.03 early-stop"}
    assert {row for row in ours - named if row[1] not in copied} == set()
    own = exp.resolve("nullspace")
    assert (own.rounds, own.steps, own.batch_size, own.lr, own.lr_min) == (20, 40, 128, 1e-5, 1e-6)
    assert (own.weight_decay, own.drop_path, own.label_smoothing) == (0.05, 0.25, 0.1)
    assert (own.mixing.mixup, own.mixing.cutmix, own.ema_decay) == (0.8, 1.0, None)
    assert (own.noise.limit, own.noise.lr, own.noise.epsilon) == (3.0, 0.1, 0.03)
    assert exp.resolve("ns_fixed").noise.early_stop is False
    assert {exp.resolve(f"ns_eps_{e}").noise.epsilon for e in ("001", "01")} == {0.01, 0.1}


@pytest.mark.parametrize(
    ("name", "arm", "changed"),
    [
        ("authors_hal", "madry", {"steps": 73, "augmentation": "crop", "weight_decay": 1e-4}),
        ("authors_2022", "nullspace", {"lr": 1e-4, "rounds": 10}),
        ("authors_ema", "nullspace", {"ema_decay": 0.9998}),
        ("authors_dat_may", "dat_ns", {"lr": 2e-5, "ema_decay": 0.99992}),
        ("cw_torchattacks", "nullspace", {}),
    ],
)
def test_the_overlays_of_the_paper_have_results_of_their_own(name, arm, changed):
    base = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    before = config.validate(base)
    overlay = yaml.safe_load((ROOT / f"config/overlays/{name}.yaml").read_text())
    after = config.validate(_merged(base, overlay))
    assert after.experiment not in ("paper", before.experiment)
    # Where epsilon is 0.01 everywhere, the arms of Table 3 that differ in this alone are left out.
    same = {"ns_eps_001", "random_eps_001"} if name == "authors_2022" else set()
    assert after.runs() == [run for run in before.runs() if run[1] not in same]
    runs = [
        (m, s, after.arms[a].kind, after.resolve(a).model_dump_json()) for m, a, s in after.runs()
    ]
    assert len(runs) == len(set(runs))
    own, old = after.resolve(arm).model_dump(), before.resolve(arm).model_dump()
    assert changed.items() <= own.items() and all(old.get(key) != own[key] for key in changed)
    # Where single arms differ, NS is as it was.
    if arm != "nullspace":
        assert after.resolve("nullspace") == before.resolve("nullspace")
    if name == "cw_torchattacks":
        cw = after.evaluate.conditions["cw"].attack
        assert (cw.radius, cw.steps, cw.binary_search_steps) == (None, 50, 1)


def _merged(base: dict, over: dict) -> dict:
    """As Snakemake merges several --configfile."""
    both = base.keys() & over.keys()
    inner = {k: _merged(base[k], over[k]) for k in both if isinstance(base[k], dict)}
    return {**base, **over, **inner}


@pytest.mark.parametrize(
    "key,batch",
    [
        ("finetune.batch_size", 4),
        ("finetune.noise.batch_size", 4),
        ("influence.noise.batch_size", 4),
        ("lambda_study.batch_size", 4),
    ],
)
def test_more_processes_than_a_batch_has_pictures_are_refused(raw, key, batch):
    put(raw, key, batch)
    raw["machine"] = {"processes": batch}
    config.validate(raw)
    raw["machine"] = {"processes": batch + 1}
    with pytest.raises(NsvitError, match=f"machine.processes: 5 .* cannot share {key}, which is 4"):
        config.validate(raw)
    raw["machine"] = {"processes": "auto"}  # known when it runs; then the verb refuses it
    config.validate(raw)


def test_a_key_given_twice_is_refused_by_name_and_lines(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("arms:\n  none: {kind: none}\n  none: {kind: plain}\n")
    with pytest.raises(NsvitError, match="'none' in line 3 is already in line 2"):
        config.refuse_repeated_keys(path)
    path.write_text("a: {lr: 1}\nb: {lr: 2}\nc: [{x: 1}, {x: 2}]\n")
    config.refuse_repeated_keys(path)
    path.write_text("")
    config.refuse_repeated_keys(path)
