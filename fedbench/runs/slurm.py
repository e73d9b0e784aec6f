"""A suite on a Slurm cluster: an array of tasks, each of which is ``fedbench run`` of the whole suite in one shared folder.

Every task takes runs that no other has (:mod:`fedbench.runs.claims`) until none is left, and writes their records itself. One
that is killed loses the runs under way; those that go on take them over, and so does whoever runs the suite again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fedbench.errors import UserError

CLUSTER = "slurm"
LOGS = ".fedbench-slurm"
"""The folder beside the records in which submitit keeps scripts and output."""


def submit(arguments: Sequence[str], results: Path, tasks: int, cores: int, options: Sequence[str]) -> str:
    """Hand ``fedbench run`` with these arguments to Slurm, ``tasks`` times, as one array; the job's id.

    Args:
        arguments: after ``fedbench run``. results: the folder that all machines see. cores: of each task.
        options: of sbatch, ``key=value`` each, such as ``partition=gpu`` or ``time=120``.

    Raises:
        UserError: submitit or Slurm is not there, an option is none, or Slurm refuses the job.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--executor slurm needs submitit: pip install '.[slurm]' in a checkout of fedbench.") from None
    known = set(submitit.SlurmExecutor._valid_parameters())
    own: dict[str, int | str] = {"cpus_per_task": cores}
    more: dict[str, int | str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not (key and equals and value):
            raise UserError(f"--slurm {option!r} must be KEY=VALUE, such as partition=gpu.")
        (own if key in known else more)[key] = int(value) if value.isdecimal() else value
    folder = results / LOGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTER)
        given = {f"slurm_{key}": value for key, value in own.items()}
        executor.update_parameters(
            name="fedbench", slurm_array_parallelism=tasks, slurm_additional_parameters=more, **given
        )
        with executor.batch():
            jobs = [executor.submit(task, list(arguments)) for _ in range(tasks)]
    except (OSError, RuntimeError, subprocess.SubprocessError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"--executor slurm: {' '.join(str(error).split())[:300]}.") from None
    return str(jobs[0].job_id).partition("_")[0]


def task(arguments: Sequence[str]) -> None:
    """What a task of the array does; one that did not run to its end fails, as Slurm shows."""
    code = subprocess.run([sys.executable, "-m", "fedbench", "run", *arguments], check=False).returncode
    if code:
        raise SystemExit(code)
