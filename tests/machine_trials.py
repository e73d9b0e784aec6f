"""Trials of suites on many machines, on this one: nodes and processes are killed, and what is there afterwards is compared.

``python tests/machine_trials.py [ray] [slurm] [kills] [ray-kills] [overhead]`` runs them at full size and writes what they
measured to ``leaderboard/MACHINES-TESTED.md``. The slow tests of ``tests/cli/test_machines.py`` run the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from slurm_here import slurm
from tiny_suite import of_seeds

from fedbench.runs.record import RunRecord
from fedbench.runs.results import scan, stamps
from fedbench.runs.standing import standing
from fedbench.scenarios.suite import load_suite

COMMAND = [sys.executable, "-m", "fedbench"]
VARIES = {
    *(name for name in RunRecord.__dataclass_fields__ if name.startswith("seconds_")),
    *("checksum", "started_at", "git_commit", "git_dirty"),
}
"""Columns that differ between two runs of the same thing (the working tree may change under a trial)."""
ENDED = re.compile(r"^\[\d+/\d+\] (.* s\d+)  (ok|diverged)\b", re.MULTILINE)
"""The line of a run in what a coordinator says, where it ran it itself."""


@dataclass
class Trial:
    """What a trial did and found.

    Attributes:
        runs: of the suite. seconds: until all were there. records: that were there. killed: what, and how often.
        told: lines of runs that ended, in the output of all who ran any. twice: runs of which there were two, or whose
            record was replaced by another though it had not failed. same: whether all values are those of a plain run.
        looks: how often `status` was asked meanwhile. wrong: what it said that could not be. verdict: the last line.
    """

    name: str
    runs: int
    seconds: float = 0.0
    records: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    told: int = 0
    twice: list[str] = field(default_factory=list)
    same: bool = True
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    verdict: str = ""

    def row(self) -> dict[str, Any]:
        """The same as plain values; of the verdict what does not say where."""
        verdict = re.split(r"\. Records in |; `fedbench ", self.verdict)[0]
        return {**vars(self), "killed": dict(self.killed), "verdict": verdict}


class Watch:
    """Looks at a folder all the time: counts of `status` that do not add up, records that are replaced or go away."""

    def __init__(self, suite: Path, results: Path, trial: Trial) -> None:
        self._planned = load_suite(str(suite)).plan()
        self._total = sum(len(each.seeds) for each in self._planned)
        self._results, self._trial = results, trial
        self._seen: dict[str, tuple[int, str]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last = 0
        while not self._over.wait(0.2):
            self._look_at_records()
            try:
                found = standing(self._planned, self._results)
            except Exception as error:
                self._trial.wrong.append(f"{type(error).__name__}: {error}")
                continue
            ended = sum(map(len, found.ended.values()))
            total = ended + len(found.failed) + len(found.at_work) + len(found.missing)
            self._trial.looks += 1
            if total != self._total:
                self._trial.wrong.append(f"{total} of {self._total}")
            if ended < last:
                self._trial.wrong.append(f"{ended} have ended, after {last}")
            last = ended
        self._look_at_records()

    def _look_at_records(self) -> None:
        now = stamps(self._results)
        for run in set(self._seen) - set(now):
            self._trial.wrong.append(f"{run} is gone")
        for run, stamp in now.items():
            before, status = self._seen.get(run, (0, ""))
            if stamp != before:
                if status == "ok":
                    self._trial.twice.append(run)
                (now_is,) = pq.read_table(self._results / f"{run}.parquet", columns=["status"])["status"].to_pylist()
                self._seen[run] = stamp, now_is


def alone(suite: Path, folder: Path) -> list[dict[str, Any]]:
    """What a plain local run of the suite makes."""
    results = folder / "alone"
    done = subprocess.run([*COMMAND, "run", str(suite), "--results", str(results), "--jobs", "2"], capture_output=True)
    assert done.returncode == 0, done.stderr
    return values(results)


def values(results: Path) -> list[dict[str, Any]]:
    """All whole records, without what varies."""
    found = scan([results])
    assert not found.damaged, found.damaged
    return found.table.drop_columns(sorted(VARIES)).to_pylist()


def judge(trial: Trial, results: Path, expected: Sequence[Mapping[str, Any]], said: Sequence[str]) -> None:
    """Compare what is there; ``said``: the output of all who ran runs."""
    found = values(results)
    told = Counter(run for text in said for run, _ in ENDED.findall(text))
    trial.records += len(found)
    trial.same = trial.same and found == expected
    trial.told += sum(told.values())
    trial.twice += [run for run, times in told.items() if times > 1]


# Processes.


def children(pid: int) -> list[int]:
    """All processes below one, as far as they can be seen."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text()
            below.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found, new = list[int](), [pid]
    while new:
        new = [each for parent in new for each in below.get(parent, ())]
        found += new
    return found


def words(pid: int) -> str:
    """The command line of a process; empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pids: Sequence[int]) -> None:
    """Kill processes that may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


KINDS: dict[str, Callable[[str], bool]] = {
    "run process": lambda said: "spawn_main" in said,
    "resource tracker": lambda said: "resource_tracker" in said,
    "fedbench run of a task": lambda said: " -m fedbench run " in said and "--executor" not in said,
    "Ray task": lambda said: said.startswith("ray::task"),
    "raylet": lambda said: "/raylet/raylet " in said,
    "submitit task": lambda said: "submitit.core._submit" in said,
    "slurmstepd": lambda said: said.startswith("slurmstepd: ["),
}
"""Kinds of processes, by what their command lines say."""


def of_kind(kind: str, roots: Sequence[int]) -> list[int]:
    """Processes of a kind below those."""
    return [pid for root in roots for pid in children(root) if KINDS[kind](words(pid))]


class Coordinator:
    """A `fedbench run` whose output goes to a file."""

    def __init__(self, arguments: Sequence[str], said: Path, variables: Mapping[str, str] | None = None) -> None:
        self.said = said
        with said.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "run", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(variables or {})},
            )  # fmt: skip

    def end(self, seconds: float = 1800) -> str:
        """Wait for it; its last line."""
        self.process.wait(seconds)
        return (self.said.read_text().splitlines() or [""])[-1]


def until(condition: Callable[[], bool], seconds: float = 1800) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not go on"
        time.sleep(0.1)


# Trials.


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A Ray cluster on this machine, and its nodes; the first is its head, without cores."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "num_cpus": 0})
    try:
        yield cluster, [cluster.add_node(**size) for _ in range(count)]
    finally:
        cluster.shutdown()


def raylet(node: Any) -> int:
    """The process of a node."""
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


def ray_trial(folder: Path, seeds: int, expected: Sequence[Mapping[str, Any]]) -> Trial:
    """A suite on three nodes, of which one is killed, with all its processes, when half of the records are there."""
    suite, results = folder / "tiny.toml", folder / "ray"
    suite.write_text(of_seeds(seeds))
    trial = Trial("Ray, three nodes, one of them killed", 2 * seeds)
    begin = time.monotonic()
    with ray_nodes(3) as (cluster, nodes), Watch(suite, results, trial):
        running = Coordinator(
            [str(suite), "--results", str(results), "--executor", "ray", "--tasks", "3"],
            folder / "ray.log",
            {"RAY_ADDRESS": cluster.address},
        )
        until(lambda: len(list(results.glob("*.parquet"))) >= seeds or running.process.poll() is not None)
        victims = [raylet(nodes[1]), *children(raylet(nodes[1]))]
        trial.killed["node"] += 1
        trial.killed["process of it"] += len(victims)
        kill(victims)
        cluster.remove_node(nodes[1], allow_graceful=False)
        trial.verdict = running.end()
    trial.seconds = time.monotonic() - begin
    judge(trial, results, expected, [path.read_text() for path in (results / ".fedbench-ray").glob("*-task-*.log")])
    return trial


def slurm_trial(folder: Path, seeds: int, expected: Sequence[Mapping[str, Any]]) -> Trial:
    """A suite on two nodes: of its four tasks one is cancelled, of two others a process is killed."""
    suite, results = folder / "tiny.toml", folder / "slurm"
    suite.write_text(of_seeds(seeds))
    trial = Trial("Slurm, four tasks on two nodes, three of them killed", 2 * seeds)
    logs = results / ".fedbench-slurm"
    with slurm(folder / "s") as variables, Watch(suite, results, trial):
        begin = time.monotonic()
        arguments = [str(suite), "--results", str(results), "--executor", "slurm", "--tasks", "4"]
        submitted = Coordinator([*arguments, "--slurm", "time=60"], folder / "slurm.log", variables)
        trial.verdict = submitted.end()
        (job,) = re.findall(r"submitted: job (\d+), 4 tasks", trial.verdict)

        def there() -> int:
            return len(list(results.glob("*.parquet")))

        def queued() -> list[str]:
            asked = ["squeue", "--noheader", "--array", "--format=%K %T"]
            said = subprocess.run(asked, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
            return said.stdout.split("\n")[:-1]

        def pids(kind: str, array: int) -> list[int]:
            found = []
            for path in Path("/proc").glob("[0-9]*"):
                if KINDS[kind](words(int(path.name))):
                    with contextlib.suppress(OSError):
                        if f"SLURM_ARRAY_TASK_ID={array}\0" in (path / "environ").read_text(errors="replace"):
                            found.append(int(path.name))
            return found

        until(lambda: there() >= seeds // 2)
        subprocess.run(["scancel", f"{job}_0"], env={**os.environ, **variables}, check=True)
        trial.killed["task, by scancel"] += 1
        until(lambda: there() >= seeds)
        for kind, array in (("fedbench run of a task", 1), ("submitit task", 2)):
            found = pids(kind, array)
            kill(found)
            trial.killed[kind] += len(found)
        until(lambda: not queued())
        trial.seconds = time.monotonic() - begin
    judge(trial, results, expected, [path.read_text() for path in logs.glob("*_log.err")])
    return trial


def kill_trial(folder: Path, seeds: int, expected: Sequence[Mapping[str, Any]], times: int, seed: int = 17) -> Trial:
    """Two coordinators of two workers each; one process of every kind is killed, ``times`` times, at random moments.

    A coordinator that is gone is started again. Once all is there, and not all has been killed, the suite begins anew in
    another folder; so many seeds are enough that one lasts for some seconds.
    """
    suite = folder / "tiny.toml"
    suite.write_text(of_seeds(seeds))
    trial = Trial("two coordinators, four workers, all kinds of processes killed", 0)
    rng = random.Random(seed)
    left = [kind for kind in ("coordinator", "run process", "resource tracker") for _ in range(times)]
    rng.shuffle(left)
    begin = time.monotonic()
    while left:
        results = folder / f"kills-{trial.runs // (2 * seeds)}"
        trial.runs += 2 * seeds
        with Watch(suite, results, trial):
            said = _until_all_is_there(suite, results, trial, left, rng, 2 * seeds)
        judge(trial, results, expected, [path.read_text() for path in said])
    trial.seconds = time.monotonic() - begin
    return trial


def _until_all_is_there(
    suite: Path, results: Path, trial: Trial, left: list[str], rng: random.Random, runs: int
) -> list[Path]:
    """Run a suite by two coordinators, and kill what is ``left`` to kill; the files of what they said."""
    every: list[Coordinator] = []

    def start() -> Coordinator:
        said = results.with_name(f"{results.name}-{len(every)}.log")
        every.append(Coordinator([str(suite), "--results", str(results), "--jobs", "2"], said))
        return every[-1]

    pair = [start(), start()]
    while left and len(list(results.glob("*.parquet"))) < runs:
        moment = time.monotonic() + rng.uniform(0.0, 1.5)
        until(lambda end=moment: time.monotonic() > end)
        pair = [each if each.process.poll() is None else start() for each in pair]
        victim = rng.choice(pair).process.pid
        found = [victim] if left[-1] == "coordinator" else of_kind(left[-1], [victim])
        if found:
            kill([rng.choice(found)])
            trial.killed[left.pop()] += 1
    for each in pair:
        each.end()
    trial.verdict = start().end()  # which runs what has failed, and what was under way when its coordinator was killed
    return [each.said for each in every]


def ray_kill_trial(
    folder: Path, seeds: int, expected: Sequence[Mapping[str, Any]], times: int, seed: int = 17
) -> Trial:
    """Three nodes, of which one process of every kind is killed, ``times`` times, at random moments; a lost node comes back.

    A coordinator that is gone, or had a task lost too often, is started again, as in :func:`kill_trial`.
    """
    suite = folder / "tiny.toml"
    suite.write_text(of_seeds(seeds))
    trial = Trial("Ray, three nodes, all kinds of processes killed", 0)
    rng = random.Random(seed)
    kinds = ("coordinator", "Ray task", "fedbench run of a task", "run process", "raylet")
    left = [kind for kind in kinds for _ in range(times)]
    rng.shuffle(left)
    begin = time.monotonic()
    with ray_nodes(3) as (cluster, nodes):
        while left:
            results = folder / f"ray-kills-{trial.runs // (2 * seeds)}"
            trial.runs += 2 * seeds
            with Watch(suite, results, trial):
                _until_all_is_there_on_ray(suite, results, cluster, nodes, trial, left, rng, 2 * seeds)
            logs = results / ".fedbench-ray"
            judge(trial, results, expected, [path.read_text() for path in logs.glob("*-task-*.log")])
    trial.seconds = time.monotonic() - begin
    return trial


def _until_all_is_there_on_ray(
    suite: Path,
    results: Path,
    cluster: Any,
    nodes: list[Any],
    trial: Trial,
    left: list[str],
    rng: random.Random,
    runs: int,
) -> None:
    every: list[Coordinator] = []
    arguments = [str(suite), "--results", str(results), "--executor", "ray", "--tasks", "3"]

    def start() -> Coordinator:
        said = results.with_name(f"{results.name}-{len(every)}.log")
        every.append(Coordinator(arguments, said, {"RAY_ADDRESS": cluster.address}))
        return every[-1]

    running = start()
    while left and len(list(results.glob("*.parquet"))) < runs:
        moment = time.monotonic() + rng.uniform(0.0, 3.0)
        until(lambda end=moment: time.monotonic() > end)
        running = running if running.process.poll() is None else start()
        raylets = [raylet(node) for node in nodes]
        found = (
            [running.process.pid]
            if left[-1] == "coordinator"
            else raylets
            if left[-1] == "raylet"
            else of_kind(left[-1], raylets)
        )
        if not found:
            continue
        victim = rng.choice(found)
        kill([victim])
        trial.killed[left.pop()] += 1
        for node in [node for node in nodes if raylet(node) == victim]:
            cluster.remove_node(node, allow_graceful=False)
            nodes.remove(node)
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=80_000_000))
    running.end()
    trial.verdict = start().end()


# What is measured without killing anything.


def overhead(folder: Path, suite: str, jobs: int) -> dict[str, Any]:
    """Where the time of a suite goes: its runs by their own clocks, and what is lost before and between them."""
    results = folder / "overhead"
    begin, first = time.monotonic(), datetime.now(UTC)
    done = subprocess.run(
        [*COMMAND, "run", suite, "--results", str(results), "--jobs", str(jobs)], capture_output=True, check=True
    )
    seconds = time.monotonic() - begin
    table = scan([results]).table
    of_runs = sum(table["seconds_total"].to_pylist())
    start = (min(table["started_at"].to_pylist()) - first).total_seconds()
    return {
        "suite": suite,
        "runs": len(table),
        "jobs": jobs,
        "seconds": seconds,
        "of_runs": of_runs,
        "setup": sum(table["seconds_setup"].to_pylist()),
        "start": start,
        "lost": 1 - of_runs / (jobs * seconds),
        "lost_between": 1 - of_runs / (jobs * (seconds - start)),
        "verdict": done.stdout.decode().partition(". Records in ")[0],
    }


# The table.

KEPT = Path(__file__).parents[1] / "leaderboard" / "machines.json"
PAGE = KEPT.with_name("MACHINES-TESTED.md")
FULL: dict[str, Callable[[Path], Trial]] = {
    "ray": lambda folder: ray_trial(folder, 250, _plain(folder, 250)),
    "slurm": lambda folder: slurm_trial(folder, 50, _plain(folder, 50)),
    "kills": lambda folder: kill_trial(folder, 50, _plain(folder, 50), 20),
    "ray-kills": lambda folder: ray_kill_trial(folder, 50, _plain(folder, 50), 20),
}


def _plain(folder: Path, seeds: int) -> list[dict[str, Any]]:
    suite = folder / "tiny.toml"
    suite.write_text(of_seeds(seeds))
    return alone(suite, folder)


def page(kept: Mapping[str, Any]) -> str:
    """What was measured, as a page."""
    rows = [
        "| trial | runs | whole records | run twice | values of a plain run | killed | looks of `status` | wrong | seconds |",
        "|---|--:|--:|--:|---|---|--:|--:|--:|",
    ]
    for name in FULL:
        each = kept.get(name)
        if each is not None:
            killed = ", ".join(f"{what}: {count}" for what, count in sorted(each["killed"].items()))
            same = "all equal" if each["same"] else "NOT EQUAL"
            rows.append(
                f"| {each['name']} | {each['runs']:,} | {each['records']:,} | {len(each['twice'])} | {same} | {killed} |"
                f" {each['looks']:,} | {len(each['wrong'])} | {each['seconds']:,.0f} |"
            )
    lines = [
        "# Suites on many machines: what was tried, with a tiny suite",
        "",
        "Made by `python tests/machine_trials.py`, never by hand. All runs are those of `tests/tiny_suite.py`: MF on",
        "the 300 users of `longtail-small`, without an attack and under `explicit-boost`, two epochs each, on 250",
        "seeds (500 runs) or 50 (100 runs; again in a new folder until enough is killed). What is tried is that no",
        "run is lost or made twice where hundreds begin and end while others die. Runs of hours, or of much memory,",
        "were not tried, nor were several machines: the nodes of Ray and Slurm are all on one.",
        "",
        "Every trial runs the suite while nodes or processes are killed (`kill -9`, `scancel`), at moments drawn from",
        "a seed; then all records are compared, column by column but for times, with those of a plain local run. A",
        "run counts as run twice if two processes say that they have ended it, or if the record of one that is `ok`",
        "is written again. All the while somebody reads the folder as `fedbench status` does: a look is wrong if it",
        "raises, if its counts are not those of the suite together, or if a run that had ended no longer has. The",
        "machine has two cores, which other work shares, so seconds say nothing of speed.",
        "",
        *rows,
        "",
    ]
    for each in kept.get("overhead", ()):
        lost, between, setup = (
            100 * share for share in (each["lost"], each["lost_between"], each["setup"] / each["of_runs"])
        )
        hourly = 3600 * each["runs"] / each["seconds"] / each["jobs"]
        lines += [
            f"`{each['suite']}` with `--jobs {each['jobs']}`: {each['runs']} runs in {each['seconds']:.0f} s,"
            f" {hourly:,.0f} runs per core hour. By their own clocks the runs took {100 - lost:.1f} % of the time of the"
            f" workers ({setup:.1f} % of that for data and split); {each['start']:.1f} s passed before the first began;"
            f" after that {between:.1f} % were lost between runs.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def main(wanted: Sequence[str]) -> None:
    """Run trials and write the page."""
    for name in wanted or [*FULL, "overhead"]:
        with tempfile.TemporaryDirectory(prefix="fb") as made:
            found = [overhead(Path(made), "smoke", 2)] if name == "overhead" else FULL[name](Path(made)).row()
        kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        kept[name] = found
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        PAGE.write_text(page(kept))
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
