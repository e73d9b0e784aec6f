"""What a comparison says: numbers, words, Markdown, plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbench.leaderboard.paired import ALPHA, Difference
from fedbench.leaderboard.render import escape
from fedbench.texts import count

NAMED = 6
"""Scenarios that are named one by one of those that one side lacks."""
HEADINGS = ("dataset", "model", "malicious", "defense", "A", "B", "A - B", "p", "runs", "smallest", "what they say")
OVERALL = "all"


@dataclass(frozen=True)
class Contrast:
    """One measure of both in one cell, or in all of them.

    Attributes:
        measure: what. dataset, model, ratio, defense: of the cell; :data:`OVERALL` and None where it is all of them.
        a, b: means in percent over scenarios of the mean over seeds, of the pairs. difference: paired, in points.
        p: of the difference; of a cell adjusted by Holm over the cells of the measure. resolution: the smallest difference
            that so many runs would find, in points; None where nothing varies.
    """

    measure: str
    dataset: str
    model: str
    ratio: float | None
    defense: str
    a: float
    b: float
    difference: Difference
    p: float | None
    resolution: float | None

    @property
    def overall(self) -> bool:
        """Whether it is over all cells."""
        return self.dataset == OVERALL

    @property
    def verdict(self) -> str:
        """What the pairs say, shortly."""
        d, runs = self.difference, self.difference.runs
        pairs = count(runs, "paired run")
        assert d.estimate is not None
        if self.p is None:
            return f"cannot tell from {pairs}"
        if self.p <= ALPHA and d.estimate:
            return f"{'A' if d.estimate > 0 else 'B'} is higher by {abs(d.estimate):.2f}"
        if not self.resolution:
            return f"equal in {pairs}" if not d.estimate else f"cannot tell: the same difference in {pairs} is no proof"
        if d.p is not None and d.p <= ALPHA:  # its interval, which is that of this cell alone, excludes 0
            return f"not significant among the cells (Holm; alone p {_equals(d.p)})"
        return f"no difference that {pairs} can show"

    @property
    def words(self) -> str:
        """The verdict, and what would have been seen."""
        if not self.resolution or (self.p is not None and self.p <= ALPHA and self.difference.estimate):
            return self.verdict
        return f"{self.verdict}; the smallest that would be found: {self.smallest} points"

    @property
    def smallest(self) -> str:
        """The resolution; shares have no differences above 100 points."""
        if not self.resolution:
            return "-"
        return "above 100" if self.resolution > 100 else "<0.1" if self.resolution < 0.05 else f"{self.resolution:.1f}"


@dataclass(frozen=True)
class Exact:
    """Runs that two sets of results share, number by number.

    Attributes:
        common: runs in both. differing: runs of which a metric at the end, at the best epoch or of the curve, or the status,
            is not the same bit for bit. largest: of all metrics, the largest difference, in points. metric, run: where.
    """

    common: int
    differing: list[str]
    largest: float
    metric: str
    run: str

    @property
    def words(self) -> str:
        """In a sentence."""
        if not self.differing:
            return f"All metrics of the {count(self.common, 'run')} in both agree bit for bit."
        verb = "differs" if len(self.differing) == 1 else "differ"
        differ = f"{len(self.differing):,} of the {count(self.common, 'run')} in both {verb}"
        most = f"by at most {self.largest:.4g} points ({self.metric} of {self.run})"
        rest = "; the others agree bit for bit" if len(self.differing) < self.common else ""
        return f"{differ}, {most if self.metric else 'in curve or status alone'}{rest}."


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison says.

    Attributes:
        kind: ``results``, ``attacks`` or ``defenses``. a, b: what the two are called. k: of the metrics.
        contrasts: of every measure, first over all cells. only_a, only_b: runs that have no counterpart of the other.
        lost: sentences on runs that diverged or failed. about, exact: for results, where they ran, and whether numbers agree.
    """

    kind: str
    a: str
    b: str
    k: int
    contrasts: list[Contrast]
    only_a: list[str]
    only_b: list[str]
    lost: list[str]
    about: list[str] = field(default_factory=list)
    exact: Exact | None = None

    @property
    def sentences(self) -> list[str]:
        """What stands beside the tables."""
        out = [*self.about, *([self.exact.words] if self.exact else []), *self.lost]
        for name, only in ((f"A, {self.a}", self.only_a), (f"B, {self.b}", self.only_b)):
            if only:
                more = f"; and {len(only) - NAMED} more" if len(only) > NAMED else ""
                out.append(f"Only in {name}: {count(len(only), 'run')}: {'; '.join(only[:NAMED])}{more}.")
        return out

    @property
    def note(self) -> str:
        """How to read the tables."""
        return (
            "Percent; differences in points, A minus B, over pairs of the same scenario and seed, each with its 95 % interval"
            " (t, over the means of seeds, which are what was drawn anew). p: paired t test; those of cells adjusted by Holm."
            " smallest: the difference that so many seeds would show. broken: diverged, or HR@10 fell below that of"
            " recommending by popularity. Between attacks such a run has an ER of 0, between defenses that of the undefended"
            " run, if its own is not higher; one that diverged has an HR of 0, and earns an attack that degrades nothing."
        )


def rows_of(contrasts: Sequence[Contrast]) -> list[tuple[str, ...]]:
    """Lines under :data:`HEADINGS`."""
    out: list[tuple[str, ...]] = []
    for each in contrasts:
        d = each.difference
        bounds = "" if d.low is None or d.high is None else f" [{d.low:+.2f}, {d.high:+.2f}]"
        out.append(
            (
                each.dataset,
                each.model,
                OVERALL if each.overall else "" if each.ratio is None else f"{100 * each.ratio:g} %",
                each.defense,
                f"{each.a:.2f}",
                f"{each.b:.2f}",
                f"{d.estimate:+.2f}{bounds}",
                "-" if each.p is None else _equals(each.p).removeprefix("= ").replace("< ", "<"),
                str(d.runs),
                each.smallest,
                each.verdict,
            )
        )
    return out


def _equals(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def told_once(contrasts: Sequence[Contrast]) -> tuple[str, frozenset[str]]:
    """What all cells of a measure share, as ``dataset ml-100k, model mf``, and the headings that say nothing else.

    Args:
        contrasts: of one measure, with that over all cells.
    """
    shared, headings = [], set()
    for n, heading in enumerate(HEADINGS[: HEADINGS.index("A")]):
        values = {row[n] for row, each in zip(rows_of(contrasts), contrasts, strict=True) if not each.overall}
        if len(values) < 2:
            headings.add(heading)
            shared += [f"{heading} {value}" for value in values if value]
    return ", ".join(shared), frozenset(headings)


def by_measure(contrasts: Sequence[Contrast]) -> dict[str, list[Contrast]]:
    """The contrasts of each measure."""
    out: dict[str, list[Contrast]] = {}
    for each in contrasts:
        out.setdefault(each.measure, []).append(each)
    return out


def markdown(found: Comparison) -> str:
    """The comparison as a Markdown document; names are escaped."""
    out = [f"# {escape(f'{found.a} against {found.b}')}", "", escape(f"A: {found.a}. B: {found.b}. {found.note}"), ""]
    out += [f"- {escape(text)}" for text in found.sentences]
    for measure, contrasts in by_measure(found.contrasts).items():
        out += [
            "",
            f"## {escape(measure)}",
            "",
            escape(f"{contrasts[0].words}."),
            "",
            "| " + " | ".join(HEADINGS) + " |",
            "|" + "---|" * len(HEADINGS),
        ]
        out += ["| " + " | ".join(map(escape, row)) + " |" for row in rows_of(contrasts)]
    return "\n".join([*out, ""])


def plain(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data, with the words."""
    data = dataclasses.asdict(found)
    for each, contrast in zip(data["contrasts"], found.contrasts, strict=True):
        each["words"] = contrast.words
    return data
