"""What a run computes with. Changes no result beyond rounding, so no spec holds it."""

from __future__ import annotations

from collections.abc import Mapping
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

    def check_batches(self, sizes: Mapping[str, int]) -> None:
        """Refuses more processes than a global batch has pictures.

        Args:
            sizes: of the batches, by key.

        Raises:
            ValueError: names the key.
        """
        for key, size in sizes.items():
            if self.cores > size:
                raise ValueError(
                    f"machine.processes: {self.processes} processes cannot share {key}, which is "
                    f"{size}; lower it to {size} at most"
                )

    @property
    def cores(self) -> int:
        """CPU cores, and GPUs, of such a job: one for each process, as far as that is known."""
        return 1 if self.processes == "auto" else self.processes
