"""The documents: every link leads somewhere, and commands are such as Snakemake takes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "docs", "config", "results", "nsvit/paper", "benchmarks")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    links = [one for one in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in one]
    for file, _, anchor in (link.partition("#") for link in links):
        target = path.parent / file if file else path
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), f"{file}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_targets_stand_before_options_that_take_several_values(path):
    text = re.sub(r"\\\n\s*", "", path.read_text())
    for several in re.findall(r"snakemake .*?--configfile ([^#`\n]*)", text):
        values = several.split(" -")[0].split()
        assert all(value.endswith((".yaml", ".yaml)")) for value in values), several
