"""The datasets of the catalogue. Checksums are those of the files as their authors published them."""

from __future__ import annotations

from fedbench.data.cards.amazon import MUSIC, PHONES
from fedbench.data.cards.gowalla import GOWALLA
from fedbench.data.cards.longtail import LONGTAIL
from fedbench.data.cards.movielens import ML_1M, ML_100K
from fedbench.data.cards.steam import STEAM
from fedbench.data.catalogue import DatasetCard

ENTRIES: tuple[DatasetCard, ...] = (*LONGTAIL, ML_100K, ML_1M, MUSIC, PHONES, GOWALLA, STEAM)


def entry(name: str) -> DatasetCard | None:
    """The entry called ``name``, or by an alias; None when the catalogue has no such dataset."""
    for candidate in ENTRIES:
        if name == candidate.name or name in candidate.aliases:
            return candidate
    return None
