"""Whatever is in an archive: nothing is written outside the target, no failure leaves anything."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nsvit.data.archives import unpack
from nsvit.errors import NsvitError

PARTS = st.sampled_from(["a", "b", "..", ".", "", "~", "C:", "\\", "a\\..\\b", "\x00", "ä", "/"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
)


def files(folder: Path) -> set[str]:
    """Files and links below a folder, links not followed."""
    found = set()
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        found |= {os.path.relpath(os.path.join(at, name), folder) for name in [*names, *links]}
    return found


def try_to_unpack(content: bytes) -> set[str]:
    """What an archive leaves below its target; fails if it leaves anything beside that."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "archive").write_bytes(content)
        try:
            unpack(folder / "archive", folder / "in/ner/target", 10_000)
        except NsvitError:
            assert not (folder / "in/ner/target").exists()
        left = files(folder) - {"archive"}
        assert all(path.startswith("in/ner/target/") for path in left)
        assert not any((folder / path).is_symlink() for path in left)
        return {path.removeprefix("in/ner/target/") for path in left}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, KINDS, NAMES), max_size=4))
@example([("l", tarfile.SYMTYPE, ".."), ("l/evil", tarfile.REGTYPE, "")])
@example([("a", tarfile.REGTYPE, ""), ("a/b", tarfile.REGTYPE, "")])
def test_tar_members_stay_inside(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name.replace("\x00", "") or "x")
            info.type, info.linkname = kind, link.replace("\x00", "")
            info.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"abc"))
    left = try_to_unpack(out.getvalue())
    plain = {
        str(PurePosixPath(n.replace("\x00", ""))) for n, k, _ in members if k == tarfile.REGTYPE
    }
    assert left <= plain | {"x"}


@settings(max_examples=40, deadline=None)
@given(st.lists(NAMES, max_size=4, unique=True))
def test_zip_members_stay_inside(names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name or "x"), b"abc")
    try_to_unpack(out.getvalue())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 255), st.booleans())
def test_flipped_bits_do_no_harm(position, mask, zipped):
    out = io.BytesIO()
    if zipped:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("set/n01/a.JPEG", b"abc" * 50)
    else:
        with tarfile.open(fileobj=out, mode="w") as archive:
            info = tarfile.TarInfo("set/n01/a.JPEG")
            info.size = 600
            archive.addfile(info, io.BytesIO(b"abc" * 200))
    content = bytearray(out.getvalue())
    content[position % len(content)] ^= mask
    try_to_unpack(bytes(content))
