"""What is refused before there is a bundle, and the two commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import plugin_files
import pyarrow.parquet as pq
import pytest
from bundles import ONLY, Submitted, edited, make, refused, sealed, summed, unpacked
from typer.testing import CliRunner

import fedbench
from fedbench import plugins
from fedbench.cli import app
from fedbench.errors import UserError
from fedbench.runs.results import write_record
from fedbench.scenarios.scenario import forget_scenarios
from fedbench.submission.bundle import entry, make_bundle
from fedbench.submission.claim import claim
from fedbench.submission.verify import verify

pytestmark = pytest.mark.usefixtures("fresh")


def reasons(submitted: Submitted, results: list[Path], twins: list[Path] | None = None) -> str:
    made = make(submitted, results, twins=twins)
    assert made.data is None
    return "\n".join(reason for check in made.checks for reason in check.reasons)


def rewritten(path: Path, **values: object) -> None:
    """The record with other values in some columns, and the checksum of these."""
    table = pq.read_table(path)
    (row,) = table.to_pylist()
    pq.write_table(table.from_pylist(summed([row | values]), schema=table.schema), path)


@pytest.fixture
def results(submitted: Submitted, tmp_path: Path) -> Path:
    """A copy of the records."""
    return Path(shutil.copytree(submitted.results, tmp_path / "results"))


def attacked(results: Path) -> list[Path]:
    return [path for path in sorted(results.iterdir()) if pq.read_table(path)["attack"][0].as_py() != "none"]


def test_equal_input_gives_equal_bytes(submitted: Submitted, results: Path) -> None:
    assert make(submitted, [results]).data == submitted.data
    packed = results.parent / "packed.parquet"
    run = CliRunner().invoke(app, ["pack", str(packed), "--results", str(results)])
    assert run.exit_code == 0
    assert make(submitted, [packed]).data == submitted.data


def test_missing_runs_are_named_and_counted(submitted: Submitted, results: Path) -> None:
    for path in results.iterdir():
        path.unlink()
    told = reasons(submitted, [results])
    assert "2 cells of the slice are missing whole: longtail-small mf random-direction none 0.05 icde24" in told
    assert (
        "2 cells of twins, which the others are compared with, are missing whole: longtail-small mf none none" in told
    )


def test_twins_may_lie_elsewhere(submitted: Submitted, results: Path, tmp_path: Path) -> None:
    twins = tmp_path / "twins"
    twins.mkdir()
    for path in set(results.iterdir()) - set(attacked(results)):
        path.rename(twins / path.name)
    assert "cells of twins" in reasons(submitted, [results])
    assert make(submitted, [results], twins=[twins]).data == submitted.data
    for path in attacked(results):  # what is submitted must be among the results themselves
        path.rename(twins / path.name)
    assert "cells of the slice are missing" in reasons(submitted, [results], [twins])


def test_failed_runs_are_refused_with_their_error(submitted: Submitted, results: Path) -> None:
    path = attacked(results)[0]
    rewritten(path, status="failed", error="ValueError: no\x1b[2J\ntraceback")
    assert f"1 run failed; run it again: {path.stem} (ValueError: no\\x1b[2J)." in reasons(submitted, [results])


def test_a_file_edited_after_the_runs(submitted: Submitted, tmp_path: Path) -> None:
    file = tmp_path / "my_attack.py"
    file.write_text(plugin_files.ATTACK.replace("-self.params.strength", "-2 * self.params.strength"))
    told = reasons(Submitted(file, submitted.results, b""), [submitted.results])
    assert "4 of 4 runs were made with another source of 'random-direction' than it has now; run them again: " in told


def test_runs_of_different_sources(submitted: Submitted, results: Path) -> None:
    rewritten(attacked(results)[0], attack_source_hash="0" * 64)
    told = reasons(submitted, [results])
    assert "1 of 4 runs was made with another source" in told
    assert "the runs are of 2 different sources" in told


def test_a_record_that_was_touched_is_refused_by_the_same_checks(submitted: Submitted, results: Path) -> None:
    rewritten(attacked(results)[0], er_10=1.0)
    assert "er_10 = 1.0, but its curve gives" in reasons(submitted, [results])


def test_a_damaged_record_is_missing_and_named(submitted: Submitted, results: Path) -> None:
    path = attacked(results)[0]
    path.write_bytes(path.read_bytes()[:-1])
    (check,) = make(submitted, [results]).checks
    assert "1 run is missing: " in check.reasons[0]
    assert check.notes[0].startswith(f"{path} is no whole record and does not count: ")


def test_an_entry_that_comes_with_fedbench_and_one_that_cannot_be_submitted() -> None:
    assert entry("attack", "pieck-uea").cls.card.name == "pieck-uea"
    for kind, text, reason in (
        ("attack", "none", "nothing to submit"),
        ("defense", "union+krum", "is a chain"),
        ("attack", "pieck-ueb", "Did you mean 'pieck-uea'"),
    ):
        with pytest.raises(UserError, match=reason):
            entry(kind, text)  # type: ignore[arg-type]


DEFENSE = '''"""Nothing but a share that is assumed."""

from pydantic import Field

from fedbench.entries.cards import DefenseCard, DefenseFamily, Parameters
from fedbench.federation.defense import Defense


class Shield(Defense):
    """Leaves everything as it is."""

    card = DefenseCard(name="shield", title="Shield", paper="none", family=DefenseFamily.FILTER)

    class Params(Parameters):
        """Parameters."""

        assumed_ratio: float | None = Field(None, ge=0, lt=1, description="share that is assumed")
'''


def test_a_defense_is_submitted_with_the_twins_that_state_what_it_assumes(tmp_path: Path) -> None:
    file, results = tmp_path / "shield.py", tmp_path / "results"
    file.write_text(DEFENSE)
    of, only = entry("defense", str(file)), ("model=mf", "attack=random")
    runs = claim("defense", "shield", "smoke", only, 1).runs
    assert len(runs) == 4  # itself, its clean and undefended twins, and the baseline
    assert '"assumed_ratio": 0.05' in "".join(run.scenario.key for run in runs.values())
    for run in runs.values():
        write_record(fedbench.run(run.scenario, run.seed, suite="smoke"), results)
    made = make_bundle(of, "smoke", only, 1, [results])
    assert made.data is not None, made.checks
    plugins.forget()
    forget_scenarios()
    found = verify(made.data)
    assert found.ok, found.checks
    assert found.manifest is not None
    assert found.manifest.kind == "defense"
    forged = edited(made.data, lambda row: row.update(defense_family="none"), lambda row: row["defense"] == "shield")
    assert "defense_family = 'none', but its scenario gives 'filter'" in refused(forged, "records")


# ----------------------------------------------------------------------------------------------- the commands


def test_submit_says_how_to_make_what_is_missing(submitted: Submitted, results: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.zip"
    arguments = ["submit", "--attack", str(submitted.file), "--suite", "smoke", "--only", ONLY[0], "--seeds", "2"]
    run = CliRunner().invoke(app, [*arguments, "--results", str(results), "--out", str(out)])
    assert run.exit_code == 0, run.stderr
    assert out.read_bytes() == submitted.data
    assert run.stdout.startswith(
        f"{out}: attack random-direction, 8 runs of suite smoke (version 2) --only model=mf --seeds 2, "
    )
    run = CliRunner().invoke(app, [*arguments, "--results", str(results), "--out", str(out)])
    assert run.stdout.startswith(f"{out} (replaced): attack random-direction, 8 runs")
    assert out.read_bytes() == submitted.data

    attacked(results)[0].unlink()
    out.unlink()
    run = CliRunner().invoke(app, [*arguments, "--results", str(results), "--out", str(out)])
    assert run.exit_code == 1
    assert not out.exists()
    first, last = run.stderr.splitlines()
    assert first.startswith("refused: runs: 1 run is missing: longtail-small mf random-direction")
    assert last.endswith(f"fedbench run smoke --attack {submitted.file} --only model=mf --seeds 2 --results {results}")


def test_runs_are_not_asked_for_where_they_are_all_there(submitted: Submitted, results: Path, tmp_path: Path) -> None:
    rewritten(attacked(results)[0], er_10=1.0)
    arguments = ["submit", "--attack", str(submitted.file), "--suite", "smoke", "--only", ONLY[0], "--seeds", "2"]
    run = CliRunner().invoke(app, [*arguments, "--results", str(results), "--out", str(tmp_path / "mine.zip")])
    assert run.exit_code == 1
    assert "er_10 = 1.0, but its curve gives" in run.stderr
    assert run.stderr.splitlines()[-1] == "not submitted."


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["submit"], "give one entry to submit: --attack FILE or --defense FILE."),
        (["submit", "--attack", "pieck-uea", "--defense", "krum"], "give one entry to submit"),
        (["submit", "--attack", "no.py"], "file 'no.py' does not exist"),
        (["submit", "--attack", "pieck-uea", "--suite", "cor"], "Unknown suite 'cor'. Did you mean 'core'?"),
        (["submit", "--attack", "pieck-uea", "--results", "nowhere"], "no results in 'nowhere'"),
        (["verify", "no.zip"], "bundle 'no.zip' does not exist."),
        (["verify", "."], "bundle '.' is no file."),
        (["verify", "no.zip", "--runs", "0"], "Invalid value for '--runs'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse(arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2
    (line,) = run.stderr.splitlines()
    assert reason in line


def test_verify_reads_without_consent_and_runs_only_with_it(submitted: Submitted, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(submitted.data)
    run = CliRunner().invoke(app, ["verify", str(bundle), "--no-rerun"])
    assert run.exit_code == 0
    assert "nothing was run again, so its numbers are only claimed" in run.stdout
    run = CliRunner().invoke(app, ["verify", str(bundle)])
    assert run.exit_code == 2
    assert "written by a stranger, in a process of its own" in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: the re-run needs --yes")


def test_a_refused_bundle_is_never_run(submitted: Submitted, tmp_path: Path) -> None:
    """One reason a line, spelt out; exit code 1; nobody is asked."""
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(sealed(unpacked(submitted.data), name="<img src=x>", suite="\x1b[2J"))
    run = CliRunner().invoke(app, ["verify", str(bundle)])
    assert run.exit_code == 1
    assert run.stdout.splitlines()[-1].startswith("refused: 2 reasons; the first: manifest.json: name = ")
    assert len(run.stderr.splitlines()) == 2
    assert "refused: manifest: manifest.json: name = '<img src=x>'" in run.stderr
    assert "\x1b" not in run.stderr
    data = json.loads(CliRunner().invoke(app, ["verify", str(bundle), "--json"]).stdout)
    assert (data["verified"], data["refused"]) == (False, True)
    assert len(data["checks"][1]["reasons"]) == 2
