"""Options that commands share, and which of their values make sense."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedbench.runs.calibration import Faster

DEFAULT_RESULTS = Path("results")
SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name, or the path of a .toml file.")]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=GLOB", help="Only these scenarios, such as dataset=ml-100k,attack=pieck-*. Repeatable."),
]
Seeds = Annotated[
    str | None, typer.Option(metavar="N|LIST", help="So many seeds, or these (0,1,4), instead of the suite's own.")
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|cuda:0,cuda:1|cuda:all",
        help="Where to compute; GPUs of a list share the runs. auto: where there is a GPU, each run on it or on the CPU, by"
        " trials of some epochs on both.",
    ),
]
Jobs = Annotated[
    int | None, typer.Option(help="Worker processes, on the CPU and on GPUs. [default: one for each core, or GPU]")
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        help="This attack instead of the suite's, such as ./my_attack.py; without a suite, these: a,b,c.",
    ),
]
Defense = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME", help="This defense instead of the suite's, or these; a+b is a chain."),
]
Model = Annotated[str | None, typer.Option(metavar="FILE|NAME", help="This model instead of the suite's, or these.")]
Dataset = Annotated[
    str | None, typer.Option(metavar="FILE|NAME", help="This dataset instead of the suite's, or these.")
]
Ratio = Annotated[
    str | None,
    typer.Option(metavar="SHARE,...", help="Without a suite: shares of malicious clients. [default: 0.05]"),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="Without a suite: protocols. [default: that of core for what is run]"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A field of the protocol, target, or model.X, attack.X, defense.X; with commas, each of several. Repeatable.",
    ),
]
Shard = Annotated[
    str | None, typer.Option(metavar="I/N", help="Only the I-th of N equal parts of the runs, for as many machines.")
]
Results = Annotated[
    Path,
    typer.Option(
        envvar="FEDBENCH_RESULTS", callback=lambda path: Path(os.path.expanduser(path)), help="Folder of the records."
    ),
]

SBATCH = {
    "account": "NAME",
    "constraint": "NAME",
    "gpus": "1",
    "gpus-per-node": "1",
    "gres": "gpu:1",
    "mem": "16G",
    "nodelist": "NAME",
    "partition": "gpu",
    "qos": "NAME",
    "reservation": "NAME",
    "time": "240",
}
"""Options of sbatch that somebody may take for options of `run`, and a value of each."""


def slurm_hint(option: str) -> str:
    """How an option that ``run`` does not have is given to Slurm, such as ``--partition``; "" for one of nobody."""
    name = option.lstrip("-")
    if name not in SBATCH:
        return ""
    return f"Slurm gets it by --executor slurm --slurm {name}={SBATCH[name]}"


def choose_device(name: str, here: bool = True) -> str:
    """``cpu``, ``cuda`` or a list of GPUs; raises :class:`UserError` for another name, or a GPU that is not there.

    Where it is not for ``here``, but for other machines, only the name is looked at.
    """
    from fedbench.errors import UserError
    from fedbench.runs.devices import is_list, numbers

    if name not in ("auto", "cpu", "cuda:all") and not is_list(name):
        raise UserError(f"--device {name!r} must be auto, cpu, cuda, cuda:all, or GPUs such as cuda:0,cuda:1.")
    if not here or name == "cpu" or (name == "auto" and not Path("/dev/nvidiactl").exists()):
        return "cpu"  # decided without the seconds that importing torch takes
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if there else "cpu"
    if not there:
        raise UserError(f"--device {name}: torch sees no GPU here; use --device cpu.")
    if name == "cuda:all":
        return ",".join(f"cuda:{number}" for number in range(there))
    missing = [number for number in numbers(name) if number >= there]
    if missing:
        raise UserError(
            f"--device {name}: there is no cuda:{missing[0]} here, the GPUs are cuda:0 to cuda:{there - 1}."
        )
    return name


def choose_faster(device: str, where: str, jobs: int | None) -> Faster | None:
    """What tells which runs the cores end sooner, for ``--device auto`` with a GPU; None: all runs go where they are sent.

    Args:
        device: as asked for. where: what :func:`choose_device` made of it. jobs: as asked for.
    """
    from fedbench.runs.calibration import Faster
    from fedbench.runs.devices import CPU
    from fedbench.runs.local import default_jobs

    if device != "auto" or where == CPU:
        return None
    return Faster(jobs or default_jobs(CPU), jobs or default_jobs(where))


def choose_jobs(jobs: int | None) -> int | None:
    """``jobs``, if it makes sense."""
    from fedbench.errors import UserError

    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs} must be at least 1.")
    return jobs


def choose_shard(shard: str | None) -> tuple[int, int]:
    """(i, n) of ``i/n``."""
    from fedbench.errors import UserError

    if shard is None:
        return 1, 1
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {shard!r} must be I/N, the I-th of N parts, with I from 1 to N, such as 1/4.")
    return int(found[1]), int(found[2])


def choose_every(diagnostics: bool, every: int | None) -> int | None:
    """Every how many rounds diagnostics are kept; None: never."""
    from fedbench.errors import UserError
    from fedbench.runs.diagnostics import EVERY

    if every is not None and every < 1:
        raise UserError(f"--diagnose-every {every} must be at least 1.")
    return every if every is not None else EVERY if diagnostics else None
