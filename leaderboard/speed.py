"""How fast fedbench is, beside the plain loop and beside an earlier commit of itself, on one core. Writes SPEED.md.

    python leaderboard/speed.py --before COMMIT

Every measurement is a process of its own, the two versions take turns, and the best of three is told: other work on the
machine then slows both. Seconds are of the processor. Needs ML-100K and ML-1M; a quarter of an hour.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
REPEATS = 3
TURNS = 5
"""Equal pieces of a training of which the fastest is told."""
EPOCHS = {"mf": 20, "ncf": 10, "sasrec": 1}
TRAININGS = {
    "mf, ML-100K": ("ml-100k", "mf", "icde24"),
    "ncf, ML-100K": ("ml-100k", "ncf", "icde24"),
    "ncf, ML-1M": ("ml-1m", "ncf", "icde24"),
    "mf, ML-1M, aaai23": ("ml-1m", "mf", "aaai23"),
    "sasrec, ML-100K, aaai23": ("ml-100k", "sasrec", "aaai23"),
}
PLAIN = ("mf", "ncf")
WANTED = {("mf", "ms"): 0.6, ("mf", "times"): 80, ("ncf", "times"): 40}
"""Of a round on ML-100K: at most so many milliseconds, at least so many times the plain loop."""
SPOTS = 10


def federation(dataset: str, model: str, protocol: str) -> tuple[Any, Any]:
    """A federation without an attack, and what measures it."""
    import torch

    from fedbench import Scenario
    from fedbench.evaluation.measurement import Measurement
    from fedbench.federation.simulation import Federation
    from fedbench.runs.run import keep_freed_memory
    from fedbench.runs.task import split_of, task_of

    keep_freed_memory()
    target = "none" if protocol == "aaai23" else "random:0"
    scenario = Scenario(dataset, model, "none", "none", 0.0, protocol=protocol, target=target)
    split = split_of(scenario, 0)
    task = task_of(scenario, split, torch.device("cpu"))
    r = scenario.resolved
    made = Federation(task, r.model, r.attack(), r.defense(), 0.0, r.protocol, 0)
    return made, Measurement(made, split)


def training(dataset: str, model: str, protocol: str) -> dict[str, Any]:
    """Seconds of set-up, of a round, of an evaluation; the dearest spots, in milliseconds a round."""
    begin = time.process_time()
    made, measure = federation(dataset, model, protocol)
    setup = time.process_time() - begin
    epochs = EPOCHS[model] if dataset == "ml-100k" else 1
    made.train_epoch()
    rounds, evaluations = [], []
    for _ in range(TURNS):
        first = made.round
        rounds.append(seconds(lambda: trained(made, epochs)) / (made.round - first))
        evaluations.append(seconds(measure))
    profile = cProfile.Profile()
    first = made.round
    profile.enable()
    trained(made, epochs)
    profile.disable()
    return {
        "setup": setup,
        "round": min(rounds),
        "evaluation": min(evaluations),
        "spots": spots(profile, made.round - first),
    }


def trained(made: Any, epochs: int) -> None:
    """Some epochs more."""
    for _ in range(epochs):
        made.train_epoch()


def plain(model: str) -> dict[str, float]:
    """Seconds of a round and an evaluation on ML-100K by the tests' plain loop: client by client, user by user."""
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    from oracles import PlainFederation, evaluate_one_by_one  # type: ignore[import-not-found]

    from fedbench.federation.clients import draw_negatives
    from fedbench.randomness import generator
    from fedbench.runs.task import split_of
    from fedbench.scenarios.scenario import Scenario

    made, _ = federation("ml-100k", model, "icde24")
    task = made.task
    drawn = generator(0, "negatives", 0)
    negatives = draw_negatives(task.train_user, task.train_item, task.num_users, task.num_items, 1, drawn)
    loop = PlainFederation.like(made, negatives)
    split = split_of(Scenario("ml-100k", model), 0)
    held_out = dict(zip(split.test.user.tolist(), split.test.item.tolist(), strict=True))
    users = sorted(held_out)
    known = [task.train_item[task.train_user == user] for user in users]
    cohorts = [cohort.honest for cohort in made.population.cohorts(1)]
    loop.round(cohorts[0])
    rounds = seconds(lambda: [loop.round(cohort) for cohort in cohorts]) / len(cohorts)
    clients, items, stream = [loop.clients[user] for user in users], [held_out[u] for u in users], torch.Generator()
    target = int(task.targets[0])
    evaluation = seconds(lambda: evaluate_one_by_one(loop.model, loop.params, clients, known, items, target, stream))
    return {"round": rounds, "evaluation": evaluation}


def stacked(model: str, copies: int) -> dict[str, float]:
    """Seconds of a round of ``copies`` runs in one batch: as many times the users, the items, and the clients of a round.

    Of a model without dense parameters this is what stacking its seeds would come to.
    """
    import torch

    from fedbench.federation.population import Task
    from fedbench.federation.simulation import Federation
    from fedbench.scenarios.scenario import Scenario

    made, _ = federation("ml-100k", model, "icde24")
    one, n, m = made.task, made.task.num_users, made.task.num_items
    each = range(copies)
    user, item = (torch.cat([t + i * by for i in each]) for t, by in ((one.train_user, n), (one.train_item, m)))
    task = Task(copies * n, copies * m, user, item, one.targets, 0)
    r = Scenario("ml-100k", model).resolved
    protocol = r.protocol.model_copy(update={"clients_per_round": copies * int(r.protocol.clients_per_round)})
    many = Federation(task, r.model, r.attack(), r.defense(), 0.0, protocol, 0)
    many.train_epoch()
    rounds = []
    for _ in range(TURNS):
        first = many.round
        rounds.append(seconds(lambda: trained(many, EPOCHS[model])) / (many.round - first))
    return {"round": min(rounds)}


def suite() -> dict[str, float]:
    """Seconds that ``fedbench run smoke`` takes, all processes together, and its runs."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "fedbench", "run", "smoke", "--jobs", "1", "--results", folder]
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs = len(list(Path(folder).glob("*.parquet")))
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"suite": total, "runs": runs}


MEASURES: Mapping[str, Callable[..., dict[str, Any]]] = {
    "training": training,
    "plain": plain,
    "stacked": lambda model, copies: stacked(model, int(copies)),
    "suite": suite,
}


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def spots(profile: cProfile.Profile, rounds: int) -> dict[str, float]:
    """Of the functions that take most themselves: milliseconds a round."""
    stats: Any = pstats.Stats(profile)
    found = [(row[2], place) for place, row in stats.stats.items()]
    out = {}
    for own, (file, _, name) in sorted(found, reverse=True)[:SPOTS]:
        where = "" if file == "~" or "site-packages" in file else f"{Path(file).name} "
        out[where + _name(name)] = 1e3 * own / rounds
    return out


def _name(function: str) -> str:
    """``<built-in method torch.addmm>`` -> ``torch.addmm``, ``<method 'sum' of ...>`` -> ``sum``."""
    for before, after in (("<built-in method ", ">"), ("<method '", "'")):
        if function.startswith(before):
            return function.removeprefix(before).split(after)[0].replace("torch._C.", "torch.")
    return function


def measured(tree: Path, what: str, *arguments: str) -> dict[str, Any]:
    """What a process of the version in ``tree`` measures."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE), what, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tree)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{tree.name} {what} {' '.join(arguments)}: {found}", file=sys.stderr, flush=True)
    return found


def best(trees: Mapping[str, Path], what: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Of each version its fastest numbers, and the spots of its fastest round; versions take turns."""
    out: dict[str, dict[str, Any]] = {}
    for _ in range(REPEATS):
        for name, tree in trees.items():
            found, kept = measured(tree, what, *arguments), out.get(name, {})
            spotted = kept if kept.get("round", 1e9) < found.get("round", 0) else found
            out[name] = {key: min(value, kept.get(key, value)) for key, value in found.items() if key != "spots"}
            out[name] |= {"spots": spotted["spots"]} if "spots" in found else {}
    return out


def report(before: str, trees: Mapping[str, Path]) -> str:
    """Everything, as Markdown."""
    found = {name: best(trees, "training", *where) for name, where in TRAININGS.items()}
    loops = {model: best({"now": ROOT}, "plain", model)["now"] for model in PLAIN}
    runs = best(trees, "suite")
    four = best({"now": ROOT}, "stacked", "mf", "4")["now"]["round"]
    lines = [
        "# How fast, before and after, and beside the plain loop",
        "",
        f"Made by `python leaderboard/speed.py --before {before}` on {datetime.now(UTC):%d %B %Y}: {platform.machine()},"
        f" {platform.system()}, one thread. Seconds of the processor, the best of {REPEATS} processes; the versions took"
        " turns. Before is the last commit before fedbench was made fit for devices, many machines and a million users."
        " Runs have no attack and no defense. The plain loop is the one of the tests: one client after the other, autograd"
        " for each, evaluation user by user, as the papers' own code does it. A million users are in"
        " [SCALE.md](SCALE.md), kernel launches a round in `tests/launches.json`.",
        "",
        "| | before | now | times as fast | times the plain loop |",
        "|---|---|---|---|---|",
    ]
    for name, each in found.items():
        loop = loops.get(TRAININGS[name][1], {}) if TRAININGS[name][0] == "ml-100k" else {}
        for what, label in (("round", "a round"), ("evaluation", "an evaluation"), ("setup", "set-up of a run")):
            old, new = each["before"][what], each["now"][what]
            beside = f"{loop[what] / new:.0f}" if what in loop else ""
            lines.append(f"| {name}: {label} | {shown(old)} | {shown(new)} | {old / new:.2f} | {beside} |")
    old, new = runs["before"]["suite"], runs["now"]["suite"]
    lines.append(f"| `fedbench run smoke`, all processes | {shown(old)} | {shown(new)} | {old / new:.2f} | |")
    per_hour = 3600 * runs["now"]["runs"] / new
    lines += [
        "",
        f"`smoke` has {runs['now']['runs']:.0f} runs: {per_hour:,.0f} in an hour of a processor.",
        "",
        "Wanted of a round on ML-100K: "
        + "; ".join(wanted(found, loops))
        + ". The calls of torch that the tables below name take most of it by themselves.",
        "",
        f"Four seeds of mf on ML-100K as one batch would take {shown(four / 4)} for the round of each, beside"
        f" {shown(found['mf, ML-100K']['now']['round'])} one after the other: on a CPU a round is work on its rows, not"
        " calls, and stacked rows leave the cache, and the range of 16-bit sort keys. Seeds are therefore not stacked;"
        " `--jobs` gives a core to each.",
    ]
    for name, each in found.items():
        lines += [
            "",
            f"## Where a round of {name} goes",
            "",
            f"The {SPOTS} functions that take most themselves under Python's profiler, milliseconds a round:",
            "",
            "| before | ms | now | ms |",
            "|---|---|---|---|",
        ]
        pairs = zip(each["before"]["spots"].items(), each["now"]["spots"].items(), strict=True)
        lines += [f"| `{a}` | {x:.3f} | `{b}` | {y:.3f} |" for (a, x), (b, y) in pairs]
    return "\n".join([*lines, ""])


def wanted(found: Mapping[str, Mapping[str, Any]], loops: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What was aimed at, and whether it is met."""
    out = []
    for (model, unit), aim in WANTED.items():
        took = found[f"{model}, ML-100K"]["now"]["round"]
        have = 1e3 * took if unit == "ms" else loops[model]["round"] / took
        met = have <= aim if unit == "ms" else have >= aim
        text = f"{aim:g} ms" if unit == "ms" else f"{aim:g} times the plain loop"
        out.append(f"{model} {text}, {'met' if met else 'missed'} ({have:.3g})")
    return out


def shown(value: float) -> str:
    """Seconds, or milliseconds."""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def main() -> None:
    """Measure everything, or, for a process of its own, one thing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", help="a commit to compare with")
    parser.add_argument("what", nargs="*")
    given = parser.parse_args()
    if given.what:
        what, *arguments = given.what
        if what != "suite":
            import torch

            torch.set_num_threads(1)
        print(json.dumps(MEASURES[what](*arguments)))
        return
    if given.before is None:
        parser.error("--before COMMIT is missing")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), given.before], cwd=ROOT, check=True)
        try:
            text = report(given.before, {"before": tree, "now": ROOT})
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    (HERE.parent / "SPEED.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
