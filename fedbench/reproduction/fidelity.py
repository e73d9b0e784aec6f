"""One page on every published value of every suite: how many agree, and why those that differ do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from fedbench.leaderboard.render import escape
from fedbench.reproduction.published import NOT_HERE, Cell
from fedbench.reproduction.report import Report
from fedbench.reproduction.tables import CELL_HEADINGS, cell_rows, markdown_table
from fedbench.scenarios.suite import Suite, matches
from fedbench.scenarios.suite_file import Reason

STATES = ("agree", "differ", "not told apart", "not run", "not here")
"""What a verdict comes to; ``not here``: it cannot be run."""


def state_of(cell: Cell) -> str:
    """One of :data:`STATES`. A run that diverged, or never gets where the published one did, differs."""
    verdict = cell.verdict
    if verdict.startswith("agrees"):
        return "agree"
    if verdict.startswith(NOT_HERE):
        return "not here"
    if verdict in ("not told apart", "not run"):
        return verdict
    return "not run" if verdict == "without twin" else "differ"


def reason_of(suite: Suite, cell: Cell) -> Reason | None:
    """The first reason in the suite's file that fits a value."""
    where = cell.expected.where
    for reason in suite.reason:
        if matches(reason.where, where) and fnmatchcase(cell.expected.metric, reason.metric):
            return reason
    return None


def fidelity_page(judged: Sequence[tuple[Suite, Report]], to_pages: str) -> str:
    """The page.

    Args:
        judged: suites with their published values and ours. to_pages: the folder of their pages, from the page's own.
    """
    judged = [(suite, report) for suite, report in judged if report.cells]
    total: Counter[str] = Counter()
    for _, report in judged:
        total.update(map(state_of, report.cells))
    lines = [
        "# Every published value beside ours",
        "",
        "Made by `fedbench pages --fidelity` of the suites and the records alone. A value counts once for each reading that a"
        " suite holds against it. What agrees and what is not told apart stands on the suites' pages; what differs stands"
        " here, with the reason from its suite and a run that shows it. One run has no interval: whatever is not near it"
        " differs.",
        "",
        f"**{_counted(total)}**",
        "",
    ]
    papers: dict[str, list[tuple[Suite, Report]]] = {}
    for suite, report in judged:
        papers.setdefault(suite.paper, []).append((suite, report))
    for paper, own in papers.items():
        lines += [f"## {escape(paper)}", "", "| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
        lines += [*_counts(own, to_pages), ""]
        rows = [row for suite, report in own for row in _differing(suite, report)]
        if rows:
            lines += ["What differs:", "", *markdown_table((*_WHAT, "why", "run"), rows)]
    return "\n".join(lines).rstrip() + "\n"


_HEADINGS = ("printed in", "suite", "values", *STATES, "differ on one run")
_WHAT = ("suite", *CELL_HEADINGS[:4], "n")


def _counted(total: Counter[str]) -> str:
    """Of how many values what is known, in words."""
    here = sum(total.values()) - total["not here"]
    shares = ", ".join(f"{total[state]} {state} ({100 * total[state] / max(here, 1):.0f} %)" for state in STATES[:4])
    return f"{sum(total.values())} values: {total['not here']} cannot be run here; of the other {here}, {shares}."


def _counts(own: Sequence[tuple[Suite, Report]], to_pages: str) -> Iterator[str]:
    """Rows of Markdown: one for each source of each suite."""
    for suite, report in own:
        for source in dict.fromkeys(cell.expected.source for cell in report.cells):
            cells = [cell for cell in report.cells if cell.expected.source == source]
            found = Counter(map(state_of, cells))
            once = sum(state_of(cell) == "differ" and cell.n <= 1 for cell in cells)
            numbers = [len(cells), *(found[state] for state in STATES), once]
            link = f"[{suite.name}]({to_pages}/{suite.name}.md)"
            yield "| " + " | ".join([escape(source), link, *map(str, numbers)]) + " |"


def _differing(suite: Suite, report: Report) -> Iterator[tuple[str, ...]]:
    for cell, row in zip(report.cells, cell_rows(report), strict=True):
        reason = reason_of(suite, cell)
        if state_of(cell) == "differ":
            said = (reason.why, reason.run) if reason is not None else ("no reason is given", "-")
            yield (suite.name, *row[:4], row[5], *said)
