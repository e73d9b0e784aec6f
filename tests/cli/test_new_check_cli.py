"""``fedbench new`` and ``fedbench check``: the files that are written work, and checks say what to do."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import plugin_files
import pytest
from typer.testing import CliRunner

import fedbench
from fedbench import AttackerView, Knowledge, Updates, plugins
from fedbench.cli import app
from fedbench.plugins.scaffold import TEMPLATES
from fedbench.scenarios.scenario import Scenario

ROOT = Path(__file__).parents[2]
KINDS = {
    "attack": ["attack", "my-attack"],
    "attack that demotes": ["attack", "my-attack", "--goal", "demote"],
    "attack that degrades": ["attack", "my-attack", "--goal", "degrade"],
    "defense": ["defense", "my-defense"],
    "attack on images": ["attack", "my-attack", "--channel", "image"],
    "purifier": ["defense", "my-defense", "--hook", "purify"],
    "model": ["model", "my_model"],
    "dataset": ["dataset", "my-dataset"],
}


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_passes_its_checks_and_its_test(kind: str, tmp_path: Path) -> None:
    code, out, err = run("new", *KINDS[kind], "--dir", tmp_path / "sub")
    assert code == 0, err
    word = KINDS[kind][0]
    file = tmp_path / "sub" / f"my_{word}.py"
    assert f"Wrote {file} and {file.with_name(f'test_my_{word}.py')}." in out
    assert f"fedbench check {file}" in out
    test = file.with_name(f"test_my_{word}.py")
    assert out.endswith(f"\n  python -m pytest {test}    # needs pytest: pip install pytest\n")

    code, out, err = run("check", file)
    assert code == 0, out + err
    assert "failed" not in out
    assert out.splitlines()[0].startswith(f"ok       card: my-{word}, My {word}")

    written = runpy.run_path(str(file.with_name(f"test_my_{word}.py")))
    tests = [test for name, test in written.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


@pytest.mark.slow
def test_pytest_finds_the_test_that_is_written(tmp_path: Path) -> None:
    assert run("new", "dataset", "mine", "--dir", tmp_path)[0] == 0
    options = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_clean(kind: str, tmp_path: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    assert run("new", *KINDS[kind], "--dir", tmp_path)[0] == 0
    options = ["--no-cache", "--config", str(ROOT / "pyproject.toml")]
    for command in (["format", "--check"], ["check", "--config", f'src = ["{ROOT}"]']):
        done = subprocess.run([ruff, *command, *options, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_template_belongs_to_a_kind() -> None:
    wanted = {
        "attack_promote",
        "attack_degrade",
        "attack_demote",
        "attack_image",
        "defense",
        "defense_purify",
        "model",
        "dataset",
    }
    files = {f"{prefix}{name}.py.txt" for name in wanted for prefix in ("", "test_")}
    assert {path.name for path in TEMPLATES.iterdir()} == {*files, "suite.toml.txt"}


def test_a_suite_that_is_written_runs(tmp_path: Path) -> None:
    code, out, _ = run("new", "suite", "my-suite", "--dir", tmp_path)
    file = tmp_path / "my-suite.toml"
    assert code == 0
    assert out.splitlines()[0] == f"Wrote {file}. It runs as it is; now make it yours:"
    results = tmp_path / "results"
    code, out, err = run("run", file, "--results", results, "--seeds", 1, "--set", "epochs=2", "--jobs", 1)
    assert (code, out) == (0, f"done: 6 runs: 6 ok, 0 diverged, 0 failed. Records in {results}.\n"), err
    commented = file.read_text().replace('# "./my_attack.py"', '"./my_attack.py"').replace("\n# ", "\n")
    (tmp_path / "my_attack.py").write_text(plugin_files.ATTACK)
    start = commented.index("name = ")
    file.write_text(
        commented[start:]
        .replace("Scenarios of a kind get", "# ")
        .replace("0, 1 and 2;", "# ")
        .replace("\nFields", "\n# Fields")
        .replace("\nEvery comb", "\n# Every comb")
    )
    code, out, err = run("run", file, "--dry-run", "--results", tmp_path / "none")
    assert code == 0, err
    assert " random-direction norm-bound 0.1 " in out, "what is commented out is right, too"
    assert " pieck-uea norm-bound " not in out
    again = run("new", "suite", "my-suite", "--dir", tmp_path)
    assert (again[0], again[1]) == (2, "")
    assert "my-suite.toml exists already, and is left as it is" in again[2]


@pytest.mark.slow
def test_the_attacks_of_the_templates_attack(tmp_path: Path) -> None:
    """Real methods: they do what their goal says."""
    run("new", "attack", "up", "--dir", tmp_path)
    run("new", "attack", "down", "--goal", "degrade", "--dir", tmp_path)
    up, down = (plugins.load_file(tmp_path / f"{name}.py").name for name in ("up", "down"))
    icde24 = {"epochs": 60, "evaluate_every": 60}
    promote = Scenario("longtail-small", "mf", up, malicious_ratio=0.05, target="random:1", protocol_params=icde24)
    assert fedbench.run(promote, 0).metrics["er_10"] > 0.3
    assert fedbench.run(promote.clean, 0).metrics["er_10"] < 0.05
    aaai23 = {"epochs": 4, "learning_rate": 0.01, "evaluate_every": 4}
    degrade = Scenario("longtail-small", "mf", down, "none", 0.05, "aaai23", "none", protocol_params=aaai23)
    assert fedbench.run(degrade, 0).metrics["hr_full_5"] < 0.6 * fedbench.run(degrade.clean, 0).metrics["hr_full_5"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_my_attack.py").write_text("mine")
    code, out, err = run("new", "attack", "my-attack", "--dir", tmp_path)
    assert (code, out) == (2, "")
    assert "test_my_attack.py exists already, and is left as it is" in err
    assert [path.name for path in tmp_path.iterdir()] == ["test_my_attack.py"]
    assert (tmp_path / "test_my_attack.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attack", "My-Attack"], "must be lower-case words joined by '-'"),
        (["attack", "../up"], "must be lower-case words joined by '-'"),
        (["attack", "2fast"], "must be lower-case words joined by '-'"),
        (["attack", "x" * 65], "of at most 64 characters"),
        (["attack", "a.b"], "must be lower-case words joined by '-'"),
        (["attack", "pieck_uea"], "is taken by the attack that comes with fedbench"),
        (["dataset", "ml-100k"], "is taken by a dataset of the catalogue"),
        (["suite", "My Suite"], "must be lower-case words joined by '-'"),
        (["suite", "x", "--goal", "degrade"], "a suite has none"),
        (["atack", "x"], "Unknown kind 'atack'. Did you mean 'attack'?"),
        (["defense", "x", "--goal", "degrade"], "a defense has none"),
        (["attack", "x", "--goal", "down"], "Unknown goal 'down'"),
        (["attack", "x", "--channel", "profiles"], "Unknown channel 'profiles'"),
        (["attack", "x", "--channel", "image", "--goal", "degrade"], "an attack that degrades has none"),
        (["attack", "x", "--channel", "image", "--goal", "demote"], "--channel image begins an attack that promotes"),
        (["attack", "x", "--hook", "purify"], "--hook is of defenses; an attack has none"),
        (["model", "x", "--channel", "image"], "--channel is of attacks; a model has none"),
        (["defense", "x", "--hook", "aggregate"], "Unknown hook 'aggregate'"),
        (["attack", "x", "--dir", "/proc/none"], "cannot write /proc/none/x.py"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    code, out, err = run("new", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_check_names_the_line_in_the_file_of_its_author(tmp_path: Path) -> None:
    file = tmp_path / "my_gmf.py"
    file.write_text(
        "import torch\nfrom fedbench import AutogradRecommender, ModelCard\n\n\nclass MyGMF(AutogradRecommender):\n"
        '    """``s_uj = sum_k h_k u_uk v_jk``."""\n\n'
        '    card = ModelCard(name="my-gmf", title="My GMF", paper="unpublished")\n\n'
        "    def init_dense(self, generator):\n        return {'h': torch.ones(self.params.embedding_size)}\n\n"
        "    def logits(self, dense, users, items):\n        return (dense['h'] * users * items).sum(-1)\n"
    )
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 1
    assert re.search(r"failed   shapes, bce: RuntimeError: .+ \(my_gmf\.py:14\)", done.stdout), done.stdout
    assert "entry.py" not in done.stdout


def test_check_says_what_failed_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "my_attack.py"
    source = plugin_files.ATTACK.replace("row = -self", "row = float('nan') * self").replace(
        'paper="none"', 'paper="x"'
    )
    path.write_text(source.replace("frozenset()", "frozenset()"))
    code, out, _ = run("check", path)
    assert code == 1
    assert "failed   finite: rows[0] of an upload has NaN or infinite numbers [runs on mf, injected clients]\n" in out
    assert "         -> Look for a division by a norm" in out
    assert "skipped  runs on mf, injected clients: stopped by the check 'finite'" in out
    assert out.splitlines()[-1].startswith(
        "failed: attack random-direction: 1 of 28 checks, 25 skipped; the first: finite: "
    )

    plugins.forget()
    code, out, _ = run("check", path, "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["kind"], report["name"], report["passed"]) == ("attack", "random-direction", False)
    assert [each["name"] for each in report["checks"] if each["status"] == "failed"] == ["finite"]


def test_check_takes_the_name_of_an_entry(tmp_path: Path) -> None:
    code, out, _ = run("check", "norm-bound")
    assert code == 0
    assert out.splitlines()[-1] == "passed: defense norm-bound: 21 checks"
    code, out, err = run("check", "none")
    assert (code, out) == (2, "")
    assert "say --kind attack or --kind defense" in err
    assert run("check", "none", "--kind", "attack")[0] == 0
    code, _, err = run("check", "norm-bond")
    assert code == 2
    assert "Did you mean 'norm-bound'" in err
    code, _, err = run("check", "./gone.py")
    assert code == 2
    assert "file 'gone.py' does not exist" in err


def test_show_describes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my_attack.py"
    path.write_text(plugin_files.ATTACK)
    code, out, _ = run("show", path)
    assert code == 0
    assert "Random direction" in out
    assert "my_attack.py:15" in out
    assert "length of the step [ours]" in out
    (tmp_path / "ring.py").write_text(plugin_files.DATASET)
    code, out, _ = run("show", tmp_path / "ring.py", "--json")
    assert json.loads(out)["interactions"] == 320
    assert "ring" in run("list", "datasets")[1]


def test_the_examples_of_contributing_are_those_of_the_templates() -> None:
    """What a newcomer reads is what `fedbench new` writes; Python blocks that begin with a template's method or class."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    (craft,) = [block for block in blocks if block.lstrip().startswith("def craft")]
    (spoiler,) = [block for block in blocks if block.startswith("class MySpoiler")]
    for block, template in ((craft, "attack_promote"), (spoiler, "attack_degrade")):
        source = (TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8")
        source = (
            source.replace("$classname", "MySpoiler").replace("$name", "my-spoiler").replace("$title", "My spoiler")
        )
        for line in filter(None, map(str.strip, block.splitlines())):
            assert line == '"""Parameters."""' or line.removesuffix('"""') in source, line


def test_the_picture_of_a_round_is_one_and_names_what_there_is() -> None:
    """In the templates of attacks that send gradients, and on the page about attacks."""
    pictures = []
    for goal in ("promote", "demote", "degrade"):
        docstring = (TEMPLATES / f"attack_{goal}.py.txt").read_text(encoding="utf-8").split('"""')[1]
        pictures.append(textwrap.dedent(docstring.partition("One round, with m of your clients in it:\n\n")[2]))
    assert len(set(pictures)) == 1
    assert 5 < len(pictures[0].splitlines()) <= 14
    page = (ROOT / "fedbench" / "docs" / "pages" / "howto" / "attack.md").read_text(encoding="utf-8")
    assert f"One round, with m of your clients in it:\n\n```text\n{pictures[0]}```\n" in page
    view, updates = pictures[0].partition("view     ")[2].split("Updates  ")
    names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)*\b", re.sub(r"\(items .*?\)|knowledge|\[\w\]", "", view)))
    names -= {"always", "if", "the", "card", "declares", "it", "with", "defense"}
    assert {"params", "clients", "targets", "honest", "honest_updates", "simulation"} <= names
    assert [name for name in names if name not in dir(AttackerView) and name not in set(Knowledge)] == []
    assert {"rows", "dense"} == set(re.findall(r"^ *(\w+):", updates, re.MULTILINE)) & set(Updates.__dataclass_fields__)
