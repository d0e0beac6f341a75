"""A running experiment seen from another terminal, or another machine that sees its disk. No torch.

Only files are read: the plan, outputs, benchmarks and logs. Snakemake and its lock are left alone,
so it does not matter what runs the jobs, Snakemake here or SLURM elsewhere. What is out of date by
Snakemake's rules (a changed configuration, a newer input) counts as done here.
"""

from nsvit.status.look import Seen, State, Status, find_results, look
from nsvit.status.text import status_text

__all__ = ["Seen", "State", "Status", "find_results", "look", "status_text"]
