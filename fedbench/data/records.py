"""What the data sub-package hands around: parsed tables, pairs, splits, and the report that comes with a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Duplicates = Literal["drop", "keep"]

INTERACTIONS = "interactions"
"""The slot of an unsplit table: all interactions of a dataset, to be split by us."""


@dataclass(frozen=True)
class Interactions:
    """Aligned user and item indices, as a source lists them: any integer type, any order, repeats included."""

    user: Ints
    item: Ints

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Dropped:
    """What was left out of an import on request."""

    why: str
    """As a half-sentence: rated below 4."""
    rows: int
    users: int
    items: int


@dataclass(frozen=True)
class Table:
    """A source after parsing, before anything is split or removed.

    ``parts`` has the single key ``"all"`` for an unsplit source, or ``"train"``, ``"test"``, ``"valid"`` and
    ``"public:<fraction>"`` for a published split. The rows of ``"all"`` are grouped by user and, inside a user, oldest
    first where ``ordered`` is true (in the order of the file otherwise).
    """

    parts: Mapping[str, Interactions]
    num_users: int
    num_items: int
    ordered: bool
    """Whether a later row of a user is known to be a later interaction."""
    order: str
    """Where the order comes from, as a half-sentence for the report."""
    malformed: int = 0
    """Lines that were skipped because they could not be read."""
    notes: tuple[str, ...] = ()
    item_ids: tuple[str, ...] | None = None
    """What the source calls each item, by index; None where it knows indices only."""
    dropped: tuple[Dropped, ...] = ()
    """What was left out on request, in this order."""


@dataclass(frozen=True)
class Pictures:
    """One image per item of a dataset, in the index space of one of its splits."""

    pixels: UInt8
    """uint8 [M, 3, H, W], RGB; zeros for items without an image."""
    there: Bools
    """bool [M]: which items have one."""
    fingerprint: str = field(default="")
    """SHA-256 over size, ``there`` and ``pixels``, see :func:`picture_fingerprint`; computed where it is not given."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3 or self.pixels.dtype != np.uint8:
            raise ValueError(f"pixels must be uint8 [M, 3, H, W], not {self.pixels.dtype} {self.pixels.shape}")
        if self.there.shape != self.pixels.shape[:1] or self.there.dtype != np.bool_:
            raise ValueError(f"there must be bool [{len(self.pixels)}], not {self.there.dtype} {self.there.shape}")
        if not self.fingerprint:
            digests = [
                hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() if there else ""
                for image, there in zip(self.pixels, self.there, strict=True)
            ]
            object.__setattr__(self, "fingerprint", picture_fingerprint(self.pixels.shape[2:], digests))


def picture_fingerprint(size: tuple[int, ...], digests: Iterable[str]) -> str:
    """SHA-256 that identifies the images of a dataset by what they show.

    It runs over height and width, then a line for each item: the SHA-256 of its pixels (uint8 [3, H, W], hexadecimal),
    or nothing where it has no image. So images that are stored with the digest of each need not be hashed again.
    """
    lines = [" ".join(map(str, size)), *digests]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Pairs:
    """Interactions. user, item: int64 [n]; repeats only with ``duplicates="keep"``.

    Sorted by (user, item), but for :attr:`Split.train` of ``leave-one-out-validation``: see there.
    """

    user: Int64
    item: Int64

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Report:
    """What was found in the source of a split and what was removed from it. All counts are rows unless named else."""

    method: str
    """How the split was made, one sentence."""
    duplicates: Duplicates
    """Whether repeated and leaked pairs were removed (``drop``) or left as published (``keep``)."""
    rows: int
    """Rows of train, validation and test before anything was removed."""
    train_duplicates: int
    """Rows that repeat an earlier (user, item) pair of train (found before splitting where we split)."""
    heldout_duplicates: int
    """Rows that repeat an earlier (user, item) pair of the same held-out part."""
    leaked: int
    """Held-out rows whose pair is also in train, or test rows whose pair is also in validation."""
    removed: int
    """Rows removed for one of the three reasons above; 0 with ``keep``."""
    public_outside_train: int
    """Rows of the published attacker-visible samples that are not training pairs; removed with ``drop``."""
    users_without_train: int
    """Users that have no training row."""
    users_without_test: int
    """Users that have no test row."""
    items_without_train: int
    """Items of the index space that have no training row."""
    malformed: int
    """Lines that were skipped because they could not be read."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A dataset, divided. Indices are 0-based and dense: users below ``num_users``, items below ``num_items``."""

    dataset: str
    split: str
    num_users: int
    num_items: int
    train: Pairs
    """Sorted by (user, item). Of the split ``leave-one-out-validation`` instead: grouped by user ascending and, inside
    a user, oldest first (ties, and all rows of a table without times, in the order of the file), so that a sequential
    recommender can read a user's rows as the sequence that precedes the held-out ones."""
    test: Pairs
    """Sorted by (user, item), in every split."""
    valid: Pairs | None
    """Sorted by (user, item); None where the split has no validation part."""
    public: Mapping[str, Pairs]
    """Published samples of the training pairs that an attacker may see, keyed by their share: ``"0.01"`` ..."""
    report: Report
    fingerprint: str = field(default="")
    """SHA-256 over the sizes and arrays, see :func:`fingerprint`."""

    @property
    def known_test(self) -> float:
        """Share of the test rows whose pair is in train or validation too; 0 with ``duplicates="drop"``."""
        known = [self.train] if self.valid is None else [self.train, self.valid]
        keys = np.concatenate([pairs.user * self.num_items + pairs.item for pairs in known])
        tested = self.test.user * self.num_items + self.test.item
        return float(np.isin(tested, keys).mean()) if len(tested) else 0.0


def fingerprint(
    num_users: int,
    num_items: int,
    train: Pairs,
    test: Pairs,
    valid: Pairs | None,
    public: Mapping[str, Pairs],
) -> str:
    """SHA-256 that identifies what a split holds, and nothing of how it was stored or named.

    The digest runs over the two sizes, then for each part its name, its length and its user and item arrays as
    little-endian int64. Equal splits have equal digests on every machine. Where the order of train carries meaning
    (``leave-one-out-validation``), another order is another split.
    """
    digest = hashlib.sha256(f"{num_users} {num_items}".encode())
    parts: list[tuple[str, Pairs]] = [("train", train), ("test", test)]
    if valid is not None:
        parts.append(("valid", valid))
    parts += [(f"public:{share}", public[share]) for share in sorted(public)]
    for name, pairs in parts:
        digest.update(f"\n{name} {len(pairs)}\n".encode())
        for column in (pairs.user, pairs.item):
            digest.update(np.ascontiguousarray(column, dtype="<i8").data)
    return digest.hexdigest()
