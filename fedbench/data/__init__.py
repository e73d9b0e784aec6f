"""Datasets: the catalogue, download and import, parsing, splits, and the embedded synthetic ones.

Everything here is NumPy and Arrow; nothing imports torch. The way of the data: files -> ``Table`` (parsed, untouched)
-> ``Split`` (divided, cleaned or not, with a report of what was found). Parsed tables are cached as parquet.
"""

from fedbench.data.catalogue import DatasetCard
from fedbench.data.contributed import DATASETS, Dataset
from fedbench.data.datasets import ENTRIES
from fedbench.data.importing import Imported, import_dataset
from fedbench.data.load import load_split, resolve
from fedbench.data.obtain import get
from fedbench.data.records import Duplicates, Pairs, Report, Split

__all__ = [
    "DATASETS",
    "ENTRIES",
    "Dataset",
    "DatasetCard",
    "Duplicates",
    "Imported",
    "Pairs",
    "Report",
    "Split",
    "get",
    "import_dataset",
    "load_split",
    "resolve",
]
