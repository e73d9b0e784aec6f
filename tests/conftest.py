"""Settings that hold for every test."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer.testing

from fedbench import plugins

# Two threads on tiny tensors only cost time, here and in the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests on real data use the copies beside the checkout when there are any; otherwise they skip and say so.
SHARED = Path(__file__).parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("FEDBENCH_DATA", str(SHARED))

# The commands are read from their functions once, and not again for each one that a test calls.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_loaded_files() -> Iterator[None]:
    """What a test loads from a file is there for this test only."""
    yield
    plugins.forget()
