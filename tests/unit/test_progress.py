"""What a job says of itself on the way: lines, signs of life, and how it ended."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nsvit import progress, runtime
from nsvit.errors import NsvitError

SCRIPT = """
import sys, time
from nsvit import progress, runtime
from nsvit.errors import NsvitError
runtime.setup_logging()
with progress.alive():
    for number in range(1, 3):
        runtime.stage(f"round {number} of 2", number - 1, 2)
        loop = runtime.progress(range(8), "noise")
        for step in loop:
            loop.note(distance=0.5 - 0.01 * step)
            time.sleep(0.05)
    if sys.argv[1] == "fails":
        raise NsvitError("no such thing")
    if sys.argv[1] == "dies":
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def run(tmp_path: Path, how: str, **environment: str) -> str:
    log = tmp_path / "job.log"
    with log.open("w") as file:
        env = {**os.environ, "NSVIT_PROGRESS_SECONDS": "0.1", **environment}
        subprocess.run([sys.executable, "-c", SCRIPT, how], stderr=file, env=env, check=False)
    return log.read_text()


def test_a_log_gets_lines_with_step_rate_time_left_and_error(tmp_path):
    text = run(tmp_path, "ends", SLURM_JOB_ID="17")
    lines = [line.split(": ", 1)[1] for line in text.splitlines()]
    assert re.fullmatch(r"started on \S+, process \d+, SLURM job 17", lines[0])
    pattern = (
        r"round [12] of 2: noise: \d of 8(, [\d.]+ a (second|minute), \d+ s left)?; "
        r"distance 0\.\d+(; \d+ s left in all)?"
    )
    assert len(lines[1:-1]) >= 3
    assert all(re.fullmatch(pattern, line) for line in lines[1:-1]), lines
    assert any("left in all" in line for line in lines[1:-1])
    assert re.fullmatch(r"finished in \d+ s", lines[-1])


def test_a_log_ends_with_how_the_job_ended(tmp_path):
    failed = run(tmp_path, "fails").splitlines()
    assert failed[-1].endswith("NsvitError: no such thing")
    assert any(re.search(r" ERROR nsvit: failed after \d+ s$", line) for line in failed)
    assert not re.search(r"finished in|failed after", run(tmp_path, "dies"))


def test_only_the_first_process_of_a_job_writes_lines(tmp_path):
    assert run(tmp_path, "ends", RANK="1", WORLD_SIZE="2") == ""


def test_of_processes_that_a_verb_started_it_says_itself_how_they_ended(tmp_path):
    """Else a log would begin and end twice, or not at all where the first process was killed."""
    several = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert re.search(r"started on[^\0]*finished in", run(tmp_path, "ends", **several))
    text = run(tmp_path, "ends", **several, NSVIT_LAUNCHED="1")
    assert "noise: " in text and not re.search(r"started on|finished in", text)


def test_a_long_step_keeps_the_log_fresh(tmp_path, monkeypatch):
    """The thread touches the file even where nothing loops and nothing is written."""
    log = tmp_path / "job.log"
    log.write_text("")
    os.utime(log, (1, 1))
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.02)
    with log.open("a") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with progress.alive():
            for _ in range(200):
                if log.stat().st_mtime > 1:
                    break
                time.sleep(0.02)
    assert log.stat().st_mtime == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("text", ["0", "often"])
def test_no_number_of_seconds_is_refused(monkeypatch, caplog, text):
    """Not found out by the thread alone: without it a job would look like a killed one."""
    monkeypatch.setenv("NSVIT_PROGRESS_SECONDS", text)
    wanted = pytest.raises(NsvitError, match=f"NSVIT_PROGRESS_SECONDS={text}: expected a number")
    with wanted, progress.alive():
        pytest.fail("begun")
    assert "failed after" in caplog.text


def test_loops_are_iterables_that_leave_nothing_behind():
    progress.stage("")
    seen = []
    for outer in runtime.progress("abc", "letters"):
        for inner in runtime.progress(iter(range(5)), "numbers"):
            assert progress.current_line().startswith("numbers: ")
            if inner == 2:
                break
            seen.append((outer, inner))
        assert "letters: " in progress.current_line()
    assert seen == [(letter, number) for letter in "abc" for number in (0, 1)]
    assert progress.current_line() is None
    assert list(runtime.progress([], "nothing")) == []


def test_an_error_in_a_loop_ends_it_too():
    with pytest.raises(ZeroDivisionError):
        for number in runtime.progress([0], "numbers"):
            number / number
    assert progress.current_line() is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (750, "12 min 30 s"), (11_100, "3 h 5 min")]
    + [(187_200, "2 d 4 h")],
)
def test_durations(seconds, words):
    assert progress.duration(seconds) == words


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(12.34, "12.3 a second"), (0.5, "30 a minute"), (0.01, "36 an hour")],
)
def test_rates(per_second, words):
    assert progress.rate(per_second) == words
