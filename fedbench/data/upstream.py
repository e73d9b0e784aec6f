"""Formats in which datasets are distributed, beyond plain columns: Amazon reviews and RecBole."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from fedbench.data.columns import Columns, Layout, read_columns
from fedbench.data.interactions import table_of_columns
from fedbench.data.records import Table
from fedbench.errors import DataError


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
