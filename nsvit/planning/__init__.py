"""What an experiment sets out to do and what that costs, before anything runs. No torch.

`jobs_of` lists the jobs, `Costs` counts passes, memory and disk of each, `make_plan` adds them up
for a machine. The rules ask `memory_mb` and `minutes`, so that a plan and the resources that a
cluster is asked for never disagree.
"""

from nsvit.planning.costs import Cost, Costs
from nsvit.planning.estimate import Plan, Stage, make_plan
from nsvit.planning.jobs import Job, jobs_of
from nsvit.planning.machines import MACHINES, Speed, speed_of
from nsvit.planning.pictures import Sizes, sizes_of
from nsvit.planning.resources import memory_mb, minutes
from nsvit.planning.text import HEADER, notes, plan_text, stage_rows
from nsvit.planning.vit import VitShape, shape_of
from nsvit.planning.work import Work

__all__ = [
    "HEADER",
    "MACHINES",
    "Cost",
    "Costs",
    "Job",
    "Plan",
    "Sizes",
    "Speed",
    "Stage",
    "VitShape",
    "Work",
    "jobs_of",
    "make_plan",
    "memory_mb",
    "minutes",
    "notes",
    "plan_text",
    "shape_of",
    "sizes_of",
    "speed_of",
    "stage_rows",
]
