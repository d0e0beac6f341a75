"""The command line: one verb per rule, plus a few for people. No logic, imports on first use.

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
from typing import Any, TypeVar

from pydantic import ValidationError

from nsvit import config, runtime, specs
from nsvit.errors import NsvitError

log = logging.getLogger("nsvit")

S = TypeVar("S", bound=config.Section)
Args = argparse.Namespace


def _spec(cls: type[S], args: Args) -> S:
    try:
        return cls.model_validate_json(args.spec)
    except ValidationError as error:
        raise NsvitError(config.describe(error, "--spec")) from None


# --- data -----------------------------------------------------------------------------------


def render(args: Args) -> None:
    """Draw one set of the embedded benchmark."""
    from nsvit.data.menagerie import render_to

    spec = _spec(specs.RenderSpec, args)
    render_to(spec, args.root, args.classes, args.out, processes=args.processes)


def render_transfer(args: Args) -> None:
    """Attack pictures of the embedded benchmark's val set on a CNN of its own."""
    from nsvit import transfer

    runtime.prepare(args.threads)
    transfer.render_to(_spec(specs.TransferSpec, args), args.root, args.out, inputs=[args.val])


def scan(args: Args) -> None:
    """List and check the pictures of one set on disk."""
    from nsvit.data import layouts

    layouts.write_index(_spec(specs.ScanSpec, args), args.out)


def contact_sheet(args: Args) -> None:
    """Draw the contact sheet of one set."""
    from nsvit.data import layouts, sheets

    sheets.contact_sheet(layouts.open_set(args.index), args.out)


# --- models and their nullspace --------------------------------------------------------------


def pretrain_model(args: Args) -> None:
    """Train one model from scratch."""
    from nsvit import pretrain
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = _spec(specs.PretrainSpec, args)
    split = spec.split
    train, dev = layouts.split_dev(layouts.open_set(args.train), split.dev_images, split.seed)
    pretrain.pretrain(spec, train, dev, layouts.open_set(args.val), args.out.parent)


def prepare_model(args: Args) -> None:
    """Load, check and store one model under test."""
    from nsvit import models
    from nsvit.data import layouts

    spec = _spec(specs.PrepareSpec, args)
    models.prepare(spec, layouts.open_set(args.index), args.out)


def nullspace(args: Args) -> None:
    """Compute and demonstrate the exact nullspace of the patch embedding."""
    from nsvit import models
    from nsvit import nullspace as exact
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model).to(runtime.device())
    spec = _spec(specs.NullspaceSpec, args)
    exact.run(spec, model, layouts.open_set(args.index), args.out, inputs=[args.model])


def nullity(args: Args) -> None:
    """Tabulate the nullity that timm's architectures have by their shape."""
    from nsvit import nullspace as exact

    spec = _spec(specs.NullitySpec, args)
    exact.write_nullity(spec, args.out)


# --- noise ----------------------------------------------------------------------------------


def learn_noise(args: Args) -> None:
    """Learn approximate nullspace noise at every block."""
    from nsvit import influence, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model).to(runtime.device())
    spec = _spec(specs.LearnSpec, args)
    influence.run_learn(spec, model, layouts.open_set(args.index), args.out, inputs=[args.model])


def influence(args: Args) -> None:
    """Measure learned, permuted and Gaussian noise on held-out pictures."""
    from nsvit import influence, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model).to(runtime.device())
    spec = _spec(specs.InfluenceSpec, args)
    train = layouts.open_set(args.index)
    influence.run_measure(spec, model, train, args.noise, args.out, inputs=[args.model])


def lambda_study(args: Args) -> None:
    """Learn noise with every lambda and measure it on held-out pictures."""
    from nsvit import lambda_study, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    model = models.load_model(args.model).to(runtime.device())
    spec = _spec(specs.LambdaSpec, args)
    train = layouts.open_set(args.index)
    lambda_study.run(spec, model, train, args.out, args.closure, inputs=[args.model, args.index])


# --- finetuning and evaluation --------------------------------------------------------------


def finetune(args: Args) -> None:
    """Finetune one model with one arm and one seed."""
    from nsvit import finetuning, models
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = _spec(specs.FinetuneSpec, args)
    split = spec.split
    train, dev = layouts.split_dev(layouts.open_set(args.index), split.dev_images, split.seed)
    model = models.load_model(args.model)
    finetuning.finetune(model, train, dev, spec, args.out.parent, inputs=[args.model, args.index])


def evaluate(args: Args) -> None:
    """Evaluate runs of one arm under the conditions of one job."""
    from nsvit import matrix
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = _spec(specs.EvaluateSpec, args)
    sets = [layouts.open_set(path) for path in args.indices]
    indices = {s.name: path for s, path in zip(sets, args.indices, strict=True)}
    matrix.run(spec, args.models, {s.name: s for s in sets}, args.out, indices)


def dynamics(args: Args) -> None:
    """Evaluate every round of one run on subsets."""
    from nsvit import evaluation
    from nsvit.data import layouts

    runtime.prepare(args.threads)
    spec = _spec(specs.DynamicsSpec, args)
    sets = {s.name: s for s in map(layouts.open_set, args.indices)}
    evaluation.run_dynamics(spec, args.run.parent, sets, args.out, inputs=[args.run, *args.indices])


# --- tables and figures ---------------------------------------------------------------------


def table(args: Args) -> None:
    """Make one table of accuracies from records."""
    from nsvit import tables

    tables.write_accuracy(args.records, _spec(specs.AccuracySpec, args), args.out)


def table_paired(args: Args) -> None:
    """Make the table of paired differences from records."""
    from nsvit import tables

    tables.write_paired(args.records, _spec(specs.TableSpec, args), args.out)


def table_nullity(args: Args) -> None:
    """Make the table of ranks and nullities."""
    from nsvit import tables

    spec = _spec(specs.TableSpec, args)
    tables.write_nullity(args.nullity, args.nullspaces, spec, args.out)


def table_cost(args: Args) -> None:
    """Make the table of finetuning runs and what they cost."""
    from nsvit import tables

    tables.write_cost(args.histories, _spec(specs.TableSpec, args), args.out)


def table_influence(args: Args) -> None:
    """Make the table of noise at every block."""
    from nsvit import tables

    tables.write_influence(args.influences, _spec(specs.TableSpec, args), args.out)


def table_claims(args: Args) -> None:
    """Test the claims and make the table of verdicts."""
    from nsvit import tables

    spec = _spec(specs.TableSpec, args)
    studies = args.influences, args.lambdas
    tables.write_claims(args.claims, args.records, args.histories, *studies, spec, args.out)


def table_lambda(args: Args) -> None:
    """Make the table of the lambda study."""
    from nsvit import tables

    tables.write_lambda(args.studies, _spec(specs.TableSpec, args), args.out)


def table_closure(args: Args) -> None:
    """Make the table of multiples and mixtures of learned noises."""
    from nsvit import tables

    tables.write_closure(args.closures, _spec(specs.TableSpec, args), args.out)


def figure_nullspace(args: Args) -> None:
    """Draw the example of exact nullspace noise."""
    from nsvit import figures

    figures.write_nullspace(args.nullspace, _spec(specs.TableSpec, args), args.out)


def figure_influence(args: Args) -> None:
    """Draw agreement and norm of noise at every block."""
    from nsvit import figures

    figures.write_influence(args.table, _spec(specs.TableSpec, args), args.out)


def figure_dynamics(args: Args) -> None:
    """Draw the training dynamics."""
    from nsvit import figures

    spec = _spec(specs.TableSpec, args)
    figures.write_dynamics(args.records, args.histories, spec, args.out)


def figure_claims(args: Args) -> None:
    """Draw the forest plot of the claims."""
    from nsvit import figures

    figures.write_claims(args.table, _spec(specs.TableSpec, args), args.out)


def figure_concept(args: Args) -> None:
    """Draw the method."""
    from nsvit import figures

    figures.write_concept(args.out)


def figure_lambda(args: Args) -> None:
    """Draw agreement, confidence error and norm against lambda."""
    from nsvit import figures

    figures.write_lambda(args.table, _spec(specs.TableSpec, args), args.out)


def figure_closure(args: Args) -> None:
    """Draw agreement of multiples and mixtures of learned noises."""
    from nsvit import figures

    figures.write_closure(args.table, _spec(specs.TableSpec, args), args.out)


def figure_corruptions(args: Args) -> None:
    """Draw the change of every corruption error."""
    from nsvit import figures

    figures.write_corruptions(args.records, _spec(specs.TableSpec, args), args.out)


def figure_radius(args: Args) -> None:
    """Draw robust accuracy against the attack's radius."""
    from nsvit import figures

    figures.write_radius(args.records, _spec(specs.TableSpec, args), args.out)


# --- the report -----------------------------------------------------------------------------


def plan(args: Args) -> None:
    """Write down what a run sets out to make."""
    from nsvit import report

    report.write_plan(_spec(specs.PlanSpec, args), args.out)


def report(args: Args) -> None:
    """Make one page about a results folder, finished or not."""
    from nsvit import report

    report.write_report(args.results, args.out, args.readme)


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
