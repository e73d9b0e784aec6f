"""``fedbench check``: the contract tests of an attack, a defense, a model or a dataset."""

from __future__ import annotations

import dataclasses
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check that an entry keeps its contract: each check with ok or failed, and what to do. Exit code 1 if one fails."""
    from fedbench.cli.output import console, print_json
    from fedbench.errors import unknown
    from fedbench.plugins import KINDS, is_file, load_file

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if is_file(entry):
        loaded = load_file(entry, kind)
        found, cls = loaded.kind, loaded.cls
    else:
        found, cls = _registered(entry, kind)
    from fedbench.testing import check_entry

    findings: list[Finding] = []
    out = console()
    for finding in check_entry(found, cls):
        findings.append(finding)
        if not as_json:
            _print(out, finding)
    failed = [each for each in findings if not each.ok]
    if as_json:
        checks = [dataclasses.asdict(each) for each in findings]
        print_json({"kind": found, "name": cls.card.name, "passed": not failed, "checks": checks})
    else:
        counts = {status: sum(each.status == status for each in findings) for status in ("warning", "skipped")}
        more = "".join(f", {number} {status}" for status, number in counts.items() if number)
        result = f"{len(failed)} of {len(findings)} checks failed" if failed else f"{len(findings)} checks passed"
        out.print(f"{found} {cls.card.name}: {result}{more}.")
    raise typer.Exit(1 if failed else 0)


def _registered(name: str, kind: Kind | None) -> tuple[Kind, type[Any]]:
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
    return found[0], registry_of(found[0]).get(name)


def _print(out: Any, finding: Finding) -> None:
    what = f": {finding.what}" if finding.what else ""
    out.print(f"{finding.status:<{_WIDTH}}{finding.name}{what}", soft_wrap=True)
    if finding.todo:
        out.print(f"{'':<{_WIDTH}}-> {finding.todo}", soft_wrap=True)
