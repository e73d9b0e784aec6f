"""A report as tables, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fedbench.leaderboard.render import escape
from fedbench.reproduction.report import Report
from fedbench.scenarios.suite_file import ONSET, SECONDS, is_degradation, is_share

BARS = "▁▂▃▄▅▆▇█"
CELL_HEADINGS = ("where", "metric", "published", "ours", "95 % of one run", "n", "difference", "verdict")


def cell_rows(report: Report) -> list[tuple[str, ...]]:
    """The published values, one line each."""
    rows: list[tuple[str, ...]] = []
    for cell in report.cells:
        note = f" [{cell.expected.note}]" if cell.expected.note else ""
        plain = cell.expected.statistic == "end" or cell.expected.metric.endswith(ONSET)
        statistic = "" if plain else f" {cell.expected.statistic}"
        share = is_share(cell.expected.metric)
        digits = 2 if share and cell.expected.near is not None and cell.expected.near < 0.01 else 1
        digits = 4 if cell.expected.metric.endswith(("_kl", SECONDS)) else digits
        band = ""
        if cell.low is not None and cell.high is not None:
            low = cell.low if is_degradation(cell.expected.metric) else max(cell.low, 0)
            band = f"{low:.{digits}f} to {min(cell.high, 100) if share else cell.high:.{digits}f}"
        rows.append(
            (
                cell.label + note,
                cell.expected.metric + statistic,
                _percent(cell.published, digits),
                "-" if cell.mean is None else _percent(cell.mean, digits),
                band or "-",
                str(cell.n),
                "-" if cell.mean is None else f"{cell.mean - cell.published:+.{digits}f}",
                cell.verdict,
            )
        )
    return rows


def promoted(report: Report) -> bool:
    """Whether the curves are of ER@K beside HR@K; of HR@K alone where nothing is promoted."""
    return any(curve.er for curve in report.curves) or not any(curve.epochs for curve in report.curves)


def curve_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the curves, one line each."""
    er, hr = f"ER@{report.k}", f"HR@{min(report.k, 20)}"
    quarters = ("25 %", "50 %", "75 %")
    if promoted(report):
        more = ("end", "median", "peak", "tail", hr, f"best {hr}", "runs", "diverged")
        return ("what", f"{er} over training", *quarters, *more), curve_rows(report)
    headings = ("what", f"{hr} over training", *quarters, "end", f"best {hr}", "runs", "diverged")
    highest = max((value for curve in report.curves for value in curve.hr if value is not None), default=0.0)
    rows = []
    for curve in report.curves:
        points = [(value, epoch) for value, epoch in zip(curve.hr, curve.epochs, strict=True) if value is not None]
        if not points:
            rows.append((curve.label, *["-"] * 6, str(curve.n), str(curve.diverged)))
            continue
        best = max(points, key=lambda point: point[0])
        nearest = _quarters([epoch for _, epoch in points])
        rows.append(
            (
                curve.label,
                sparkline([100 * value / highest if highest else 0.0 for value, _ in points]),
                *(f"{points[n][0]:.2f}" for n in nearest),
                f"{points[-1][0]:.2f}",
                f"{best[0]:.2f} @ {best[1]}",
                str(curve.n),
                str(curve.diverged),
            )
        )
    return headings, rows


def _quarters(epochs: Sequence[int]) -> list[int]:
    """Where the evaluations nearest to a quarter, half and three quarters of the training stand."""
    return [min(range(len(epochs)), key=lambda i: abs(epochs[i] - epochs[-1] * q)) for q in (0.25, 0.5, 0.75)]


def curve_rows(report: Report) -> list[tuple[str, ...]]:
    """The curves of ER@K and HR@K, one line each."""
    rows = []
    for curve in report.curves:
        if not curve.epochs:
            rows.append((curve.label, *["-"] * 10, str(curve.n), str(curve.diverged)))
            continue
        nearest = _quarters(curve.epochs)
        bounds = (
            ""
            if curve.end is None or curve.end.low is None or curve.end.high is None
            else f" [{max(curve.end.low, 0):.1f}, {min(curve.end.high, 100):.1f}]"
        )
        points = [(value, epoch) for value, epoch in zip(curve.hr, curve.epochs, strict=True) if value is not None]
        best = max(points, key=lambda point: point[0], default=None)
        rows.append(
            (
                curve.label,
                sparkline(curve.er) or "-",
                *(f"{curve.er[n]:.1f}" if curve.er else "-" for n in nearest),
                "-" if curve.end is None else f"{curve.end.mean:.1f}{bounds}",
                "-" if curve.median is None else f"{curve.median:.1f}",
                "-" if curve.peak is None else f"{curve.peak:.1f}",
                "-" if curve.tail is None else f"{curve.tail:.1f}",
                f"{points[-1][0]:.1f}" if points else "-",
                f"{best[0]:.1f} @ {best[1]}" if best else "-",
                str(curve.n),
                str(curve.diverged),
            )
        )
    return rows


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Percent values as a line of bars, at most ``width`` of them."""
    step = max(1, math.ceil(len(values) / width))
    picked = list(values)[step - 1 :: step] or list(values)
    return "".join(BARS[min(7, max(0, int(value / 100 * 8)))] for value in picked)


def markdown(report: Report, picture: str | None = None) -> str:
    """The report as a Markdown document."""
    lines = [f"# {escape(report.title)}", "", escape(report.paper), ""]
    return "\n".join([*lines, *published_section(report), *curve_section(report, picture)])


def published_section(report: Report) -> list[str]:
    """Lines of Markdown: every published value with ours and the verdict; none where nothing is published."""
    if not report.cells:
        return []
    metrics = {cell.expected.metric for cell in report.cells}
    more = ", 5 points (degradation)" if any(map(is_degradation, metrics)) else ""
    own = " (or within the value's own tolerance)" if any(cell.expected.near for cell in report.cells) else ""
    units = "" if all(is_share(metric) for metric in metrics) else f" but for {_units(metrics)}"
    return [
        "## Published against ours",
        "",
        f"{report.tally()}. To agree: our mean lies in the band that re-runs of the published code give, or within 2 points"
        f" (HR){more} or 10 points (ER) of the published value{own}. Not told apart: farther off, but in the 95 % interval"
        f" for one new run of ours. Percent{units}.",
        "",
        *markdown_table(CELL_HEADINGS, cell_rows(report)),
    ]


def _units(metrics: Iterable[str]) -> str:
    """What is not in percent, in words."""
    onsets = ["onsets, the epochs that the attack needs to show a target to 99 % of the users"]
    spreads = ["standard deviations over the images (blur, brisque)"]
    seconds = ["seconds of a round (defense_seconds)"]
    divergences = ["divergences (embedding_kl, gradient_kl)"]
    there = [metric for metric in metrics if not is_share(metric)]
    return " and ".join(
        onsets * any(metric.endswith(ONSET) for metric in there)
        + spreads * any(metric.endswith("_std") for metric in there)
        + seconds * any(metric == SECONDS for metric in there)
        + divergences * any(metric.endswith("_kl") for metric in there)
    )


def curve_section(report: Report, picture: str | None = None) -> list[str]:
    """Lines of Markdown: the curves, and a picture of them."""
    er, hr = f"ER@{report.k}", f"HR@{min(report.k, 20)}"
    what = f"{er} and {hr}" if promoted(report) else hr
    quarters = "at a quarter, half and three quarters of the training"
    if promoted(report):
        text = (
            f"Mean {er} over the runs, from the first to the last evaluation, and {quarters}; the interval at the end is over"
            " targets (over seeds, for one target). Percent."
        )
    else:
        text = (
            f"Mean {hr} over the runs, from the first to the last evaluation (bars up to the highest of all), and {quarters}."
            " Percent."
        )
    image = [f"![{what} over epochs]({picture})", ""] if picture else []
    return ["## Curves", "", *image, text, "", *markdown_table(*curve_table(report))]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown, cells escaped."""
    return [
        "| " + " | ".join(map(escape, headings)) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(map(escape, row)) + " |" for row in rows),
        "",
    ]


def _percent(value: float, digits: int) -> str:
    return f"{value:.{max(2, digits) if abs(value) < 1 else digits}f}"
