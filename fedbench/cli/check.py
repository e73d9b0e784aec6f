"""``fedbench check``: the contract tests of an attack, a defense, a model or a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fedbench.plugins import Kind
    from fedbench.testing import Finding

_WIDTH = 9


def check(
    entry: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A Python file, or the name of an entry.")],
    kind: Annotated[
        str | None, typer.Option(metavar="attack|defense|model|dataset", help="Which, when several have the name.")
    ] = None,
    limit: Annotated[
        str, typer.Option(metavar="TIME", help="That it may take altogether, such as 90s, 10m or 1h30m.")
    ] = "10m",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check that an entry keeps its contract: each check with ok or failed, and what to do.

    A file is imported in a process of its own, confined where the system allows it, with a minute for each call and 4 GiB of
    memory. The last line is the verdict: "passed: ..." or "failed: ...". The exit code is 0 only if that is "passed".
    """
    from fedbench.cli.output import console, parse_time, print_json
    from fedbench.cli.verdict import speak
    from fedbench.errors import unknown
    from fedbench.plugins import KINDS, is_file
    from fedbench.testing.finding import Finding
    from fedbench.testing.judging import LIMITS, Examined

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    limits = dataclasses.replace(LIMITS, total=parse_time(limit, "--limit"))
    examined = Examined(entry, kind if is_file(entry) else _registered(entry, kind), limits)
    findings: list[Finding] = []
    out = console()
    for finding in examined.findings():
        findings.append(finding)
        if not as_json:
            _print(out, finding)
    what = f"{examined.kind or 'entry'} {examined.name or entry}"
    if all(each.ok for each in findings) and not any(each.status == "ok" for each in findings):
        findings.append(Finding("checks", "failed", "none was made and passed"))
    failed = [each for each in findings if not each.ok]
    verdict = _verdict(what, findings)
    if as_json:
        checks = [dataclasses.asdict(each) for each in findings]
        report = {"kind": examined.kind, "name": examined.name, "passed": not failed, "verdict": verdict}
        print_json(report | {"checks": checks})
        raise typer.Exit(1 if failed else 0)
    speak(verdict, not failed)


def _verdict(what: str, findings: Sequence[Finding]) -> str:
    """The last line: passed or failed, what, how many checks, and the first that failed."""
    failed = [each for each in findings if not each.ok]
    counts = {status: sum(each.status == status for each in findings) for status in ("warning", "skipped")}
    more = "".join(f", {number} {status}" for status, number in counts.items() if number)
    if failed:
        return f"failed: {what}: {len(failed)} of {len(findings)} checks{more}; the first: {failed[0].name}: {failed[0].what}"
    return f"passed: {what}: {len(findings)} checks{more}"


def _registered(name: str, kind: Kind | None) -> Kind:
    """Of what kind the entry with this name is."""
    from fedbench.errors import UserError, unknown
    from fedbench.plugins import KINDS, registry_of

    kinds = [kind] if kind else list(KINDS)
    known = {each: registry_of(each).names() for each in kinds}
    found = [each for each in kinds if name in known[each]]
    if not found:
        everything = {each for names in known.values() for each in names}
        raise unknown(kind or "entry", name, everything, "A file ends on .py.")
    if len(found) > 1:
        which = " or ".join(f"--kind {each}" for each in found)
        raise UserError(f"{name!r} is the name of {len(found)} entries; say {which}.")
    return found[0]


def _print(out: Any, finding: Finding) -> None:
    what = f": {finding.what}" if finding.what else ""
    out.print(f"{finding.status:<{_WIDTH}}{finding.name}{what}", soft_wrap=True)
    if finding.todo:
        out.print(f"{'':<{_WIDTH}}-> {finding.todo}", soft_wrap=True)
