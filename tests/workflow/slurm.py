"""A real SLURM of one node on this machine, without systemd: controller, node daemon and munge, on the loopback alone.

Debian packages: slurmctld slurmd slurm-client munge. Only root can start it, for munge has a user of its own and SLURM
reads /etc/slurm. What each line of the configuration is for stands beside it; without them jobs do not start.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged", "mungekey")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# No control groups in a container: processes are found in /proc, and memory is watched by polling.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
# Needed for --gpus.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# squeue remembers ended jobs for so long.
MinJobAge=3600
KillWait=2
# More cores than there are, so that several small jobs run at once.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=01:00:00 State=UP
PartitionName=gpu Nodes={host} MaxTime=01:00:00 State=UP
"""


def missing() -> str:
    """What keeps a SLURM from being started here, or nothing."""
    if os.geteuid() != 0:
        return "SLURM can only be started by root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def _call(*command: str, seconds: float = 10) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"PATH": _PATH},
    )


def _start(*command: str, user: str | None = None) -> None:
    """A daemon: it keeps what it was given as output, so that it may get none of ours."""
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=30,
        user=user,
        env=os.environ | {"PATH": _PATH},
    )


def _until(ready, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come up within {seconds} s")
        time.sleep(0.1)


class Slurm:
    """Started on entering, stopped with all its jobs on leaving."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> "Slurm":
        for name in ("controller", "node"):
            (self.folder / name).mkdir(parents=True)
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        # Jobs find their configuration here alone: a job step does not hand SLURM_CONF on.
        etc = Path("/etc/slurm")
        etc.mkdir(exist_ok=True)
        (etc / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                folder=self.folder,
                cores=4 * (os.cpu_count() or 1),
                memory=int(0.9 * pages / 2**20),
            )
        )
        # A card without a device file is thrown away; this one is nobody's.
        (etc / "gres.conf").write_text("Name=gpu Count=1 File=/dev/null\n")
        if not Path("/etc/munge/munge.key").exists():
            _start("mungekey", "--create", user="munge")
        munge = pwd.getpwnam("munge")
        run = Path("/run/munge")
        run.mkdir(exist_ok=True)
        os.chown(run, munge.pw_uid, munge.pw_gid)
        if not self._munge_answers():
            _start("munged", "--force", user="munge")
        _until(self._munge_answers, "munged")
        _start("slurmctld", "-i")
        _start("slurmd")
        _until(lambda: "idle" in _call("sinfo", "-h", "-o", "%T").stdout, "the node")
        return self

    def __exit__(self, *_) -> None:
        self.cancel()
        for name in ("slurmd", "slurmctld"):
            process = int((self.folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            _until(lambda process=process: not _lives(process), f"the end of {name}")

    @staticmethod
    def _munge_answers() -> bool:
        return _call("munge", "-n").returncode == 0

    @staticmethod
    def cancel() -> None:
        """End all jobs."""
        _call("scancel", "--user", "root")

    @staticmethod
    def jobs(state: str = "all") -> list[dict[str, str]]:
        """Jobs by their comment (rule and wildcards), with state, partition, and memory, minutes and cards asked for."""
        names = {
            "state": "%T",
            "partition": "%P",
            "memory": "%m",
            "time": "%l",
            "gpu": "%b",
            "rule": "%k",
        }
        form = "|".join(names.values())
        lines = _call("squeue", "-h", "-t", state, "-o", form).stdout.splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]


def _lives(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")")[-1].split()[0] != "Z"
