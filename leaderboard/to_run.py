"""What of the standard suites is still to be run, and how long it takes: ``python leaderboard/to_run.py`` writes TO-RUN.md.

The data must be at hand, for which doses a ladder asks for depends on how many users a dataset has.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedbench.data.load import resolve
from fedbench.runs.plan import Run, make_plan
from fedbench.runs.results import scan
from fedbench.scenarios.suite import load_suite

HERE = Path(__file__).parent
SUITES = ("core", "core-defenses", "core-one-target", "adaptive", "demote", "core-untargeted", "core-visual")
HEAD = """# What is still to be run

Made by `leaderboard/to_run.py`. Nothing here failed: these runs wait for processor time, and the command beside each line
runs them, resuming where it was (with `--results leaderboard/results` beside what is published). Hours are those of one
process on one core, from the seconds that such runs took on this dataset or, with ~, on another one, by the number of
interactions. Of ladders of doses, `at most` counts those that are run only where exposure rises. Runs that more than one
suite names are counted in each.

| suite | dataset | model | variant | there | to run | at most | hours | command |
|---|---|---|---|---|---|---|---|---|
"""


def lines(suite: str) -> Iterator[str]:
    """A line for every dataset, model and variant of a suite that lacks runs."""
    loaded = load_suite(suite)
    variants = sorted({name for each in loaded.scenarios for name in each.variants}) or [""]
    places = sorted({(each.scenario.dataset, each.scenario.model) for each in loaded.scenarios})
    for dataset, model in places:
        for variant in variants:
            only = f"dataset={dataset},model={model}" + (f",variant={variant}" if variant else "")
            named = [
                each for each in loaded.scenarios if (each.scenario.dataset, each.scenario.model) == (dataset, model)
            ]
            if variant and not any(variant in each.variants for each in named):
                continue  # no such scenario
            plan = make_plan(loaded.plan([only]), HERE / "results")
            if plan.todo:
                hours, about = expected(plan.todo, plan.seconds)
                most = f"+{plan.open_doses:,}" if plan.open_doses else ""
                shown = "unknown" if hours is None else f"{'~' if about else ''}{hours:.1f}"
                command = f"`fedbench run {suite} --only {only}`"
                counts = f"{len(plan.kept):,} | {len(plan.todo):,} | {most}"
                yield f"| {suite} | {dataset} | {model} | {variant} | {counts} | {shown} | {command} |"


def expected(runs: Sequence[Run], seconds: Mapping[Run, float | None]) -> tuple[float | None, bool]:
    """Hours of ``runs``, and whether some are taken from other datasets, attacks or defenses; None where nothing is known."""
    past = epochs_seconds()
    total, about = 0.0, False
    for run in runs:
        found = seconds[run]
        if found is None:
            about, scenario = True, run.scenario
            names = (scenario.model, scenario.attack, scenario.defense)
            usual = past.get(names) or past.get((names[0], "", names[2])) or past.get((names[0], "", ""))
            if usual is None:
                return None, True
            found = usual * scenario.resolved.protocol.epochs * size(scenario.dataset)
        total += found
    return total / 3600, about


@functools.cache
def epochs_seconds() -> dict[tuple[str, str, str], float]:
    """Seconds of an epoch and an interaction, median over the records: by model, attack and defense, and parts of these."""
    found: dict[tuple[str, str, str], list[float]] = {}
    table = scan([HERE / "results"], curves=False).table
    names = ("model", "attack", "defense", "status", "seconds_total", "epochs_planned", "num_interactions")
    for model, attack, defense, status, seconds, epochs, interactions in zip(
        *(table[name].to_pylist() for name in names), strict=True
    ):
        if status == "ok":
            for key in ((model, attack, defense), (model, "", defense), (model, "", "")):
                found.setdefault(key, []).append(seconds / epochs / interactions)
    return {key: statistics.median(values) for key, values in found.items()}


@functools.cache
def size(dataset: str) -> int:
    """Interactions of a dataset, by its card."""
    return resolve(dataset).interactions


def main() -> None:
    """Write the page."""
    rows = [line for suite in SUITES for line in lines(suite)]
    (HERE / "TO-RUN.md").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
