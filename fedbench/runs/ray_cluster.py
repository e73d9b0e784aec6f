"""A suite on a Ray cluster: tasks, each of which is ``fedbench run`` of the whole suite in one shared folder.

As on Slurm (:mod:`fedbench.runs.slurm`) every task takes runs that no other has until none is left, and writes their records
itself: nothing goes through Ray's object store, and a task lives as long as there is work. Ray starts the task of a lost node
again elsewhere. Its resources are bookkeeping: a fraction of a GPU keeps tasks apart, not their memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Sequence

from fedbench.errors import UserError

_OWN = ("FEDBENCH_", "OMP_", "PYTHONPATH", "PATH")
"""Variables of this process that the tasks have, too."""


def run_on_ray(arguments: Sequence[str], tasks: int, cores: int, options: Sequence[str]) -> Sequence[int]:
    """``fedbench run`` with these arguments, ``tasks`` times, until all have ended; their exit codes, those lost left out.

    The cluster is that of ``RAY_ADDRESS``, or the one that runs on this machine.

    Args:
        arguments: after ``fedbench run``. cores: of each task.
        options: of a Ray task, ``key=value`` each, such as ``num_gpus=0.5`` or ``memory=8000000000``.

    Raises:
        UserError: Ray or a cluster is not there, or an option is none.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'fedbench[ray]'.") from None
    given: dict[str, float] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            given[key] = float(value) if "." in value else int(value)
        except ValueError:
            raise UserError(f"--ray {option!r} must be KEY=NUMBER, such as num_gpus=0.5.") from None
    variables = {key: value for key, value in os.environ.items() if key.startswith(_OWN)}
    codes: list[int] = []
    with contextlib.redirect_stdout(sys.stderr):  # what Ray has to say is no verdict
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
            remote = ray.remote(task).options(num_cpus=cores, max_retries=3, **given)
            waiting = [remote.remote(list(arguments), os.getcwd(), variables) for _ in range(tasks)]
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--executor ray: {' '.join(str(error).split())[:300]}.") from None
        try:
            while waiting:
                (ended, *_), waiting = ray.wait(waiting)
                with contextlib.suppress(ray.exceptions.RayError):  # lost too often: the others take over
                    codes.append(ray.get(ended))
        finally:
            ray.shutdown()
    return codes


def task(arguments: Sequence[str], folder: str, variables: dict[str, str]) -> int:
    """What a task does: its exit code."""
    command = [sys.executable, "-m", "fedbench", "run", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, stdout=quiet, stderr=quiet, check=False
    ).returncode
