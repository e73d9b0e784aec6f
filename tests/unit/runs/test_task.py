"""Which items are targets, and who is of the subgroup."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedbench.errors import UserError
from fedbench.evaluation.displacement import by_subgroup
from fedbench.federation.protocol import Protocol
from fedbench.runs.record import SUBGROUP_MEASURES
from fedbench.runs.run import run
from fedbench.runs.task import choose_subgroup, choose_targets, split_of
from fedbench.scenarios.scenario import Scenario


def of(target: str, count: int = 1, attack: str = "none") -> Scenario:
    ratio = 0.0 if attack == "none" else 0.05
    return Scenario("longtail-small", "mf", target=target, num_targets=count, attack=attack, malicious_ratio=ratio)


def test_popular_targets_are_those_of_the_head() -> None:
    split = split_of(of("none"), 0)
    counts = torch.bincount(torch.from_numpy(split.train.item), minlength=split.num_items)
    counts += torch.bincount(torch.from_numpy(split.test.item), minlength=split.num_items)
    ranked = sorted((j for j in range(split.num_items) if counts[j]), key=lambda j: (-int(counts[j]), j))
    assert choose_targets(of("most-popular", 3), split).tolist() == ranked[:3]
    head = ranked[: -(-len(ranked) // 10)]
    drawn = [choose_targets(of(f"random-popular:{k}", 4), split).tolist() for k in range(6)]
    assert all(set(each) <= set(head) and len(set(each)) == 4 for each in drawn)
    assert len({tuple(each) for each in drawn}) > 1
    assert sorted(choose_targets(of("random-popular:0", len(head)), split).tolist()) == sorted(head)
    with pytest.raises(UserError, match="has only 4"):
        choose_targets(of("random-popular:0", len(head) + 1), split)


def test_targets_per_seed_are_the_draws_of_the_seeds_numbers() -> None:
    split = split_of(of("none"), 0)
    for policy, numbered in (("per-seed", "random"), ("per-seed-popular", "random-popular")):
        own = [choose_targets(of(policy, 3), split, seed).tolist() for seed in range(5)]
        assert own == [choose_targets(of(f"{numbered}:{seed}", 3), split, 9).tolist() for seed in range(5)]
        assert len({tuple(each) for each in own}) == 5


def test_a_run_attacks_the_target_of_its_seed() -> None:
    runs = [
        run(replace(of("per-seed", attack=attack), protocol_params={"epochs": 2}), seed)
        for seed in (3, 4)
        for attack in ("none", "explicit-boost")
    ]
    split = split_of(of("none"), 0)
    assert [each.target_items for each in runs] == [
        choose_targets(of(f"random:{seed}"), split).tolist() for seed in (3, 3, 4, 4)
    ]


def test_what_nobody_is_shown_cannot_be_demoted() -> None:
    assert of("most-popular", attack="a-ra-demote").id != of("random-popular:0", attack="a-ra-demote").id
    with pytest.raises(UserError, match=r"'a-ra-demote' demotes what somebody is shown.*'least-popular'"):
        _ = of("least-popular", attack="a-ra-demote").id


def test_a_subgroup_has_all_of_some_frequent_items() -> None:
    split = split_of(of("none"), 0)
    pairs = set(zip(split.train.user.tolist(), split.train.item.tolist(), strict=True))
    drawn = []
    for draw in range(3):
        protocol = Protocol(subgroup=3, subgroup_draw=draw)
        found = choose_subgroup(protocol, split, torch.device("cpu"))
        assert found is not None
        items = found.items.tolist()
        assert len(set(items)) == 3
        assert all(sum((u, j) in pairs for u in range(split.num_users)) > 0.2 * split.num_users for j in items)
        whole = [u for u in range(split.num_users) if all((u, j) in pairs for j in items)]
        assert found.users.tolist() == whole != []
        drawn.append(tuple(items))
    assert len(set(drawn)) > 1
    assert choose_subgroup(Protocol(), split, torch.device("cpu")) is None
    for wrong, text in (
        ({"subgroup_frequency": 0.9}, "only 0 items have more than 0.9"),
        ({"subgroup": 20}, "nobody has"),
    ):
        with pytest.raises(UserError, match=text):
            choose_subgroup(Protocol(**({"subgroup": 3} | wrong)), split, torch.device("cpu"))


def test_a_run_says_how_exposure_is_inside_and_outside_of_it() -> None:
    options: dict[str, Any] = {"protocol_params": {"epochs": 2, "subgroup": 3}, "malicious_ratio": 0.05}
    record = run(Scenario("longtail-small", "mf", attack="subgroup-spattack", **options), 0)
    assert record.status == "ok", record.error
    row = record.row()
    assert row["subgroup_users"]
    assert row["target_places"]
    assert {k: row[k] for k in SUBGROUP_MEASURES} == by_subgroup(
        row["target_places"], row["subgroup_users"], (5, 10, 20, 30)
    )
    assert 0 <= row["er_in_10"] <= 1
    with pytest.raises(UserError, match=r"promotes to a subgroup of the users.*subgroup = 3"):
        _ = Scenario("longtail-small", "mf", attack="subgroup-spattack", malicious_ratio=0.05).id


def test_targets_that_are_no_policy_are_one_line() -> None:
    for wrong in ("most-popular:1", "random-popular", "popular", "least-popular-with-images", "random-popular-with:1"):
        with pytest.raises(UserError, match="'random-popular:K'"):
            of(wrong)
