"""Starts a verb in several processes: as many as asked for, or as the allocation has. No torch.

A verb that is to run in several processes starts itself again in each of them and waits for them,
with the launcher behind torchrun (`accelerate launch` starts one process on CPUs). On several
nodes of a SLURM job it starts torchrun once on each node, through srun.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from nsvit import stopping
from nsvit.errors import NsvitError

log = logging.getLogger(__name__)

#: Seconds that a process waits for the others before it gives up.
TIMEOUT = 600.0
#: In the environment of processes that `launch` started.
LAUNCHED = "NSVIT_LAUNCHED"
#: What srun has to know of a job to start a step on all of its nodes.
_OF_JOB = ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")


def started() -> int:
    """How many processes this one was started as one of; 1 alone."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def started_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started() > 1 else 1


def launched() -> bool:
    """Whether a verb started this process and waits for it; it also says how that ended."""
    return LAUNCHED in os.environ and started() > 1


def is_first() -> bool:
    """Whether this is the process that shows progress and logs: the first, or the only one."""
    return started() == 1 or os.environ["RANK"] == "0"


def timeout() -> float:
    """Seconds that a process waits for the others: NSVIT_TIMEOUT, or ten minutes.

    Raises:
        NsvitError: not a positive number.
    """
    return seconds("NSVIT_TIMEOUT", TIMEOUT)


def seconds(name: str, default: float) -> float:
    """Seconds as a variable of the environment says, or the default.

    Raises:
        NsvitError: not a positive number.
    """
    text = os.environ.get(name) or str(default)
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise NsvitError(f"{name}={text}: expected a number of seconds above 0")
    return found


def nodes(given: int | None = None) -> int:
    """Nodes to start processes on: as given, else all of this SLURM job or step, else this one.

    Raises:
        NsvitError: not a number above 0.
    """
    if given is not None and given < 1:
        raise NsvitError(f"--nodes {given}: expected a number above 0")
    return given or int(os.environ.get("SLURM_NNODES") or 1)


def wanted(processes: str, given_nodes: int | None = None) -> tuple[int, int]:
    """How many processes to start in all, and on how many nodes.

    Args:
        processes: a number, or "auto": one for each GPU that this job sees, on every node; on
            CPUs one for each SLURM task.
        given_nodes: as of `nodes`.

    Raises:
        NsvitError: not a number above 0, or not the same number on each node.
    """
    there = nodes(given_nodes)
    if processes == "auto":
        number = _gpus() * there or max(int(os.environ.get("SLURM_NTASKS") or 1), there)
    else:
        try:
            number = int(processes)
        except ValueError:
            number = 0
    if number < 1:
        raise NsvitError(f"--processes {processes}: expected a number above 0, or auto")
    if number == 1:
        return 1, 1
    if number % there:
        raise NsvitError(
            f"{number} processes cannot be shared equally by the {there} nodes of this SLURM job: "
            "set machine.processes to a multiple, or to auto"
        )
    return number, there


def _gpus() -> int:
    """GPUs that this process sees; none if it is told to compute on CPUs."""
    if os.environ.get("NSVIT_DEVICE") == "cpu":
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def launch(
    processes: str,
    arguments: Sequence[str],
    batches: Mapping[str, int] | None = None,
    module: str = "nsvit.cli",
    nodes: int | None = None,
) -> bool:
    """Runs a verb in several processes, if it is to be and this is not one of them.

    Args:
        processes: as of `wanted`.
        arguments: of the whole command line.
        batches: pictures in the global batches that the processes share, by key of the
            configuration; each process needs one at least.
        module: what to run.
        nodes: of the SLURM job, to start them on; as SLURM says by default.

    Returns:
        Whether that was done. If not, the caller goes on itself.

    Raises:
        NsvitError: the processes cannot be started, or one of them failed; then all are ended.
    """
    if started() > 1 or processes == "1":
        return False
    number, there = wanted(processes, nodes)
    if number == 1:
        return False
    for key, size in (batches or {}).items():
        refuse_small_batch(number, size, key)
    timeout()
    command = [sys.executable, "-m", module, *arguments]
    os.environ[LAUNCHED] = "1"
    try:
        if there > 1:
            _on_nodes(number // there, there, command)
        else:
            _here(number, command)
    finally:
        del os.environ[LAUNCHED]
    return True


def refuse_small_batch(number: int, size: int, key: str) -> None:
    """Refuses more processes than a global batch has pictures.

    Raises:
        NsvitError: names the key of the configuration.
    """
    if number > size:
        raise NsvitError(
            f"{number} processes, but {key} has only {size} pictures to share: some would have "
            f"none; lower machine.processes to {size} at most, or raise {key}"
        )


def _here(number: int, command: Sequence[str]) -> None:
    """Starts processes on this machine; the first that fails ends all."""
    import torch.distributed

    if not torch.distributed.is_available():
        raise NsvitError(
            "this build of torch has no torch.distributed, which several processes need: install "
            "another one, or set machine.processes: 1"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    port = _port(0)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        local_addr="127.0.0.1",
        max_restarts=0,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        if code - 128 in stopping.ASKED:
            raise stopping.Stopped(code - 128) from None
        raise NsvitError(_failure(number, error)) from None
    except SignalException as error:
        raise stopping.Stopped(error.sigval) from None


def _failure(number: int, error: Any) -> str:
    """What to say of the first process that failed."""
    rank, failure = error.get_first_failure()
    how = f"exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"killed by {failure.signal_name()}"
    return (
        f"process {rank} of {number} ended with an error ({how}); its own message is above. The "
        "others were ended; what is finished is kept"
    )


def _on_nodes(each: int, nodes: int, command: Sequence[str]) -> None:
    """Starts torchrun on every node of a SLURM job, with `each` processes."""
    srun = shutil.which("srun")
    if srun is None:
        raise NsvitError(
            f"this SLURM job has {nodes} nodes, and srun, which starts processes on the others, "
            "is not in PATH; ask for one node, or install SLURM's commands on the nodes"
        )
    job = os.environ.get("SLURM_JOB_ID", "0")
    port = _port(20000 + int(job) % 20000)
    head = os.environ.get("NSVIT_HEAD") or socket.gethostname()
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    torchrun += [f"--nproc_per_node={each}", f"--rdzv_id={job}", "--rdzv_backend=c10d"]
    torchrun += [f"--rdzv_endpoint={head}:{port}", "--max_restarts=0", "--no_python"]
    several = [srun, "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    several += ["--cpu-bind=none", "--kill-on-bad-exit=1"]  # torchrun's processes share a task
    # What SLURM tells a step would bind this one to the same: its node, its one task.
    told = {n: v for n, v in os.environ.items() if not n.startswith("SLURM_") or n in _OF_JOB}
    started = subprocess.Popen([*several, *torchrun, *command], env=told)
    try:
        code = started.wait()
    except stopping.Stopped as asked:
        started.send_signal(asked.signal)
        started.wait()
        raise
    if code:
        raise NsvitError(
            f"{each * nodes} processes on {nodes} nodes: one ended with an error (srun's exit code "
            f"{code}); its own message is above. What is finished is kept"
        )


def _port(default: int) -> int:
    """Where the processes meet: NSVIT_PORT, or the default; 0 is any that is free.

    Raises:
        NsvitError: something else listens there, or it is not a port.
    """
    text = os.environ.get("NSVIT_PORT") or str(default)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(text)))
        except (OSError, OverflowError, ValueError) as error:
            raise NsvitError(
                f"port {text} (NSVIT_PORT), where the processes are to meet, cannot be used "
                f"({error}): set NSVIT_PORT to another one"
            ) from None
    return int(text)
