"""What a run says of numbers that may mislead."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedbench
from fedbench.data import import_dataset
from fedbench.runs.record import RunRecord
from fedbench.scenarios.scenario import Scenario


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "home"))


def imported(folder: Path, users: int, items: int, each: int, *, alone: int = 0) -> None:
    """A dataset ``mine`` where every user has ``each`` items, but for ``alone`` of them, who have one."""
    rows = [(u, (3 * u + 5 * k) % items, 5, k) for u in range(users) for k in range(1 if u < alone else each)]
    (folder / "u.data").write_text("\n".join("\t".join(map(str, row)) for row in rows))
    import_dataset("mine", folder / "u.data")


def run(dataset: str = "mine", model: str = "mf", **more: object) -> RunRecord:
    protocol = {"epochs": 1, "evaluate_every": 1}
    return fedbench.run(Scenario(dataset, model, protocol_params=protocol, **more), 0)  # type: ignore[arg-type]


def test_eight_items_leave_nothing_to_rank_at_ten(tmp_path: Path) -> None:
    imported(tmp_path, 60, 8, 3)
    record = run(attack="pieck-ipe", malicious_ratio=0.05)
    assert record.metrics["er_5"] is not None
    assert record.metrics["hr_5"] is not None
    for name in ("er_10", "er_20", "er_30", "hr_10", "hr_20", "hr_full_10", "er_10_peak"):
        assert record.metrics[name] is None
    assert record.popularity_hr_10 is None
    assert "not measured: er_10, er_20, er_30, hr_full_10" in record.warnings[0]


def test_a_popular_target_that_nobody_is_shown_is_nothing_to_demote() -> None:
    """After an epoch ncf shows everybody the same items. Only the run without an attack says so, and of popular targets."""
    clean, attacked, promoted = (
        run("longtail-small", model="ncf", target=target, **more)
        for target, more in (
            ("most-popular", {}),
            ("most-popular", {"attack": "a-ra-demote", "malicious_ratio": 0.05}),
            ("random:0", {}),
        )
    )
    assert clean.metrics["er_10"] == attacked.metrics["er_10"] == promoted.metrics["er_10"] == 0
    told = [[each for each in record.warnings if "demote" in each] for record in (clean, attacked, promoted)]
    assert told == [[f"nothing to demote: item {clean.target_items[0]} is among nobody's 10 best"], [], []]


def test_few_users_and_a_ratio_below_one_client(tmp_path: Path) -> None:
    imported(tmp_path, 5, 60, 8)
    record = run(attack="pieck-ipe", defense="bulyan", malicious_ratio=0.01, defense_params={"scope": "client"})
    assert record.num_malicious == 1
    said = "\n".join(record.warnings)
    assert "few users: 5 evaluated, so shares move in steps of 20.0 %" in said
    assert "malicious_ratio is less than one client: 0.01 of 5 users; one is malicious, which is 20 %" in said
    assert "every round has all clients: there are 6, clients_per_round = 256" in said
    assert "bulyan is made for n >= 4 f + 3 clients" in said


def test_users_without_a_test_item(tmp_path: Path) -> None:
    imported(tmp_path, 60, 60, 8, alone=12)
    assert "users without a test item: 12 of 60; HR@K is the mean over the others" in run().warnings
    imported(tmp_path, 60, 60, 1)
    record = run(attack="pieck-ipe", malicious_ratio=0.05)
    assert "no user has a test item: only exposure is measured" in record.warnings
    assert (record.metrics["hr_10"], record.popularity_hr_10) == (None, None)
    assert record.metrics["er_10"] is not None


def test_a_clean_run_that_learns_nothing_is_told_from_one_that_learns() -> None:
    record = run("longtail-small")
    assert record.popularity_hr_10 is not None
    assert record.popularity_hr_full_10 is not None
    assert record.metrics["hr_10"] is not None
    assert 0 < record.popularity_hr_full_10 < record.popularity_hr_10 < 1
    assert record.metrics["hr_10"] < record.popularity_hr_10
    (said,) = record.warnings
    assert said.startswith(f"recommends worse than popularity: hr_10 = {100 * record.metrics['hr_10']:.1f} %, and ")
    learnt = fedbench.run(Scenario("longtail-small", "mf", protocol_params={"epochs": 60, "evaluate_every": 60}), 0)
    assert learnt.metrics["hr_10"] is not None
    assert learnt.popularity_hr_10 == record.popularity_hr_10
    worse = learnt.metrics["hr_10"] < record.popularity_hr_10
    assert any("recommends worse than popularity" in each for each in learnt.warnings) == worse


def test_a_sample_of_the_users_is_told_with_its_standard_errors() -> None:
    protocol = {"epochs": 2, "evaluate_every": 1, "evaluate_users": 100}
    sampled, twin = (
        fedbench.run(Scenario("longtail-small", "mf", protocol_params=protocol, **more), 0)  # type: ignore[arg-type]
        for more in ({"attack": "pieck-uea", "malicious_ratio": 0.05}, {})
    )
    assert sampled.sampled_users == 100
    assert set(sampled.sampling_errors) == {"er_10_se", "hr_10_se", "hr_full_10_se"}
    assert any(each.startswith("measured of 100 users, drawn at random; standard errors ") for each in sampled.warnings)
    places = [record.target_places[0] for record in (sampled, twin)]  # type: ignore[index]
    measured = [[place != "." for place in each] for each in places]
    assert measured[0] == measured[1], "a run and its twin measure the same users"
    assert sum(measured[0]) > 80
    whole = run("longtail-small", attack="pieck-uea", malicious_ratio=0.05)
    assert (whole.sampled_users, dict(whole.sampling_errors)) == (None, {})
