"""Settings that hold for every test."""

from __future__ import annotations

import torch

torch.set_num_threads(1)  # the tests run in parallel with nothing; two threads on tiny tensors only cost time
