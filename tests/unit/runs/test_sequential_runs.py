"""Targeted attacks on a model of sequences: whole runs of protocol aaai23 on the embedded data."""

from __future__ import annotations

from typing import Any

import pytest

import fedbench
from fedbench.attacks import ATTACKS
from fedbench.entries.cards import Goal, Knowledge
from fedbench.errors import UserError
from fedbench.scenarios.scenario import Scenario

SMALL = {"clients_per_round": 20, "rounds_per_epoch": 4, "epochs": 2}
PROMOTING = [name for name in ATTACKS.names() if ATTACKS.get(name).card.goal == Goal.PROMOTE]
QUICK: dict[str, dict[str, Any]] = {"dv-fsr": {"repeats": 2}, "poisonfrs": {"wait_rounds": 2}}


def scenario(attack: str, defense: str = "none", **protocol: Any) -> Scenario:
    ratio = 0.0 if attack == "none" else 0.04
    model = {"embedding_size": 8, "max_length": 20, "blocks": 1}
    return Scenario("longtail-small", "sasrec", attack, defense, ratio, "aaai23", "random:0",
                    model_params=model, attack_params=QUICK.get(attack, {}), protocol_params=SMALL | protocol)  # fmt: skip


@pytest.mark.parametrize("attack", PROMOTING)
def test_every_attack_that_promotes_runs_on_sequences_or_says_why_not(attack: str) -> None:
    card = ATTACKS.get(attack).card
    if card.invents_users or card.channel.shows_images or Knowledge.SUBGROUP_ITEMS in card.knowledge:
        words = r"model 'sasrec', which (has no embeddings of users|model)|does not look at|params = { subgroup"
        with pytest.raises(UserError, match=words):
            _ = scenario(attack).resolved
        return
    attacked, before = (fedbench.run(scenario(attack, attack_start=start), 0) for start in (1, 2))
    assert attacked.status == before.status == "ok", (attacked.error, before.error)
    assert attacked.curve[0] != before.curve[0]
    assert {"er_5", "er_10", "hr_full_5", "val_hr_full_5"} <= set(attacked.curve[0])


@pytest.mark.parametrize("defense", ["norm-bound", "mixed"])
def test_defenses_answer_to_it(defense: str) -> None:
    plain, defended = (fedbench.run(scenario("dv-fsr", each), 0) for each in ("none", defense))
    assert defended.status == "ok", defended.error
    assert defended.curve != plain.curve
