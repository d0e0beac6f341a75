"""Which arms a figure shows that has no room for all, and how they differ from the first."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nsvit import statistics
from nsvit.config import ArmKind
from nsvit.errors import NsvitError
from nsvit.specs import TableSpec

log = logging.getLogger(__name__)


def first_of_kind(spec: TableSpec, kinds: Sequence[ArmKind]) -> dict[ArmKind, str]:
    """The first arm of each kind in the config, as kind -> slug, in the order of `kinds`.

    Further arms of a kind differ in settings (epsilon, early stop); tables show them.
    """
    found: dict[ArmKind, str] = {}
    for slug, arm in spec.arms.items():
        found.setdefault(arm.kind, slug)
    return {kind: found[kind] for kind in kinds if kind in found}


def difference(
    found: statistics.Resampled, model: str, arm: str, base: str, condition: str
) -> statistics.Comparison | None:
    """How much better an arm is than the starting weights, as the table `paired` has it.

    None where one of them was not evaluated, or on other pictures: the log names these.
    """
    try:
        return statistics.compare(
            found, (model, arm), (model, base), [condition], untrained=(base,)
        )
    except NsvitError as error:
        log.warning("not compared: %s", error)
        return None
