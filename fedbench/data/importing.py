"""``fedbench data import``: from a file, folder or zip archive that somebody has to a dataset of the data home."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fedbench.data.catalogue import PUBLISHED, DatasetCard
from fedbench.data.checkins import core_checkins, id_list, listed_checkins
from fedbench.data.columns import ML_1M, ML_100K, TRIPLES, Layout, read_columns
from fedbench.data.datasets import entry
from fedbench.data.files import LIMIT, read_whole
from fedbench.data.home import sha256_of
from fedbench.data.interactions import reindexed_table, table_of_columns
from fedbench.data.library import check_name, write_imported
from fedbench.data.lists import read_lists
from fedbench.data.published import split_table
from fedbench.data.records import INTERACTIONS, Table
from fedbench.data.summary import Summary, summarise
from fedbench.data.tables import EXAMPLE, first_lines, layout_of, plain_text, rating_notes, read_table, sniff
from fedbench.data.unpack import unpack
from fedbench.data.upstream import json_table
from fedbench.errors import DataError, UserError

Reader = Callable[[bytes, str, bool], Table]


@dataclass(frozen=True)
class Imported:
    """What an import made."""

    dataset: str
    slot: str
    """``interactions``, or the published split that was imported."""
    format: str
    path: Path
    """The parquet file in the data home."""
    summary: Summary
    notes: tuple[str, ...]


def _columns(layout: Layout) -> Reader:
    def reader(data: bytes, where: str, skip: bool) -> Table:
        columns = read_columns(data, layout, where, skip_malformed=skip)
        return table_of_columns(columns, rating_notes(columns))

    return reader


def _single_list(data: bytes, where: str, skip: bool) -> Table:
    rows, malformed = read_lists(data, where, skip_malformed=skip)
    return replace(reindexed_table(rows, "the file has no timestamps"), malformed=malformed)


FORMATS: dict[str, tuple[str, Reader]] = {
    "ml-100k": ("u.data: user, item, rating, timestamp separated by tabs", _columns(ML_100K)),
    "ml-1m": ("ratings.dat: user::movie::rating::timestamp", _columns(ML_1M)),
    "amazon": (
        "reviews in JSON, one a line",
        lambda data, where, skip: json_table(data, where, skip_malformed=skip),
    ),
    "gowalla": (
        "SNAP check-ins; dataset gowalla: those of NGCF's lists, any other: the 10-core",
        lambda d, where, skip: core_checkins(d, where, skip_malformed=skip),
    ),
    "inter": ("RecBole's .inter", read_table),
    "triples": ("user, item, timestamp separated by tabs", _columns(TRIPLES)),
    "lists": ("'user item item ...' or 'user item' lines", _single_list),
    "table": ("CSV in any dialect, best with a header such as user_id,item_id,rating,timestamp", read_table),
}
"""Formats of a single file: what each is, and its reader (content, name for messages, skip malformed lines)."""

SPLIT = "split"
"""Format of a folder with train and test files, ``lists`` or ``triples`` each."""

_PARTS = re.compile(
    r"(?P<part>train|valid|val|test)(_rebuilt)?(?P<public>\.part-(?P<percent>[0-9.]+)%)?\.(txt|dat|csv|tsv)(\.gz)?"
)
_KNOWN_FILES = {"u.data": "ml-100k", "ratings.dat": "ml-1m"}
_PREFERRED = (
    re.compile(r"u\.data|ratings\.(dat|csv|tsv)|user_artists\.dat"),
    re.compile(r".*\.inter"),
    re.compile(r".*\.(json|jsonl)(\.gz)?"),
    re.compile(r".*\.(csv|tsv)(\.gz)?"),
)
"""Names of the files of a folder or archive that hold interactions, the surest first."""


def import_dataset(
    name: str, path: Path, *, layout: str = "auto", split: str | None = None, skip_malformed: bool = False
) -> Imported:
    """Parse what is at ``path``, check it and keep it in the data home under ``name``.

    A name of the catalogue fills that dataset (the counts are compared with the catalogue's, and the checksum is
    told where the catalogue has none to compare with); a new name makes a new dataset. Single files are renumbered by
    first appearance, unless the catalogue has id lists for them, which are taken from the folder of the file or from
    FEDBENCH_DATA; folders of train and test files keep their indices.

    Args:
        name: the dataset.
        path: a file (gzip or plain), a folder, or a zip archive.
        layout: one of ``FORMATS``, ``split``, or ``auto``: by name and first line.
        split: for a folder of train and test files of a catalogue dataset that has several published splits: which.
        skip_malformed: count malformed lines and go on, instead of refusing the file with its name and line number.

    Raises:
        UserError: the name, the format or the split is not possible.
        DataError: the file is missing, damaged, malformed or empty, or the data home cannot be written.
    """
    check_name(name)
    known = entry(name)
    if known is not None and known.embedded:
        raise UserError(f"Dataset {name!r} is generated by fedbench; import yours under another name.")
    if layout not in ("auto", SPLIT, *FORMATS):
        raise UserError(f"Unknown format {layout!r}. Known: auto, {SPLIT}, {', '.join(FORMATS)}.")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder.")
    with tempfile.TemporaryDirectory(prefix="fedbench-") as scratch:
        source = path
        if path.is_file() and path.suffix.lower() == ".zip":
            unpack(path, Path(scratch), LIMIT)
            source = Path(scratch)
        table, layout, slot = _read(known, source, path, layout, split, skip_malformed)
    summary = summarise(table)
    if summary.rows == 0:
        raise DataError(f"{path}: holds no interaction.")
    notes = [f"imported from {path.name}", *table.notes]
    if slot == INTERACTIONS and not table.ordered:
        notes.append("no times: the test item of each user is drawn at random by leave-one-out")
    if known is not None:
        name = known.name
        notes += _differences(known, slot, summary)
        if slot == INTERACTIONS and path.is_file() and known.download is not None and known.download.sha256 is None:
            size = path.stat().st_size
            notes.append(f"{path.name}: {size:,} bytes, SHA-256 {sha256_of(path)} (upstream states none to compare)")
    table = replace(table, notes=tuple(notes))
    return Imported(name, slot, layout, write_imported(name, slot, table), summary, table.notes)


def _read(
    known: DatasetCard | None, source: Path, shown: Path, layout: str, split: str | None, skip: bool
) -> tuple[Table, str, str]:
    """The table, the format it was in, and the slot it fills."""
    if source.is_dir():
        source = _inner(source)
        parts = _split_files(source)
        if layout in (SPLIT, "auto") and {"train", "test"} <= parts.keys():
            slot = _published_slot(known, split)
            contents = {part: (str(shown / file.name), _content(file)) for part, file in parts.items()}
            return split_table(contents, f"files of {shown.name}", skip_malformed=skip), SPLIT, slot
        source = _single_file(source, shown)
    if layout == SPLIT:
        raise DataError(f"{shown}: a split is a folder with train and test files (.txt, .dat, .csv or .tsv, also .gz).")
    data = _content(source)
    where = str(shown) if source == shown else f"{shown}/{source.name}"
    if layout == "auto":
        layout = detect(data, source.name, str(shown))
    if layout == "gowalla" and known is not None and known.id_lists:
        beside = (source.parent, shown.parent)
        users, items = (id_list(known, kind, beside) for kind in ("user", "item"))
        return listed_checkins(data, where, users, items, skip_malformed=skip), layout, INTERACTIONS
    return FORMATS[layout][1](data, where, skip), layout, INTERACTIONS


def _content(path: Path) -> bytes:
    """The text of a file; raises :class:`DataError` for containers whose content is no text."""
    data = read_whole(path)
    for magic, what in ((b"PK\x03\x04", "a zip archive or a spreadsheet"), (b"PAR1", "a parquet file")):
        if data.startswith(magic):
            raise DataError(f"{path}: {what}; save its table as CSV, with a header such as {EXAMPLE}.")
    if data[257:262] == b"ustar":
        raise DataError(f"{path}: a tar archive; unpack it and name the file or folder.")
    return plain_text(data, str(path))


def detect(data: bytes, filename: str, where: str) -> str:
    """The format of a file, by its name and its first lines; raises :class:`DataError` when it is none of ours."""
    if filename in _KNOWN_FILES:
        return _KNOWN_FILES[filename]
    line = next((line.strip() for line in first_lines(data) if line.strip()), "")
    tabs = line.split("\t")
    if line.startswith(("{", "[")):
        return "amazon"
    if any(column.partition(":")[0] == "user_id" and ":" in column for column in tabs):
        return "inter"
    if line.count("::") == 3:
        return "ml-1m"
    if len(tabs) == 5 and re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", tabs[1]):
        return "gowalla"
    sniffed = sniff(data)
    if line.replace(" ", "").isdigit() and (sniffed is None or not sniffed.ends_in_times):
        return "lists"
    if sniffed is None:
        known = ", ".join(FORMATS)
        raise DataError(f"{where}: the format is not recognised; name it with --format ({known}), or bring {EXAMPLE}.")
    if sniffed.header is None and sniffed.separator == "\t":
        numbers, _ = layout_of(sniffed, where)
        for name, layout in (("ml-100k", ML_100K), ("triples", TRIPLES)):
            if numbers == layout and line.replace("\t", "").replace(".", "").isdigit():
                return name
    return "table"


def _inner(folder: Path) -> Path:
    """The folder itself, or what is inside when it holds nothing but one folder, as archives do."""
    while len(inside := [path for path in folder.iterdir() if not _is_debris(path)]) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _is_debris(path: Path) -> bool:
    """What macOS and others leave in folders and archives beside the data."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def _split_files(folder: Path) -> dict[str, Path]:
    """The train, test, validation and attacker-visible files of a folder, by part."""
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _PARTS.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        part = "valid" if match["part"] == "val" else match["part"]
        if match["public"]:
            part = f"public:{float(match['percent']) / 100:g}"
        if part in parts:
            raise DataError(f"{folder}: {parts[part].name} and {path.name} are both the {part} file; keep one.")
        parts[part] = path
    return parts


def _single_file(folder: Path, shown: Path) -> Path:
    """The one file of a folder that can be imported."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_is_debris, [path, *path.relative_to(folder).parents]))
    ]
    found: list[Path] = []
    for pattern in _PREFERRED:
        found = found or [path for path in files if pattern.fullmatch(path.name)]
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) + (", ..." if len(found) > 5 else "") or "none"
        raise DataError(
            f"{shown}: needs train and test files, or exactly one of u.data, ratings.dat, *.inter, *.json(.gz), *.csv "
            f"(found: {names}); or name the file itself."
        )
    return found[0]


def _published_slot(known: DatasetCard | None, split: str | None) -> str:
    if known is None:
        if split not in (None, PUBLISHED):
            raise UserError(f"A new dataset has one published split, called {PUBLISHED!r}, not {split!r}.")
        return PUBLISHED
    slots = sorted({source.slot for source in known.sources} - {INTERACTIONS})
    if split is None and len(slots) == 1:
        return slots[0]
    if split not in slots:
        said = f"no published split {split!r}" if split else "several published splits"
        raise UserError(f"Dataset {known.name!r} has {said}; say which with --split: {', '.join(slots)}.")
    return split


def _differences(known: DatasetCard, slot: str, summary: Summary) -> list[str]:
    """A note when the imported data are not what the catalogue describes."""
    expected = (known.users, known.items, known.interactions if slot == INTERACTIONS else None)
    found = (summary.users, summary.items, summary.interactions if slot == INTERACTIONS else None)
    if found == expected:
        return []
    return [
        f"differs from the catalogue: {summary.users:,} users, {summary.items:,} items, {summary.interactions:,} "
        f"interactions instead of {known.users:,}, {known.items:,}, {known.interactions:,}"
    ]
