"""Signals that wait for a point, and one process at a time for one output."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nsvit import cli, locks, stopping


def test_a_signal_waits_for_the_next_point() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Stopped, match="SIGTERM") as caught, stopping.deferred():
        stopping.point()
        signal.raise_signal(signal.SIGTERM)
        done = True
        stopping.point()
    assert done and caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    with stopping.deferred():
        stopping.point()
        signal.raise_signal(signal.SIGINT)  # the work ends before it comes to a point
    stopping.point()
    with pytest.raises(KeyboardInterrupt), stopping.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_several_processes_stop_at_the_same_point() -> None:
    asked = []

    def any_was(own: bool) -> bool:
        asked.append(own)
        return len(asked) == 3

    with stopping.together(any_was):
        stopping.point()
        stopping.own_point()
        stopping.point()
        with pytest.raises(stopping.Stopped):
            stopping.point()
    assert asked == [False] * 3
    stopping.point()


def test_in_another_thread_nothing_changes() -> None:
    def work() -> None:
        with stopping.deferred():
            stopping.at_once()
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_stopped_verb_says_so_and_does_not_end_with_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "a" / "history.json"

    def verb(args: object) -> None:
        """A verb."""
        assert (out.parent / ".history.json.lock").read_text().startswith(f"process {os.getpid()}")
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.setattr(cli, "RULE_VERBS", {verb: ()})
    monkeypatch.setattr(cli, "SPECLESS", {verb})
    monkeypatch.setattr(cli.runtime, "setup_logging", lambda verbose: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with caplog.at_level(logging.ERROR):
            assert cli.main(["verb", "--out", str(out)]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "stopped by SIGTERM" in caplog.text and "the same command goes on" in caplog.text
    assert not list(out.parent.iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from nsvit import locks
with locks.alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1]).write_text("first")
"""


@pytest.mark.parametrize("killed", [False, True])
def test_the_second_waits_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-c", HOLDER, str(out)]
    pipe = subprocess.PIPE
    first = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert first.stdin is not None and first.stdout is not None
    assert first.stdout.readline() == "held\n"
    (tmp_path / ".out.json.abcdefgh.json").write_text("half a file of a killed process")
    (tmp_path / ".other.json.abcdefgh.json").write_text("of another output")

    def let_go() -> None:
        until = time.monotonic() + 60
        while "waiting for process" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        waited.append(out.exists())
        first.kill() if killed else first.communicate("go on\n")

    waited: list[bool] = []
    thread = threading.Thread(target=let_go)
    thread.start()
    with locks.alone(out):
        assert waited == [False]
        assert out.exists() is not killed
    thread.join()
    first.wait()
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"out.json"} == {".other.json.abcdefgh.json"}
    assert str(first.pid) in caplog.text


def test_only_the_first_process_of_a_job_takes_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.json"
    with locks.alone(out):
        monkeypatch.setenv("RANK", "1")
        with locks.alone(out):
            pass


def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locks.alone(tmp_path / "out.json"):
        pass
    assert "no lock" in caplog.text
