"""Verbs for people: what an experiment would cost, and how far a running one is. No torch."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from nsvit import config
from nsvit.errors import NsvitError
from nsvit.verbs.spec import Args


def show_plan(args: Args) -> None:
    """Say what an experiment would do and what it would cost."""
    from nsvit import planning

    if args.gpus < 1:
        raise NsvitError(f"--gpus {args.gpus}: at least one device is needed")
    exp = config.load(*args.config)
    speed = planning.speed_of(args.gpu, args.precision, args.throughput, args.readers)
    plan = planning.make_plan(exp, speed, args.gpus)
    text = json.dumps(plan.as_dict(), indent=2) + "\n" if args.json else planning.plan_text(plan)
    sys.stdout.write(text)


def status(args: Args) -> None:
    """Show how far a running experiment is: done, running, failed, left, with times."""
    from nsvit import status

    exp, results = None, args.results
    if args.config:
        exp = config.load(*args.config)
        results = Path("results") / exp.experiment
    results = results or status.find_results()
    while True:
        seen = status.look(results, exp)
        text = json.dumps(seen.as_dict(), indent=2) + "\n" if args.json else None
        again = args.watch is not None and sys.stdout.isatty()
        sys.stdout.write(("\x1b[2J\x1b[H" if again else "") + (text or status.status_text(seen)))
        sys.stdout.flush()
        if not again:
            return
        time.sleep(max(args.watch, 1.0))
