"""A fresh data home for every test, the real data where they are at hand, and HTTP servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from data_server import Server

_REPOSITORY = Path(__file__).resolve().parents[3]
_CANDIDATES = [Path(text) for text in os.environ.get("FEDBENCH_DATA", "").split(os.pathsep) if text]
_REAL = next((path for path in [*_CANDIDATES, _REPOSITORY.parent / "shared" / "data"] if path.is_dir()), None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data home; no data roots."""
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "home"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real-home")


@pytest.fixture
def real(home: Path, real_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data, with a data home that all tests of the session share; skips without them."""
    if _REAL is None:
        pytest.skip("no real data: set FEDBENCH_DATA")
    monkeypatch.setenv("FEDBENCH_DATA", str(_REAL))
    monkeypatch.setenv("FEDBENCH_CACHE", str(real_home))
    return _REAL


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], Server]]:
    """Starts servers, and stops them at the end of the test."""
    running: list[Server] = []

    def start(body: bytes) -> Server:
        running.append(Server(body))
        return running[-1]

    yield start
    for server in running:
        server.close()
