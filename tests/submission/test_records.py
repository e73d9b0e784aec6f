"""Records, source and completeness: every way to cheat that leaves the hashes right, each with its reason."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import (
    edited,
    refused,
    rows_of,
    sealed,
    table_of,
    unpacked,
    with_curve,
    with_json,
    with_rows,
    with_table,
)

import fedbench
from fedbench.runs.record import SCHEMA_VERSION, checksum, schema
from fedbench.runs.results import scan
from fedbench.scenarios.scenario import Scenario
from fedbench.submission import records, rows
from fedbench.submission.container import CARD, ENVIRONMENT, SOURCE
from fedbench.submission.records import Row
from fedbench.submission.report import Check
from fedbench.submission.verify import verify


def put(**values: Any) -> Callable[[Row], Any]:
    return lambda row: row.update(values)


def points(**values: Any) -> Callable[[Row], Any]:
    """All points of the curve changed, and its summary with them."""
    return lambda row: with_curve(row, lambda point: point.update(values))


def another(row: Row, **values: Any) -> None:
    """A row with a field of its scenario changed, whose ids stay as they are."""
    row["scenario_json"] = dataclasses.replace(Scenario(**json.loads(row["scenario_json"])), **values).key


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        pytest.param(put(er_10=0.9), "er_10 = 0.9, but its curve gives 0.0", id="a number changed"),
        pytest.param(put(er_10_peak=0.9), "er_10_peak = 0.9, but its curve gives", id="a peak changed"),
        pytest.param(put(hr_10=None), "hr_10 = None, but its curve gives 0.", id="a number taken out"),
        pytest.param(lambda row: row["curve"][-1].update(er_10=0.9), "er@K falls with K at epoch 50", id="the curve changed"),
        pytest.param(lambda row: row["curve"].pop(), "but its protocol evaluates at", id="the curve cut"),
        pytest.param(lambda row: row["curve"][0].update(epoch=11), "but its protocol evaluates at", id="another epoch"),
        pytest.param(points(er_30=1.5), "er_30 = 1.5 at epoch 10 is not in [0, 1]", id="above 1"),
        pytest.param(points(hr_5=-0.1), "hr_5 = -0.1 at epoch 10 is not in [0, 1]", id="below 0"),
        pytest.param(points(er_5=float("nan")), "er_5 = nan is not finite", id="NaN everywhere"),
        pytest.param(
            lambda row: row["curve"][0].update(hr_5=float("nan")), "hr_5 = nan at epoch 10 is not in", id="NaN in the curve"
        ),
        pytest.param(put(er_10_tail=float("nan")), "er_10_tail = nan is not finite", id="NaN in a summary"),
        pytest.param(put(seconds_total=float("inf")), "seconds_total = inf is not finite", id="infinite time"),
        pytest.param(put(seconds_train=-1.0), "seconds_train = -1.0 is negative", id="negative time"),
        pytest.param(points(hr_20=0.01), "hr@K falls with K at epoch 10", id="HR falls with K"),
        pytest.param(points(hr_10=None), "the curve lacks hr_10", id="a metric left out"),
        pytest.param(points(val_hr_full_5=0.5), "the curve has val_hr_full_5, which", id="a metric too many"),
        pytest.param(put(scenario_id="0" * 16), "scenario_id = '0000000000000000', but its scenario gives", id="scenario id"),
        pytest.param(put(clean_id="0" * 16), "clean_id = '0000000000000000', but its scenario gives", id="clean twin"),
        pytest.param(put(undefended_id="0" * 16), "undefended_id = ", id="undefended twin"),
        pytest.param(put(run_id="x-s0"), "run_id is not made of scenario_id and seed", id="run id"),
        pytest.param(put(scenario_json="{}"), "scenario_json = '{}' is no scenario", id="no scenario"),
        pytest.param(put(scenario_json="[" * 9000), "is no scenario", id="nested scenario"),
        pytest.param(put(scenario_json=None), "scenario_json is null", id="null scenario"),
        pytest.param(lambda row: another(row, num_targets=2), "scenario_id = ", id="other scenario under the same id"),
        pytest.param(put(dataset="ml-1m"), "dataset = 'ml-1m', but its scenario gives 'longtail-small'", id="dataset"),
        pytest.param(put(attack="none"), "attack = 'none', but", id="attack"),
        pytest.param(put(attack_goal="degrade"), "attack_goal = 'degrade', but its scenario gives 'promote'", id="goal"),
        pytest.param(put(attack_channel="image"), "attack_channel = 'image', but", id="channel"),
        pytest.param(put(attack_knowledge=["own_data"]), "attack_knowledge = ['own_data'], but", id="knowledge"),
        pytest.param(put(attack_version=2), "attack_version = 2, but its scenario gives 1", id="version"),
        pytest.param(put(attack_params='{"strength": 9.0}'), "attack_params = ", id="parameters"),
        pytest.param(put(malicious_ratio=0.01), "malicious_ratio = 0.01, but its scenario gives 0.05", id="ratio"),
        pytest.param(put(num_malicious=1), "num_malicious = 1, but 0.05 of the users are 15", id="malicious clients"),
        pytest.param(put(target_items=[1, 2]), "gives 1 of 400 items", id="too many targets"),
        pytest.param(put(target_items=[400]), "gives 1 of 400 items", id="no such item"),
        pytest.param(put(target_items=[3]), "with the same target", id="another target"),
        pytest.param(put(rounds=1), "rounds = 1, but 50 epochs have 100", id="rounds"),
        pytest.param(put(epochs_done=49), "epochs_done = 49 of 50, and its status is ok", id="epochs done"),
        pytest.param(put(epochs_planned=8), "epochs_planned = 8, but its scenario gives 50", id="epochs planned"),
        pytest.param(put(status="failed", error="x"), "status = 'failed'; a bundle holds", id="failed run"),
        pytest.param(put(status="great"), "status = 'great'; a bundle holds", id="unknown status"),
        pytest.param(put(error="x"), "status is ok, but error = 'x'", id="error of a run that is ok"),
        pytest.param(put(num_items=401), "num_items of ", id="other data than its twin"),
        pytest.param(put(dataset_fingerprint="0" * 64), "on the same data", id="fingerprint"),
        pytest.param(put(images_fingerprint="0" * 64), "images_fingerprint = '000", id="images that nobody looks at"),
        pytest.param(put(extractor="vgg16"), "extractor = 'vgg16', but its scenario gives None", id="extractor"),
        pytest.param(
            put(sampled_users=100),
            "sampled_users = 100, but the protocol has evaluate_users = None",
            id="a sample that the protocol does not have",
        ),
        pytest.param(
            put(schema_version=SCHEMA_VERSION + 1), f"but new records have {SCHEMA_VERSION}", id="future schema"
        ),
        pytest.param(put(schema_version=1), f"schema_version = 1, but new records have {SCHEMA_VERSION}", id="old schema"),
        pytest.param(put(started_at=datetime(2099, 1, 1, tzinfo=UTC)), "started_at = 2099-01-01 00:00 and", id="2099"),
        pytest.param(put(started_at=None), "started_at is null", id="no time"),
        pytest.param(put(isolation="vault"), "isolation = 'vault' is no level of isolation", id="isolation"),
        pytest.param(put(refused_uploads=-1), "refused_uploads = -1 is negative", id="refused uploads"),
        pytest.param(put(warnings=["\x1b[2J"]), "warnings are too long, or hold", id="warnings"),
        pytest.param(put(model_version=None), "model_version is null", id="no version of the model"),
        pytest.param(put(model_source_hash=None), "model_source_hash is null", id="no source of the model"),
        pytest.param(put(attack_version=None), "attack_version is null", id="no version of the attack"),
        pytest.param(put(device_name="x\x1b[2J"), "a character that cannot be seen", id="terminal escape"),
        pytest.param(put(suite="a\u202eb"), "a character that cannot be seen", id="bidi override"),
        pytest.param(put(platform="x" * 30_000), "is too long", id="long text"),
        pytest.param(put(attack_source_hash="0" * 64), "attack_source_hash is not that of source.py", id="source hash"),
        pytest.param(put(seconds_train=0.0, seconds_total=0.0), "100 rounds in seconds_train = 0.0", id="no time at all"),
        pytest.param(put(seconds_total=1e308), "seconds_total = 1e+308 is longer than any run", id="endless"),
        pytest.param(put(seconds_total=0.001), "seconds_total = 0.001, but its parts make ", id="less than its parts"),
        pytest.param(put(threads=-1), "threads = -1 is below 1", id="threads"),
        pytest.param(put(peak_gpu_bytes=-1), "peak_gpu_bytes = -1 is negative", id="memory"),
        pytest.param(put(suite="a suite <b>"), "suite = 'a suite <b>' cannot be the name of a suite", id="suite"),
        pytest.param(put(suite="x" * 65), "cannot be the name of a suite", id="long suite"),
        pytest.param(put(seed=-1), "run_id is not made of scenario_id and seed", id="negative seed"),
    ],
)  # fmt: skip
def test_a_changed_record(good: bytes, edit: Callable[[Row], Any], reason: str) -> None:
    assert reason in refused(edited(good, edit), "records")


def test_the_published_records_pass_what_is_asked_of_times_and_machines() -> None:
    folder = Path(__file__).parents[2] / "leaderboard" / "results"
    columns = ["run_id", "suite", "rounds", "threads", "peak_gpu_bytes", "started_at", *rows._SECONDS]
    since_7 = dict.fromkeys(("isolation", "refused_uploads", "warnings"))
    published = [
        since_7 | row for path in scan([folder]).files for row in pq.read_table(path, columns=columns).to_pylist()
    ]
    assert len(published) > 2000
    assert [(row["run_id"], reason) for row in published for reason in rows._of_machine(row)] == []


def test_the_checksum_is_that_of_the_values(good: bytes) -> None:
    rows = rows_of(good)
    rows[0]["checksum"] = "0" * 64
    members = unpacked(good)
    told = refused(sealed({**members, "records.parquet": records.written(rows)}), "records")
    assert told == f"the checksum of 1 record is not that of its values: {rows[0]['run_id']}."


def test_what_runs_say_of_images() -> None:
    """Those of models that look at none say nothing; the others name the extractor of their scenario, and equal images."""
    made = []
    for model in ("vncf", "lightvgcn", "mf"):
        params = {} if model == "mf" else {"model_params": {"extractor": "random-conv"}}
        of = Scenario("longtail-small", model, protocol="tois", target="none", protocol_params={"epochs": 1}, **params)
        made.append(fedbench.run(of, 0).row())

    def reasons(**values: Any) -> str:
        check = Check("records")
        changed = made[1] | values
        changed |= {"checksum": checksum(changed)}
        rows.check_rows([made[0], changed, made[2]], "attack", "none", None, check)
        return " ".join(check.reasons)

    assert reasons() == ""
    assert "images_fingerprint of " in reasons(images_fingerprint="0" * 64)
    assert "images_fingerprint = None, of model 'lightvgcn'" in reasons(images_fingerprint=None)
    assert "extractor = None, but its scenario gives 'random-conv'" in reasons(extractor=None)


def test_a_run_that_occurs_twice(good: bytes) -> None:
    rows = rows_of(good)
    assert f"run '{rows[0]['run_id']}' occurs twice" in refused(with_rows(good, [*rows, rows[0]]), "records")


def test_diverged_runs_count_and_are_told(good: bytes) -> None:
    def diverge(row: Row) -> None:
        row["curve"] = row["curve"][:3]
        row.update(status="diverged", error="parameters are not finite after epoch 40", epochs_done=40, rounds=80)
        with_curve(row, lambda point: None)

    found = verify(edited(good, diverge))
    assert found.ok, found.checks
    assert "1 of 8 runs diverged, and counts as such" in " ".join(found.checks[4].notes)


def test_a_missing_run_is_named(good: bytes) -> None:
    rows = rows_of(good)
    (gone,) = [row for row in rows if row["attack"] != "none" and row["defense"] == "none" and row["seed"] == 1]
    told = refused(with_rows(good, [row for row in rows if row is not gone]), "completeness")
    assert told == (
        "1 run is missing: longtail-small mf random-direction none 0.05 icde24 random:1 protocol.epochs=50 s1."
    )


def test_a_missing_twin_is_named(good: bytes) -> None:
    rows = [row for row in rows_of(good) if row["attack"] != "none" or row["defense"] != "none" or row["seed"] == 1]
    told = refused(with_rows(good, rows), "completeness")
    assert told == ("1 run of twins is missing: longtail-small mf none none 0 icde24 random:1 protocol.epochs=50 s0.")


def test_a_dropped_cell_is_named(good: bytes) -> None:
    """Whoever leaves out the defense that stops the attack is told which cell is not there."""
    rows = [row for row in rows_of(good) if not (row["attack"] != "none" and row["defense"] == "norm-bound")]
    told = refused(with_rows(good, rows), "completeness")
    assert "1 cell of the slice is missing whole: longtail-small mf random-direction norm-bound 0.05" in told
    assert "(2 runs)." in told


def test_extra_runs_are_named(good: bytes) -> None:
    told = refused(sealed(unpacked(good), only=["model=mf,defense=none"]), "completeness")
    assert "4 runs that suite smoke (version 2) --only model=mf,defense=none --seeds 2 does not have: " in told
    told = refused(sealed(unpacked(good), seeds=1), "completeness")
    assert "4 runs that suite smoke (version 2) --only model=mf --seeds 1 does not have: " in told


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"suite": "smokey"}, "Unknown suite 'smokey'. Did you mean 'smoke'?"),
        ({"suite": "a/b.toml"}, "Unknown suite 'a/b.toml'."),
        ({"suite_version": 9}, "made for version 9 of suite smoke; here it is 2"),
        ({"seeds": None}, "3 runs"),
        ({"only": []}, "cells of the slice are missing whole"),
        ({"only": ["model=<b>"]}, "fits nothing in suite 'smoke'"),
        ({"only": ["modle=mf"]}, "Unknown key of --only 'modle'"),
        ({"suite": "core-untargeted"}, "fits no scenario of suite 'core-untargeted'"),
    ],
)
def test_claims_that_do_not_hold(good: bytes, values: dict[str, Any], reason: str) -> None:
    told = refused(sealed(unpacked(good), **values), "completeness")
    assert reason in told or (values == {"seeds": None} and "are missing" in told)


def test_the_environment_is_that_of_the_records(good: bytes) -> None:
    assert "not what the records say" in refused(with_json(good, ENVIRONMENT, environments=[]), "records")


# ------------------------------------------------------------------------------------------------- the file


def test_foreign_parquet(good: bytes) -> None:
    told = refused(with_table(good, pa.table({"a": [1], "<b>": [2]})), "records")
    assert "not the columns of a record: lacks 'schema_version'; " in told
    assert "has 'a'; '<b>'" in told


def test_columns_of_another_type(good: bytes) -> None:
    table = table_of(good)
    at = table.schema.get_field_index("er_10")
    changed = table.set_column(at, "er_10", table["er_10"].cast(pa.float32()))
    assert "column er_10 is float, not double" in refused(with_table(good, changed), "records")
    assert "another order" in refused(with_table(good, table.select(table.column_names[::-1])), "records")
    assert "lacks 'er_10'" in refused(with_table(good, table.drop_columns(["er_10"])), "records")


def test_parquet_bombs(good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that unpack to many: by a dictionary, or by compression. Nothing of it is read."""
    row = rows_of(good)[0] | {"platform": "x" * (1 << 16)}
    many = pa.concat_tables([pa.Table.from_pylist([row], schema=schema())] * 100)
    bomb = with_table(good, many, use_dictionary=True, compression="zstd")
    assert len(bomb) < many.nbytes / 20
    assert "is not stored plainly" in refused(bomb, "records")
    monkeypatch.setattr(records, "MOST_BYTES", 1 << 22)
    assert "it unpacks to 6," in refused(with_table(good, many, compression="zstd"), "records")


def test_too_many_rows(good: bytes) -> None:
    many = pa.concat_tables([schema().empty_table(), *[table_of(good)] * 2501])
    assert "20,008 rows (at most 20,000)" in refused(with_table(good, many, compression="zstd"), "records")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100, b"\x80\x04\x95pickle"])
def test_records_that_are_no_parquet(good: bytes, data: bytes) -> None:
    assert "cannot be read" in refused(sealed({**unpacked(good), "records.parquet": data}), "records")


# --------------------------------------------------------------------------------------------------- the source


def with_source(data: bytes, old: str, new: str) -> bytes:
    """The bundle with another source under its right hash and module."""
    members = unpacked(data)
    changed = members[SOURCE].decode().replace(old, new)
    assert changed != members[SOURCE].decode()
    return with_raw_source(data, changed.encode())


def with_raw_source(data: bytes, source: bytes) -> bytes:
    from fedbench.submission.source import module_of_file

    module = module_of_file(source)
    stated = {"module": module, "modules": ["fedbench.federation.attack", module]}
    return sealed({**unpacked(data), SOURCE: source}, **stated)


def test_a_source_edited_after_the_runs(good: bytes) -> None:
    told = refused(with_source(good, "strength: float = Field(0.1", "strength: float = Field(0.2"), "records")
    assert "attack_source_hash is not that of source.py: the file was edited after the runs" in told


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('title="Random direction"', 'title="Other"', "title = 'Random direction', but the source has 'Other'"),
        ("Goal.PROMOTE", "Goal.DEMOTE", "goal = <Goal.PROMOTE: 'promote'>, but the source has <Goal.DEMOTE"),
        ('name="random-direction"', 'name="other"', "name = 'random-direction', but the source has 'other'"),
        ("class RandomDirection", "class Another", "there is no class RandomDirection"),
        ("class RandomDirection", "class", "not valid Python: invalid syntax"),
        ('"""A fixed', '"""A\u202e fixed', "source.py:1: holds the character U+202E"),
        ('"""A fixed', '"""A\x00 fixed', "source.py:1: holds the character U+0000"),
        (
            '"""A fixed',
            '# coding: utf-7\n# +AGE-\n"""A fixed',
            "declares an encoding in which it reads as something else",
        ),
        ("import torch", "x = " + "(" * 5000, "not valid Python"),
    ],
)
def test_sources_that_are_refused_without_importing_them(good: bytes, old: str, new: str, reason: str) -> None:
    told = verify(with_source(good, old, new))
    reasons = [reason for check in told.checks if check.name == "source" for reason in check.reasons]
    assert reason in " ".join(reasons)


def test_a_source_that_is_no_text(good: bytes) -> None:
    assert "not text in UTF-8" in refused(with_raw_source(good, b"\xff\xfe"), "source")


def test_nothing_of_the_source_is_run(good: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    verify(with_source(good, "import torch", "print('run')\nraise SystemExit(3)\nimport torch"))
    assert capfd.readouterr() == ("", "")


def test_what_a_reader_should_look_at_is_pointed_out(good: bytes) -> None:
    notes = (
        verify(with_source(good, "import torch", "import subprocess\nimport requests\nimport torch")).checks[3].notes
    )
    assert any("imports the standard library's subprocess" in note for note in notes)
    assert any("imports another package's requests" in note for note in notes)
    notes = verify(with_source(good, "import torch", "import torch\nexec('1')")).checks[3].notes
    assert any("calls exec()" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"module": "os"}, "module is not one of modules"),
        ({"module": "fedbench_file_0", "modules": ["fedbench_file_0"]}, "module = 'fedbench_file_0', but this file is"),
        ({"modules": ["fedbench.nothing"]}, "module is not one of modules"),
    ],
)
def test_modules_of_the_manifest(good: bytes, values: dict[str, Any], reason: str) -> None:
    assert reason in refused(sealed(unpacked(good), **values), "source")


def test_modules_that_fedbench_does_not_have(good: bytes) -> None:
    module = json.loads(unpacked(good)["manifest.json"])["module"]
    for name in ("fedbench.nothing", "os.path", "fedbench.__main__.x"):
        told = refused(sealed(unpacked(good), modules=sorted([module, name])), "source")
        assert f"modules names {name!r}, which is no module of this fedbench" in told


def test_the_name_of_an_entry_of_fedbench_is_taken(good: bytes) -> None:
    members = unpacked(good)
    card = json.loads(members[CARD]) | {"name": "pieck-uea"}
    stolen = sealed({**members, CARD: (json.dumps(card, indent=2, sort_keys=True) + "\n").encode()}, name="pieck-uea")
    assert "the name 'pieck-uea' is taken by the attack that comes with fedbench" in refused(stolen, "card")


def test_a_card_whose_version_is_not_that_of_source_and_records(good: bytes) -> None:
    """The class leaves the version out, so it has the default."""
    forged = with_json(good, CARD, version=2)
    assert "version = 2, but the source has 1" in refused(forged, "source")
    assert "scenario_id = " in " ".join(verify(forged).checks[4].reasons)
