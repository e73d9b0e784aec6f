"""How fedbench grows: a million users on this machine, and cost over interactions. Writes leaderboard/SCALE.md.

    python leaderboard/scale.py [--threads N]

Each measurement is a process of its own, whose peak memory is its own; an hour in all. Needs 16 GiB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent
HUGE = "longtail-huge"
USERS = (2_000, 20_000, 200_000, 1_000_000, 2_000_000)
"""Of about 50 interactions each: 10^5 to 10^8, all with 200,000 items."""
ATTACKS = ("none", "explicit-boost", "pieck-uea", "a-hum")
DEFENSES = ("none", "norm-bound", "median", "multi-krum")
SAMPLE = 20_000
"""Users who are measured for all."""
ROUNDS = 60
"""Of each attack under each defense, after as many that are not timed."""
TRAINED = 8
"""Epochs after which a full evaluation is timed once more: bounds hold better in a trained model."""


WANTED = {"setup": 60, "epoch": 10, "evaluation": 120, "evaluation_trained": 120, "memory": 8}
"""Seconds, and GiB, at most."""


class Clock:
    """Seconds of the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def seconds(self, name: str) -> dict[str, float]:
        """As ``name`` and ``name``_cpu."""
        wall, cpu = self._begin
        return {name: time.perf_counter() - wall, f"{name}_cpu": time.process_time() - cpu}


def federation(users: int, attack: str = "none", defense: str = "none", ratio: float = 0.0):  # type: ignore[no-untyped-def]
    """A federation in training, its split, and the seconds that it took to make the data."""
    import torch

    from fedbench import Scenario
    from fedbench.data.longtail import SHAPES, generate
    from fedbench.data.splits import make_split
    from fedbench.federation.simulation import Federation
    from fedbench.runs.run import keep_freed_memory
    from fedbench.runs.task import task_of

    keep_freed_memory()
    clock = Clock()
    table = generate(replace(SHAPES[HUGE], num_users=users))
    generated = clock.seconds("generate")
    split = make_split(HUGE, "leave-one-out", table, duplicates="drop", seed=0)
    del table
    scenario = Scenario(HUGE, "mf", attack, defense, ratio, protocol="icde24", target="random:0")
    resolved = scenario.resolved
    task = task_of(scenario, split, torch.device("cpu"))
    made = Federation(task, resolved.model, resolved.attack(), resolved.defense(), ratio, resolved.protocol, 0)
    return made, split, generated


def million(users: int, full: bool) -> dict[str, float]:
    """Set-up, an epoch, and evaluations of a run without an attack."""
    from fedbench.evaluation.measurement import Measurement

    clock = Clock()
    made, split, out = federation(users)
    measure = Measurement(made, split)
    out |= {"interactions": len(split.train), **clock.seconds("setup"), "memory_setup": memory()}
    out |= {f"setup{part}": out[f"setup{part}"] - out[f"generate{part}"] for part in ("", "_cpu")}
    clock = Clock()
    made.train_epoch()
    out |= {**clock.seconds("epoch"), "rounds": made.round}
    if full:
        clock = Clock()
        measure()
        out |= clock.seconds("evaluation")
        for _ in range(TRAINED - 1):
            made.train_epoch()
        clock = Clock()
        found = measure()
        out |= {**clock.seconds("evaluation_trained"), "hr_10": found["hr_10"], "memory": memory()}
        del measure
        made.population.protocol = made.protocol.model_copy(update={"evaluate_users": SAMPLE})
        made.population.evaluated_users = made.population._measured(made.population.evaluated_users >= 0)
        measure = Measurement(made, split)
        clock = Clock()
        found = measure()
        out |= {**clock.seconds("evaluation_sampled"), "sampled_hr_10": found["hr_10"], **measure.sampling_errors()}
    return {"memory": memory(), **out}


def rounds(attack: str, defense: str) -> dict[str, float]:
    """A round with 1 % malicious clients."""
    made, *_ = federation(USERS[3], attack, defense, 0.0 if attack == "none" else 0.01)
    cohorts = list(itertools.islice(made.population.cohorts(1), 2 * ROUNDS))
    made.population.cohorts = lambda epoch: cohorts[(epoch - 1) * ROUNDS : epoch * ROUNDS]
    made.train_epoch()
    clock = Clock()
    made.train_epoch()
    return {name: value / ROUNDS for name, value in clock.seconds("round").items()} | {"memory": memory()}


def memory() -> float:
    """GiB, the peak of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(threads: int, what: str, *arguments: str) -> dict[str, float]:
    """What a process of its own measures, on so many threads."""
    command = [sys.executable, __file__, "--threads", str(threads), what, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{what} {' '.join(arguments)}: {found}", file=sys.stderr, flush=True)
    return found


def report(threads: int) -> str:
    """Everything, as Markdown."""
    huge = measured(threads, "million", str(USERS[3]), "full")
    grown = {users: measured(threads, "million", str(users)) for users in USERS}
    cells = {(a, d): measured(threads, "rounds", a, d) for a in ATTACKS for d in DEFENSES}
    lines = [
        "# A million users, and what more would take",
        "",
        f"Made by `python leaderboard/scale.py --threads {threads}` on {datetime.now(UTC):%d %B %Y}: {platform.machine()},"
        f" {os.cpu_count()} cores, {platform.system()}, {threads} {'thread' if threads == 1 else 'threads'}. Seconds are of"
        " the wall, and in brackets of the processor, which differ where the machine had other work; memory is the peak of"
        " the process. MF with d = 32 under protocol `icde24` (256 clients a round, one negative for each positive),"
        f" generated data of the kind of `{HUGE}`: 200,000 items, about 50 interactions a user.",
        "",
        "## `longtail-huge`: 1,000,000 users, 200,000 items, without an attack",
        "",
        "| | | wanted on two cores |",
        "|---|---|---|",
        f"| making the data, once | {_seconds(huge, 'generate')} | |",
        f"| set-up of a run: split, negatives, training rows, evaluator | {_seconds(huge, 'setup')} |"
        f" {_wanted(huge, 'setup')} |",
        f"| an epoch, {huge['rounds']:,.0f} rounds | {_seconds(huge, 'epoch', 1)} | {_wanted(huge, 'epoch')} |",
        f"| evaluation of all users after the first epoch | {_seconds(huge, 'evaluation')} | {_wanted(huge, 'evaluation')} |",
        f"| the same after epoch {TRAINED}: bounds leave fewer items | {_seconds(huge, 'evaluation_trained')} |"
        f" {_wanted(huge, 'evaluation_trained')} |",
        f"| evaluation of {SAMPLE:,} users (`--evaluate-users {SAMPLE}`) | {_seconds(huge, 'evaluation_sampled', 1)} | |",
        f"| peak memory after set-up, and of all | {huge['memory_setup']:.1f} GiB, {huge['memory']:.1f} GiB |"
        f" {_wanted(huge, 'memory')} |",
        "",
        f"After {TRAINED} epochs HR@10 is {100 * huge['hr_10']:.2f} % of all users, and of the sample"
        f" {100 * huge['sampled_hr_10']:.2f} % with a standard error of {100 * huge['hr_10_se']:.2f} points.",
        "",
        "## Cost over interactions",
        "",
        "| users | interactions | rounds of an epoch | epoch, s | ns an interaction | set-up, s | memory, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for users, row in grown.items():
        lines.append(
            f"| {users:,} | {row['interactions']:,.0f} | {row['rounds']:,.0f} | {row['epoch']:.2f} ({row['epoch_cpu']:.2f}) |"
            f" {1e9 * row['epoch_cpu'] / row['interactions']:.0f} | {row['setup']:.1f} ({row['setup_cpu']:.1f}) |"
            f" {row['memory']:.1f} |"
        )
    lines += [
        "",
        "## Attacks and defenses at a million users, 1 % of them malicious",
        "",
        f"Milliseconds of the processor for a round of 256 clients, mean of {ROUNDS}; peak memory, GiB:",
        "",
        "| | " + " | ".join(DEFENSES) + " |",
        "|---" * (len(DEFENSES) + 1) + "|",
    ]
    for attack in ATTACKS:
        row = [f"{1e3 * cells[attack, d]['round_cpu']:.1f}; {cells[attack, d]['memory']:.1f}" for d in DEFENSES]
        lines.append(f"| {attack} | " + " | ".join(row) + " |")
    return "\n".join([*lines, *_on_paper(grown[USERS[-1]], grown[USERS[0]]["memory"], huge["hr_10_se"])])


def _seconds(found: Mapping[str, float], name: str, digits: int = 0) -> str:
    """Of the wall, and of the processor."""
    return f"{found[name]:.{digits}f} s ({found[f'{name}_cpu']:.{digits}f})"


def _wanted(found: Mapping[str, float], name: str) -> str:
    """What was aimed at, and whether it is met, by the wall."""
    most = WANTED[name]
    return f"{most} {'GiB' if name == 'memory' else 's'}: {'met' if found[name] <= most else 'missed'}"


def _on_paper(large: Mapping[str, float], least: float, error: float) -> list[str]:
    """What 100 million users would take, by what the largest data took beyond the ``least`` memory, GiB."""
    byte = (large["memory"] - least) * 2**30 / large["interactions"]
    second = large["epoch_cpu"] / large["interactions"]
    total = 100_000_000 * large["interactions"] / USERS[-1]
    return [
        "",
        "## 100 million users, on paper",
        "",
        f"With the constants of the largest line, {1e9 * second:.0f} ns of a core and {byte:.0f} bytes an interaction, 100"
        f" million such users have {total:.2g} interactions. They take {total * byte / 2**40:.1f} TiB, which"
        f" {total * byte / (48 * 2**30):.0f} machines hold that give 48 GiB each, and an epoch takes"
        f" {total * second / 3600:.1f} core hours, shared by the machines if cohorts grow with them. Clients are independent"
        " within a round, so each machine would keep its users' rows and embeddings, and once a round exchange the rows of"
        " items that were touched, or the whole table (200,000 x 32 numbers, 24 MiB). It would measure a sample:"
        f" {SAMPLE:,} users give HR@10 to {100 * error:.2f} points, however many there are. fedbench does not do this: a run"
        " is one process.",
        "",
    ]


def main() -> None:
    """Measure everything, or, for a process of its own, one thing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("what", nargs="*")
    given = parser.parse_args()
    if not given.what:
        (FOLDER / "SCALE.md").write_text(report(given.threads), encoding="utf-8")
        return
    import torch

    torch.set_num_threads(given.threads)
    what, *arguments = given.what
    found = million(int(arguments[0]), "full" in arguments) if what == "million" else rounds(*arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
