"""A rule whose code changed has a new recipe number, or somebody said that it needs none."""

import json

import pytest

from nsvit.config import RECIPES
from tests import recipes


def test_every_rule_has_its_code_named():
    assert set(recipes.CODE) == set(RECIPES)


@pytest.mark.parametrize("rule", list(RECIPES))
def test_changed_code_is_looked_at(rule):
    locked = json.loads(recipes.LOCK.read_text()).get(rule)
    assert locked == {"recipe": RECIPES[rule], "code": recipes.fingerprint(rule)}, (
        f"the code behind rule {rule} changed. If its output changed in meaning or numbers, raise "
        f"nsvit.config.RECIPES[{rule!r}], so that Snakemake runs it again; in any case record the "
        "new state with `python -m tests.recipes`"
    )
