"""What stands for an entry gives its scenarios the ids and columns that the real class gives them."""

from __future__ import annotations

import json

import pytest

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.plugins.card_data import AttackData, DefenseData, card_data
from fedbench.runs.identity import identity
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import load_suite
from fedbench.submission.manifest import canonical
from fedbench.submission.report import Check
from fedbench.submission.standin import stand_in, standing_in


@pytest.mark.parametrize("suite", ["smoke", "core-untargeted", "aaai23-table1"])
def test_every_attack_and_defense_of_fedbench_can_be_stood_for(suite: str) -> None:
    columns = {"attack_source_hash", "defense_source_hash"}
    scenarios = [planned.scenario for planned in load_suite(suite).scenarios]
    real = {each.key: identity(each, 0, None) for each in scenarios}
    for kind, registry, data in (("attack", ATTACKS, AttackData), ("defense", DEFENSES, DefenseData)):
        names = {part for each in scenarios for part in getattr(each, kind).split("+")}
        for name in names:
            cls = stand_in(data.model_validate_json(canonical(card_data(registry.get(name)))), Check("card"))
            assert cls is not None
            with standing_in(kind, name, cls):
                for key, expected in real.items():
                    if name not in json.loads(key)[kind].split("+"):
                        continue
                    again = identity(Scenario(**json.loads(key)), 0, None)
                    assert {c: v for c, v in again.items() if c not in columns} == {
                        c: v for c, v in expected.items() if c not in columns
                    }
            assert registry.get(name) is not cls


def test_whole_numbers_for_floats_give_the_same_id() -> None:
    scenario = Scenario("longtail-small", "mf", "random", "norm-bound", 0.05, defense_params={"bound": 1})
    assert (
        scenario.id == Scenario("longtail-small", "mf", "random", "norm-bound", 0.05, defense_params={"bound": 1.0}).id
    )
    data = DefenseData.model_validate_json(canonical(card_data(DEFENSES.get("norm-bound"))))
    with standing_in("defense", "norm-bound", stand_in(data, Check("card"))):
        assert Scenario(**json.loads(scenario.key)).id == scenario.id
