"""The file of a bundle: a zip with five members, of which equal contents give equal bytes.

Members are stored as they are, sorted by name, with one fixed time and mode. A reader makes the file anew from what it
has read and compares: whatever a zip can carry beside its members' bytes (comments, other names, links, encryption, data
between members) is refused by that alone; the checks before it only name the reason.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fedbench.errors import UserError
from fedbench.submission.report import Check

MANIFEST, CARD, ENVIRONMENT, RECORDS, SOURCE = (
    "manifest.json",
    "card.json",
    "environment.json",
    "records.parquet",
    "source.py",
)
LIMITS = {MANIFEST: 1 << 16, CARD: 1 << 17, ENVIRONMENT: 1 << 16, RECORDS: 48 << 20, SOURCE: 1 << 18}
"""Members and the bytes that each may have."""
LARGEST = sum(LIMITS.values()) + (1 << 12)
"""Bytes that a bundle may have."""

_TIME = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 16


def packed(members: Mapping[str, bytes]) -> bytes:
    """The bundle's bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as opened:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            opened.writestr(info, members[name])
    return out.getvalue()


def read_bundle(path: Path) -> bytes:
    """The bytes of a bundle.

    Raises:
        UserError: there is no such file, or it is larger than any bundle.
    """
    if not path.is_file():
        raise UserError(
            f"bundle {str(path)!r} is no file." if path.exists() else f"bundle {str(path)!r} does not exist."
        )
    try:
        with path.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"bundle {str(path)!r} cannot be read: {error.strerror or error}.") from None
    if len(data) > LARGEST:
        raise UserError(f"bundle {str(path)!r} is larger than a bundle can be ({LARGEST:,} bytes).")
    return data


def members_of(data: bytes, check: Check) -> dict[str, bytes]:
    """The members of a bundle; with a reason in ``check``, they are not to be used."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            _judge(opened.infolist(), check)
            found = {} if check.reasons else {info.filename: _read(opened, info, check) for info in opened.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        check.refuse(f"not a whole zip file: {error or type(error).__name__}.")
        return {}
    if not check.reasons and packed(found) != data:
        check.refuse("bytes beside the members' own: not a file that `fedbench submit` has written.")
    return found


def _judge(members: list[zipfile.ZipInfo], check: Check) -> None:
    """The reasons to open none of the members."""
    if len(members) > 4 * len(LIMITS):
        check.refuse(f"{len(members):,} members; a bundle has {len(LIMITS)}.")
        return
    seen: set[str] = set()
    for member in members:
        # The name as it stands in the file: zipfile cuts it at a NUL.
        problem, name = "", member.orig_filename
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.is_absolute() or name[1:2] == ":" or name.startswith("\\"):
            problem = "its path is absolute"
        elif ".." in path.parts or "\\" in name:
            problem = "its path leads out of the bundle"
        elif kind == stat.S_IFLNK:
            problem = "it is a link"
        elif kind not in (0, stat.S_IFREG):
            problem = "it is no plain file"
        elif name in seen:
            problem = "its name occurs twice"
        elif name not in LIMITS:
            problem = "no bundle has it"
        elif member.flag_bits & 1:
            problem = "it is encrypted"
        elif member.file_size > LIMITS[name]:
            problem = f"it declares {member.file_size:,} bytes (at most {LIMITS[name]:,})"
        elif member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            problem = "it is compressed, which members of a bundle are not"
        if problem:
            check.refuse(f"member {name!r}: {problem}.")
        seen.add(name)
    missing = sorted(set(LIMITS) - seen)
    if missing:
        check.refuse(f"missing: {', '.join(missing)}.")


def _read(opened: zipfile.ZipFile, member: zipfile.ZipInfo, check: Check) -> bytes:
    """The bytes of a member, of which no more are read than it may have."""
    blocks, left = [], LIMITS[member.filename]
    with opened.open(member) as source:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                check.refuse(f"member {member.filename!r}: it holds more than {LIMITS[member.filename]:,} bytes.")
                return b""
            blocks.append(block)
    return b"".join(blocks)
