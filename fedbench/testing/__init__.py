"""Contract tests for whoever writes an attack, a defense, a model or a dataset: what a reviewer runs.

In a test beside your file::

    from fedbench import check_attack, failures


    def test_contract() -> None:
        assert failures(check_attack(MyAttack)) == []

``fedbench check ./my_attack.py`` prints the same checks. ``small_federation`` is a
federation of a few users to try things in.
"""

from __future__ import annotations

from fedbench.testing.attacks import check_attack
from fedbench.testing.checking import check_entry
from fedbench.testing.datasets import check_dataset
from fedbench.testing.defenses import check_defense
from fedbench.testing.federations import small_federation, small_task
from fedbench.testing.finding import Budget, Finding, failures
from fedbench.testing.models import check_model

__all__ = [
    "Budget",
    "Finding",
    "check_attack",
    "check_dataset",
    "check_defense",
    "check_entry",
    "check_model",
    "failures",
    "small_federation",
    "small_task",
]
