"""Doses of untargeted attacks: by hand, beside a plain loop, what has a rank, and what does not change them."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import untargeted, write

from fedbench.leaderboard import Database
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.loss_doses import LossDoseRow, LossPanel, loss_panels
from fedbench.leaderboard.render import markdown
from fedbench.runs.record import RunRecord

USERS = 300
CLEAN = 0.04


def at(attack: str, losses: Mapping[int, float], seed: int = 0) -> list[RunRecord]:
    """Runs of an attack: clients -> percent of HR@K lost."""
    return [
        untargeted(
            attack,
            seed,
            CLEAN * (1 - loss / 100),
            fields={"malicious_ratio": clients / USERS},
            num_malicious=clients,
        )
        for clients, loss in losses.items()
    ]


def panels(folder: Path, *runs: Sequence[RunRecord], seeds: Sequence[int] = (0,)) -> list[LossPanel]:
    write(folder, *(untargeted("none", seed, CLEAN) for seed in seeds), *(run for own in runs for run in own))
    return loss_panels(Database([folder], 5))


def rows(folder: Path, *runs: Sequence[RunRecord], seeds: Sequence[int] = (0,)) -> dict[str, LossDoseRow]:
    (panel,) = panels(folder, *runs, seeds=seeds)
    return {row.attack: row for row in panel.ranking}


def test_doses_by_hand(tmp_path: Path) -> None:
    """A tenth is lost at 5 %; half at eight ninths of the way, in logarithms, from 5 to 10 %, where 10 and 55 % are lost."""
    found = rows(
        tmp_path,
        at("a-ra", {3: 0, 15: 10, 30: 55}),
        at("a-hum", {3: 20, 15: 20, 30: 20}),
        at("lie", {3: 0, 15: -5, 30: 4}),
    )
    ra, hum, lie = found["a-ra"], found["a-hum"], found["lie"]
    assert str(ra.tenth) == "5 %"
    assert ra.half.median.share == pytest.approx(0.05 * 2 ** (8 / 9))
    assert (str(hum.tenth), str(hum.half)) == ("<=1 %", ">10 %")
    assert (str(lie.tenth), str(lie.half)) == (">10 %", ">10 %")
    assert [each.mean_dose for each in (hum, ra, lie)] == pytest.approx([0.01, 0.05, 0.1])
    assert [each.bound for each in (hum, ra, lie)] == ["<=", "", ">"]
    assert ra.loss.mean == pytest.approx((0 + 10 + 55) / 3)
    assert list(found) == ["a-hum", "a-ra", "lie"]
    assert ra.seeds == [0]


def test_fewer_than_three_doses_are_no_curve(tmp_path: Path) -> None:
    assert panels(tmp_path, at("a-ra", {3: 0, 15: 10})) == []


def test_who_lacks_a_dose_that_half_of_the_attacks_ran_has_no_rank(tmp_path: Path) -> None:
    full = {3: 0.0, 15: 10.0, 30: 55.0}
    found = rows(tmp_path, at("a-ra", full), at("a-hum", full), at("lie", {3: 0, 30: 55}), at("fang", {15: 90}))
    assert [found[name].rank for name in ("a-ra", "a-hum", "lie")] == [1, 1, None]
    assert "fang" not in found, "without both ends nothing is said of it"


def test_a_dose_that_was_not_run_counts_with_what_lies_between(tmp_path: Path) -> None:
    """At 15 clients log 5 / log 10 of the way from 3 to 30."""
    whole, ends = {3: 0.0, 15: 40.0, 30: 80.0}, {3: 0.0, 30: 80.0}
    found = rows(tmp_path, at("a-ra", whole), at("a-hum", ends), at("lie", ends), at("fang", {15: 1}))
    assert found["a-ra"].loss.mean == pytest.approx(40)
    expected = (0 + 80 * math.log(5) / math.log(10) + 80) / 3
    assert [found[name].loss.mean for name in ("a-hum", "lie")] == pytest.approx([expected] * 2)


def test_attacks_are_told_apart_over_seeds(tmp_path: Path) -> None:
    seeds = range(6)
    strong = [run for seed in seeds for run in at("a-ra", {3: 5 + seed, 15: 60, 30: 80}, seed)]
    weak = [run for seed in seeds for run in at("a-hum", {3: 0, 15: 1, 30: 9 + seed}, seed)]
    found = rows(tmp_path, strong, weak, seeds=seeds)
    assert (found["a-ra"].rank, found["a-ra"].beats, found["a-hum"].rank, found["a-hum"].beats) == (1, 1, 2, 0)
    assert found["a-ra"].tenth.low is not None


def plain(losses: Mapping[int, float], level: float) -> float:
    """The dose at which pooled losses reach ``level``; infinite, or the first one, beyond the ends."""
    blocks = [[loss] for _, loss in sorted(losses.items())]
    while any(sum(a) / len(a) > sum(b) / len(b) for a, b in itertools.pairwise(blocks)):
        for i in range(len(blocks) - 1):
            if sum(blocks[i]) / len(blocks[i]) > sum(blocks[i + 1]) / len(blocks[i + 1]):
                blocks[i : i + 2] = [blocks[i] + blocks[i + 1]]
                break
    response = [sum(block) / len(block) for block in blocks for _ in block]
    doses = [clients / USERS for clients in sorted(losses)]
    if response[0] >= level:
        return doses[0]
    for k in range(1, len(doses)):
        if response[k] >= level:
            part = (level - response[k - 1]) / (response[k] - response[k - 1])
            return math.exp(math.log(doses[k - 1]) + part * math.log(doses[k] / doses[k - 1]))
    return math.inf


def test_doses_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    draw = random.Random(1)
    for case in range(4):
        losses = {clients: draw.uniform(-10, 80) for clients in (1, 3, 6, 15, 30)}
        found = rows(tmp_path / str(case), at("a-ra", losses))["a-ra"]
        assert found.tenth.median.order == pytest.approx(plain(losses, 10))
        assert found.half.median.order == pytest.approx(plain(losses, 50))


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(-20, 95), min_size=3, max_size=3), st.floats(0, 4))
def test_a_stronger_attack_needs_no_more(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], more: float
) -> None:
    weak = dict(zip((3, 15, 30), losses, strict=True))
    strong = {clients: loss + more for clients, loss in weak.items()}
    found = rows(tmp_path_factory.mktemp("r"), at("a-ra", weak), at("a-hum", strong))
    assert found["a-hum"].tenth.median.order <= found["a-ra"].tenth.median.order * (1 + 1e-9)
    assert found["a-hum"].half.median.order <= found["a-ra"].half.median.order * (1 + 1e-9)
    assert found["a-ra"].tenth.median.order <= found["a-ra"].half.median.order


def test_the_board_shows_them(tmp_path: Path) -> None:
    panels(tmp_path, at("a-ra", {3: 0, 15: 10, 30: 55}), at("a-hum", {3: 20, 15: 20, 30: 20}))
    board = make_board(Database([tmp_path], 5))
    text = markdown(board)
    assert "Untargeted: doses on longtail-small mf" in text
    assert "takes a tenth | takes half" in text
    assert "Infinity" not in json.dumps(board.data["untargeted_doses"])
    assert [row["attack"] for row in board.data["untargeted_doses"][0]["ranking"]] == ["a-hum", "a-ra"]
