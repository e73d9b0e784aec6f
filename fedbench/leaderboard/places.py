"""Where an entry would stand on the boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.database import LENGTHS, Database

TOP = 3
"""Places that a board is remembered for."""


def top_place(folders: Sequence[Path], kind: str, name: str, suite: str) -> str | None:
    """A table in which a place among the first three is open to an entry, of the boards of one suite and of all records, for
    any K; None: there is none.

    Args:
        folders: records, with those of the entry among them. kind: ``"attack"`` or ``"defense"``. name: of the entry, which
            may be a part of a chain. suite: the name of a suite.
    """
    for of in (suite, None):
        database = Database(folders, suite=of, curves=False)
        for k in sorted(LENGTHS, key=lambda k: k != database.k):
            for sheet in make_board(database if k == database.k else database.at(k)).sheets:
                if sheet.headings[:2] != ("rank", kind):
                    continue
                for rank, entry, *_ in sheet.rows:
                    first = rank.partition("-")[0]  # of the places that are open; an entry without a rank has none
                    if first.isdecimal() and int(first) <= TOP and name in entry.partition(" (")[0].split("+"):
                        return sheet.title
    return None
