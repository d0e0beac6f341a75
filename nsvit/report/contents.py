"""What belongs together in a report: every table and figure has a question that it answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nsvit import artifacts
from nsvit.config import Experiment
from nsvit.specs import PlanSpec

Kind = Literal["table", "figure"]

#: The table of verdicts, which the report shows in a form of its own.
CLAIMS = "claims"


@dataclass(frozen=True)
class Item:
    """One table or figure."""

    kind: Kind
    name: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A question, and which tables and figures answer it: regular expressions, in order."""

    slug: str
    question: str
    names: tuple[str, ...]


SECTIONS = (
    Section("verdicts", "Do the paper's claims hold here?", (CLAIMS,)),
    Section(
        "robustness",
        "Does finetuning on noise make models more robust?",
        (r"table\d+\w*", r"control\w*", r"paired\w*", r"attack\w*", r"corruption\w*|heat\w*")
        + (r"radius\w*|radii\w*", r"robust\w*"),
    ),
    Section(
        "nullspace",
        "Is there an exact nullspace, and what does it look like?",
        (r"concept\w*", r"nullspace\w*", r"nullity\w*"),
    ),
    Section(
        "noise",
        "What does approximate nullspace noise do?",
        (r"influence\w*", r"lambda\w*|norm\w*", r"closure\w*"),
    ),
    Section(
        "training",
        "How did finetuning go, and what did it cost?",
        (r"dynamics\w*", r"runs\w*", r"cost\w*"),
    ),
    Section("other", "Further results", ()),
)

#: Titles of figures by name; a table's title is its own heading.
TITLES = {
    "claims": "Effects behind the verdicts",
    "corruptions": "Corruptions by type and severity",
    "radius": "Accuracy against the attack's radius",
    "concept": "The idea",
    "nullspace": "Exact nullspace noise",
    "influence": "Agreement and norm at every block",
    "lambda": "Agreement, confidence and norm against lambda",
    "closure": "Scaled and mixed noises",
    "dynamics": "The course of finetuning",
}


def title(name: str, models: Mapping[str, str] | None = None) -> str:
    """The title of a figure: known, or its name in words; with the label of its model."""
    for slug in sorted(models or {}, key=len, reverse=True):
        if name.endswith(f"_{slug}"):
            return f"{title(name.removesuffix(f'_{slug}'))}, {(models or {})[slug]}"
    return TITLES.get(name, words(name))


def words(name: str) -> str:
    """A name as words: "table_one" is "Table one"."""
    return (name[:1].upper() + name[1:]).replace("_", " ")


def arrange(
    items: Iterable[Item], accuracies: Sequence[str] = ()
) -> list[tuple[Section, list[Item]]]:
    """The items by section, each section in the order of its expressions.

    Args:
        items: tables and figures in the order of the plan.
        accuracies: names of further tables that belong to the section on robustness.
    """
    places: dict[str, list[tuple[int, Item]]] = {section.slug: [] for section in SECTIONS}
    for item in items:
        slug, rank = _place(item.name, accuracies)
        places[slug].append((rank, item))
    ordered = {slug: sorted(found, key=lambda pair: pair[0]) for slug, found in places.items()}
    return [
        (section, [item for _, item in ordered[section.slug]])
        for section in SECTIONS
        if ordered[section.slug] or section.slug == "verdicts"
    ]


def _place(name: str, accuracies: Sequence[str]) -> tuple[str, int]:
    for section in SECTIONS:
        for rank, pattern in enumerate(section.names):
            if re.fullmatch(pattern, name):
                return section.slug, rank
    return ("robustness", len(SECTIONS[1].names)) if name in accuracies else ("other", 0)


# --- the plan ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a run set out to make.

    Attributes:
        items: tables, then figures.
        sheets: names of sets with a contact sheet.
        sheet_caption: what a contact sheet shows.
        config: the whole configuration, where it is known.
    """

    items: tuple[Item, ...]
    sheets: tuple[str, ...]
    sheet_caption: str
    config: Experiment | None


def from_sidecar(sidecar: Mapping[str, Any], path: str) -> Plan:
    """The plan in the sidecar that the verb `plan` wrote.

    Raises:
        NsvitError: another kind of file.
        KeyError, ValueError: the plan of another nsvit.
    """
    artifacts.check_kind(sidecar, "plan", path)
    spec = PlanSpec.model_validate(sidecar["spec"])
    labels = {slug: model.label for slug, model in spec.config.models.items()}
    items = [Item("table", n, words(n), caption) for n, caption in spec.tables.items()]
    items += [Item("figure", n, title(n, labels), caption) for n, caption in spec.figures.items()]
    return Plan(tuple(items), spec.sheets, spec.sheet_caption, spec.config)


def of_what_is_there(tables: Sequence[str], figures: Sequence[str], sheets: Sequence[str]) -> Plan:
    """The plan of a folder that has none: whatever there is."""
    found = [Item("table", name, words(name)) for name in tables]
    found += [Item("figure", name, title(name)) for name in figures]
    return Plan(tuple(found), tuple(sheets), "", None)
