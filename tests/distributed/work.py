"""What each process of the tests does: verbs one after the other, as the command line would.

Started by `nsvit.launcher`; the first argument is a JSON list of command lines. A second one says
what happens to the last process then: "killed", or "frozen" as on a node that dies.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

from nsvit import cli, distributed, runtime
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)


def main() -> int:
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        code = cli.main(arguments)
        if code:
            return code
    if len(sys.argv) > 2 and distributed.rank() == distributed.count() - 1:
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}[sys.argv[2]])
    return _wait()


def _wait() -> int:
    """Waits for all processes, which the end of a verb does too."""
    runtime.setup_logging()
    try:
        distributed.barrier()
    except NsvitError as error:
        log.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
