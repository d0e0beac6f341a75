"""The verbs `plan` and `report`."""

from __future__ import annotations

from pathlib import Path

from nsvit import artifacts
from nsvit.errors import NsvitError
from nsvit.report.folder import read_evidence
from nsvit.report.page import page
from nsvit.report.readme import readme
from nsvit.report.view import look
from nsvit.specs import PlanSpec


def write_plan(spec: PlanSpec, out: str | Path) -> None:
    """The verb `plan`: writes down what a run sets out to make, before it begins."""
    artifacts.write_json(out, artifacts.provenance("plan", spec.model_dump(mode="json")))


def write_report(results: str | Path, out: str | Path, readme_out: str | Path | None) -> None:
    """The verb `report`: one page about everything below `results`.

    Args:
        results: `results/<experiment>`; finished or not.
        out: the page.
        readme_out: where the list of files goes, if anywhere.

    Raises:
        NsvitError: there is no such folder. Nothing in the folder stops the report.
    """
    results = Path(results)
    if not results.is_dir():
        raise NsvitError(f"{results}: no such folder; run `snakemake --cores all` first")
    view = look(results, Path(out).parent, read_evidence(results))
    artifacts.write_text(out, page(view))
    if readme_out is not None:
        folders = frozenset(path.name for path in results.iterdir())
        artifacts.write_text(readme_out, readme(view, folders))
