"""``fedbench run``: run a suite, or what is missing of it."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbench.cli.options import (
    DEFAULT_RESULTS,
    Attack,
    Dataset,
    Defense,
    Device,
    Jobs,
    Model,
    Only,
    ProtocolName,
    Ratio,
    Results,
    Seeds,
    Set,
    Shard,
    choose_device,
    choose_every,
    choose_faster,
    choose_jobs,
    choose_shard,
)
from fedbench.cli.run_shown import print_dry_run, print_troubles, verdict_of

if TYPE_CHECKING:
    from fedbench.runs.calibration import Faster
    from fedbench.runs.execution import Plan, Run, Summary
    from fedbench.scenarios.adhoc import Options
    from fedbench.scenarios.suite import Suite


def run(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="[SUITE]", help="A suite's name, or the path of a .toml file; none: see --dataset."),
    ] = None,
    attack: Attack = None,
    defense: Defense = None,
    model: Model = None,
    dataset: Dataset = None,
    ratio: Ratio = None,
    protocol: ProtocolName = None,
    settings: Set = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Without a suite: write it as a suite file, too.")
    ] = None,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated", help="Run the files of --attack and --defense in confined processes of their own, on the CPU."
        ),
    ] = False,
    only: Only = None,
    seeds: Seeds = None,
    device: Device = "auto",
    jobs: Jobs = None,
    shard: Shard = None,
    executor: Annotated[
        str,
        typer.Option(metavar="local|slurm|ray", help="Run here, or --tasks times on a Slurm or Ray cluster."),
    ] = "local",
    tasks: Annotated[int, typer.Option(help="On a cluster; each runs what no other does, with --jobs workers.")] = 4,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of sbatch, such as partition=gpu. Repeatable."),
    ] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NUMBER", help="An option of Ray's tasks, such as num_gpus=0.5. Repeatable."),
    ] = None,
    evaluate_users: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Measure N users, drawn at random, instead of all; records have standard errors."
        ),
    ] = None,
    results: Results = DEFAULT_RESULTS,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run everything again, also what is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and for how long.")] = False,
    diagnostics: Annotated[
        bool,
        typer.Option(
            "--diagnostics",
            help="Keep what clients uploaded and filters dropped, for `inspect`; runs without it are run again.",
        ),
    ] = False,
    diagnose_every: Annotated[
        int | None, typer.Option(metavar="N", help="Keep every N-th round; means --diagnostics. [default: 10]")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="csv|tensorboard|wandb",
            help="Log every evaluation, too: files in RESULTS/_logs, TensorBoard, Weights & Biases. Repeatable.",
        ),
    ] = None,
) -> None:
    """Run a suite, or scenarios of --dataset, --model, --attack ... What is there already is kept; failed runs are run again.

    The last line is the verdict: "done: ...", "failed: ..." or "interrupted: ...". The exit code is 0 only if that is "done".
    """
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import console, count
    from fedbench.cli.verdict import speak
    from fedbench.errors import UserError
    from fedbench.runs.execution import default_jobs, make_plan, run_all
    from fedbench.runs.logs import check_forms
    from fedbench.scenarios.adhoc import Options
    from fedbench.scenarios.suite import load_suite
    from fedbench.without_torch import need_torch

    if evaluate_users is not None:
        settings = [*(settings or ()), f"evaluate_users={evaluate_users}"]
    if executor not in ("local", "slurm", "ray"):
        raise UserError(f"--executor {executor!r} must be local, slurm or ray.")
    if tasks < 1:
        raise UserError(f"--tasks {tasks} must be at least 1.")
    for name, values in (("slurm", slurm), ("ray", ray)):
        if values and executor != name:
            raise UserError(f"--{name} is of --executor {name}.")
    check_forms(log or ())
    remote = executor != "local"  # whose machines have devices of their own
    where = choose_device("cpu" if isolated and device == "auto" else device, here=not remote)
    workers = choose_jobs(jobs) or (1 if remote else default_jobs(where))
    faster = choose_faster(device, where, jobs)
    entries = {"attack": attack, "defense": defense, "model": model, "dataset": dataset}
    if suite is not None and (ratio is not None or protocol is not None or save is not None):
        raise UserError(
            "--ratio, --protocol and --save are of scenarios without a SUITE; --only and --set take a suite's."
        )
    loaded = load_suite(suite) if suite is not None else None
    if isolated:
        _load_isolated(entries, where)
    if loaded is None:
        own = Options(dataset, model, attack, defense, ratio, protocol, seeds, settings or ())
        loaded = _suite_of(own, save)
    elif any(entries.values()):
        from fedbench.scenarios.substitution import chosen, substituted

        loaded = substituted(loaded, chosen(**entries))
    if suite is not None and settings:
        from fedbench.scenarios.settings import with_settings

        loaded = with_settings(loaded, settings)
    planned = loaded.plan(only or (), seeds)
    every = choose_every(diagnostics, diagnose_every)
    plan = make_plan(planned, results, fresh, every is not None, choose_shard(shard))
    for name, reason in plan.damaged.items():
        console(err=True).print(f"warning: {name} is no whole record and does not count: {reason}", soft_wrap=True)
    for warning in loaded.warnings(planned):
        console(err=True).print(f"warning: {warning}", soft_wrap=True)
    if plan.changed:
        text = f"{count(len(plan.changed), 'run')} there of an entry whose source has changed since: run again."
        console(err=True).print(text, soft_wrap=True)
    if plan.replaced:
        text = f"{count(len(plan.replaced), 'run')} there of images that have been replaced since: run again."
        console(err=True).print(text, soft_wrap=True)
    if plan.moved:
        names = ", ".join(sorted({run.scenario.dataset for run in plan.moved}))
        text = f"{count(len(plan.moved), 'run')} there of other data under the name {names}: run again."
        console(err=True).print(text, soft_wrap=True)
    if dry_run:
        print_dry_run(planned, plan, workers * (tasks if remote else 1), results, where)
        return
    named = [suite] if suite is not None else []
    given = {**entries, "ratio": ratio, "protocol": protocol}
    need_torch()
    options = [part for option, value in given.items() if value for part in (f"--{option}", value)]
    options += [part for each in settings or () for part in ("--set", each)]
    options += [part for each in only or () for part in ("--only", each)]
    options += ["--isolated"] if isolated else []
    options += ["--seeds", seeds] if seeds else []
    options += ["--device", device] if device != "auto" else []
    options += ["--jobs", str(workers if remote else jobs)] if jobs or remote else []
    options += ["--shard", shard] if shard else []
    options += ["--results", str(results)] if results != DEFAULT_RESULTS else []
    options += ["--diagnostics"] if diagnostics else []
    options += ["--diagnose-every", str(diagnose_every)] if diagnose_every is not None else []
    options += [part for each in log or () for part in ("--log", each)]
    if remote and plan.todo:
        from fedbench.cli.machines import check_remote, run_tasks_on_ray, submit_to_slurm

        check_remote(plan, results, executor, fresh)
        tasks = min(tasks, len(plan.todo))
        if executor == "slurm":
            submit_to_slurm([*named, *options], plan, results, tasks, workers, slurm or ())
        again = functools.partial(make_plan, planned, results, False, every is not None, choose_shard(shard))
        summary = run_tasks_on_ray([*named, *options], plan, again, results, tasks, workers, ray or ())
    else:
        summary = run_all(
            planned,
            plan,
            lambda part: run_shown(part, loaded.name, results, where, workers, every, log or (), faster),
            results,
            every is not None,
        )
    print_troubles(summary)
    if summary.interrupted:
        there = [
            "--executor",
            executor,
            "--tasks",
            str(tasks),
            *(part for each in ray or () for part in ("--ray", each)),
        ]
        command = shlex.join(["fedbench", "run", *named, *options, *(there if remote else ())])
        old = " (runs that --fresh had not reached keep their old results)" if fresh else ""
        console(err=True).print(f"interrupted; {summary.left} left{old}. Resume with: {command}", soft_wrap=True)
    speak(verdict_of(summary, results), summary.exit_code == 0, summary.exit_code)


def _suite_of(options: Options, save: Path | None) -> Suite:
    """The suite that options make; written to a file, if wanted. Says which protocol was chosen."""
    from fedbench.cli.output import console
    from fedbench.errors import UserError
    from fedbench.files import write_file
    from fedbench.scenarios.adhoc import WHY, save_suite, suite_data
    from fedbench.scenarios.suite import parse_suite

    if save is not None and save.suffix != ".toml":
        raise UserError(f"--save {str(save)!r} must end in .toml.")
    data = suite_data(options, save)
    suite = parse_suite(data, "these options", Path())
    if options.protocol is None:
        for name in dict.fromkeys(each.scenario.protocol for each in suite.scenarios):
            text = f"protocol {name}, {WHY[name]}; --protocol NAME for another (`fedbench list protocols`)."
            console(err=True).print(text, soft_wrap=True)
    if save is not None:
        text = save_suite(data, save)
        if save.exists() and (not save.is_file() or save.read_text(encoding="utf-8", errors="replace") != text):
            raise UserError(f"{save} exists already and says something else; it is left as it is.")
        if not save.exists():
            write_file(save, text)
            console(err=True).print(f"written to {save}", soft_wrap=True)
    return suite


def _load_isolated(entries: Mapping[str, str | None], device: str) -> None:
    """Make the files entries without importing them here."""
    from fedbench.errors import UserError
    from fedbench.isolation.entries import load_isolated
    from fedbench.isolation.nursery import close
    from fedbench.plugins import is_file

    listed = [(kind, each) for kind, text in entries.items() if text is not None for each in text.split(",")]
    files = [(kind, each) for kind, each in listed if is_file(each)]
    for kind, each in files:
        if kind in ("model", "dataset"):
            raise UserError(f"--isolated: the {kind} of a file cannot be confined; leave out --{kind} {each} or this.")
    if not files:
        raise UserError("--isolated confines the attack or the defense of a file: give it as --attack ./my_attack.py.")
    if device != "cpu":
        raise UserError("--isolated computes on the CPU, where every device draws the same; leave out --device.")
    for kind, each in files:
        load_isolated(each, "attack" if kind == "attack" else "defense")
    close()  # workers have processes of their own


def run_shown(
    plan: Plan,
    suite: str,
    results: Path,
    device: str,
    jobs: int,
    diagnose_every: int | None = None,
    logs: Sequence[str] = (),
    faster: Faster | None = None,
) -> Summary:
    """Run a plan with its progress on stderr, and in logs, if wanted; what the cores end sooner there, beside the GPU."""
    from fedbench.cli.output import console, count
    from fedbench.cli.progress import progress
    from fedbench.runs.execution import run_plan
    from fedbench.runs.logs import Logging

    tell = functools.partial(console(err=True).print, soft_wrap=True)
    cores: frozenset[Run] = frozenset()
    core_jobs = 0
    if faster is not None and plan.todo:
        tell("trying some runs for a few epochs, on the CPU and on the GPU ...")
        cores = faster.on_cores(plan.todo)
        tell(f"{count(len(cores), 'run')} on the CPU, {len(plan.todo) - len(cores)} on the GPU, where they end sooner.")
        core_jobs = min(faster.cores, len(cores))
    jobs = min(jobs, len(plan.todo) - len(cores))
    with progress(suite, plan, max(1, jobs + core_jobs)) as shown:
        reporter = Logging(logs, shown, results, suite, lambda text: tell(f"warning: {text}"))
        try:
            return run_plan(
                plan,
                results=results,
                suite=suite,
                device=device,
                jobs=max(1, jobs),
                reporter=reporter if logs else shown,
                diagnose_every=diagnose_every,
                cores=cores,
                core_jobs=core_jobs or None,
            )
        finally:
            reporter.close()
