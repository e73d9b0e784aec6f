"""SNAP's check-ins: one line per visit, and which of them make a dataset.

A line is user, time (ISO 8601, UTC), latitude, longitude, location, separated by tabs; the file has no header. The
coordinates are not used, so nothing is asked of them. A user's repeated check-ins at a location are all kept in the
table, oldest first: ``duplicates="drop"`` then leaves the first visit, ``"keep"`` every one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedbench.data.catalogue import DatasetCard
from fedbench.data.columns import Columns, Layout, read_columns
from fedbench.data.dates import Dates
from fedbench.data.files import read_whole
from fedbench.data.home import data_roots, sha256_of_bytes
from fedbench.data.interactions import unsplit
from fedbench.data.records import Table
from fedbench.errors import DataError

_CHECKINS = Layout("\t", 5, user=0, item=4, time=1, dates=Dates(zoned=True))
_ID_LIST = Layout(" ", 2, user=0, item=1, time=None, header=True)
_ORDER = "by time of the check-in, ties by file order"


def listed_checkins(
    data: bytes, where: str, users: pa.Array, items: pa.Array, *, skip_malformed: bool = False
) -> Table:
    """The check-ins of the listed users at the listed locations, repeats included.

    As Yu et al. (AAAI 2023) restrict the check-ins to the lists of NGCF, with two deviations. Indices are the places
    in the lists, and so those of NGCF's files, where they number by first appearance. The first line of the file is a
    check-in (of a listed user at a listed location) and counts, where their code passes over it as if it were a header.

    Args:
        data: the whole file, decompressed.
        where: the file's name for messages.
        users: text [num_users], the ids that are kept; their places become the indices.
        items: text [num_items], likewise of the locations.
        skip_malformed: leave out malformed lines and count them, instead of refusing the file.

    Raises:
        DataError: a line is malformed; the message is ``file:line: what``.
    """
    columns = checkin_columns(data, where, skip_malformed=skip_malformed)
    time = columns.time
    assert time is not None  # the layout has one
    user, item = (_places(ids, among) for ids, among in ((columns.user, users), (columns.item, items)))
    kept = np.flatnonzero((user >= 0) & (item >= 0))
    note = (
        f"{len(columns):,} check-ins, {len(kept):,} of them of the {len(users):,} listed users at the {len(items):,} "
        "listed locations"
    )
    table = unsplit(
        user[kept],
        item[kept],
        len(users),
        len(items),
        time[kept],
        _ORDER,
        malformed=columns.malformed,
        notes=(note,),
    )
    return replace(table, item_ids=tuple(items.to_pylist()))


def checkin_columns(data: bytes, where: str, *, skip_malformed: bool = False) -> Columns:
    """All check-ins, repeats included; arguments and errors as of :func:`listed_checkins`."""
    return read_columns(data, _CHECKINS, where, skip_malformed=skip_malformed)


def read_id_list(data: bytes, where: str) -> pa.Array:
    """The ids of a list with the header ``org_id remap_id``, each at the place that ``remap_id`` names: text [n].

    Raises:
        DataError: a malformed line, an id that comes twice, or places that are not 0 .. n - 1.
    """
    columns = read_columns(data, _ID_LIST, where)
    try:
        place = np.asarray(pc.cast(columns.item, pa.int64()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]}; expected lines 'org_id remap_id'.") from error
    order = np.argsort(place, kind="stable")
    if not np.array_equal(place[order], np.arange(len(place))) or len(columns.user.unique()) != len(place):
        raise DataError(f"{where}: the ids must differ and be numbered 0 .. {len(place) - 1}, each number once.")
    return columns.user.take(pa.array(order))


def find_id_list(known: DatasetCard, kind: str, beside: tuple[Path, ...]) -> Path | None:
    """The first copy of an id list of a dataset, its content checked; None when there is none.

    Looked for as ``<file>`` or ``<file>.gz`` in the folders ``beside``, in a folder of the dataset's name inside them,
    and in the dataset's folder under the data roots.

    Raises:
        DataError: the content of the first copy is not the one that the catalogue knows.
    """
    spec = known.id_lists[kind]
    folders = [inside for folder in beside for inside in (folder, folder / known.name)]
    folders += [root / known.name for root in data_roots()]
    for folder in folders:
        for path in (folder / spec.filename, folder / f"{spec.filename}.gz"):
            if path.is_file():
                found = sha256_of_bytes(read_whole(path))
                if found != spec.sha256:
                    raise DataError(
                        f"{path}: wrong checksum of the content (SHA-256 {found[:12]}..., expected "
                        f"{(spec.sha256 or '')[:12]}...); get it from {spec.url}."
                    )
                return path
    return None


def id_list(known: DatasetCard, kind: str, beside: tuple[Path, ...]) -> pa.Array:
    """The ids of ``kind`` (``user`` or ``item``) that a dataset keeps, text [n]; see :func:`find_id_list`.

    Raises:
        DataError: the list is nowhere, or not the one that the catalogue knows.
    """
    path = find_id_list(known, kind, beside)
    if path is None:
        spec = known.id_lists[kind]
        raise DataError(
            f"Dataset {known.name!r} needs {spec.filename} to select its {kind}s: put it ({spec.url}, plain or .gz) beside "
            f"the check-ins or into {known.name}/ of FEDBENCH_DATA; or import under another name (--k-core 10 keeps "
            "about as many)."
        )
    return read_id_list(read_whole(path), str(path))


def _places(ids: pa.Array, among: pa.Array) -> npt.NDArray[np.int32]:
    """The place of every id in ``among``, -1 where it is not there. int32 [n]."""
    return np.asarray(pc.fill_null(pc.index_in(ids, value_set=among), -1), dtype=np.int32)
