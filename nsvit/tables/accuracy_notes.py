"""What stands under a table of accuracies, and the names of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nsvit import paper
from nsvit.specs import AccuracySpec
from nsvit.statistics.checks import Doubt
from nsvit.tables.accuracy import AVERAGE, average_columns, cells_of, is_asked, is_error
from nsvit.tables.sheet import half_width, signed

if TYPE_CHECKING:
    import pandas as pd

#: After a number that the evaluator itself doubts.
DOUBTED = "‡"
#: Lines of doubts under a table; the rest is counted.
MOST_DOUBTS = 8


def column_label(spec: AccuracySpec, column: str) -> str:
    """A column's heading, with an arrow where lower is better."""
    if column == AVERAGE:
        return "Average"
    if column in spec.robust:
        return spec.robust[column].label
    own = spec.conditions[column]
    name = f"{own.label} (mCE)" if own.metric == "mce" and "mCE" not in own.label else own.label
    return f"{name} ↓" if own.is_error else name


def notes(frame: pd.DataFrame, spec: AccuracySpec, doubts: Sequence[Doubt] = ()) -> list[str]:
    """Everything a reader needs beside the numbers, shortest first where possible."""
    return [
        *_interval_notes(spec),
        *_re_adaptation(frame, spec),
        *_average_notes(spec),
        *_metric_notes(spec),
        *(_paper_notes(spec) if frame["paper"].notna().any() else []),
        *_gap_notes(frame, spec),
        *doubt_notes(doubts, spec),
    ]


def _interval_notes(spec: AccuracySpec) -> list[str]:
    s = spec.statistics
    found = [
        f"±: the larger half of the {100 * s.confidence:g} % interval (both ends are in the csv): "
        "Wilson for the accuracy of a single run, else percentile bootstrap "
        f"({s.resamples} resamples) over pictures, and over seeds where there are several"
        + ("; of a difference as said below. " if spec.against else ". ")
        + "n: pictures in each run. Bold: best of its row, not a test."
    ]
    if spec.against:
        found.append(
            "Differences: on the same pictures, seeds paired; ± is half of a t interval from the "
            "spread over pictures and that between seeds, which is not taken below its mean over "
            "all arms and models. Not corrected for the number of differences; "
            "table paired is. In a row with ↓ a negative difference is the better one."
        )
    return found + _one_seed(spec)


def _one_seed(spec: AccuracySpec) -> list[str]:
    """How differences take an arm that is trained and has one seed."""
    seeds = {
        (model, arm): len(spec.arms[arm].seeds[: spec.models[model].max_seeds])
        for model, arm in spec.runs()
        if arm not in spec.untrained
    }
    if not spec.against or 1 not in seeds.values():
        return []
    if max(seeds.values()) == 1:
        return [
            "No arm has several seeds: the spread between seeds is unknown, and differences are "
            "of these runs, not of the methods."
        ]
    return [
        "An arm that is trained with one seed is taken to vary between seeds as those with "
        "several do on average, which widens its differences."
    ]


def _re_adaptation(frame: pd.DataFrame, spec: AccuracySpec) -> list[str]:
    """How much of what noise gains comes from finetuning alone, on Average."""
    kinds = {slug: arm.kind for slug, arm in spec.arms.items()}
    bases = [slug for slug in spec.against if kinds[slug] == "none"]
    plains = [slug for slug, kind in kinds.items() if kind == "plain"]
    noisy = [slug for slug, kind in kinds.items() if kind == "nullspace"]
    if not (bases and plains and noisy):
        return []
    base, plain, arm = bases[0], plains[0], noisy[0]
    rows = frame[(frame["minus"] == base) & (frame["column"] == AVERAGE)].dropna(subset="value")
    found = {
        (row["model"], row["method"]): " ".join((
            signed(row["value"]), half_width(row["value"], row["low"], row["high"])
        ))
        for row in rows.to_dict("records")
    }  # fmt: skip
    names = spec.arms[plain].label, spec.arms[arm].label, spec.arms[base].label
    parts = [
        f"{spec.models[model].label}: {names[0]} {found[model, plain]}, "
        f"{names[1]} {found[model, arm]}"
        for model in spec.models
        if (model, plain) in found and (model, arm) in found
    ]
    if not parts:
        return []
    return [
        f"Re-adaptation, in points of Average over {names[2]}: {'; '.join(parts)}. What "
        f"{names[0]} gains comes from finetuning alone, not from noise."
    ]


def _average_notes(spec: AccuracySpec) -> list[str]:
    """What the Average is over, for each group of models that have the same columns."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for model in spec.models:
        groups.setdefault(average_columns(spec, model), []).append(spec.models[model].label)
    found = []
    for columns, models in groups.items():
        labels = ", ".join(spec.conditions[slug].label for slug in columns) or "nothing"
        of = f" of {', '.join(models)}" if len(groups) > 1 else ""
        found.append(f"Average{of}: mean of {labels}")
    errors = any(is_error(spec, slug) for columns in groups for slug in columns)
    end = "; errors count as 100 - error" if errors else ""
    return [
        f"{'. '.join(found)}{end}. Its n: all of their pictures; sets made from val's pictures "
        "(C, DAmageNet) count anew and are resampled on their own, as if they were others."
    ]


def _metric_notes(spec: AccuracySpec) -> list[str]:
    found = []
    shown = {slug: spec.conditions[slug] for slug in spec.columns if slug in spec.conditions}
    metrics = {one.metric for one in shown.values()}
    cells = "mean over corruptions and severities; each picture is shown in all of them"
    if "corruption_error" in metrics:
        found.append(f"Error (↓ lower is better): {cells}. Not normalised, so not an mCE.")
    if "mce" in metrics:
        found.append(f"mCE (↓ lower is better): error divided by AlexNet's, {cells}.")
    for slug, robust in spec.robust.items():
        labels = ", ".join(spec.conditions[one].label for one in robust.conditions)
        found.append(f"{column_label(spec, slug)}: right under every one of {labels}; over all n.")
    free = [one.label for one in shown.values() if not one.restricted]
    if free:
        found.append(f"{', '.join(free)}: predicted among all classes.")
    return found


def _paper_notes(spec: AccuracySpec) -> list[str]:
    printed = {arm.paper: arm.label for arm in spec.arms.values() if arm.paper}
    other = [f"{label}: {name}" for name, label in printed.items() if name != label]
    named = f" Its names: {'; '.join(other)}." if other else ""
    found = [
        "Italics: the paper's printed numbers (arXiv 2403.10476; single runs, ImageNet-1k and its "
        "siblings; its C is an mCE). On other pictures, such as Menagerie, levels cannot be "
        f"compared with them, only the sign of a difference.{named}"
    ]
    columns = {
        spec.conditions[slug].paper
        for model in spec.models
        for slug in average_columns(spec, model)
    }
    if columns != set(paper.COLUMNS):
        found.append(
            "The paper's averages are recomputed over the columns that count here; it prints "
            "them over eleven columns."
        )
    return found


# --- what is not there ----------------------------------------------------------------------


def _gap_notes(frame: pd.DataFrame, spec: AccuracySpec) -> list[str]:
    found = []
    every = (*spec.columns, AVERAGE)
    if not all(is_asked(spec, model, arm, c) for model, arm in spec.runs() for c in every):
        found.append("—: not evaluated there, by configuration.")
    most = max(len(arm.seeds) for arm in spec.arms.values())
    few = {m.label: m.max_seeds for m in spec.models.values() if (m.max_seeds or most) < most}
    if few:
        named = "; ".join(f"{label}: at most {seeds}" for label, seeds in few.items())
        found.append(f"Fewer seeds where time forbids more: {named}.")
    missing = missing_cells(frame, spec)
    return found + ([f"Missing: {'; '.join(missing)}."] if missing else [])


def missing_cells(frame: pd.DataFrame, spec: AccuracySpec) -> list[str]:
    """What the table lacks, in words: rows without records, columns, seeds."""
    out = []
    numbers = frame[frame["minus"] == ""]
    for (model, arm), part in numbers.groupby(["model", "method"], sort=False):
        model, arm = str(model), str(arm)
        name = f"{spec.models[model].label}, {spec.arms[arm].label}"
        asked = part[[is_asked(spec, model, arm, str(c)) for c in part["column"]]]
        gaps = asked[asked["value"].isna()]
        expected = len(spec.arms[arm].seeds[: spec.models[model].max_seeds])
        fewer = asked[asked["seeds"].notna() & (asked["seeds"] < expected)]
        if len(gaps) and len(gaps) == len(asked):
            out.append(f"{name} (no records)")
            continue
        if len(gaps):
            out.append(f"{name}: {', '.join(column_label(spec, str(c)) for c in gaps['column'])}")
        if len(fewer):
            where = ", ".join(column_label(spec, str(c)) for c in fewer["column"])
            out.append(f"{name}: {int(fewer['seeds'].min())} of {expected} seeds in {where}")
    return out


def doubt_notes(doubts: Sequence[Doubt], spec: AccuracySpec, most: int = MOST_DOUBTS) -> list[str]:
    """The doubts about this table in words, those of one check and condition as one.

    A doubt whose place is not known is told too, since it may be about any cell.

    Args:
        doubts: of its records.
        spec: of the table.
        most: lines, beside the first; the rest is counted.
    """
    groups: dict[tuple[str, str], list[Doubt]] = {}
    for doubt in doubts:
        place = doubt.place()
        if place is None or cells_of(doubt, spec):
            known = place is not None and not place.source
            column = (place.condition or place.set) if place and known else doubt.where
            groups.setdefault((doubt.check, column), []).append(doubt)
    if not groups:
        return []
    lines = [_doubt_line(group, spec) for group in groups.values()]
    kept = lines[:most]
    more = sum(len(group) for group in list(groups.values())[most:])
    rest = f"{DOUBTED} {more} more doubts: `doubts` in the manifests below records/ has them all."
    first = f"{DOUBTED} not to be trusted, for a reason that the evaluator found itself:"
    return [first, *kept, *([rest] if more else [])]


def _doubt_line(group: list[Doubt], spec: AccuracySpec) -> str:
    places = [place for place in (doubt.place() for doubt in group) if place]
    if not places:
        return f"{DOUBTED} {group[0].where} (no cell is marked for it): {group[0].text}."
    if places[0].source:
        return f"{DOUBTED} {group[0].where}: {group[0].text}."
    first = places[0]
    what = column_label(spec, first.condition) if first.condition else f"attacks on {first.set}"
    runs: dict[str, list[str]] = {}
    for place in places:
        name = f"{spec.models[place.model].label} {spec.arms[place.arm].label}"
        runs.setdefault(name, []).append(str(place.seed))
    where = "; ".join(f"{name} ({', '.join(seeds)})" for name, seeds in runs.items())
    shown = "first of them: " if len(group) > 1 else ""
    return f"{DOUBTED} {what}, {where}: {shown}{group[0].text}."
