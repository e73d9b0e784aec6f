"""Formats in which datasets are distributed, beyond plain columns: Amazon reviews, Gowalla check-ins, RecBole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedbench.data.columns import Columns, Layout, read_columns
from fedbench.data.interactions import index_by_appearance, table_of_columns, unsplit
from fedbench.data.records import Ints, Table
from fedbench.errors import DataError

CORE = 10
"""Fewest different items of a user, and users of an item, that the Gowalla import keeps (as NGCF and LightGCN do)."""

_CHECKINS = Layout("\t", 5, user=0, item=4, time=1, numbers=((2, "latitude"), (3, "longitude")), iso_time=True)


def amazon_table(data: bytes, where: str, *, skip_malformed: bool = False) -> Table:
    """Amazon review files: one JSON object a line, with ``reviewerID``, ``asin`` and ``unixReviewTime``.

    Raises:
        DataError: a line is not such an object; the message is ``file:line: what``.
    """
    users: list[str] = []
    items: list[str] = []
    times: list[float] = []
    malformed = 0
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            review = json.loads(line)
            user, item, time = review["reviewerID"], review["asin"], float(review["unixReviewTime"])
            if not (isinstance(user, str) and isinstance(item, str) and user and item and np.isfinite(time)):
                raise ValueError("reviewerID or asin is not text, or unixReviewTime not a number")
        except KeyError as error:
            problem = f"the review has no {error.args[0]!r}"
        except (ValueError, TypeError) as error:
            problem = f"not a JSON review ({error})"
        else:
            users.append(user)
            items.append(item)
            times.append(time)
            continue
        if not skip_malformed:
            raise DataError(f"{where}:{number}: {problem}")
        malformed += 1
    return table_of_columns(
        Columns(pa.array(users, pa.string()), pa.array(items, pa.string()), {}, np.array(times, np.float64), malformed)
    )


def gowalla_table(data: bytes, where: str, *, skip_malformed: bool = False) -> Table:
    """SNAP's check-ins (user, time, latitude, longitude, location): first visits of the 10-core.

    A user's repeated check-ins at a location count once, at the time of the first. Then users with fewer than 10
    locations and locations with fewer than 10 users are removed, again and again, until none is left to remove.
    """
    columns = read_columns(data, _CHECKINS, where, skip_malformed=skip_malformed)
    if columns.time is None:
        raise DataError(f"{where}: the check-ins have no time.")
    user, _ = index_by_appearance(columns.user)
    item, num_items = index_by_appearance(columns.item)
    order = np.argsort(columns.time, kind="stable")
    keys = user[order].astype(np.int64) * num_items + item[order]
    _, first = np.unique(keys, return_index=True)
    visits = order[np.sort(first)]
    visits = visits[core(user[visits], item[visits], CORE)]
    visits.sort()
    user, num_users = index_by_appearance(pa.array(user[visits]))
    item, num_items = index_by_appearance(pa.array(item[visits]))
    note = (
        f"{len(columns):,} check-ins, {len(first):,} different (user, location) pairs, {len(visits):,} of them in the "
        f"{CORE}-core"
    )
    table = unsplit(
        user, item, num_users, num_items, columns.time[visits], "by time of the first check-in", notes=(note,)
    )
    return replace(table, malformed=columns.malformed)


def core(user: Ints, item: Ints, fewest: int) -> npt.NDArray[np.bool_]:
    """Mask of the rows of the k-core: the largest subset where every user and item has ``fewest`` rows or more.

    user, item: int [n], one row for each different pair.
    """
    kept = np.ones(len(user), dtype=bool)
    while True:
        of_user = np.bincount(user[kept], minlength=int(user.max(initial=-1)) + 1)
        of_item = np.bincount(item[kept], minlength=int(item.max(initial=-1)) + 1)
        thin = kept & ((of_user[user] < fewest) | (of_item[item] < fewest))
        if not thin.any():
            return kept
        kept &= ~thin


def inter_table(data: bytes, where: str, *, skip_malformed: bool = False) -> Table:
    """RecBole's atomic file: tab-separated, the header names and types the columns.

    ``user_id:token`` and ``item_id:token`` are required, ``timestamp:float`` gives the order, others are not used.

    Raises:
        DataError: a required column is missing from the header, or a line is malformed.
    """
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r").lstrip("\ufeff").split("\t")
    place = {name: position for position, name in enumerate(header)}
    for required in ("user_id:token", "item_id:token"):
        if required not in place:
            raise DataError(f"{where}:1: the header has no column {required!r}; it has: {', '.join(header)}")
    numbers = tuple(
        (place[name], name.partition(":")[0]) for name in ("rating:float", "timestamp:float") if name in place
    )
    layout = Layout(
        "\t", len(header), place["user_id:token"], place["item_id:token"], place.get("timestamp:float"), numbers, True
    )
    return table_of_columns(read_columns(data, layout, where, skip_malformed=skip_malformed))
