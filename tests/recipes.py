"""What each rule's code was when its recipe number was last looked at.

`python -m tests.recipes` records the present state in tests/recipes.json. Do that after a change
that leaves a rule's output as it was; where the output changes its meaning or its numbers, raise
the rule's number in `nsvit.config.RECIPES` first.
"""

from __future__ import annotations

import json
from pathlib import Path

from nsvit.config import RECIPES
from nsvit.fingerprint import code_digest

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "tests/recipes.json"

_PICTURES = tuple(
    f"data/{name}.py" for name in ("layouts", "loading", "decoded", "pictures", "workers")
)
_PICTURES += ("inputs.py",)
_SHARED = ("distributed.py", "precision.py", "autoprecision.py")
_TRAIN = ("data/augment.py", "training.py", *_SHARED, *_PICTURES)
_NOISE = (
    "models.py",
    "autoprecision.py",
    "compiled.py",
    "noise.py",
    "prefixes.py",
    "visits.py",
    *_SHARED,
    *_PICTURES,
)
_MIXED = ("averaging.py", "data/mixing.py", "data/training.py")
_WEIGHTS = ("models.py", "checkpoints.py")
_ATTACKS = tuple(f"attacks/{name}.py" for name in ("pgd", "steps", "threat", "training"))
_ACCURACY = ("tables/accuracy.py", "tables/accuracy_notes.py", "tables/accuracy_sheet.py")
_DOUBTED = ("tables/accuracy.py", "tables/accuracy_notes.py")
_SCORES = ("attacks", "readings.py", "scoring.py", "models.py", *_PICTURES)
_TABLES = (
    "cells.py",
    "records.py",
    "scores.py",
    "statistics",
    "tables/sheet.py",
    "tables/verbs.py",
)
_STUDY = ("comparison.py", *_NOISE)
_NOISE_TABLES = ("tables/noises.py", "tables/studies.py", "tables/studies_sheet.py", "paper")
_FROM_RECORDS = (
    "figures/arms.py",
    "figures/style.py",
    "records.py",
    "scores.py",
    "statistics",
    "config/evaluation.py",
)

#: The files below nsvit/ that make a rule's output.
CODE: dict[str, tuple[str, ...]] = {
    "render": ("data/menagerie", "data/corruptions.py"),
    "render_transfer": (
        *("transfer.py", "models.py", "data/menagerie/write.py", "data/pictures.py"),
        *("attacks/mi_fgsm.py", "attacks/steps.py", "attacks/threat.py"),
    ),
    "corrupt": (
        *("data/corrupted.py", "data/corruptions.py", "data/menagerie/write.py"),
        *("data/pictures.py", "data/layouts.py"),
    ),
    "scan": ("data/layouts.py", "data/decoded.py", "data/pictures.py", "data/rows.py"),
    "contact_sheet": ("data/sheets.py", "data/pictures.py"),
    "pretrain_model": ("models.py", "pretrain.py", *_TRAIN),
    "prepare_model": _WEIGHTS,
    "nullspace": ("models.py", "nullspace", *_PICTURES),
    "nullity": ("nullspace/table.py",),
    "learn_noise": ("influence.py", *_NOISE),
    "influence": ("influence.py", *_STUDY),
    "lambda_study": ("lambda_noise.py", "lambda_study.py", *_STUDY),
    "finetune": (
        *_MIXED,
        "draws.py",
        "finetuning.py",
        "history.py",
        "losses.py",
        "rounds.py",
        *_ATTACKS,
        *_TRAIN,
        *_NOISE,
    ),
    "evaluate": ("cells.py", "matrix.py", *_SCORES),
    "dynamics": ("evaluation.py", *_SCORES),
    "scores": ("scores.py", "cells.py", "records.py", "statistics"),
    "table": (*_ACCURACY, "paper", *_TABLES),
    "table_claims": (
        *("claims", "paper", "tables/claims.py", "tables/paired.py"),
        *_DOUBTED,
        *_TABLES,
    ),
    "table_cost": ("tables/cost.py", *_TABLES),
    "table_influence": ("tables/influence.py", "tables/noises.py", *_TABLES),
    "table_lambda": (*_NOISE_TABLES, *_TABLES),
    "table_closure": (*_NOISE_TABLES, *_TABLES),
    "table_nullity": ("tables/nullity.py", *_TABLES),
    "table_paired": ("tables/paired.py", *_DOUBTED, *_TABLES),
    "table_attacks": ("tables/attacks.py", *_DOUBTED, *_TABLES),
    "figure_nullspace": ("figures/nullspace.py", "figures/style.py"),
    "figure_influence": ("figures/influence.py", "figures/style.py"),
    "figure_claims": ("claims/verdicts.py", "figures/forest.py", "figures/style.py"),
    "figure_dynamics": ("figures/dynamics.py", "figures/style.py", "statistics", "paper"),
    "figure_concept": ("figures/concept.py", "figures/style.py"),
    "figure_lambda": ("figures/lambda_study.py", "figures/style.py"),
    "figure_closure": ("figures/closure.py", "figures/lambda_study.py", "figures/style.py"),
    "figure_corruptions": ("figures/corruptions.py", *_FROM_RECORDS),
    "figure_radius": ("figures/radius.py", *_FROM_RECORDS),
    "plan": ("report/verbs.py",),
    "report": ("report", "tables/claims.py"),
}


def fingerprint(rule: str) -> str:
    """A hash of the code that makes a rule's output."""
    return code_digest(CODE[rule])[:16]


def now() -> dict[str, dict[str, object]]:
    """The recipe number and the code of every rule."""
    return {rule: {"recipe": number, "code": fingerprint(rule)} for rule, number in RECIPES.items()}


if __name__ == "__main__":
    LOCK.write_text(json.dumps(now(), indent=2) + "\n")
