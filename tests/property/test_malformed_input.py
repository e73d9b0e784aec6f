"""Suite files and command lines that nobody should write: a suite, or one line; no traceback, no hang, no gigabyte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bounds import Bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedbench.cli import app
from fedbench.errors import UserError
from fedbench.scenarios.suite import Suite, load_suite

HEAD = 'name = "tiny"\nversion = 1\ntitle = "Tiny"\n'
REST = '[defaults]\ndataset = "longtail-small"\nmodel = "mf"\nmalicious_ratio = 0.05\n'
MATRIX = '[matrix]\nattack = ["none", "pieck-ipe"]\ndefense = ["none", "median"]\n'

VALUES = [
    *("0", "1", "-1", "2", "3.5", "1e400", "nan", "-inf", "true", "1_0", "0x10", "9" * 20, "9" * 5_000, f"{2**63}"),
    *('""', '"x"', '"mf"', '"none"', '"longtail-small"', '"krum+median"', '"+"', '"a+a"', '"\\u0000"', '"\\u001b[2J"'),
    *(
        '"./no.py"',
        '"~nosuchuser/x.py"',
        f'"{"x" * 300}"',
        f'"{"x" * 300}.py"',
        '"random:3"',
        '"random:٣"',
        '"fixed:1,1"',
    ),
    *('"random:999999999999"', '"*"', '"["', "1979-05-27", "07:32:00", "[]", "{}", "[1, 1, 1]", f"[{2**63}]", "[[]]"),
    *(
        '["none"]',
        "[0.05, 0.05]",
        "[true]",
        '["mf", "ncf"]',
        '[{ attack = "p1" }]',
        "{ epochs = 1 }",
        "{ epochs = 10_000_000 }",
    ),
    *(f"{{ epochs = {10**30} }}", "{ clients_per_round = 1e300 }", "{ krum = { f = 1 } }", '{ krum = "x" }'),
    *("[" * 60 + "]" * 60, "[" * 3_000 + "]" * 3_000, "[" + "1," * 20_000 + "1]", "{ a.b.c = 1 }"),
    *("{ embedding_size = 1_000_000 }", "{ hidden = [0] }", "{ hidden = [] }", "{ loss = 3 }", "{ bound = nan }"),
]
KEYS = [
    *("name", "version", "title", "description", "paper", "seeds", "twins", "defaults", "matrix", "group", "override"),
    *("exclude", "expected", "expected_table", "dataset", "model", "attack", "defense", "malicious_ratio", "protocol"),
    *(
        "target",
        "num_targets",
        "model_params",
        "attack_params",
        "defense_params",
        "protocol_params",
        "variant",
        "nokey",
    ),
]
TABLES = [
    *("[defaults]", "[matrix]", "[[group]]", "[group.matrix]", "[[override]]", "[override.when]", "[override.set]"),
    *("[[exclude]]", "[exclude.when]", "[[expected]]", "[expected.where]", "[[expected_table]]", "[a.b]", "[[a]]", "["),
]
line = st.one_of(st.builds("{} = {}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)), st.sampled_from(TABLES))
text = st.one_of(
    st.builds(
        lambda head, rest, matrix: (
            HEAD + "\n".join(head) + "\n" + REST + "\n".join(rest) + "\n" + MATRIX + "\n".join(matrix)
        ),
        *[st.lists(line, max_size=2)] * 3,
    ),
    st.builds(lambda lines: HEAD + "\n".join(lines), st.lists(line, max_size=8)),
    st.text(max_size=40),
    st.builds(
        lambda sizes: HEAD + REST + "[matrix]\n" + "\n".join(_wide(n, k) for k, n in enumerate(sizes)),
        st.lists(st.sampled_from([1, 3, 10_000]), max_size=4),
    ),
)


def _wide(values: int, place: int) -> str:
    key = ("num_targets", "malicious_ratio", "target", "attack")[place]
    made: Callable[[int], str] = (
        str,
        lambda n: f"{n / 10_001 + 1e-5:.7f}",
        lambda n: f'"random:{n}"',
        lambda n: '"p1"',
    )[place]
    return f"{key} = [{', '.join(made(n + 1) for n in range(values))}]"


def read(path: Path, content: str) -> Suite | None:
    path.write_text(content, encoding="utf-8", errors="replace")
    try:
        with Bounded():
            return load_suite(str(path))
    except UserError as error:
        said = str(error).strip()
    assert len(said) < 3_000
    assert "\n" not in said
    return None


def check_suites(path: Path, most: int) -> None:
    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), derandomize=most < 500)
    @given(text)
    def check(content: str) -> None:
        read(path, content)

    check()


def test_suite_files(tmp_path: Path) -> None:
    check_suites(tmp_path / "s.toml", 80)


@pytest.mark.slow
def test_many_suite_files(tmp_path: Path) -> None:
    check_suites(tmp_path / "s.toml", 3_000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEAD + "seeds = " + "[" * 3_000 + "]" * 3_000 + REST, "not valid TOML: nested too deeply"),
        (HEAD + REST + "model_params = " + "{ a = " * 40 + "1" + " }" * 40, "nested more than 16 levels deep"),
        (HEAD + REST + "protocol_params = { epochs = 1" + "0" * 30 + " }", "a whole number of more than 18 digits"),
        (HEAD + "seeds = 1" + "0" * 5_000 + "\n" + REST, "not valid TOML"),
        (
            HEAD + REST + "protocol_params = { epochs = 1000000 }",
            "epochs = 1000000: Input should be less than or equal to 100000",
        ),
        (HEAD + REST + "protocol_params = { clients_per_round = 1e300 }", "clients_per_round: at most 1e+30 in size"),
        (HEAD + REST + 'target = "random:999999999999"', "target = 'random:999999999999' must be"),
        (HEAD + REST + 'target = "random:٣"', "must be 'random:K' (the K-th fixed random draw, K at most 9999)"),
        (HEAD + REST + "malicious_ratio = nan".replace("malicious_ratio", "num_targets"), "nan is no number"),
        (HEAD + REST + 'target = "random:1\\u001b[2J"', "a text holds U+001B, which cannot be seen"),
        (HEAD + REST + "attack_params = { when = 1979-05-27 }", "is a date, which no key takes"),
        (HEAD + f"seeds = {2**63}\n" + REST, "a whole number of more than 18 digits"),
        (HEAD + f"seeds = [{2**31}]\n" + REST, "less than 2147483648"),
        (HEAD + "seeds = 1000000000\n" + REST, "input should be less than or equal to 10000"),
        (HEAD.replace("tiny", "t" * 300) + REST, "string should have at most 100 characters"),
        (HEAD + REST + "#" * (1 << 20), "more than 1,048,576 bytes"),
        (
            HEAD + REST + "[matrix]\n" + "\n".join(_wide(1_000, k) for k in range(4)),
            "the matrix has 1,000,000,000,000 combinations; at most 10,000 in one suite",
        ),
        (HEAD + "seeds = 10000\n" + REST + "[matrix]\n" + _wide(30, 0), "has 300,000 runs; at most 200,000"),
    ],
)
def test_what_is_too_much_is_one_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(content)
    with Bounded(), pytest.raises(UserError) as caught:
        load_suite(str(path)).plan()
    assert said.lower() in str(caught.value).lower()
    assert len(str(caught.value)) < 1_000


def test_seeds_that_repeat_count_once_and_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("\ufeff" + HEAD + "seeds = [1, 1, 1]\n" + REST, encoding="utf-8")
    assert [planned.seeds for planned in load_suite(str(tmp_path / "s.toml")).plan()] == [(1,)]


WORDS = [
    *(
        "0",
        "-1",
        "3",
        "1" * 5_000,
        "1e400",
        "nan",
        "٣",
        "",
        " ",
        "x",
        "x" * 300,
        "a/" * 3_000,
        "~nosuchuser",
        "/dev/full",
    ),
    *(
        "/dev/null",
        "/",
        ".",
        "*",
        "[",
        "\x1b[2J",
        "\ud800",
        "0,1",
        "0," * 20_000,
        "dataset=*",
        "dataset=",
        "=",
        "model=mf",
    ),
    *(
        "smoke",
        "none.toml",
        "median",
        "pieck-ipe",
        "ml-100k",
        "longtail-small",
        "krum+median",
        "./no.py",
        "a" * 5_000 + ".py",
    ),
]
COMMANDS = [
    ["run", "smoke", "--dry-run", "--seeds", "?", "--only", "?"],
    ["run", "?", "--dry-run", "--jobs", "?", "--results", "?"],
    ["run", "smoke", "--dry-run", "--attack", "?", "--device", "?"],
    ["run", "smoke", "--dry-run", "--defense", "?", "--dataset", "?"],
    ["show", "?"],
    ["list", "?"],
    ["data", "info", "?", "--split", "?"],
    ["data", "import", "?", "?", "--format", "?"],
    ["reproduce", "?", "--results", "?", "--seeds", "?"],
    ["?", "?"],
]


def check_arguments(folder: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FEDBENCH_CACHE", str(folder / "home"))
    runner = CliRunner()

    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), derandomize=most < 500)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        command = data.draw(st.sampled_from(COMMANDS))
        arguments = [data.draw(st.sampled_from(WORDS)) if each == "?" else each for each in command]
        with Bounded():
            result = runner.invoke(app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exc_info)
        assert result.exit_code in (0, 1, 2), arguments
        assert "Traceback" not in result.output

    check()


def test_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_arguments(tmp_path, 20, monkeypatch)


@pytest.mark.slow
def test_many_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_arguments(tmp_path, 1_000, monkeypatch)
