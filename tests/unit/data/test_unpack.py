from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from fedbench.data.unpack import unpack
from fedbench.errors import DataError


def archive(folder: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return path


def target(folder: Path) -> Path:
    (folder / "deep" / "out").mkdir(parents=True)
    return folder / "deep" / "out"


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path, ("ml/", b""), ("ml/u.data", b"1"), ("ml/sub/x", b"22"))
    out = target(tmp_path)
    assert unpack(path, out, 3) == [out / "ml/u.data", out / "ml/sub/x"]
    assert (out / "ml/sub/x").read_bytes() == b"22"


@pytest.mark.parametrize(
    ("evil", "why"),
    [
        ("../evil", "its path leaves the folder"),
        ("ok/../../evil", "its path leaves the folder"),
        ("/etc/evil", "its path leaves the folder"),
        ("..\\evil", "its path leaves the folder"),
        ("C:evil", "its path leaves the folder"),
        (member("link", stat.S_IFLNK | 0o777), "it is neither a file nor a folder"),
        (member("device", stat.S_IFCHR | 0o600), "it is neither a file nor a folder"),
        (member("pipe", stat.S_IFIFO | 0o600), "it is neither a file nor a folder"),
    ],
)
def test_evil_member_is_refused_before_anything_is_written(
    tmp_path: Path, evil: str | zipfile.ZipInfo, why: str
) -> None:
    path = archive(tmp_path, ("good", b"1"), (evil, b"/etc/passwd"))
    out = target(tmp_path)
    with pytest.raises(DataError, match=why) as caught:
        unpack(path, out, 1 << 20)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("evil"))
    assert not list(out.iterdir())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, ("u.data", b"1"), ("u.data", b"2"))
    with pytest.raises(DataError, match="its name occurs twice"):
        unpack(path, target(tmp_path), 100)


def test_bomb_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    path = archive(tmp_path, ("zeros", bytes(10_000_000)))
    assert path.stat().st_size < 20_000
    out = target(tmp_path)
    with pytest.raises(DataError, match=r"unpacks to 10,000,000 bytes \(at most 1,000,000\)"):
        unpack(path, out, 1_000_000)
    assert not list(out.iterdir())


def test_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, ("zeros", bytes(3_000_000)))
    data = path.read_bytes()
    size = (3_000_000).to_bytes(4, "little")
    assert data.count(size) == 2  # in the local header and in the directory
    path.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError):
        unpack(path, target(tmp_path), 1000)
    assert sum(p.stat().st_size for p in (tmp_path / "deep").rglob("*") if p.is_file()) <= 1000


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, ("secret", b"1"))
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="it is encrypted"):
        unpack(path, target(tmp_path), 100)


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_damaged_archive_is_one_line(tmp_path: Path, cut: int) -> None:
    path = archive(tmp_path, ("u.data", b"1" * 1000))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.zip: damaged archive"):
        unpack(path, target(tmp_path), 10_000)


def test_member_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("u.data", b"1234567890")
    path.write_bytes(path.read_bytes().replace(b"1234567890", b"1234567899"))
    with pytest.raises(DataError, match="damaged archive"):
        unpack(path, target(tmp_path), 100)
