"""Suites: expansion, twins, filters, and the messages for a wrong file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from fedbench.errors import UserError
from fedbench.scenarios.suite import Suite, load_suite, matches, parse_filters, parse_seeds, parse_suite, suite_names

TINY: dict[str, Any] = {
    "name": "tiny",
    "version": 1,
    "title": "Tiny",
    "seeds": 2,
    "defaults": {"dataset": "longtail-small", "malicious_ratio": 0.05},
    "matrix": {"model": ["mf", "ncf"], "attack": ["random", "a-ra"]},
}


def tiny(**changes: Any) -> Suite:
    return parse_suite({**copy.deepcopy(TINY), **changes}, "tiny.toml")


def cells(suite: Suite, **plan: Any) -> list[str]:
    return [
        " ".join([p.scenario.model, p.scenario.attack, p.scenario.defense, *(["twin"] if p.twin else [])])
        for p in suite.plan(**plan)
    ]


def test_matrix_and_twins_in_order() -> None:
    assert cells(tiny()) == [
        "mf random none",
        "mf none none twin",
        "mf a-ra none",
        "ncf random none",
        "ncf none none twin",
        "ncf a-ra none",
    ]


def test_defended_scenarios_bring_all_their_twins() -> None:
    suite = tiny(matrix={"model": ["mf"], "attack": ["a-ra"], "defense": ["norm-bound"]})
    assert cells(suite) == ["mf a-ra norm-bound", "mf none norm-bound twin", "mf a-ra none twin", "mf none none twin"]


def test_twins_can_be_left_out() -> None:
    assert not any(planned.twin for planned in tiny(twins=False).plan())


def test_a_scenario_of_the_matrix_is_no_twin() -> None:
    suite = tiny(matrix={"model": ["mf"], "attack": ["a-ra", "none"]})
    assert cells(suite) == ["mf a-ra none", "mf none none"]


def test_without_an_attack_the_ratio_is_what_a_defense_assumes() -> None:
    suite = tiny(
        defaults={"dataset": "longtail-small", "malicious_ratio": 0.05},
        matrix={"model": ["mf"], "attack": ["none", "a-ra"], "defense": ["krum"]},
    )
    clean, attacked = (planned.scenario for planned in suite.plan() if planned.scenario.defense == "krum")
    assert (clean.malicious_ratio, clean.defense_params) == (0.0, {"assumed_ratio": 0.05})
    assert attacked.clean.id == clean.id


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"malicious_ratio": 7}, "malicious_ratio = 7 must be a number from 0"),
        ({"malicious_ratio": "abc", "defense": "krum"}, "malicious_ratio = 'abc' must be a number from 0"),
        (
            {"malicious_ratio": 0.05, "defense": "union+krum", "defense_params": {"union": 3}},
            "union = 3 must be a table",
        ),
        ({"malicious_ratio": 0.05, "defense": "krum", "defense_params": 3}, "defense_params = 3 must be a table"),
    ],
)
def test_a_clean_cell_is_checked_like_any_other(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(defaults={"dataset": "longtail-small", "model": "mf", **fields}, matrix={"attack": ["none"]}).plan()
    assert str(caught.value).startswith("tiny.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_attack_has_no_malicious_clients_and_no_parameters() -> None:
    suite = tiny(
        matrix={"model": ["mf"], "attack": ["none", "a-ra"], "attack_params": [{"pseudo_users": 3}]}, twins=False
    )
    clean, attacked = suite.plan()
    assert (clean.scenario.malicious_ratio, dict(clean.scenario.attack_params)) == (0.0, {})
    assert (attacked.scenario.malicious_ratio, attacked.scenario.attack_params) == (0.05, {"pseudo_users": 3})


def test_a_value_can_set_several_fields() -> None:
    suite = tiny(
        matrix={"model": ["mf"], "attack": ["random", {"attack": "a-ra", "attack_params": {"pseudo_users": 3}}]},
        twins=False,
    )
    assert [dict(planned.scenario.attack_params) for planned in suite.plan()] == [{}, {"pseudo_users": 3}]


def test_parameters_are_merged_and_fields_replaced() -> None:
    suite = tiny(
        defaults={**TINY["defaults"], "protocol_params": {"epochs": 9, "duplicates": "keep"}},
        override=[
            {"when": {"model": "ncf", "attack": "a-*"}, "set": {"protocol_params": {"epochs": 3}, "target": "random:4"}}
        ],
        twins=False,
    )
    found = {(p.scenario.model, p.scenario.attack): p.scenario for p in suite.plan()}
    assert found["mf", "a-ra"].protocol_params == {"epochs": 9, "duplicates": "keep"}
    assert found["ncf", "a-ra"].protocol_params == {"epochs": 3, "duplicates": "keep"}
    assert found["ncf", "a-ra"].target == "random:4"
    assert found["ncf", "random"].target == "random:0"


def test_later_overrides_see_what_earlier_ones_set() -> None:
    suite = tiny(
        matrix={"model": ["mf"], "attack": ["a-ra"]},
        override=[
            {"when": {"malicious_ratio": 0.05}, "set": {"target": "random:7"}},
            {"when": {"target": "random:7", "defense": "none"}, "set": {"num_targets": 3}},
        ],
        twins=False,
    )
    assert suite.plan()[0].scenario.num_targets == 3


def test_exclusions() -> None:
    suite = tiny(exclude=[{"when": {"model": "mf", "attack": ["a-ra", "a-hum"]}}], twins=False)
    assert cells(suite) == ["mf random none", "ncf random none", "ncf a-ra none"]


def test_groups_inherit_and_replace() -> None:
    suite = tiny(
        group=[
            {"variant": "one", "matrix": {"attack": ["a-ra"]}},
            {"variant": "two", "seeds": [7], "defaults": {"model": "ncf", "target": "random:1"}},
        ],
        twins=False,
    )
    assert [(p.scenario.model, p.scenario.attack, p.scenario.target, p.seeds, p.variants) for p in suite.plan()] == [
        ("mf", "a-ra", "random:0", (0, 1), ("one",)),
        ("ncf", "a-ra", "random:0", (0, 1), ("one",)),
        ("ncf", "random", "random:1", (7,), ("two",)),
        ("ncf", "a-ra", "random:1", (7,), ("two",)),
    ]


def test_duplicates_are_merged_with_their_seeds_and_variants() -> None:
    group = {"matrix": {"model": ["mf"], "attack": ["a-ra"]}}
    suite = tiny(group=[{**group, "variant": "one", "seeds": [0]}, {**group, "variant": "two", "seeds": [3, 0]}])
    attacked, clean = suite.plan()
    assert (attacked.seeds, attacked.variants, attacked.twin) == ((0, 3), ("one", "two"), False)
    assert (clean.seeds, clean.variants, clean.twin) == ((0, 3), ("one", "two"), True)


def test_filters_keep_the_twins_of_what_they_select() -> None:
    suite = tiny()
    assert cells(suite, only=["model=ncf,attack=a-*"]) == ["ncf a-ra none", "ncf none none twin"]
    assert cells(suite, only=["model=ncf", "attack=a-ra,random"]) == [
        "ncf random none",
        "ncf none none twin",
        "ncf a-ra none",
    ]


def test_filter_on_a_ratio_and_a_variant() -> None:
    suite = tiny(
        group=[
            {"variant": "weak", "defaults": {"malicious_ratio": 0.001}},
            {"variant": "strong", "defaults": {"malicious_ratio": 0.05}},
        ],
    )
    weak = suite.plan(only=["malicious_ratio=0.001"])
    assert weak == suite.plan(only=["variant=we*"])
    assert {planned.scenario.malicious_ratio for planned in weak} == {0.0, 0.001}


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["atack=a-ra"], "Unknown key of --only 'atack'. Did you mean 'attack'?"),
        (["mr=0.1"], "Unknown key of --only 'mr'. Did you mean 'malicious_ratio'?"),
        (["attack=krum"], "--only attack=krum fits nothing in suite 'tiny'; there are a-ra, random."),
        (["variant=fair"], "--only variant=fair fits nothing in suite 'tiny'; none is labelled."),
        (["a-ra"], "--only 'a-ra' must be key=glob"),
        (["attack="], "--only 'attack=' must be key=glob"),
    ],
)
def test_bad_filters(only: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny().plan(only=only)
    assert message in str(caught.value)


def test_filters_that_contradict_each_other() -> None:
    suite = tiny(exclude=[{"when": {"model": "mf", "attack": "a-ra"}}])
    with pytest.raises(UserError, match="no scenario that fits every --only"):
        suite.plan(only=["model=mf,attack=a-ra"])


def test_parse_filters() -> None:
    assert parse_filters(["dataset=ml-*,model=mf", "model=ncf"]) == {"dataset": ["ml-*"], "model": ["mf", "ncf"]}


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("0,4", (0, 4)), ("4,", (4,)), ("5,5", (5,))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds
    assert {planned.seeds for planned in tiny().plan(seeds=text)} == {seeds}


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "999999999"])
def test_bad_seeds(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_matching_of_parameters_and_globs() -> None:
    labels = {"model": "mf", "attack_params": {"N": 10, "scale": 2.0}, "variant": ["fair"], "malicious_ratio": 0.05}
    assert matches({"attack_params": {"N": 10}}, labels)
    assert not matches({"attack_params": {"N": 11}}, labels)
    assert matches({"variant": "f*", "malicious_ratio": [0.01, 0.05]}, labels)
    assert not matches({"dataset": "*"}, labels)


def test_expected_values_and_tables() -> None:
    suite = tiny(
        expected=[{"where": {"model": "mf"}, "metric": "hr_10", "value": 0.57, "source": "text"}],
        expected_table=[
            {
                "source": "Table 1",
                "where": {"attack": "a-ra"},
                "statistic": "peak",
                "columns": ["model", "er_5", "er_10"],
                "rows": [["mf", 0.1, 0.2], ["ncf", {"value": 0.9, "band": [0.8, 1.0], "note": "row x"}, 1.0]],
            }
        ],
    )
    first, *table = suite.expected
    assert (first.metric, first.value, first.band, first.statistic) == ("hr_10", 0.57, None, "end")
    assert [(e.where["model"], e.where["attack"], e.metric, e.value, e.statistic) for e in table] == [
        ("mf", "a-ra", "er_5", 0.1, "peak"),
        ("mf", "a-ra", "er_10", 0.2, "peak"),
        ("ncf", "a-ra", "er_5", 0.9, "peak"),
        ("ncf", "a-ra", "er_10", 1.0, "peak"),
    ]
    assert (table[2].band, table[2].note) == ([0.8, 1.0], "row x")


CELL = {"where": {"model": "mf"}, "metric": "hr_10", "value": 0.57, "source": "text"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 3}, "tiny.toml: unknown key 'sedes'. Did you mean 'seeds'?"),
        ({"seeds": "five"}, "tiny.toml: seeds = 'five': "),
        ({"version": 0}, "tiny.toml: version = 0: "),
        ({"name": "My Suite"}, "tiny.toml: name = 'My Suite': "),
        (
            {"defaults": {**TINY["defaults"], "ratio": 0.1}},
            "tiny.toml: defaults: unknown key 'ratio'. Did you mean 'malicious_ratio'?",
        ),
        ({"matrix": {"model": ["mf"], "atack": ["a-ra"]}}, "matrix: unknown key 'atack'. Did you mean 'attack'?"),
        ({"matrix": {"model": []}}, "tiny.toml: matrix = []: "),
        ({"matrix": {"attack": [{"atack": "a-ra"}]}}, "matrix: attack: unknown key 'atack'."),
        ({"matrix": {"attack": ["a-ra"]}}, "tiny.toml: key 'model' is missing."),
        ({"group": [{"sedes": 1}]}, "tiny.toml: group 1: unknown key 'sedes'. Did you mean 'seeds'?"),
        ({"group": [{"variant": 3}]}, "tiny.toml: group 1: variant = 3: "),
        ({"group": [{}, {"matrix": {"attack": ["a-rra"]}}]}, "group 2: unknown attack 'a-rra'. Did you mean 'a-ra'?"),
        ({"group": [{"defaults": {"datset": "x"}}]}, "group 1: defaults: unknown key 'datset'."),
        ({"override": [{"wen": {}, "set": {}}]}, "tiny.toml: override 1: "),
        ({"override": [{"when": {"modle": "mf"}, "set": {}}]}, "override 1: when: unknown key 'modle'."),
        ({"override": [{"when": {}, "set": {"variant": "x"}}]}, "override 1: set: unknown key 'variant'."),
        ({"override": [{"when": {"model": "mlp"}, "set": {}}]}, "tiny.toml: override 1 matches no scenario."),
        ({"exclude": [{"when": {"model": "mlp"}}]}, "tiny.toml: exclude 1 matches no scenario."),
        ({"exclude": [{"when": {"x": 1}}]}, "exclude 1: when: unknown key 'x'."),
        ({"expected": [{**CELL, "metric": "er_7"}]}, "tiny.toml: expected 1: metric = 'er_7': "),
        ({"expected": [{**CELL, "value": 57.0}]}, "tiny.toml: expected 1: value = 57.0: "),
        ({"expected": [{**CELL, "where": {"modl": "mf"}}]}, "expected 1: where: unknown key 'modl'."),
        ({"expected": [{**CELL, "where": {"model": "x"}}]}, "expected hr_10: no scenario has model = 'x'."),
        (
            {"expected_table": [{"source": "T", "columns": ["model", "er_5"], "rows": [["mf"]]}]},
            "tiny.toml: expected_table 1: row 1 has 1 values for 2 columns.",
        ),
        (
            {"expected_table": [{"source": "T", "columns": ["model", "er_6"], "rows": [["mf", 0.1]]}]},
            "tiny.toml: expected_table 1: row 1, column 'er_6': metric = 'er_6': ",
        ),
        ({"matrix": {**TINY["matrix"], "malicious_ratio": [2.0]}}, "malicious_ratio = 2.0 must be a number"),
    ],
)
def test_mistakes_are_explained_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(**changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith("tiny.toml: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("name = tiny\n")
    with pytest.raises(UserError, match=r"bad\.toml: not valid TOML: .*line 1"):
        load_suite(str(path))


def test_files_that_do_not_exist() -> None:
    with pytest.raises(UserError, match=r"suite file 'nowhere/x\.toml' does not exist"):
        load_suite("nowhere/x.toml")
    with pytest.raises(UserError, match=r"Unknown suite 'smokes'\. Did you mean 'smoke'"):
        load_suite("smokes")


@pytest.mark.parametrize("name", suite_names())
def test_packaged_suites(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.description
    ids = [planned.scenario.id for planned in suite.plan()]
    assert len(set(ids)) == len(ids)


def test_there_are_the_suites_that_the_documentation_names() -> None:
    wanted = {"smoke", "core", "icde24-table3", "ijcai22", "ijcai22-fig1", "ijcai22-fig2", "wsdm22-fig3"}
    assert wanted <= set(suite_names())


def test_published_rows_of_icde24_keep_what_the_authors_ran() -> None:
    suite = load_suite("icde24-table3")
    published = suite.plan(only=["variant=published,dataset=ml-100k"])
    assert len(published) == 14
    for planned in published:
        protocol = planned.scenario.resolved.protocol
        assert (protocol.split, protocol.duplicates, protocol.duplicate_rows) == ("published-icde24", "keep", "last")
        assert (planned.scenario.target, planned.seeds) == ("fixed:467", (0, 1, 2, 3, 4))
    values = [e for e in suite.expected if matches(e.where, published[0].labels)]
    assert [(e.metric, e.value, e.band) for e in values] == [
        ("er_10", 0.0023, [0.0, 0.01]),
        ("hr_10", 0.5716, [0.53, 0.59]),
    ]
    assert len(suite.expected) == 84
