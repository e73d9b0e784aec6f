"""Settings that hold for every test."""

from __future__ import annotations

import os
from pathlib import Path

import torch

torch.set_num_threads(1)  # two threads on tiny tensors only cost time

# Tests on real data use the copies beside the checkout when there are any; otherwise they skip and say so.
SHARED = Path(__file__).parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("FEDBENCH_DATA", str(SHARED))
