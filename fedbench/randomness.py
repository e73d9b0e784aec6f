"""Named random streams, derived from one root seed.

Every purpose (negatives, cohort sampling, the attack, ...) has a stream of its own, so that changing one part of a
run leaves the draws of all others as they were. Most are drawn on the CPU, which makes them equal on every device; those
of the attack, the defense and dropout are drawn on the device of the run, and equal only on devices of the same kind.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(root: int, *identity: str | int) -> int:
    """A 63-bit seed for the stream called ``identity`` of the run with seed ``root`` (SHA-256 of both)."""
    text = "\x1f".join([str(root), *map(str, identity)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(root: int, *identity: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for the stream called ``identity``; equal arguments give equal draws."""
    return torch.Generator(device=device).manual_seed(derive_seed(root, *identity))
