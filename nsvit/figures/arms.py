"""Which arms a figure shows that has no room for all."""

from __future__ import annotations

from collections.abc import Sequence

from nsvit.config import ArmKind
from nsvit.specs import TableSpec


def first_of_kind(spec: TableSpec, kinds: Sequence[ArmKind]) -> dict[ArmKind, str]:
    """The first arm of each kind in the config, as kind -> slug, in the order of `kinds`.

    Further arms of a kind differ in settings (epsilon, early stop); tables show them.
    """
    found: dict[ArmKind, str] = {}
    for slug, arm in spec.arms.items():
        found.setdefault(arm.kind, slug)
    return {kind: found[kind] for kind in kinds if kind in found}
