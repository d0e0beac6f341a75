"""The console script: exit codes, and what is done before a process ends without teardown."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

RUN = "from nsvit import cli, program\n"


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN + code], capture_output=True, text=True)


def test_the_console_script_is_this_one():
    (script,) = entry_points(group="console_scripts", name="nsvit")
    assert script.value == "nsvit.program:run"


@pytest.mark.parametrize("code", [0, 1, 130])
def test_the_exit_code_is_the_verbs(code):
    assert ended(f"cli.main = lambda: {code}\nprogram.run()").returncode == code


def test_what_waits_to_be_written_and_done_is(tmp_path):
    file = tmp_path / "done"
    text = (
        "import atexit, pathlib\n"
        f"atexit.register(pathlib.Path({str(file)!r}).touch)\n"
        "cli.main = lambda: print('out', end='') or 3\n"
        "program.run()"
    )
    found = ended(text)
    assert (found.returncode, found.stdout, file.exists()) == (3, "out", True)


def test_threads_are_waited_for():
    text = (
        "import threading, time\n"
        "work = lambda: (time.sleep(0.3), print('done'))\n"
        "cli.main = lambda: threading.Thread(target=work).start() or 0\n"
        "program.run()"
    )
    assert ended(text).stdout == "done\n"


def test_errors_of_the_command_line_keep_their_code():
    command = [sys.executable, "-m", "nsvit.program", "no-such-verb"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2 and "no-such-verb" in found.stderr


def test_modules_are_not_taken_apart():
    """The point of it: an object that a module keeps is not deleted at the end."""
    text = (
        "class Kept:\n    def __del__(self): print('taken apart')\n"
        "kept = Kept()\ncli.main = lambda: 0\n"
    )
    assert ended(text + "program.run()").stdout == ""
    assert ended(text).stdout == "taken apart\n"
