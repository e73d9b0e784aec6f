"""NumPy streams for the data side, derived by purpose as :mod:`fedbench.randomness` does for torch.

They are kept apart so that reading data never imports torch. Only draws that NumPy keeps stable across versions and
machines (raw bits scaled to integers or to [0, 1)) are taken from them where a dataset depends on the result.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(root: int, *identity: str | int) -> np.random.Generator:
    """A fresh PCG64 generator for the stream called ``identity``; equal arguments give equal draws."""
    text = "\x1f".join([str(root), *map(str, identity)])
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")))
