"""Making a smaller dataset of an import: ratings from some value on, a k-core, a sample of users; what goes is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.data.columns import Columns
from fedbench.data.interactions import index_by_appearance
from fedbench.data.records import Dropped, Ints
from fedbench.data.streams import stream
from fedbench.errors import DataError, UserError


@dataclass(frozen=True)
class Filters:
    """What is left out, in this order."""

    min_rating: float | None = None
    """Keep rows rated this or higher."""
    k_core: int | None = None
    """Keep the largest part in which every user has this many different items, and every item as many users."""
    sample_users: int | None = None
    """Keep this many users, drawn by a fixed seed; of fewer all are kept."""

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.min_rating, self.k_core, self.sample_users))

    def check(self) -> None:
        """Raise :class:`UserError` unless the values can be meant."""
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise UserError(f"--min-rating must be a number, not {self.min_rating}.")
        for option, value in (("--k-core", self.k_core), ("--sample-users", self.sample_users)):
            if value is not None and value < 1:
                raise UserError(f"{option} must be 1 or more, not {value}.")


NO_FILTERS = Filters()
"""Everything is kept."""


def filtered(columns: Columns, filters: Filters, where: str) -> tuple[Columns, tuple[Dropped, ...]]:
    """The rows that are left, and what each filter dropped.

    Raises:
        UserError: there are no ratings to go by. DataError: nothing is left.
    """
    filters.check()
    dropped: list[Dropped] = []
    if filters.min_rating is not None:
        ratings = columns.numbers.get("rating")
        if ratings is None:
            raise UserError(
                f"{where}: --min-rating needs ratings, and none were found; where a column has them, name it: --rating NAME."
            )
        with np.errstate(invalid="ignore"):
            kept = ratings >= filters.min_rating
        if not kept.any() and len(kept):
            top = float(np.nanmax(ratings)) if np.isfinite(ratings).any() else float("nan")
            raise DataError(f"{where}: no rating reaches {filters.min_rating:g}; the highest is {top:g}.")
        columns, gone = _keep(columns, kept, f"rated below {filters.min_rating:g}, or not rated")
        dropped.append(gone)
    if filters.k_core is not None:
        columns, gone = _keep(columns, _in_core(columns, filters.k_core, where), f"outside the {filters.k_core}-core")
        dropped.append(gone)
    if filters.sample_users is not None:
        user, num_users = index_by_appearance(columns.user)
        drawn = np.argsort(stream(0, "import", "sample-users").random(num_users), kind="stable")[: filters.sample_users]
        why = f"not among the {len(drawn):,} of {num_users:,} users that were drawn"
        columns, gone = _keep(columns, np.isin(user, drawn), why)
        dropped.append(gone)
    return columns, tuple(dropped)


def _keep(columns: Columns, kept: npt.NDArray[np.bool_], why: str) -> tuple[Columns, Dropped]:
    left = columns.take(np.flatnonzero(kept)) if not kept.all() else columns
    users, items = (
        len(before.unique()) - len(after.unique())
        for before, after in ((columns.user, left.user), (columns.item, left.item))
    )
    return left, Dropped(why, len(columns) - len(left), users, items)


def _in_core(columns: Columns, fewest: int, where: str) -> npt.NDArray[np.bool_]:
    user, _ = index_by_appearance(columns.user)
    item, num_items = index_by_appearance(columns.item)
    pairs, pair_of_row = np.unique(user.astype(np.int64) * max(num_items, 1) + item, return_inverse=True)
    users, items = pairs // max(num_items, 1), pairs % max(num_items, 1)
    kept = core(users, items, fewest)
    if not kept.any() and len(kept):
        low, high = 1, fewest  # the largest core that is not empty
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if core(users, items, middle).any() else (low, middle)
        raise DataError(f"{where}: the {fewest}-core is empty; the largest that is not is --k-core {low}.")
    return kept[pair_of_row]


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
