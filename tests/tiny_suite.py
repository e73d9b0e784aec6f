"""A suite of two scenarios that take a moment, for tests of what runs suites."""

from __future__ import annotations

SUITE = """
name = "tiny"
version = 1
title = "Tiny"
seeds = 1
[defaults]
dataset = "longtail-small"
malicious_ratio = 0.05
protocol_params = { epochs = 2, evaluate_every = 1 }
[matrix]
model = ["mf"]
attack = ["none", "explicit-boost"]
"""


def of_seeds(count: int) -> str:
    """The same with so many seeds."""
    return SUITE.replace("seeds = 1", f"seeds = {count}")
