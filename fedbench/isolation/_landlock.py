"""Files that a process may read, and no others (Landlock, Linux 5.13 and later)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # numbers of the system calls on every architecture
_VERSION, _BENEATH = 1, 1
_READ = 1 << 2 | 1 << 3  # files and folders
_READ_FILE = 1 << 2
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights over files each version of the interface knows."""
_NETWORK, _SCOPED = (4, 3), (6, 3)
"""From which version on TCP, and signals and sockets to other processes, can be refused, and all bits of it."""
_NO_NEW_PRIVILEGES = 38


def version() -> int:
    """Of the interface; 0: there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    found: int = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(found, 0)


def read_only(paths: Iterable[Path]) -> bool:
    """From now on this process, for good, reads what is beneath ``paths`` and writes nothing; False: it cannot be done."""
    abi = version()
    if not abi:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    handled = (1 << max(count for since, count in _RIGHTS.items() if since <= abi)) - 1
    rules = struct.pack("<QQQ", handled, *(bits if abi >= since else 0 for since, bits in (_NETWORK, _SCOPED)))
    rules = rules[: 24 if abi >= _SCOPED[0] else 16 if abi >= _NETWORK[0] else 8]
    ruleset = libc.syscall(_CREATE, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path in paths:
            try:
                opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                allowed = struct.pack("<Qi", _READ if path.is_dir() else _READ_FILE, opened)
                libc.syscall(_ADD, ruleset, _BENEATH, allowed, ctypes.c_uint32(0))
            finally:
                os.close(opened)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            return False
        return bool(libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)
