"""`python -m benchmarks`: times every stage, or those named.

Each stage's results are written as soon as it is done.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    attacks,
    ceiling,
    evaluation,
    finetuning,
    noise,
    pictures,
    processes,
    report,
    resume,
    startup,
    workflow,
)
from benchmarks.others import watch
from benchmarks.runner import Case, Measured, measure
from nsvit import runtime

log = logging.getLogger("benchmarks")

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

#: By stage, its cases; each is given the command line's arguments.
STAGES: dict[str, Callable[[argparse.Namespace], list[Case]]] = {
    "ceiling": ceiling.cases,
    "noise": noise.cases,
    "finetuning": finetuning.cases,
    "attacks": attacks.cases,
    "evaluation": evaluation.cases,
    "pictures": pictures.cases,
    "start-up": startup.cases,
    "workflow": workflow.cases,
    "processes": processes.cases,
    "going on": resume.cases,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    it.add_argument("--stage", action="append", choices=STAGES, help="only this one; repeatable")
    it.add_argument("--case", default="", help="only those whose name holds this; writes nothing")
    it.add_argument("--repeats", type=int, default=3, help="at most")
    it.add_argument("--pictures", type=int, default=32, help="of each case; some use less")
    it.add_argument("--threads", type=int, default=1, help="torch's")
    large = "also ViT-B/16, compiled noise steps and the whole default run"
    it.add_argument("--large", action="store_true", help=large)
    it.add_argument("--quick", action="store_true", help="one repeat, small models only")
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
    logging.getLogger("nsvit").setLevel(logging.ERROR)  # steps that never meet epsilon, and doubts
    runtime.prepare(args.threads)
    args.repeats = 1 if args.quick else args.repeats
    settings = {name: getattr(args, name) for name in ("repeats", "pictures", "large", "quick")}
    failed = []
    for name in args.stage or STAGES:
        begun, others = time.perf_counter(), watch()
        refused: list[str] = []
        try:
            chosen = [case for case in STAGES[name](args) if args.case in case.name]
            found = measure(chosen, args.repeats, refused)
        except Exception:  # the other stages do not depend on it
            log.exception("stage %s", name)
            failed.append(name)
            continue
        failed += [name] * bool(refused)
        _tell(found)
        if found and not args.case:  # each stage by itself: interrupted, the others are there
            told = (settings, report.machine(), others(), refused)
            log.info("%s", report.write_stage(args.out, name, found, *told))
            report.write_page(args.out, args.page)
        log.info("stage %s took %.0f s", name, time.perf_counter() - begun)
    if failed:
        log.error("stages that failed, or some of whose sides disagree: %s", ", ".join(failed))
    return 1 if failed else 0


def _tell(found: Sequence[Measured]) -> None:
    for one in found:
        for side in one.case.sides:
            ratios = {b: one.ratio(side, b)[0] for b in one.case.baselines if b != side}
            shown = ", ".join(f"{ratio:.2f} x {b}" for b, ratio in ratios.items())
            log.info("%s | %s: %.2f ms %s", one.case.name, side, one.milliseconds(side), shown)
        log.info("%s: %s", one.case.name, one.agreement)


if __name__ == "__main__":
    sys.exit(main())
