"""One entry in place of those that a suite names: what `fedbench run SUITE --attack ./my_attack.py` runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fedbench.attacks import ATTACKS
from fedbench.data import resolve
from fedbench.entries.cards import Goal
from fedbench.errors import UserError
from fedbench.plugins import KINDS, Kind, is_file
from fedbench.scenarios.given import entry_name
from fedbench.scenarios.scenario import POPULAR_TARGETS, Scenario
from fedbench.scenarios.suite import Planned, Suite

_OF_ONE: tuple[Kind, ...] = ("model", "dataset")
"""Kinds that suites set up each in its own way."""

MOST_REASONS = 3
"""So many different reasons why nothing fits are told."""


def chosen(**options: str | None) -> dict[Kind, str]:
    """The names of the entries that options give: ``attack``, ``defense``, ``model``, ``dataset``.

    Each is a file, which is loaded, or the name of an entry; a defense may be a chain of both, joined by ``+``.

    Raises:
        UserError: a file that cannot be loaded, or a name that does not exist.
    """
    names: dict[Kind, str] = {}
    for kind in KINDS:
        text = options.get(kind)
        if text is None:
            continue
        if kind == "attack" and text == "none":
            raise UserError("--attack none: runs without an attack come along as twins of the others.")
        names[kind] = resolve(text).name if kind == "dataset" and not is_file(text) else entry_name(text, kind)
    return names


def substituted(suite: Suite, instead: Mapping[Kind, str]) -> Suite:
    """The suite with other entries: its attacked scenarios, each with these in place of its own and their parameters.

    Of those one stays: eps, the bound that a scenario sets to all who show images.

    Scenarios that differed only in what is replaced become one; those that the new entries do not apply to are left
    out. A model or dataset that the suite names itself keeps its own scenarios, with their parameters; any other stands
    in those of the first one that fits, not in those of all, which may differ in more (as in epochs). Seeds, and the
    twins that are added when it is planned, are the suite's.

    Args:
        suite: any suite. instead: kind -> name.

    Raises:
        UserError: nothing fits; says why.
    """
    attacked = [planned for planned in suite.scenarios if planned.scenario.attack != "none"]
    fitting: list[tuple[Scenario, Planned]] = []
    reasons: dict[str, None] = {}
    for planned in attacked:
        try:
            scenario = _replaced(planned.scenario, instead)
            _check_goal(scenario)
            _ = scenario.id  # resolves every name and parameter
        except UserError as error:
            reasons[str(error).rstrip(".")] = None
            continue
        fitting.append((planned.scenario, dataclasses.replace(planned, scenario=scenario)))
    if not fitting:
        raise UserError(_nothing_fits(suite, instead, list(reasons)))
    for kind in _OF_ONE:
        if kind in instead:
            names = [getattr(own, kind) for own, _ in fitting]
            kept = instead[kind] if instead[kind] in names else names[0]
            fitting = [each for each, name in zip(fitting, names, strict=True) if name == kept]
    return suite.with_scenarios([planned for _, planned in fitting])


def _replaced(scenario: Scenario, instead: Mapping[Kind, str]) -> Scenario:
    values: dict[str, Any] = {}
    for kind, name in instead.items():
        if kind in _OF_ONE and name == getattr(scenario, kind):
            continue
        values[kind] = name
        if kind != "dataset":
            values[f"{kind}_params"] = {}
    if (
        "attack" in instead
        and ATTACKS.get(instead["attack"]).card.channel.shows_images
        and "eps" in scenario.attack_params
    ):
        values["attack_params"] = {"eps": scenario.attack_params["eps"]}
    return dataclasses.replace(scenario, **values)


def _check_goal(scenario: Scenario) -> None:
    """An attack that degrades is measured where nothing is promoted (the other way round the scenario itself refuses), one
    that demotes where the targets are popular, one that promotes where they are not; given items may be either.
    """
    goal, target = ATTACKS.get(scenario.attack).card.goal, scenario.target
    if goal == Goal.DEGRADE and target != "none":
        raise UserError(f"attack {scenario.attack!r} degrades: it needs target = 'none', not {target!r}")
    popular = target.startswith(POPULAR_TARGETS)
    if goal == Goal.DEMOTE and not popular and not target.startswith("fixed:"):
        raise UserError(f"attack {scenario.attack!r} demotes: it needs targets that are popular, not {target!r}")
    if goal == Goal.PROMOTE and popular:
        raise UserError(
            f"attack {scenario.attack!r} promotes: it needs targets that are not popular, unlike {target!r}"
        )


def _nothing_fits(suite: Suite, instead: Mapping[Kind, str], reasons: Iterable[str]) -> str:
    what = " with ".join(f"{kind} {name!r}" for kind, name in instead.items())
    reasons = list(reasons) or ["it has no attack"]
    told = "; ".join(reasons[:MOST_REASONS]) + ("; ..." if len(reasons) > MOST_REASONS else "")
    return f"{what} fits no scenario of suite {suite.name!r}: {told}."
