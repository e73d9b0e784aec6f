"""The forms for issues and the templates of pull requests: what GitHub reads, and what other pages say of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fedbench.cli import app
from fedbench.entries.cards import Knowledge
from fedbench.federation.defense import Defense

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "PULL_REQUEST_TEMPLATE").glob("*.md"))

yaml = pytest.importorskip("yaml")


def form(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_a_form_is_one_that_github_takes(file: Path) -> None:
    data = form(file.stem)
    assert set(data) == {"name", "description", "labels", "body"}
    assert all(isinstance(label, str) for label in data["labels"])
    labels = [part["attributes"]["label"] for part in data["body"]]
    assert len(labels) == len(set(labels)), "labels must differ"
    for part in data["body"]:
        assert part["type"] in ("input", "textarea", "dropdown")
        allowed = {"input": set(), "textarea": {"render"}, "dropdown": {"options"}}[part["type"]]
        assert set(part) <= {"type", "attributes", "validations"}
        assert set(part["attributes"]) <= {"label", "description", *allowed}
        options = part["attributes"].get("options", [])
        assert all(isinstance(each, str) for each in options), "yes and no need quotes"
        assert bool(options) == (part["type"] == "dropdown")
    assert any(part.get("validations", {}).get("required") for part in data["body"])


def test_names_of_forms_differ() -> None:
    names = [form(file.stem)["name"] for file in FORMS]
    assert len(names) == len(set(names))
    assert {"A new attack", "A new defense", "A stronger attack on a defense"} <= set(names)


def test_forms_speak_of_what_there_is() -> None:
    attack, defense = form("new-attack"), form("new-defense")
    told = next(part for part in attack["body"] if part["attributes"]["label"] == "What it must know")
    named = told["attributes"]["description"].partition("such as ")[2].rstrip(".").split(", ")
    assert set(named) <= set(Knowledge)
    (hooks,) = (part["attributes"]["options"] for part in defense["body"] if part["attributes"]["label"] == "Hook")
    assert [hook for hook in hooks if hook != "several" and not hasattr(Defense, hook)] == []


@pytest.mark.parametrize("file", [*FORMS, *TEMPLATES], ids=lambda file: file.name)
def test_commands_exist(file: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"`fedbench (\w+)", file.read_text(encoding="utf-8"))) <= set(commands)


def test_contributing_names_forms_and_templates() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    for name in ("new-attack", "new-defense", "stronger-attack"):
        assert f'"{form(name)["name"]}"' in text
    assert {file.name for file in TEMPLATES} == {"attack.md", "defense.md", "model.md"}
    assert all(f"{file.name}" in text for file in TEMPLATES)
    for file in TEMPLATES:
        assert len(re.findall(r"^- \[ \] ", file.read_text(encoding="utf-8"), re.MULTILINE)) >= 5
