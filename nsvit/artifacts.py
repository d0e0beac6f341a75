"""Files that say what made them: safetensors and parquet, written atomically. No torch.

Every artefact carries the same provenance: kind, schema version, spec, hashes of its inputs,
package version, git commit, versions and machine, seed and metrics. Tensor files have it in a
JSON sidecar with the same stem, parquet files in their own metadata.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import machine
from nsvit.errors import NsvitError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = 1


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path` that takes its place when the block succeeds.

    The file is flushed to disk before the rename, so a reader sees the old file or the whole
    new one, never a part. The folder is made if it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: str | Path) -> None:
    """Removes what killed processes left of `atomic` writes in a folder.

    Only for a folder that no other process writes to.
    """
    for left in Path(folder).glob(".*.*.*"):
        if re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.\w+)?", left.name) and left.is_file():
            left.unlink(missing_ok=True)


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a mapping as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON mapping.

    Raises:
        NsvitError: missing, or not JSON.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise NsvitError(f"{path}: not JSON ({error}); delete it and run again") from None
    if not isinstance(content, dict):
        raise NsvitError(f"{path}: expected a JSON mapping")
    return content


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def package_version() -> str:
    """The installed version of nsvit."""
    try:
        return metadata.version("nsvit")
    except metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def git_commit() -> str:
    """The commit of the checkout this package runs from, with + for local changes."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def provenance(
    kind: str,
    spec: Mapping[str, Any],
    inputs: Iterable[str | Path] = (),
    seed: int | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What made an artefact: the content of its sidecar.

    Args:
        kind: what the artefact is ("noise", "model", "records", ...).
        spec: the validated spec the verb was given.
        inputs: files it was made from; their hashes are kept.
        seed: the seed it depends on, if one.
        metrics: results worth reading without opening the artefact.
    """
    return {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "spec": dict(spec),
        "inputs": {str(path): sha256(path) for path in inputs},
        "nsvit": package_version(),
        "git_commit": git_commit(),
        "made_with": machine.made_with(),
        "seed": seed,
        "metrics": dict(metrics or {}),
    }


def check_kind(sidecar: Mapping[str, Any], kind: str, path: str | Path) -> None:
    """Refuses an artefact of another kind or another schema version.

    Raises:
        NsvitError: naming the file and both kinds.
    """
    if sidecar.get("kind") != kind:
        raise NsvitError(f"{path}: expected a {kind!r} file, found {sidecar.get('kind')!r}")
    if sidecar.get("schema_version") != SCHEMA_VERSION:
        raise NsvitError(
            f"{path}: schema version {sidecar.get('schema_version')}, this nsvit reads "
            f"{SCHEMA_VERSION}; delete it and run again"
        )


# --- tensors --------------------------------------------------------------------------------


def sidecar_path(path: str | Path) -> Path:
    """The JSON sidecar of a tensor file."""
    return Path(path).with_suffix(".json")


def write_tensors(path: str | Path, tensors: Mapping[str, Any], sidecar: Mapping[str, Any]) -> None:
    """Writes named arrays (numpy, or torch tensors on any device) and their sidecar.

    The sidecar is written last: a tensor file without one is an interrupted write.
    """
    write_arrays(path, tensors)
    write_json(sidecar_path(path), sidecar)


def write_arrays(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Writes named arrays as `write_tensors` does, and no sidecar."""
    import numpy as np
    from safetensors.numpy import save

    def array(value: Any) -> np.ndarray:
        plain = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        return np.ascontiguousarray(plain)

    # Not `save_file`: its temporary file has no name that `sweep` could tell from others.
    with atomic(path) as temporary:
        temporary.write_bytes(save({name: array(value) for name, value in tensors.items()}))


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads named arrays and their sidecar.

    Raises:
        NsvitError: missing, damaged, or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    sidecar = read_json(sidecar_path(path))
    check_kind(sidecar, kind, path)
    try:
        return load_file(path), sidecar
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise NsvitError(f"{path}: damaged ({error}); delete it and run again") from None


# --- tables of rows -------------------------------------------------------------------------


def write_parquet(path: str | Path, frame: pd.DataFrame, sidecar: Mapping[str, Any]) -> None:
    """Writes a data frame as parquet with its provenance in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    found = table.schema.metadata or {}
    table = table.replace_schema_metadata({**found, b"nsvit": json.dumps(sidecar).encode()})
    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(
    path: str | Path, kind: str, columns: Sequence[str] | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reads a data frame and its provenance.

    Args:
        path: the file.
        kind: what it must be.
        columns: read only these, with text as pandas categories: quicker for long records.

    Raises:
        NsvitError: missing, damaged (half-written), of another kind, or without a column.
    """
    table, sidecar = read_arrow(path, kind, columns)
    return table.to_pandas(), sidecar


def read_arrow(
    path: str | Path, kind: str, columns: Sequence[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """As `read_parquet`, but an arrow table: many small files are quicker to join as such.

    Raises:
        NsvitError: as `read_parquet`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
        sidecar = json.loads((schema.metadata or {}).get(b"nsvit", b"{}"))
        check_kind(sidecar, kind, path)
        absent = sorted(set(columns or ()) - set(schema.names))
        if absent:
            raise NsvitError(f"{path}: no column {', '.join(absent)}; delete it and run again")
        with pq.ParquetFile(path, metadata=footer, read_dictionary=columns) as file:
            table = file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise NsvitError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise NsvitError(f"{path}: damaged ({error}); delete it and run again") from None
    return (table if columns is None else table.select(list(columns))), sidecar


def read_csv(path: str | Path) -> pd.DataFrame:
    """Reads a table that a rule wrote as csv.

    Raises:
        NsvitError: missing, or not csv.
    """
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise NsvitError(f"{path}: cannot be read ({reason}); run its rule again") from None
