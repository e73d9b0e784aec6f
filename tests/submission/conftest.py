"""One good bundle: an attack on two seeds of a slice of the smoke suite, with its twins."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import plugin_files
import pytest
from bundles import ONLY, Submitted, make
from filelock import FileLock

import fedbench
from fedbench import plugins
from fedbench.runs.results import write_record
from fedbench.scenarios.scenario import forget_scenarios
from fedbench.submission.bundle import entry
from fedbench.submission.claim import claim
from fedbench.submission.records import Row
from fedbench.submission.repeat import repeat
from fedbench.submission.report import Check
from fedbench.submission.verify import Verified, verify

T = TypeVar("T")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Once:
    """What one of the processes of the tests makes in a folder, for all of them."""
    workers = hasattr(request.config, "workerinput")
    base = tmp_path_factory.getbasetemp()
    return Once(base.parent if workers else base)


class Once:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        kept = self.folder / f"{name}.pickle"
        with FileLock(kept.with_suffix(".lock")):
            if not kept.exists():
                kept.write_bytes(pickle.dumps(make()))
            made: T = pickle.loads(kept.read_bytes())
        return made


@pytest.fixture(scope="session")
def submitted(once: Once) -> Submitted:
    return once("submitted", lambda: _submitted(once.folder / "submitted"))


def _submitted(folder: Path) -> Submitted:
    folder.mkdir()
    file, results = folder / "my_attack.py", folder / "results"
    file.write_text(plugin_files.ATTACK)
    of = entry("attack", str(file))
    for run in claim("attack", of.name, "smoke", ONLY, 2).runs.values():
        write_record(fedbench.run(run.scenario, run.seed, suite="smoke"), results)
    made = make(Submitted(file, results, b""), [results])
    plugins.forget()
    forget_scenarios()
    assert made.data is not None, made.checks
    return Submitted(file, results, made.data)


@pytest.fixture
def good(submitted: Submitted) -> bytes:
    return submitted.data


@pytest.fixture
def fresh() -> Iterator[None]:
    """Files that a test loads are forgotten after it."""
    yield
    plugins.forget()
    forget_scenarios()


@pytest.fixture(scope="session")
def repetitions(submitted: Submitted, once: Once) -> Mapping[str, Row]:
    """The runs of the good bundle as `verify` repeats them: run id -> record."""
    return once("repetitions", lambda: _repeated(submitted))


def _repeated(submitted: Submitted) -> Mapping[str, Row]:
    found, check = verify(submitted.data), Check("re-run")
    records = repeat(found, found.rows, "", check)
    assert not check.reasons
    return {str(record["run_id"]): record for record in records if record is not None}


@pytest.fixture
def known(repetitions: Mapping[str, Row], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`verify` takes these instead of running them again, so the code of the bundle must be that of the good one; which."""
    asked: list[str] = []

    def look_up(
        found: Verified, rows: Sequence[Row], rounding: str, check: Check, jobs: int | None = None
    ) -> list[Row | None]:
        asked.extend(str(row["run_id"]) for row in rows)
        return [repetitions[str(row["run_id"])] for row in rows]

    monkeypatch.setattr("fedbench.submission.repeat.repeat", look_up)
    monkeypatch.setattr("fedbench.submission.repeat.same_card", lambda found, check: None)
    return asked
