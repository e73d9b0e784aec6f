"""``fedbench inspect``: what it prints and draws, and what it says when it cannot."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import record, scenario, untargeted, write
from typer.testing import CliRunner, Result

import fedbench
from fedbench.cli import app
from fedbench.cli.inspect import curve_rows
from fedbench.runs.diagnostics import Diagnostics
from fedbench.runs.results import pack, write_record
from fedbench.scenarios.scenario import Scenario

SCENARIO = Scenario(
    "longtail-small",
    "mf",
    "explicit-boost",
    "union+norm-bound",
    malicious_ratio=0.05,
    protocol_params={"epochs": 4, "evaluate_every": 1},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with diagnostics of every round."""
    folder = tmp_path_factory.mktemp("results")
    diagnostics = Diagnostics(1)
    diagnostics.write(folder, write_record(fedbench.run(SCENARIO, 0, on_start=diagnostics.watch), folder).stem)
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """It, and one without diagnostics."""
    shutil.copytree(made, tmp_path / "results")
    return write(tmp_path / "results", record(scenario("a-ra"), 3, er=[0.1, 0.4], hr=0.6))


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = inspect(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").strip()


def test_a_run_with_diagnostics(results: Path) -> None:
    shown = inspect(f"{SCENARIO.id}-s0", "--results", results)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    for fact in ("union+norm-bound (", "union.alpha = 1.0", "15 clients (0.05 of the users)", "4 of 4 epochs"):
        assert fact in shown.stdout
    assert next(line for line in lines if line.startswith("epoch")).split()[:4] == ["epoch", "ER@5", "%", "ER@10"]
    assert "Uploads (8 rounds kept, one in 1)" in lines
    assert sum(line.split()[:2] == ["quarter", "3"] for line in lines) == 2  # in both tables
    assert next(line for line in lines if line.startswith("filter ")).split() == [
        "filter",
        "training",
        "dropped",
        "precision",
        "recall",
        "benign",
        "dropped",
    ]
    union = next(line for line in lines if line.startswith("union ")).split()
    assert union[1] == "all"
    for other in (results / f"{SCENARIO.id}-s0.parquet", results / f"{SCENARIO.id}-s0.rounds.parquet"):
        assert inspect(other).stdout == shown.stdout
    assert inspect(SCENARIO.id[:5], "--results", results).stdout == shown.stdout


def test_numbers_are_those_of_the_json(results: Path) -> None:
    name = f"{SCENARIO.id}-s0"
    data = json.loads(inspect(name, "--results", results, "--json").stdout)
    assert data["record"]["run_id"] == name
    assert len(data["record"]["curve"]) == 4
    kept = data["diagnostics"]
    assert (kept["every"], kept["rounds"]) == (1, list(range(8)))
    assert [each["name"] for each in kept["uploads"]] == ["all", *(f"quarter {k}" for k in range(1, 5))]
    whole, *quarters = kept["uploads"]
    for group in ("benign", "malicious"):
        assert whole[group]["uploads"] == sum(each[group]["uploads"] for each in quarters)
    assert whole["malicious"]["uploads"] == 4 * 15  # shuffled: everybody once an epoch
    first, *rest = kept["filters"]
    assert (first["filter"], first["period"]) == ("union", "all")
    assert first["dropped"] == sum(each["dropped"] for each in rest) > 0
    assert first["precision"] * first["dropped"] == pytest.approx(first["recall"] * whole["malicious"]["uploads"])


def test_a_run_without_diagnostics(results: Path, tmp_path: Path) -> None:
    plain = f"{scenario('a-ra').id}-s3"
    shown = inspect(plain, "--results", results)
    assert shown.exit_code == 0
    assert "No diagnostics of rounds." in shown.stdout
    assert "40.00" in shown.stdout
    assert json.loads(inspect(plain, "--results", results, "--json").stdout)["diagnostics"] is None
    pytest.importorskip("matplotlib")
    assert inspect(plain, "--results", results, "--out", tmp_path / "a.svg").exit_code == 0
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- ER@10 -->" in text
    assert "<!-- round -->" not in text


def test_a_run_by_full_ranking_shows_what_its_track_compares_and_where(tmp_path: Path) -> None:
    """Twelve evaluations, of which the second is best and would not be printed otherwise."""
    val = [0.2, 0.4, *([0.3] * 10)]
    made = untargeted("a-ra", 0, [0.01 * (n + 1) for n in range(12)], val, fields={"target": "random:3"})
    made = replace(made, curve=[{**point, "hr_10": 0.9, "ndcg_10": 0.9} for point in made.curve])
    write(tmp_path, made)
    shown = inspect(made.run_id, "--results", tmp_path)
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert " ".join(next(line for line in lines if line[:1] == ["epoch"])) == (
        "epoch validation HR@5 full % HR@5 full % NDCG@5 full % HR@10 full %"
    )
    best, note = (line for line in lines if line[:1] == ["*"])
    assert best == ["*", "20", "40.00", "2.00", "1.00", "2.00"]
    assert " ".join(note) == "* best on validation items: quality is compared there."
    assert "90.00" not in shown.stdout, "against sampled negatives"
    pytest.importorskip("matplotlib")
    assert inspect(made.run_id, "--results", tmp_path, "--out", tmp_path / "a.svg").exit_code == 0
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- HR@5 full -->" in text
    assert "<!-- best on validation items -->" in text


def test_without_validation_items_no_evaluation_is_marked(tmp_path: Path) -> None:
    made = untargeted("a-ra", 0, [0.01, 0.02], fields={"target": "random:3"})
    write(tmp_path, made)
    shown = inspect(made.run_id, "--results", tmp_path).stdout
    assert "HR@5 full %" in shown
    assert "*" not in shown
    assert "validation" not in shown


def test_runs_in_a_packed_file(results: Path) -> None:
    pack([results], results / "all.parquet")
    for path in results.glob("*-s*.parquet"):
        if not path.name.endswith(".rounds.parquet"):
            path.unlink()
    shown = inspect(f"{SCENARIO.id}-s0", "--results", results / "all.parquet")
    assert "Uploads (8 rounds kept" in shown.stdout
    assert refused(results / "all.parquet").endswith(f"Name one with --results {results}/all.parquet.")


def test_a_picture(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    name = f"{SCENARIO.id}-s0"
    png, svg = tmp_path / "new" / "a.png", tmp_path / "a.svg"
    result = inspect(name, "--results", results, "--out", png)
    assert (result.exit_code, result.stderr) == (0, f"written to {png}\n")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert inspect(name, "--results", results, "--out", svg, "--rounds", "3,5").exit_code == 0
    text = svg.read_text()
    assert [n for n in range(8) if f"<!-- round {n} -->" in text] == [3, 5]
    for label in ("malicious upload", "dropped by a filter", "norm of the upload", "union: recall", "ER@10"):
        assert f"<!-- {label} -->" in text
    assert inspect(name, "--results", results, "--out", svg, "--rounds", "3,5").exit_code == 0
    assert svg.read_text() == text


def test_bad_input(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plain = f"{SCENARIO.id}-s0", f"{scenario('a-ra').id}-s3"
    there = ("--results", results)
    assert refused("x", *there).startswith(f"no run 'x' in {results}. Ids: ")
    assert refused(f"{name[:-1]}7", *there).endswith(f"Did you mean {name}?")
    write(results, record(scenario("a-ra"), 4))
    assert "begins the ids of 2 runs" in refused(scenario("a-ra").id, *there)
    assert refused(tmp_path / "none-s0.parquet") == f"no file '{tmp_path}/none-s0.parquet'."
    assert refused(name, "--results", tmp_path / "empty").startswith("no results in ")
    assert refused(results).endswith(
        f"is a folder, not a run; name one of its runs: `fedbench inspect ID --results {results}`."
    )
    (tmp_path / "x.toml").write_text("name = 1")
    assert refused(tmp_path / "x.toml").startswith(
        f"'{tmp_path}/x.toml' is no record of a run, which is a .parquet file"
    )
    assert refused(name, *there, "--rounds", "0").startswith("--rounds says what to draw")
    out = ("--out", tmp_path / "a.png")
    assert refused(name, *there, *out, "--rounds", "a").startswith("--rounds 'a' must be numbers")
    assert refused(name, *there, "--out", tmp_path / "a.gif").endswith("must end in .png, .svg or .pdf.")
    (results / f"{name}.rounds.parquet").write_bytes(b"PAR1")
    assert "are damaged" in refused(name, *there)
    (results / f"{SCENARIO.id}-s9.rounds.parquet").write_bytes(b"")
    assert "has no record" in refused(results / f"{SCENARIO.id}-s9.rounds.parquet")
    pytest.importorskip("matplotlib")
    assert refused(plain, *there, *out, "--rounds", "0").startswith("--rounds: this run has no diagnostics")
    (tmp_path / "file").write_text("")
    assert refused(plain, *there, "--out", tmp_path / "file" / "a.png").startswith("cannot write")
    write(results, record(scenario("a-hum"), 0, status="failed", error="x"))
    assert refused(f"{scenario('a-hum').id}-s0", *there, *out).endswith("nothing to draw.")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert (
        refused(plain, *there, *out)
        == "a picture needs packages that are not installed: pip install '.[plot]' in a checkout of fedbench."
    )
    assert not (tmp_path / "a.png").exists()


def test_a_damaged_record_is_named(results: Path) -> None:
    path = results / f"{scenario('a-hum').id}-s0.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    message = refused(path.stem[:12], "--results", results)
    assert message.startswith(f"{path} is no whole record: Parquet magic bytes not found in footer. Run its suite")


def test_a_round_that_is_not_kept(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = refused(f"{SCENARIO.id}-s0", "--results", results, "--out", tmp_path / "a.png", "--rounds", "90")
    assert text == "round 90 is not kept; the nearest is 7 (one in 1 is)."


def test_long_curves_are_thinned() -> None:
    curve = [{"epoch": n, "er_10": n / 100, "hr_10": None} for n in range(1, 51)]
    headings, rows = curve_rows(curve)
    assert headings == ("epoch", "ER@10 %")
    assert (len(rows), rows[0], rows[-1]) == (10, ("1", "1.00"), ("50", "50.00"))
    assert curve_rows(curve[:1])[1] == [("1", "1.00")]
    assert curve_rows([]) == (("epoch",), [])


def test_run_refuses_a_bad_interval(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "smoke", "--diagnose-every", "0", "--results", str(tmp_path / "r")])
    assert result.exit_code == 2
    assert result.stderr == "error: --diagnose-every 0 must be at least 1.\n"
    assert not (tmp_path / "r").exists()


def test_a_dry_run_counts_what_has_no_diagnostics(results: Path, tmp_path: Path) -> None:
    suite = tmp_path / "one.toml"
    suite.write_text(
        'name = "one"\nversion = 1\ntitle = "One"\nseeds = 1\n[defaults]\ndataset = "longtail-small"\n'
        "malicious_ratio = 0.05\nprotocol_params = { epochs = 4, evaluate_every = 1 }\n"
        '[matrix]\nmodel = ["mf"]\nattack = ["explicit-boost"]\ndefense = ["union+norm-bound"]\n'
    )
    arguments = ["run", str(suite), "--dry-run", "--results", str(results), "--device", "cpu"]
    name = f"{SCENARIO.id}-s0.rounds.parquet"
    counts = [f" {there} there;" for there in (1, 0, 1)]
    first = CliRunner().invoke(app, [*arguments, "--diagnostics"]).stdout
    (results / name).unlink()
    second = CliRunner().invoke(app, [*arguments, "--diagnostics"]).stdout
    third = CliRunner().invoke(app, arguments).stdout
    assert [count in text for count, text in zip(counts, (first, second, third), strict=True)] == [True] * 3
