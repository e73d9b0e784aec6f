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
from fedbench.isolation.home import Home
from fedbench.isolation.limits import Limits
from fedbench.plugins import Kind, Loaded
from fedbench.plugins.card_data import AttackData, declared_parameters
from fedbench.plugins.files import module_source, read_source, register
from fedbench.texts import visible

_OURS = re.compile(r"fedbench\.(attacks|defenses|federation)(\.[a-z0-9_]+)*")


def load_isolated(path: str | Path, kind: Kind | None = None, limits: Limits | None = None) -> Loaded:
    """What :func:`fedbench.plugins.load_file` does, with the file imported in a confined process alone.

    Its class is known by the name on its card; every instance of it lives in a process of its own.

    Args:
        path: a Python file. kind: what its class must be; only attacks can be isolated so far. limits: of each process.

    Raises:
        UserError: as there, or it took too long or too much.
    """
    path = Path(path)
    source, sha256 = read_source(path)
    cls = isolated_class(path, source, sha256, limits or Limits())
    return register("attack", cls, path, source, sha256, isolated=True)


def isolated_class(path: Path, source: bytes, sha256: str, limits: Limits) -> type[RemoteAttack]:
    """A class with the card and the parameters that the file's own has; its instances are in other processes."""
    home = Home(path, source, "attack", limits)
    process = home.start()
    try:
        said = json.loads(process.described)
        data = AttackData.model_validate_json(json.dumps(said["card"]))
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
    return type(data.class_name, (RemoteAttack,), content | {"__module__": __name__, "sources": sorted(texts)})
