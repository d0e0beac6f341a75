"""What the rules ask for: memory and time of a job, from the same numbers as the plan."""

from __future__ import annotations

import math
import os

from nsvit.planning.costs import CUDA_MB, GPU_RULES, Cost, Costs
from nsvit.planning.machines import LEAST_MINUTES, MARGIN, slow_speed
from nsvit.planning.schedule import seconds_of

#: Memory is asked for in these steps, so that a small change of settings changes nothing.
STEP_MB = 500
#: Rules whose jobs several processes can compute together.
SHARED_RULES = frozenset(("learn_noise", "lambda_study", "finetune", "evaluate"))
#: By how much the memory asked for exceeds the estimate.
SPARE = 1.2


def memory_mb(costs: Costs, rule: str, *wildcards: str) -> int:
    """`mem_mb` of a job: of the host, and where NSVIT_DEVICE=cpu of the device too.

    Each of its processes takes as much as one alone, a bit less as its part of a batch is smaller.
    """
    cost = costs.of_rule(rule, *wildcards)
    needed = cost.host_mb
    if rule in GPU_RULES and os.environ.get("NSVIT_DEVICE") == "cpu":
        needed += cost.gpu_mb - CUDA_MB
    if rule in SHARED_RULES:
        needed *= costs.exp.machine.cores
    return STEP_MB * math.ceil(SPARE * needed / STEP_MB)


def minutes(costs: Costs, rule: str, *wildcards: str) -> int:
    """`runtime` of a job: the estimate for a slow GPU and one reading core, with a margin."""
    return _minutes(costs.of_rule(rule, *wildcards))


def _minutes(cost: Cost) -> int:
    seconds = seconds_of(cost, slow_speed())
    needed = LEAST_MINUTES + MARGIN * (seconds or 0.0) / 60
    return 10 * math.ceil(needed / 10)
