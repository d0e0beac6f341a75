"""What a result was made from, as hashes: settings, and the code of the package itself."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent


def digest(content: Any) -> str:
    """A hash of anything that JSON can hold, the same for any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code_digest(names: Iterable[str]) -> str:
    """A hash of what some modules do: comments, docstrings and layout do not count.

    Args:
        names: files and folders below the package, such as "attacks" and "models.py".
    """
    found = hashlib.sha256()
    for name in sorted(set(names)):
        path = PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(_meaning(file).encode())
    return found.hexdigest()


@functools.cache
def _meaning(path: Path) -> str:
    """A python file without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0].value = ast.Constant("")
    return ast.dump(tree)
