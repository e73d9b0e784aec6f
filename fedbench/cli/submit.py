"""``fedbench submit`` and ``verify``: a bundle of an entry and its runs, and what is to be thought of one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbench.cli.options import Jobs, Only, choose_device, choose_jobs

if TYPE_CHECKING:
    from fedbench.submission.report import Check
    from fedbench.submission.rerun import Rerun
    from fedbench.submission.verify import Verified

WARNING = """\
The re-run executes the code in this bundle, written by a stranger, {how}.
Read source.py first (fedbench verify {bundle} --source), and do this in a container or on a machine without anything of
value."""


def submit(
    attack: Annotated[str | None, typer.Option(metavar="FILE|NAME", help="The attack, such as ./my_attack.py.")] = None,
    defense: Annotated[str | None, typer.Option(metavar="FILE|NAME", help="The defense, instead.")] = None,
    results: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Records of its runs. Repeatable.")] = None,
    suite: Annotated[str, typer.Option(help="The suite that it ran.")] = "core",
    only: Only = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="It ran so many seeds, from 0, instead of the suite's own.")
    ] = None,
    results_of_twins: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR|FILE", help="Where runs without it are that --results lacks. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="NAME.zip", help="The bundle. [default: after the entry]")] = None,
) -> None:
    """Make a bundle of an attack or a defense: source, card, run records, environment and hashes."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.leaderboard import usual_folder
    from fedbench.cli.output import console, count
    from fedbench.errors import UserError
    from fedbench.submission.bundle import entry, make_bundle
    from fedbench.submission.manifest import Kind

    given: list[tuple[Kind, str]] = [("attack", attack)] if attack else []
    given += [("defense", defense)] if defense else []
    if len(given) != 1:
        raise UserError("give one entry to submit: --attack FILE or --defense FILE.")
    kind, text = given[0]
    of = entry(kind, text)
    made = make_bundle(of, suite, only or (), seeds, results or [usual_folder()], results_of_twins or ())
    _print_notes(made.checks)
    if made.data is None:
        _print_reasons(made.checks)
        if not made.checks[0].reasons:  # the runs are there, and more of them would mend nothing
            console(err=True).print("not submitted.")
            raise typer.Exit(1)
        run = ["fedbench", "run", suite, f"--{kind}", text, *(part for each in only or () for part in ("--only", each))]
        run += ["--seeds", str(seeds)] if seeds else []
        run += ["--results", str((results or [usual_folder()])[0])]
        console(err=True).print(f"not submitted. What is missing is run by: {_joined(run)}", soft_wrap=True)
        raise typer.Exit(1)
    path = out if out is not None else Path(f"{of.name.replace('/', '-')}.zip")
    replaced = " (replaced)" if path.is_file() else ""
    _write(path, made.data)
    console().print(
        f"{path}{replaced}: {kind} {of.name}, {count(len(made.claimed.runs), 'run')} of {made.claimed},"
        f" {len(made.data):,} bytes. Anyone checks it with: fedbench verify {path}",
        soft_wrap=True,
    )


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `fedbench submit` made.")],
    budget: Annotated[
        str,
        typer.Option(metavar="TIME", help="Repeat all runs if they fit in this time, else as many as fit: 90m, 1h30m."),
    ] = "1h",
    runs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Repeat so many runs, whatever time they take.")
    ] = None,
    jobs: Jobs = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw, to repeat it. [default: a new one]")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run the code in the bundle without asking.")] = False,
    no_rerun: Annotated[bool, typer.Option("--no-rerun", help="Run nothing: only read.")] = False,
    source: Annotated[bool, typer.Option("--source", help="Only print the code in the bundle, to read it.")] = False,
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet",
            help="Repeat every run, and write the records of the repetitions, for `leaderboard --results`.",
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where other bundles and records are: no other bundle may have its name, an entry that would come among the"
            " first three there has all its runs repeated, and --records leaves twins out that are there.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Check a bundle without trusting it: hashes, schema, completeness, then its runs again, in an order nobody can foresee.

    The last line is the verdict. The exit code is 0 only if that is "verified", or "read" with --no-rerun.
    """
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import parse_time, print_json
    from fedbench.cli.verdict import speak
    from fedbench.errors import UserError
    from fedbench.submission.beside import check_name
    from fedbench.submission.container import read_bundle
    from fedbench.submission.repeat import isolated
    from fedbench.submission.rerun import elsewhere
    from fedbench.submission.verify import verify as check_bundle

    if records is not None and (no_rerun or runs is not None):
        raise UserError("--records are those of the repetitions of all runs; leave out --no-rerun and --runs.")
    if records is not None and records.suffix != ".parquet":
        raise UserError(f"--records {str(records)!r} must end in .parquet.")
    if beside is not None and not beside.is_dir():
        raise UserError(f"--beside {str(beside)!r} is no folder.")
    seconds = parse_time(budget, "--budget")
    data = read_bundle(bundle)
    if source:
        _print_source(data)
        return
    found = check_bundle(data)
    if found.ok and found.manifest is not None and beside is not None:
        check_name(found.manifest, bundle, beside, found.step("name"))
    if found.ok:
        elsewhere(found, ["cpu"] if isolated(found) else ["cpu", choose_device("auto")], found.step("device"))
    again: _Again | None = None
    told = 0
    if found.ok and not no_rerun:
        if not as_json:
            _print_notes(found.checks)  # what to read before the code runs
        told = len(found.checks)
        if not yes:
            _ask(bundle, as_json, isolated(found))
        wanted = _Wanted(seconds, len(found.rows) if records is not None else runs, choose_jobs(jobs), seed, beside)
        again = _run_again(found, wanted, as_json)
    if as_json:
        print_json(_data(found, again))
    else:
        _print_verified(bundle, found, told, again)
    if records is not None and found.ok and again is not None:
        _write_records(found, again, records, beside)
    if as_json:
        sys.stdout.flush()
        raise typer.Exit(0 if found.ok else 1)
    speak(_verdict(found, again), found.ok)


def _print_source(data: bytes) -> None:
    """The code, with everything to be seen that steers a terminal; nothing of it is run."""
    from fedbench.submission.container import SOURCE, members_of
    from fedbench.submission.report import Check
    from fedbench.texts import visible

    check = Check("container")
    members = members_of(data, check)
    if check.reasons:
        _print_reasons([check])
        raise typer.Exit(1)
    typer.echo(visible(members[SOURCE].decode("utf-8", "backslashreplace"), kept="\n\t"))


def _write_records(found: Verified, again: _Again, file: Path, beside: Path | None) -> None:
    from fedbench.cli.output import console, count
    from fedbench.submission.beside import write_records

    assert found.claimed is not None
    written, known = write_records(found.claimed, again.rerun.again, file, beside)
    left = f"; {count(known, 'twin')} left out, since {beside} has {'it' if known == 1 else 'them'}" if known else ""
    console(err=True).print(f"{count(written, 'record')} in {file}{left}", soft_wrap=True)


def _ask(bundle: Path, as_json: bool, confined: bool) -> None:
    """Say what is about to happen, and stop unless it is wanted."""
    import shlex

    from fedbench.errors import UserError
    from fedbench.isolation.sandbox import means
    from fedbench.texts import visible

    how = f"in a process of its own, confined as this system can ({means()}); what holds is as strong as that"
    if not confined:
        how = "with your rights: it can read and delete your files and use your network"
    typer.echo(WARNING.format(bundle=visible(shlex.quote(str(bundle))), how=how), err=True)
    if as_json or not interactive():
        raise UserError("the re-run needs --yes, since nobody can be asked here; --no-rerun only reads.")
    if not typer.confirm("Run it?", err=True):
        raise UserError("not run again; --no-rerun only reads.")


def interactive() -> bool:
    """Whether somebody is there who can be asked."""
    return sys.stdin.isatty()


@dataclass(frozen=True)
class _Wanted:
    """How much is to be repeated: so many ``runs``, None for those that fit in ``budget`` seconds.

    ``published`` is the folder of what is on the leaderboard already.
    """

    budget: float
    runs: int | None
    jobs: int | None
    seed: int | None
    published: Path | None


@dataclass(frozen=True)
class _Again:
    """The re-run: the seed of the draw, how many runs were repeated of how many, how many of them came in any case."""

    seed: int
    runs: int
    repeated: int
    sure: int
    rerun: Rerun

    @property
    def chances(self) -> dict[int, float]:
        """Number of forged runs -> the chance that the draw had one of them."""
        from fedbench.submission.draw import FORGED, chance

        runs, repeated = self.runs - self.sure, self.repeated - self.sure
        return {k: float(chance(runs, repeated, k)) for k in FORGED if k <= runs}


def _run_again(found: Verified, wanted: _Wanted, quiet: bool) -> _Again:
    import functools
    import secrets

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from fedbench.cli.output import console, count, duration
    from fedbench.runs.execution import default_jobs
    from fedbench.submission import repeat
    from fedbench.submission.beside import other_twins
    from fedbench.submission.draw import drawn, repeat_within
    from fedbench.submission.rerun import Rerun, without_data

    assert found.claimed is not None
    seed = secrets.randbelow(2**63) if wanted.seed is None else wanted.seed
    data, check = found.step("data"), found.step("re-run")
    rerun = Rerun(found, check, functools.partial(repeat.repeat, jobs=wanted.jobs))
    without_data(found, data)
    total = len(found.rows)
    if data.reasons:
        return _Again(seed, total, 0, 0, rerun)
    if not repeat.isolated(found) and found.cls is not None:
        check.note("it runs in the processes of the runs, where its code can reach what measures it: read it.")
    repeat.same_card(found, check)
    if check.reasons:
        return _Again(seed, total, 0, 0, rerun)
    differ = other_twins(found, found.claimed, wanted.published, check) if wanted.published is not None else set[str]()
    order, sure = drawn(found.rows, seed, differ)
    least, budget = sure, wanted.budget
    if wanted.runs is not None:
        order, budget = order[: max(sure, wanted.runs)], float("inf")
    elif wanted.published is not None and (board := _top(found, wanted.published)):
        check.note(f"it would come among the first three of \u201c{board}\u201d, so all its runs are repeated.")
        budget = float("inf")

    out = console(err=True)
    clock = Progress(SpinnerColumn(), TextColumn("repeating"), TimeElapsedColumn(), console=out, transient=True)
    clock.add_task("")

    def tell(runs: int, seconds: float) -> None:
        if not quiet:
            text = f"repeating {count(runs, 'run')} of {total:,}, about {duration(seconds)} (draw --seed {seed}) ..."
            out.print(text, soft_wrap=True)

    with clock if out.is_terminal and not quiet else contextlib.nullcontext():
        repeated = repeat_within(order, least, budget, wanted.jobs or default_jobs("cpu"), rerun, tell)
    return _Again(seed, total, repeated, sure, rerun)


def _top(found: Verified, published: Path) -> str | None:
    """The title of a board among whose first three the bundle's own numbers would bring it, with its runs taken for isolated,
    as their repetitions are; None: there is none.
    """
    import tempfile

    import pyarrow as pa

    from fedbench.leaderboard.places import top_place
    from fedbench.runs.checksum import checksums
    from fedbench.runs.record import schema
    from fedbench.runs.results import write_whole

    assert found.manifest is not None
    assert found.claimed is not None
    with tempfile.TemporaryDirectory(prefix="fedbench-verify-") as folder:
        file = Path(folder) / "claimed.parquet"
        table = pa.Table.from_pylist([{**row, "isolation": "process"} for row in found.rows], schema=schema())
        place, sums = table.column_names.index("checksum"), pa.array(checksums(table.drop_columns("checksum")))
        write_whole(table.set_column(place, schema().field("checksum"), sums), file)
        return top_place([published, file], found.manifest.kind, found.manifest.name, found.manifest.suite)


def _print_verified(bundle: Path, found: Verified, told: int, again: _Again | None) -> None:
    """The facts, the checks and the verdict; the notes of the first ``told`` checks have been printed already."""
    from fedbench.cli.output import console, facts, table
    from fedbench.submission.compare import TOLERANCE, table_rows
    from fedbench.texts import visible

    out = console()
    if found.manifest is not None and found.card is not None:
        card = found.card
        out.print(
            facts(
                [
                    ("bundle", visible(str(bundle))),
                    (found.manifest.kind, f"{found.manifest.name} (version {card.version})"),
                    ("title", visible(card.title)),
                    ("paper", visible(card.paper)),
                    ("claims", visible(str(found.claimed or found.manifest.suite))),
                    ("runs", f"{len(found.rows):,}"),
                ]
            )
        )
    out.print(
        table(("check", "verdict"), [(each.name, "REFUSED" if each.reasons else "passed") for each in found.checks])
    )
    if again is not None and again.rerun.compared:
        headings = ("run", "metric", "stated", "again", "apart", "tolerance", "")
        out.print(table(headings, table_rows(again.rerun.compared), right=headings[2:6]))
        out.print(
            f"Tolerance: {TOLERANCE} in every number of the curve and all that is made of it; of a run that differs, the"
            " range of its repetitions with other roundings, if that is more. Data, targets, malicious clients, rounds and"
            f" parameters must be equal. The draw is repeated by --seed {again.seed}.",
            soft_wrap=True,
        )
    _print_notes(found.checks[told:])
    _print_reasons(found.checks)


def _verdict(found: Verified, again: _Again | None) -> str:
    """The last line, in which everything is said."""
    from fedbench.cli.output import count
    from fedbench.submission.draw import told

    refused = sum(len(check.reasons) for check in found.checks)
    if lacking := [reason for check in found.checks if check.name == "data" for reason in check.reasons]:
        return f"not verified: {lacking[0]}"
    if refused:
        return (
            f"refused: {count(refused, 'reason')}; the first: {next(c.reasons[0] for c in found.checks if c.reasons)}"
        )
    if again is None:
        return "read: whole and consistent; nothing was run again, so its numbers are only claimed"
    share = f"{again.repeated:,} of {count(again.runs, 'run')} repeated"
    return f"verified: {share}; {told(again.runs - again.sure, again.repeated - again.sure)}. Times are only claimed"


def _print_notes(checks: Sequence[Check]) -> None:
    from fedbench.cli.output import console

    for check in checks:
        for text in check.notes:
            console(err=True).print(f"note: {check.name}: {text}", soft_wrap=True)


def _print_reasons(checks: Sequence[Check]) -> None:
    from fedbench.cli.output import console

    for check in checks:
        for reason in check.reasons:
            console(err=True).print(f"refused: {check.name}: {reason}", soft_wrap=True)


def _data(found: Verified, again: _Again | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "verified": found.ok and again is not None,
        "refused": not found.ok,
        "manifest": found.manifest.model_dump(mode="json") if found.manifest else None,
        "card": found.card.model_dump(mode="json") if found.card else None,
        "checks": [asdict(each) for each in found.checks],
        "verdict": _verdict(found, again),
        "draw": again.seed if again else None,
        "runs": len(found.rows),
        "repeated": again.repeated if again else 0,
        "found_with": again.chances if again else {},
        "compared": [asdict(each) | {"ok": each.ok} for each in (again.rerun.compared if again else ())],
    }


def _joined(command: Sequence[str]) -> str:
    import shlex

    return shlex.join(command)


def _write(path: Path, data: bytes) -> None:
    from fedbench.files import write_file

    write_file(path, data, "the bundle")
