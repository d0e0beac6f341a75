"""The command line: one verb per rule, plus a few for people. No logic.

Every verb of a rule takes the rule's spec as JSON and the paths of its inputs and outputs, so
that what a rule did can be repeated by hand from its log.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

# Before pydantic is loaded, which else looks through every installed package for its plug-ins.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

from nsvit import config, devices, launcher, locks, progress, runtime, specs, stopping
from nsvit.config.spelling import meant
from nsvit.errors import NsvitError
from nsvit.verbs.overview import status
from nsvit.verbs.pages import (
    figure_claims,
    figure_closure,
    figure_concept,
    figure_corruptions,
    figure_dynamics,
    figure_influence,
    figure_lambda,
    figure_nullspace,
    figure_radius,
    plan,
    report,
    scores,
    table,
    table_attacks,
    table_claims,
    table_closure,
    table_cost,
    table_influence,
    table_lambda,
    table_nullity,
    table_paired,
)
from nsvit.verbs.people import check_data, fetch_data
from nsvit.verbs.spec import Args, read_spec
from nsvit.verbs.stages import (
    contact_sheet,
    corrupt,
    dynamics,
    evaluate,
    finetune,
    influence,
    lambda_study,
    learn_noise,
    nullity,
    nullspace,
    prepare_model,
    pretrain_model,
    render,
    render_transfer,
    scan,
)

log = logging.getLogger("nsvit")


# --- for people -----------------------------------------------------------------------------


def check_config(args: Args) -> None:
    """Check a configuration file without running anything."""
    experiment = config.load(*args.config)
    log.info("%s: good, %d runs", " + ".join(map(str, args.config)), len(experiment.runs()))


def config_schema(args: Args) -> None:
    """Write the JSON schema of the configuration."""
    from nsvit import artifacts

    artifacts.write_text(args.out, config.schema_text())


def _plan_arguments(sub: argparse.ArgumentParser) -> None:
    """What `plan` takes from people."""
    sub.add_argument(
        "--config", type=Path, nargs="+", help="plan this experiment, print, run nothing"
    )
    sub.add_argument("--gpu", default="a100", help="t4, v100, rtx3090, a10, a6000, a100, l4, "
                     "rtx4090, h100, h200 (default: %(default)s)")  # fmt: skip
    sub.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    sub.add_argument("--throughput", type=float, help="TFLOP/s that jobs reach, as measured")
    sub.add_argument("--gpus", type=int, default=1, help="devices side by side")
    sub.add_argument("--readers", type=int, default=8, help="cores that read pictures for one job")
    sub.add_argument("--json", action="store_true", help="as JSON")


def _status_arguments(sub: argparse.ArgumentParser) -> None:
    """What `status` takes."""
    where = sub.add_mutually_exclusive_group()
    where.add_argument("--results", type=Path, help="results/<experiment>; the latest by default")
    where.add_argument("--config", type=Path, nargs="+", help="the experiment of these files")
    sub.add_argument("--json", action="store_true", help="as JSON, with every job")
    sub.add_argument(
        "--watch", type=float, metavar="SECONDS", help="again and again, on a terminal"
    )


# --- the parser -----------------------------------------------------------------------------

#: Verbs of rules: what each takes beside --spec and --out. A trailing + takes several paths, a
#: trailing * several or none.
RULE_VERBS: dict[Callable[[Args], None], tuple[str, ...]] = {
    render: ("root", "classes"),
    render_transfer: ("root", "val"),
    corrupt: ("index", "root"),
    scan: (),
    contact_sheet: ("index",),
    pretrain_model: ("train", "val"),
    prepare_model: ("index",),
    nullspace: ("model", "index"),
    nullity: (),
    learn_noise: ("model", "index"),
    influence: ("model", "index", "noise"),
    lambda_study: ("model", "index", "closure"),
    finetune: ("model", "index"),
    evaluate: ("models+", "indices+"),
    dynamics: ("run", "indices+"),
    scores: ("records+",),
    table: ("scores",),
    table_paired: ("scores",),
    table_attacks: ("records+",),
    table_nullity: ("nullity", "nullspaces+"),
    table_cost: ("histories+",),
    table_influence: ("influences+",),
    table_claims: ("claims", "scores", "histories+", "influences*", "lambdas*"),
    table_lambda: ("studies+",),
    table_closure: ("closures+",),
    figure_nullspace: ("nullspace",),
    figure_influence: ("table",),
    figure_dynamics: ("records+", "histories+"),
    figure_claims: ("table",),
    figure_concept: (),
    figure_lambda: ("table",),
    figure_closure: ("table",),
    figure_corruptions: ("records+",),
    figure_radius: ("scores",),
    plan: (),
    report: ("results",),
}

#: Verbs of rules that need to be told nothing, or read it from their inputs.
SPECLESS: set[Callable[[Args], None]] = {contact_sheet, figure_concept, report}

#: Verbs of rules that people use too.
FOR_ALL: set[Callable[[Args], None]] = {plan, report}

#: Verbs that several processes can compute together, with what they are told.
SHARED_VERBS: dict[Callable[[Args], None], type[specs.Shared]] = {
    learn_noise: specs.LearnSpec,
    lambda_study: specs.LambdaSpec,
    finetune: specs.FinetuneSpec,
    evaluate: specs.EvaluateSpec,
}

#: Verbs that compute with torch for long enough that its threads matter.
TORCH_VERBS = {
    *(render_transfer, pretrain_model, nullspace, learn_noise, influence, lambda_study),
    *(finetune, evaluate, dynamics),
}

#: Verbs whose rules ask for `gpu`; no other verb computes on one.
GPU_VERBS = {pretrain_model, learn_noise, influence, lambda_study, finetune, evaluate, dynamics}


def verb_name(function: Callable[[Args], None]) -> str:
    """The verb of a function; rules have the same name with underscores."""
    return function.__name__.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    """Answers a misspelt verb with the one that was meant; argparse lists all forty."""

    def error(self, message: str) -> NoReturn:
        """Ends with 2, as argparse does."""
        wrong = re.match(r"argument VERB: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            known = re.findall(r"[a-z-]+", wrong[2])
            message = f"no verb {wrong[1]!r}{meant(wrong[1], known)}; nsvit --help lists them all"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="nsvit",
        description="Approximate nullspace augmented finetuning: the verbs behind the workflow. "
        "Most people run `snakemake --cores all`; a rule's log shows its verb's full command. "
        "The first verbs are for people, the others for rules.",
    )
    top.add_argument("--verbose", action="store_true", help="log details")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(function: Callable[[Args], Any]) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").splitlines()[0]
        sub = verbs.add_parser(verb_name(function), help=text, description=text)
        sub.set_defaults(function=function, is_rule=False)
        return sub

    _status_arguments(add(status))
    add(check_config).add_argument(
        "config", type=Path, nargs="+", help="the file, and overlays on top of it"
    )
    _about_data(add(check_data), add(fetch_data))
    add(config_schema).add_argument("--out", type=Path, default=Path("config/schema.json"))
    for function, paths in sorted(RULE_VERBS.items(), key=lambda verb: verb[0] not in FOR_ALL):
        sub = add(function)
        sub.set_defaults(is_rule=function is not plan)
        if function not in SPECLESS:
            needed = function is not plan
            sub.add_argument(
                "--spec", required=needed, metavar="JSON", help="the rule's params.spec"
            )
        for name in paths:
            several = {"nargs": name[-1]} if name[-1] in "+*" else {}
            default: dict[str, Any] = {"default": []} if name[-1] == "*" else {"required": True}
            sub.add_argument(f"--{name.rstrip('+*')}", type=Path, **default, **several)  # type: ignore[arg-type]
        sub.add_argument("--out", type=Path, required=function is not plan)
        if function in TORCH_VERBS:
            sub.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
        if function is scan:
            sub.add_argument("--threads", type=int, default=1, help="that read pictures")
        if function in (render, corrupt):
            sub.add_argument("--processes", type=int, default=1, help="that make pictures")
        if function in SHARED_VERBS:
            sub.add_argument(
                "--processes",
                default="1",
                metavar="N",
                help="that compute this together; auto: one per visible GPU (SLURM task on CPUs)",
            )
            sub.add_argument("--nodes", type=int, help="of the SLURM job; as SLURM says by default")
        if function is report:
            sub.add_argument(
                "--readme", type=Path, help="where the list of files goes, if anywhere"
            )
        if function is plan:
            _plan_arguments(sub)
    return top


def _about_data(check: argparse.ArgumentParser, fetch: argparse.ArgumentParser) -> None:
    text = "the experiment's YAML file, and others on top of it"
    check.add_argument("--config", type=Path, nargs="+", required=True, help=text)
    # Names of sets follow, so that one file needs the option once more.
    text = "the experiment's YAML file; again for another on top of it"
    fetch.add_argument("--config", type=Path, action="append", required=True, help=text)
    check.add_argument(
        "--sample", type=int, default=200, metavar="N", help="pictures to decode of each set"
    )
    check.add_argument("--full", action="store_true", help="decode every picture")
    check.add_argument("--json", action="store_true", help="for programs")
    fetch.add_argument("sets", nargs="*", metavar="SET", help="keys of data.sets; none: all")
    fetch.add_argument("--keep-archives", action="store_true", help="in <data.root>/.downloads")
    fetch.add_argument("--dry-run", action="store_true", help="only say what is missing")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        0; 1 after an error that the user can fix; 128 + the signal's number if it was stopped.
    """
    stopping.at_once()
    args, given = parser().parse_args(arguments), list(arguments or sys.argv[1:])
    runtime.setup_logging(args.verbose)
    is_rule = args.is_rule or getattr(args, "spec", None) is not None
    if is_rule and not sys.stderr.isatty() and launcher.started() == 1:
        # A rule's log begins with the command that repeats it.
        sys.stderr.write(shlex.join(["nsvit", *given]) + "\n")
    try:
        with progress.alive() if is_rule else nullcontext():
            _run(args, given, is_rule)
    except NsvitError as error:
        log.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        log.error("interrupted; what is finished is kept, and the same command goes on")
        return 130
    except stopping.Stopped as stopped:
        log.error("%s; what is finished is kept, and the same command goes on", stopped)
        return stopped.code
    return 0


def _run(args: Args, given: Sequence[str], is_rule: bool) -> None:
    """The verb itself, here or in several processes, with GPUs and its output to itself."""
    shared = args.function in SHARED_VERBS and args.processes != "1"
    several_nodes = shared and launcher.nodes(args.nodes) > 1
    if args.function in GPU_VERBS and launcher.started() == 1 and not several_nodes:
        devices.claim(args.processes if shared else 1)
    if shared and launcher.started() == 1:
        batches = read_spec(SHARED_VERBS[args.function], args).batches()
        with locks.alone(args.out):
            pass  # waits here, where no other process waits for this one and gives up
        if launcher.launch(args.processes, given, batches, nodes=args.nodes):
            return
    with locks.alone(args.out) if is_rule and args.out else nullcontext():
        args.function(args)


if __name__ == "__main__":
    sys.exit(main())
