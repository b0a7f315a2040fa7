"""A Slurm of one node, which is this machine: its daemons, and what its commands say of its jobs."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
# Debian keeps daemons where only root's path looks.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]

# The jobs of a test need no more than their own processes; what Slurm measures and binds is left out.
_CONF = """\
ClusterName=pixels
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """The daemons and their folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        control, node = _free_ports()
        self._conf = folder / "slurm.conf"
        self._conf.write_text(
            _CONF.format(
                host=socket.gethostname().split(".")[0],
                user=getpass.getuser(),
                folder=folder,
                control=control,
                node=node,
            )
        )

    @property
    def env(self) -> dict[str, str]:
        """By which Slurm's commands find it."""
        return {"SLURM_CONF": str(self._conf), "PATH": _PATH}

    def begin(self) -> None:
        """Start the daemons; returns when the node takes jobs."""
        files = ("key-file", "munge.key"), ("socket", "munge.socket"), ("pid-file", "munged.pid")
        more = ("log-file", "munged.log"), ("seed-file", "munged.seed")
        options = [f"--{name}={self.folder / value}" for name, value in (*files, *more)]
        self._start("munged", "--foreground", "--force", *options)
        wait_until((self.folder / "munge.socket").exists)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D")
        wait_until(lambda: self.command("sinfo", "--noheader", "--format=%T").strip() == "idle")

    def command(self, *words: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(words, env={**os.environ, **self.env}, capture_output=True, text=True)
        return done.stdout

    def jobs(self, state: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
        """Ids of the jobs in one of these states."""
        return self.command("squeue", "--noheader", "--format=%A", f"--states={state}").split()

    def end(self) -> None:
        self.command("scancel", f"--user={getpass.getuser()}")
        wait_until(lambda: not self.jobs())
        for process in reversed(self._processes):
            process.terminate()
            process.wait()

    def _start(self, name: str, *options: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self._processes.append(
            subprocess.Popen(
                [str(shutil.which(name, path=_PATH)), *options],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    # A socket's path has little room, and munge refuses folders that others may write to.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        made = Slurm(Path(folder))
        try:
            made.begin()
            yield made
        finally:
            made.end()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
