"""How fast machines are: peaks of their makers' data sheets, and the share that is assumed.

A peak says little about a job. Measure one (`nsvit status` shows seconds per job of a first, small
run) and give `--throughput`; until then the shares below are assumptions, and stated as such.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nsvit.errors import NsvitError


@dataclass(frozen=True)
class Machine:
    """A device.

    Attributes:
        name: as people call it.
        single: peak of single-precision products, TFLOP/s, without TF32.
        half: dense peak of bf16 products (fp16 where there is no bf16), TFLOP/s; None: none.
        memory_gb: of the device.
    """

    name: str
    single: float
    half: float | None
    memory_gb: float


MACHINES: dict[str, Machine] = {
    "t4": Machine("T4", 8.1, 65, 16),
    "v100": Machine("V100 SXM2", 15.7, 125, 32),
    "rtx3090": Machine("RTX 3090", 35.6, 71, 24),
    "a10": Machine("A10", 31.2, 125, 24),
    "a6000": Machine("RTX A6000", 38.7, 155, 48),
    "a100": Machine("A100 SXM", 19.5, 312, 80),
    "l4": Machine("L4", 30.3, 121, 24),
    "rtx4090": Machine("RTX 4090", 82.6, 165, 24),
    "h100": Machine("H100 SXM", 67, 989, 80),
    "h200": Machine("H200", 67, 989, 141),
}

#: The share of a peak that is assumed to be reached, by precision. ViT-S on the CPU of FACTS
#: reached a quarter of its fp32 and half of its bf16 rate of plain matrix products.
SHARES = {"fp32": 0.5, "bf16": 0.25}

#: What the rules' `runtime` assumes where NSVIT_TFLOPS does not say, TFLOP/s: a slow GPU.
SLOW = 8.0
#: By how much `runtime` exceeds the estimate, and what it is at least, minutes.
MARGIN, LEAST_MINUTES = 1.5, 30.0


@dataclass(frozen=True)
class Speed:
    """What an estimate is made with.

    Attributes:
        tflops: floating-point operations a second that jobs reach, in 10^12.
        readers: cores that read pictures for one job.
        why: where `tflops` comes from.
        memory_gb: of the device, None where it is not known.
    """

    tflops: float
    readers: int
    why: str
    memory_gb: float | None = None


def speed_of(
    gpu: str, precision: str = "fp32", throughput: float | None = None, readers: int = 8
) -> Speed:
    """The speed of a device by name, or as measured.

    Args:
        gpu: a key of `MACHINES`.
        precision: "fp32" or "bf16".
        throughput: TFLOP/s as measured; then the table says the memory only.
        readers: cores that read pictures for one job.

    Raises:
        NsvitError: no such device, a device without that precision, or no positive number.
    """
    machine = MACHINES.get(gpu.lower().replace("-", "").replace(" ", ""))
    if machine is None:
        raise NsvitError(
            f"--gpu {gpu}: known are {', '.join(MACHINES)}; for another one give --throughput "
            "in TFLOP/s, as measured"
        )
    if readers < 1:
        raise NsvitError(f"--readers {readers}: at least one core reads pictures")
    if throughput is not None:
        if not throughput > 0:
            raise NsvitError(f"--throughput {throughput}: a positive number of TFLOP/s is needed")
        return Speed(throughput, readers, f"{throughput:g} TFLOP/s as given", machine.memory_gb)
    peak = machine.half if precision == "bf16" else machine.single
    if peak is None:
        raise NsvitError(f"--precision {precision}: {machine.name} has no peak for it here")
    share = SHARES[precision]
    why = (
        f"{machine.name}, {precision}: {100 * share:g} % of its peak of {peak:g} TFLOP/s "
        "(data sheet; the share is an assumption)"
    )
    return Speed(share * peak, readers, why, machine.memory_gb)


def slow_speed() -> Speed:
    """What the rules' `runtime` is made with: NSVIT_TFLOPS, or a slow GPU.

    Raises:
        NsvitError: NSVIT_TFLOPS is no positive number.
    """
    text = os.environ.get("NSVIT_TFLOPS")
    try:
        value = SLOW if not text else float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise NsvitError(f"NSVIT_TFLOPS={text}: a positive number of TFLOP/s is needed")
    return Speed(value, 1, "NSVIT_TFLOPS" if text else "a slow GPU")
