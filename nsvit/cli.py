"""The command line: one verb per rule, plus a few for people. No logic.

Every verb of a rule takes the rule's spec as JSON and the paths of its inputs and outputs, so
that what a rule did can be repeated by hand from its log.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nsvit import config, devices, runtime
from nsvit.errors import NsvitError
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
from nsvit.verbs.spec import Args
from nsvit.verbs.stages import (
    contact_sheet,
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
    experiment = config.load(args.config)
    log.info("%s: good, %d runs", args.config, len(experiment.runs()))


def config_schema(args: Args) -> None:
    """Write the JSON schema of the configuration."""
    from nsvit import artifacts

    artifacts.write_text(args.out, config.schema_text())


# --- the parser -----------------------------------------------------------------------------

#: Verbs of rules: what each takes beside --spec and --out. A trailing + takes several paths, a
#: trailing * several or none.
RULE_VERBS: dict[Callable[[Args], None], tuple[str, ...]] = {
    render: ("root", "classes"),
    render_transfer: ("root", "val"),
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
    table: ("records+",),
    table_paired: ("records+",),
    table_attacks: ("records+",),
    table_nullity: ("nullity", "nullspaces+"),
    table_cost: ("histories+",),
    table_influence: ("influences+",),
    table_claims: ("claims", "records+", "histories+", "influences*", "lambdas*"),
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
    figure_radius: ("records+",),
    plan: (),
    report: ("results",),
}

#: Verbs of rules that need to be told nothing, or read it from their inputs.
SPECLESS: set[Callable[[Args], None]] = {contact_sheet, figure_concept, report}

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


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="nsvit",
        description="Approximate nullspace augmented finetuning: the verbs behind the workflow. "
        "Most people run `snakemake --cores all`; a rule's log shows its verb's full command.",
    )
    top.add_argument("--verbose", action="store_true", help="log details")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(function: Callable[[Args], Any]) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").splitlines()[0]
        sub = verbs.add_parser(verb_name(function), help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    for function, paths in RULE_VERBS.items():
        sub = add(function)
        if function not in SPECLESS:
            sub.add_argument("--spec", required=True, metavar="JSON", help="the rule's params.spec")
        for name in paths:
            several = {"nargs": name[-1]} if name[-1] in "+*" else {}
            needed: dict[str, Any] = {"default": []} if name.endswith("*") else {"required": True}
            sub.add_argument(f"--{name.rstrip('+*')}", type=Path, **needed, **several)  # type: ignore[arg-type]
        sub.add_argument("--out", type=Path, required=True)
        if function in TORCH_VERBS:
            sub.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
        if function is render:
            sub.add_argument("--processes", type=int, default=1, help="that draw pictures")
        if function is report:
            sub.add_argument(
                "--readme", type=Path, help="where the list of files goes, if anywhere"
            )
    add(check_config).add_argument("config", type=Path)
    add(config_schema).add_argument("--out", type=Path, default=Path("config/schema.json"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns 0, or 1 after an error that the user can fix."""
    args = parser().parse_args(arguments)
    runtime.setup_logging(args.verbose)
    if not sys.stderr.isatty():  # a rule's log begins with the command that repeats it
        sys.stderr.write(shlex.join(["nsvit", *(arguments or sys.argv[1:])]) + "\n")
    try:
        if args.function in GPU_VERBS:
            devices.claim(getattr(args, "processes", 1))
        args.function(args)
    except NsvitError as error:
        log.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        log.error("interrupted; what is finished is kept")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
