"""One Python file with one attack, defense, model or dataset, made an entry like those that come with fedbench.

The file is imported under a private name that is derived from its content, so that equal files are one entry wherever
they lie, and its class is added to the registry under the name on its card. What was loaded is remembered: worker
processes load the same files, and refuse one whose content is no longer the parent's. A class at hand, as of a notebook, is
registered likewise, for this process alone.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from fedbench.attacks import ATTACKS
from fedbench.data import DATASETS, ENTRIES
from fedbench.data.library import imported_names
from fedbench.defenses import DEFENSES
from fedbench.entries.registry import Registry
from fedbench.errors import FedbenchError, UserError
from fedbench.models import MODELS
from fedbench.plugins.card_rules import KINDS, Kind, check_card, with_article
from fedbench.plugins.moved import lead_to_moved

LARGEST = 1 << 20
"""Bytes that a file may have at most; one that is larger is no source code."""


@dataclass(frozen=True)
class Loaded:
    """A file that was loaded.

    Attributes:
        kind: what its class is. name: from its card. cls: the class.
        path: as it was given. source: the bytes that were run. sha256: of these.
        isolated: whether they run in processes of their own alone, and ``cls`` stands for what they define.
    """

    kind: Kind
    name: str
    cls: type[Any]
    path: Path
    source: bytes
    sha256: str
    isolated: bool = False


@dataclass(frozen=True)
class Given:
    """A loaded file as plain values, for another process."""

    path: str
    kind: Kind
    sha256: str
    isolated: bool = False


_LOADED: dict[tuple[str, Kind], Loaded] = {}
_GIVEN: dict[tuple[Kind, str], type[Any]] = {}


def load_file(path: str | Path, kind: Kind | None = None) -> Loaded:
    """Import the file and register its class; a file of the same content that was loaded before is returned as it is.

    Args:
        path: a Python file that defines one class derived from ``Attack``, ``Defense``, ``Recommender`` or ``Dataset``.
        kind: which of them it must be; None: any.

    Raises:
        UserError: no file, no Python, an error while it is imported, no such class or several, a card that is missing
            or malformed, or a name that is taken.
    """
    path = Path(path)
    source, sha256 = read_source(path)
    for (known, as_kind), loaded in _LOADED.items():
        if known == sha256 and kind in (None, as_kind):
            return replace(loaded, path=path)
    found, cls = class_in(path, source, sha256, kind)
    return register(found, cls, path, source, sha256)


def read_source(path: Path) -> tuple[bytes, str]:
    """The bytes of a source file, and their SHA-256."""
    source = _read(path)
    return source, hashlib.sha256(source).hexdigest()


def class_in(path: Path, source: bytes, sha256: str, kind: Kind | None) -> tuple[Kind, type[Any]]:
    """Import a file's bytes, and find its one class, which has a card as it must be; nothing is registered."""
    found, cls = _entry_class(_imported(path, source, sha256), path, kind)
    check_card(found, cls, str(path))
    return found, cls


def register(found: Kind, cls: type[Any], path: Path, source: bytes, sha256: str, isolated: bool = False) -> Loaded:
    """Make the class of a file an entry under the name on its card."""
    name = check_card(found, cls, str(path))
    registry = registry_of(found)
    if (found, name) in _GIVEN:  # what was tried as a class is a file now
        _forget_class(found, name)
    for other in list(_LOADED.values()):
        if (other.kind, other.name) == (found, name):
            if other.sha256 == sha256 and other.isolated == isolated:
                return replace(other, path=path)
            how = "another content" if other.sha256 != sha256 else "or without --isolated"
            raise UserError(
                f"{path}: {found} {name!r} was loaded from {other.path} with {how}; start anew to use this one."
            )
    taken = taken_by(found, name)
    if taken:
        raise UserError(f"{path}: the name {name!r} on the card is taken by {taken}; give yours another.")
    try:
        registry.add(name, cls)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    loaded = Loaded(found, name, cls, path, source, sha256, isolated)
    _LOADED[sha256, found] = loaded
    return loaded


def is_file(text: str) -> bool:
    """Whether an option's value names a Python file, and not an entry: it ends on ``.py``."""
    return text.endswith(".py")


def named(text: str, kind: Kind) -> str:
    """The name of the entry that ``text`` stands for: a file, which is loaded, or a name.

    Raises:
        UserError: as :func:`load_file`, or no entry has the name.
    """
    if is_file(text):
        return load_file(text, kind).name
    file = Path(f"{text.replace('-', '_')}.py")
    if text not in registry_of(kind).names() and file.is_file():
        raise UserError(f"Unknown {kind} {text!r}. A file ends on .py: write ./{file}.")
    registry_of(kind).get(text)
    return text


def loaded_files() -> list[Loaded]:
    """All files that this process has loaded."""
    return list(_LOADED.values())


def register_class(cls: type[Any], kind: Kind) -> str:
    """The name of a class as an entry of this process: written in a notebook, or imported from a module of one's own.

    A class that is no entry yet becomes one under the name on its card; another class that was given under that name before
    gives way to it, as a cell of a notebook does that is run again. Worker processes know nothing of it.

    Raises:
        UserError: it is no such class, its card is missing or malformed, or its name is taken by another entry.
    """
    registry, where = registry_of(kind), f"{cls.__module__}.{cls.__qualname__}"
    if not issubclass(cls, registry.base):
        raise UserError(f"{kind} = {where} is not derived from fedbench.{registry.base.__name__}.")
    known = registry.name_of(cls)
    if known is not None:
        return known
    name = check_card(kind, cls, where)
    taken = taken_by(kind, name)
    if any((each.kind, each.name) == (kind, name) for each in _LOADED.values()):
        taken = "a file that was loaded"
    if taken:
        raise UserError(f"{where}: the name {name!r} on the card is taken by {taken}; give yours another.")
    if (kind, name) in _GIVEN:
        _forget_class(kind, name)
    registry.add(name, cls)
    _GIVEN[kind, name] = cls
    return name


def _forget_class(kind: Kind, name: str) -> None:
    registry_of(kind).remove(name)
    del _GIVEN[kind, name]


def forget() -> None:
    """Take all files and classes out of the registries: what is edited can be loaded again under its name."""
    for kind, name in list(_GIVEN):
        _forget_class(kind, name)
    for each in _LOADED.values():
        registry_of(each.kind).remove(each.name)
        if not each.isolated:
            sys.modules.pop(each.cls.__module__, None)
    _LOADED.clear()


def given() -> tuple[Given, ...]:
    """All files that this process has loaded, for another process to load with :func:`load_given`."""
    return tuple(Given(str(each.path.absolute()), each.kind, each.sha256, each.isolated) for each in _LOADED.values())


def load_given(files: Iterable[Given], load: Callable[[str, Kind], Loaded] | None = None) -> None:
    """Load what another process has loaded; isolated files by ``load``.

    Raises:
        UserError: as :func:`load_file`, or the content of a file is not what the other process has.
    """
    for file in files:
        if (file.sha256, file.kind) in _LOADED:
            continue
        now = hashlib.sha256(_read(Path(file.path))).hexdigest()
        if now != file.sha256:
            raise UserError(
                f"{file.path} has changed since this command began (SHA-256 {file.sha256[:12]} then, {now[:12]} now);"
                " run the command again."
            )
        load(file.path, file.kind) if file.isolated and load else load_file(file.path, file.kind)


def module_source(module: ModuleType) -> str:
    """The source code of a module; of a loaded file what was run, whatever is in the file now."""
    loader = module.__spec__.loader if module.__spec__ is not None else None
    if isinstance(loader, _Bytes):
        return loader.get_source(module.__name__)
    return inspect.getsource(module)


def registry_of(kind: Kind) -> Registry[Any]:
    """The registry of all attacks, defenses, models or contributed datasets."""
    registries: dict[Kind, Registry[Any]] = {
        "attack": ATTACKS,
        "defense": DEFENSES,
        "model": MODELS,
        "dataset": DATASETS,
    }
    return registries[kind]


def taken_by(kind: Kind, name: str) -> str:
    """Which entry that comes with fedbench, or that was imported, has the name; empty: none."""
    registry = registry_of(kind)
    if registry.builtin(name):
        return f"the {kind} that comes with fedbench ({registry.origin(name)})"
    if kind == "dataset" and any(name in (entry.name, *entry.aliases) for entry in ENTRIES):
        return "a dataset of the catalogue"
    if kind == "dataset" and name in imported_names():
        return "an imported dataset"
    return ""


class _Bytes(importlib.abc.SourceLoader):
    """Loads a module from bytes at hand: what is run is what was hashed, and nothing is written beside the file."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = str(path), source

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._source

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._source)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"file {str(path)!r} does not exist." if not path.exists() else f"{str(path)!r} is no file.")
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes; a source file has at most {LARGEST:,}.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _imported(path: Path, source: bytes, sha256: str) -> ModuleType:
    name = f"fedbench_file_{sha256[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Bytes(path.absolute(), source)
    spec = importlib.util.spec_from_loader(name, loader, origin=str(path.absolute()))
    assert spec is not None
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    lead_to_moved()
    sys.modules[name] = module  # annotations are resolved, and classes found again, through it
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(_explained(path, error)) from None
    return module


def _explained(path: Path, error: BaseException) -> str:
    """Why the file could not be imported, and in which of its lines."""
    if isinstance(error, SyntaxError) and error.filename == str(path.absolute()):
        return f"{path}:{error.lineno}: not valid Python: {error.msg}."
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.absolute()):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, FedbenchError):
        return f"{path}{line}: {error}"
    text = " ".join(str(error).split()).rstrip(".")
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    more = " A file can import fedbench and installed packages only." if isinstance(error, ImportError) else ""
    return f"{path}{line}: cannot be imported: {what}.{more}"


def _entry_class(module: ModuleType, path: Path, kind: Kind | None) -> tuple[Kind, type[Any]]:
    """The class of the file that no other class of the file derives from."""
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    entries = [(of, each) for of in KINDS for each in own if issubclass(each, registry_of(of).base)]
    entries = [(of, each) for of, each in entries if not any(each in other.__mro__[1:] for _, other in entries)]
    wanted = [(of, each) for of, each in dict.fromkeys(entries) if kind in (None, of)]
    if not wanted:
        word = " or ".join(registry_of(of).base.__name__ for of in ([kind] if kind else KINDS))
        but = "".join(f" Class {each.__name__} is {with_article(of)}." for of, each in entries[:1])
        raise UserError(f"{path} defines no class derived from {word}.{but}")
    if len(wanted) > 1:
        names = ", ".join(f"{each.__name__} ({of})" for of, each in wanted)
        raise UserError(f"{path} defines {len(wanted)} entries: {names}; one file holds one.")
    return wanted[0]
