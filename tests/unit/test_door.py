"""The door: what ``import fedbench`` gives, at what cost, and entries that are given as files or classes."""

from __future__ import annotations

import json
import linecache
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tomli_w
import torch
from plugin_files import ATTACK

import fedbench
from fedbench import plugins
from fedbench.runs.identity import source_hash
from fedbench.scenarios import scenario
from fedbench.scenarios.suite import parse_suite
from fedbench.submission import rows

PACKAGE = Path(fedbench.__file__).parent


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", dir(fedbench))
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(fedbench, name).__doc__


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "pyarrow", "pydantic", "duckdb", "scipy", "rich", "typer"}
    loaded = run_python("import fedbench, sys; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "fedbench" in loaded
    assert not heavy & set(loaded)


def test_the_example_of_the_readme_runs() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in example.splitlines() if line]) == 3
    status, er, hr = run_python(
        example.replace("malicious_ratio=0.05", "malicious_ratio=0.05, protocol_params={'epochs': 2}")
    ).split()
    assert status == "ok"
    assert 0 <= float(er) <= 1
    assert 0 < float(hr) < 1


SHORT = {"epochs": 2}


def promoted(attack: object) -> fedbench.Scenario:
    return fedbench.Scenario("longtail-small", "mf", attack, malicious_ratio=0.05, protocol_params=SHORT)  # type: ignore[arg-type]


def test_a_file_and_its_class_are_the_same_scenario(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(ATTACK)
    from_file = promoted(str(file))
    assert from_file.attack == "random-direction"
    assert from_file == promoted(file) == promoted(fedbench.load_file(file).cls) == promoted("random-direction")
    record = fedbench.run(from_file, 0)
    assert (record.status, record.attack) == ("ok", "random-direction")


def test_a_chain_joins_names_and_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from fedbench import Defense, DefenseCard\n"
        "class Mine(Defense):\n    card = DefenseCard(name='mine', title='Mine', paper='none')\n"
    )
    assert fedbench.Scenario("longtail-small", "mf", defense=f"norm-bound+{file}").defense == "norm-bound+mine"


CELL = """
import fedbench

class InACell(fedbench.Attack):
    '''Does nothing.'''

    card = fedbench.AttackCard(
        name="in-a-cell", title="TITLE", paper="none", goal=fedbench.Goal.PROMOTE, channel=fedbench.Channel.GRADIENT
    )

    def start(self, view):
        self.said = (lambda: "TITLE")()
"""


def in_a_cell(title: str, remembered: bool = True) -> type[fedbench.Attack]:
    """The class of a cell of a notebook: its text is kept beside the compiled code, and its module is no file."""
    source, name, scope = CELL.replace("TITLE", title), f"<cell {title}>", {"__name__": "a_notebook"}
    if remembered:
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), scope)
    made: type[fedbench.Attack] = scope["InACell"]  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("remembered", [True, False], ids=["a notebook", "a prompt"])
def test_a_class_of_a_cell_runs_and_gives_way_to_its_next_version(remembered: bool) -> None:
    first, second = (promoted(in_a_cell(title, remembered)) for title in ("first", "second"))
    assert first.resolved.attack_class.card.title == "first", "a scenario keeps the class that it was made of"
    assert second.resolved.attack_class.card.title == "second"
    one, two = fedbench.run(first, 0), fedbench.run(second, 0)
    assert (one.status, one.attack, len(one.attack_source_hash)) == ("ok", "in-a-cell", 64)
    assert one.attack_source_hash != two.attack_source_hash
    again = promoted(in_a_cell("second", remembered))
    assert again.id == second.id
    assert source_hash(again.resolved.attack_class) == two.attack_source_hash, "of the code, not of where it lies"


def test_what_was_tried_as_a_class_may_be_saved_as_a_file(tmp_path: Path) -> None:
    assert promoted(in_a_cell("first")).attack == "in-a-cell"
    file = tmp_path / "cell.py"
    file.write_text(CELL)
    assert promoted(file).attack == "in-a-cell"
    with pytest.raises(fedbench.UserError, match="the name 'in-a-cell' on the card is taken by a file that was loaded"):
        promoted(in_a_cell("third"))


def test_records_and_bundles_are_names_and_load_no_file_which_a_suite_file_of_the_user_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("raise SystemExit('executed')")
    values = {"dataset": "longtail-small", "model": "mf", "attack": "evil.py", "malicious_ratio": 0.1}
    with pytest.raises(fedbench.UserError, match=r"Unknown attack 'evil\.py'"):
        _ = scenario.Scenario(**values).id
    assert rows._scenario(json.dumps(values)) is None, "a bundle's"
    content = {"name": "s", "version": 1, "title": "S", "defaults": values | {"attack": "./evil.py"}}
    with pytest.raises(fedbench.UserError, match=r"unknown attack './evil\.py'"):
        parse_suite(content, "a suite that is no file of the user's")
    Path("suite.toml").write_text(tomli_w.dumps(content))
    with pytest.raises(fedbench.UserError, match=r"suite\.toml: evil\.py:1: cannot be imported: SystemExit: executed"):
        fedbench.load_suite("suite.toml")


def test_classes_that_cannot_be_entries() -> None:
    with pytest.raises(fedbench.UserError, match=r"attack = .*Defense is not derived from fedbench\.Attack"):
        promoted(fedbench.Defense)
    with pytest.raises(fedbench.UserError, match="has no card"):
        promoted(type("Bare", (fedbench.Attack,), {"__doc__": "No card."}))
    taken = fedbench.AttackCard(
        name="pieck-uea", title="x", paper="x", goal=fedbench.Goal.PROMOTE, channel=fedbench.Channel.GRADIENT
    )
    with pytest.raises(fedbench.UserError, match="the name 'pieck-uea' on the card is taken by the attack that comes"):
        promoted(type("Taken", (fedbench.Attack,), {"card": taken, "__doc__": "Taken."}))
    with pytest.raises(fedbench.UserError, match="attack = 3 must be a string, a file or a class"):
        promoted(3)
    assert (
        promoted(fedbench.Scenario("longtail-small", "mf", "p1", malicious_ratio=0.1).resolved.attack_class).attack
        == "p1"
    )


def test_a_file_written_for_modules_that_have_moved_loads(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    old = ATTACK.replace("fedbench.entries.cards", "fedbench.cards").replace("federation.attack", "attacks.base")
    assert "fedbench.cards" in old
    assert "fedbench.attacks.base" in old
    file.write_text(old)
    assert plugins.load_file(file).name == "random-direction"


def test_results_are_one_table_with_every_run_once(tmp_path: Path) -> None:
    records = PACKAGE.parent / "leaderboard" / "results" / "icde24-table3.parquet"
    table = fedbench.load_results(records, records)
    runs = table["run_id"].to_pylist()
    assert runs == sorted(set(runs))
    assert table.num_rows > 100
    (tmp_path / "foreign.parquet").write_bytes(b"not a record")
    with warnings.catch_warnings(), pytest.raises(fedbench.ResultsError, match="no whole result file"):
        fedbench.load_results(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"foreign\.parquet is left out"):
        assert fedbench.load_results(tmp_path, records).num_rows == table.num_rows


@pytest.mark.parametrize(("options", "expected"), [({}, 1), ({"threads": None}, 2), ({"threads": 2}, 2)])
def test_a_run_takes_one_thread_unless_it_is_told_otherwise(options: dict[str, int | None], expected: int) -> None:
    scenario = fedbench.Scenario("longtail-small", "mf", protocol_params={"epochs": 1})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        record = fedbench.run(scenario, 0, **options)  # type: ignore[arg-type]
        assert torch.get_num_threads() == 2, "as it was"
    finally:
        torch.set_num_threads(before)
    assert record.threads == expected
