"""`fedbench new`: the file of an attack, a defense, a model or a dataset that works, and its test; and a suite."""

from __future__ import annotations

from pathlib import Path
from string import Template

from fedbench.errors import UserError
from fedbench.files import write_file
from fedbench.plugins import Kind, taken_by
from fedbench.plugins.card_rules import NAMES, is_name

TEMPLATES = Path(__file__).parent / "templates"

GOALS = ("promote", "demote", "degrade")
CHANNELS = ("gradient", "image")
HOOKS = ("filter", "purify")


def write_entry(
    kind: Kind, name: str, folder: Path, goal: str = "promote", channel: str = "gradient", hook: str = "filter"
) -> tuple[Path, Path]:
    """Write ``my_name.py`` and ``test_my_name.py`` into ``folder``; nothing that is there is changed.

    Args:
        kind: what it is. name: for the card, such as ``my-attack``. goal: of an attack: one of :data:`GOALS`.
        channel: of an attack that promotes: ``gradient`` or ``image``. hook: of a defense: ``filter``, or ``purify`` for one
            that cleans images.

    Returns:
        The two files.

    Raises:
        UserError: a name that cannot be one or is taken, a file that is there already. ResultsError: it cannot be written.
    """
    name = name.replace("_", "-")
    module, words = name.replace("-", "_"), name.split("-")
    if not is_name(name) or not module.isidentifier():
        raise UserError(f"name {name!r} must be {NAMES}, and the first one a letter, such as 'my-{kind}'.")
    taken = taken_by(kind, name)
    if taken:
        raise UserError(f"name {name!r} is taken by {taken}; choose another.")
    values = {
        "kind": kind,
        "name": name,
        "module": module,
        "title": " ".join(words).capitalize(),
        "classname": "".join(word.capitalize() for word in words),
    }
    which: str = kind
    if kind == "attack":
        which = "attack_image" if channel == "image" else f"attack_{goal}"
    elif kind == "defense" and hook == "purify":
        which = "defense_purify"
    text = {
        folder / f"{module}.py": _filled(f"{which}.py.txt", values),
        folder / f"test_{module}.py": _filled(f"test_{which}.py.txt", values),
    }
    for path in text:
        if path.exists():
            raise UserError(f"{path} exists already, and is left as it is; choose another name or --dir.")
    for path, content in text.items():
        write_file(path, content)
    entry, test = text
    return entry, test


def write_suite(name: str, folder: Path) -> Path:
    """Write ``name.toml``, a suite with comments that runs; errors as in :func:`write_entry`."""
    if not is_name(name):
        raise UserError(f"name {name!r} must be {NAMES}, such as 'my-suite'.")
    path = folder / f"{name}.toml"
    if path.exists():
        raise UserError(f"{path} exists already, and is left as it is; choose another name or --dir.")
    values = {"name": name, "file": path.name, "title": " ".join(name.split("-")).capitalize()}
    write_file(path, _filled("suite.toml.txt", values))
    return path


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
