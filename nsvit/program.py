"""The console script `nsvit`: a verb in a process of its own, ended without being taken apart."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import NoReturn

#: New objects after which Python looks for garbage, where it has 700. What imports make stays;
#: looking through it again and again took a tenth of the start.
_COLLECT_AFTER = 100_000


def run() -> NoReturn:
    """Runs the verb that the command line names; the exit code is `cli.main`'s.

    What is registered for the end is done and output is written out, but modules are not taken
    apart: of torch that takes a second, in each of some seventy jobs, and frees what ends anyway.
    """
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    from nsvit.cli import main

    code = main()
    if _others():
        sys.exit(code)  # Python waits for them
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _others() -> bool:
    """Whether there are threads that Python would wait for."""
    here = threading.current_thread()
    return any(one is not here and not one.daemon for one in threading.enumerate())


if __name__ == "__main__":
    run()
