"""What a zip file can carry beside a bundle, and the hashes."""

from __future__ import annotations

import dataclasses
import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest
from bounds import Bounded
from bundles import Submitted, refused, sealed, unpacked, with_json, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.entries.cards import AttackCard, DefenseCard
from fedbench.plugins.card_data import AttackData, DefenseData, card_data
from fedbench.submission.container import CARD, ENVIRONMENT, LIMITS, MANIFEST, RECORDS, SOURCE, packed
from fedbench.submission.manifest import canonical
from fedbench.submission.verify import verify


def members(data: bytes) -> list[tuple[str | zipfile.ZipInfo, bytes]]:
    return list(unpacked(data).items())


def test_a_good_bundle_is_verified_and_its_bytes_are_canonical(good: bytes) -> None:
    found = verify(good)
    assert [(each.name, each.reasons) for each in found.checks] == [
        (name, []) for name in ("container", "manifest", "card", "source", "records", "completeness")
    ]
    assert found.claimed is not None
    assert len(found.rows) == len(found.claimed.runs) == 8
    assert packed(unpacked(good)) == good
    assert zipfile.ZipFile(io.BytesIO(good)).namelist() == sorted(LIMITS)


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        pytest.param("../evil.py", "its path leads out of the bundle", id="path escape"),
        pytest.param("a/../../evil.py", "its path leads out of the bundle", id="path escape inside"),
        pytest.param("..\\evil.py", "its path leads out of the bundle", id="path escape of Windows"),
        pytest.param("/etc/passwd", "its path is absolute", id="absolute path"),
        pytest.param("C:\\evil.py", "its path is absolute", id="absolute path of Windows"),
        pytest.param("sitecustomize.py", "no bundle has it", id="another member"),
        pytest.param("folder/", "it is no plain file", id="folder"),
        pytest.param("<script>.py", "no bundle has it", id="HTML in a name"),
        pytest.param("source.py\u202e", "no bundle has it", id="reordered name"),
    ],
)
def test_members_that_no_bundle_has(good: bytes, extra: str, reason: str) -> None:
    assert reason in refused(zipped([*members(good), (extra, b"x")]), "container")


def test_links_are_refused(good: bytes) -> None:
    others = [each for each in members(good) if each[0] != SOURCE]
    assert "it is a link" in refused(zipped([*others, (linked(SOURCE), b"/etc/passwd")]), "container")


def test_a_name_that_occurs_twice(good: bytes) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([*members(good), (SOURCE, b"import os")])
    assert "its name occurs twice" in refused(data, "container")


def test_compression_bombs(good: bytes) -> None:
    """Compressed members are refused before a byte is unpacked, whatever size they declare."""
    others = [each for each in members(good) if each[0] != SOURCE]
    bomb = zipped([*others, (SOURCE, b"\0" * (200 << 20))], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    assert "it declares 209,715,200 bytes (at most 262,144)" in refused(bomb, "container")
    assert "it is compressed" in refused(zipped(members(good), zipfile.ZIP_DEFLATED), "container")
    at = bomb.rindex(b"PK\x01\x02")  # the member's entry in the directory: let it lie about both sizes
    lying = bomb[: at + 20] + struct.pack("<II", 100, 100) + bomb[at + 28 :]
    assert "it is compressed" in refused(lying, "container")


def test_encrypted_members(good: bytes) -> None:
    at = good.rindex(b"PK\x01\x02")
    assert "it is encrypted" in refused(good[: at + 8] + b"\x01" + good[at + 9 :], "container")


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_members_that_are_missing(good: bytes, name: str) -> None:
    assert f"missing: {name}." in refused(zipped([each for each in members(good) if each[0] != name]), "container")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data + b"#!/bin/sh", id="after the end"),
        pytest.param(lambda data: b"#!/bin/sh\n" + data, id="before the beginning"),
        pytest.param(lambda data: data[:-2] + b"\x05\x00hello", id="comment"),
        pytest.param(lambda data: zipped(members(data)), id="other times and modes"),
    ],
)
def test_bytes_beside_the_members(good: bytes, change: Callable[[bytes], bytes]) -> None:
    assert "bytes beside the members' own" in refused(change(good), "container")


@pytest.mark.parametrize("data", [b"", b"PK", b"%PDF-1.7", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_bundle(data: bytes) -> None:
    assert refused(data, "container")


@pytest.mark.parametrize("name", [CARD, ENVIRONMENT, RECORDS, SOURCE])
def test_a_changed_member_does_not_have_its_hash(good: bytes, name: str) -> None:
    changed = unpacked(good)
    changed[name] = changed[name][:-1] + b"\x20"
    assert f"{name}: SHA-256 " in refused(packed(changed), "manifest")
    changed[name] += b"\n"
    assert f"{name}: {len(changed[name]):,} bytes, but" in refused(packed(changed), "manifest")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"format": 2}, "format 2 is newer than this fedbench reads (1)"),
        ({"format": 0}, "format = 0: "),
        (
            {"name": "<script>alert(1)</script>"},
            "name = '<script>alert(1)</script>': Value error, must be lower-case words",
        ),
        ({"name": "a\nb"}, "name = 'a\\nb': Value error, must be lower-case words"),
        ({"name": "x" * 65}, "must be lower-case words joined by '-', of at most 64 characters"),
        ({"name": "../x"}, "must be lower-case words"),
        ({"seeds": "2"}, "seeds = '2': Input should be a valid integer"),
        ({"seeds": [3, 7]}, "seeds = [3, 7]: Input should be a valid integer"),
        ({"only": ["model=mf\u202e"]}, "holds the character U+202E"),
        ({"kind": "model"}, "kind = 'model': "),
        ({"password": "x"}, "password = 'x': Extra inputs are not permitted"),
        ({"modules": ["os; import sys"]}, "String should match pattern"),
    ],
)
def test_mistakes_in_the_manifest(good: bytes, values: dict[str, object], reason: str) -> None:
    assert reason in refused(with_manifest(good, values), "manifest")


def with_manifest(data: bytes, values: dict[str, object]) -> bytes:
    return sealed(unpacked(data), **values)


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[]", b"null", b"NaN", b"{", b"\xff", b'{"format": 1, "format": 1}', b"[" * 60_000, b'{"format": 1e999}'],
)
def test_manifests_that_are_none(good: bytes, text: bytes) -> None:
    assert refused(packed({**unpacked(good), MANIFEST: text}), "manifest")


def test_files_of_the_manifest_are_those_that_are_there(good: bytes) -> None:
    files = json.loads(unpacked(good)[MANIFEST])["files"]
    assert "files must name" in refused(sealed(unpacked(good), files={**files, "x.py": files[SOURCE]}), "manifest")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"title": "A\u202eB"}, "holds the character U+202E"),
        ({"title": "two\nlines"}, "holds the character U+000A"),
        ({"title": ""}, "at least 1 item"),
        ({"title": "x" * 301}, "at most 300 characters"),
        ({"name": "<b>"}, "must be lower-case words"),
        ({"name": "other"}, "the card of 'other', but the manifest claims 'random-direction'"),
        ({"goal": "win"}, "goal = 'win': "),
        ({"version": 1.5}, "version = 1.5: "),
        ({"class_name": "a b"}, "String should match pattern"),
        ({"parameters": [{"name": "json", "type": "int", "default": 1, "description": "", "later": False}]}, "name of"),
    ],
)
def test_mistakes_in_the_card(good: bytes, values: dict[str, object], reason: str) -> None:
    assert reason in refused(with_json(good, CARD, **values), "card")


def test_a_card_says_all_that_a_card_has() -> None:
    """A field that a card gains must travel with it, or scenarios of the stand-in are others."""
    for data, card in ((AttackData, AttackCard), (DefenseData, DefenseCard)):
        assert set(data.model_fields) - {"class_name", "parameters"} == {
            field.name for field in dataclasses.fields(card)
        }
    for name in ATTACKS.names():
        assert AttackData.model_validate_json(canonical(card_data(ATTACKS.get(name)))).card() == ATTACKS.get(name).card
    for name in DEFENSES.names():
        assert (
            DefenseData.model_validate_json(canonical(card_data(DEFENSES.get(name)))).card() == DEFENSES.get(name).card
        )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_changes_of_a_bundle_never_verify_and_never_raise(submitted: Submitted, draw: st.DataObject) -> None:
    data = bytearray(submitted.data)
    for at in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4, unique=True)):
        data[at] ^= draw.draw(st.integers(1, 255))
    with Bounded():
        assert not verify(bytes(data)).ok
        assert not verify(submitted.data[: draw.draw(st.integers(0, len(data) - 1))]).ok


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([CARD, ENVIRONMENT, MANIFEST, RECORDS, SOURCE]), st.data())
def test_random_changes_under_right_hashes_never_raise(submitted: Submitted, name: str, draw: st.DataObject) -> None:
    changed = unpacked(submitted.data)
    content = bytearray(changed[name])
    for at in draw.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3, unique=True)):
        content[at] ^= draw.draw(st.integers(1, 255))
    changed[name] = bytes(content)
    with Bounded():
        verify(packed(changed) if name == MANIFEST else sealed(changed))
