"""Which doses of a ladder are run: those that say where the response rises.

The rule, for each curve (a scenario but for its malicious ratio) of a group that says ``adaptive = true``, and for all
of its seeds together:

1. Of ratios that come to the same number of malicious clients, the largest is run.
2. The lowest, the middle and the highest of the rest are run.
3. Between two neighbours that were run, the middle one of those between is run if on any seed their exposures (ER@10 over the
   last quarter of training) differ by more than :data:`STEP`, until no such gap is left.

Every seed of a curve has the same doses, and which they are depends on the records of these doses alone: it comes out the
same in whatever order, on however many machines, after whatever interruption. What a gap leaves out lies, if exposure
rises with the dose, between two measured values that are no further apart than the step.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedbench.errors import UserError
from fedbench.runs.task import count_malicious, split_of
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

STEP = 0.1
"""Exposures of two neighbours that differ by more have the dose between them run."""

Exposures = Mapping[tuple[str, int], float]


COLUMNS = ("scenario_id", "seed", "status", "er_10_tail")
"""Of a record, what decides about other doses."""


def climbed(planned: Sequence[Planned], records: Iterable[Mapping[str, Any]]) -> list[Planned]:
    """``planned`` but for the doses that no answer depends on, as far as the records tell, and for twins of these alone.

    Args:
        planned: scenarios of a suite, with twins. records: :data:`COLUMNS` of those that are there; one that failed is not.
    """
    if not any(each.adaptive for each in planned):
        return list(planned)
    there = _exposures(records)
    curves: dict[str, list[Planned]] = {}
    for each in planned:
        if each.adaptive:
            curves.setdefault(_curve(each.scenario), []).append(each)
    users: dict[tuple[str, str], int | None] = {}
    left_out = set()
    for own in curves.values():
        place = (own[0].scenario.dataset, own[0].scenario.resolved.protocol.split)
        if place not in users:
            users[place] = _users(own[0])
        left_out |= {each.scenario.id for each in _left_out(own, users[place], there)}
    chosen = {each.scenario.id for each in planned if not each.twin} - left_out
    twins = {twin.id for each in planned if each.scenario.id in chosen for twin in _twins(each.scenario)}
    return [each for each in planned if each.scenario.id in chosen | twins]


def wanted(exposures: Sequence[Sequence[float] | None]) -> set[int]:
    """Which rungs of a ladder are run, by the rule above.

    Args:
        exposures: of each rung, by rising dose: those of all seeds, as fractions; None where a seed is still missing.
    """
    last = len(exposures) - 1
    found = {0, last // 2, last}
    while True:
        chosen = sorted(found)
        more = {
            (low + high) // 2
            for low, high in itertools.pairwise(chosen)
            if high - low > 1 and _rises(exposures[low], exposures[high])
        }
        if not more:
            return found
        found |= more


def _rises(low: Sequence[float] | None, high: Sequence[float] | None) -> bool:
    if low is None or high is None:
        return False
    return any(abs(a - b) > STEP for a, b in zip(low, high, strict=True))


def _users(planned: Planned) -> int | None:
    """How many users the dataset has; None where it is not here, which is said when the suite starts."""
    try:
        return split_of(planned.scenario, planned.seeds[0]).num_users
    except UserError:
        return None


def _left_out(curve: Sequence[Planned], users: int | None, there: Exposures) -> list[Planned]:
    """The doses of a curve that are not run."""
    if users is None:
        return []
    by_clients: dict[int, Planned] = {}
    for each in sorted(curve, key=lambda each: each.scenario.malicious_ratio):
        by_clients[count_malicious(users, each.scenario.malicious_ratio)] = each
    ladder = list(by_clients.values())
    exposures = [_of_all_seeds(each, there) for each in ladder]
    run = {ladder[rung].scenario.id for rung in wanted(exposures)}
    return [each for each in curve if each.scenario.id not in run]


def _of_all_seeds(planned: Planned, there: Exposures) -> list[float] | None:
    found = [there.get((planned.scenario.id, seed)) for seed in planned.seeds]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _exposures(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    return {(row["scenario_id"], row["seed"]): row["er_10_tail"] or 0.0 for row in records if row["status"] != "failed"}


def _curve(scenario: Scenario) -> str:
    values = json.loads(scenario.key)
    del values["malicious_ratio"]
    return json.dumps(values, sort_keys=True)


def _twins(scenario: Scenario) -> Iterable[Scenario]:
    return scenario.clean, scenario.undefended, scenario.clean.undefended
