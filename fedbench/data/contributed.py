"""Datasets that are a class: of a single file, or of an outside package (entry-point group ``fedbench.datasets``)."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import ClassVar

from fedbench.data.catalogue import DatasetCard
from fedbench.data.records import Pictures, Table
from fedbench.entries.registry import Registry


class Dataset(ABC):
    """A dataset that brings its own interactions: generates them, or reads them from where it knows them to be."""

    card: ClassVar[DatasetCard]
    """What the catalogue would say of it; ``users``, ``items`` and ``interactions`` are checked against the table."""

    @abstractmethod
    def table(self) -> Table:
        """All its interactions, unsplit: ``parts`` has the single key ``"all"``.

        The rows are grouped by user and, inside a user, oldest first where the table says ``ordered``. The same at
        every call: splits are drawn from it, and a record keeps its fingerprint.
        """

    def pictures(self) -> Pictures | None:
        """One image per item, in the index space of :meth:`table`; None, unless a subclass has some."""
        return None


DATASETS: Registry[Dataset] = Registry("dataset", "fedbench.data.contributed:Dataset", {}, group="fedbench.datasets")


def contributed_table(name: str) -> Table:
    """The table of a contributed dataset, made once in a process."""
    return _table(DATASETS.get(name))


def brings_pictures(name: str) -> bool:
    """Whether a contributed dataset says that its items have images."""
    return DATASETS.get(name).pictures is not Dataset.pictures


def contributed_pictures(name: str) -> Pictures | None:
    """The images of a contributed dataset."""
    return DATASETS.get(name)().pictures()


@functools.lru_cache(maxsize=4)
def _table(cls: type[Dataset]) -> Table:
    return cls().table()
