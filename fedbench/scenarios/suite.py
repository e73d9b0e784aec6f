"""A suite: a named, versioned list of scenarios, expanded from the matrix in its file (see ``suite_file``)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedbench.errors import UserError, unknown
from fedbench.scenarios.files import named_in, with_files
from fedbench.scenarios.limits import (
    MOST_SEEDS,
    SEED_LIMIT,
    check_runs,
    check_size,
    check_values,
    read_file,
)
from fedbench.scenarios.protocols import without_validation
from fedbench.scenarios.scenario import Scenario, checked_ratio, shared
from fedbench.scenarios.suite_file import FIELDS, LABELS, Expected, Group, SuiteFile, check_names, explain, lowered


@dataclass(frozen=True)
class Planned:
    """A scenario of a suite with its seeds."""

    scenario: Scenario
    seeds: tuple[int, ...]
    variants: tuple[str, ...] = ()
    """Labels of the groups that it comes from."""
    twin: bool = False
    """Whether it is there only as the twin of others."""
    adaptive: bool = False
    """Whether it is run only if the response between other doses of its curve asks for it (:mod:`fedbench.runs.doses`)."""

    @property
    def labels(self) -> dict[str, Any]:
        """What ``when``, ``where`` and ``--only`` match."""
        return {name: getattr(self.scenario, name) for name in FIELDS} | {"variant": list(self.variants)}


class Suite(SuiteFile):
    """A suite, checked as a whole. :func:`load_suite` makes one; :meth:`plan` lists its scenarios."""

    file: str
    """The path as the user knows it."""

    def plan(self, only: Sequence[str] = (), seeds: str | None = None) -> tuple[Planned, ...]:
        """Its scenarios in the order of the file, each once, with the twins of those that were selected.

        Args:
            only: filters as ``--only`` takes them, see :func:`parse_filters`.
            seeds: instead of the suite's own, as ``--seeds`` takes them, see :func:`parse_seeds`.

        Raises:
            UserError: a filter or the seeds make no sense, or nothing is left.
        """
        wanted = parse_filters(only)
        chosen = [planned for planned in self.scenarios if matches(wanted, planned.labels)]
        if not chosen:
            raise self._nothing(wanted)
        if seeds is not None:
            given = parse_seeds(seeds)
            chosen = [dataclasses.replace(planned, seeds=given) for planned in chosen]
        planned = _merged(itertools.chain.from_iterable(self._with_twins(planned) for planned in chosen))
        check_runs(sum(len(each.seeds) for each in planned), self.name)
        return planned

    def warnings(self, planned: Iterable[Planned]) -> list[str]:
        """What to know before these scenarios of the suite are run."""
        blind: dict[tuple[str, str], list[str]] = {}
        for each in planned:
            s, protocol = each.scenario, each.scenario.resolved.protocol
            if without_validation(s.protocol, protocol):
                blind.setdefault((s.protocol, protocol.split), []).append(s.dataset)
        return [
            f"protocol {name!r} takes the checkpoint that is best on validation items, but split {split!r} of"
            f" {', '.join(dict.fromkeys(datasets))} has none: it is the last checkpoint that counts."
            for (name, split), datasets in blind.items()
        ]

    @functools.cached_property
    def scenarios(self) -> tuple[Planned, ...]:
        """All scenarios without the twins."""
        groups = self._groups
        check_size(sum(math.prod(map(len, group.matrix.values())) for group in groups), self.file)
        used: set[str] = set()
        found = []
        for number, group in enumerate(groups, 1):
            seeds = _listed(group.seeds or self.seeds)
            place = f"group {number}: " if self.group else ""
            for cell in _cells(group):
                values = self._overridden(cell, group.variant, used)
                if values is None:
                    continue
                for name in ("dataset", "model"):
                    if name not in values:
                        raise UserError(f"{self.file}: {place}key {name!r} is missing.")
                try:
                    scenario = _scenario(values)
                    _ = scenario.id  # resolves every name and parameter
                except UserError as error:
                    raise UserError(f"{self.file}: {place}{lowered(str(error))}") from None
                variants = () if group.variant is None else (group.variant,)
                found.append(Planned(scenario, seeds, variants, adaptive=group.adaptive))
        for kind, count in (("override", len(self.override)), ("exclude", len(self.exclude))):
            for number in range(1, count + 1):
                if f"{kind} {number}" not in used:
                    raise UserError(f"{self.file}: {kind} {number} matches no scenario.")
        return _merged(found)

    def with_scenarios(self, planned: Iterable[Planned]) -> Suite:
        """The same suite with other scenarios, and no published values."""
        suite = self.model_copy(update={"expected": [], "expected_table": []})
        suite.__dict__["scenarios"] = _merged(planned)  # in the place of what it would work out from its file
        return suite

    @property
    def _groups(self) -> list[Group]:
        """The groups with what they inherit from the top of the file."""
        if not self.group:
            return [Group(defaults=self.defaults, matrix=self.matrix)]
        groups = []
        for own in self.group:
            inherited = {key: values for key, values in self.matrix.items() if key not in own.defaults}
            values = {"defaults": _merge(self.defaults, own.defaults), "matrix": inherited | own.matrix}
            groups.append(own.model_copy(update=values))
        return groups

    def _overridden(self, cell: dict[str, Any], variant: str | None, used: set[str]) -> dict[str, Any] | None:
        """The fields of a scenario after overrides, or None when it is excluded; notes in ``used`` what applied."""
        for number, override in enumerate(self.override, 1):
            if matches(override.when, {**cell, "variant": variant}):
                used.add(f"override {number}")
                cell = _merge(cell, override.values)
        for number, exclude in enumerate(self.exclude, 1):
            if matches(exclude.when, {**cell, "variant": variant}):
                used.add(f"exclude {number}")
                return None
        return cell

    def _with_twins(self, planned: Planned) -> Iterator[Planned]:
        yield planned
        if self.twins:
            scenario = planned.scenario
            for twin in (scenario.clean, scenario.undefended, scenario.clean.undefended):
                if twin != scenario:
                    yield dataclasses.replace(planned, scenario=twin, twin=True, adaptive=False)

    def _nothing(self, wanted: Mapping[str, list[str]]) -> UserError:
        """The error for filters that leave nothing: names the first that fits nothing by itself."""
        for key, patterns in wanted.items():
            if not any(matches({key: patterns}, planned.labels) for planned in self.scenarios):
                values = [planned.labels[key] for planned in self.scenarios]
                flat = [each for value in values for each in (value if isinstance(value, list) else [value])]
                known = f"there are {', '.join(sorted({_text(each) for each in flat}))}" if flat else "none is labelled"
                return UserError(f"--only {key}={','.join(patterns)} fits nothing in suite {self.name!r}; {known}.")
        return UserError(f"suite {self.name!r} has no scenario that fits every --only.")


def matrix_of(planned: Iterable[Planned]) -> dict[str, list[Any]]:
    """Every value of every field that ``--only`` can name, in the order of first occurrence."""
    found: dict[str, list[Any]] = {}
    for each in planned:
        for label in LABELS:
            value = each.labels[label]
            found.setdefault(label, []).extend(value if isinstance(value, list) else [value])
    return {label: list(dict.fromkeys(values)) for label, values in found.items() if values}


def load_suite(name: str) -> Suite:
    """The suite called ``name``, or the one in the TOML file ``name``; files of entries that it names are loaded.

    Raises:
        UserError: there is none, or the file is wrong; the message names the file and the key.
    """
    folder = None
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path, shown = Path(os.path.expanduser(name)), name
        folder = path.parent
        if not os.path.isfile(path):
            raise UserError(f"suite file {name!r} does not exist; `fedbench list suites` names those that come along.")
    else:
        path, shown = suites_folder() / f"{name}.toml", f"suites/{name}.toml"
        if name not in suite_names():
            raise unknown("suite", name, suite_names(), "See `fedbench list suites`, or give the path of a .toml file.")
    text = read_file(path, shown)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{shown}: not valid TOML: nested too deeply.") from None
    except ValueError as error:  # also of integers with thousands of digits
        raise UserError(f"{shown}: not valid TOML: {lowered(str(error))[:300].rstrip('.')}.") from None
    return parse_suite(data, shown, folder)


def parse_suite(data: Mapping[str, Any], file: str, folder: Path | None = None) -> Suite:
    """A suite from parsed TOML.

    Args:
        data: the content. file: what messages call it. folder: whence paths of entries are seen, whose files are loaded;
            None: entries are names alone.

    Raises:
        UserError: for the first mistake, with file and key.
    """
    try:
        check_values(data)
        if folder is not None:
            data = with_files(data, named_in(folder))
        content = SuiteFile.model_validate(data)
        check_names(content)
        cells = [
            cell
            for number, table in enumerate(content.expected_table, 1)
            for cell in table.cells(f"expected_table {number}")
        ]
    except ValidationError as error:
        raise UserError(f"{file}: {explain(error, SuiteFile)}") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    values = {name: getattr(content, name) for name in SuiteFile.model_fields}
    suite = Suite.model_construct(**{**values, "expected": [*content.expected, *cells], "file": file})
    everything = [planned.labels for planned in suite.plan()]
    for expected in suite.expected:
        if not expected.absent and not any(matches(expected.where, labels) for labels in everything):
            shown = ", ".join(f"{key} = {value!r}" for key, value in expected.where.items())
            raise UserError(f"{file}: expected {expected.metric}: no scenario has {shown}.")
    return suite


def suites_folder() -> Path:
    """Where the suites that come with fedbench lie: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).parents[1]
    packaged = here / "_suites"
    return packaged if packaged.is_dir() else here.parent / "suites"


def suite_names() -> list[str]:
    """Names of the suites that come with fedbench."""
    return sorted(path.stem for path in suites_folder().glob("*.toml"))


def parse_filters(only: Iterable[str]) -> dict[str, list[str]]:
    """``["dataset=ml-*,model=mf", "model=ncf"]`` -> ``{"dataset": ["ml-*"], "model": ["mf", "ncf"]}``.

    Different keys must all match, the alternatives of one key any. A part without ``=`` is another alternative of
    the key before it: ``attack=a-ra,a-hum``.
    """
    filters: dict[str, list[str]] = {}
    for text in only:
        key = ""
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals:
                key = name.strip()
                if key not in LABELS:
                    raise unknown("key of --only", key, LABELS)
            else:
                value = part
            if not key or not value.strip():
                raise UserError(f"--only {text!r} must be key=glob, such as --only 'dataset=ml-100k,attack=pieck-*'.")
            filters.setdefault(key, []).append(value.strip())
    return filters


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"3"`` -> (0, 1, 2); ``"0,4"`` -> (0, 4); ``"4,"`` -> (4,)."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError(f"--seeds {text!r} must be a number of seeds (3) or a list of them (0,1,4).")
    numbers = [int(part) if len(part) < 12 else SEED_LIMIT for part in parts]
    if "," not in text and numbers[0] < 1:
        raise UserError(f"--seeds {text!r} must be at least 1; to run seed 0 alone write '0,'.")
    if max(numbers) >= SEED_LIMIT or len(numbers) > MOST_SEEDS or ("," not in text and numbers[0] > MOST_SEEDS):
        raise UserError(f"--seeds {text!r}: at most {MOST_SEEDS:,} seeds, each below 2^31.")
    return tuple(dict.fromkeys(numbers)) if "," in text else tuple(range(numbers[0]))


def matches(wanted: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether every key of ``wanted`` (a value, a glob, a list of these, or parameters) fits ``labels``."""
    return all(_fits(pattern, labels.get(key)) for key, pattern in wanted.items())


def _fits(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, list):
        return any(_fits(each, value) for each in pattern)
    if isinstance(value, list):
        return any(_fits(pattern, each) for each in value)
    if isinstance(pattern, Mapping):
        return isinstance(value, Mapping) and matches(pattern, value)
    if isinstance(pattern, str):
        return value is not None and fnmatchcase(_text(value), pattern)
    return bool(pattern == value)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cells(group: Group) -> Iterator[dict[str, Any]]:
    """Every combination of the group's matrix, on top of its defaults and those of a scenario."""
    for values in itertools.product(*group.matrix.values()):
        cell = _merge(_DEFAULTS, group.defaults)
        for key, value in zip(group.matrix, values, strict=True):
            together = isinstance(value, Mapping) and not key.endswith("_params")
            cell = _merge(cell, value if together else {key: value})
        yield cell


def _scenario(values: Mapping[str, Any]) -> Scenario:
    """The scenario of a cell; without an attack the ratio says what a defense assumes, and nobody is malicious."""
    if values.get("attack", "none") != "none":
        return Scenario(**values)
    share = checked_ratio(values.get("malicious_ratio", 0.0))
    clean = Scenario(**{**values, "malicious_ratio": 0.0, "attack_params": {}})
    return clean.assuming(share)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` wins; parameters are merged."""
    merged = {**below, **above}
    for key, value in above.items():
        if key.endswith("_params") and isinstance(value, Mapping) and isinstance(below.get(key), Mapping):
            merged[key] = {**below[key], **value}
    return merged


def _merged(planned: Iterable[Planned]) -> tuple[Planned, ...]:
    """Each scenario once, at its first place, with the seeds and variants of all its occurrences."""
    by_id: dict[str, Planned] = {}
    for each in planned:
        each = dataclasses.replace(each, scenario=shared(each.scenario))
        before = by_id.get(each.scenario.id)
        if before is not None:
            seeds = tuple(dict.fromkeys([*before.seeds, *each.seeds]))
            variants = tuple(dict.fromkeys([*before.variants, *each.variants]))
            named = [one for one in (before, each) if not one.twin]
            adaptive = bool(named) and all(one.adaptive for one in named)
            each = Planned(before.scenario, seeds, variants, before.twin and each.twin, adaptive)
        by_id[each.scenario.id] = each
    return tuple(by_id.values())


def _defaults() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Scenario):
        if field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            values[field.name] = field.default
    return values


_DEFAULTS = _defaults()


def _listed(seeds: int | list[int]) -> tuple[int, ...]:
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(dict.fromkeys(seeds))


__all__ = ["LABELS", "Expected", "Planned", "Suite", "load_suite", "parse_suite", "suite_names", "suites_folder"]
