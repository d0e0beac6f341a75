"""Start-up of every verb: from the command to the refusal of a spec that is none.

By then a verb has imported what it needs to read its spec; one that computes nothing must not have
imported torch. A verb that takes nothing at all is left out: it would do its work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.runner import Case
from nsvit import cli
from nsvit.errors import NsvitError

#: Seconds that a verb without torch may take to start (issue 7).
LIMIT = 0.6
#: Runs the command line, then says whether torch was loaded.
PROGRAM = "import sys; from nsvit.cli import main\ntry: main(sys.argv[1:])\n" + (
    "finally: print('torch' in sys.modules)"
)
#: Verbs of rules that load torch: those with torch's threads, and these.
WITH_TORCH = {*cli.TORCH_VERBS, cli.prepare_model, cli.nullity}


@dataclass(frozen=True)
class Started:
    """What one command wrote, and whether it loaded torch."""

    status: int
    torch: bool
    text: str


def cases(args: argparse.Namespace) -> list[Case]:
    """Every case of the stage."""
    verbs = [verb for verb, given in cli.RULE_VERBS.items() if given or verb not in cli.SPECLESS]
    light = [verb for verb in verbs if verb not in WITH_TORCH]
    heavy = [verb for verb in verbs if verb in WITH_TORCH]
    found = [case("start-up of verbs without torch", light, False)]
    if not args.quick:
        found.append(case("start-up of verbs with torch", heavy, True))
    return found


def case(name: str, verbs: list[Callable[..., None]], torch: bool) -> Case:
    """One side for each verb; verbs with torch once only, without a repeat."""
    sides = {cli.verb_name(verb): partial(start, verb) for verb in verbs}
    if not torch:
        sides = {"--help": partial(command, ["--help"]), **sides}

    def check(found: Mapping[str, Started]) -> str:
        wrong = [verb for verb, one in found.items() if one.torch and not torch]
        if wrong:
            raise NsvitError(f"{', '.join(wrong)} load torch")
        lost = [f"{verb}: {one.text}" for verb, one in found.items() if one.status not in (0, 1)]
        if lost:
            raise NsvitError("; ".join(lost))
        return "torch is loaded" if torch else "none loads torch"

    return Case(
        name,
        sides,
        check,
        unit="start",
        clock="wall",
        repeats=0 if torch else 1,
        limits={} if torch else dict.fromkeys(sides, LIMIT),
    )


def start(verb: Callable[..., None]) -> Started:
    """A verb with a spec that is none, and paths where nothing is."""
    given = [cli.verb_name(verb)]
    with tempfile.TemporaryDirectory(prefix="nsvit-bench-") as folder:
        if verb not in cli.SPECLESS:
            given += ["--spec", "[]"]
        for name in cli.RULE_VERBS[verb]:
            if name[-1] != "*":
                given += [f"--{name.rstrip('+')}", str(Path(folder) / "nothing")]
        return command([*given, "--out", str(Path(folder) / "out")])


def command(given: list[str]) -> Started:
    """The command line in a process of its own."""
    # With compiled modules kept, as Python does unless it is told not to.
    given_env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given],
        capture_output=True,
        text=True,
        check=False,
        env={**given_env, "NSVIT_DEVICE": "cpu"},
    )
    lines = done.stdout.split()
    return Started(done.returncode, lines[-1:] == ["True"], done.stderr[-200:])
