"""Image files of a folder, tar or zip archive that nobody has vouched for, one after the other, decoded."""

from __future__ import annotations

import hashlib
import itertools
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from fedbench.data.files import LIMIT, read_whole
from fedbench.data.pictures_decode import SUFFIXES, BadImage, Decoded, decode
from fedbench.data.unpack import check_members
from fedbench.errors import DataError

MOST_FILES = 1_000_000
"""Members that an archive of images may have."""

LARGEST_FILE = 64 << 20
"""Bytes of one image file."""

_FIRST = 200
"""Members of a tar archive that tell whether it holds images."""

Read = Callable[[], bytes]

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError)


@dataclass
class Tally:
    """What was met on the way."""

    files: int = 0
    """Image files."""
    unmatched: list[str] = field(default_factory=list)
    """Names of image files that are no item of the dataset."""
    skipped: list[str] = field(default_factory=list)
    """Files that were left out, each with the reason."""
    animated: int = 0
    """Animations, of which the first frame was taken."""

    def notes(self) -> list[str]:
        """One line for each kind of thing that a reader should know."""
        lines = []
        if self.unmatched:
            some = ", ".join(self.unmatched[:3])
            lines.append(f"{len(self.unmatched):,} image files are named by no item of the dataset (such as {some})")
        if self.skipped:
            lines.append(f"{len(self.skipped):,} files could not be used and were left out (such as {self.skipped[0]})")
        if self.animated:
            lines.append(f"{self.animated:,} animations: their first frame was taken")
        return lines


def looks_like_images(path: Path) -> bool:
    """Whether most files of a folder or archive are images; of a tar archive, most of the first files.

    A path that cannot be read is none; whoever reads it next says why.
    """
    try:
        if path.is_dir():
            names = [file.name for file in path.rglob("*") if file.is_file()]
        elif not path.is_file():
            return False
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as opened:
                names = [PurePosixPath(name).name for name in opened.namelist() if not name.endswith("/")]
        elif path.stat().st_size and tarfile.is_tarfile(path):
            with tarfile.open(path) as packed:
                first = itertools.islice((member for member in packed if not member.isdir()), _FIRST)
                names = [PurePosixPath(member.name).name for member in first]
        else:
            return False
    except _BROKEN:
        return False
    names = [name for name in names if not name.startswith("._")]
    images = sum(_is_image(name) for name in names)
    return 0 < images >= len(names) - images


def read_map(path: Path) -> dict[str, list[str]]:
    """Image id -> items, from lines 'item-id image-id'.

    Raises:
        DataError: a line is not two words, an item comes twice, or there is no line.
    """
    items: dict[str, str] = {}
    for number, line in enumerate(read_whole(path).decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise DataError(f"{path}:{number}: {len(words)} words, expected 'item-id image-id'.")
        if words[0] in items:
            raise DataError(f"{path}:{number}: item {words[0]!r} comes a second time; keep one line.")
        items[words[0]] = words[1]
    if not items:
        raise DataError(f"{path}: holds no line 'item-id image-id'.")
    images: dict[str, list[str]] = {}
    for item, image in items.items():
        images.setdefault(image, []).append(item)
    return images


def decoded(
    path: Path, wanted: Mapping[str, Sequence[str]] | None, side: int, tally: Tally, *, skip_malformed: bool = False
) -> Iterator[tuple[str, Decoded, str]]:
    """Item, image and SHA-256 of the file, of every image file at ``path`` that is wanted.

    Args:
        path: a folder, or a tar (plain or compressed) or zip archive; folders inside are looked into.
        wanted: image id (the file's name without folder and suffix) -> the items that it shows; None: each its own.
        side: pixels of the square.
        tally: counted up on the way.
        skip_malformed: leave out images that cannot be used, instead of refusing all.

    Raises:
        DataError: a bad image, two files for one image id, no image file at all, or an archive that is damaged, too
            large, or has members that are links or devices or lie outside of it.
    """
    seen: dict[str, str] = {}
    for name, read in _files(path):
        shown = f"{path}/{name}"
        image_id = PurePosixPath(name).stem
        if image_id in seen:
            raise DataError(f"{shown}: a second image for {image_id!r}, beside {seen[image_id]}; keep one of them.")
        seen[image_id] = name
        tally.files += 1
        items = [image_id] if wanted is None else wanted.get(image_id, ())
        if not items:
            tally.unmatched.append(PurePosixPath(name).name)
            continue
        try:
            data = read()
            image = decode(data, side)
        except BadImage as error:
            if not skip_malformed:
                raise DataError(
                    f"{shown}: {error}; replace or remove it, or leave such images out with --skip-malformed."
                ) from error
            tally.skipped.append(f"{name}: {error}")
            continue
        tally.animated += image.animated
        digest = hashlib.sha256(data).hexdigest()
        for item in items:
            yield item, image, digest
    if not seen:
        raise DataError(f"{path}: holds no image; expected files named <item id>{', '.join(SUFFIXES)}.")


def _files(path: Path) -> Iterator[tuple[str, Read]]:
    """Relative name and reader of every image file; a reader is to be called before the next file is asked for."""
    if path.is_dir():
        yield from _folder(path)
        return
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    try:
        if zipfile.is_zipfile(path):
            yield from _zip(path)
        elif path.is_file() and path.stat().st_size and tarfile.is_tarfile(path):
            yield from _tar(path)
        else:
            raise DataError(f"{path}: no archive of images; expected a folder, or a tar or zip archive.")
    except _BROKEN as error:
        raise DataError(f"{path}: damaged archive ({error}); get it again.") from error


def _folder(path: Path) -> Iterator[tuple[str, Read]]:
    for folder, inside, names in os.walk(path):
        inside.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if _is_image(name) and file.is_file():
                yield file.relative_to(path).as_posix(), partial(_read_file, file)


def _read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise BadImage(f"it has more than {LARGEST_FILE >> 20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).") from error


def _zip(path: Path) -> Iterator[tuple[str, Read]]:
    with zipfile.ZipFile(path) as opened:
        members = opened.infolist()
        check_members(path, members, LIMIT, MOST_FILES)

        def reader(member: zipfile.ZipInfo) -> bytes:
            if member.file_size > LARGEST_FILE:
                raise BadImage(f"it has more than {LARGEST_FILE >> 20} MiB")
            try:
                with opened.open(member) as stream:
                    return stream.read(member.file_size + 1)
            except _BROKEN as error:
                raise DataError(f"{path}: damaged archive, at {member.filename} ({error}); get it again.") from error

        for member in members:
            name = member.filename.replace("\\", "/")  # as some programs of Windows write them
            if not name.endswith("/") and _is_image(PurePosixPath(name).name):
                yield name, partial(reader, member)


def _tar(path: Path) -> Iterator[tuple[str, Read]]:
    total = count = 0
    with tarfile.open(path) as opened:

        def reader(member: tarfile.TarInfo) -> bytes:
            if member.size > LARGEST_FILE:
                raise BadImage(f"it has more than {LARGEST_FILE >> 20} MiB")
            try:
                stream = opened.extractfile(member)
                return b"" if stream is None else stream.read()
            except _BROKEN as error:
                raise DataError(f"{path}: damaged archive, at {member.name} ({error}); get it again.") from error

        while (member := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # or it keeps what it knows of every member
            name = PurePosixPath(member.name)
            problem = ""
            if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                problem = "its path leaves the folder"
            elif not member.isfile() and not member.isdir():
                problem = "it is neither a file nor a folder"
            if problem:
                raise DataError(f"{path}: refused, member {member.name!r}: {problem}.")
            total += member.size
            count += 1
            if total > LIMIT or count > MOST_FILES:
                raise DataError(f"{path}: refused, over {LIMIT:,} bytes or {MOST_FILES:,} members.")
            if member.isfile() and _is_image(name.name):
                yield member.name, partial(reader, member)
        # At a damaged header tarfile stops as if that were the end, which is a block of zeros.
        assert opened.fileobj is not None
        opened.fileobj.seek(opened.offset)
        end = opened.fileobj.read(tarfile.BLOCKSIZE)
        if not end or end.strip(b"\0"):
            raise DataError(f"{path}: damaged archive (cut off after {count:,} members); get it again.")


def _is_image(name: str) -> bool:
    """By its suffix; hidden files (as macOS puts beside images in archives) are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
