"""`results/<experiment>/README.md`: which file answers which question."""

from __future__ import annotations

from nsvit.report.view import Entry, View

#: What lies beside tables and figures; only folders that a run has are listed.
FOLDERS = (
    ("plan.json", "What was this run to make, with which configuration?"),
    ("records", "What did every model predict for every picture? All numbers come from here."),
    ("scores.parquet", "What is the score of every picture? Tables of accuracies come from here."),
    ("runs", "How did every finetuning run go, and what are its weights (`history.json`)?"),
    ("dynamics", "What would every round have scored (subsets)?"),
    ("influence", "What did noise at every block do to held-out pictures?"),
    ("noise", "Which noise was learned at every block?"),
    ("lambda", "What did noise learned with every lambda, and its permutation, do?"),
    ("closure", "What did multiples, mixtures and sums of two such noises do?"),
    ("nullspace", "Which pixel directions does every model ignore?"),
    ("models", "Which models were finetuned?"),
    ("pretrained", "Which models were trained from scratch?"),
    ("index", "Which pictures are in every set?"),
    ("rendered", "What drew the pictures?"),
    ("data", "The pictures themselves, in the layouts of the real sets."),
    ("logs", "What did a job say? Its first line repeats the job by hand."),
    ("benchmarks", "How long did a job take, and how much memory?"),
)


def readme(view: View, folders: frozenset[str]) -> str:
    """The list of files, as markdown.

    Args:
        view: what the report shows.
        folders: names of what is in the results folder.
    """
    lines = [
        f"# Results of the experiment {view.name}",
        "",
        "Made by `nsvit report`, not by hand. Start with [report.html](report.html): one page with",
        "everything below, which opens without a network.",
    ]
    if view.gaps:
        lines += ["", "**Missing or damaged:**", ""]
        lines += [f"- `{gap.path}`: {_text(gap.text)}" for gap in view.gaps]
    for chapter in view.chapters:
        if chapter.entries:
            lines += ["", f"## {chapter.question}", "", *_list(chapter.entries)]
    if view.sheets:
        caption = [_text(view.sheet_caption), ""] if view.sheet_caption else []
        lines += ["", "## What do the pictures look like?", "", *caption, *_list(view.sheets)]
    lines += ["", "## Where is the rest?", "", "| question | file or folder |", "|---|---|"]
    lines += [f"| {text} | `{name}` |" for name, text in FOLDERS if name in folders]
    return "\n".join(lines) + "\n"


def _list(entries: tuple[Entry, ...]) -> list[str]:
    lines = ["| what | files |", "|---|---|"]
    for entry in entries:
        files = ", ".join(f"[{file.name}]({file.name})" for file in entry.files)
        text = f"**{_text(entry.title)}**"
        if entry.caption:
            text += f": {_text(entry.caption)}"
        lines.append(f"| {text} | {files or 'missing'} |")
    return lines


def _text(text: str) -> str:
    for sign in "\\|*_<[":
        text = text.replace(sign, f"\\{sign}")
    return text
