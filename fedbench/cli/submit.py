"""``fedbench submit`` and ``verify``: a bundle of an entry and its runs, and what is to be thought of one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fedbench.cli.run import Only, choose_device

if TYPE_CHECKING:
    from fedbench.submission.report import Check
    from fedbench.submission.rerun import Compared
    from fedbench.submission.verify import Verified

WARNING = """\
The re-run executes the code in this bundle, written by a stranger, with your rights: it can read and delete your files and
use your network. Nothing here can judge it. Read source.py first (fedbench verify {bundle} --source), and do this in a
container or on a machine without anything of value."""


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
    _write(path, made.data)
    console().print(
        f"{path}: {kind} {of.name}, {count(len(made.claimed.runs), 'run')} of {made.claimed}, {len(made.data):,} bytes."
        f" Anyone checks it with: fedbench verify {path}",
        soft_wrap=True,
    )


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `fedbench submit` made.")],
    runs: Annotated[int, typer.Option(min=1, help="How many runs are drawn and run again.")] = 3,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw, to repeat it. [default: a new one]")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run the code in the bundle without asking.")] = False,
    no_rerun: Annotated[bool, typer.Option("--no-rerun", help="Run nothing: only read.")] = False,
    source: Annotated[bool, typer.Option("--source", help="Only print the code in the bundle, to read it.")] = False,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Write its records, once verified, for `leaderboard --results`."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where other bundles and records are: no other bundle may have its name, and --records leaves twins out"
            " that are there.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Check a bundle without trusting it: hashes, schema, completeness, then a random sample of its runs again."""
    from fedbench.cli.lazy import defer_torch

    defer_torch()
    from fedbench.cli.output import print_json
    from fedbench.errors import UserError
    from fedbench.submission.beside import check_name
    from fedbench.submission.container import read_bundle
    from fedbench.submission.verify import verify as check_bundle

    if records is not None and no_rerun:
        raise UserError("--records are those of a bundle that is verified; --no-rerun verifies none.")
    if records is not None and records.suffix != ".parquet":
        raise UserError(f"--records {str(records)!r} must end in .parquet.")
    if beside is not None and not beside.is_dir():
        raise UserError(f"--beside {str(beside)!r} is no folder.")
    data = read_bundle(bundle)
    if source:
        _print_source(data)
        return
    found = check_bundle(data)
    if found.ok and found.manifest is not None and beside is not None:
        check_name(found.manifest, bundle, beside, found.step("name"))
    again: _Again | None = None
    told = 0
    if found.ok and not no_rerun:
        if not as_json:
            _print_notes(found.checks)  # what to read before the code runs
        told = len(found.checks)
        if not yes:
            _ask(bundle, as_json)
        again = _run_again(found, runs, seed, as_json)
    if as_json:
        print_json(_data(found, again))
    else:
        _print_verified(bundle, found, told, again)
    if records is not None and found.ok:
        _write_records(found, records, beside)
    raise typer.Exit(0 if found.ok else 1)


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


def _write_records(found: Verified, file: Path, beside: Path | None) -> None:
    from fedbench.cli.output import console, count
    from fedbench.submission.beside import write_records

    assert found.claimed is not None
    written, known = write_records(found, found.claimed, file, beside)
    left = f"; {count(known, 'twin')} left out, since {beside} has {'it' if known == 1 else 'them'}" if known else ""
    console(err=True).print(f"{count(written, 'record')} in {file}{left}", soft_wrap=True)


def _ask(bundle: Path, as_json: bool) -> None:
    """Say what is about to happen, and stop unless it is wanted."""
    import shlex

    from fedbench.errors import UserError
    from fedbench.texts import visible

    typer.echo(WARNING.format(bundle=visible(shlex.quote(str(bundle)))), err=True)
    if as_json or not interactive():
        raise UserError("the re-run needs --yes, since nobody can be asked here; --no-rerun only reads.")
    if not typer.confirm("Run it?", err=True):
        raise UserError("not run again; --no-rerun only reads.")


def interactive() -> bool:
    """Whether somebody is there who can be asked."""
    return sys.stdin.isatty()


class _Again(NamedTuple):
    """The re-run: the seed of the draw, how many runs it could be made of, and what was compared."""

    seed: int
    able: int
    compared: Sequence[Compared]


def _run_again(found: Verified, runs: int, seed: int | None, quiet: bool) -> _Again:
    import secrets

    from fedbench.cli.output import console, count, duration
    from fedbench.submission.rerun import at_hand, draw, patience, rerun

    drawn = secrets.randbelow(2**31) if seed is None else seed
    check = found.step("re-run")
    able = at_hand(found, ["cpu", choose_device("auto")], check)
    sample = draw(found, able, runs, drawn)
    if not quiet:
        most = duration(patience(sample))
        text = f"running {count(len(sample), 'run')} of {len(found.rows):,} again"
        text += f" (draw --seed {drawn}; stopped after {most}) ..."
        console(err=True).print(text, soft_wrap=True)
    return _Again(drawn, len(able), rerun(found, sample, check))


def _print_verified(bundle: Path, found: Verified, told: int, again: _Again | None) -> None:
    """The facts, the checks and the verdict; the notes of the first ``told`` checks have been printed already."""
    from fedbench.cli.output import console, count, facts, table
    from fedbench.submission.rerun import TOLERANCE, table_rows
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
    if again is not None and again.compared:
        headings = ("run", "metric", "stated", "again", "apart", "tolerance", "")
        out.print(table(headings, table_rows(again.compared), right=headings[2:6]))
        out.print(
            f"Tolerance: {TOLERANCE} in every metric at the end, the peak, the tail and the best epoch; of a run that"
            " differs, the range of its repetitions with other roundings, if that is more. Data, targets, malicious clients,"
            f" rounds and parameters must be equal. The draw is repeated by --seed {again.seed}.",
            soft_wrap=True,
        )
    _print_notes(found.checks[told:])
    _print_reasons(found.checks)
    if not found.ok:
        out.print("refused")
    elif again is None:
        out.print("whole and consistent; nothing was run again, so its numbers are only claimed")
    elif again.able < len(found.rows):
        left = count(len(found.rows) - again.able, "run")
        out.print(
            f"verified, but for {left} of {len(found.rows):,} that cannot be repeated here: their numbers are only claimed,"
            " as are all times",
            soft_wrap=True,
        )
    else:
        out.print("verified; times are only claimed")


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
        "draw": again.seed if again else None,
        "repeatable": again.able if again else None,
        "compared": [asdict(each) | {"ok": each.ok} for each in (again.compared if again else ())],
    }


def _joined(command: Sequence[str]) -> str:
    import shlex

    return shlex.join(command)


def _write(path: Path, data: bytes) -> None:
    from fedbench.errors import ResultsError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ResultsError(f"cannot write the bundle {path}: {error.strerror or error}.") from None
