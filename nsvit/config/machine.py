"""What a run computes with. Changes no result beyond rounding, so no spec holds it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nsvit.config.base import PositiveInt, Section


class MachineConfig(Section):
    """The processes of one job."""

    processes: PositiveInt | Literal["auto"] = Field(
        1,
        description="that compute a noise, a finetuning or an evaluation together; auto: one for "
        "each GPU that the job sees, on every node; on CPUs one for each SLURM task",
    )

    @property
    def cores(self) -> int:
        """CPU cores that such a job takes: one for each process, as far as that is known."""
        return 1 if self.processes == "auto" else self.processes
