"""How the process of an entry is confined: what it reads, and what it can reach and take.

Everywhere it is a process of its own with limits on memory and files. On Linux it also confines itself before it sees the
entry: Landlock leaves it the packages that it imports and nothing else to read, and nothing to write; seccomp leaves it no
network and no other process, neither to start nor to signal nor to look into. Where bubblewrap is installed, it begins
in namespaces of its own, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import fedbench
from fedbench.isolation import _landlock, _seccomp
from fedbench.isolation.limits import Limits

_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "ATEN_CPU_CAPABILITY")
"""Variables that Python and torch need to start; no other reaches the process."""
_SYSTEM = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64", "/etc/ld.so.cache",
    "/etc/ld.so.conf", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom", "/sys/devices/system/cpu", "/proc/cpuinfo",
)  # fmt: skip
_PARENT_DEATH, _DUMPABLE = 1, 4


def environment(free: bool = False) -> dict[str, str]:
    """The variables of the process: what it needs to import torch and fedbench, and nothing of the user's unless ``free``."""
    if free:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(_own()), os.environ.get("PYTHONPATH")]))}
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join([str(_own()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return kept | one | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/", "FEDBENCH_DATA": "/nowhere"}


def readable() -> list[Path]:
    """What the process may read: Python, the packages installed for it, fedbench, and the system's libraries."""
    found = [Path(sys.prefix), Path(sys.base_prefix), _own() / "fedbench", *map(Path, _SYSTEM)]
    found += [Path(each) for each in sysconfig.get_paths().values()]
    found += [Path(each) for each in sys.path if "-packages" in Path(each).name]
    return list(dict.fromkeys(each.resolve() for each in found if each.exists() and each != Path("/")))


def _own() -> Path:
    return Path(fedbench.__file__).resolve().parents[1]


@functools.cache
def bubblewrap() -> tuple[str, ...]:
    """The command that begins a process in namespaces of its own; empty where bubblewrap is missing or may not."""
    found = shutil.which("bwrap") if sys.platform.startswith("linux") else None
    if found is None:
        return ()
    binds = [
        part for path in readable() if path.parts[1] not in ("dev", "sys", "proc") for part in ("--ro-bind", path, path)
    ]
    links = [
        part
        for path in map(Path, ("/lib", "/lib64"))
        if path.is_symlink()
        for part in ("--symlink", path.readlink(), path)
    ]
    command = [found, "--unshare-all", "--die-with-parent", "--new-session", "--dev", "/dev", "--proc", "/proc"]
    command = list(
        map(str, [*command, "--ro-bind", "/sys/devices/system/cpu", "/sys/devices/system/cpu", *binds, *links])
    )
    python = [sys.executable, "-I", "-S", "-c", "pass"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(
            [*command, *python], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20
        )
        if tried.returncode == 0:
            return tuple(command)
    return ()


def means() -> str:
    """How entries are confined on this machine, as far as can be told without starting one."""
    found = [name for name, there in (("bubblewrap", bubblewrap()), ("landlock", _landlock.version())) if there]
    return f"sandbox:{'+'.join(found)}" if found else "process"


def confine(limits: Limits, wrapped: bool, free: bool = False) -> str:
    """Confine this process, for good; returns what is in force, as records say it.

    ``process``: nothing but the limits. ``sandbox:...``: the system confines it, by these means.

    Args:
        limits: what it may take. wrapped: whether bubblewrap began it. free: of files and calls nothing is refused.
    """
    _set_limits(limits)
    if not sys.platform.startswith("linux"):
        return "process"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PARENT_DEATH, 9, 0, 0, 0)
    if free:
        return "process"
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    files = _landlock.read_only(readable())
    calls = _seccomp.filter_calls()
    means = [name for name, there in (("bubblewrap", wrapped), ("landlock", files), ("seccomp", calls)) if there]
    return f"sandbox:{'+'.join(means)}" if wrapped or (files and calls) else "process"


def _set_limits(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    size = _address_space()
    wanted: Mapping[str, int] = {
        "RLIMIT_AS": size + limits.memory if size else resource.RLIM_INFINITY,
        "RLIMIT_FSIZE": limits.files,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
        "RLIMIT_NPROC": 4096,
        "RLIMIT_MEMLOCK": 0,
    }
    for name, value in wanted.items():
        kind = getattr(resource, name, None)
        if kind is None or value == resource.RLIM_INFINITY:
            continue
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """Bytes that this process has of it already; 0: unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0
