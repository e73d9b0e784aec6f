"""The records and the page that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_records import constructed
from records import write

from fedbench.leaderboard import Database
from fedbench.runs.results import pack


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = tmp_path_factory.mktemp("packed")
    pack([write(tmp_path_factory.mktemp("records"), *constructed())], packed / "all.parquet")
    return packed


@pytest.fixture(scope="session")
def database(folder: Path) -> Database:
    return Database([folder])
