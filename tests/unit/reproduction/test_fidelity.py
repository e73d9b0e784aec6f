"""The page on all published values: counts, reasons, and whether the committed one is of the committed records."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from records import record, write

from fedbench.errors import UserError
from fedbench.leaderboard import Database
from fedbench.reproduction import Report, compare
from fedbench.reproduction.fidelity import fidelity_page, reason_of, state_of
from fedbench.scenarios.suite import Suite, load_suite, parse_suite, suites_folder

BOARD = Path(__file__).parents[3] / "leaderboard"
SUITE = {
    "name": "mine",
    "version": 1,
    "title": "Mine",
    "paper": "Nobody, Nowhere 2026",
    "seeds": 2,
    "defaults": {"dataset": "longtail-small", "model": "mf", "malicious_ratio": 0.05},
    "matrix": {"attack": ["a-ra", "a-hum", "random"]},
    "expected_table": [
        {"source": "Table 1", "columns": ["attack", "er_10", "hr_10"], "rows": [["a-ra", 0.9, 0.5], ["a-hum", 0.6, 0.5]]},
        {"source": "Table 2", "columns": ["attack", "er_10"], "rows": [["random", 0.0]]},
        {"source": "Table 2", "columns": ["attack", "er_10"], "rows": [["random", 0.0]], "absent": "it is lost"},
    ],
    "reason": [
        {"where": {"attack": "a-ra"}, "metric": "er_*", "why": "It ends | too early.", "run": "0123456789abcdef-s0"},
        {"metric": "ndcg_*", "why": "Another.", "run": "0123456789abcdef-s1"},
    ],
}  # fmt: skip


def judged(suite: Suite, database: Database) -> tuple[Suite, Report]:
    return suite, compare(suite.title, suite.paper, suite.plan(), suite.expected, database)


def test_every_value_is_counted_and_what_differs_has_its_reason(tmp_path: Path) -> None:
    suite = parse_suite(SUITE, "mine.toml")
    of = {each.scenario.attack: each.scenario for each in suite.plan()}
    write(
        tmp_path,
        record(of["a-ra"], er=0.1),
        *(record(of["a-hum"], seed, er=0.2 + 0.5 * seed, hr=0.3) for seed in (0, 1)),
    )
    suite, report = judged(suite, Database([tmp_path]))
    assert [*map(state_of, report.cells)] == ["differ", "agree", "not told apart", "differ", "not run", "not here"]
    text = fidelity_page([(suite, report)], "suites")
    assert (
        "**6 values: 1 cannot be run here; of the other 5, 1 agree (20 %), 2 differ (40 %), 1 not told apart (20 %),"
        in text
    )
    assert "| Table 1 | [mine](suites/mine.md) | 4 | 1 | 2 | 1 | 0 | 0 | 1 |" in text
    assert "| Table 2 | [mine](suites/mine.md) | 2 | 0 | 0 | 0 | 1 | 1 | 0 |" in text
    assert "| mine | a-ra | er\\_10 | 90.0 | 10.0 | 1 | It ends \\| too early. | 0123456789abcdef-s0 |" in text
    assert "| mine | a-hum | hr\\_10 | 50.0 | 30.0 | 2 | no reason is given | - |" in text


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"run": "seed 0"}, "reason 1: run = 'seed 0'"),
        ({"where": {"atack": "a-ra"}}, "reason 1: where: unknown key 'atack'. Did you mean 'attack'"),
        ({"wy": ""}, "reason 1: unknown key 'wy'. Did you mean 'why'"),
    ],
)
def test_a_reason_that_cannot_be_read_is_refused(wrong: dict[str, object], says: str) -> None:
    data = copy.deepcopy(SUITE)
    data["reason"][0] |= wrong  # type: ignore[index]
    with pytest.raises(UserError, match=says):
        parse_suite(data, "mine.toml")


def test_the_committed_page_is_of_the_committed_records_and_explains_all_that_differs() -> None:
    database = Database([BOARD / "results"])
    files = [path for path in suites_folder().glob("*.toml") if "\n[[expected" in path.read_text(encoding="utf-8")]
    found = [judged(load_suite(name), database) for name in sorted(path.stem for path in files)]
    runs = {row["run_id"] for row in database.rows("select run_id from runs")}
    for suite, report in found:
        assert {reason.run for reason in suite.reason} <= runs
        lacking = [c.label for c in report.cells if state_of(c) == "differ" and reason_of(suite, c) is None]
        assert not lacking, f"suites/{suite.name}.toml needs a [[reason]] for {lacking}"
    assert fidelity_page(found, "suites") == (BOARD / "FIDELITY.md").read_text(encoding="utf-8"), (
        "fedbench pages --out leaderboard/suites --fidelity leaderboard/FIDELITY.md --results leaderboard/results writes it"
    )
