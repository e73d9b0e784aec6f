"""Taking files out of a zip or tar archive that nobody has vouched for."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fedbench.errors import DataError

MOST_MEMBERS = 10_000
"""Members that an archive may have at most."""

_BLOCK = 1 << 20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    """What an archive says of one member: name with slashes, bytes, whether it is a folder, what forbids it."""

    name: str
    size: int
    folder: bool
    problem: str


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, or called one, or a tar archive, plain or packed by gzip, bzip2 or xz."""
    try:
        if not path.is_file():  # a pipe can be read once
            return False
        zipped = path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)
        return zipped or (path.stat().st_size > 0 and tarfile.is_tarfile(path))
    except (OSError, *_BROKEN):
        return False


def unpack(archive: Path, folder: Path, limit: int) -> list[Path]:
    """Unpack a zip or tar archive into an empty folder and name the files.

    Nothing is written before all members are checked: relative paths inside ``folder`` only, plain files and folders
    only (no links, no devices), no encryption, no name twice, and no more than ``limit`` bytes in all. The limit is
    enforced again while unpacking, since the declared sizes may lie. Names with backslashes, as some programs of
    Windows write them, are taken for paths.

    Raises:
        DataError: any of this does not hold, or the archive is damaged.
    """
    try:
        if not zipfile.is_zipfile(archive) and archive.stat().st_size and tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                entries = tar.getmembers()
                members = [_of_tar(entry) for entry in entries]
                return _write(
                    archive, folder, limit, members, (lambda e=entry: tar.extractfile(e) for entry in entries)
                )
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            members = [_of_zip(info) for info in infos]
            return _write(archive, folder, limit, members, (lambda i=info: opened.open(i) for info in infos))
    except _BROKEN as error:
        raise DataError(f"{archive}: damaged archive ({error}).") from error
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked ({error.strerror or error}).") from error


def check_members(archive: Path, members: list[zipfile.ZipInfo], limit: int, most: int = MOST_MEMBERS) -> None:
    """Raise :class:`DataError` unless all members of a zip archive are as :func:`unpack` demands."""
    _check(archive, [_of_zip(member) for member in members], limit, most)


def _of_zip(member: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(member.external_attr >> 16)
    problem = ""
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "it is neither a file nor a folder"
    elif member.flag_bits & 1:
        problem = "it is encrypted"
    name = member.filename.replace("\\", "/")
    return _Member(name, member.file_size, name.endswith("/"), problem)


def _of_tar(member: tarfile.TarInfo) -> _Member:
    plain = member.isreg() or member.isdir()
    name = member.name.removeprefix("./") or "."
    return _Member(name, member.size, member.isdir(), "" if plain else "it is neither a file nor a folder")


def _check(archive: Path, members: list[_Member], limit: int, most: int = MOST_MEMBERS) -> None:
    if len(members) > most:
        raise DataError(f"{archive}: refused, {len(members):,} members (at most {most:,}).")
    seen: set[str] = set()
    for member in members:
        path = PurePosixPath(member.name)
        problem = member.problem
        if path.is_absolute() or ".." in path.parts or ":" in member.name or not (path.parts or member.folder):
            problem = "its path leaves the folder"
        elif str(path) in seen and not member.folder:
            problem = problem or "its name occurs twice"
        if problem:
            raise DataError(f"{archive}: refused, member {member.name!r}: {problem}.")
        seen.add(str(path))
    total = sum(member.size for member in members)
    if total > limit:
        raise DataError(f"{archive}: refused, it unpacks to {total:,} bytes (at most {limit:,}).")


def _write(archive: Path, folder: Path, limit: int, members: list[_Member], opened: Iterable[Any]) -> list[Path]:
    """Check the members, then write the files, each from what its opener in ``opened`` gives."""
    _check(archive, members, limit)
    left = limit
    files: list[Path] = []
    for member, source in zip(members, opened, strict=True):
        target = folder.joinpath(*PurePosixPath(member.name).parts)
        if member.folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with source() as stream:
            left -= _copy(stream, member, target, archive, left)
        files.append(target)
    return files


def _copy(stream: IO[bytes], member: _Member, target: Path, archive: Path, left: int) -> int:
    """Unpack one file and return its size; raises when it is larger than ``left``."""
    size = 0
    with target.open("xb") as out:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > left:
                raise DataError(f"{archive}: refused, member {member.name!r} unpacks to more than it declares.")
            out.write(block)
    return size
