from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from fedbench import files
from fedbench.errors import ResultsError
from fedbench.files import occupied, sweep, write_file


def test_what_was_there_is_replaced_and_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "link").symlink_to("old")
    write_file(tmp_path / "link", "naïve")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_bytes() == "naïve".encode()
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    write_file(tmp_path / "new" / "folder" / "file", b"\x00")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "link", "new", "old"]


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    (tmp_path / "file").write_text("old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        for name in ("file", "new"):
            with pytest.raises(ResultsError, match=rf"cannot write the bundle .*/{name}: File too large\."):
                write_file(tmp_path / name, b"x" * 1000, "the bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]
    with pytest.raises(ResultsError, match=r"cannot write /dev/full: No space left on device\."):
        write_file(Path("/dev/full"), "x")


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_file(tmp_path / ("x" * 255), "whole")
    with pytest.raises(ResultsError, match=r"cannot write .*x: File name too long\."):
        write_file(tmp_path / ("x" * 256), "whole")
    with pytest.raises(ResultsError, match=r"cannot write .*null"):
        write_file(tmp_path / "x\0", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


def test_what_dead_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    dead, old, recent = (tmp_path / f".{name}.tmp" for name in ("fedbench-1", "a-s0.parquet.17", "b-s0.parquet.17"))
    for path in (dead, old, recent):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    (tmp_path / "mine.tmp").write_bytes(b"")
    with occupied(tmp_path) as place:  # as a suite does that runs
        assert place.marker.exists()
        with (tmp_path / ".fedbench-2.tmp").open("xb") as living:
            files._lock(living)
            sweep([tmp_path, tmp_path / "nowhere"])
            assert {path.name for path in tmp_path.iterdir()} == {
                place.marker.name, ".fedbench-2.tmp", recent.name, "mine.tmp",
            }  # fmt: skip
    sweep([tmp_path])
    assert {path.name for path in tmp_path.iterdir()} == {recent.name, "mine.tmp"}


def test_a_file_that_is_swept_before_it_is_locked_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = files._lock, list[str]()

    def late(file: files.IO[bytes]) -> bool:
        if not swept:
            swept.append(file.name)
            os.unlink(file.name)
        return lock(file)

    monkeypatch.setattr(files, "_lock", late)
    write_file(tmp_path / "file", "whole")
    assert len(swept) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_knows_when_it_is_moved(tmp_path: Path) -> None:
    with occupied(tmp_path / "a") as place:
        assert not place.moved
        (tmp_path / "a").rename(tmp_path / "b")
        assert place.moved
        (tmp_path / "a").mkdir()
        assert place.moved
        (tmp_path / "a").rmdir()
        (tmp_path / "a").symlink_to("b")  # the same folder under its old name
        assert not place.moved
    assert list((tmp_path / "a").iterdir()) == []
