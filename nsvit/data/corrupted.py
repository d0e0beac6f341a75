"""Corrupted pictures made from a set of one's own, in the layout and format of ImageNet-C.

For people who have clean pictures and no ImageNet-C. The pictures are written once, because most
corruptions take longer than a model's pass over them, and every run looks at the same ones. No
torch.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path, PurePosixPath

from PIL import Image

from nsvit import artifacts
from nsvit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from nsvit.data.layouts import ImageSet, open_set
from nsvit.data.menagerie.write import complete_folder
from nsvit.data.pictures import evaluation_picture
from nsvit.errors import NsvitError
from nsvit.runtime import progress, seed_for
from nsvit.specs import CorruptSpec

#: Quality of the JPEG files, as of the published archive.
QUALITY = 85
#: Pictures handed to a process at a time.
CHUNK = 4


def corrupt_set(
    source: ImageSet, out: str | Path, images: int, seed: int, processes: int = 1
) -> int:
    """Writes every corruption at every severity of some pictures of a set.

    A picture is cut to size as it is evaluated, then corrupted, as ImageNet-C was made. What
    becomes of it depends on `seed`, its class folder and name, and on nothing else.

    Args:
        source: clean pictures in class folders.
        out: the folder `<corruption>/<severity>/<class>/<name>.JPEG`; it appears when it is
            complete, and is replaced only if it was made here.
        images: how many pictures, going round the classes; all of them if there are fewer.
        seed: of the corruptions that are random.
        processes: how many work at once; the result is the same for any number.

    Returns:
        The number of files.

    Raises:
        NsvitError: a picture cannot be decoded or is too small, or `out` holds other files.
    """
    chosen = source.take(images)
    names = list(chosen.frame["path"])
    if not names:
        raise NsvitError(f"set {source.name!r}: no pictures to corrupt")
    with complete_folder(Path(out)) as folder, _spread(processes) as pool:
        chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
        fixed = source.root, source.resize, source.crop, folder, seed
        arguments = chunks, *(repeat(value) for value in fixed)
        if pool is None:
            found: Iterator[int] = map(_corrupt_chunk, *arguments)
        else:
            found = pool.map(_corrupt_chunk, *arguments)
        return sum(progress(found, f"corrupt {source.name}", len(chunks)))


def _corrupt_chunk(
    names: list[str], root: Path, resize: int | None, crop: int | None, folder: Path, seed: int
) -> int:
    written = 0
    for name in names:
        picture = evaluation_picture(root / name, resize, crop)
        for corruption in CORRUPTIONS:
            for severity in SEVERITIES:
                own = seed_for(seed, "corrupt", name, corruption, severity)
                target = folder / corruption / str(severity) / _jpeg(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(corrupt(picture, corruption, severity, own))
                image.save(target, format="JPEG", quality=QUALITY)
                written += 1
    return written


def _jpeg(name: str) -> PurePosixPath:
    """The name of a picture as JPEG; two pictures never get the same."""
    path = PurePosixPath(name)
    is_jpeg = path.suffix.lower() in (".jpeg", ".jpg")
    return path if is_jpeg else path.with_name(f"{path.name}.JPEG")


@contextmanager
def _spread(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes to work in; none for one, which is this one."""
    if processes <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def write(
    spec: CorruptSpec, index: str | Path, root: str | Path, out: str | Path, processes: int = 1
) -> None:
    """The verb `corrupt`: the pictures below `root`, then the sidecar `out`.

    Raises:
        NsvitError: as `corrupt_set`.
    """
    source = open_set(index)
    files = corrupt_set(source, Path(root) / spec.path, spec.images, spec.seed, processes)
    sidecar = artifacts.provenance(
        "corrupted", spec.model_dump(mode="json"), [index], spec.seed, {"files": files}
    )
    artifacts.write_json(out, sidecar)
