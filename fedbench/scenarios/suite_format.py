"""The reference of suite files, made of what reads them: every key with its type, default, meaning and an example."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedbench.federation.protocol import Protocol
from fedbench.scenarios import suite_file
from fedbench.scenarios.scenario import TARGET_POLICIES, Scenario
from fedbench.scenarios.suite_file import LABELS, Exclude, Expected, ExpectedTable, Group, Override, Reason, SuiteFile

PARTS: dict[str, type[BaseModel]] = {
    "": SuiteFile,
    "group": Group,
    "override": Override,
    "exclude": Exclude,
    "expected": Expected,
    "expected_table": ExpectedTable,
    "reason": Reason,
}
"""The models behind a file, by the name of their table."""

EXAMPLES = {
    "name": '"my-suite"',
    "version": "1",
    "title": '"Two attacks on my data"',
    "description": '"Which of them needs fewer clients?"',
    "paper": '"A. Author, Venue 2026"',
    "seeds": "[0, 1, 2]",
    "twins": "false",
    "defaults": '{ dataset = "ml-100k", model = "mf", target = "per-seed" }',
    "matrix": '{ attack = ["a-hum", "./my_attack.py"], malicious_ratio = [0.01, 0.05] }',
    "group": '[{ variant = "small", matrix = { malicious_ratio = [0.001] } }]',
    "override": '[{ when = { model = "ncf" }, set = { protocol_params = { epochs = 30 } } }]',
    "exclude": '[{ when = { attack = "psmu*", model = ["mf", "lightgcn"] } }]',
    "expected": '[{ where = { attack = "a-hum" }, metric = "er_10", value = 0.5, source = "Table 1" }]',
    "expected_table": '[{ source = "Table 1", columns = ["attack", "er_10"], rows = [["a-hum", 0.5]] }]',
    "reason": '[{ where = { attack = "a-hum" }, why = "fewer epochs", run = "0123456789abcdef-s0" }]',
    "group.variant": '"doses"',
    "group.seeds": "16",
    "group.adaptive": "true",
    "group.defaults": '{ defense = "krum", defense_params = { scope = "client" } }',
    "group.matrix": "{ malicious_ratio = [0.001, 0.01, 0.1] }",
    "override.when": '{ attack = "pieck-*", model = ["mf", "ncf"], malicious_ratio = 0.05 }',
    "override.set": "{ attack_params = { popular_items = 35 } }",
    "exclude.when": '{ variant = "doses", model = "lightgcn" }',
    "expected.where": '{ dataset = "ml-100k", attack = "a-hum" }',
    "expected.metric": '"er_10"',
    "expected.value": "0.937",
    "expected.source": '"Table 3"',
    "expected.band": "[0.85, 1.0]",
    "expected.near": "0.05",
    "expected.at_epoch": "20",
    "expected.statistic": '"peak"',
    "expected.note": '"read off the figure"',
    "expected.absent": '"its images are not public"',
    "expected_table.source": '"Table 3"',
    "expected_table.where": '{ dataset = "ml-100k" }',
    "expected_table.statistic": '"best-validation"',
    "expected_table.near": "{ er_10 = 0.05, hr_10 = 0.02 }",
    "expected_table.at_epoch": "20",
    "expected_table.absent": '"its images are not public"',
    "expected_table.columns": '["attack", "er_10", "hr_10"]',
    "expected_table.rows": '[["a-hum", 0.937, 0.54], ["a-ra", { value = 0.2, near = 0.1 }, 0.54]]',
    "reason.where": '{ attack = "a-hum" }',
    "reason.metric": '"er_*"',
    "reason.why": '"the paper trains longer than it says"',
    "reason.run": '"0123456789abcdef-s0"',
    "scenario.dataset": '"ml-100k"',
    "scenario.model": '"./my_model.py"',
    "scenario.attack": '"pieck-uea"',
    "scenario.defense": '"union+norm-bound"',
    "scenario.malicious_ratio": "0.05",
    "scenario.protocol": '"aaai23"',
    "scenario.target": '"per-seed"',
    "scenario.num_targets": "3",
    "scenario.model_params": "{ embedding_size = 64 }",
    "scenario.attack_params": "{ popular_items = 35 }",
    "scenario.defense_params": '{ union = { distance = "squared" }, norm-bound = { bound = 0.1 } }',
    "scenario.protocol_params": "{ epochs = 30, learning_rate = 0.5 }",
}
"""A value of every key, as TOML has it."""

_INTRODUCTION = """\
# The format of suite files

Made by `fedbench pages` of the code that reads suite files: do not edit. A suite is a TOML file;
`fedbench new suite my-suite` writes one that runs, with comments, and `fedbench run ... --save my-suite.toml` makes one
of options. `fedbench run my-suite.toml --dry-run` says what it would run; a mistake is one line that names the key and the
nearest right one.
"""


def suite_format() -> str:
    """The whole page as Markdown."""
    metrics = (suite_file.__doc__ or "").partition("A metric of an expected value")[2].strip()
    metrics = metrics.replace(":data:`UNRECORDED`", _words(suite_file.UNRECORDED))
    lines = [_INTRODUCTION, "## The file", ""]
    for name, model in PARTS.items():
        if name:
            lines += [f"## `[[{name}]]`", "", _plain(inspect.getdoc(model) or ""), ""]
        lines += [*_table(_keys(name, model)), ""]
    lines += [
        "## Fields of a scenario",
        "",
        "They stand in `defaults`, `matrix` (each with a list of values), `set`, `when` and `where`, of which the last two"
        f" take `variant`, too. `--only` takes {_words(LABELS)}. In `dataset`, `model`, `attack` and `defense` a file of your"
        ' own may stand for a name (`attack = "./my_attack.py"`, as seen from the suite file): it is run.',
        "",
        *_table(_scenario_keys()),
        "",
        f"Targets: {TARGET_POLICIES.replace(chr(39), '`')}.",
        "",
        "## Fields of `protocol_params`",
        "",
        "The defaults are those of the class; each protocol has its own (`fedbench show icde24`).",
        "",
        *_table(_protocol_keys()),
        "",
        "## Metrics of published values",
        "",
        _plain(f"A metric {metrics}"),
        "",
    ]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Key:
    """A line of a table."""

    name: str
    type: str
    default: str
    meaning: str
    example: str


def _keys(part: str, model: type[BaseModel]) -> Iterator[Key]:
    told = docstrings(model)
    for name, info in model.model_fields.items():
        key = info.alias or name
        default = "required" if info.is_required() else _default(info)
        yield Key(key, _type(_annotated(info)), default, told[name], EXAMPLES[f"{part}.{key}" if part else key])


def _scenario_keys() -> Iterator[Key]:
    told, hints = docstrings(Scenario), get_type_hints(Scenario)
    for field in dataclasses.fields(Scenario):
        default = "required" if field.default is dataclasses.MISSING else _toml(field.default)
        default = "{}" if field.default_factory is not dataclasses.MISSING else default
        yield Key(field.name, _type(hints[field.name]), default, told[field.name], EXAMPLES[f"scenario.{field.name}"])


def _protocol_keys() -> Iterator[Key]:
    for name, info in Protocol.model_fields.items():
        yield Key(name, _type(_annotated(info)), _default(info), info.description or "", "")


def _table(keys: Iterator[Key]) -> list[str]:
    rows = list(keys)
    examples = any(row.example for row in rows)
    out = ["| key | type | default | meaning |" + " example |" * examples, "|---|---|---|---|" + "---|" * examples]
    for row in rows:
        cells = [
            f"`{row.name}`",
            row.type,
            row.default if row.default == "required" else f"`{row.default}`",
            row.meaning,
        ]
        cells += [f"`{row.example}`"] if examples else []
        out.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return out


@functools.cache
def docstrings(cls: type[Any]) -> Mapping[str, str]:
    """What stands below each field of a class in its source, on one line; raises ``KeyError`` on use where nothing does."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        said = below.value if isinstance(below, ast.Expr) else None
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, ast.Constant):
            found[field.target.id] = _plain(str(said.value))
    return found


def _plain(text: str) -> str:
    """A docstring as Markdown: on one line, with single backquotes, and the names of things without roles."""
    return re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", " ".join(text.split())).replace("``", "`")


def _annotated(info: FieldInfo) -> Any:
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type(hint: Any) -> str:
    """An annotation in words: ``whole number >= 1 or list of whole numbers``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [text for each in arguments[1:] for text in _limits(each)]
        return " ".join([_type(arguments[0]), ", ".join(limits)]).strip()
    if origin is Literal:
        return _words(map(_toml, arguments), "or")
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is list:
        inner = _type(arguments[0])
        nested = inner.startswith(("list", "table"))
        return "list" if inner == "anything" else f"list of {inner}s" if nested else f"list ({inner})"
    if origin is tuple:
        return f"list of {len(arguments)} ({_type(arguments[0])})"
    if origin is not None and issubclass(origin, Mapping):
        return "table"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "table"
    return "anything" if hint is Any else _NAMES[hint]


def _limits(mark: Any) -> Iterator[str]:
    """What an annotation's mark asks for, as far as it is short to say."""
    if isinstance(mark, FieldInfo):
        for each in mark.metadata:
            yield from _limits(each)
    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
        if getattr(mark, name, None) is not None:
            yield f"{sign} {getattr(mark, name):g}" if getattr(mark, name) < 10**6 else f"{sign} {getattr(mark, name)}"


def _default(info: FieldInfo) -> str:
    return "none" if info.default is None else _toml(info.default)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(names: Any, joined: str = "and") -> str:
    listed = [f"`{name}`" for name in names]
    return f"{', '.join(listed[:-1])} {joined} {listed[-1]}" if len(listed) > 1 else listed[0]
