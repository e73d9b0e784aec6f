"""``fedbench inspect``: one run from near: its curve, and what its rounds looked like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbench.cli.leaderboard import Folders, usual_folder

if TYPE_CHECKING:
    from fedbench.inspection import Inspected, Rounds

POINTS = 10
"""Evaluations that are printed, beside the best one."""
BEST = "*"
"""What marks the evaluation that is best on validation items."""
SAMPLED = ("er_5", "er_10", "hr_5", "hr_10", "ndcg_10", "hr_full_5", "hr_full_10", "ndcg_full_10", "recall_20")
FULL = ("er_5", "er_10", "val_hr_full_5", "hr_full_5", "ndcg_full_5", "hr_full_10")
"""What is printed of a curve, by the ranking that its protocol measures with."""


def inspect(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id or the beginning of it, or the path of its record.")
    ],
    results: Folders = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curve and the rounds, as .png, .svg or .pdf.")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Rounds whose uploads are drawn, such as 0,100,400.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, with the whole curve.")] = False,
) -> None:
    """Show one run: scenario, curve, and of runs with diagnostics the uploads and whom filters dropped."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import console, print_json
    from fedbench.inspection import find_run

    found = find_run(run, results or [usual_folder()])
    for name, reason in found.damaged.items():
        console(err=True).print(f"warning: {name} is no whole record and does not count: {reason}", soft_wrap=True)
    chosen = _rounds(rounds)
    if chosen is not None and out is None:
        from fedbench.errors import UserError

        raise UserError("--rounds says what to draw: add --out FILE.png.")
    if out is not None:
        from fedbench.inspection.picture import draw_run

        draw_run(found, out, chosen)
    if as_json:
        print_json(_data(found))
    else:
        _print(found)
    if out is not None:
        console(err=True).print(f"written to {out}", soft_wrap=True)


def _rounds(text: str | None) -> list[int] | None:
    from fedbench.errors import UserError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--rounds {text!r} must be numbers of rounds, such as 0,100,400.") from None


def _data(found: Inspected) -> dict[str, Any]:
    from dataclasses import asdict

    rounds, epochs = found.rounds, found.record["epochs_planned"]
    if rounds is None:
        return {"record": found.record, "diagnostics": None}
    import numpy as np

    return {
        "record": found.record,
        "diagnostics": {
            "every": rounds.every,
            "rounds": np.unique(rounds["round"]).tolist(),
            "uploads": [asdict(period) for period in rounds.summary(epochs)],
            "filters": [asdict(each) for each in rounds.filtering(epochs)],
        },
    }


def _print(found: Inspected) -> None:
    from fedbench.cli.output import console, count, duration, facts, table

    r, screen = found.record, console()
    done = f"{r['epochs_done']} of {count(r['epochs_planned'], 'epoch')}, {count(r['rounds'], 'round')}"
    screen.print(
        facts(
            [
                ("run", r["run_id"]),
                ("suite", r["suite"]),
                ("dataset", f"{r['dataset']}, split {r['split']}: {r['num_users']:,} users, {r['num_items']:,} items"),
                ("model", _with(r["model"], r["model_params"])),
                ("attack", _with(r["attack"], r["attack_params"])),
                ("malicious", f"{r['num_malicious']} clients ({r['malicious_ratio']:g} of the users)"),
                ("defense", _with(r["defense"], r["defense_params"])),
                ("protocol", r["protocol"]),
                ("target", f"{r['target']}: {_shortened(r['target_items'])}" if r["target_items"] else r["target"]),
                ("seed", r["seed"]),
                ("status", r["status"]),
                ("error", (r["error"] or "").partition("\n")[0]),
                ("done", f"{done}, {duration(r['seconds_total'])} on {r['device']}"),
            ]
        )
    )
    best = r["best_epoch"]
    headings, rows = curve_rows(r["curve"] or [], full=r["ranking"] == "full", best=best)
    if rows:
        screen.print()
        screen.print(table(headings, rows, right=headings))
    if rows and best is not None:
        screen.print(f"{BEST} best on validation items: quality is compared there.", soft_wrap=True)
    screen.print()
    if found.rounds is None:
        screen.print(
            "No diagnostics of rounds. `fedbench run SUITE --diagnostics` keeps them beside the record.", soft_wrap=True
        )
    else:
        _print_rounds(found.rounds, r["epochs_planned"])


def _print_rounds(rounds: Rounds, epochs: int) -> None:
    from fedbench.cli.output import console, percent, table

    screen = console()
    periods = rounds.summary(epochs)
    kept = f"{periods[0].rounds} rounds kept, one in {rounds.every}"
    screen.print(f"Uploads ({kept})", style="bold")
    headings: tuple[str, ...] = (
        "training",
        "rounds",
        "group",
        "uploads",
        "norm: median",
        "5 %",
        "95 %",
        "cosine: benign",
        "malicious",
    )
    uniform = any(period.benign.uniformity is not None for period in periods)
    headings += ("uniformity", "shift") if uniform else ()
    rows = []
    for period in periods:
        for name, group in (("benign", period.benign), ("malicious", period.malicious)):
            if not group.uploads:
                continue
            numbers = [_number(value, "{:.3g}") for value in (group.norm, group.low, group.high)]
            numbers += [_number(value, "{:+z.3f}") for value in (group.cosine_benign, group.cosine_malicious)]
            numbers += [_number(group.uniformity, "{:.5g}"), _number(group.shift, "{:+z.2f}")] if uniform else []
            first = (period.name, period.rounds) if name == "benign" or not period.benign.uploads else ("", "")
            rows.append((*first, name, f"{group.uploads:,}", *numbers))
    screen.print(table(headings, rows, right=[each for each in headings if each not in ("training", "group")]))
    notes = ["Cosine: mean similarity with the other benign, or malicious, uploads of the same round."]
    if uniform:
        notes.append("Shift: of the uniformity d_i from the round's benign mean, in benign standard deviations.")
        notes.append(
            "Both are taken within rounds and averaged over the rounds that have benign and malicious uploads."
        )
    screen.print(" ".join(notes), soft_wrap=True)
    screen.print()
    if not rounds.filters:
        screen.print("The defense has no filter, and no rule over whole updates, that drops clients.")
        return
    screen.print("Filters and rules that drop clients", style="bold")
    headings = ("filter", "training", "dropped", "precision", "recall", "benign dropped")
    lines = [
        (
            each.filter if each.period == "all" else "",
            each.period,
            f"{each.dropped:,}",
            percent(each.precision),
            percent(each.recall),
            percent(each.benign_dropped),
        )
        for each in rounds.filtering(epochs)
    ]
    screen.print(table(headings, lines, right=headings[2:]))


def curve_rows(
    curve: Sequence[dict[str, Any]], *, full: bool = False, best: int | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows of at most :data:`POINTS` evaluations, the first and the last among them, in percent.

    Args:
        curve: of the record. full: whether its protocol measures by full ranking. best: the epoch whose evaluation is best
            on validation items, which is printed too, and marked.
    """
    last = len(curve) - 1
    spread = {round(last * k / (POINTS - 1)) for k in range(POINTS)} if curve else set()
    chosen = sorted(spread | {n for n, point in enumerate(curve) if point["epoch"] == best})
    shown = [name for name in (FULL if full else SAMPLED) if any(point.get(name) is not None for point in curve)]
    titles = [_title(name) for name in shown]
    rows = [
        (
            f"{f'{BEST} ' if curve[n]['epoch'] == best else ''}{curve[n]['epoch']:.0f}",
            *(_number(value if (value := curve[n].get(name)) is None else 100 * value, "{:.2f}") for name in shown),
        )
        for n in chosen
    ]
    return ("epoch", *titles), rows


def _title(name: str) -> str:
    """``HR@10 full %`` of ``hr_full_10``, ``validation HR@5 full %`` of ``val_hr_full_5``."""
    measure, *kind, k = name.removeprefix("val_").split("_")
    items = "validation " if name.startswith("val_") else ""
    return f"{items}{measure.upper()}@{k}{' full' if 'full' in kind else ''} %"


def _with(name: str, params: str) -> str:
    """``name (a = 1, b = 2)`` from canonical JSON of parameters, or of those of each part of a chain."""
    import json

    flat: dict[str, Any] = {}
    values = json.loads(params or "{}")
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}" if len(values) > 1 else inner: each for inner, each in value.items()}
        else:
            flat[key] = value
    shown = ", ".join(f"{key} = {value}" for key, value in flat.items() if value is not None)
    return f"{name} ({shown})" if shown else name


def _shortened(items: Sequence[int]) -> str:
    return ", ".join(map(str, items[:8])) + (", ..." if len(items) > 8 else "")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
