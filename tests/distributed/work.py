"""What each process of the tests does: verbs one after the other, as the command line would.

Started by `nsvit.launcher`; the first argument is a JSON list of command lines. The last but one
of them is stopped again and again, the last once, for others to go on with. A second argument says
what happens to the last process then: "killed", or "frozen" as on a node that dies; `fate.json`
beside the first has when that was.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from nsvit import cli, distributed, runtime, stopping
from nsvit.errors import NsvitError
from nsvit.models import inject
from tests.small import small_vit

log = logging.getLogger(__name__)


#: Points of a run (steps of noise and of training) that it comes to before it is stopped: with
#: these, both in the middle of noises and of rounds.
POINTS = 3


def main() -> int:
    *commands, stopped, handed = json.loads(Path(sys.argv[1]).read_text())
    for arguments in commands:
        code = cli.main(arguments)
        if code:
            return code
    codes = stopped_again_and_again(stopped)
    if stopped_again_and_again(handed, at_most=1) != [143]:
        return 1
    difference = fully_sharded_difference()
    distributed.on_main(lambda: _tell("codes", codes))
    distributed.on_main(lambda: _tell("sharded", difference))
    if len(sys.argv) > 2 and _is_last():
        _tell("fate", time.time())
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}[sys.argv[2]])
    return _wait()


def _tell(name: str, what: object) -> None:
    Path(sys.argv[1]).with_name(f"{name}.json").write_text(json.dumps(what))


def _is_last() -> bool:
    return distributed.rank() == distributed.count() - 1


def stopped_again_and_again(arguments: list[str], at_most: int = 30) -> list[int]:
    """A verb whose last process alone is asked to end every few points; its exit codes."""
    original, seen = stopping.point, 0

    def point() -> None:
        nonlocal seen
        seen += 1
        if seen == POINTS and _is_last():
            signal.raise_signal(signal.SIGTERM)
        original()

    codes: list[int] = []
    with mock.patch.object(stopping, "point", point):
        while len(codes) < at_most and (not codes or codes[-1] == 128 + signal.SIGTERM):
            seen = 0
            codes.append(cli.main(arguments))
    return codes


def fully_sharded_difference() -> float:
    """Largest difference of a weight between training with FSDP and without, noise injected."""
    model, whole = small_vit(), small_vit()
    mesh = init_device_mesh("cpu", (distributed.count(),))
    for block in (*model.blocks, model):
        fully_shard(block, mesh=mesh)  # type: ignore[arg-type]
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(1, *model.token_shape, generator=torch.Generator().manual_seed(1))
    labels, part = torch.arange(8) % 4, distributed.part(8)
    everything = distributed.Part(slice(0, 8), 1.0 / distributed.count())
    for net, own in ((model, part), (whole, everything)):
        # A large `eps`, so that rounding in gradients that are zero is not blown up.
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, eps=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            with inject(net, noise, block=1):
                loss = cross_entropy(net(images[own.rows]), labels[own.rows])
            (loss * own.weight * distributed.count()).backward()  # FSDP averages
            optimizer.step()
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    return max(float((a.full_tensor() - b).detach().abs().max()) for a, b in pairs)  # type: ignore[attr-defined]


def _wait() -> int:
    """Waits for all processes, which the end of a verb does too."""
    runtime.setup_logging()
    try:
        distributed.barrier()
    except NsvitError as error:
        log.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
