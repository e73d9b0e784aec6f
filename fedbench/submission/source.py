"""The source file of a bundle, read but never imported."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from fedbench.entries.cards import Channel, DefenseFamily, Goal, Knowledge
from fedbench.plugins import registry_of
from fedbench.plugins.card_data import CardData
from fedbench.submission.manifest import Manifest
from fedbench.submission.report import Check, brief
from fedbench.texts import hidden

_ENUMS: dict[str, type[StrEnum]] = {each.__name__: each for each in (Goal, Channel, Knowledge, DefenseFamily)}
_USUAL = frozenset(
    {"__future__", "abc", "collections", "dataclasses", "enum", "fedbench", "functools", "itertools", "math", "numpy"}
    | {"operator", "pydantic", "scipy", "torch", "typing"}
)
"""What an attack or a defense has reason to import; all else is pointed out to whoever reads it."""
_POWERFUL = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "open", "vars"})
_UNKNOWN = object()


def check_source(source: bytes, manifest: Manifest, card: CardData, check: Check) -> None:
    """Whether the file is readable Python that defines the class of the card, with what the card says."""
    text = _text(source, check)
    if text is None:
        return
    _check_module(text, source, manifest, check)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        check.refuse(f"source.py: not valid Python: {error}.")
        return
    own = next((each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == card.class_name), None)
    if own is None:
        check.refuse(f"source.py: there is no class {card.class_name}, which the card names.")
        return
    _check_card(own, card, check)
    _point_out(tree, check)


def text_of(source: bytes) -> str:
    """The source code of a file as Python reads it."""
    return importlib.util.decode_source(source)


def recomputed_hash(source: bytes, manifest: Manifest, check: Check) -> str | None:
    """The source hash that records of this file have (see :func:`fedbench.runs.identity.source_hash`), without importing it.

    The modules of fedbench that the class derives from are those of this fedbench.
    """
    sources = []
    for name in manifest.modules:
        text = text_of(source) if name == manifest.module else _own_source(name)
        if text is None:
            check.refuse(f"manifest.json: modules names {name!r}, which is no module of this fedbench.")
            return None
        sources.append((name, text))
    return hashlib.sha256(json.dumps(sorted(sources)).encode()).hexdigest()


def module_of_file(source: bytes) -> str:
    """The name under which :mod:`fedbench.plugins` imports a file."""
    return f"fedbench_file_{hashlib.sha256(source).hexdigest()[:16]}"


def _own_source(name: str) -> str | None:
    """The source code of a module of fedbench, which is not imported either."""
    if name.partition(".")[0] != "fedbench":
        return None
    try:
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec is not None else None
        return loader.get_source(name) if loader is not None else None
    except (ImportError, AttributeError, ValueError):
        return None


def _text(source: bytes, check: Check) -> str | None:
    try:
        plain = source.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        read = text_of(source)
    except (SyntaxError, LookupError, ValueError) as error:
        check.refuse(f"source.py: not text in UTF-8: {error}.")
        return None
    if plain != read:
        check.refuse("source.py: declares an encoding in which it reads as something else than in UTF-8.")
        return None
    found = hidden(plain, allowed="\n\t\f")
    if found:
        line = next(n for n, each in enumerate(plain.split("\n"), 1) if hidden(each, allowed="\t\f"))
        check.refuse(f"source.py:{line}: holds the character {found}, which cannot be seen; write it as an escape.")
        return None
    return plain


def _check_module(text: str, source: bytes, manifest: Manifest, check: Check) -> None:
    """Whether the file is what records of an entry of this name can have been made with."""
    registry = registry_of(manifest.kind)
    if manifest.module not in manifest.modules:
        check.refuse("manifest.json: module is not one of modules.")
    if registry.builtin(manifest.name):
        if manifest.module != registry.get(manifest.name).__module__ or _own_source(manifest.module) != text:
            check.refuse(
                f"the name {manifest.name!r} is taken by the {manifest.kind} that comes with fedbench"
                f" ({registry.origin(manifest.name)}), and the source is not the same."
            )
    elif "/" not in manifest.name and manifest.module != module_of_file(source):
        check.refuse(f"manifest.json: module = {manifest.module!r}, but this file is {module_of_file(source)}.")


def _check_card(own: ast.ClassDef, card: CardData, check: Check) -> None:
    """Compare the card in the code, as far as it is written out, with the one in the bundle."""
    call = next(
        (
            node.value
            for node in own.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call) and _assigns_card(node)
        ),
        None,
    )
    if call is None:
        check.note("source.py: the card is not written out in the class; only a re-run compares it.")
        return
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        check.note("source.py: the card's fields are not given by name; only a re-run compares them.")
        return
    given = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    for field in dataclasses.fields(card.card()):
        written, stated = given.get(field.name, field.default), getattr(card, field.name)
        if written is _UNKNOWN:
            check.note(f"source.py: the card's {field.name} is computed; only a re-run compares it.")
        elif _comparable(written) != _comparable(stated):
            check.refuse(f"card.json: {field.name} = {brief(stated)}, but the source has {brief(written)}.")


def _assigns_card(node: ast.Assign | ast.AnnAssign) -> bool:
    targets: Sequence[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == "card" for target in targets)


def _literal(node: ast.expr) -> Any:
    """The value of an expression that is written out: literals, members of the cards' enumerations, frozensets of them."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _ENUMS:
        members = _ENUMS[node.value.id].__members__
        return members.get(node.attr, _UNKNOWN)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
        inner = node.args[0] if len(node.args) == 1 else None
        if not node.args:
            return []
        if isinstance(inner, ast.Set | ast.List | ast.Tuple):
            values = [_literal(each) for each in inner.elts]
            return _UNKNOWN if any(each is _UNKNOWN for each in values) else values
        return _UNKNOWN
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN


def _comparable(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | set | tuple | frozenset) else value


def _point_out(tree: ast.Module, check: Check) -> None:
    """Name what whoever consents to run the code should look at; no judgement, since what is harmful can be hidden."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
            for name in names:
                root = name.partition(".")[0]
                if root not in _USUAL:
                    what = "the standard library's" if root in sys.stdlib_module_names else "another package's"
                    check.note(f"source.py:{node.lineno}: imports {what} {name}: read what for.")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERFUL:
            check.note(f"source.py:{node.lineno}: calls {node.func.id}(): read what for.")
