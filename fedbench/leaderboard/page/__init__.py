"""The leaderboard as one page: a file that needs no network, with every number computed before it is opened."""

from __future__ import annotations

from fedbench.leaderboard.page.build import page_html, write_page
from fedbench.leaderboard.page.data import page_data
from fedbench.leaderboard.page.runs import curve_metrics

__all__ = ["curve_metrics", "page_data", "page_html", "write_page"]
