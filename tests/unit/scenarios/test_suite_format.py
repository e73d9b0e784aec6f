"""The reference of suite files: it is that of the code, and its examples are right."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite_format import EXAMPLES, PARTS, docstrings, suite_format

PUBLISHED = Path(__file__).parents[3] / "leaderboard" / "suites" / "FORMAT.md"


def test_the_published_page_is_that_of_the_code() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == suite_format(), "run: fedbench pages --out leaderboard/suites"


def test_every_key_is_explained_with_an_example() -> None:
    keys = {
        f"{part}.{info.alias or name}" if part else name
        for part, model in PARTS.items()
        for name, info in model.model_fields.items()
    }
    fields = {field.name for field in dataclasses.fields(Scenario)}
    assert set(EXAMPLES) == keys | {f"scenario.{name}" for name in fields}
    assert set(docstrings(Scenario)) == fields
    for model in PARTS.values():
        assert set(docstrings(model)) == set(model.model_fields)


def _valued(prefix: str) -> dict[str, object]:
    lines = [f"{key.removeprefix(prefix)} = {value}" for key, value in EXAMPLES.items() if key.startswith(prefix)]
    return tomllib.loads("\n".join(lines))


@pytest.mark.parametrize("part", [part for part in PARTS if part])
def test_examples_of_tables_are_read(part: str) -> None:
    values = _valued(f"{part}.")
    PARTS[part].model_validate({key: value for key, value in values.items() if key != "absent"})


def test_examples_of_the_top_are_read() -> None:
    top = "\n".join(f"{key} = {value}" for key, value in EXAMPLES.items() if "." not in key)
    PARTS[""].model_validate(tomllib.loads(top))


def test_examples_of_fields_are_a_scenario() -> None:
    values = _valued("scenario.") | {"model": "mf"}
    assert Scenario(**values).id  # type: ignore[arg-type]


def test_what_it_says_of_some_keys() -> None:
    lines = suite_format().splitlines()
    assert any(line.startswith("| `seeds` | whole number >= 1, <= 10000 or list (whole number >= 0") for line in lines)
    assert any(line.startswith('| `loss` | `"bce"` or `"bpr"` | `"bce"` | pointwise') for line in lines)
    assert any(line.startswith('| `attack` | text | `"none"` | A name') for line in lines)
    assert not any("``" in line or ":class:" in line or ":data:" in line for line in lines)
