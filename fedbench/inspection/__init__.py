"""What ``fedbench inspect`` says of one run: its record, and its diagnostics of rounds where there are any."""

from __future__ import annotations

from fedbench.inspection.finding import Inspected, find_run
from fedbench.inspection.rounds import Filtering, Group, Period, Rounds, read_rounds

__all__ = ["Filtering", "Group", "Inspected", "Period", "Rounds", "find_run", "read_rounds"]
