"""Suites of options: what is chosen where nothing is said fits every entry, and the text of a suite file is read back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.entries.cards import DefenseFamily
from fedbench.errors import UserError
from fedbench.models import MODELS
from fedbench.scenarios.adhoc import Options, save_suite, suite_data
from fedbench.scenarios.settings import values_in
from fedbench.scenarios.suite import Suite, parse_suite


def suite(**options: str) -> Suite:
    return parse_suite(suite_data(Options(dataset="ml-1m", **options)), "these options", Path())


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_has_a_protocol_and_targets(name: str) -> None:
    card = ATTACKS.get(name).card
    model = min(card.models) if card.models else "vncf" if card.channel.shows_images else "mf"
    if name == "subgroup-spattack":
        with pytest.raises(UserError, match="set protocol_params"):
            suite(model=model, attack=name)
        return
    (planned,) = suite(model=model, attack=name).scenarios
    assert (planned.scenario.attack, planned.scenario.target == "none") == (name, card.goal == "degrade")


@pytest.mark.parametrize("name", DEFENSES.names())
def test_every_defense(name: str) -> None:
    card = DEFENSES.get(name).card
    images = card.family == DefenseFamily.PURIFICATION
    model = min(card.models) if card.models else "vncf" if images else "mf"
    (planned,) = suite(model=model, attack="psmu-v" if images else "a-hum", defense=name).scenarios
    assert planned.scenario.defense == name


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model(name: str) -> None:
    (planned,) = suite(model=name, attack="popular").scenarios
    protocol = {"sasrec": "aaai23", "pfedrec": "ijcai23", "vncf": "tois", "lightvgcn": "tois"}.get(name, "icde24")
    assert planned.scenario.protocol == protocol


@pytest.mark.parametrize(
    ("model", "attack", "settings"),
    [
        ("mf,ncf", "pieck-uea,gaussian", ["model.embedding_size=8,16", "attack.popular_items=9", "defense.scope=item"]),
        ("mf,sasrec", "popular", ["epochs=3"]),
        ("mf,vncf", "gaussian,label-flip", []),
    ],
)
def test_a_saved_suite_says_the_same(model: str, attack: str, settings: list[str]) -> None:
    """Whatever order its keys have in the file."""
    rest = {"defense": "krum,nnm+median", "ratio": ".01,.05", "seeds": "0,7"}
    options = Options(dataset="ml-1m", model=model, attack=attack, settings=settings, **rest)
    data = suite_data(options, Path("Mine & co.toml"))
    assert data["name"] == "mine-co"
    read = tomllib.loads(save_suite(data, Path("elsewhere/mine.toml")))
    assert read == data
    backwards = {**data, "matrix": dict(reversed(data["matrix"].items()))}
    one, *others = (
        {(planned.scenario.id, planned.seeds) for planned in parse_suite(each, "x", Path()).plan()}
        for each in (data, read, backwards)
    )
    assert others == [one, one]
    assert {seeds for _, seeds in one} == {(0, 7)}


def test_values() -> None:
    assert values_in(".1,.5") == [0.1, 0.5]
    assert values_in("xavier,normal") == ["xavier", "normal"]
    assert values_in("[64, 32],[8]") == [[64, 32], [8]]
    assert values_in('"fixed:1,2"') == ["fixed:1,2"]
    assert values_in("true,-.5e-3,fixed:3") == [True, -0.0005, "fixed:3"]
