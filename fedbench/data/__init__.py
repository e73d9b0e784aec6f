"""Datasets: the catalogue, download and import, parsing, splits, and the embedded synthetic ones.

Everything here is NumPy and Arrow (and Pillow, where image files are read); nothing imports torch. The way of the
data: files -> ``Table`` (parsed, untouched) -> ``Split`` (divided, cleaned or not, with a report of what was found).
Parsed tables are cached as parquet, and so are decoded images of the items (``Pictures``).
"""

from fedbench.data.catalogue import DatasetCard
from fedbench.data.contributed import DATASETS, Dataset
from fedbench.data.datasets import ENTRIES
from fedbench.data.filters import Filters
from fedbench.data.images import has_pictures, load_pictures, picture_facts
from fedbench.data.importing import Imported, import_dataset, read_import
from fedbench.data.load import load_split, resolve
from fedbench.data.names import Picks
from fedbench.data.obtain import get
from fedbench.data.pictures_files import looks_like_images
from fedbench.data.pictures_get import get_images
from fedbench.data.pictures_import import ImportedImages, import_images
from fedbench.data.records import Duplicates, Pairs, Pictures, Report, Split

__all__ = [
    "DATASETS",
    "ENTRIES",
    "Dataset",
    "DatasetCard",
    "Duplicates",
    "Filters",
    "Imported",
    "ImportedImages",
    "Pairs",
    "Picks",
    "Pictures",
    "Report",
    "Split",
    "get",
    "get_images",
    "has_pictures",
    "import_dataset",
    "import_images",
    "load_pictures",
    "load_split",
    "looks_like_images",
    "picture_facts",
    "read_import",
    "resolve",
]
