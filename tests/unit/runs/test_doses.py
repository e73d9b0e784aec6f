"""Which doses of a ladder are run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from records import record
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.runs.doses import STEP, wanted
from fedbench.runs.execution import make_plan, run_suite
from fedbench.runs.plan import Run
from fedbench.runs.record import RunRecord
from fedbench.runs.results import scan, write_record
from fedbench.runs.task import split_of
from fedbench.scenarios.suite import Suite, load_suite
from fedbench.submission.claim import Claim, missing_runs
from fedbench.submission.report import Check

LADDER = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
SUITE = f"""
name = "ladder"
version = 1
title = "Ladder"
seeds = 2
[defaults]
dataset = "longtail-small"
target = "per-seed"
protocol_params = {{ epochs = 2, evaluate_every = 1 }}
[matrix]
model = ["mf"]
attack = ["explicit-boost"]
[[group]]
adaptive = true
[group.matrix]
malicious_ratio = {LADDER}
"""


def test_a_flat_response_asks_for_both_ends_and_the_middle() -> None:
    assert wanted([[0.0]] * 8) == {0, 3, 7}
    assert wanted([[0.0], [0.0], [0.0]]) == {0, 1, 2}
    assert wanted([[0.3]]) == {0}


def test_where_it_rises_all_between_are_run() -> None:
    rise = [[0.0], [0.0], [0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]
    assert wanted(rise) == {0, 3, 4, 5, 7}
    assert wanted([[0.0, 0.0]] * 3 + [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]) == {0, 3, 4, 5, 7}


def test_what_is_still_missing_asks_for_nothing() -> None:
    assert wanted([[0.0], None, None, None, None, None, None, [1.0]]) == {0, 3, 7}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_no_gap_is_left_where_the_response_rises(values: list[float]) -> None:
    chosen = sorted(wanted([[value] for value in values]))
    assert {0, len(values) - 1} <= set(chosen)
    for low, high in itertools.pairwise(chosen):
        assert high - low == 1 or abs(values[high] - values[low]) <= STEP
    rising = sorted(values)
    run = sorted(wanted([[value] for value in rising]))
    for low, high in itertools.pairwise(run):  # what is left out lies between two that are no further apart
        assert all(rising[low] <= value <= rising[high] for value in rising[low : high + 1])


def suite(tmp_path: Path, text: str = SUITE) -> Suite:
    (tmp_path / "ladder.toml").write_text(text)
    return load_suite(str(tmp_path / "ladder.toml"))


def ratios(runs: Iterable[Run]) -> list[float]:
    return sorted({run.scenario.malicious_ratio for run in runs} - {0.0})


def shows(run: Run, exposure: float) -> RunRecord:
    """The record of a run whose exposure is the same in all epochs."""
    data = {"dataset_fingerprint": split_of(run.scenario, run.seed).fingerprint}
    return dataclasses.replace(record(run.scenario, run.seed, [exposure] * 4), **data)


def test_a_plan_grows_with_its_records_and_comes_to_rest(tmp_path: Path) -> None:
    planned, results = suite(tmp_path).plan(), tmp_path / "results"
    plan, ran = make_plan(planned, results), list[Run]()
    # 300 users: 0.2 and 0.5 % are one client, of which 0.5 % is run.
    assert ratios(plan.todo) == [0.005, 0.02, 0.2]
    assert plan.open_doses == 8
    while plan.todo:
        ran += plan.todo
        for run in plan.todo:  # it rises at 2 % on the one seed, at 5 % on the other
            write_record(shows(run, float(run.scenario.malicious_ratio > 0.01 * (1 + run.seed))), results)
        plan = make_plan(planned, results)
    assert ratios(ran) == [0.005, 0.01, 0.02, 0.05, 0.2]
    assert len(ran) == len(set(ran)) == 2 * 5 + 2  # both seeds of every dose, and of the clean twin
    assert len(plan.kept) == len(ran)


def test_parts_that_do_not_see_each_other_run_everything(tmp_path: Path) -> None:
    planned = suite(tmp_path).plan()
    parts = [make_plan(planned, tmp_path / "results", shard=(part, 3)).todo for part in (1, 2, 3)]
    assert sorted(run.id for part in parts for run in part) == sorted(
        f"{each.scenario.id}-s{seed}" for each in planned for seed in each.seeds
    )


def test_a_defended_dose_brings_its_twins_along(tmp_path: Path) -> None:
    planned = suite(tmp_path, SUITE.replace("[[group]]", 'defense = ["median"]\n[[group]]')).plan()
    plan = make_plan(planned, tmp_path / "results")
    found = {(run.scenario.defense, run.scenario.malicious_ratio) for run in plan.todo}
    assert found == {(defense, ratio) for defense in ("none", "median") for ratio in (0.0, 0.005, 0.02, 0.2)}


def test_a_dose_that_another_group_names_is_always_run(tmp_path: Path) -> None:
    more = SUITE + "[[group]]\n[group.matrix]\nmalicious_ratio = [0.1]\n"
    assert 0.1 in ratios(make_plan(suite(tmp_path, more).plan(), tmp_path / "results").todo)


def test_run_goes_on_until_no_dose_is_asked_for(tmp_path: Path) -> None:
    text = (
        SUITE.replace("seeds = 2", "seeds = 1")
        .replace("epochs = 2,", "epochs = 30,")
        .replace("explicit-boost", "pieck-uea")
    )
    (tmp_path / "ladder.toml").write_text(text)
    command = ["run", str(tmp_path / "ladder.toml"), "--results", str(tmp_path / "results"), "--jobs", "1"]
    before = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "Besides, at most 4 runs of doses" in before.stdout
    summary = run_suite(suite(tmp_path, text).plan(), results=tmp_path / "results", jobs=1)
    assert summary.exit_code == 0
    assert summary.count("ok") > 4  # the clean run, three doses, and those between
    after = CliRunner().invoke(app, [*command, "--dry-run"])
    assert f"{summary.count('ok')} runs: 0 to run, {summary.count('ok')} there" in after.stdout
    table = scan([tmp_path / "results"]).table
    shown = dict(zip(table["num_malicious"].to_pylist(), table["er_10_tail"].to_pylist(), strict=True))
    ladder = [1, 3, 6, 15, 30, 60]
    assert {clients for clients in shown if clients} == {
        ladder[rung] for rung in wanted([[shown[c]] if c in shown else None for c in ladder])
    }


def test_a_bundle_needs_the_doses_that_its_records_ask_for(tmp_path: Path) -> None:
    planned = suite(tmp_path).plan()
    runs = {run.id: run for each in planned for run in (Run(each.scenario, seed) for seed in each.seeds)}
    claimed = Claim("attack", "explicit-boost", "ladder", 1, (), None, planned, runs, frozenset())
    first = make_plan(planned, tmp_path / "results").todo
    rows = [shows(run, float(run.scenario.malicious_ratio > 0.05)).row() for run in first]
    check = Check("runs")
    missing_runs(claimed, rows, check)
    assert len(check.reasons) == 1
    assert "explicit-boost none 0.05 icde24 per-seed" in check.reasons[0]
    assert "explicit-boost none 0.01 " not in check.reasons[0]
    flat = Check("runs")
    missing_runs(claimed, [shows(run, 0.0).row() for run in first], flat)
    assert not flat.reasons
