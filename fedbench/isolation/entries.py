"""An entry whose file this process never imports: a class that stands for it, known by its name like any other."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedbench.errors import UserError
from fedbench.isolation.attack import RemoteAttack
from fedbench.isolation.defense import HOOKS, RemoteDefense
from fedbench.isolation.home import Home
from fedbench.isolation.limits import Limits
from fedbench.plugins import Kind, Loaded
from fedbench.plugins.card_data import AttackData, DefenseData, declared_parameters
from fedbench.plugins.files import module_source, read_source, register
from fedbench.texts import visible

REMOTE = (RemoteAttack, RemoteDefense)
"""What stands in this process for classes that live in others."""
_OURS = re.compile(r"fedbench\.(attacks|defenses|federation)(\.[a-z0-9_]+)*")


def load_isolated(path: str | Path, kind: Kind | None = None, limits: Limits | None = None) -> Loaded:
    """What :func:`fedbench.plugins.load_file` does, with the file imported in a confined process alone.

    Its class is known by the name on its card; every instance of it lives in a process of its own.

    Args:
        path: a Python file. kind: what its class must be, an attack (None, too) or a defense. limits: of each process.

    Raises:
        UserError: as there, or it took too long or too much.
    """
    path = Path(path)
    source, sha256 = read_source(path)
    kind = kind or "attack"
    cls = isolated_class(path, source, sha256, limits or Limits(), kind)
    return register(kind, cls, path, source, sha256, isolated=True)


def isolated_class(path: Path, source: bytes, sha256: str, limits: Limits, kind: Kind = "attack") -> type[Any]:
    """A class with the card and the parameters that the file's own has; its instances are in other processes."""
    home = Home(path, source, kind, limits)
    process = home.start()
    try:
        said = json.loads(process.described)
        fields: type[AttackData | DefenseData] = DefenseData if kind == "defense" else AttackData
        data = fields.model_validate_json(json.dumps(said["card"]))
        hooks = {name: HOOKS[name] for name in HOOKS if kind == "defense" and name in said["hooks"]}
        bases = [str(each) for each in said["modules"]]
        required = ", ".join(visible(str(each), 100) for each in said["required"])
        doc = str(said["doc"]) or None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: card: {visible(key, 100)}: {visible(first['msg'], 300)}.") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: what its process says of its class cannot be read.") from None
    finally:
        process.close()
    if required:
        raise UserError(f"{path}: parameters without default: {required}; give each its value.")
    texts = {(f"fedbench_file_{sha256[:16]}", source.decode("utf-8", "replace"))}
    for name in dict.fromkeys(bases[1:]):
        if name in (bases[0], "abc"):
            continue
        if not _OURS.fullmatch(name):
            raise UserError(
                f"{path}: its class derives from one of {visible(name, 100)}; an isolated one from fedbench's alone."
            )
        texts.add((name, module_source(importlib.import_module(name))))
    content: dict[str, Any] = {"card": data.card(), "Params": declared_parameters(data), "home": home, "__doc__": doc}
    content |= hooks | {"__module__": __name__, "sources": sorted(texts)}
    return type(data.class_name, (RemoteDefense if kind == "defense" else RemoteAttack,), content)
