"""``fedbench run`` without a suite: scenarios made of options, and the file that says the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import plugin_files
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import fedbench
from fedbench.cli import app
from fedbench.cli.supervision import needed
from fedbench.runs.results import scan
from fedbench.scenarios.suite import load_suite

TINY = [
    "--dataset",
    "longtail-small",
    "--model",
    "mf",
    "--set",
    "epochs=2",
    "--set",
    "evaluate_every=1",
    "--seeds",
    "1",
]


def said(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.stderr
    return result.stdout, result.stderr


def planned(*arguments: object) -> list[str]:
    out, _ = said("run", *arguments, "--dry-run", "--results", "nowhere")
    return [re.split(r"  +", line)[0] for line in out.splitlines()[1:-1]]


def test_runs_resume_rank_and_save(tmp_path: Path) -> None:
    results, file = tmp_path / "results", tmp_path / "sub" / "mine.toml"
    asked = [*TINY, "--attack", "explicit-boost,a-hum", "--defense", "none,norm-bound", "--ratio", ".05,.1"]
    asked += ["--results", results]
    out, err = said("run", *asked, "--dry-run", "--save", file)
    assert "10 runs: 10 to run, 0 there" in out
    assert "protocol icde24, as in suite core; --protocol NAME" in err
    out, _ = said("run", *asked, "--jobs", 1)
    assert out.startswith("done: 10 runs: 10 ok")
    again, _ = said("run", *asked, "--jobs", 1, "--save", file)
    assert again.startswith("done: 0 runs: 0 ok, 0 diverged, 0 failed; 10 there before")
    by_file, _ = said("run", file, "--results", results)
    assert by_file == again, "the same scenarios, by their ids"
    assert set(scan([results]).table["suite"].to_pylist()) == {"ad-hoc"}
    board, _ = said("leaderboard", "--results", results, "--json")
    assert {row["attack"] for row in json.loads(board)["attacks"]} == {"explicit-boost", "a-hum"}
    assert [row["defense"] for row in json.loads(board)["defenses"]] == ["norm-bound"]
    assert said("leaderboard", "--results", results, "--suite", file)[0] == said("leaderboard", "--results", results)[0]
    file.write_text("name = 'other'\n")
    assert "exists already and says something else" in said("run", *asked, "--save", file, code=2)[1]
    assert file.read_text() == "name = 'other'\n"


def test_what_is_chosen_where_nothing_is_said() -> None:
    def chosen(*arguments: str) -> set[str]:
        return {" ".join(line.split()[1:7]) for line in planned("--dataset", "longtail-small", *arguments)}

    assert chosen("--model", "mf") == {"mf none none 0 icde24 per-seed"}
    assert chosen("--model", "mf", "--attack", "none,a-hum") == {
        "mf a-hum none 0.05 icde24 per-seed",
        "mf none none 0 icde24 per-seed",
    }
    assert chosen("--model", "mf", "--attack", "gaussian,a-hum-demote") == {
        "mf gaussian none 0.05 aaai23 none",
        "mf none none 0 aaai23 none",
        "mf a-hum-demote none 0.05 icde24 per-seed-popular",
        "mf none none 0 icde24 per-seed-popular",
    }
    assert chosen("--model", "sasrec,pfedrec", "--ratio", "0.1", "--set", "target=random:2") == {
        "sasrec none none 0 aaai23 random:2",
        "pfedrec none none 0 ijcai23 random:2",
    }
    assert "vncf psmu-v none 0.05 tois per-seed-with-image" in chosen("--model", "vncf", "--attack", "psmu-v")
    assert chosen("--model", "mf", "--protocol", "ijcai22,icde24") == {
        "mf none none 0 ijcai22 per-seed",
        "mf none none 0 icde24 per-seed",
    }


def test_values_go_where_they_belong(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    said(
        *("run", "--dataset", "longtail-small", "--model", "mf,ncf", "--attack", "pieck-uea,a-ra", "--seeds", "0,4"),
        *("--defense", "krum,union+norm-bound", "--set", "model.embedding_size=8,16", "--set", "model.hidden=[8, 4]"),
        *("--set", "attack.popular_items=.5e1", "--set", "defense.bound=.1", "--set", "learning_rate=.5,1"),
        *("--set", "protocol.ties=half", "--save", file, "--dry-run", "--results", tmp_path),
    )
    data = tomllib.loads(file.read_text())
    assert data["seeds"] == [0, 4]
    assert data["defaults"]["malicious_ratio"] == 0.05
    assert data["matrix"]["protocol_params"] == [{"learning_rate": rate, "ties": "half"} for rate in (0.5, 1)]
    assert data["matrix"]["model"] == [
        {"model": "mf", "model_params": {"embedding_size": 8}},
        {"model": "mf", "model_params": {"embedding_size": 16}},
        {"model": "ncf", "model_params": {"embedding_size": 8, "hidden": [8, 4]}},
        {"model": "ncf", "model_params": {"embedding_size": 16, "hidden": [8, 4]}},
    ]
    assert data["matrix"]["attack"] == [{"attack": "pieck-uea", "attack_params": {"popular_items": 5.0}}, "a-ra"]
    chain = {"defense": "union+norm-bound", "defense_params": {"norm-bound": {"bound": 0.1}}}
    assert data["matrix"]["defense"] == ["krum", chain]


def test_values_over_those_of_a_suite() -> None:
    lines = planned(
        "smoke", "--only", "model=mf,attack=pieck-uea", "--set", "learning_rate=.5", "--set", "attack.popular_items=9"
    )
    assert len(lines) == 4
    assert all("protocol.epochs=50" in line and "protocol.learning_rate=0.5" in line for line in lines)
    assert [line for line in lines if "attack.popular_items=9" in line] == [
        line for line in lines if " pieck-uea " in line
    ]
    chains = planned("core-untargeted", "--only", "attack=lie,defense=union+*", "--set", "defense.bound=7")
    assert any("defense.norm-bound.bound=7 defense.union.distance=squared" in line for line in chains)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name a suite (`fedbench list suites`), or say of what scenarios are made: --dataset and --model"),
        (["--dataset", "ml-1m"], "--dataset and --model"),
        (["--dataset", "ml-1n", "--model", "mf"], "Did you mean 'ml-1m'"),
        ([*TINY, "--model", "mff"], "Unknown model 'mff'. Did you mean 'mf'"),
        ([*TINY, "--attack", "a-hum,krumm"], "Unknown attack 'krumm'"),
        ([*TINY, "--attack", ","], "--attack ',' names nothing"),
        ([*TINY, "--attack", "gaussian", "--set", "target=random:0", "--model", "ncf,x"], "Unknown model 'x'"),
        ([*TINY, "--protocol", "icde"], "Unknown protocol 'icde'. Did you mean 'icde24'"),
        ([*TINY, "--ratio", "5%"], "--ratio '5%' must be shares of malicious clients, such as 0.01,0.05"),
        ([*TINY, "--ratio", "1"], "--ratio '1' must be"),
        ([*TINY, "--attack", "a-hum", "--ratio", "0"], "attack 'a-hum' needs malicious clients"),
        ([*TINY, "--set", "lr=1"], "Unknown key of --set 'lr'. Did you mean 'learning_rate'"),
        ([*TINY, "--set", "learning_rat=1"], "Unknown key of --set 'learning_rat'. Did you mean 'learning_rate'"),
        ([*TINY, "--set", "embedding_size=1"], "Did you mean 'model.embedding_size'"),
        ([*TINY, "--set", "model.embeding_size=1"], "Did you mean 'embedding_size'? `fedbench show mf` lists"),
        ([*TINY, "--attack", "a-hum", "--set", "attack.x=1"], "Unknown attack parameter of --set 'x'. Known: "),
        ([*TINY, "--set", "learning_rate"], "--set 'learning_rate' must be KEY=VALUE"),
        ([*TINY, "--set", "learning_rate=fast"], "parameter learning_rate = 'fast'"),
        ([*TINY, "--set", "epochs=1979-05-27"], "is a date, which no key takes"),
        ([*TINY, "--set", "epochs=nan"], "nan is no number"),
        ([*TINY, "--attack", "psmu", "--model", "sasrec"], "these options: attack 'psmu' does not apply to model"),
        ([*TINY, "--save", "mine.txt"], "--save 'mine.txt' must end in .toml"),
        (["smoke", "--ratio", "0.1"], "--ratio, --protocol and --save are of scenarios without a SUITE"),
        (["smoke", "--set", "learning_rat=1"], "Did you mean 'learning_rate'"),
        (["smoke", "--set", "num_targets=0"], "num_targets = 0 must be a whole number"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: list[str], reason: str, tmp_path: Path) -> None:
    out, err = said("run", *arguments, "--dry-run", "--results", tmp_path, code=2)
    assert out == ""
    assert reason in err
    assert len(err.splitlines()) == 1


def test_files_of_entries_in_options_and_in_suites(tmp_path: Path) -> None:
    (tmp_path / "my_attack.py").write_text(plugin_files.ATTACK)
    (tmp_path / "twin.py").write_text(plugin_files.MODEL)
    file, results = tmp_path / "suites" / "mine.toml", tmp_path / "results"
    asked = [*TINY, "--attack", f"a-hum,{tmp_path}/my_attack.py", "--model", tmp_path / "twin.py"]
    asked += ["--set", "attack.strength=.5", "--results", results]
    command = [sys.executable, "-m", "fedbench", "run"]
    ran = subprocess.run([*command, *map(str, asked), "--save", str(file)], capture_output=True, text=True, check=False)
    assert ran.stdout == f"done: 3 runs: 3 ok, 0 diverged, 0 failed. Records in {results}.\n", ran.stderr
    assert 'attack = "../my_attack.py", attack_params = { strength = 0.5 }' in file.read_text()
    assert 'model = "../twin.py"' in file.read_text()
    assert needed(["run", str(file)])
    again = subprocess.run(
        [*command, str(file), "--results", str(results)], capture_output=True, text=True, check=False
    )
    assert again.stdout.startswith("done: 0 runs: 0 ok, 0 diverged, 0 failed; 3 there before")
    ids = {each.scenario.id for each in load_suite(str(file)).plan()}
    records = pq.read_table(results, columns=["scenario_id", "attack", "model"]).to_pylist()
    assert {each["scenario_id"] for each in records} == ids
    assert {each["model"] for each in records} == {"twin"}
    values = {"epochs": 2, "evaluate_every": 1}
    mine = fedbench.Scenario(
        "longtail-small", tmp_path / "twin.py", tmp_path / "my_attack.py", malicious_ratio=0.05, target="per-seed",
        attack_params={"strength": 0.5}, protocol_params=values,
    )  # fmt: skip
    assert mine.id in ids


def test_a_file_that_a_suite_names_and_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name="mine"\nversion=1\ntitle="x"\n[defaults]\ndataset="longtail-small"\nmodel="./no.py"\n')
    out, err = said("run", file, "--dry-run", code=2)
    assert (out, err) == ("", f"error: {file}: file '{tmp_path / 'no.py'}' does not exist.\n")
    assert needed(["run", "x", "--attack=./a.py,b"])
    assert not needed(["run", "smoke", str(tmp_path / "none.toml")])


def test_isolated_without_a_suite(tmp_path: Path) -> None:
    (tmp_path / "my_attack.py").write_text(plugin_files.ATTACK)
    results = tmp_path / "results"
    out, _ = said(
        "run", *TINY, "--set", "epochs=1", "--attack", tmp_path / "my_attack.py", "--isolated", "--results", results
    )
    assert out.startswith("done: 2 runs: 2 ok")
    rows = pq.read_table(results, columns=["attack", "isolation"]).to_pylist()
    assert {row["attack"]: row["isolation"] != "none" for row in rows} == {"none": False, "random-direction": True}
