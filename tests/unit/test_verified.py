"""The mark "verified by its authors"."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from fedbench.attacks import ATTACKS
from fedbench.cli import app
from fedbench.defenses import DEFENSES
from fedbench.entries import verified
from fedbench.entries.verified import Verified, statements, verified_by
from fedbench.models import MODELS


def test_statements_are_of_entries_at_a_version_that_there_was_and_at_an_address() -> None:
    registries: dict[str, Any] = {"attacks": ATTACKS, "defenses": DEFENSES, "models": MODELS}
    assert set(statements()) <= set(registries)
    for kind, own in statements().items():
        for name, said in own.items():
            assert 1 <= said.version <= registries[kind].get(name).card.version
            assert said.statement.startswith("https://")
            assert said.by
            assert said.date <= datetime.date.today()


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> str:
    version = ATTACKS.get("a-hum").card.version
    said = Verified(version, "Ada Example", "https://example.org/said", datetime.date(2026, 11, 30))
    monkeypatch.setattr(verified, "statements", lambda: {"attacks": {"a-hum": said}})
    return "Ada Example, 2026-11-30, https://example.org/said"


def test_show_says_who_verified_an_entry(one: str) -> None:
    def shown(name: str) -> str:
        done = CliRunner().invoke(app, ["show", name, "--json"])
        return json.loads(done.stdout)["verified_by_its_authors"]

    assert shown("a-hum") == one
    assert [shown(name) for name in ("a-ra", "krum", "mf")] == ["no"] * 3


def test_an_entry_that_has_changed_since_is_verified_as_it_was(one: str) -> None:
    version = ATTACKS.get("a-hum").card.version
    assert verified_by("attacks", "a-hum", version + 1) == f"version {version} only, {one}"
    assert verified_by("defenses", "a-hum", version) == ""
