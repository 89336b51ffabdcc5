"""A real SLURM of one node on this machine, without systemd: controller, node daemon and munge, on the loopback alone.

Debian packages: slurmctld slurmd slurm-client munge, with accounts also slurmdbd mariadb-server. Only root can start
it, for munge has a user of its own and SLURM reads /etc/slurm. What each line of the configuration is for stands beside
it; without them jobs do not start.
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
PROGRAMS += ("slurmdbd", "mariadbd", "mariadb-install-db")
# The first line of every file that is written to where SLURM reads its configuration.
OURS = "# A SLURM for the tests of tissue-counterfactuals.\n"
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
{accounts}
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
# A job that waits for the card must not keep others, which share its node, waiting too.
PartitionName=cpu Nodes={host} Default=YES MaxTime=02:00:00 State=UP PriorityTier=2
PartitionName=gpu Nodes={host} MaxTime=02:00:00 State=UP
"""
NO_ACCOUNTS = "AccountingStorageType=accounting_storage/none"
ACCOUNTS = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
AccountingStorageTRES=gres/gpu"""
DATABASE = """AuthType=auth/munge
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass=x
StorageLoc=slurm_acct_db
"""
# Jobs find their configuration here alone: a job step does not hand SLURM_CONF on.
ETC = Path("/etc/slurm")
# Whom jobs are billed to where accounts are kept.
ACCOUNT = "laboratory"


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
    """Started on entering, stopped with all its jobs on leaving; with accounts in a database or without."""

    def __init__(self, folder: Path, accounts: bool = False):
        self.folder = folder
        self.accounts = accounts
        # What a test that was killed has left is not what the machine had.
        found = [ETC / name for name in ("slurm.conf", "gres.conf", "slurmdbd.conf")]
        self.before = {path: path.read_text() if path.is_file() else OURS for path in found}

    def __enter__(self) -> "Slurm":
        for name in ("controller", "node"):
            (self.folder / name).mkdir(parents=True)
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text(
            OURS
            + CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                folder=self.folder,
                accounts=ACCOUNTS if self.accounts else NO_ACCOUNTS,
                cores=4 * (os.cpu_count() or 1),
                memory=int(0.9 * pages / 2**20),
            )
        )
        # A card without a device file is thrown away; this one is nobody's.
        (ETC / "gres.conf").write_text(f"{OURS}Name=gpu Count=1 File=/dev/null\n")
        if not Path("/etc/munge/munge.key").exists():
            _start("mungekey", "--create", user="munge")
        munge = pwd.getpwnam("munge")
        run = Path("/run/munge")
        run.mkdir(exist_ok=True)
        os.chown(run, munge.pw_uid, munge.pw_gid)
        if not self._munge_answers():
            _start("munged", "--force", user="munge")
        _until(self._munge_answers, "munged")
        if self.accounts:
            self._keep_accounts()
        _start("slurmctld", "-i")
        _start("slurmd")
        _until(lambda: "idle" in _call("sinfo", "-h", "-o", "%T").stdout, "the node")
        if self.accounts:
            _until(
                lambda: "test" in _call("sacctmgr", "-n", "list", "cluster").stdout,
                "the cluster's accounts",
            )
            assert _call("sacctmgr", "-i", "add", "account", ACCOUNT).returncode == 0
            assert _call("sacctmgr", "-i", "add", "user", "root", f"Account={ACCOUNT}").returncode == 0
        return self

    def _keep_accounts(self) -> None:
        """A database on the loopback, and SLURM's daemon before it."""
        data, socket_file = self.folder / "database", self.folder / "database.socket"
        for folder in (self.folder, *self.folder.parents):
            # pytest keeps its folders to itself; the database has a user of its own.
            if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        data.mkdir()
        shutil.chown(data, "mysql", "mysql")
        shutil.chown(self.folder, "mysql", "mysql")
        made = _call(
            "mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={data}", "--skip-test-db", seconds=120
        )
        assert made.returncode == 0, made.stdout + made.stderr
        files = [
            f"--datadir={data}",
            f"--socket={socket_file}",
            f"--log-error={self.folder}/database.log",
        ]
        files.append(f"--pid-file={self.folder}/mariadbd.pid")
        limits = ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        address = ["--bind-address=127.0.0.1", "--port=16820"]
        self.database = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=mysql", *files, *limits, *address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PATH": _PATH},
        )
        ask = ("mariadb", "--no-defaults", f"--socket={socket_file}", "-e")
        _until(lambda: _call(*ask, "select 1").returncode == 0, "the database", seconds=60)
        for host in ("127.0.0.1", "localhost"):
            right = f"grant all on slurm_acct_db.* to slurm@'{host}' identified by 'x'"
            assert _call(*ask, right).returncode == 0
        settings = ETC / "slurmdbd.conf"
        settings.touch(mode=0o600)
        settings.chmod(0o600)
        settings.write_text(OURS + DATABASE.format(host=socket.gethostname().split(".")[0], folder=self.folder))
        _start("slurmdbd")
        _until(
            lambda: _call("sacctmgr", "-n", "list", "cluster").returncode == 0,
            "slurmdbd",
            seconds=60,
        )

    def __exit__(self, *_) -> None:
        self.cancel()
        for name in ("slurmd", "slurmctld", *["slurmdbd"] * self.accounts):
            process = int((self.folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            _until(lambda process=process: not _lives(process), f"the end of {name}")
        if self.accounts:
            self.database.terminate()
            self.database.wait(timeout=60)
        # Where a configuration names a controller that is gone, every start of Snakemake asks for it ten seconds long.
        for path, text in self.before.items():
            if text.startswith(OURS):
                path.unlink(missing_ok=True)
            else:
                path.write_text(text)

    @staticmethod
    def _munge_answers() -> bool:
        return _call("munge", "-n").returncode == 0

    @staticmethod
    def cancel() -> None:
        """End all jobs."""
        _call("scancel", "--user", "root")

    @staticmethod
    def jobs(state: str = "all") -> list[dict[str, str]]:
        """Jobs by their comment (rule and wildcards), with state, partition, and memory, minutes and cards asked
        for.
        """
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

    @staticmethod
    def billed(account: str) -> set[str]:
        """States of the jobs that an account has paid for."""
        told = _call("sacct", "-n", "-X", "-A", account, "-o", "State%20").stdout
        return set(told.split())


def _lives(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")")[-1].split()[0] != "Z"
