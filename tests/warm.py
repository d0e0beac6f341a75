"""`nsvit` for workflow tests without its start: one warm process forks itself for every job.

Importing torch and timm takes seconds, and every job does it. Here a server imports them once; in
its place in the PATH a small client named `nsvit` hands it arguments, folder, environment and file
descriptors, and leaves with the exit code. What runs is the command line itself, in a process of
its own.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLIENT = """\
#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
job = json.dumps({{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
socket.send_fds(server, [len(job).to_bytes(4, "big")], [0, 1, 2])
server.sendall(job)
code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


@contextmanager
def warm_nsvit(folder: Path) -> Iterator[Path]:
    """A folder with the client, to put in front of the PATH; the server lives inside the block."""
    address = folder / "nsvit.socket"
    client = folder / "bin" / "nsvit"
    client.parent.mkdir()
    client.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    root = Path(__file__).parents[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", str(address)],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        yield client.parent
    finally:
        server.terminate()
        server.wait(10)


def _serve(address: str) -> None:
    import accelerate  # noqa: F401
    import matplotlib.pyplot  # noqa: F401

    import nsvit.finetuning
    import nsvit.matrix
    import nsvit.report  # noqa: F401

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    listening.settimeout(2)
    parent = os.getppid()
    while os.getppid() == parent:  # a killed test leaves no server behind
        try:
            job, _ = listening.accept()
        except TimeoutError:
            continue
        job.setblocking(True)
        if os.fork() == 0:
            listening.close()
            _run(job)
        job.close()
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _run(job: socket.socket) -> None:
    size, descriptors, _, _ = socket.recv_fds(job, 4, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += job.recv(1 << 16)
    wanted = json.loads(text)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    from nsvit import cli

    code = 1
    try:
        code = cli.main(wanted["argv"])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # A job that is killed sends nothing, which the client takes for a failure.
        job.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
