"""The embedded benchmark on disk, in the folder layouts of ImageNet and its siblings."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from nsvit import artifacts
from nsvit.config import local_dir
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from nsvit.data.menagerie.classes import SUBJECTS
from nsvit.data.menagerie.render import KINDS, label, picture
from nsvit.errors import NsvitError
from nsvit.runtime import progress, seed_for
from nsvit.specs import RenderSpec

log = logging.getLogger(__name__)

Picture = npt.NDArray[np.uint8]
Job = TypeVar("Job")
Result = TypeVar("Result")

MARKER = ".nsvit"  # in every folder drawn here
CHUNK = 250  # pictures handed to a process at a time
CORRUPTED_CHUNK = 5
COMPRESSION = 1  # of PNG files: larger, but written three times as fast


def write_classes(path: str | Path) -> None:
    """Writes the classes file: a line `wnid<TAB>name` for each class, in class order."""
    lines = [f"{subject.wnid}\t{subject.name}\n" for subject in SUBJECTS]
    artifacts.write_text(path, "".join(lines))


def render_set(
    spec: RenderSpec,
    out: str | Path,
    *,
    processes: int = 1,
    val_dir: str | Path | None = None,
    reference: Any = None,
) -> dict[str, Any]:
    """Draws one set of the benchmark into the folder `out`.

    The result does not depend on the number of processes. The folder appears when it is
    complete, so an interrupted call leaves nothing half done.

    Args:
        spec: which set, how many pictures, which seed.
        out: the set's folder; replaced if it is there.
        processes: how many draw at once.
        val_dir: the rendered val set, from which set c is made.
        reference: the model (pixels in, logits out) whose mistakes make set a; by default the
            spec's reference CNN.

    Returns:
        What was made: number of files, and for set a the number of candidates looked at.

    Raises:
        NsvitError: there is no such set, too few pictures for the classes, too few val pictures,
            or the reference is right too often.
    """
    kind, count = spec.kind, spec.count
    _check(spec)
    with complete_folder(Path(out)) as folder, _pool(processes) as run:
        if kind == "c":
            return _write_corrupted(spec, folder, val_dir, count, run)
        if kind == "a":
            return _write_mistakes(spec, folder, reference, count, run)
        seed, size = spec.seed, spec.size
        jobs = [
            (seed, kind, size, start, min(start + CHUNK, count), folder)
            for start in range(0, count, CHUNK)
        ]
        written = sum(progress(run(_write_chunk, jobs), f"render {kind}", len(jobs)))
        return {"files": written}


def _check(spec: RenderSpec) -> None:
    known = {*KINDS, "c"}
    if spec.kind not in known:
        raise NsvitError(f"set {spec.kind!r}: Menagerie has only {', '.join(sorted(known))}")
    if spec.count < len(SUBJECTS) and spec.kind != "a":
        raise NsvitError(
            f"data.menagerie.counts.{spec.kind} is {spec.count}: at least one picture for each of "
            f"the {len(SUBJECTS)} classes is needed"
        )


# --- plumbing -------------------------------------------------------------------------------


@contextmanager
def complete_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name when the block succeeds.

    Raises:
        NsvitError: `out` is there and was not made here: real pictures are never replaced.
    """
    if out.exists() and not (out / MARKER).exists():
        raise NsvitError(
            f"{out} is there and was not drawn by nsvit; it is not replaced. Choose another "
            "data.root, or leave data.menagerie out to read the pictures that are there"
        )
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        (partial / MARKER).write_text("drawn by nsvit render; replaced when it is drawn again\n")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


Run = Callable[[Callable[[Job], Result], list[Job]], Iterable[Result]]


@contextmanager
def _pool(processes: int) -> Iterator[Run]:
    """`map`, in this process or spread over several; results in the order of the jobs."""
    if processes <= 1:
        yield lambda work, jobs: map(work, jobs)
        return
    # Not forked: the caller may have torch and its threads loaded.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            yield pool.map
        finally:
            # Interrupted, or enough mistakes found: what has not begun is not wanted.
            pool.shutdown(cancel_futures=True)


def save(image: Picture, path: Path) -> None:
    """Writes 8-bit pixels (H, W, 3) as PNG; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=COMPRESSION)


def picture_path(kind: str, index: int) -> Path:
    """Where the picture at an index lies inside its set's folder."""
    number = label(index)
    if kind == "v2":
        return Path(str(number)) / f"{index:05d}.png"
    wnid = SUBJECTS[number].wnid
    return Path(wnid) / f"{wnid}_{index:05d}.png"


def first_of_val(val_dir: str | Path, count: int, kind: str) -> list[Path]:
    """Paths, inside its folder, of the first pictures of val, from which set `kind` is made.

    Raises:
        NsvitError: there are fewer.
    """
    paths = [picture_path("val", index) for index in range(count)]
    missing = [path for path in paths if not (Path(val_dir) / path).is_file()]
    if missing:
        raise NsvitError(
            f"{Path(val_dir) / missing[0]}: no such picture, but set {kind} needs the first "
            f"{count} of val; lower data.menagerie.counts.{kind} or render val again"
        )
    return paths


# --- drawn sets -----------------------------------------------------------------------------


def _write_chunk(job: tuple[int, str, int, int, int, Path]) -> int:
    seed, kind, size, start, stop, folder = job
    for index in range(start, stop):
        save(picture(seed, kind, index, size), folder / picture_path(kind, index))
    return stop - start


def _draw_chunk(job: tuple[int, str, int, int, int]) -> Picture:
    seed, kind, size, start, stop = job
    return np.stack([picture(seed, kind, index, size) for index in range(start, stop)])


# --- set a ----------------------------------------------------------------------------------


def _write_mistakes(
    spec: RenderSpec, folder: Path, reference: Any, count: int, run: Run[Any, Any]
) -> dict[str, Any]:
    """Keeps, in the order they are drawn, candidates that the reference model gets wrong."""
    candidates = spec.candidates or 0
    if reference is None:
        from nsvit.models import load_model

        reference = load_model(spec.reference_cnn or "")
    jobs = [
        (spec.seed, "a", spec.size, start, min(start + CHUNK, candidates))
        for start in range(0, candidates, CHUNK)
    ]
    kept = seen = 0
    for chunk in progress(run(_draw_chunk, jobs), "render a", len(jobs)):
        wrong = np.flatnonzero(_mistakes(reference, chunk, seen))[: count - kept]
        for position in wrong:
            save(chunk[position], folder / picture_path("a", seen + int(position)))
        kept, seen = kept + len(wrong), seen + len(chunk)
        if kept == count:
            break
    if kept < count:
        raise NsvitError(
            f"set a: the reference model {spec.reference_cnn!r} got only {kept} of "
            f"{candidates} candidates wrong, {count} are wanted; raise "
            "data.menagerie.a_candidates or lower data.menagerie.counts.a"
        )
    return {"files": kept, "candidates": seen}


def _mistakes(reference: Any, images: Picture, first: int) -> npt.NDArray[np.bool_]:
    """Which pictures (n, H, W, 3) of candidates `first`, `first` + 1, ... are misclassified."""
    import torch

    from nsvit.models import frozen

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with frozen(reference), torch.inference_mode():
        predictions = reference(pixels).argmax(dim=1).numpy()
    return predictions != np.array([label(first + i) for i in range(len(images))])


# --- set c ----------------------------------------------------------------------------------


def _write_corrupted(
    spec: RenderSpec, folder: Path, val_dir: str | Path | None, count: int, run: Run[Any, Any]
) -> dict[str, Any]:
    """Every corruption at every severity of the first pictures of val, class by class in turn."""
    if val_dir is None:
        raise NsvitError("set c is made from the rendered val set: say where it is (val_dir)")
    paths = first_of_val(val_dir, count, "c")
    jobs = [
        (spec.seed, Path(val_dir), paths[start : start + CORRUPTED_CHUNK], folder)
        for start in range(0, count, CORRUPTED_CHUNK)
    ]
    written = sum(progress(run(_write_corrupted_chunk, jobs), "render c", len(jobs)))
    return {"files": written}


def _write_corrupted_chunk(job: tuple[int, Path, list[Path], Path]) -> int:
    seed, val_dir, paths, folder = job
    for path in paths:
        image = np.asarray(Image.open(val_dir / path).convert("RGB"))
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                own = seed_for(seed, "c", path.name, name, severity)
                target = folder / name / str(severity) / path
                save(corrupt(image, name, severity, own), target)
    return len(paths) * len(CORRUPTIONS) * len(SEVERITIES)


def render_to(
    spec: RenderSpec,
    root: str | Path,
    classes: str | Path,
    out: str | Path,
    *,
    processes: int = 1,
) -> None:
    """Draws one set below `root`, writes the classes file, and last the sidecar `out`.

    Raises:
        NsvitError: as `render_set`.
    """
    write_classes(classes)
    val_dir = None if spec.val_path is None else Path(root) / spec.val_path
    metrics = render_set(spec, Path(root) / spec.path, processes=processes, val_dir=val_dir)
    inputs: list[Path] = []
    reference = local_dir(spec.reference_cnn or "")
    if reference is not None:
        inputs = [reference / "config.json", reference / "model.safetensors"]
    sidecar = artifacts.provenance(
        "rendered", spec.model_dump(mode="json"), inputs, seed=spec.seed, metrics=metrics
    )
    artifacts.write_json(out, sidecar)
