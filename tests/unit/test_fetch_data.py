"""Fetching sets, from a server on this machine that misbehaves as told."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nsvit import cli
from nsvit.data import download as downloads
from nsvit.data import fetch as fetching
from nsvit.data.published import PUBLISHED, Archive, Published
from nsvit.errors import NsvitError

HALF, THIRD = 9 * downloads.BLOCK, 6 * downloads.BLOCK
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files`; `ranges`, `cuts`, `statuses` and `lengths` say how badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.lengths = True
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.statuses: list[int] = []  # of the next answers
        self.asked: list[str | None] = []  # the Range header of every request

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        content = server.files.get(self.path.lstrip("/"))
        status = server.statuses.pop(0) if server.statuses else 200 if content else 404
        if status >= 400:
            self.send_error(status)
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            stated = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", stated)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start : start + stop])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy between the test and its server; room on the disk does not matter."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(fetching, "SPARE", 10**6)


def archive(server: Server, content: bytes = CONTENT, name: str = "set.tar", **more) -> Archive:
    server.files[name] = content
    own = {"size": len(content), "checksum": f"md5:{hashlib.md5(content).hexdigest()}", **more}
    return Archive(name, server.url(name), **own)


def get(one: Archive, folder: Path, attempts: int = 3) -> Path:
    return downloads.download(one, folder, waits=[0.0] * attempts)


# --- downloading ----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_arrives_whole_and_is_not_asked_for_again(algorithm, server, tmp_path):
    checksum = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    one = archive(server, checksum=checksum)
    assert get(one, tmp_path / "d") == tmp_path / "d/set.tar"
    assert get(one, tmp_path / "d").read_bytes() == CONTENT
    assert server.asked == [None]
    assert os.listdir(tmp_path / "d") == ["set.tar"]


def test_a_cut_connection_is_continued_where_it_broke(server, tmp_path):
    server.cuts = [THIRD, HALF - THIRD]
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={THIRD}-", f"bytes={HALF}-"]


def test_a_download_is_continued_by_the_next_call(server, tmp_path):
    server.cuts = [THIRD + 5, 0]  # of a block that is cut off, nothing is kept
    with pytest.raises(
        NsvitError, match=f"{THIRD:,} bytes have arrived and are kept.*run it again"
    ):
        get(archive(server), tmp_path, attempts=1)
    assert (tmp_path / "set.tar.part").read_bytes() == CONTENT[:THIRD]
    server.asked.clear()
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={THIRD}-"]
    assert os.listdir(tmp_path) == ["set.tar"]


def test_attempts_count_only_while_nothing_arrives(server, tmp_path):
    server.cuts = [3 * downloads.BLOCK] * 5
    assert get(archive(server), tmp_path, attempts=1).read_bytes() == CONTENT
    assert len(server.asked) == 6


def test_a_server_that_cannot_continue_sends_all_again(server, tmp_path):
    server.ranges, server.cuts = False, [THIRD]
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={THIRD}-"]


def test_a_server_that_does_not_say_how_much_it_sends(server, tmp_path):
    server.lengths, server.cuts = False, [THIRD]
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={THIRD}-"]


def test_a_whole_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT)
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(CONTENT + b"more")
    assert get(archive(server), tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_lost_file_is_not(server, tmp_path):
    server.statuses = [503, 429]
    assert get(archive(server), tmp_path).read_bytes() == CONTENT
    one = archive(server, name="other.tar")
    server.files.clear()
    server.asked.clear()
    with pytest.raises(NsvitError, match="other.tar.*404.*may have moved"):
        get(one, tmp_path)
    assert len(server.asked) == 1


def test_a_wrong_checksum_is_refused_and_deleted(server, tmp_path):
    one = archive(server)
    server.files["set.tar"] = CONTENT[:-1] + b"?"
    with pytest.raises(NsvitError, match="set.tar: not the published file.*does not match"):
        get(one, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_part_of_another_file_is_found_out(server, tmp_path):
    (tmp_path / "set.tar.part").write_bytes(b"?" * 1000)
    with pytest.raises(NsvitError, match="not the published file"):
        get(archive(server), tmp_path)
    assert get(archive(server), tmp_path).read_bytes() == CONTENT


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    with pytest.raises(NsvitError, match="300,000 bytes there, 299,999 were published"):
        get(archive(server, size=299_999), tmp_path)
    assert get(archive(server, size=1, exact=False), tmp_path).read_bytes() == CONTENT


def test_a_file_that_was_put_there_by_hand_is_verified(server, tmp_path):
    one = archive(server)
    (tmp_path / "set.tar").write_bytes(CONTENT)
    assert get(one, tmp_path).read_bytes() == CONTENT and server.asked == []
    (tmp_path / "set.tar").write_bytes(b"half")
    assert get(one, tmp_path).read_bytes() == CONTENT and server.asked == [None]


def test_no_network_says_what_to_do(tmp_path):
    with Server() as gone:
        one = archive(gone)  # a port that nobody listens to any more
    with pytest.raises(NsvitError, match=r"ConnectionError.*by other means to .*/set\.tar$"):
        get(one, tmp_path, attempts=1)


def test_a_full_disk_is_named(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads._Meter, "add", full)
    with pytest.raises(NsvitError, match="the disk is full"):
        get(archive(server), tmp_path)


def test_progress_has_share_rate_and_time_left(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(downloads, "REPORT_EVERY", 0.0)
    monkeypatch.setattr(downloads, "BLOCK", 100_000)
    with caplog.at_level(logging.INFO):
        get(archive(server, name="some.tar"), tmp_path)
    assert "some.tar: 0 MB of 0 (33 %), " in caplog.text
    meter = downloads._Meter("a.tar", have=10**9, whole=5 * 10**9)
    meter.have, meter.began = 2 * 10**9, 100.0
    assert meter.line(200.0) == "a.tar: 2,000 MB of 5,000 (40 %), 10.0 MB/s, 5 min left"


# --- whole sets -----------------------------------------------------------------------------


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return out.getvalue()


def published(*archives: Archive, how: str = "") -> Published:
    return Published("Set", 2, 2, None, "somewhere", 1, "free", archives, how)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


FOLDERS = {"inner/README.txt": b"r", "inner/n01/a.JPEG": b"a", "inner/n02/b.JPEG": b"b"}


@pytest.mark.parametrize("around", ["inner/", "outer/inner/", "./inner/", ""])
def test_a_set_is_unpacked_under_its_own_name(around, server, tmp_path):
    content = {name.replace("inner/", around): data for name, data in FOLDERS.items()}
    own = published(archive(server, tar(content)))
    assert fetching.fetch(own, tmp_path, "sets/mine", get=get)
    found = {name for name in files(tmp_path) if not name.startswith("sets/mine/.")}
    assert found == {f"sets/mine/{name[6:]}" for name in FOLDERS}
    assert os.listdir(tmp_path) == ["sets"] and os.listdir(tmp_path / "sets") == ["mine"]


def test_the_second_call_does_nothing(server, tmp_path):
    own = published(archive(server, tar(FOLDERS)))
    assert fetching.fetch(own, tmp_path, "mine", get=get)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)}
    assert not fetching.fetch(own, tmp_path, "mine", get=get)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files(tmp_path)} == before
    assert len(server.asked) == 1


def test_pictures_that_are_there_are_never_touched(server, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/own.png").write_bytes(b"precious")
    assert not fetching.fetch(published(archive(server)), tmp_path, "mine", get=get)
    assert files(tmp_path) == {"mine/own.png"} and server.asked == []


def test_an_interrupted_unpacking_leaves_nothing_and_is_done_again(server, tmp_path, monkeypatch):
    own = published(archive(server, tar(FOLDERS)))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fetching.fetch(own, tmp_path, "mine", get=get)
    assert files(tmp_path) == {".downloads/set.tar", ".downloads/.lock"}
    # As after kill -9: half a tree under the temporary name.
    (tmp_path / ".mine.set.tar.partial/inner/n01").mkdir(parents=True)
    (tmp_path / ".mine.set.tar.partial/inner/n01/half.JPEG").write_bytes(b"h")
    assert fetching.fetch(own, tmp_path, "mine", get=get)
    assert len(server.asked) == 1  # the archive was there, and whole
    assert files(tmp_path / "mine") == {"README.txt", "n01/a.JPEG", "n02/b.JPEG", ".set.tar.json"}
    assert os.listdir(tmp_path) == ["mine"]


def corrupted(server: Server) -> Published:
    one = {"fog/1/n01/a.JPEG": b"f", "snow/1/n01/a.JPEG": b"s"}
    two = {"digital/contrast/1/n01/a.JPEG": b"c"}  # with a folder around them
    return published(
        archive(server, tar(one), "weather.tar", parts=("fog", "snow")),
        archive(server, tar(two), "digital.tar", parts=("contrast",)),
    )


def test_several_archives_make_one_set_and_only_missing_ones_are_fetched(server, tmp_path):
    own = corrupted(server)
    assert fetching.fetch(own, tmp_path, "c", get=get)
    names = {"fog/1/n01/a.JPEG", "snow/1/n01/a.JPEG", "contrast/1/n01/a.JPEG"}
    assert files(tmp_path / "c") == names | {".weather.tar.json", ".digital.tar.json"}
    shutil.rmtree(tmp_path / "c/snow")
    (tmp_path / "c/fog/1/n01/a.JPEG").write_bytes(b"mine")
    server.asked.clear()
    assert fetching.fetch(own, tmp_path, "c", get=get)
    assert len(server.asked) == 1
    assert (tmp_path / "c/snow/1/n01/a.JPEG").read_bytes() == b"s"
    assert (tmp_path / "c/fog/1/n01/a.JPEG").read_bytes() == b"mine"


def test_an_archive_without_its_folders_is_refused(server, tmp_path):
    content = tar({"fog/1/n01/a.JPEG": b"f"})
    own = published(archive(server, content, "w.tar", parts=("fog", "snow")))
    with pytest.raises(NsvitError, match="w.tar: does not hold the folders fog, snow"):
        fetching.fetch(own, tmp_path, "c", get=get)
    empty = published(archive(server, tar({"only.txt": b"f"}), "e.tar"))
    with pytest.raises(NsvitError, match="e.tar: does not hold the folders of classes"):
        fetching.fetch(empty, tmp_path, "e", get=get)
    assert set(os.listdir(tmp_path)) == {".downloads"}


def test_a_hostile_archive_leaves_no_set(server, tmp_path):
    own = published(archive(server, tar({**FOLDERS, "../evil": b"e"})))
    with pytest.raises(NsvitError, match="outside"):
        fetching.fetch(own, tmp_path / "root", "mine", get=get)
    assert files(tmp_path) == {"root/.downloads/set.tar", "root/.downloads/.lock"}


def test_a_disk_that_fills_while_unpacking_keeps_the_archive(server, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nsvit.data.archives._copy", full)
    own = published(archive(server, tar(FOLDERS)))
    with pytest.raises(NsvitError, match="mine: the disk is full; what arrived is kept"):
        fetching.fetch(own, tmp_path, "mine", get=get)
    assert files(tmp_path) == {".downloads/set.tar", ".downloads/.lock"}


def test_archives_can_be_kept(server, tmp_path):
    own = published(archive(server, tar(FOLDERS)))
    fetching.fetch(own, tmp_path, "mine", keep_archives=True, get=get)
    assert (tmp_path / ".downloads/set.tar").is_file()


def test_too_little_room_is_refused_before_the_download(server, tmp_path, monkeypatch):
    own = published(archive(server, size=20 * 10**9, exact=False))
    monkeypatch.setattr(fetching, "free_bytes", lambda _: 39 * 10**9)
    with pytest.raises(NsvitError, match=r"takes 40\.0 GB.*39\.0 GB are free"):
        fetching.fetch(own, tmp_path, "mine", get=get)
    assert server.asked == [] and os.listdir(tmp_path) == []


def test_two_at_once_are_refused(server, tmp_path):
    own = published(archive(server, tar(FOLDERS)))

    def meanwhile(one: Archive, folder: Path) -> Path:
        with pytest.raises(NsvitError, match="another nsvit fetch-data is at work"):
            fetching.fetch(own, tmp_path, "mine", get=get)
        return get(one, folder)

    assert fetching.fetch(own, tmp_path, "mine", get=meanwhile)


def test_a_set_without_an_archive_is_explained(tmp_path):
    with pytest.raises(NsvitError, match=r"By hand: accept the terms \(somewhere\)"):
        fetching.fetch(published(how="accept the terms"), tmp_path, "mine")


# --- the verb -------------------------------------------------------------------------------

CONFIG = """
experiment: own
data:
  root: {root}
  classes: imagenet-1k
  sets:
    train: {{path: train, published: imagenet-train}}
    val: {{path: val}}
    a: {{path: imagenet-a, published: imagenet-a, restrict: true}}
models:
  m: {{label: m, timm: vit_tiny_patch16_224, pretrained: false, mean: [0, 0, 0], std: [1, 1, 1]}}
arms: {{none: {{label: none, kind: none}}}}
evaluate: {{conditions: {{clean: {{label: Clean, set: val}}}}}}
"""


@pytest.fixture
def run(server, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    one = archive(server, tar({"imagenet-a/n01498041/a.jpg": b"a"}), "imagenet-a.tar")
    known = PUBLISHED["imagenet-a"]
    changed = Published(**{**vars(known), "archives": (one,)})
    monkeypatch.setitem(PUBLISHED, "imagenet-a", changed)
    (tmp_path / "own.yaml").write_text(CONFIG.format(root=tmp_path / "data"))

    def verb(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["fetch-data", "--config", str(tmp_path / "own.yaml"), *arguments])
        return code, *capsys.readouterr()

    return verb


def test_the_verb_fetches_what_it_can_and_explains_the_rest(run, tmp_path):
    code, out, _ = run("--dry-run")
    assert code == 0 and not (tmp_path / "data").exists()
    assert f"a  ImageNet-A, into {tmp_path / 'data/imagenet-a'}" in out and "688" not in out
    code, out, err = run()
    assert code == 0 and "ImageNet-A: complete" in err
    assert (tmp_path / "data/imagenet-a/n01498041/a.jpg").read_bytes() == b"a"
    assert "ILSVRC2012_img_train.tar" in out and "image-net.org" in out
    code, out, err = run("a")
    assert code == 0 and "there already" in err and out == ""


def test_the_verb_takes_a_second_file_on_top(run, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"data: {{root: {tmp_path / 'other'}}}")
    assert run("--config", str(other), "a")[0] == 0
    assert (tmp_path / "other/imagenet-a/n01498041/a.jpg").is_file()


@pytest.mark.parametrize("slug", ["val", "nowhere"])
def test_sets_that_are_not_published_are_refused(slug, run):
    code, _, err = run(slug)
    assert code == 1 and f"no '{slug}' with a key `published`, only train, a" in err


def test_the_documented_archives_are_complete():
    """Names, bytes and checksums as in the project's table of facts."""
    every = [a for own in PUBLISHED.values() for a in own.archives]
    assert len({a.url for a in every}) == len(every) == 8
    for one in every:
        algorithm, digits = one.checksum.split(":")
        assert len(digits) == {"md5": 32, "sha256": 64}[algorithm] and int(digits, 16)
        assert one.url.startswith("https://") and one.url.endswith(f"/{one.file}")
    assert sum(a.size for a in every if a.exact) == 687552512 + 2191079936 + 1264079360 + 7593573012
    assert all(own.archives or own.how for own in PUBLISHED.values())
