"""The reference pages of the documentation, made of the code: cards, commands, suite files, columns of records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import typer.main

from fedbench.cli import app
from fedbench.cli.described import describe, is_table, names, text_of
from fedbench.data import ENTRIES
from fedbench.data.library import imported_names
from fedbench.runs import record
from fedbench.scenarios.suite import load_suite
from fedbench.scenarios.suite_format import docstrings, suite_format

_INTRODUCTIONS = {
    "attacks": "Every attack that comes with fedbench: what it wants, through what it acts, what it must know, and its"
    " parameters.",
    "defenses": "Every defense and purifier that comes with fedbench: its family, what the server must know, what it"
    " assumes, and its parameters. Scenarios chain them with `+`.",
    "models": "Every recommender that comes with fedbench, and its parameters.",
    "datasets": "Every dataset of the catalogue. `fedbench data get NAME` downloads what may be downloaded, with size and"
    " checksum; `longtail-*` are made on first use.",
    "protocols": "How data are split, clients trained and metrics computed in each source paper: every field for each model.",
    "extractors": "What makes features of item images.",
    "denoisers": "What the diffusion purifiers clean images with.",
}


def entries(kind: str) -> str:
    """A page of all entries of a kind, as `fedbench show` has them."""
    lines = [
        f"# {kind.capitalize()}",
        "",
        f"{_INTRODUCTIONS[kind]} `fedbench show NAME` prints the same.",
        "",
    ]
    return "\n".join([*lines, *_entries(kind, "##")]) + "\n"


def suites() -> str:
    """A page of all suites, as their files have them; what they plan is left to ``fedbench show``."""
    lines = [
        "# Suites",
        "",
        "Every suite that comes with fedbench. `fedbench show NAME` prints its scenarios, runs and matrix as well,"
        " `fedbench run NAME --dry-run` what would run.",
        "",
    ]
    for name in names("suites"):
        suite = load_suite(name)
        told = {"title": suite.title, "paper": suite.paper, "version": suite.version, "description": suite.description}
        lines += [f"## {name}", "", *_table(("", ""), ((key, text_of(value)) for key, value in told.items() if value))]
    return "\n".join(lines) + "\n"


def networks() -> str:
    """Extractors and denoisers on one page."""
    lines = ["# Extractors and denoisers", ""]
    for kind in ("extractors", "denoisers"):
        lines += [f"## {kind.capitalize()}", "", _INTRODUCTIONS[kind], "", *_entries(kind, "###")]
    return "\n".join(lines) + "\n"


def _entries(kind: str, level: str) -> Iterator[str]:
    here = set(imported_names()) - {entry.name for entry in ENTRIES} if kind == "datasets" else set()
    for name in names(kind):
        if name in here:  # imported on the machine that builds
            continue
        told = {key: value for key, value in describe(kind, name).items() if key not in ("here", "file")}
        yield from [f"{level} {name}", ""]
        tables = {key: value for key, value in told.items() if is_table(value)}
        facts = {key: value for key, value in told.items() if key not in tables and value not in ("", [], None)}
        yield from _table(("", ""), ((key.replace("_", " "), text_of(value)) for key, value in list(facts.items())[1:]))
        for key, value in tables.items():
            yield from [f"{key.capitalize()}:", ""]
            yield from _table(list(value[0]), (map(text_of, row.values()) for row in value))


def _table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is, but for code between backquotes."""
    pieces = re.split(r"(`+[^`]+`+)", " ".join(text.split()))
    plain = [piece if n % 2 else re.sub(r"([\\*_<\[\]#])", r"\\\1", piece) for n, piece in enumerate(pieces)]
    return "".join(plain).replace("|", r"\|")


def commands() -> str:
    """Every command with its arguments, options and examples."""
    lines = ["# Commands", "", "`fedbench COMMAND --help` prints the same.", ""]
    return "\n".join([*lines, *_command(typer.main.get_command(app), "fedbench", None)]) + "\n"


def _command(command: Any, path: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield from [f"## {path}", "", _prose(command.help or "")]
    yield from ["", "```text", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    records = [told for each in command.get_params(context) if (told := each.get_help_record(context)) is not None]
    yield from _table(("option", "what it is"), ((f"`{name}`", text) for name, text in records))
    told = [line.strip() for line in re.sub(r"\x08|Examples?:", "", command.epilog or "").splitlines()]
    for language, mine in (("bash", True), ("text", False)):
        lines = [line for line in told if line and line.startswith("fedbench ") == mine]
        if lines:
            yield from [
                f"```{language}",
                *(part for line in lines for part in re.split(r"; (?=fedbench )", line)),
                "```",
                "",
            ]
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _command(each, f"{path} {name}", context)


def _prose(text: str) -> str:
    return "\n\n".join(_cell(each) for each in re.split(r"\n\s*\n", text.replace("\b", "")) if each.strip())


def records() -> str:
    """The columns of a record, with their types."""
    told = {**docstrings(record.RunRecord), **dict(_groups())}
    lines = [
        "# Columns of records",
        "",
        "A run is one row of a parquet file, `RESULTS/<scenario id>-s<seed>.parquet`. `fedbench sql` asks all of them"
        " (`select column_name, column_type from (describe runs)` lists what it can ask for), `fedbench.load_results()` gives"
        f" them as one Arrow table. This is schema {record.SCHEMA_VERSION}. Metrics are fractions, times seconds.",
        "",
    ]
    rows = ((f"`{field.name}`", f"`{field.type}`", told.get(field.name, "")) for field in record.schema())
    return "\n".join([*lines, *_table(("column", "type", "what it is"), rows)]) + "\n"


def _groups() -> Iterator[tuple[str, str]]:
    """What columns are that no field of the record has a name for."""
    for name in record.METRICS:
        yield name, "at the last evaluation"
    for name in record.EXPOSURE:
        yield f"{name}_peak", f"the highest {name} of the curve"
        yield f"{name}_peak_epoch", "when that was"
        yield f"{name}_tail", f"mean of {name} over the last quarter of training"
    yield "best_epoch", f"with the best {record.SELECTED_BY}"
    for name in record.SELECTED:
        yield f"{name}_best", f"{name} at the best epoch"
    for name in record.SUBGROUP_MEASURES:
        side, among = name.split("_")[1], {"in": "among the users of the subgroup", "out": "among all others"}
        yield name, f"ER@{name.rpartition('_')[2]} at the end {among[side]}"
    for name in record.SAMPLING_ERRORS:
        yield (
            name,
            f"standard error of {name.removesuffix('_se')} at the end, of runs that measure a sample of the users",
        )
    yield "checksum", "over all other values"


PAGES: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    **{kind: lambda kind=kind: entries(kind) for kind in ("attacks", "defenses", "models", "datasets", "protocols")},  # type: ignore[misc]
    "suites": suites,
    "networks": networks,
    "suite-format": suite_format,
    "records": records,
}
"""What makes each page of the reference, by its name."""
