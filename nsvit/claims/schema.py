"""What a file of claims holds, and reading it.

Whether the paper has the rows and columns that a claim names is seen when it is tested: a claim
with a wrong name is not tested and says so, and the others are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from nsvit import config
from nsvit.config import ArmKind, Section, Slug
from nsvit.config.base import PositiveFloat
from nsvit.errors import NsvitError

#: The mean of the columns that count, as in the tables.
AVERAGE = "average"


class Arm(Section):
    """An arm, by its name in the paper or else by its kind."""

    paper: str | None = None
    kind: ArmKind | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Arm:
        if self.paper is None and self.kind is None:
            raise ValueError("an arm is named by `paper`, `kind` or both")
        return self


class Contrast(Section):
    """Two rows of a table, and the columns on which they are compared."""

    row: Arm
    versus: Arm
    columns: tuple[str, ...] = Field(min_length=1)


class Better(Section):
    """Row is better than versus, on each column."""

    kind: Literal["better"]
    contrasts: tuple[Contrast, ...] = Field(min_length=1)


class Equivalent(Section):
    """Row and versus differ by less than a margin."""

    kind: Literal["equivalent"]
    margin: PositiveFloat = Field(description="points")
    contrasts: tuple[Contrast, ...] = Field(min_length=1)


class NotWorse(Section):
    """Row is worse than versus by less than a margin, if at all."""

    kind: Literal["not_worse"]
    margin: PositiveFloat = Field(description="points")
    contrasts: tuple[Contrast, ...] = Field(min_length=1)


class Agreement(Section):
    """Predictions stay under learned noise, and do not under its permutation."""

    kind: Literal["agreement"]
    study: Literal["lambda", "influence"]
    threshold: float = Field(gt=0, lt=100, description="per cent")


class Monotone(Section):
    """The norm of learned noise grows with lambda."""

    kind: Literal["monotone"]


class Regrowth(Section):
    """During finetuning the norm of the noise falls first, then grows."""

    kind: Literal["regrowth"]
    row: Arm


Test = Better | Equivalent | NotWorse | Agreement | Monotone | Regrowth


class Claim(Section):
    """One claim."""

    id: Slug
    title: str = Field(description="the claim in a line")
    text: str = Field(description="what is meant, for people")
    where: str = Field(description="where it stands")
    origin: Literal["paper", "control"] = "paper"
    models: tuple[str, ...] = Field(min_length=1, description="the paper's names")
    test: Test = Field(discriminator="kind")


class Claims(Section):
    """A file of claims."""

    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_differ(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"claims of the same id: {', '.join(twice)}")
        return self


def read_claims(path: str | Path) -> tuple[Claim, ...]:
    """The claims in a YAML file.

    Raises:
        NsvitError: missing, not YAML, or not a file of claims; every problem with its place.
    """
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NsvitError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise NsvitError(f"{path}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise NsvitError(f"{path}: expected a mapping with the key `claims`")
    try:
        return Claims.model_validate(raw).claims
    except ValidationError as error:
        text = config.describe(error, str(path))
        raise NsvitError(text.replace("; config/README.md lists them all", "")) from None
