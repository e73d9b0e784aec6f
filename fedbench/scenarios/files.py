"""Files in the place of names in a suite: ``attack = "./my_attack.py"``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from fedbench.plugins import KINDS, Kind, is_file, load_file

T = TypeVar("T")


def with_files(value: T, change: Callable[[str, Kind], str], key: str = "") -> T:
    """``value`` with every file that stands for an entry replaced by what ``change`` makes of its path and kind.

    Files stand below the keys ``attack``, ``defense``, ``model`` and ``dataset``, not among parameters; those of defenses
    may be parts of a chain.
    """
    if isinstance(value, Mapping):
        made: Any = {
            name: each if name.endswith("_params") else with_files(each, change, name) for name, each in value.items()
        }
    elif isinstance(value, list):
        made = [with_files(each, change, key) for each in value]
    elif isinstance(value, str) and key in KINDS and ".py" in value:
        kind: Kind = key
        parts = value.split("+") if kind == "defense" else [value]
        made = "+".join(change(part, kind) if is_file(part) else part for part in parts)
    else:
        made = value
    return cast(T, made)


def named_in(folder: Path) -> Callable[[str, Kind], str]:
    """Loads the file at a path as seen from ``folder``, and gives the name on its card."""
    return lambda path, kind: load_file(folder / os.path.expanduser(path), kind).name
