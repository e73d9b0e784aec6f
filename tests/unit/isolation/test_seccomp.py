"""The system calls that are refused are those of these names."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from fedbench.isolation import _seccomp

HEADERS = {
    "x86_64": Path("/usr/include") / f"{platform.machine()}-linux-gnu" / "asm" / "unistd_64.h",
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_systems_headers(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip(f"no {HEADERS[machine]} here")
    text = HEADERS[machine].read_text(encoding="utf-8")
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    column, _ = _seccomp._ARCHITECTURES[machine]
    ours = {name: numbers[column] for name, numbers in (_seccomp._REFUSED | _seccomp._OF_ITSELF).items()}
    ours |= {"clone": _seccomp._CLONE[column], "clone3": _seccomp._CLONE3}
    assert ours == {name: known.get(name) for name in ours}
