"""What of a suite has to run: order, resume, and past timing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import fedbench
from fedbench.data.images import Pictures, load_pictures
from fedbench.errors import DataError, ResultsError, UserError
from fedbench.runs.plan import Run, check_data, check_writable, expected_seconds, in_order, make_plan, obstacles
from fedbench.runs.record import RunRecord
from fedbench.runs.results import pack, scan, write_record
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned

SHORT = {"epochs": 1}
CLEAN = Scenario("longtail-small", "mf", protocol_params=SHORT)
OTHER = Scenario("longtail-small", "mf", target="random:1", protocol_params=SHORT)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return fedbench.run(CLEAN, 0)


def test_order_is_by_dataset_then_seed_then_suite() -> None:
    a = Scenario("ml-100k", "mf")
    b = Scenario("ml-1m", "mf")
    c = Scenario("ml-100k", "ncf")
    runs = in_order([Planned(a, (0, 1)), Planned(b, (5,)), Planned(c, (0, 1, 2))])
    assert runs == [Run(a, 0), Run(c, 0), Run(a, 1), Run(c, 1), Run(c, 2), Run(b, 5)]


@pytest.mark.parametrize(
    ("status", "there"), [("ok", True), ("diverged", True), ("failed", False)], ids=["ok", "diverged", "failed"]
)
def test_what_is_there_is_kept_unless_it_failed(record: RunRecord, tmp_path: Path, status: str, there: bool) -> None:
    write_record(dataclasses.replace(record, status=status), tmp_path)
    plan = make_plan([Planned(CLEAN, (0, 1)), Planned(OTHER, (0,))], tmp_path)
    kept = [Run(CLEAN, 0)] if there else []
    assert plan.kept == kept
    assert list(plan.todo) == [run for run in (Run(CLEAN, 0), Run(OTHER, 0), Run(CLEAN, 1)) if run not in kept]


def test_fresh_runs_everything(record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path)
    plan = make_plan([Planned(CLEAN, (0, 1))], tmp_path, fresh=True)
    assert (plan.kept, plan.todo) == ([], [Run(CLEAN, 0), Run(CLEAN, 1)])


def test_a_truncated_record_is_named_and_does_not_count(record: RunRecord, tmp_path: Path) -> None:
    path = write_record(record, tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    plan = make_plan([Planned(CLEAN, (0,))], tmp_path)
    assert plan.todo == [Run(CLEAN, 0)]
    assert list(plan.damaged) == [str(path)]


def test_runs_on_other_data_of_the_same_name_are_run_again(record: RunRecord, tmp_path: Path) -> None:
    write_record(dataclasses.replace(record, dataset_fingerprint="0" * 64), tmp_path)
    plan = make_plan([Planned(CLEAN, (0,))], tmp_path)
    assert (plan.kept, plan.todo, plan.moved) == ([], [Run(CLEAN, 0)], [Run(CLEAN, 0)])
    write_record(record, tmp_path)
    assert make_plan([Planned(CLEAN, (0,))], tmp_path).kept == [Run(CLEAN, 0)]


def test_runs_of_other_images_are_run_again(record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that looks at them, once the record says which; the images are read once for a dataset and split."""
    sighted = Scenario("longtail-small", "vncf", model_params={"extractor": "random-conv"}, protocol_params=SHORT)
    ids = {"scenario_id": sighted.id, "scenario_json": sighted.key}
    here = load_pictures("longtail-small", "leave-one-out").fingerprint
    for seed, fingerprint in enumerate((here, "x", None, "y")):
        write_record(dataclasses.replace(record, seed=seed, images_fingerprint=fingerprint, **ids), tmp_path)
    write_record(dataclasses.replace(record, images_fingerprint="x"), tmp_path)
    read: list[tuple[str, str]] = []

    def counted(dataset: str, split: str) -> Pictures:
        read.append((dataset, split))
        return load_pictures(dataset, split)

    monkeypatch.setattr("fedbench.runs.plan.load_pictures", counted)
    planned = [Planned(sighted, (0, 1, 2, 3)), Planned(CLEAN, (0,))]
    plan = make_plan(planned, tmp_path)
    assert plan.replaced == plan.todo == [Run(sighted, 1), Run(sighted, 3)]
    assert (len(plan.kept), plan.changed, read) == (3, [], [("longtail-small", "leave-one-out")])
    monkeypatch.setattr("fedbench.runs.plan.has_pictures", lambda dataset: False)
    assert make_plan(planned, tmp_path).todo == []


def test_expected_seconds_are_the_median_of_the_same_kind(record: RunRecord, tmp_path: Path) -> None:
    for seed, (seconds, status) in enumerate([(1.0, "ok"), (9.0, "ok"), (2.0, "ok"), (500.0, "failed")]):
        write_record(dataclasses.replace(record, seed=seed, seconds_total=seconds, status=status), tmp_path)
    ncf = Scenario("longtail-small", "ncf")
    runs = [Run(OTHER, 0), Run(ncf, 0)]
    assert expected_seconds(runs, scan([tmp_path]).table) == {runs[0]: 2.0, runs[1]: None}
    pack([tmp_path], tmp_path / "packed" / "all.parquet")
    assert expected_seconds(runs, scan([tmp_path / "packed"]).table) == {runs[0]: 2.0, runs[1]: None}


def test_expected_seconds_follow_the_defense_and_the_epochs(record: RunRecord, tmp_path: Path) -> None:
    write_record(dataclasses.replace(record, seconds_total=3.0), tmp_path)
    write_record(dataclasses.replace(record, seed=1, seconds_total=30.0, defense="krum"), tmp_path)
    epochs = CLEAN.resolved.protocol.epochs
    long, slow, unseen = (
        dataclasses.replace(CLEAN, protocol_params={"epochs": 4 * epochs}),
        dataclasses.replace(CLEAN, defense="krum"),
        dataclasses.replace(CLEAN, defense="median"),
    )
    found = expected_seconds([Run(each, 0) for each in (long, slow, unseen)], scan([tmp_path]).table)
    assert list(found.values()) == pytest.approx([12.0, 30.0, 16.5])


def test_missing_data_and_unknown_splits_are_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    check_data([CLEAN])
    with pytest.raises(DataError, match=r"'ml-1m'.*fedbench data get ml-1m.*--only dataset="):
        check_data([CLEAN, Scenario("ml-1m", "mf")])
    with pytest.raises(UserError, match="has no split 'published'"):
        check_data([dataclasses.replace(CLEAN, protocol_params={"split": "published"})])
    with pytest.raises(UserError, match="Unknown dataset 'ml-10m'"):
        check_data([Scenario("ml-10m", "mf")])


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == [], "the first record makes the folder"
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="is not a folder"):
        make_plan([], tmp_path / "file")
    with pytest.raises(ResultsError, match="cannot write in the results folder"):
        check_writable(tmp_path / "file" / "below")


def test_everything_that_keeps_runs_from_starting_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    (tmp_path / "file").write_text("")
    beyond = dataclasses.replace(CLEAN, target="fixed:400")
    many = dataclasses.replace(CLEAN, num_targets=401)
    far = Scenario("ml-1m", "mf", target="fixed:99999")
    runs = [Run(each, seed) for seed in (0, 1) for each in (CLEAN, beyond, far, many)]
    found = [str(error) for error in obstacles(runs, tmp_path / "file" / "below")]
    starts = ["Dataset 'ml-1m'", "target 'fixed:400'", "num_targets = 401", "cannot write in the results folder"]
    assert [text[: len(start)] for text, start in zip(found, starts, strict=True)] == starts
    assert list(obstacles([Run(CLEAN, 0)], tmp_path / "new")) == []
