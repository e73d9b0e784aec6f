"""Slurm itself on this machine: its daemons, on ports and in a folder of their own, with nodes that all live here.

It wants Debian's packages ``slurmctld``, ``slurmd``, ``slurm-client`` and ``munge`` (other distributions have the same), no
systemd and no cgroups, and runs as whoever starts it. By hand::

    with slurm(Path("/tmp/slurm")) as variables:  # SLURM_CONF, for sbatch, squeue, scancel and fedbench
        subprocess.run(["sinfo"], env={**os.environ, **variables})
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue")
SYSTEM = "/usr/sbin:/sbin"
MUNGE = (("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))
CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
KillWait=5
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
"""Of 22.05 and later; ``config_overrides`` lets nodes have more cores together than the machine."""


def lacking() -> list[str]:
    """Programs of Slurm that are not here."""
    return [name for name in NEEDED if shutil.which(name, path=_path()) is None]


@contextlib.contextmanager
def slurm(folder: Path, nodes: int = 2, cores: int = 2) -> Iterator[dict[str, str]]:
    """A cluster of so many nodes as long as the block lasts: the variables with which its commands find it.

    Args:
        folder: of its files; what lies above must not be writable for everybody, as munged wants it. nodes, cores: of each.
    """
    for name in ("state", *(f"n{node}" for node in range(nodes))):
        (folder / name).mkdir(parents=True, mode=0o755)
    host, (control, *ports) = socket.gethostname(), _free_ports(nodes + 1)
    lines = [
        f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores}"
        for node, port in enumerate(ports)
    ]
    names = ",".join(f"n{node}" for node in range(nodes))
    user = pwd.getpwuid(os.getuid()).pw_name
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=host, control=control, user=user, folder=folder, nodes="\n".join(lines), names=names)
    )
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    variables = {"SLURM_CONF": str(conf), "PATH": _path()}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--{name}={folder}/munge.{end}" for name, end in MUNGE]
    daemons = [munge, ["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", f"n{node}"] for node in range(nodes))]
    running: list[subprocess.Popen[bytes]] = []
    quiet = subprocess.DEVNULL
    try:
        for command in daemons:
            running.append(
                subprocess.Popen(command, env={**os.environ, **variables}, stdin=quiet, stdout=quiet, stderr=quiet)
            )
            if len(running) == 1:
                _wait(lambda: (folder / "munge.sock").exists(), folder)
        _wait(lambda: _idle(variables) == nodes, folder)
        yield variables
    finally:
        if len(running) == len(daemons):
            subprocess.run(
                ["scancel", "--user", user], env={**os.environ, **variables}, check=False, capture_output=True
            )
            with contextlib.suppress(TimeoutError):
                _wait(lambda: not _jobs(variables), folder)
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _idle(variables: dict[str, str]) -> int:
    said = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return said.split().count("idle")


def _jobs(variables: dict[str, str]) -> list[str]:
    said = subprocess.run(
        ["squeue", "--noheader", "--format=%i"],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return said.split()


def _wait(condition: Callable[[], bool], folder: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
            raise TimeoutError(f"Slurm does not answer: {said}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM}"
