"""A SLURM cluster of one node on this machine, for tests: munge of its own, fake GPUs.

Needs root and the packages of `PACKAGES`. Everything lies in one folder of its own, but for two
links in /etc/slurm: Snakemake's plugin keeps SLURM's variables from jobs, so that a job's srun
looks for its configuration there and nowhere else.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "munged")
#: Waits for another apt, and not for minutes for a host that does not answer.
APT = ("-oDPkg::Lock::Timeout=120", "-oAcquire::http::Timeout=20", "-oAcquire::Retries=1")
ETC = Path("/etc/slurm")
PREFIX = "nsvit-slurm-"
#: In a cluster's folder: locked as long as the test that started it runs.
ALIVE = "alive"
#: In the environment of every process of the cluster and of its jobs: how they are found again.
MARK = "NSVIT_TEST_CLUSTER"

CONF = """\
ClusterName=nsvit
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MinJobAge=900
KillWait=5
GresTypes=gpu
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.log
NodeName=local NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus} State=UNKNOWN
PartitionName=main Nodes=local Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=scavenge Nodes=local MaxTime=1-00:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=local MaxTime=1-00:00:00 State=UP PriorityTier=20 PreemptMode=OFF
"""  # noqa: E501


class Unavailable(Exception):
    """SLURM cannot be had or started on this machine: no fault of the project."""


def install() -> None:
    """Makes sure that SLURM's programs are there, by apt where they are not.

    Raises:
        Unavailable: not root, or apt cannot install them.
    """
    if os.geteuid() != 0:
        raise Unavailable("it needs root")
    if not (missing := _missing()):
        return
    if shutil.which("apt-get") is None:
        raise Unavailable(f"no {', '.join(missing)} here, and no apt-get to install it with")
    log.info("installing %s", " ".join(PACKAGES))
    # A list that cannot be fetched does not matter where an older one will do.
    problems = [_apt("update"), _apt("install", "-y", "--no-install-recommends", *PACKAGES)]
    if missing := _missing():
        reasons = "; ".join(filter(None, problems)) or "although the packages are installed"
        raise Unavailable(f"no {', '.join(missing)} here: {reasons}")


def _apt(verb: str, *arguments: str) -> str:
    """Runs apt-get; returns what went wrong, or nothing."""
    command = ["apt-get", verb, "-qq", *APT, *arguments]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {verb} is not done after 300 s"
    if not done.returncode:
        return ""
    return f"apt-get {verb} failed: {''.join(done.stderr.strip().splitlines()[-1:])}"


def _missing() -> list[str]:
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return [name for name in PROGRAMS if shutil.which(name, path=places) is None]


class Cluster:
    """The daemons, from `start` to `stop`; a context manager."""

    def __init__(self, cpus: int, gpus: int = 2) -> None:
        self.base = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.base.chmod(0o755)  # munge refuses a folder that others cannot pass
        self.cpus, self.gpus = cpus, gpus
        path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
        self.environment = {**os.environ, "PATH": path, MARK: str(self.base)}
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.alive = (self.base / ALIVE).open("w")  # the lock goes with this process
        fcntl.flock(self.alive, fcntl.LOCK_EX)

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the daemons and waits for the node.

        Raises:
            Unavailable: a daemon does not come up here; says what its log says last.
        """
        _sweep()
        for name in ("state", "spool", "log", "run", "gpu", "munge"):
            (self.base / name).mkdir(mode=0o755)
        self._write_configuration()
        key = self.base / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        here = self.base / "munge"
        places = (f"--{name}={here}/{name.split('-')[0]}" for name in _MUNGE)
        self._daemon("munged", "--foreground", "--force", *places)
        self._until("munge", lambda: (here / "socket").exists())
        conf = str(self.base / "slurm.conf")
        self._daemon("slurmctld", "-D", "-c", "-f", conf)
        self._daemon("slurmd", "-D", "-N", "local", "-f", conf)
        self._until("the node", lambda: self.ask("sinfo", "-h", "-p", "main", "-o", "%t") == "idle")

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints; empty if it fails."""
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def stop(self) -> None:
        """Cancels jobs, ends every process of the cluster and removes what it made."""
        if any(daemon.poll() is None for daemon in self.daemons):
            self.ask("scancel", "--full", "-u", "root")
            deadline = time.monotonic() + 15
            while self.ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.3)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        _remove(self.base)
        self.alive.close()

    def _write_configuration(self) -> None:
        gres = []
        for number in range(self.gpus):
            node = self.base / f"gpu/nvidia{number}"
            try:  # any character device will do: nothing opens it
                os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
            except PermissionError:
                raise Unavailable("no device files can be made here (mknod)") from None
            gres.append(f"Name=gpu Type=fake File={node} Flags=nvidia_gpu_env\n")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
        values = {"base": self.base, "host": socket.gethostname().split(".")[0], "ports": _ports()}
        text = CONF.format(**values, cpus=self.cpus, memory=memory, gpus=self.gpus)
        (self.base / "slurm.conf").write_text(text)
        (self.base / "gres.conf").write_text("".join(gres))
        try:
            ETC.mkdir(exist_ok=True)
            for name in _LINKS:
                (ETC / name).symlink_to(self.base / name)
        except OSError as error:  # read-only, or another test was faster
            raise Unavailable(f"{ETC} cannot be used: {error.strerror}") from None

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.base / f"log/{name}.out").open("wb") as out:
            program = shutil.which(name, path=self.environment["PATH"]) or name
            daemon = subprocess.Popen(
                [program, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.daemons.append(daemon)

    def _until(self, what: str, ready: Callable[[], bool], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            dead = [d for d in self.daemons if d.poll() is not None]
            if dead or time.monotonic() > deadline:
                name = Path(dead[0].args[0]).name if dead else what  # type: ignore[index]
                raise Unavailable(f"{name} does not come up: {self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        logs = sorted((self.base / "log").iterdir(), key=lambda path: path.stat().st_mtime)
        found = [text[-400:] for path in logs if (text := path.read_text(errors="replace").strip())]
        return found[-1] if found else "nothing in its log"


_LINKS = ("slurm.conf", "gres.conf")
_MUNGE = ("key-file", "socket", "pid-file", "log-file", "seed-file")


def _ports() -> list[int]:
    """Two free ports."""
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, two)]


def _sweep() -> None:
    """Removes what an earlier test left that was killed.

    Raises:
        Unavailable: this machine is configured for a SLURM that is not a test's, or is that of a
            test that runs.
    """
    for name in _LINKS:
        link = ETC / name
        if not link.is_symlink() and not link.exists():
            continue
        base = Path(os.readlink(link)).parent if link.is_symlink() else link
        if not base.name.startswith(PREFIX):
            raise Unavailable(f"{link} is there: this machine has a SLURM of its own")
        if _runs(base):
            raise Unavailable(f"another test has its SLURM in {base}")
        _remove(base)


def _runs(base: Path) -> bool:
    """Whether the test that started a cluster still runs."""
    try:
        with (base / ALIVE).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _remove(base: Path) -> None:
    """Ends the processes that carry the folder's mark, then deletes its links and itself."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5
        while (pids := marked(base)) and time.monotonic() < deadline:
            for pid in pids:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)
    for name in _LINKS:
        link = ETC / name
        if link.is_symlink() and Path(os.readlink(link)).parent == base:
            link.unlink()
    shutil.rmtree(base, ignore_errors=True)


def marked(base: Path) -> list[int]:
    """The processes of a cluster, jobs included, but for this one and its parents.

    slurmd hands its own environment on to no slurmstepd but for the path of the configuration.
    """
    signs = {f"{MARK}={base}".encode(), f"SLURM_CONF={base}/slurm.conf".encode()}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if signs & set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another's
            continue
    return [pid for pid in found if pid != os.getpid()]
