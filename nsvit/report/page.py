"""The page: one HTML file that needs no other file and no network."""

from __future__ import annotations

from importlib import resources

from nsvit import artifacts
from nsvit.progress import duration
from nsvit.report.verdicts import SIGNS
from nsvit.report.view import View


def page(view: View) -> str:
    """The report as HTML; the same text for the same view."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = duration
    environment.globals["signs"] = SIGNS
    made_by = f"nsvit {artifacts.package_version()}, commit {artifacts.git_commit()}"
    style = _source("page.css")
    return environment.get_template("page.html.j2").render(view=view, style=style, made_by=made_by)


def _source(name: str) -> str:
    return resources.files("nsvit.report").joinpath(name).read_text(encoding="utf-8")
