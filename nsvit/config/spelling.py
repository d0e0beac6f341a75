"""Problems of a configuration for people: what somebody who misspelt a key probably meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: What pydantic puts behind a key whose value may be of several kinds: the kind that it tried.
_TRIED = re.compile(r"function-\w+\[.*|constrained-\w+")


def meant(word: str, among: Collection[str]) -> str:
    """` (did you mean x?)` where one of `among` is spelt much like `word`, else nothing."""
    close = get_close_matches(word, among, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def keys_at(schema: dict[str, Any], path: Sequence[int | str], title: str) -> set[str]:
    """The keys that a JSON schema of pydantic's allows at the place of an error.

    Args:
        schema: of the whole, with `$defs`.
        path: the `loc` of the section, without the bad key; tags of unions are part of it.
        title: the model that the path starts from.

    Returns:
        Names of properties; none where `title` is no part of the schema.
    """
    defs = schema["$defs"]

    def walk(node: Any, rest: Sequence[int | str]) -> set[str]:
        if not isinstance(node, dict):
            return set()
        node = defs[node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        tags = node.get("discriminator", {}).get("mapping", {})
        if rest and rest[0] in tags:
            return walk({"$ref": tags[rest[0]]}, rest[1:])
        inner = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        found = set().union(*(walk(one, rest) for one in inner))
        if not rest:
            return found | set(node.get("properties", ()))
        others = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
        below = [node.get("properties", {}).get(rest[0]), *others]
        return found.union(*(walk(one, rest[1:]) for one in below))

    return walk(schema if title == schema["title"] else defs.get(title), path)


def place_of(problem: ErrorDetails) -> tuple[int | str, ...]:
    """The keys that lead to a problem, without the kinds of value that were tried there."""
    return tuple(part for part in problem["loc"] if not _TRIED.fullmatch(str(part)))


def telling(problems: Iterable[ErrorDetails]) -> list[ErrorDetails]:
    """The problems; of several at one key those that say more than that it is another kind."""
    places: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in problems:
        places.setdefault(place_of(problem), []).append(problem)
    found: list[ErrorDetails] = []
    for own in places.values():
        more = [one for one in own if not one["type"].endswith(("_type", "_parsing"))]
        found += more or own
    return found
