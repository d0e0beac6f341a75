"""What each process of the tests does: verbs one after the other, as the command line would.

Started by `nsvit.launcher`; the first argument is a JSON list of command lines. A second one says
what happens to the last process then: "killed", or "frozen" as on a node that dies.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from nsvit import cli, distributed, runtime
from nsvit.errors import NsvitError
from nsvit.models import inject
from tests.small import small_vit

log = logging.getLogger(__name__)


def main() -> int:
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        code = cli.main(arguments)
        if code:
            return code
    sharded = Path(sys.argv[1]).with_name("sharded.json")
    difference = fully_sharded_difference()
    distributed.on_main(lambda: sharded.write_text(json.dumps(difference)))
    if len(sys.argv) > 2 and distributed.rank() == distributed.count() - 1:
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}[sys.argv[2]])
    return _wait()


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
