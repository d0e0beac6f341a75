"""A process that only waits until it is asked to end, as a verb does; for tests of the launcher.

Writes its number into a file of its rank in the folder of the first argument.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from nsvit import distributed, stopping


def main() -> int:
    stopping.at_once()
    distributed._die_with_parent()
    try:
        (Path(sys.argv[1]) / os.environ["RANK"]).write_text(str(os.getpid()))
        time.sleep(300)
    except stopping.Stopped as stopped:
        return stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
