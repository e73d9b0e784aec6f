"""Finding a dataset by name and handing out its splits."""

from __future__ import annotations

import hashlib
from functools import partial

from fedbench.data.catalogue import Entry, Source, check_split, entry
from fedbench.data.columns import ML_1M, ML_1M_PARTIAL, ML_100K, read_columns
from fedbench.data.files import read_whole
from fedbench.data.home import cache_home, find
from fedbench.data.interactions import ml_1m_partial_table, table_of_columns, union_table
from fedbench.data.longtail import SEED, SHAPES, generate
from fedbench.data.published import published_table
from fedbench.data.records import INTERACTIONS, Duplicates, Split, Table
from fedbench.data.splits import FOUR_TO_ONE, LEAVE_ONE_OUT, make_split
from fedbench.data.store import PARSER_VERSION, cached
from fedbench.errors import DataError, UserError


def load_split(dataset: str, split: str, *, duplicates: Duplicates = "drop", seed: int = 0) -> Split:
    """A dataset, divided into training and test interactions.

    Args:
        dataset: a name of the catalogue, or of an imported dataset.
        split: ``leave-one-out``, ``4:1``, or a published split of the dataset.
        duplicates: ``drop`` removes repeated pairs, and held-out pairs that are also in train; ``keep`` leaves the
            rows as they are published. Both are counted in the report either way.
        seed: of the random splits; the published ones and those by time do not use it.

    Raises:
        UserError: no such dataset, or it has no such split.
        DataError: its files are missing, malformed or not the ones that the catalogue knows.
    """
    if duplicates not in ("drop", "keep"):
        raise UserError(f"duplicates must be 'drop' or 'keep', not {duplicates!r}.")
    known = entry(dataset)
    check_split(known.name, split, known.splits)
    return make_split(known.name, split, load_table(known, split), duplicates=duplicates, seed=seed)


def load_table(known: Entry, split: str) -> Table:
    """The parsed table from which ``split`` is made."""
    if known.embedded:
        return cached(f"{known.name}-seed{SEED}-v{PARSER_VERSION}", lambda: generate(SHAPES[known.name]))
    slot = INTERACTIONS if split in (LEAVE_ONE_OUT, FOUR_TO_ONE) else split
    table = _from_files(known, slot)
    if table is None and slot == INTERACTIONS and known.union_of is not None:
        parts = _from_files(known, known.union_of)
        if parts is not None:
            order = "by time as far as known" if known.union_ordered else "the files have no timestamps"
            table = union_table(parts, f"all rows of {known.union_of}; {order}", known.union_ordered)
    if table is None:
        raise missing(known, slot)
    return table


def missing(known: Entry, slot: str) -> DataError:
    """The error for data that are nowhere on this machine: says where they were looked for and how to get them."""
    get = f"run `fedbench data get {known.name}`, or " if known.download and slot == INTERACTIONS else ""
    what = "its interactions" if slot == INTERACTIONS else f"its split {slot!r}"
    return DataError(
        f"Dataset {known.name!r}: {what} are not in FEDBENCH_DATA nor in {cache_home()}; {get}"
        f"`fedbench data import {known.name} PATH`, or set FEDBENCH_DATA to a folder that has them."
    )


def _from_files(known: Entry, slot: str) -> Table | None:
    """The first source of the slot whose files are all under the data roots."""
    for source in known.sources:
        if source.slot == slot:
            paths = {part: find(file) for part, file in source.files.items()}
            if all(path is not None for path in paths.values()):
                return cached(_identity(known, source), partial(_parse, source))
    return None


def _identity(known: Entry, source: Source) -> str:
    text = "\n".join(f"{part} {file.sha256}" for part, file in sorted(source.files.items()))
    digest = hashlib.sha256(f"{source.layout} {source.num_items}\n{text}".encode()).hexdigest()[:16]
    return f"{known.name}-{source.slot}-{digest}-v{PARSER_VERSION}"


def _parse(source: Source) -> Table:
    contents: dict[str, tuple[str, bytes]] = {}
    for part, file in source.files.items():
        path = find(file)
        if path is None:
            raise DataError(f"{file.path} disappeared while it was read.")
        contents[part] = (str(path), read_whole(path))
    if source.slot != INTERACTIONS:
        return published_table(contents, source.layout, source.order, num_items=source.num_items)
    where, data = contents["all"]
    if source.layout == "ml-1m-partial":
        return ml_1m_partial_table(read_columns(data, ML_1M_PARTIAL, where))
    return table_of_columns(read_columns(data, {"ml-100k": ML_100K, "ml-1m": ML_1M}[source.layout], where))
