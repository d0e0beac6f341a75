"""The report of one experiment: what was planned, what there is, and what that says. No torch.

Everything comes from files below `results/<experiment>`; what is missing or damaged there is
named on the page, and the rest is shown.
"""

from nsvit.report.folder import Evidence, Problem, read_evidence
from nsvit.report.markdown import Grid, Part, read_grid
from nsvit.report.verbs import write_plan, write_report

__all__ = [
    "Evidence",
    "Grid",
    "Part",
    "Problem",
    "read_evidence",
    "read_grid",
    "write_plan",
    "write_report",
]
