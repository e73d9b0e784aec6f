"""Counts of a parsed table, before anything is removed from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedbench.data.records import Int64, Table


@dataclass(frozen=True)
class Summary:
    """What a table holds."""

    users: int
    items: int
    rows: int
    """Interactions as listed: of all of train, validation and test where the source is split."""
    interactions: int
    """Different (user, item) pairs."""
    duplicates: int
    """Rows that repeat a pair: rows - interactions. With a split, this includes pairs of train found again in test."""
    users_without_rows: int
    items_without_rows: int
    malformed: int

    @property
    def density(self) -> float:
        """Share of all user-item pairs that are interactions."""
        cells = self.users * self.items
        return self.interactions / cells if cells else 0.0


def summarise(table: Table) -> Summary:
    """Count what a table holds; attacker-visible samples are not counted, they repeat training pairs."""
    parts = [rows for name, rows in table.parts.items() if not name.startswith("public:")]
    user = np.concatenate([rows.user for rows in parts])
    item = np.concatenate([rows.item for rows in parts])
    keys: Int64 = np.sort(user.astype(np.int64) * table.num_items + item)
    distinct = int(np.count_nonzero(np.diff(keys))) + bool(len(keys))
    return Summary(
        users=table.num_users,
        items=table.num_items,
        rows=len(keys),
        interactions=distinct,
        duplicates=len(keys) - distinct,
        users_without_rows=int(np.count_nonzero(np.bincount(user, minlength=table.num_users) == 0)),
        items_without_rows=int(np.count_nonzero(np.bincount(item, minlength=table.num_items) == 0)),
        malformed=table.malformed,
    )
