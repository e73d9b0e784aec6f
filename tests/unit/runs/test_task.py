"""Which items are targets."""

from __future__ import annotations

import pytest
import torch

from fedbench.errors import UserError
from fedbench.runs.task import choose_targets, split_of
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


def test_what_nobody_is_shown_cannot_be_demoted() -> None:
    assert of("most-popular", attack="a-ra-demote").id != of("random-popular:0", attack="a-ra-demote").id
    with pytest.raises(UserError, match=r"'a-ra-demote' demotes what somebody is shown.*'least-popular'"):
        _ = of("least-popular", attack="a-ra-demote").id


def test_targets_that_are_no_policy_are_one_line() -> None:
    for wrong in ("most-popular:1", "random-popular", "popular", "least-popular-with-images", "random-popular-with:1"):
        with pytest.raises(UserError, match="'random-popular:K'"):
            of(wrong)
