"""The workflow's text: rules are verbs, carry their recipe, and pass Snakemake's own lint."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nsvit import cli, config

ROOT = Path(__file__).parents[2]
TARGETS = {"all", "pretrain"}  # gather files, run nothing

pytestmark = pytest.mark.xdist_group("workflow")


def rules() -> dict[str, str]:
    """Every rule's text by its name."""
    found = {}
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        for part in re.split(r"^(?=rule )", path.read_text(), flags=re.M)[1:]:
            found[re.match(r"rule (\w+):", part)[1]] = part
    return found


def test_rules_and_verbs_are_the_same():
    verbs = {cli.verb_name(f).replace("-", "_") for f in cli.RULE_VERBS}
    assert set(rules()) - TARGETS == verbs == set(config.RECIPES)


def test_each_rule_calls_its_verb_with_its_recipe():
    for name, text in rules().items():
        assert "\n    run:" not in text and "\n    script:" not in text
        if name not in TARGETS:
            assert f'"nsvit {name.replace("_", "-")} ' in text, name
            assert f'recipe=RECIPES["{name}"]' in text, name
            for directive in ("log:", "benchmark:", "threads:", "runtime=", "mem_mb="):
                assert directive in text, (name, directive)


def test_pictures_and_weights_are_looked_at_before_anything_is_computed():
    """With few cores, finetuning would otherwise run for days before a wrong file is found."""
    found = {name: re.search(r"^    priority: (\d+)", text, re.M) for name, text in rules().items()}
    priority = {name: int(match[1]) if match else 0 for name, match in found.items()}
    computing = set(rules()) - TARGETS - {"scan", "prepare_model", "plan"}
    most = max(priority[name] for name in computing)
    assert priority["scan"] > most and priority["prepare_model"] > most > 0


def test_every_caption_exists():
    text = "".join(rules().values()) + (ROOT / "workflow/rules/common.smk").read_text()
    for caption in re.findall(r"\.\./report/(\w+)\.rst", text):
        assert (ROOT / f"workflow/report/{caption}.rst").exists()
    for name in ("nullity", "cost", "influence", "lambda", "closure"):
        assert (ROOT / f"workflow/report/{name}.rst").exists()


def test_snakemake_lint_finds_only_the_environment():
    """All rules run in the environment of `make`; none brings a conda or container one."""
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Lints for rule render" in done.stderr
    titles = set(re.findall(r"^    \* (.*)$", done.stderr, flags=re.M))
    assert titles == {"Specify a conda environment or container for each rule.:"}


def test_the_default_configuration_plans():
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
