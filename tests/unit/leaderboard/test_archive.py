"""``make archive``: the published records, their sums, and the same bytes every time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from fedbench import __version__

ROOT = Path(__file__).parents[3]
NAME = f"fedbench-records-{__version__}"


@pytest.fixture(scope="module")
def archive() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archive", ROOT / "leaderboard" / "archive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with two records, one of them submitted, and what is no record."""
    root = tmp_path / "tree"
    for name, text in {
        "leaderboard/results/core.parquet": "one",
        "leaderboard/results/submitted/mine.parquet": "two",
        "leaderboard/results/.fedbench-claims/a": "",
        "leaderboard/LEADERBOARD.md": "",
        "CITATION.cff": "three",
        "LICENSE": "four",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def unpacked(path: Path, target: Path) -> dict[str, bytes]:
    """The files of an archive, by name, after its own sums have been compared."""
    with tarfile.open(path) as tar:
        tar.extractall(target, filter="data")
    files = {
        each.relative_to(target / NAME).as_posix(): each.read_bytes()
        for each in (target / NAME).rglob("*")
        if each.is_file()
    }
    lines = files.pop("SHA256SUMS").decode().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert list(sums) == sorted(sums)
    return files


def test_what_is_in_it(archive: ModuleType, tree: Path, tmp_path: Path) -> None:
    path = archive.main(tmp_path / "build", tree)
    assert [each.name for each in path.parent.iterdir()] == [f"{NAME}.tar.gz"]
    files = unpacked(path, tmp_path / "out")
    assert files == {
        "results/core.parquet": b"one",
        "results/submitted/mine.parquet": b"two",
        "CITATION.cff": b"three",
        "LICENSE": b"four",
    }


def test_the_same_files_make_the_same_bytes(archive: ModuleType, tree: Path, tmp_path: Path) -> None:
    """Whenever, wherever and with whatever rights they were written; other content makes others."""
    first = archive.main(tmp_path / "a", tree).read_bytes()
    record = tree / "leaderboard" / "results" / "core.parquet"
    os.utime(record, (1, 1))
    record.chmod(0o600)
    assert archive.main(tmp_path / "b", tree).read_bytes() == first
    record.write_text("other", encoding="utf-8")
    assert archive.main(tmp_path / "b", tree).read_bytes() != first


def test_of_the_published_records(archive: ModuleType, tmp_path: Path) -> None:
    files = unpacked(archive.main(tmp_path / "build"), tmp_path / "out")
    published = ROOT / "leaderboard" / "results"
    assert {f"results/{path.name}" for path in published.glob("*.parquet")} <= set(files)
    assert files["results/core.parquet"] == (published / "core.parquet").read_bytes()
