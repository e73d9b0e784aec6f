from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from fedbench.data import home, store
from fedbench.data.catalogue import File
from fedbench.data.records import Interactions, Table
from fedbench.errors import DataError


def table() -> Table:
    rows = Interactions(np.array([0, 0, 2], np.int32), np.array([3, 1, 0], np.int32))
    empty = Interactions(np.empty(0, np.int32), np.empty(0, np.int32))
    return Table({"train": rows, "public:0.01": empty, "test": rows}, 3, 4, True, "order", 5, ("a note",))


def same(one: Table, other: Table) -> bool:
    arrays = all(
        np.array_equal(one.parts[name].user, other.parts[name].user)
        and np.array_equal(one.parts[name].item, other.parts[name].item)
        for name in one.parts
    )
    facts = [(t.num_users, t.num_items, t.ordered, t.order, t.malformed, t.notes, list(t.parts)) for t in (one, other)]
    return arrays and facts[0] == facts[1]


def test_table_survives_the_disk(tmp_path: Path) -> None:
    store.write_table(tmp_path / "new" / "t.parquet", table())
    assert same(store.read_table(tmp_path / "new" / "t.parquet"), table())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.parquet"]


def test_cache_builds_once(home: Path) -> None:
    calls = []
    for _ in range(3):
        assert same(store.cached("x", lambda: calls.append(1) or table()), table())
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["truncate", "empty", "text", "foreign"])
def test_damaged_cache_file_is_built_again(home: Path, damage: str) -> None:
    store.cached("x", table)
    path = home / "parsed" / "x.parquet"
    data = path.read_bytes()
    if damage == "foreign":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"user": [1]}), path)
    else:
        path.write_bytes({"truncate": data[:-20], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(store.DamagedError):
        store.read_table(path)
    assert same(store.cached("x", table), table())
    assert same(store.read_table(path), table())


def test_flipped_bits_in_the_columns_are_noticed(home: Path) -> None:
    rows = Interactions(np.arange(5000, dtype=np.int32), np.arange(5000, dtype=np.int32))
    big = Table({"all": rows}, 5000, 5000, False, "")
    store.cached("x", lambda: big)
    path = home / "parsed" / "x.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    assert same(store.cached("x", lambda: big), big)


def test_another_parser_version_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_table(tmp_path / "t.parquet", table())
    monkeypatch.setattr(store, "PARSER_VERSION", store.PARSER_VERSION + 1)
    with pytest.raises(store.DamagedError):
        store.read_table(tmp_path / "t.parquet")


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert same(store.cached("x", table), table())


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with home.replacing(tmp_path / "t") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    assert home.cache_home() == tmp_path
    monkeypatch.delenv("FEDBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert home.cache_home() == tmp_path / "xdg" / "fedbench"


def test_home_of_data_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FEDBENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert home.cache_home() == tmp_path / f"fedbench-{os.getuid()}"
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert home.cache_home() == tmp_path / ".cache" / "fedbench"


def test_files_are_looked_for_in_all_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "b" / "sub" / "f").write_bytes(b"data")
    monkeypatch.setenv("FEDBENCH_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert home.find(File("sub/f", hashlib.sha256(b"data").hexdigest())) == tmp_path / "b" / "sub" / "f"
    with pytest.raises(DataError, match="in no folder of FEDBENCH_DATA"):
        home.find(File("sub/g", ""))
    with pytest.raises(DataError, match=r"f: wrong checksum \(SHA-256 3a6eb0790f39\.\.\., expected 000000000000"):
        home.find(File("sub/f", "0" * 64))


def test_root_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"FEDBENCH_DATA names '.*nowhere', which is not a folder"):
        home.data_roots()


def test_checksum_is_taken_once_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    taken: list[Path] = []
    plain = home.sha256_of
    monkeypatch.setattr(home, "sha256_of", lambda p: taken.append(p) or plain(p))
    home.check(path, digest)
    home.check(path, digest)
    assert len(taken) == 1
    path.write_bytes(b"other data")
    with pytest.raises(DataError, match="wrong checksum"):
        home.check(path, digest)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_damaged_memo_of_checksums_is_ignored(home: Path, tmp_path: Path, content: str) -> None:
    home.mkdir()
    (home / "verified.json").write_text(content)
    path = tmp_path / "f"
    path.write_bytes(b"data")
    from fedbench.data.home import check

    check(path, hashlib.sha256(b"data").hexdigest())
    with pytest.raises(DataError):
        check(path, "0" * 64)
