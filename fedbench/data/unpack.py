"""Taking files out of a zip archive that nobody has vouched for."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fedbench.errors import DataError

MOST_MEMBERS = 10_000
"""Members that an archive may have at most."""

_BLOCK = 1 << 20


def unpack(archive: Path, folder: Path, limit: int) -> list[Path]:
    """Unpack a zip archive into an empty folder and name the files.

    Nothing is written before all members are checked: relative paths inside ``folder`` only, plain files and folders
    only (no links, no devices), no encryption, no name twice, and no more than ``limit`` bytes in all. The limit is
    enforced again while unpacking, since the declared sizes may lie.

    Raises:
        DataError: any of this does not hold, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            check_members(archive, members, limit)
            left = limit
            files: list[Path] = []
            for member in members:
                target = folder.joinpath(*PurePosixPath(member.filename).parts)
                if member.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                left -= _copy(opened, member, target, archive, left)
                files.append(target)
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(f"{archive}: damaged archive ({error}).") from error
    except OSError as error:
        raise DataError(f"{archive}: cannot be unpacked ({error.strerror or error}).") from error


def check_members(archive: Path, members: list[zipfile.ZipInfo], limit: int, most: int = MOST_MEMBERS) -> None:
    """Raise :class:`DataError` unless all members of an archive are as :func:`unpack` demands."""
    if len(members) > most:
        raise DataError(f"{archive}: refused, {len(members):,} members (at most {most:,}).")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        path = PurePosixPath(name)
        mode = member.external_attr >> 16
        kind = stat.S_IFMT(mode)
        problem = ""
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
            problem = "its path leaves the folder"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problem = "it is neither a file nor a folder"
        elif member.flag_bits & 1:
            problem = "it is encrypted"
        elif str(path) in seen:
            problem = "its name occurs twice"
        if problem:
            raise DataError(f"{archive}: refused, member {name!r}: {problem}.")
        seen.add(str(path))
    total = sum(member.file_size for member in members)
    if total > limit:
        raise DataError(f"{archive}: refused, it unpacks to {total:,} bytes (at most {limit:,}).")


def _copy(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, archive: Path, left: int) -> int:
    """Unpack one file and return its size; raises when it is larger than ``left``."""
    size = 0
    with opened.open(member) as source, target.open("xb") as out:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > left:
                raise DataError(f"{archive}: refused, member {member.filename!r} unpacks to more than it declares.")
            out.write(block)
    return size
