"""The spec that a rule gives to its verb."""

from __future__ import annotations

import argparse
from typing import TypeVar

from pydantic import ValidationError

from nsvit import config
from nsvit.errors import NsvitError

S = TypeVar("S", bound=config.Section)
Args = argparse.Namespace


def read_spec(cls: type[S], args: Args) -> S:
    """The spec in --spec.

    Raises:
        NsvitError: it does not fit; names every key.
    """
    try:
        return cls.model_validate_json(args.spec)
    except ValidationError as error:
        raise NsvitError(config.describe(error, "--spec")) from None
