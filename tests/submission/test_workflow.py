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
    assert {"leaderboard/submissions/*.zip", "fedbench/attacks/**"} <= set(events["pull_request"]["paths"])


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
    assert all(1 <= job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
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
    assert "--yes --runs 2" in scripts({"jobs": {"run": run}})
    assert "fedbench check" in scripts({"jobs": {"run": run}})


def test_a_bundle_that_is_renamed_or_turned_into_a_link_is_judged_too(
    workflow: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every script that goes through bundles, with a command in fedbench's place that notes how it is called."""
    theirs, tools = tmp_path / "theirs", tmp_path / "tools"
    (theirs / "leaderboard" / "submissions").mkdir(parents=True)
    tools.mkdir()
    (tools / "fedbench").write_text('#!/bin/sh\necho "$@" >>calls\n')
    (tools / "fedbench").chmod(0o755)

    def git(*words: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *own, *words], cwd=theirs, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    for name in ("a", "b", "gone"):
        (theirs / "leaderboard" / "submissions" / f"{name}.zip").write_text(f"line {name}\n" * 100)
    git("add", ".")
    git("commit", "-qm", "before")
    base = git("rev-parse", "HEAD")
    git("mv", "leaderboard/submissions/a.zip", "leaderboard/submissions/renamed.zip")
    (theirs / "leaderboard" / "submissions" / "renamed.zip").write_text("line a\n" * 99 + "forged\n")
    (theirs / "leaderboard" / "submissions" / "b.zip").unlink()
    (theirs / "leaderboard" / "submissions" / "b.zip").symlink_to("renamed.zip")
    git("rm", "-q", "leaderboard/submissions/gone.zip")
    git("add", ".")
    git("commit", "-qm", "after")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("BASE", base)
    found = [step["run"] for step in steps(workflow) if "fedbench verify" in step.get("run", "")]
    assert len(found) == 2
    for script in found:
        (tmp_path / "calls").unlink(missing_ok=True)
        subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
        calls = (tmp_path / "calls").read_text().splitlines()
        assert [call.split()[1] for call in calls] == [
            "theirs/leaderboard/submissions/b.zip",
            "theirs/leaderboard/submissions/renamed.zip",
        ]


def test_its_commands_exist(workflow: dict[Any, Any]) -> None:
    group = typer.main.get_command(app)
    used = set(re.findall(r"^\s*fedbench ([a-z]+)", scripts(workflow), re.MULTILINE))
    assert used == {"check", "data", "verify"}
    assert used <= set(group.commands)  # type: ignore[attr-defined]
