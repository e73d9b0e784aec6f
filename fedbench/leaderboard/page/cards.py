"""What attacks and defenses of the records say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedbench.entries.cards import parameter_docs
from fedbench.entries.verified import verified_by
from fedbench.leaderboard.database import Database

if TYPE_CHECKING:
    from fedbench.entries.registry import Registry


def cards(database: Database) -> dict[str, dict[str, Any]]:
    """By kind and name: the card of every attack and defense of the records, of a chain those of its parts.

    Of an entry that is not installed here (a plug-in's), what its records tell. ``ran``: the versions of the code whose
    records there are; ``version``: the installed one.
    """
    from fedbench.attacks import ATTACKS
    from fedbench.defenses import DEFENSES

    attacks = database.rows(
        "select attack as name, any_value(attack_goal) as goal, any_value(attack_channel) as channel,"
        " any_value(attack_knowledge) as knowledge, list(distinct attack_version order by attack_version) as ran"
        " from runs where attack <> 'none' group by attack order by attack"
    )
    defenses = database.rows(
        "select defense as name, any_value(defense_family) as family, any_value(defense_knowledge) as knowledge,"
        " any_value(defense_assumes) as assumes from runs where defense <> 'none' group by defense order by defense"
    )
    found = {row["name"]: row for row in defenses}
    parts = sorted({part for name in found for part in name.split("+")})
    return {
        "attack": {row["name"]: _known(row) | _installed(ATTACKS, row["name"], _ATTACK) for row in attacks},
        "defense": {part: _known(found.get(part, {})) | _installed(DEFENSES, part, _DEFENSE) for part in parts},
    }


_ATTACK = ("title", "paper", "goal", "channel", "clients", "knowledge", "models", "version", "notes")
_DEFENSE = ("title", "paper", "family", "assumes", "knowledge", "models", "version", "notes")


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "name" and value is not None}


def _installed(registry: Registry[Any], name: str, fields: Sequence[str]) -> dict[str, Any]:
    if name not in registry.names():
        return {"installed": False}
    entry = registry.get(name)
    out: dict[str, Any] = {field: _text(getattr(entry.card, field)) for field in fields}
    out["parameters"] = [
        {"name": each.name, "default": _text(each.default), "description": each.description}
        for each in parameter_docs(entry.Params)
    ]
    verified = verified_by(f"{registry.kind}s", name, entry.card.version)
    return out | {"installed": True, "source": registry.origin(name), "verified": verified}


def _text(value: Any) -> Any:
    """A field of a card, or a default, as plain data; sets in order."""
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)
