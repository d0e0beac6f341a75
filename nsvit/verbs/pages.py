"""Verbs of the rules that make what is read: tables, figures, the report. None loads torch."""

from __future__ import annotations

from nsvit import specs
from nsvit.errors import NsvitError
from nsvit.verbs.spec import Args, read_spec

# --- tables and figures ---------------------------------------------------------------------


def scores(args: Args) -> None:
    """Reduce all records to scores per picture."""
    from nsvit import scores

    scores.write(args.records, read_spec(specs.TableSpec, args), args.out)


def table(args: Args) -> None:
    """Make one table of accuracies from scores."""
    from nsvit import tables

    tables.write_accuracy(args.scores, read_spec(specs.AccuracySpec, args), args.out)


def table_paired(args: Args) -> None:
    """Make the table of paired differences from scores."""
    from nsvit import tables

    tables.write_paired(args.scores, read_spec(specs.TableSpec, args), args.out)


def table_attacks(args: Args) -> None:
    """Make the table of how often attacks succeed from records."""
    from nsvit import tables

    tables.write_attacks(args.records, read_spec(specs.TableSpec, args), args.out)


def table_nullity(args: Args) -> None:
    """Make the table of ranks and nullities."""
    from nsvit import tables

    spec = read_spec(specs.TableSpec, args)
    tables.write_nullity(args.nullity, args.nullspaces, spec, args.out)


def table_cost(args: Args) -> None:
    """Make the table of finetuning runs and what they cost."""
    from nsvit import tables

    tables.write_cost(args.histories, read_spec(specs.TableSpec, args), args.out)


def table_influence(args: Args) -> None:
    """Make the table of noise at every block."""
    from nsvit import tables

    tables.write_influence(args.influences, read_spec(specs.TableSpec, args), args.out)


def table_claims(args: Args) -> None:
    """Test the claims and make the table of verdicts."""
    from nsvit import tables

    spec = read_spec(specs.TableSpec, args)
    studies = args.influences, args.lambdas
    tables.write_claims(args.claims, args.scores, args.histories, *studies, spec, args.out)


def table_lambda(args: Args) -> None:
    """Make the table of the lambda study."""
    from nsvit import tables

    tables.write_lambda(args.studies, read_spec(specs.TableSpec, args), args.out)


def table_closure(args: Args) -> None:
    """Make the table of multiples and mixtures of learned noises."""
    from nsvit import tables

    tables.write_closure(args.closures, read_spec(specs.TableSpec, args), args.out)


def figure_nullspace(args: Args) -> None:
    """Draw the example of exact nullspace noise."""
    from nsvit import figures

    figures.write_nullspace(args.nullspace, read_spec(specs.TableSpec, args), args.out)


def figure_influence(args: Args) -> None:
    """Draw agreement and norm of noise at every block."""
    from nsvit import figures

    figures.write_influence(args.table, read_spec(specs.TableSpec, args), args.out)


def figure_dynamics(args: Args) -> None:
    """Draw the training dynamics."""
    from nsvit import figures

    spec = read_spec(specs.TableSpec, args)
    figures.write_dynamics(args.records, args.histories, spec, args.out)


def figure_claims(args: Args) -> None:
    """Draw the forest plot of the claims."""
    from nsvit import figures

    figures.write_claims(args.table, read_spec(specs.TableSpec, args), args.out)


def figure_concept(args: Args) -> None:
    """Draw the method."""
    from nsvit import figures

    figures.write_concept(args.out)


def figure_lambda(args: Args) -> None:
    """Draw agreement, confidence error and norm against lambda."""
    from nsvit import figures

    figures.write_lambda(args.table, read_spec(specs.TableSpec, args), args.out)


def figure_closure(args: Args) -> None:
    """Draw agreement of multiples and mixtures of learned noises."""
    from nsvit import figures

    figures.write_closure(args.table, read_spec(specs.TableSpec, args), args.out)


def figure_corruptions(args: Args) -> None:
    """Draw the change of every corruption error."""
    from nsvit import figures

    figures.write_corruptions(args.records, read_spec(specs.TableSpec, args), args.out)


def figure_radius(args: Args) -> None:
    """Draw robust accuracy against the attack's radius."""
    from nsvit import figures

    figures.write_radius(args.scores, read_spec(specs.TableSpec, args), args.out)


# --- the report -----------------------------------------------------------------------------


def plan(args: Args) -> None:
    """Say what an experiment would do and cost (--config); the rule: write what it will make."""
    if args.config:
        from nsvit.verbs.overview import show_plan

        return show_plan(args)
    if args.spec is None or args.out is None:
        raise NsvitError("nsvit plan needs --config FILE; the rule gives it --spec and --out")
    from nsvit import report

    report.write_plan(read_spec(specs.PlanSpec, args), args.out)


def report(args: Args) -> None:
    """Make one page about a results folder, finished or not."""
    from nsvit import report

    report.write_report(args.results, args.out, args.readme)
