"""Finding a dataset by name and handing out its splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedbench.data.catalogue import PUBLISHED, DatasetCard, File, Source
from fedbench.data.columns import ML_1M, ML_1M_PARTIAL, ML_100K, read_columns
from fedbench.data.contributed import DATASETS, contributed_table
from fedbench.data.datasets import ENTRIES, entry
from fedbench.data.files import read_whole
from fedbench.data.home import cache_home, data_roots, find
from fedbench.data.interactions import ids_by_appearance, ml_1m_partial_table, table_of_columns, union_table
from fedbench.data.library import imported_names, imported_path, imported_slots, read_imported
from fedbench.data.longtail import SEED, SHAPES, generate
from fedbench.data.published import published_table
from fedbench.data.records import INTERACTIONS, Duplicates, Split, Table
from fedbench.data.splits import make_split, slot_of
from fedbench.data.store import PARSER_VERSION, cached
from fedbench.errors import DataError, UserError, unknown

IMPORTED = "imported"
"""The source of datasets that the catalogue does not know."""


def load_split(dataset: str, split: str, *, duplicates: Duplicates = "drop", seed: int = 0) -> Split:
    """A dataset, divided into training and test interactions.

    Args:
        dataset: a name of the catalogue, or of an imported dataset.
        split: ``leave-one-out``, ``leave-one-out-random``, ``leave-one-out-validation``, ``4:1``, or a published split of the
            dataset.
        duplicates: ``drop`` removes repeated pairs, and held-out pairs that are also in train; ``keep`` leaves the
            rows as they are published. Both are counted in the report either way.
        seed: of the random splits; the published ones and those by time do not use it.

    Raises:
        UserError: no such dataset, or it has no such split.
        DataError: its files are missing, malformed or not the ones that the catalogue knows.
    """
    if duplicates not in ("drop", "keep"):
        raise UserError(f"duplicates must be 'drop' or 'keep', not {duplicates!r}.")
    known = resolve(dataset)
    check_split(known, split)
    return make_split(known.name, split, load_table(known, split), duplicates=duplicates, seed=seed)


def resolve(name: str) -> DatasetCard:
    """The dataset called ``name``: of the catalogue, or imported; raises :class:`UserError` when there is none."""
    known = entry(name)
    if known is not None:
        return known
    if name in DATASETS.names():
        return DATASETS.get(name).card
    imported = imported_names()
    if name not in imported:
        names = [*DATASETS.names(), *(alias for e in ENTRIES for alias in (e.name, *e.aliases))]
        raise unknown("dataset", name, names + imported, "See `fedbench data list`.")
    slots = imported_slots(name)
    return DatasetCard(
        name=name,
        title="Imported dataset",
        timestamps="",
        source=IMPORTED,
        licence="unknown to fedbench",
        citation="",
        sources=() if PUBLISHED not in slots else (Source(PUBLISHED, "", {}),),
        union_of=None if INTERACTIONS in slots else PUBLISHED,
    )


def check_split(known: DatasetCard, split: str) -> None:
    """Raise :class:`UserError` unless the dataset has the split."""
    if split not in known.splits:
        raise UserError(f"Dataset {known.name!r} has no split {split!r}. It has: {', '.join(known.splits)}.")


def load_table(known: DatasetCard, split: str, *, with_ids: bool = False) -> Table:
    """The parsed table from which ``split`` is made: embedded, else imported, else from the data roots.

    ``with_ids``: with the ids of the items where the files at hand tell them, even if a table without is in the cache.
    """
    if known.embedded:
        return cached(embedded_identity(known), lambda: generate(SHAPES[known.name]))
    if known.name in DATASETS.names():
        return contributed_table(known.name)
    slot = slot_of(split)
    table = _at_hand(known, slot, with_ids=with_ids)
    if table is None and slot == INTERACTIONS and known.union_of is not None:
        parts = _at_hand(known, known.union_of, with_ids=with_ids)
        if parts is not None:
            order = "by time as far as known" if known.union_ordered else "the files have no timestamps"
            table = union_table(parts, f"all rows of {known.union_of}; {order}", known.union_ordered)
    if table is None:
        raise missing(known, slot)
    return table


def load_item_ids(known: DatasetCard, split: str) -> tuple[str, ...]:
    """What the source calls the items of a split, by index.

    Where there is nothing but indices (embedded data, lists that somebody imported under a name of their own), these.

    Raises:
        UserError: a published split of the catalogue whose files do not tell.
        DataError: the data are not here, or were stored by a version that did not keep the ids.
    """
    table = load_table(known, split, with_ids=True)
    if table.item_ids is not None:
        return table.item_ids
    slot = slot_of(split)
    kept = imported_path(known.name, INTERACTIONS)
    own_lists = known.source == IMPORTED and (slot != INTERACTIONS or not kept.is_file())
    if known.embedded or known.name in DATASETS.names() or own_lists:
        return tuple(map(str, range(table.num_items)))
    if slot == INTERACTIONS and kept.is_file():
        raise DataError(
            f"{kept}: stored by an older version, without the ids of its items; "
            f"import the interactions of {known.name!r} again."
        )
    if slot == INTERACTIONS and known.union_of is not None:
        slot = known.union_of
    raise UserError(
        f"Dataset {known.name!r}: the files of {slot!r} number their items and nothing tells which is which, so "
        f"images cannot be matched; use leave-one-out or 4:1 of interactions with ids (`fedbench data import`)."
    )


def embedded_identity(known: DatasetCard) -> str:
    """The cache name of an embedded dataset."""
    return f"{known.name}-seed{SEED}-v{PARSER_VERSION}"


def missing(known: DatasetCard, split: str) -> DataError:
    """The error for data that are nowhere on this machine: says where they were looked for and how to get them.

    ``split`` is a split or a slot.
    """
    slot = slot_of(split)
    get = f"run `fedbench data get {known.name}`, or " if known.download and slot == INTERACTIONS else ""
    what, how = "its interactions", "PATH"
    if slot != INTERACTIONS:
        origin = next((f" ({source.order})" for source in known.sources if source.slot == slot and source.order), "")
        what, how = f"the train and test files of its split {slot!r}{origin}", f"FOLDER --split {slot}"
    return DataError(
        f"Dataset {known.name!r}: {what} are not in FEDBENCH_DATA nor in {cache_home()}; {get}"
        f"`fedbench data import {known.name} {how}`, or set FEDBENCH_DATA to a folder that has them."
    )


def where(known: DatasetCard, split: str) -> str | None:
    """Where the data of a split or slot are: ``embedded``, ``contributed``, ``imported``, ``FEDBENCH_DATA``, or None.

    Opens no file.
    """
    slot = slot_of(split)
    if known.embedded:
        return "embedded"
    if known.name in DATASETS.names():
        return "contributed"
    if imported_path(known.name, slot).is_file():
        return "imported"
    if any(source.slot == slot and _complete(source) for source in known.sources):
        return "FEDBENCH_DATA"
    return where(known, known.union_of) if slot == INTERACTIONS and known.union_of else None


def _complete(source: Source) -> bool:
    return bool(source.files) and all(map(at_hand, source.files.values()))


def at_hand(file: File) -> bool:
    """Whether a file of the catalogue is under a data root; its content is not looked at."""
    return any(root.joinpath(file.path).is_file() for root in data_roots())


def _listed_ids(path: Path, num_items: int) -> tuple[str, ...]:
    """The ids of a published split's items by index, from lines 'index id' or JSON {id: index}."""
    data = read_whole(path)
    try:
        if data.startswith(b"{"):
            places = {int(index): str(item) for item, index in json.loads(data).items()}
        else:
            pairs = (line.split() for line in data.decode().splitlines())
            places = {int(index): item for index, item in pairs}
        return tuple(places[index] for index in range(num_items))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: does not tell the ids of {num_items:,} items ({error}).") from error


def _numbered_ids(known: DatasetCard, first: int, num_items: int) -> tuple[str, ...] | None:
    """The ids of items numbered by first appearance from row ``first`` of the interactions' file; None: it is not here."""
    for source in known.sources:
        if source.slot == INTERACTIONS and _complete(source):
            path = find(source.files["all"])
            columns = read_columns(read_whole(path), _LAYOUTS[source.layout], str(path))
            ids = ids_by_appearance(columns.item.slice(first))
            return ids if len(ids) == num_items else None
    return None


def _at_hand(known: DatasetCard, slot: str, *, with_ids: bool) -> Table | None:
    """The imported table of a slot, or that of the first source whose files are all under the data roots."""
    table = read_imported(known.name, slot)
    if table is not None:
        return table
    for source in known.sources:
        if source.slot == slot and _complete(source):
            paths = {part: find(file) for part, file in source.files.items()}
            unsplit_ids = with_ids and slot == INTERACTIONS
            table = cached(_identity(known, source), partial(_parse, source, paths), with_ids=unsplit_ids)
            if with_ids and source.item_ids is not None and at_hand(source.item_ids):
                table = replace(table, item_ids=_listed_ids(find(source.item_ids), table.num_items))
            elif with_ids and source.numbered_from is not None:
                table = replace(table, item_ids=_numbered_ids(known, source.numbered_from, table.num_items))
            # Not from the cache, which knows the files only: the catalogue's words may have changed since.
            return table if slot == INTERACTIONS else replace(table, order=source.order, notes=source.notes)
    return None


def _identity(known: DatasetCard, source: Source) -> str:
    text = "\n".join(f"{part} {file.sha256}" for part, file in sorted(source.files.items()))
    digest = hashlib.sha256(f"{source.layout}\n{text}".encode()).hexdigest()[:16]
    return f"{known.name}-{source.slot}-{digest}-v{PARSER_VERSION}"


def _parse(source: Source, paths: Mapping[str, Path]) -> Table:
    contents = {part: (str(path), read_whole(path)) for part, path in paths.items()}
    if source.slot != INTERACTIONS:
        return published_table(contents, source.layout, source.order)
    name, data = contents["all"]
    columns = read_columns(data, _LAYOUTS[source.layout], name)
    return ml_1m_partial_table(columns) if source.layout == "ml-1m-partial" else table_of_columns(columns)


_LAYOUTS = {"ml-100k": ML_100K, "ml-1m": ML_1M, "ml-1m-partial": ML_1M_PARTIAL}
