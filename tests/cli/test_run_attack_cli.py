"""``fedbench run SUITE --attack FILE``: which scenarios it makes of a suite, and what it says when there are none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import plugin_files
import pyarrow.parquet as pq
import pytest
from interrupts import interruptible
from typer.testing import CliRunner

from fedbench import plugins
from fedbench.attacks import ATTACKS
from fedbench.cli import app
from fedbench.defenses import DEFENSES
from fedbench.scenarios.substitution import chosen, substituted
from fedbench.scenarios.suite import load_suite, parse_suite

DEFENSE = '''
from fedbench.entries.cards import DefenseCard, DefenseFamily
from fedbench.defenses import Defense
from fedbench.federation.updates import Updates


class Halved(Defense):
    """Every upload counts half."""

    card = DefenseCard(name="halved", title="Halved", paper="none", family=DefenseFamily.CLIPPING)

    def filter(self, updates, server):
        return updates.scaled(updates.weights.new_full((len(updates.clients),), 0.5))
'''


@pytest.fixture
def attack_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_attack.py"
    path.write_text(plugin_files.ATTACK)
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_smoke_with_the_attack_of_a_file(attack_file: Path, tmp_path: Path) -> None:
    code, out, _ = run("smoke", "--attack", attack_file, "--dry-run", "--results", tmp_path / "r")
    assert code == 0
    assert "24 runs: 24 to run" in out
    assert len(re.findall(r"^longtail-small \S+ random-direction", out, re.M)) == 4
    assert len(re.findall(r"^longtail-small \S+ none .* twin", out, re.M)) == 4
    code, out, _ = run(
        "smoke", "--attack", attack_file, "--dry-run", "--results", tmp_path / "r", "--only", "model=mf,defense=none"
    )
    assert "6 runs: 6 to run" in out


def test_the_rests_of_core(attack_file: Path) -> None:
    """One scenario for every distinct rest of the attacked ones, the twins of the suite itself among the others."""
    core = load_suite("core")
    mine = substituted(core, chosen(attack=str(attack_file)))
    own, before = mine.plan(), {planned.scenario.id: planned for planned in core.plan()}

    def rest(planned: object) -> tuple[object, ...]:
        s = planned.scenario  # type: ignore[attr-defined]
        return s.dataset, s.model, s.defense, s.malicious_ratio, s.protocol, s.target, json.dumps(s.defense_params)

    attacked = [planned for planned in own if not planned.twin]
    assert {rest(each) for each in attacked} == {
        rest(each) for each in core.scenarios if each.scenario.attack != "none"
    }
    assert len(attacked) == len({rest(each) for each in attacked}) == 3 * 3 * 8 + 3 * 2 * 20 * 8
    assert {each.scenario.attack for each in attacked} == {"random-direction"}
    assert all(each.scenario.attack_params == {} and each.adaptive for each in attacked)
    assert {(each.scenario.defense == "none", len(each.seeds)) for each in attacked} == {
        (True, 16),
        (True, 8),
        (False, 5),
    }
    # The clean twins are those of the published runs: nothing that is there is run again.
    assert all(each.scenario.id in before for each in own if each.twin and each.scenario.attack == "none")


def test_a_card_decides_what_fits(attack_file: Path) -> None:
    with_models = plugin_files.ATTACK.replace('paper="none"', 'models=frozenset({"ncf"}), paper="none"')
    attack_file.write_text(with_models)
    smoke = substituted(load_suite("smoke"), chosen(attack=str(attack_file)))
    assert {planned.scenario.model for planned in smoke.scenarios} == {"ncf"}
    untargeted = substituted(load_suite("core-untargeted"), chosen(attack="ua-fedrec"))
    visual = substituted(load_suite("core-visual"), chosen(attack="psmu-v-adaptive", defense="blur"))
    bounds = sorted(each.scenario.resolved.attack().params.eps for each in visual.scenarios)
    assert bounds == [4, 4, 8, 8, 16, 16, 32, 32], "the bound of all who show images stays"
    assert len(untargeted.scenarios) == 18 + 5, "defenses, and doses beside that of the defenses"
    demoting = substituted(load_suite("smoke-demote"), chosen(attack="a-hum-demote"))
    assert {planned.scenario.attack for planned in demoting.scenarios} == {"a-hum-demote"}
    assert {planned.scenario.defense_params == {} for planned in untargeted.scenarios} == {True, False}


@pytest.mark.parametrize(
    ("suite", "attack", "reason"),
    [
        ("core-untargeted", "explicit-boost", "needs target items, but target = 'none'"),
        ("smoke", "gaussian", "degrades: it needs target = 'none', not 'random:1'"),
        ("smoke-untargeted", "psmu", "needs target items"),
        ("smoke", "a-ra-demote", "demotes: it needs targets that are popular, not 'random:1'"),
        ("smoke-demote", "psmu", "promotes: it needs targets that are not popular, unlike 'most-popular'"),
        ("smoke", "none", "come along as twins"),
        ("smoke", "./no.py", "file 'no.py' does not exist"),
        ("smoke", "explicit-bost", "Did you mean 'explicit-boost'"),
    ],
)
def test_what_does_not_fit_is_one_line(suite: str, attack: str, reason: str, tmp_path: Path) -> None:
    code, out, err = run(suite, "--attack", attack, "--dry-run", "--results", tmp_path / "r")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert reason in err


def test_other_kinds_together(tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text(DEFENSE)
    (tmp_path / "ring.py").write_text(plugin_files.DATASET)
    names = chosen(defense=f"{tmp_path / 'halved.py'}+norm-bound", dataset=str(tmp_path / "ring.py"), model="mf")
    assert names == {"defense": "halved+norm-bound", "model": "mf", "dataset": "ring"}
    smoke = substituted(load_suite("smoke"), names)
    assert {planned.scenario.model for planned in smoke.scenarios} == {"mf"}
    assert len({planned.scenario.attack for planned in smoke.scenarios}) == 7
    assert chosen(dataset="longtail-small") == {"dataset": "longtail-small"}


def test_a_model_is_run_once_where_the_suite_has_two(tmp_path: Path) -> None:
    smoke = load_suite("smoke")
    own = [
        planned for planned in smoke.scenarios if planned.scenario.model == "ncf" and planned.scenario.attack != "none"
    ]
    assert list(substituted(smoke, chosen(model="ncf")).scenarios) == own
    (tmp_path / "twin.py").write_text(plugin_files.MODEL)
    made = substituted(smoke, chosen(model=str(tmp_path / "twin.py"))).scenarios
    assert len(made) == len(own) == 14
    assert {planned.scenario.protocol_params["epochs"] for planned in made} == {50}  # as of mf, the suite's first
    core = load_suite("core-one-target")
    attacked = [planned.scenario for planned in core.scenarios if planned.scenario.attack != "none"]
    here = substituted(core, {"dataset": "longtail-small"}).scenarios
    assert {planned.scenario.dataset for planned in here} == {"longtail-small"}
    assert len({scenario.dataset for scenario in attacked}) > 1
    assert len(here) == sum(scenario.dataset == attacked[0].dataset for scenario in attacked)


def test_runs_records_and_runs_again_what_was_edited(attack_file: Path, tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text(DEFENSE)
    (tmp_path / "ring.py").write_text(plugin_files.DATASET)
    (tmp_path / "twin.py").write_text(plugin_files.MODEL)
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nversion = 1\ntitle = "Tiny"\nseeds = 1\n[defaults]\ndataset = "longtail-small"\nmodel = "mf"\n'
        "malicious_ratio = 0.1\nprotocol_params = { epochs = 1 }\n[matrix]\nattack = ['random']\n"
    )
    options = [
        *("--attack", attack_file, "--defense", tmp_path / "halved.py", "--dataset", tmp_path / "ring.py"),
        *("--model", tmp_path / "twin.py"),
        *("--results", tmp_path / "r", "--jobs", 1, "--device", "cpu"),
    ]
    code, out, err = run(tmp_path / "tiny.toml", *options)
    assert code == 0, err
    assert "4 runs: 4 ok" in out
    records = pq.read_table(tmp_path / "r").to_pylist()
    assert {(each["attack"], each["defense"], each["dataset"]) for each in records} == {
        (attack, defense, "ring") for attack in ("random-direction", "none") for defense in ("halved", "none")
    }
    code, out, err = run(tmp_path / "tiny.toml", *options)
    assert "0 runs" in out
    assert "4 there before" in out

    def again(file: Path, source: str) -> tuple[str, str]:
        plugins.forget()
        file.write_text(source)
        _, out, err = run(tmp_path / "tiny.toml", *options, "--dry-run")
        return out, err

    out, err = again(attack_file, plugin_files.ATTACK.replace("r ~ N(0, I)", "r from N(0, I)"))
    assert "2 runs there of an entry whose source has changed since: run again." in err
    assert "4 runs: 2 to run, 2 there" in out
    out, err = again(attack_file, plugin_files.ATTACK)
    assert ("changed" in err, "4 runs: 0 to run, 4 there" in out) == (False, True)
    out, err = again(tmp_path / "twin.py", plugin_files.MODEL.replace("The same model.", "The same."))
    assert "4 runs there of an entry whose source has changed since: run again." in err
    again(tmp_path / "twin.py", plugin_files.MODEL)
    out, err = again(tmp_path / "ring.py", plugin_files.DATASET.replace("its own number", "its number"))
    assert "4 runs: 0 to run, 4 there" in out, "the data are the same"
    out, err = again(tmp_path / "ring.py", plugin_files.DATASET.replace("(user + np", "(2 * user + np"))
    assert "4 runs: 4 to run, 0 there" in out


def test_a_record_without_the_source_of_a_model_does_not_stand_for_its_file(tmp_path: Path) -> None:
    """Schemas before 5 do not have the column."""
    (tmp_path / "twin.py").write_text(plugin_files.MODEL)
    options = ["--model", tmp_path / "twin.py", "--only", "attack=random,defense=none", "--results", tmp_path / "r"]
    code, _, err = run("smoke", *options, "--seeds", 1, "--jobs", 1)
    assert code == 0, err
    file = sorted((tmp_path / "r").glob("*.parquet"))[0]
    pq.write_table(pq.read_table(file).drop_columns(["model_source_hash"]), file)
    _, out, _ = run("smoke", *options, "--seeds", 1, "--dry-run")
    assert "2 runs: 1 to run, 1 there" in out


def test_the_command_that_resumes_names_the_attack(attack_file: Path, tmp_path: Path) -> None:
    import signal

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "fedbench", "run", "smoke", "--attack", str(attack_file)),
            *("--seeds", "50", "--jobs", "1", "--only", "model=mf", "--results", str(tmp_path / "r")),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=interruptible,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "r").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Resume with: fedbench run smoke --attack {attack_file} --only model=mf --seeds 50 --jobs 1" in err


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution on the path as if it were installed: an attack, a defense, and one that cannot be imported."""
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fedbench.attacks]\ndirection = outside_pack:RandomDirection\nbroken = outside_gone:Nothing\n"
        "[fedbench.defenses]\nnorm-bound = outside_defense:Halved\n"
    )
    (tmp_path / "outside_pack.py").write_text(plugin_files.ATTACK)
    (tmp_path / "outside_defense.py").write_text(DEFENSE.replace("halved", "norm-bound"))
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (ATTACKS, DEFENSES):
        monkeypatch.setattr(registry, "_scanned", False)
    yield
    for registry, name in ((ATTACKS, "outside/direction"), (DEFENSES, "outside/norm-bound")):
        registry.remove(name)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("installed")
def test_installed_entries_run_under_the_name_of_their_package(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="plug-in attack 'outside/broken' is left out: No module named"):
        names = ATTACKS.names()
    assert "outside/direction" in names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, _ = run("smoke", "--attack", "outside/direction", "--dry-run", "--results", tmp_path / "r")
    assert code == 0
    assert "24 runs" in out
    named = {"dataset": "longtail-small", "model": "mf", "attack": "outside/direction", "malicious_ratio": 0.1}
    suite = parse_suite({"name": "mine", "version": 1, "title": "Mine", "defaults": named}, "mine.toml")
    assert [each.scenario.attack for each in suite.plan()] == ["outside/direction", "none"]
    mine = substituted(load_suite("smoke"), {"defense": "outside/norm-bound"})
    ids = {each.scenario.id for each in load_suite("smoke").plan()}
    defended = [each.scenario.id for each in mine.scenarios]
    assert not ids & set(defended)  # the same name on the card as one that comes along is another defense
