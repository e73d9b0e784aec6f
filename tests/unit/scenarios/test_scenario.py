"""Scenarios: what changes their id, their twins, and what they refuse."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from pydantic import Field

from fedbench.entries.cards import LATER, Parameters, identifying
from fedbench.errors import UserError
from fedbench.federation.protocol import Protocol
from fedbench.scenarios.scenario import Scenario

BASE = Scenario("longtail-small", "mf", "explicit-boost", "norm-bound", 0.05)

# Every field of a scenario must stand in exactly one of these: what can change a number, and what cannot.
CHANGES_NUMBERS: dict[str, Any] = {
    "dataset": "longtail-100k",
    "model": "ncf",
    "attack": "a-ra",
    "defense": "none",
    "malicious_ratio": 0.01,
    "protocol": "ijcai22",
    "target": "random:1",
    "num_targets": 3,
    "model_params": {"init_std": 0.1},
    "attack_params": {"init_std": 0.5},
    "defense_params": {"bound": 0.25},
    "protocol_params": {"epochs": 7},
}
RUNTIME_ONLY: set[str] = set()

# The same for a protocol, all of which changes numbers: for each field a value that is not that of the preset.
PROTOCOL_CHANGES_NUMBERS: dict[str, Any] = {
    "split": "4:1",
    "duplicates": "keep",
    "negatives_per_positive": 4,
    "negatives": "epoch",
    "local_batch": 64,
    "duplicate_rows": "last",
    "loss": "bpr",
    "reduction": "sum",
    "regularization": 0.1,
    "learning_rate": 0.5,
    "client_learning_rate": (0.01, 1.0),
    "clients_per_round": 128,
    "schedule": "independent",
    "epochs": 7,
    "aggregation": "mean",
    "row_clip": 1.0,
    "malicious_clients": "compromised",
    "attack_start": 8,
    "negatives_exclude": "all",
    "regularized": "all",
    "rounds_per_epoch": 3,
    "server_optimizer": "adam",
    "user_optimizer": "lazy-adam",
    "malicious_pool": 0.1,
    "ties": "half",
    "seen_held_out": "missed",
    "er_mask": "train+test",
    "er_eligible": "train+test",
    "er_denominator": "all",
    "ranking": "full",
    "evaluate_every": 3,
    "evaluate_users": 50,
    "subgroup": 3,
    "subgroup_draw": 1,
    "subgroup_frequency": 0.1,
}


def test_every_field_of_a_scenario_is_classified() -> None:
    names = {field.name for field in dataclasses.fields(Scenario)}
    assert names == set(CHANGES_NUMBERS) | RUNTIME_ONLY, "put the new field in CHANGES_NUMBERS or RUNTIME_ONLY"
    assert not set(CHANGES_NUMBERS) & RUNTIME_ONLY


def test_every_field_of_a_protocol_is_classified() -> None:
    assert set(Protocol.model_fields) == set(PROTOCOL_CHANGES_NUMBERS)


@pytest.mark.parametrize("name", CHANGES_NUMBERS)
def test_each_field_changes_the_id(name: str) -> None:
    values = {name: CHANGES_NUMBERS[name]}
    if name in ("attack", "defense"):
        values[f"{name}_params"] = {}
    assert dataclasses.replace(BASE, **values).id != BASE.id


@pytest.mark.parametrize("name", PROTOCOL_CHANGES_NUMBERS)
def test_each_protocol_field_changes_the_id(name: str) -> None:
    changed = dataclasses.replace(BASE, protocol_params={name: PROTOCOL_CHANGES_NUMBERS[name]})
    assert changed.id != BASE.id


def test_id_does_not_depend_on_spelling_out_a_default() -> None:
    spelt_out = dataclasses.replace(BASE, attack_params={"init_std": 1.0}, protocol_params={"duplicates": "drop"})
    assert spelt_out.id == BASE.id
    assert spelt_out != BASE


def test_a_parameter_that_came_later_leaves_ids_as_they_were() -> None:
    """While at its default: the method computes what it did before the parameter existed."""

    class Before(Parameters):
        strength: float = 0.9

    class After(Before):
        shape: str = Field("round", json_schema_extra=LATER)

    assert identifying(After()) == identifying(Before()) == {"strength": 0.9}
    assert identifying(After(shape="round")) == {"strength": 0.9}
    assert identifying(After(shape="square")) == {"strength": 0.9, "shape": "square"}
    assert Scenario("ml-100k", "mf", "pieck-ipe", "none", 0.05).id == "2fa82605e00baef7"
    changed = Scenario("ml-100k", "mf", "pieck-ipe", "none", 0.05, attack_params={"partition": False})
    assert changed.id != Scenario("ml-100k", "mf", "pieck-ipe", "none", 0.05).id


def test_number_of_fixed_targets_is_theirs() -> None:
    fixed = dataclasses.replace(BASE, target="fixed:3,5")
    assert dataclasses.replace(fixed, num_targets=4).id == fixed.id


def test_twins() -> None:
    scenario = dataclasses.replace(BASE, attack_params={"init_std": 0.5}, defense_params={"bound": 0.25})
    assert scenario.clean == Scenario("longtail-small", "mf", defense="norm-bound", defense_params={"bound": 0.25})
    assert scenario.undefended == dataclasses.replace(scenario, defense="none", defense_params={})
    assert scenario.clean.undefended == Scenario("longtail-small", "mf") == scenario.undefended.clean


def test_scenarios_are_values() -> None:
    same = Scenario("longtail-small", "mf", "explicit-boost", "norm-bound", 0.05)
    assert same == BASE
    assert len({same, BASE}) == 1
    assert str(BASE) == "longtail-small mf explicit-boost norm-bound 0.05 icde24 random:0"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"malicious_ratio": 2.0}, "malicious_ratio = 2.0 must be a number from 0 to below 1"),
        ({"malicious_ratio": "5%"}, "malicious_ratio = '5%' must be a number"),
        ({"malicious_ratio": True}, "malicious_ratio = True must be a number"),
        ({"malicious_ratio": 0.0}, "needs malicious clients, but malicious_ratio = 0"),
        ({"attack": "none"}, "no malicious clients, but malicious_ratio = 0.05"),
        ({"model": 3}, "model = 3 must be a string"),
        ({"target": "coldest"}, "target = 'coldest' must be"),
        ({"num_targets": 0}, "num_targets = 0 must be a whole number"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(BASE, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attack": "explicit-bost"}, "Unknown attack 'explicit-bost'. Did you mean 'explicit-boost'?"),
        ({"protocol": "icde"}, "Unknown protocol 'icde'. Did you mean 'icde24'?"),
        ({"defense": "norm-bound+krumm"}, "Unknown defense 'krumm'"),
        ({"defense": "norm-bound+norm-bound"}, "must join different defenses"),
        ({"attack_params": {"init_sd": 1.0}}, "'init_sd'. Did you mean 'init_std'?"),
        ({"attack_params": {"init_std": -1.0}}, "parameter init_std = -1.0"),
        ({"protocol_params": {"epochs": "many"}}, "parameter epochs = 'many'"),
        (
            {"protocol_params": {"epochs": 7, "attack_start": 8}},
            "would never start: attack_start = 8 of protocol 'icde24'",
        ),
    ],
)
def test_unknown_names_and_parameters_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        _ = dataclasses.replace(BASE, **values).id
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_of_a_chain_are_written_by_part() -> None:
    """One table for each part of a chain; shown as ``defense.PART.NAME``, like the parameters of a single defense."""
    chain = Scenario(
        "longtail-small",
        "mf",
        defense="krum+norm-bound",
        defense_params={"krum": {"assumed_ratio": 0.05}, "norm-bound": {"bound": 1.0}},
    )
    assert str(chain).endswith("defense.krum.assumed_ratio=0.05 defense.norm-bound.bound=1.0")


def test_sequences_have_one_negative_each() -> None:
    pairs = Scenario("longtail-small", "sasrec", protocol="aaai23", protocol_params={"negatives_per_positive": 2})
    with pytest.raises(
        UserError, match="model 'sasrec' takes one negative for each positive, but protocol 'aaai23' has"
    ):
        _ = pairs.id


@pytest.mark.parametrize("kind", ["model", "attack", "defense"])
@pytest.mark.parametrize("bad", [[1], "x", 3, None])
def test_parameters_that_are_no_table(kind: str, bad: Any) -> None:
    wrong = Scenario("longtail-small", "mf", "explicit-boost", "norm-bound", 0.05, **{f"{kind}_params": bad})
    with pytest.raises(UserError, match=re.escape(f"scenario: {kind}_params = {bad!r} must be a table of parameters.")):
        _ = wrong.resolved
