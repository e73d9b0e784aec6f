"""Which of the files that somebody names, or that a folder or archive holds, are the interactions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedbench.errors import DataError

_DATA = r"(\.(txt|dat|csv|tsv|data|inter|rating|ratings|jsonl?|parquet))"
_PACKED = r"(\.(gz|bz2|xz|zst))"
_PARTS = re.compile(
    r"(?P<part>train|valid|val|test)(_rebuilt)?(?P<public>\.part-(?P<percent>[0-9.]+)%)?" + _DATA + _PACKED + "?"
)
_PREFIXED = re.compile(
    r"(?P<prefix>.*[._-])?(?P<part>train|training|base|valid|val|validation|dev|test|testing)"
    + _DATA
    + "?"
    + _PACKED
    + "?"
)
_SAME_PART = {
    "training": "train",
    "base": "train",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "testing": "test",
}
_PREFERRED = (
    re.compile(r"u\.data|ratings\.(dat|csv|tsv)|user_artists\.dat|yelp_academic_dataset_review\.json"),
    re.compile(r"userid-timestamp-.*\.tsv|usersha1-artmbid-.*\.tsv|.*totalCheckins\.txt" + _PACKED + "?"),
    re.compile(r".*\.inter" + _PACKED + "?"),
    re.compile(
        r"(.*[^a-z])?(ratings?|reviews?|interactions?|check-?ins?|purchases|plays|clicks)([^a-z].*)?"
        + _DATA
        + _PACKED
        + "?",
        re.IGNORECASE,
    ),
    re.compile(r".*\.(json|jsonl)" + _PACKED + "?"),
    re.compile(r".*\.(csv|tsv)" + _PACKED + "?"),
    re.compile(r".*\.parquet"),
    re.compile(r"(?!readme|licen[cs]e|changelog|about|copying).*" + _DATA + "?" + _PACKED + "?", re.IGNORECASE),
)
"""Names of the files of a folder or archive that hold interactions, the surest first."""
_BESIDE = re.compile(
    r"(.*[^a-z])?(users?|items?|movies?|books?|artists?|products?|business(es)?|meta|metadata|tags?|links?|friends?|tips?"
    r"|profiles?|titles?|genres?|categor(y|ies)|images?|readme|licen[cs]e)([^a-z].*)?",
    re.IGNORECASE,
)
"""Names of what else such folders and archives hold."""


def inner(folder: Path) -> Path:
    """The folder itself, or what is inside when it holds nothing but one folder, as archives do."""
    while len(inside := [path for path in folder.iterdir() if not _is_debris(path)]) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _is_debris(path: Path) -> bool:
    """What macOS and others leave in folders and archives beside the data."""
    return path.name.startswith(".") or path.name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def split_files(paths: Sequence[Path], where: str) -> dict[str, Path]:
    """The train, test, validation and attacker-visible files among these, by part; none where they are no split.

    Raises:
        DataError: two files are the same part.
    """
    parts: dict[str, Path] = {}
    for path in paths:
        match = _PARTS.fullmatch(path.name)
        if match is None:
            continue
        part = _SAME_PART.get(match["part"], match["part"])
        if match["public"]:
            part = f"public:{float(match['percent']) / 100:g}"
        if part in parts:
            raise DataError(f"{where}: {parts[part].name} and {path.name} are both the {part} file; keep one.")
        parts[part] = path
    if {"train", "test"} <= parts.keys():
        return parts
    return _prefixed(paths)


def _prefixed(paths: Sequence[Path]) -> dict[str, Path]:
    """The parts of files such as ml-1m.train.rating, where one prefix has one train and one test file."""
    found: dict[str, dict[str, list[Path]]] = {}
    for path in paths:
        match = _PREFIXED.fullmatch(path.name)
        if match is not None:
            part = _SAME_PART.get(match["part"], match["part"])
            found.setdefault(match["prefix"] or "", {}).setdefault(part, []).append(path)
    whole = [
        parts for parts in found.values() if {"train", "test"} <= parts.keys() and max(map(len, parts.values())) == 1
    ]
    return {part: files[0] for part, files in whole[0].items()} if len(whole) == 1 else {}


def plain_files(folder: Path) -> list[Path]:
    """The files right in a folder, but for what programs leave there."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_debris(path)]


def single_source(folder: Path, shown: Path) -> list[Path]:
    """The one file of a folder that holds interactions, or all of a table that is kept in several parquet files.

    Raises:
        DataError: there is none, or there are several.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_is_debris, [path, *path.relative_to(folder).parents]))
    ]
    found: list[Path] = []
    for pattern in _PREFERRED:
        found = [path for path in files if pattern.fullmatch(path.name)]
        if len(found) > 1:
            found = [path for path in found if not _BESIDE.fullmatch(path.name)] or found
        if found:
            break
    if found and len({path.parent for path in found}) == 1 and all(path.suffix == ".parquet" for path in found):
        return found
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "") or "none"
        raise DataError(
            f"{shown}: needs train and test files, or exactly one of u.data, ratings.dat, *.inter, *.json(.gz), *.csv "
            f"(found: {names}); or name the file itself."
        )
    return found
