"""Where a run runs: device, versions, platform, and the git commit of fedbench's own checkout."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import fedbench


def environment(device: str) -> dict[str, Any]:
    """Where a run runs: device, versions, platform, and the git commit of fedbench's own checkout, if it is one."""
    import numpy
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    commit, dirty = git_state()
    return {
        "device": device.partition(":")[0],
        "device_name": name,
        "threads": torch.get_num_threads(),
        "fedbench_version": fedbench.__version__,
        "torch_version": torch.__version__,
        "numpy_version": numpy.__version__,
        "python_version": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git_commit": commit,
        "git_dirty": dirty,
    }


@functools.cache
def processor() -> str:
    """The name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """The commit of fedbench's own checkout, and whether its code was changed since; None where it is no checkout."""
    root = Path(fedbench.__file__).parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--", "fedbench"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changed)
