"""Datasets: the catalogue, download and import, parsing, splits, and the embedded synthetic ones.

Everything here is NumPy and Arrow; nothing imports torch.
"""

from fedbench.data.load import load_split
from fedbench.data.records import Duplicates, Pairs, Report, Split

__all__ = ["Duplicates", "Pairs", "Report", "Split", "load_split"]
