"""A page for each suite, of its file and the records alone: what it is, how to run it, what was run, published values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedbench.entries.cards import Goal
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.ranking import grouped
from fedbench.leaderboard.render import escape
from fedbench.reproduction import Report, compare, curve_section, markdown_table, published_section
from fedbench.scenarios.suite import Planned, Suite, matrix_of

NAMED = 8
"""Scenarios that are named one by one where only some of a kind are not run."""
BOARDS = {
    "targeted": ("LEADERBOARD.md", "targeted attacks"),
    "untargeted": ("UNTARGETED.md", "untargeted attacks"),
    "visual": ("VISUAL.md", "attacks where images are read"),
    "demotion": ("DEMOTION.md", "attacks that demote"),
}
"""Leaderboards above the pages, by the track of a suite's attacks."""

Statuses = Mapping[tuple[str, int], str]


@dataclass(frozen=True)
class Page:
    """A suite's page and its line of the index.

    Attributes:
        text: Markdown. report: the published values and ours.
        there, runs: runs with a record, and those that the suite has.
    """

    name: str
    title: str
    text: str
    report: Report
    there: int
    runs: int


def make_page(suite: Suite, database: Database, folder: Path) -> Page:
    """The page of a suite.

    Args:
        suite: which. database: the records. folder: of the page; a picture beside it, and leaderboards above
            it, are linked.
    """
    planned = suite.plan()
    rows = database.rows("select scenario_id, seed, status from runs")
    statuses: Statuses = {(row["scenario_id"], row["seed"]): row["status"] for row in rows}
    wanted = [(each.scenario.id, seed) for each in planned for seed in each.seeds]
    there = sum(run in statuses for run in wanted)
    report = compare(suite.title, suite.paper, planned, suite.expected, database)
    lines = [f"# {escape(suite.title)}", ""]
    lines += [f"Suite `{suite.name}`, version {suite.version}.{f' {escape(suite.paper)}.' if suite.paper else ''}", ""]
    lines += [escape(" ".join(suite.description.split())), ""] if suite.description else []
    lines += _how_to_run(suite, planned)
    lines += [escape(f"Note: {text}") + "\n" for text in suite.warnings(planned)]
    lines += _matrix(planned)
    lines += _state(planned, statuses, there, len(wanted))
    lines += _boards(suite.name, planned, folder.parent) if not suite.expected else []
    lines += published_section(report)
    ran = replace(report, curves=[curve for curve in report.curves if curve.n or curve.diverged or curve.failed])
    if suite.expected and ran.curves:
        picture = folder / f"{suite.name}.png"
        lines += curve_section(ran, picture.name if picture.is_file() else None)
    text = "\n".join(lines).rstrip() + "\n"
    return Page(suite.name, suite.title, text, report, there, len(wanted))


def index(pages: Sequence[Page]) -> str:
    """The page that lists the others."""
    rows = [
        [
            f"[{page.name}]({page.name}.md)",
            escape(page.title),
            f"{page.there:,} of {page.runs:,}" if page.there else "not run yet",
            *_counts(page.report),
        ]
        for page in pages
    ]
    headings = ("suite", "what", "runs", "published values", "of them run", "agree", "not told apart")
    return "\n".join(
        [
            "# Suites",
            "",
            "Every suite that comes with fedbench: what it is, how to run it, and its published values beside ours. Made by"
            " `fedbench pages` of the records alone; what is not run yet is named as such.",
            "",
            "| " + " | ".join(headings) + " |",
            "|" + "---|" * len(headings),
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
        ]
    )


def _counts(report: Report) -> list[str]:
    """Published values that there are, that were run, that agree, and that are not told apart."""
    cells = report.count
    return [str(each) if cells else "-" for each in (cells, cells - report.missing, report.agree, report.open)]


def _how_to_run(suite: Suite, planned: Sequence[Planned]) -> list[str]:
    name, datasets = suite.name, list(dict.fromkeys(each.scenario.dataset for each in planned))
    commands = [f"fedbench run {name} --dry-run", f"fedbench run {name}"]
    if suite.expected:
        commands.append(f"fedbench reproduce {name} --out {name}.md")
    if len(datasets) > 1:
        commands.append(f"fedbench run {name} --only dataset={datasets[0]} --seeds 1")
    return ["## How to run it", "", *(f"    {command}" for command in commands), ""]


def _matrix(planned: Sequence[Planned]) -> list[str]:
    own = [each for each in planned if not each.twin]
    twins = len(planned) - len(own)
    runs = sum(len(each.seeds) for each in planned)
    rows = [(field, "; ".join(_text(value) for value in values)) for field, values in matrix_of(own).items()]
    also = f" and {twins:,} clean or undefended twins" if twins else ""
    return [
        "## Matrix",
        "",
        f"{len(own):,} scenarios{also}, {runs:,} runs; not every combination of these values is in it.",
        "",
        *markdown_table(("field", "values"), rows),
    ]


def _state(planned: Sequence[Planned], statuses: Statuses, there: int, runs: int) -> list[str]:
    """How much of the suite has records, by dataset and model; what has none is named."""
    lines = ["## What has been run", ""]
    if not there:
        return [*lines, "Not run yet.", ""]
    rows, lacking = [], []
    for own in grouped(planned, lambda each: (each.scenario.dataset, each.scenario.model)):
        place = (own[0].scenario.dataset, own[0].scenario.model)
        wanted = [(each.scenario.id, seed) for each in own for seed in each.seeds]
        found = [statuses[run] for run in wanted if run in statuses]
        missing = [each for each in own if not any((each.scenario.id, seed) in statuses for seed in each.seeds)]
        if not found:
            rows.append((*place, f"none of {len(own)}: not run yet", f"0 of {len(wanted)}", "-", "-"))
            continue
        counts = (f"{len(own) - len(missing)} of {len(own)}", f"{len(found)} of {len(wanted)}")
        rows.append((*place, *counts, str(found.count("diverged")), str(found.count("failed"))))
        if missing:
            some = "; ".join(_short(each) for each in missing[:NAMED])
            more = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            lacking.append(f"- {escape(f'{place[0]}, {place[1]}: {some}{more}')}.")
    headings = ("dataset", "model", "scenarios with a run", "runs", "diverged", "failed")
    lines += [f"{there:,} of {runs:,} runs have a record.", "", *markdown_table(headings, rows)]
    return [*lines, "Not run yet, where others are:", "", *lacking, ""] if lacking else lines


def _boards(name: str, planned: Iterable[Planned], above: Path) -> list[str]:
    """Links to the leaderboards ``above``: that of the suite's own name first."""
    tracks, own = {_track(each) for each in planned}, f"{name.upper()}.md"
    links = [f"[Leaderboard of this suite](../{own})"] if (above / own).is_file() else []
    links += [
        f"[Leaderboard of {what}](../{file})"
        for track, (file, what) in BOARDS.items()
        if (above / file).is_file() and track in tracks
    ]
    return [f"{'; '.join(links)}.", ""] if links else []


def _track(each: Planned) -> str:
    """The track that the attack of a scenario is ranked in; empty without an attack."""
    resolved = each.scenario.resolved
    goal = resolved.attack_class.card.goal
    if goal == Goal.NONE:
        return ""
    if goal == Goal.DEGRADE:
        return "untargeted"
    if goal == Goal.DEMOTE:
        return "demotion"
    return "visual" if resolved.model.reads_features else "targeted"


def _short(each: Planned) -> str:
    s = each.scenario
    under = "" if s.defense == "none" else f" under {s.defense}"
    ratio = f" at {100 * s.malicious_ratio:g} %" if s.malicious_ratio else ""
    variants = f" ({' + '.join(each.variants)})" if each.variants else ""
    return f"{s.attack}{under}{ratio}{variants}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
