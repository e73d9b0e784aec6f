"""The documentation: it is built without a warning, holds what there is, and asks no network for anything."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.models import MODELS
from fedbench.runs.record import schema
from fedbench.scenarios import protocols
from fedbench.scenarios.suite import suite_names

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "fedbench" / "docs" / "mkdocs.yml"

PluginError = pytest.importorskip("mkdocs.exceptions").PluginError
pytest.importorskip("material")


def build(config: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does it, elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(target)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook of the build, as a module."""
    monkeypatch.syspath_prepend(CONFIG.parent)
    return importlib.import_module("hook")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(CONFIG, target)
    assert done.returncode == 0, done.stdout
    assert [line for line in done.stdout.splitlines() if line and not line.startswith("INFO ")] == []
    return target


def test_every_entry_is_in_the_reference(site: Path) -> None:
    of = {"attacks": ATTACKS.names(), "defenses": DEFENSES.names(), "models": MODELS.names()}
    of |= {"protocols": protocols.names(), "suites": suite_names(), "datasets": ["longtail-small", "ml-1m"]}
    for kind, names in of.items():
        page = (site / "reference" / f"{kind}.html").read_text(encoding="utf-8")
        assert names
        assert set(names) <= set(re.findall(r'<h2 id="([^"]+)"', page)), kind
    attack = (site / "reference" / "attacks.html").read_text(encoding="utf-8").partition('id="pieck-uea"')[2]
    assert "<td>popular_items</td>" in attack.partition("<h2")[0]


def test_every_command_with_its_options(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in (
        "fedbench run",
        "fedbench data import",
        "fedbench plot doses",
        "fedbench verify",
        "fedbench doctor",
    ):
        assert f">{command}<a" in page
    run = page.partition(">fedbench run<a")[2].partition("<h2")[0]
    assert "<code>--evaluate-users N</code>" in run
    assert "fedbench run smoke --attack ./my_attack.py" in re.sub("<[^>]+>", "", run)


def test_every_column_of_records(site: Path) -> None:
    page = (site / "reference" / "records.html").read_text(encoding="utf-8")
    assert [name for name in schema().names if f"<td><code>{name}</code></td>" not in page] == []


def test_parts_of_other_files_are_there(site: Path) -> None:
    def words(page: str) -> str:
        return " ".join(re.sub("<[^>]+>", "", (site / page).read_text(encoding="utf-8")).split())

    assert "How strong is a poisoning attack" in words("index.html")
    assert "reaching for more" in words("explanation/threat-model.html")
    assert "malicious clients / genuine users of the dataset" in words("explanation/metrics.html")
    assert "confidence sets for ranks" in words("explanation/statistics.html")
    assert "File locks must work" in words("howto/machines.html")
    assert not [page for page in site.rglob("*.html") if "&lt;!-- " in page.read_text(encoding="utf-8")]


def test_no_network(site: Path) -> None:
    """Nothing is loaded from elsewhere: no font, script, style or picture."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="?(?:https?:)?//[^>]*', text), page
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


@pytest.mark.parametrize(
    "line",
    [
        "<!-- include README.md: No such heading -->",
        "<!-- include README.md: - No such item -->",
        "<!-- docstring fedbench.cli:_say -->",
    ],
)
def test_what_is_not_there_cannot_be_included(hook: ModuleType, line: str) -> None:
    with pytest.raises(PluginError, match=r"There is no|has none"):
        hook.filled(f"# Title\n\n{line}\n", "index.md")


def test_links_of_included_text_lead_to_pages_or_name_files(hook: ModuleType) -> None:
    said = hook.filled("<!-- include CONTRIBUTING.md: Add an attack in ten minutes -->", "howto/attack.md")
    assert "(see [Submit](submit.md))" in said
    assert "`tests/slurm_here.py`" in hook.filled("<!-- include fedbench/runs/MACHINES.md -->", "howto/machines.md")
    assert hook._link(re.fullmatch(r"(!?)\[(.*)\]\((.*)\)", "[all](leaderboard/NOTES.md)"), "README.md", "a.md") == (
        "all (`leaderboard/NOTES.md`)"
    )


def test_a_link_to_nowhere_breaks_the_build(tmp_path: Path) -> None:
    page = tmp_path / "pages" / "index.md"
    page.parent.mkdir()
    page.write_text("# Title\n\n[gone](nowhere.md), [gone](index.md#there)\n", encoding="utf-8")
    text = CONFIG.read_text(encoding="utf-8").partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(text.replace("hooks:\n  - hook.py\n", ""), encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "'nowhere.md'" in done.stdout
    assert "'index.md#there'" in done.stdout
