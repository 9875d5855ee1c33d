"""A real Slurm of one node, in a folder of its own and as whoever starts it: Debian's daemons, without accounting.

`python -m tests.one_node_slurm FOLDER` starts it and waits for Ctrl-C; what it prints lets other shells use it.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
DEBIAN = "apt-get install slurmctld slurmd slurm-client munge"
PATIENCE_S, POLL_S = 60.0, 0.2
NODE = "node0"
CONFIG = """\
ClusterName=brainlit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,sched_min_interval=100000,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
MaxArraySize=100
KillWait=5
MinJobAge=3600
InactiveLimit=0
SlurmdTimeout=300
NodeName={node} NodeAddr=127.0.0.1 CPUs={n_cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurmError(RuntimeError):
    """It cannot be started here; the message says why."""


@dataclass
class OneNodeSlurm:
    """Its daemons, and the variables with which Slurm's commands find it."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """For the commands of users."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def say(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, env=os.environ | self.environ, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NoSlurmError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> None:
        """Start all daemons and wait until the node takes jobs."""
        self._start("munged", *self._munge())
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self.start_node()
        self._wait(lambda: "idle" in self.node_state())

    def start_node(self) -> None:
        """Start the daemon of the node."""
        self._start("slurmd", "-D", "-N", NODE, "-f", str(self.folder / "slurm.conf"))

    def kill_node(self) -> None:
        """End the daemon of the node as a crash would; its jobs go on."""
        daemon = self.daemons.pop("slurmd")
        daemon.kill()
        daemon.wait()

    def node_state(self) -> str:
        """idle, mixed, allocated; with a * while the daemon of the node does not answer; '' where nobody does."""
        try:
            return self.say("sinfo", "--noheader", "--format", "%T").strip()
        except NoSlurmError:
            return ""

    def stop(self) -> None:
        """End all jobs, then all daemons."""
        if "slurmctld" in self.daemons:
            subprocess.run(["scancel", "--user", getpass.getuser()], env=os.environ | self.environ, check=False)
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until and self._jobs():
                time.sleep(POLL_S)
        for name in ("slurmd", "slurmctld", "munged"):
            if daemon := self.daemons.pop(name, None):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def _munge(self) -> list[str]:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        return [
            *("--foreground", "--force", "--num-threads=2", f"--key-file={key}"),
            *(f"--{option}={self.folder / name}" for option, name in files.items()),
        ]

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.txt").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program(name), *arguments],  # none outlives a test that is killed
                env=os.environ | self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _jobs(self) -> str:
        try:
            return self.say("squeue", "--noheader")
        except NoSlurmError:
            return ""

    def _wait(self, is_there: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_there():
            for name, daemon in self.daemons.items():
                if daemon.poll() is not None:
                    end = (self.folder / f"{name}.txt").read_text(errors="replace").strip().splitlines()[-3:]
                    raise NoSlurmError(f"{name} ended: {' / '.join(end)}")
            if time.monotonic() > until:
                raise NoSlurmError(f"the node was not ready after {PATIENCE_S:.0f} s: {self.node_state()}")
            time.sleep(POLL_S)


def program(name: str) -> str:
    """Where a daemon or command is.

    Raises
    ------
    NoSlurmError
        If it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        raise NoSlurmError(f"there is no {name} here ({DEBIAN})")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def one_node_slurm(folder: Path, n_cpus: int = 2) -> Iterator[OneNodeSlurm]:
    """Start it in a new folder; it is gone afterwards.

    Raises
    ------
    NoSlurmError
        If it cannot be started here.
    """
    for name in PROGRAMS:
        program(name)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    ports = {"controller_port": free_port(), "daemon_port": free_port()}
    text = CONFIG.format(
        folder=folder,
        user=getpass.getuser(),
        node=NODE,
        host=socket.gethostname().partition(".")[0],
        n_cpus=n_cpus,
        **ports,
    )
    (folder / "slurm.conf").write_text(text)
    slurm = OneNodeSlurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


if __name__ == "__main__":
    with one_node_slurm(Path(sys.argv[1]).absolute()) as started:
        print(*(f"export {name}={value}" for name, value in started.environ.items()), flush=True)
        signal.pause()
