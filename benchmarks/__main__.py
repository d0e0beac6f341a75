"""`python -m benchmarks`: times every stage, or those named, and writes the results down."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import attacks, processes, report, resume
from benchmarks.runner import Case, measure
from nsvit import runtime
from nsvit.errors import NsvitError

log = logging.getLogger("benchmarks")

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

#: By stage, its cases; each is given the command line's arguments.
STAGES: dict[str, Callable[[argparse.Namespace], list[Case]]] = {
    "attacks": attacks.cases,
    "processes": processes.cases,
    "going on": resume.cases,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    it.add_argument("--stage", action="append", choices=STAGES, help="only this one; repeatable")
    it.add_argument("--case", default="", help="only those whose name holds this; writes nothing")
    it.add_argument("--repeats", type=int, default=5)
    it.add_argument("--pictures", type=int, default=32, help="of each case; some use less")
    it.add_argument("--threads", type=int, default=1, help="torch's")
    it.add_argument("--large", action="store_true", help="also ViT-S/16 at 224 pixels; minutes")
    it.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON files")
    it.add_argument("--page", type=Path, default=PAGE, help="the document written from them")
    return it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks.

    Returns:
        0, or 1 if sides that should agree do not.
    """
    args = parser().parse_args(arguments)
    runtime.setup_logging()
    runtime.prepare(args.threads)
    own = report.machine()
    stages = {}
    try:
        for name in args.stage or STAGES:
            chosen = [case for case in STAGES[name](args) if args.case in case.name]
            stages[name] = measure(chosen, args.repeats)
    except NsvitError as error:
        log.error("%s", error)
        return 1
    for found in stages.values():
        for one in found:
            for side in one.case.sides:
                ratios = {b: one.ratio(side, b)[0] for b in one.case.baselines if b != side}
                shown = ", ".join(f"{ratio:.2f} x {b}" for b, ratio in ratios.items())
                log.info("%s | %s: %.2f ms %s", one.case.name, side, one.milliseconds(side), shown)
            log.info("%s: %s", one.case.name, one.agreement)
    if not args.case and not args.stage:
        settings = {"repeats": args.repeats, "pictures": args.pictures, "large": args.large}
        log.info("%s", report.write_json(args.out, stages, settings, own))
        report.write_page(args.out, args.page)
        log.info("%s", args.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
