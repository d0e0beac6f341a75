"""Archives from strangers: what is unpacked, and what stops everything."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from nsvit.data.archives import unpack
from nsvit.errors import NsvitError

LIMIT = 100_000
FILES = {"set/n01/a.JPEG": b"first", "set/n01/b c.JPEG": b"", "set/n02/ä.JPEG": b"x" * 70_000}


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **changes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "dot.tar", "zip"])
def test_files_come_out_as_they_went_in(kind, tmp_path):
    path = tmp_path / f"archive.{kind}"
    if kind == "zip":
        packed(path, FILES)
    elif kind == "dot.tar":  # as `tar c .` makes them
        tar(path, {f"./{name}": content for name, content in FILES.items()})
    else:
        tar(path, FILES, "w:gz" if kind == "tar.gz" else "w")
    assert unpack(path, tmp_path / "out", LIMIT) == 3
    assert tree(tmp_path / "out") == FILES


def test_modes_owners_and_hidden_files_are_not_taken_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "set", type=tarfile.DIRTYPE, mode=0)
        add(archive, "set/a.JPEG", b"x", mode=0o4777, uid=1234)
        add(archive, "set/._a.JPEG", b"x")
        add(archive, "__MACOSX/set/a.JPEG", b"x")
    assert unpack(tmp_path / "a.tar", tmp_path / "out", LIMIT) == 1
    assert tree(tmp_path / "out") == {"set/a.JPEG": b"x"}
    mode = (tmp_path / "out/set/a.JPEG").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_IXUSR)


HOSTILE = {
    "up": ({"name": "set/../../evil"}, "outside"),
    "absolute": ({"name": "/tmp/nsvit-evil"}, "absolute"),
    "drive": ({"name": "C:evil"}, "another system"),
    "backslash": ({"name": "..\\evil"}, "another system"),
    "control": ({"name": "set/a\nb"}, "no file can have"),
    "long": ({"name": "set/" + "a" * 300}, "no file can have"),
    "deep": ({"name": "a/" * 9 + "b"}, "folders deep"),
    "symlink": ({"name": "set/l", "type": tarfile.SYMTYPE, "linkname": "/etc"}, "a link"),
    "hardlink": ({"name": "set/l", "type": tarfile.LNKTYPE, "linkname": "set/a.JPEG"}, "a link"),
    "device": ({"name": "set/d", "type": tarfile.CHRTYPE, "devmajor": 1}, "a device"),
    "disk": ({"name": "set/d", "type": tarfile.BLKTYPE}, "a device"),
    "pipe": ({"name": "set/p", "type": tarfile.FIFOTYPE}, "a device"),
    "twice": ({"name": "set/a.JPEG"}, "there twice"),
    "huge": ({"name": "set/h", "content": b"x" * (LIMIT + 1)}, "more than 100,000 bytes"),
}


@pytest.mark.parametrize("filtered", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_and_nothing_is_left(name, filtered, tmp_path, monkeypatch):
    """With the filter of Python's own, and by what is checked here alone (Python 3.11.0)."""
    if not filtered:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    member, reason = HOSTILE[name]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "set/a.JPEG", b"x")
        add(archive, **member)
    with pytest.raises(NsvitError, match=reason) as refused:
        unpack(tmp_path / "a.tar", tmp_path / "out", LIMIT)
    assert "a.tar" in str(refused.value) and "see where it came from" in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]
    assert not Path("/tmp/nsvit-evil").exists()


def test_a_sparse_member_of_petabytes_is_refused(tmp_path):
    """In GNU's sparse format a header of 512 bytes can stand for any number of zeros."""
    info = tarfile.TarInfo("set/huge")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = header[398:410] = b"%011o\0" % 0  # no data at offset 0
    header[483:495] = b"\x80" + (1 << 50).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getmembers()[0].size == 1 << 50
    with pytest.raises(NsvitError, match="sparse"):
        unpack(tmp_path / "a.tar", tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


def test_many_small_files_cannot_exceed_the_limit_together(tmp_path):
    path = tar(tmp_path / "a.tar", {f"set/{k}": b"x" * 30_000 for k in range(4)})
    with pytest.raises(NsvitError, match="set/3.*more than 100,000 bytes"):
        unpack(path, tmp_path / "out", LIMIT)
    assert unpack(path, tmp_path / "out", 120_000) == 4


def test_a_bomb_in_a_zip_is_refused_by_what_it_says(tmp_path):
    path = packed(tmp_path / "a.zip", {"set/zeros": bytes(50_000_000)})
    assert path.stat().st_size < LIMIT
    with pytest.raises(NsvitError, match="more than 100,000 bytes"):
        unpack(path, tmp_path / "out", LIMIT)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    path = packed(tmp_path / "a.zip", {"set/zeros": bytes(50_000)})
    content = path.read_bytes()
    true, false = (50_000).to_bytes(4, "little"), (5).to_bytes(4, "little")
    assert content.count(true) == 2  # the file's own header and the directory
    path.write_bytes(content.replace(true, false))
    with pytest.raises(NsvitError, match="damaged|larger than"):
        unpack(path, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/nsvit-evil", "a/../../evil"])
def test_a_hostile_zip_is_refused(name, tmp_path):
    path = packed(tmp_path / "a.zip", {"set/a": b"x", name: b"evil"})
    with pytest.raises(NsvitError, match="outside|absolute"):
        unpack(path, tmp_path / "out", LIMIT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_links_and_passwords_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("set/l")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(NsvitError, match="a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)
    path = packed(tmp_path / "b.zip", {"set/a": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(NsvitError, match="encrypted"):
        unpack(path, tmp_path / "out", LIMIT)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "text"])
def test_damaged_archives_are_refused(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    if kind == "text":
        path.write_text("<html>no longer here</html>")
    else:
        packed(path, FILES) if kind == "zip" else tar(path, FILES, "w:gz" if "gz" in kind else "w")
        whole = path.read_bytes()
        cut = whole.index(b"x" * 1000) + 2000 if kind == "tar" else len(whole) // 2
        path.write_bytes(whole[:cut])
    with pytest.raises(NsvitError, match=r"fetch\s+again"):
        unpack(path, tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_zip_is_noticed(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored: the bytes are there as they are
        archive.writestr("set/a", b"abcdefgh" * 100)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgi", 1))
    with pytest.raises(NsvitError, match="damaged"):
        unpack(path, tmp_path / "out", LIMIT)
