"""The workflow for contributions: nothing in it gives a stranger's code more than a machine to run on."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fedbench.cli import app
from fedbench.plugins.scaffold import TEMPLATES

FILE = Path(__file__).parents[2] / ".github" / "workflows" / "contribution.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts(workflow: dict[Any, Any]) -> str:
    return "\n".join(step.get("run", "") for step in steps(workflow))


def test_it_runs_on_pull_requests_without_the_rights_of_the_target(workflow: dict[Any, Any]) -> None:
    (events,) = [workflow[key] for key in workflow if key in ("on", True)]  # YAML 1.1 reads "on" as true
    assert set(events) == {"pull_request"}
    entries = {f"fedbench/{each}/**" for each in ("attacks", "defenses", "models", "data")}
    assert {"leaderboard/submissions/*.zip", *entries} == set(events["pull_request"]["paths"])


def test_no_job_may_write_or_sees_a_secret(workflow: dict[Any, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert not any(
        "permissions" in job or "secrets" in job or "environment" in job for job in workflow["jobs"].values()
    )
    assert not re.search(r"secrets\.|github\.token|GITHUB_TOKEN", FILE.read_text(encoding="utf-8"))
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_actions_are_pinned_to_commits_and_jobs_end(workflow: dict[Any, Any]) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", each) for each in used)
    assert all(1 <= job["timeout-minutes"] <= 350 for job in workflow["jobs"].values())
    assert all(re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"]) for job in workflow["jobs"].values())


def test_nothing_of_the_pull_request_is_pasted_into_a_script(workflow: dict[Any, Any]) -> None:
    """A branch or a file can be called ``$(curl ...)``."""
    assert "${{" not in scripts(workflow)
    assert set(re.findall(r"\$\{\{ *(.*?) *\}\}", FILE.read_text(encoding="utf-8"))) == {
        "github.event.pull_request.number",
        "github.event.pull_request.base.sha",
    }


def test_the_target_branch_judges(workflow: dict[Any, Any]) -> None:
    for job in workflow["jobs"].values():
        first = job["steps"][0]["with"]
        assert first == {
            "ref": "${{ github.event.pull_request.base.sha }}",
            "path": "ours",
            "persist-credentials": False,
        }
        (installed,) = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
        assert installed == "python -m pip install -c ours/constraints.txt ./ours"


def test_the_code_of_a_contribution_runs_only_after_it_was_read(workflow: dict[Any, Any]) -> None:
    read, run = workflow["jobs"]["read"], workflow["jobs"]["run"]
    assert run["needs"] == "read"
    text = scripts({"jobs": {"read": read}})
    assert "--no-rerun" in text
    assert "--yes" not in text
    assert "fedbench check" not in text
    assert "--yes --budget 1h --beside ours/leaderboard" in scripts({"jobs": {"run": run}})
    assert "fedbench check" in scripts({"jobs": {"run": run}})


SAYS = """
case "$* $SAY" in
  *" silent") exit ;;
  *" refused") echo "refused: 1 reason" ;;
  check*) echo "ok card"; echo "passed: attack x: 9 checks" ;;
  *--no-rerun*) echo "read: whole" ;;
  *) echo "verified: 1 of 1 run repeated" ;;
esac
exit "${CODE:-0}"
"""


class Theirs:
    """A repository as the workflow finds it, and a command in fedbench's place that notes how it is called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, folder / "theirs"
        self.root.mkdir()
        tools = folder / "tools"
        tools.mkdir()
        (tools / "fedbench").write_text(f'#!/bin/sh\necho "$@" >>calls\n{SAYS}')
        (tools / "fedbench").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        self.git("init", "-q")

    def git(self, *words: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *own, *words], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", ".")
        self.git("commit", "-qm", "some")
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def calls(self, script: str) -> list[str]:
        (self.folder / "calls").unlink(missing_ok=True)
        assert self.run(script) == 0
        return (self.folder / "calls").read_text().splitlines()

    def run(self, script: str, **variables: str) -> int:
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=os.environ | variables, capture_output=True, check=False
        )
        return done.returncode


def test_a_bundle_that_is_renamed_or_turned_into_a_link_is_judged_too(
    workflow: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Theirs(tmp_path, monkeypatch)
    bundles = theirs.root / "leaderboard" / "submissions"
    for name in ("a", "b", "gone"):
        theirs.write(f"leaderboard/submissions/{name}.zip", f"line {name}\n" * 100)
    monkeypatch.setenv("BASE", theirs.commit())
    theirs.git("mv", "leaderboard/submissions/a.zip", "leaderboard/submissions/renamed.zip")
    (bundles / "renamed.zip").write_text("line a\n" * 99 + "forged\n")
    (bundles / "b.zip").unlink()
    (bundles / "b.zip").symlink_to("renamed.zip")
    theirs.git("rm", "-q", "leaderboard/submissions/gone.zip")
    theirs.commit()
    found = [step["run"] for step in steps(workflow) if "fedbench verify" in step.get("run", "")]
    assert len(found) == 2
    for script in found:
        assert [call.split()[1] for call in theirs.calls(script)] == [
            "theirs/leaderboard/submissions/b.zip",
            "theirs/leaderboard/submissions/renamed.zip",
        ]
    assert all(call.endswith(" --beside theirs/leaderboard") for call in theirs.calls(found[0]))


def test_new_entries_of_every_kind_are_checked_and_no_other_file(
    workflow: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that `fedbench new` writes, what an entry shares with others, and one that is only changed."""
    theirs = Theirs(tmp_path, monkeypatch)
    templates = {"attacks": "attack_promote", "defenses": "defense", "models": "model", "data": "dataset"}
    theirs.write("fedbench/attacks/old.py", "    card = AttackCard(\n")
    monkeypatch.setenv("BASE", theirs.commit())
    theirs.write("fedbench/attacks/old.py", "    card = AttackCard(name=1\n")
    for folder, template in templates.items():
        theirs.write(f"fedbench/{folder}/my_own.py", (TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8"))
        theirs.write(f"fedbench/{folder}/shared.py", "def card() -> None: ...\n")
    theirs.commit()
    (script,) = [step["run"] for step in steps(workflow) if "fedbench check" in step.get("run", "")]
    assert theirs.calls(script) == [f"check theirs/fedbench/{folder}/my_own.py" for folder in sorted(templates)]


def test_a_command_counts_by_its_verdict_and_its_code(
    workflow: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Theirs(tmp_path, monkeypatch)
    theirs.write("fedbench/attacks/old.py", "")
    monkeypatch.setenv("BASE", theirs.commit())
    theirs.write("fedbench/attacks/mine.py", (TEMPLATES / "attack_promote.py.txt").read_text(encoding="utf-8"))
    theirs.write("fedbench/defenses/mine.py", (TEMPLATES / "defense.py.txt").read_text(encoding="utf-8"))
    for name in ("a", "b"):
        theirs.write(f"leaderboard/submissions/{name}.zip", name)
    theirs.commit()
    judging = [step["run"] for step in steps(workflow) if re.search("fedbench (check|verify)", step.get("run", ""))]
    assert len(judging) == 3
    for script in judging:
        assert theirs.run(script) == 0
        assert theirs.run(script, SAY="silent") != 0
        assert theirs.run(script, SAY="refused") != 0
        assert theirs.run(script, CODE="1") != 0


def test_its_commands_exist(workflow: dict[Any, Any]) -> None:
    group = typer.main.get_command(app)
    used = set(re.findall(r"(?:^\s*|\()fedbench ([a-z]+)", scripts(workflow), re.MULTILINE))
    assert used == {"check", "data", "verify"}
    assert used <= set(group.commands)  # type: ignore[attr-defined]
