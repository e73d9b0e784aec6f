"""What the catalogue says of a dataset: what it is, where its files are, which splits it has, and its traps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbench.data.records import INTERACTIONS
from fedbench.data.splits import MADE

ICDE24 = "published-icde24"
IJCAI22 = "published-ijcai22"
PUBLISHED = "published"


@dataclass(frozen=True)
class File:
    """One file of a source, relative to a data folder, pinned by its content."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """One way to fill a slot: the unsplit interactions, or a published split."""

    slot: str
    layout: str
    """``lists``, ``triples``, or the name of a column layout: ``ml-100k``, ``ml-1m``, ``ml-1m-partial``."""
    files: Mapping[str, File]
    """Part -> file; the unsplit table has the single part ``all``."""
    order: str = ""
    notes: tuple[str, ...] = ()
    item_ids: File | None = None
    """What the items of a published split are called, where a file tells: lines 'index id', or JSON {id: index}."""
    numbered_from: int | None = None
    """The row of the interactions' file from which on a published split numbers its items by first appearance, if it does."""


@dataclass(frozen=True)
class ImageArchive:
    """Images of a dataset's items in a data folder: an archive of ``<image id>.jpg``."""

    archive: File
    ids: File | None = None
    """Lines 'item-id image-id', where images are not named by the ids of the items."""


@dataclass(frozen=True)
class Download:
    """A pinned upstream file. A checksum that could not be obtained from upstream is None (see its comment)."""

    url: str
    filename: str
    layout: str
    size: int | None
    sha256: str | None
    limit: int
    """Bytes that the download, and separately what is unpacked of it, may have at most."""
    member: str | None = None
    """The file wanted from the archive; None when the download is the file itself."""


@dataclass(frozen=True)
class DatasetCard:
    """A dataset. Counts are of the different interactions of the whole dataset, 0 where they are not known."""

    name: str
    title: str
    timestamps: str
    source: str
    licence: str
    citation: str
    users: int = 0
    items: int = 0
    interactions: int = 0
    traps: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    union_of: str | None = None
    """The published split whose parts together are the interactions, where no unsplit source is at hand."""
    union_ordered: bool = False
    """Whether train, validation and test of that split follow each other in time."""
    download: Download | None = None
    id_lists: Mapping[str, Download] = field(default_factory=dict)
    """``user`` and ``item`` -> the list that selects and numbers them, where the download holds more than the dataset.
    The checksum is that of the content, unpacked."""
    images: ImageArchive | None = None
    """Images of the items, where data folders have them."""
    image_index: Download | None = None
    """The file with the addresses of the images; layout ``amazon-metadata``."""
    embedded: bool = False
    """Generated, see :mod:`fedbench.data.longtail`."""
    aliases: tuple[str, ...] = field(default=())

    @property
    def density(self) -> float:
        """Share of all user-item pairs that are interactions."""
        return self.interactions / max(self.users * self.items, 1)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the dataset has, published ones last."""
        published = sorted({source.slot for source in self.sources} - {INTERACTIONS})
        return (*MADE, *published)
