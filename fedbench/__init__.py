"""fedbench: a benchmark of poisoning attacks and defenses for federated recommenders."""

__version__ = "0.1.0"
