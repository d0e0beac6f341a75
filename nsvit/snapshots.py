"""Snapshots of long work, so that it goes on from a step and not from the beginning. No torch.

A snapshot is tensors and some JSON. It counts when its JSON is there, which is written last, holds
the hash of the tensors' file and says what the work is made from. The last two are kept: if the
last is damaged, the one before is taken. Where no result depends on when it was taken or on how
often work was stopped, no random state is in it: every random number of this package is a function
of seeds and of round and step (`nsvit.runtime`, `nsvit.draws`), also what is drawn from torch's
global state (drop path), which is seeded anew for each step.

How often: the time a snapshot takes decides how long the next one waits, so that all of them
together take no more than `SHARE` of the time, however large the model or slow the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsvit import artifacts, stopping
from nsvit.errors import NsvitError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

log = logging.getLogger(__name__)

#: The part of the time that snapshots may take.
SHARE = 0.02
#: Until one has been written: what a disk does at least, in bytes per second, and the start of it.
_RATE, _START = 2e8, 0.02

#: What a snapshot holds: tensors on any device, and what JSON can hold.
State = tuple[Mapping[str, Any], Mapping[str, Any]]


class Snapshots:
    """The snapshots of one piece of work, in a folder of their own.

    Attributes:
        part: which part of the work (such as a round) snapshots are now taken of; `load` takes no
            other's.
    """

    def __init__(
        self,
        folder: str | Path,
        made_from: str,
        size: int,
        share: float = SHARE,
        writes: bool = True,
    ) -> None:
        """Looks at nothing yet; the first snapshot is due a while after this.

        Args:
            folder: of these snapshots alone; deleted when the work is done.
            made_from: a fingerprint of all that the work depends on; snapshots of other work are
                not used.
            size: about how many bytes a snapshot has.
            share: of the time, that they may take.
            writes: False in the processes of a job that only take part.
        """
        self.part = ""
        self._folder = Path(folder)
        self._made_from = made_from
        self._share = share
        self._writes = writes
        self._cost = _START + size / _RATE
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last one."""
        return self._writes and time.monotonic() - self._last >= self._cost / self._share

    def offer(self, state: Callable[[], State]) -> None:
        """To call between two steps: takes a snapshot if it is due, and stops if asked to.

        Args:
            state: makes what to save; called only then.

        Raises:
            Stopped: `upon_stop` saves.
        """
        stopping.point()
        if self.due():
            self.save(*state())

    @contextlib.contextmanager
    def upon_stop(self, state: Callable[[], State]) -> Iterator[None]:
        """Takes a last snapshot when the work inside is stopped.

        Args:
            state: makes what to save: where the work was after its last whole step.
        """
        try:
            yield
        except stopping.Stopped:
            if self._writes:
                self.save(*state())
                log.warning("stopped; saved in %s", self._folder)
            raise

    def save(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Writes a snapshot now, and forgets all but the one before."""
        begun = time.monotonic()
        numbers = self._numbers()
        path = self._path(max(numbers, default=0) + 1)
        head = {"made_from": self._made_from, "part": self.part}
        write_checked(path, tensors, {**head, "facts": dict(facts)})
        for number in numbers[:-1]:
            _delete(self._path(number))
        self._last = time.monotonic()
        self._cost = self._last - begun

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last whole snapshot of this part: tensors on the CPU, and facts. None without one."""
        if self._writes:
            artifacts.sweep(self._folder)
        for number in reversed(self._numbers()):
            path = self._path(number)
            try:
                tensors, content = read_checked(path)
                if content["made_from"] != self._made_from:
                    raise NsvitError("made with other settings, weights or pictures")
            except NsvitError as problem:
                log.warning("%s: not used: %s", path, problem)
                if self._writes:
                    _delete(path)
                continue
            if content["part"] == self.part:
                log.info("going on from %s", path)
                return tensors, content["facts"]
        return None

    def clear(self) -> None:
        """Deletes all of them: what they were for is done."""
        if self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"

    def _numbers(self) -> list[int]:
        """Of the snapshots there are, ascending; a damaged name is no snapshot."""
        stems = (path.stem for path in self._folder.glob("*.json"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())


class Pieces:
    """Finished pieces of long work, in a folder of their own, and snapshots of the next one.

    Attributes:
        steps: snapshots of the piece that is being made.
    """

    def __init__(self, folder: str | Path, made_from: str, size: int, writes: bool = True) -> None:
        """Looks at nothing yet.

        Args:
            folder: of this work alone; deleted when it is done.
            made_from: a fingerprint of all that the pieces depend on.
            size: about how many bytes a snapshot has.
            writes: as for `Snapshots`.
        """
        self.steps = Snapshots(Path(folder) / "steps", made_from, size, writes=writes)
        self._writes = writes
        self._folder = Path(folder)
        self._made_from = made_from

    def get(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A finished piece: tensors on the CPU, and facts. None if it is not there, or damaged.

        Snapshots are from here on of this piece.
        """
        self.steps.part = name
        path = self._folder / f"{name}.safetensors"
        if not artifacts.sidecar_path(path).exists():
            return None
        try:
            tensors, content = read_checked(path)
            if content["made_from"] != self._made_from:
                raise NsvitError("made with other settings, weights or pictures")
        except NsvitError as problem:
            log.warning("%s: made again: %s", path, problem)
            return None
        return tensors, content["facts"]

    def put(self, name: str, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keeps a piece that is finished."""
        if not self._writes:
            return
        content = {"made_from": self._made_from, "facts": dict(facts)}
        write_checked(self._folder / f"{name}.safetensors", tensors, content)
        self.steps.clear()

    def clear(self) -> None:
        """Deletes all of them: the work is done."""
        if self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)


def parts_of(out: str | Path) -> Path:
    """The folder beside an output for what is finished of it."""
    return Path(out).parent / f".{Path(out).stem}.parts"


def _delete(path: Path) -> None:
    artifacts.sidecar_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def fingerprint(weights: Mapping[str, Tensor], **parts: Any) -> str:
    """A hash of the weights that work begins with and of everything else it depends on."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


# --- tensors whose damage is seen -----------------------------------------------------------


def write_checked(path: Path, tensors: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Writes tensors, then their JSON (kind "state") with the hash of the first file."""
    artifacts.sidecar_path(path).unlink(missing_ok=True)
    artifacts.write_arrays(path, tensors)
    head = {"kind": "state", "schema_version": artifacts.SCHEMA_VERSION}
    shapes = {name: list(value.shape) for name, value in tensors.items()}  # 0-d ones are stored 1-d
    whole = {**head, **content, "shapes": shapes, "sha256": artifacts.sha256(path)}
    artifacts.write_json(artifacts.sidecar_path(path), whole)


def read_checked(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_checked` wrote: tensors on the CPU, and its JSON.

    Raises:
        NsvitError: missing or damaged, in any bit.
    """
    import torch

    content = artifacts.read_json(artifacts.sidecar_path(path))
    artifacts.check_kind(content, "state", path)
    if not path.is_file() or artifacts.sha256(path) != content.get("sha256"):
        raise NsvitError(f"{path}: damaged")
    arrays, _ = artifacts.read_tensors(path, "state")
    shapes = content["shapes"]
    tensors = {
        name: torch.from_numpy(array).reshape(shapes[name]) for name, array in arrays.items()
    }
    return tensors, content


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state (moments and step counts), by `<index>.<name>`."""
    states = optimizer.state_dict()["state"].items()
    return {f"{index}.{name}": value for index, own in states for name, value in own.items()}


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts `optimizer_tensors` back; learning rates are left as they are."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        states.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors with a prefix to their names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that `prefixed` named so, by their own names."""
    start = f"{prefix}."
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}


def size_of(tensors: Mapping[str, Tensor] | Iterable[Tensor]) -> int:
    """Bytes."""
    values = tensors.values() if isinstance(tensors, Mapping) else tensors
    return sum(value.numel() * value.element_size() for value in values)
