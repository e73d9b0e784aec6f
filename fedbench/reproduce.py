"""Published tables beside ours: value, mean with prediction interval, difference, verdict, and the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.ranking import Estimate, clustered, mean_of
from fedbench.leaderboard.render import escape
from fedbench.suite import Expected, Planned, matches
from fedbench.suite_file import DEGRADATION, is_degradation

NEAR = {"hr": 2.0, "er": 10.0, "degradation": 5.0, "ndcg_degradation": 5.0}
"""Points within which a mean agrees with a published value that has no tolerance of its own; other metrics as HR."""
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Cell:
    """A published value and what our runs give.

    Attributes:
        published, mean, low, high: percent; low and high bound one new run with 95 % (None: fewer than two runs).
        n: runs with a score. verdict: ``agrees``, ``agrees (band)``, ``differs``, ``diverged``, ``without twin`` or
            ``not run``.
    """

    expected: Expected
    label: str
    published: float
    mean: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str


@dataclass(frozen=True)
class Curve:
    """How ER@K and HR@K went over training, mean over the runs of a scenario (or of several targets).

    Attributes:
        label: what it is of. epochs: of the evaluations. er, hr: percent. end: interval over targets and seeds.
        peak, tail: means over runs. n, scenarios: how many. failed, diverged: runs without a score.
    """

    label: str
    dataset: str
    model: str
    attack: str
    epochs: list[int]
    er: list[float]
    hr: list[float | None]
    end: Estimate | None
    median: float | None
    peak: float | None
    tail: float | None
    n: int
    scenarios: int
    diverged: int
    failed: int


@dataclass(frozen=True)
class Report:
    """Everything that the comparison of a suite says."""

    title: str
    paper: str
    cells: list[Cell]
    curves: list[Curve]


def compare(
    title: str, paper: str, planned: Sequence[Planned], expected: Iterable[Expected], database: Database
) -> Report:
    """Compare the records in ``database`` with the published values of a suite.

    Args:
        title, paper: of the suite. planned: its scenarios (after ``--only``). expected: its published values.
        database: the records.
    """
    runs: dict[str, list[Row]] = {}
    ids = list({own.id for each in planned for own in (each.scenario, each.scenario.clean)})
    for row in database.rows("select * from headline where list_contains(?, scenario_id) order by seed", [ids]):
        runs.setdefault(row["scenario_id"], []).append(row)
    cells = []
    for value in expected:
        own = [each for each in planned if matches(value.where, each.labels)]
        if own:
            wanted = {(each.scenario.id, seed) for each in own for seed in each.seeds}
            rows = [
                row
                for each in own
                for row in runs.get(each.scenario.id, [])
                if (row["scenario_id"], row["seed"]) in wanted
            ]
            cells.append(_cell(value, rows, runs))
    groups: dict[tuple[str, str, str, str, float, str], list[Planned]] = {}
    for each in planned:
        s = each.scenario
        if not each.twin:
            key = ("+".join(each.variants), s.dataset, s.model, s.attack, s.malicious_ratio, s.defense)
            groups.setdefault(key, []).append(each)
    curves = [_curve(key, each, runs) for key, each in groups.items()]
    return Report(title, paper, cells, curves)


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Bounds for one new run: ``mean +- t_(n-1) s sqrt(1 + 1/n)``; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def verdict(expected: Expected, values: Sequence[float]) -> str:
    """Whether our runs, in percent, agree with a published value.

    With a band: when the mean lies in it. Otherwise when the published value lies in the 95 % prediction interval, or
    within :data:`NEAR` of the mean, or within the value's own ``near`` where it has one.
    """
    mean = statistics.fmean(values)
    published = 100 * expected.value
    if expected.band is not None:
        inside = 100 * expected.band[0] - 1e-9 <= mean <= 100 * expected.band[1] + 1e-9
        return "agrees (band)" if inside else "differs"
    bounds = prediction_interval(values)
    if bounds is not None and bounds[0] <= published <= bounds[1]:
        return "agrees"
    if expected.near is not None:
        near = 100 * expected.near + 1e-9
    else:
        name = expected.metric.rpartition("_")[0]
        near = NEAR.get(name, NEAR.get(name.partition("_")[0], NEAR["hr"]))
    return "agrees" if abs(mean - published) <= near else "differs"


def _cell(expected: Expected, rows: Sequence[Row], runs: Mapping[str, Sequence[Row]]) -> Cell:
    where = {key: value for key, value in expected.where.items() if not (key == "defense" and value == "none")}
    label = " ".join(str(value) for value in where.values() if not isinstance(value, dict | list))
    ended = [row for row in rows if row["status"] == "ok"]
    values = [100 * value for row in ended if (value := _value(expected, row, runs)) is not None]
    if not values:
        state = "diverged" if any(row["status"] == "diverged" for row in rows) else "not run"
        if ended and is_degradation(expected.metric):
            state = "without twin"
        return Cell(expected, label, 100 * expected.value, None, None, None, 0, state)
    low, high = prediction_interval(values) or (None, None)
    return Cell(
        expected,
        label,
        100 * expected.value,
        statistics.fmean(values),
        low,
        high,
        len(values),
        verdict(expected, values),
    )


def _value(expected: Expected, row: Row, runs: Mapping[str, Sequence[Row]]) -> float | None:
    """What a run has of a published value; a degradation is relative to the clean twin of the same seed."""
    name, _, k = expected.metric.rpartition("_")
    if name not in DEGRADATION:
        return _statistic(expected, expected.metric, row)
    twins = (each for each in runs.get(row["clean_id"], ()) if each["seed"] == row["seed"] and each["status"] == "ok")
    twin, metric = next(twins, None), f"{DEGRADATION[name]}_{k}"
    attacked, clean = (None if each is None else _statistic(expected, metric, each) for each in (row, twin))
    return 1 - attacked / clean if attacked is not None and clean else None


def _statistic(expected: Expected, metric: str, row: Row) -> float | None:
    """The statistic of a run's metric that a published value is about."""
    epoch = row["best_epoch"] if expected.statistic == "best-validation" else None
    epoch = epoch if expected.at_epoch is None else expected.at_epoch
    if epoch is not None:
        return next((point[metric] for point in row["curve"] if point["epoch"] == epoch), None)
    if expected.statistic == "best-validation":
        return None
    if expected.statistic == "end":
        value: float | None = row[metric]
        return value
    points = [(point["epoch"], point[metric]) for point in row["curve"] if point[metric] is not None]
    if expected.statistic == "tail":
        points = [point for point in points if point[0] > 0.75 * row["epochs_planned"]]
        return statistics.fmean(value for _, value in points) if points else None
    return max((value for _, value in points), default=None)


def _curve(key: tuple[str, str, str, str, float, str], planned: Sequence[Planned], runs: dict[str, list[Row]]) -> Curve:
    variant, dataset, model, attack, ratio, defense = key
    every = [[row for row in runs.get(p.scenario.id, []) if row["seed"] in p.seeds] for p in planned]
    scored = [[row for row in own if row["status"] == "ok" and row["curve"]] for own in every]
    scored = [own for own in scored if own]
    flat = [row for own in scored for row in own]
    exposed = [own for own in ([row for row in own if row["er"] is not None] for own in scored) if own]
    shown = [row for own in exposed for row in own]
    by_epoch: dict[int, list[tuple[float | None, float | None]]] = {}
    for row in flat:
        hr = "hr_full_10" if row["ranking"] == "full" else "hr_10"
        for point in row["curve"]:
            by_epoch.setdefault(point["epoch"], []).append((_times100(point["er_10"]), _times100(point[hr])))
    epochs = sorted(epoch for epoch, points in by_epoch.items() if len(points) == len(flat))
    ers, hrs = ([[pair[n] for pair in by_epoch[epoch]] for epoch in epochs] for n in (0, 1))
    name = " ".join(
        part
        for part in (variant, dataset, model, attack, f"{100 * ratio:g} %", "" if defense == "none" else defense)
        if part
    )
    return Curve(
        name,
        dataset,
        model,
        attack,
        epochs,
        [value for values in ers if (value := mean_of(values)) is not None],
        [mean_of(values) for values in hrs],
        clustered([[100 * row["er"] for row in own] for own in exposed]) if exposed else None,
        statistics.median(100 * row["er"] for row in shown) if shown else None,
        mean_of(_times100(row["er_peak"]) for row in shown),
        mean_of(_times100(row["er_tail"]) for row in shown),
        len(flat),
        len(planned),
        sum(row["status"] == "diverged" for own in every for row in own),
        sum(row["status"] == "failed" for own in every for row in own),
    )


def _times100(value: float | None) -> float | None:
    return None if value is None else 100 * value


CELL_HEADINGS = ("where", "metric", "published", "ours", "95 % of one run", "n", "difference", "verdict")
CURVE_HEADINGS = (
    "what", "ER@10 over training", "25 %", "50 %", "75 %", "end", "median", "peak", "tail", "HR@10", "best HR@10",
    "runs", "diverged",
)  # fmt: skip


def cell_rows(report: Report) -> list[tuple[str, ...]]:
    """The published values, one line each."""
    rows: list[tuple[str, ...]] = []
    for cell in report.cells:
        note = f" [{cell.expected.note}]" if cell.expected.note else ""
        statistic = "" if cell.expected.statistic == "end" else f" {cell.expected.statistic}"
        digits = 2 if cell.expected.near is not None and cell.expected.near < 0.01 else 1
        band = ""
        if cell.low is not None and cell.high is not None:
            low = cell.low if is_degradation(cell.expected.metric) else max(cell.low, 0)
            band = f"{low:.{digits}f} to {min(cell.high, 100):.{digits}f}"
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


QUALITY_HEADINGS = ("what", "HR@10 over training", "25 %", "50 %", "75 %", "end", "best HR@10", "runs", "diverged")


def curve_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the curves, one line each: of ER@10 beside HR@10, or of HR@10 alone where nothing is promoted."""
    if any(curve.er for curve in report.curves) or not any(curve.epochs for curve in report.curves):
        return CURVE_HEADINGS, curve_rows(report)
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
    return QUALITY_HEADINGS, rows


def _quarters(epochs: Sequence[int]) -> list[int]:
    """Where the evaluations nearest to a quarter, half and three quarters of the training stand."""
    return [min(range(len(epochs)), key=lambda i: abs(epochs[i] - epochs[-1] * q)) for q in (0.25, 0.5, 0.75)]


def curve_rows(report: Report) -> list[tuple[str, ...]]:
    """The curves of ER@10 and HR@10, one line each."""
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
    agree = sum(cell.verdict.startswith("agrees") for cell in report.cells)
    missing = sum(cell.verdict == "not run" for cell in report.cells)
    metrics = {cell.expected.metric for cell in report.cells}
    more = ", 5 points (degradation)" if any(map(is_degradation, metrics)) else ""
    own = " (or within the value's own tolerance)" if any(cell.expected.near for cell in report.cells) else ""
    ran = len(report.cells) - missing
    first = f"{agree} of {ran} published values agree"
    if missing:
        first = f"{agree} of the {ran} published values that were run agree; {missing} of {len(report.cells)} are not run yet"
    return [
        "## Published against ours",
        "",
        f"{first}. To agree: our mean lies in the band that re-runs of the published"
        " code give, or the published value lies in the 95 % interval for one new run of ours, or within 2 points (HR)"
        f"{more} or 10 points (ER) of our mean{own}. Percent.",
        "",
        *markdown_table(CELL_HEADINGS, cell_rows(report)),
    ]


def curve_section(report: Report, picture: str | None = None) -> list[str]:
    """Lines of Markdown: the curves, and a picture of them."""
    out = ["## Curves", ""]
    headings, rows = curve_table(report)
    exposed = headings is CURVE_HEADINGS
    if picture:
        out += [f"![{'ER@10 and HR@10' if exposed else 'HR@10'} over epochs]({picture})", ""]
    return [
        *out,
        "Mean ER@10 over the runs, from the first to the last evaluation, and at a quarter, half and three quarters of the"
        " training; the interval at the end is over targets (over seeds, for one target). Percent."
        if exposed
        else "Mean HR@10 over the runs, from the first to the last evaluation (bars up to the highest of all), and at a"
        " quarter, half and three quarters of the training. Percent.",
        "",
        *markdown_table(headings, rows),
    ]


def draw(report: Report, path: str) -> None:
    """ER@10 and HR@10 over epochs, a panel for each dataset and model and a line for each attack, as PNG or SVG.

    Needs matplotlib (``pip install fedbench[plot]``).
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in report.curves:
        if curve.epochs:
            variant = curve.label.split(" ")[0] if not curve.label.startswith(curve.dataset) else ""
            panels.setdefault((variant, curve.dataset, curve.model), []).append(curve)
    exposed = any(curve.er for curve in report.curves)
    figure = Figure(figsize=(11 if exposed else 7, 2.8 * max(1, len(panels))), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 2 if exposed else 1, squeeze=False)
    for row, (name, curves) in zip(axes, panels.items(), strict=False):
        title = " ".join(part for part in name if part)
        for number, curve in enumerate(curves):
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            style["label"] = curve.label.removeprefix(f"{title} ")
            if exposed:
                row[0].plot(curve.epochs, curve.er or [math.nan] * len(curve.epochs), **style)
            row[-1].plot(curve.epochs, [math.nan if value is None else value for value in curve.hr], **style)
        if exposed:
            row[0].set(ylabel="ER@10 (%)", ylim=(-2, 102), xlabel="epoch")
        row[-1].set(ylabel="HR@10 (%)", xlabel="epoch")
        row[0].set_title(title)
        row[0].legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=110)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown, cells escaped."""
    return [
        "| " + " | ".join(map(escape, headings)) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(map(escape, row)) + " |" for row in rows),
        "",
    ]


def _percent(value: float, digits: int) -> str:
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.{digits}f}"
