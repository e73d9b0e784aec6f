"""The manifest and the card of a bundle: what is claimed, in a form that is checked strictly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from fedbench.plugins.card_data import AttackData, CardData, DefenseData, Digest, Line, ModuleName, Name, Strict
from fedbench.submission.container import MANIFEST
from fedbench.submission.report import Check, brief

FORMAT = 1
"""Version of the bundle's form."""

Kind = Literal["attack", "defense"]


class Member(Strict):
    """A file of the bundle."""

    sha256: Digest
    size: int = Field(ge=0)


class Manifest(Strict):
    """What a bundle holds and claims."""

    format: Literal[1]
    kind: Kind
    name: Name
    suite: Name
    suite_version: int = Field(ge=1)
    only: list[Line] = Field(max_length=32)
    """Filters as ``--only`` takes them: the slice of the suite."""
    seeds: int | None = Field(ge=1, le=10_000)
    """So many seeds from 0 instead of the suite's own; a list would let one choose the lucky ones."""
    module: ModuleName
    """Under which name the runs imported the source."""
    modules: list[ModuleName] = Field(min_length=1, max_length=8)
    """Modules that the source hash of the records is made of: that one, and those of fedbench that it derives from."""
    fedbench_version: Line
    files: dict[str, Member]


def canonical(value: Any) -> bytes:
    """The one JSON text of a value."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def digests(members: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Hash and size of every member but the manifest."""
    return {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in members.items()
        if name != MANIFEST
    }


def read_json(data: bytes, what: str, check: Check) -> Any:
    """A member that must be canonical JSON, or None with a reason."""
    try:
        value = json.loads(data.decode("utf-8"))
        if canonical(value) == data:
            return value
        check.refuse(f"{what}: not the JSON that `fedbench submit` writes.")
    except (ValueError, RecursionError) as error:
        check.refuse(f"{what}: not valid JSON: {error}.")
    return None


M = TypeVar("M", bound=BaseModel)


def parsed(model: type[M], data: bytes, what: str, check: Check) -> M | None:
    """A member as a strict model, or None with a reason for each mistake."""
    if read_json(data, what, check) is None:
        return None
    try:
        return model.model_validate_json(data)
    except (ValidationError, RecursionError) as error:
        for each in error.errors()[:6] if isinstance(error, ValidationError) else []:
            key = ".".join(map(str, each["loc"]))
            check.refuse(f"{what}: {key} = {brief(each.get('input'))}: {each['msg']}.")
        if isinstance(error, RecursionError):
            check.refuse(f"{what}: nested too deeply.")
        return None


def read_manifest(members: Mapping[str, bytes], check: Check) -> Manifest | None:
    """The manifest, if it is well formed and the hashes and sizes in it are those of the members."""
    value = read_json(members[MANIFEST], MANIFEST, check)
    if value is None:
        return None
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        check.refuse(f"{MANIFEST}: format {version} is newer than this fedbench reads ({FORMAT}); update fedbench.")
        return None
    manifest = parsed(Manifest, members[MANIFEST], MANIFEST, check)
    if manifest is None:
        return None
    actual = digests(members)
    if set(manifest.files) != set(actual):
        check.refuse(f"{MANIFEST}: files must name {', '.join(sorted(actual))}.")
        return None
    for name, found in actual.items():
        stated = manifest.files[name]
        if stated.size != found["size"]:
            check.refuse(f"{name}: {found['size']:,} bytes, but the manifest states {stated.size:,}.")
        elif stated.sha256 != found["sha256"]:
            check.refuse(f"{name}: SHA-256 {found['sha256'][:12]}..., but the manifest states {stated.sha256[:12]}...")
    return manifest


def read_card(data: bytes, manifest: Manifest, what: str, check: Check) -> CardData | None:
    """The card, if it is well formed and that of the claimed entry."""
    model: type[AttackData] | type[DefenseData] = AttackData if manifest.kind == "attack" else DefenseData
    card = parsed(model, data, what, check)
    if card is not None and card.name != manifest.name and "/" not in manifest.name:
        check.refuse(f"{what}: the card of {card.name!r}, but the manifest claims {manifest.name!r}.")
    return card
