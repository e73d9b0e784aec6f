"""``fedbench export``: LaTeX that compiles, CSV and JSON that are read back, and BibTeX of what is shown."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import latex_reader
import pytest
import yaml
from records import defended, record, scenario, write
from typer.testing import CliRunner

from fedbench import __version__
from fedbench.attacks import ATTACKS
from fedbench.cli import app
from fedbench.leaderboard.bibtex import AUTHOR, TITLE
from fedbench.leaderboard.latex import NEEDS, escaped

ROOT = Path(__file__).parents[2]
EVIL = r'\input{/etc/passwd} 50% & $x$ #1 a_b ^~ {open <b> [x] "q" `c` |' + " 東京 é ≥ \u2212 … \x1b[2J\u202e"


def said(*arguments: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """a-ra is told apart from random on three seeds, and from a-hum not; a defense that none of them passes."""
    runs = [record(scenario(), seed, hr=0.5) for seed in range(3)]
    for seed in range(3):
        runs += [
            record(scenario("a-ra"), seed, er=0.80 + seed / 100),
            record(scenario("a-hum"), seed, er=0.70 + seed * seed / 20),
            record(scenario("random"), seed, er=0.01 * seed * seed),
            defended("norm-bound", "none", seed=seed, hr=0.45, family="clipping"),
            *(defended("norm-bound", attack, seed=seed, er=0.1, hr=0.45) for attack in ("a-ra", "a-hum", "random")),
        ]
    return write(tmp_path / "results", *runs)


def test_tables_with_marks_and_intervals(results: Path, tmp_path: Path) -> None:
    text, _ = said("latex", "--results", results)
    attacks, *_, defenses = (rows for rows in latex_reader.tables(text) if rows[0][0] == "rank")
    assert attacks[0][:3] == ["rank", "attack", "ER@10"]
    by_name = {row[1]: row for row in attacks[1:]}
    assert list(by_name) == [r"\textbf{a-ra}", r"\textbf{a-hum}", "random$^{*}$"]
    assert re.fullmatch(r"81\.0 \{\[\}78\.5, 83\.5\{\]\}", by_name[r"\textbf{a-ra}"][2])
    assert by_name[r"\textbf{a-ra}"][0] == "1--2"
    assert defenses[1][1] == "norm-bound"
    assert r"\caption{Attacks by ER@10, without a defense}" in text
    assert r"\label{tab:attacks-by-er-10-without-a-defense}" in text
    assert text.startswith("% fedbench 0.")
    assert text.splitlines()[0].endswith(f"; fedbench leaderboard --results={results}")
    assert r"*: significantly worse than the first one that is ranked" in text
    narrow, wide = (max(len(rows[0]) for rows in latex_reader.tables(said("latex", "--results", results, *more)[0]))
                    for more in ((), ("--wide",)))  # fmt: skip
    assert narrow < wide
    one, _ = said("latex", "--results", results, "--table", "Attacks*")
    assert one.count(r"\begin{table}") == len(re.findall(r"\\caption\{Attacks", one)) >= 1
    out = tmp_path / "new" / "t.tex"
    assert said("latex", "--results", results, "--out", out) == (
        "",
        f"written to {out}; a document needs {NEEDS} for it\n",
    )
    assert out.read_text() == text


def test_the_command_of_tables_names_folders_as_they_were_given(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FEDBENCH_RESULTS", str(results))
    for given in (["--results=../results"], ["--results=../results", "--only=attack=a-ra", "--k=20"], []):
        head = said("latex", *given, *(["--only=attack=a-ra"] if not given else []))[0].splitlines()[0]
        assert head.endswith("; " + " ".join(["fedbench", "leaderboard", *(given or ["--only=attack=a-ra"])]))


def test_a_document_compiles(results: Path, tmp_path: Path) -> None:
    write(results, record(scenario("a-ra"), 5, er=0.5, attack=EVIL, attack_knowledge=[EVIL]))
    out = tmp_path / "board.tex"
    said("latex", "--results", results, "--document", "--wide", "--out", out)
    text = out.read_text()
    assert latex_reader.tables(text)
    assert text.rstrip().endswith(r"\end{document}")
    compiler = shutil.which("pdflatex")
    if compiler is None:
        return  # the reader has looked at it
    command = [compiler, "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", out.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    if b"can't find the format file" in done.stdout:
        pytest.skip("pdflatex is not set up")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "board.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b 5 % & #1 $x$ {y}", r"a\_b 5 \% \& \#1 \$x\$ \{y\}"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("~ ^ < > | [1]", r"\textasciitilde{} \textasciicircum{} \textless{} \textgreater{} \textbar{} {[}1{]}"),
        (">=1.3 % <=2 -0.5 [-1, +2] a-1 1-2", r"$\geq$1.3 \% $\leq$2 $-$0.5 {[}$-$1, +2{]} a-1 1-2"),
        ("é ≥ \u2212 \u00d7 …", r"é $\geq$ $-$ $\times$ \dots{}"),
        ("東 ﬁ", "U+6771 fi"),
        ("one\ntwo", "one two"),
        ("\x1b[2J", r"\textbackslash{}x1b{[}2J"),
    ],
)
def test_what_latex_would_read_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
    latex_reader.tables(escaped(text))


@pytest.mark.parametrize(
    "text",
    ["a_b", "5 % x", "a & b {", "}", "$x", r"\input{x}", r"\begin{table}", "東", "#",
     "\\begin{tabular}{ll}\n\\toprule\na \\\\\n\\bottomrule\n\\end{tabular}"],
)  # fmt: skip
def test_the_reader_is_strict(text: str) -> None:
    with pytest.raises(ValueError):
        latex_reader.tables(text)


def test_csv_and_json_are_read_back(results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(said("csv", "--results", results)[0])))
    attacks = [row for row in rows if row["board"] == "attacks" and not row["model"]]
    assert [(row["entry"], row["rank"], row["last_rank"], row["measure"]) for row in attacks] == [
        ("a-ra", "1", "2", "ER@10"),
        ("a-hum", "1", "2", "ER@10"),
        ("random", "3", "3", "ER@10"),
    ]
    assert float(attacks[0]["score"]) == pytest.approx(81.0)
    assert float(attacks[0]["low"]) < 81.0 < float(attacks[0]["high"])
    (defense,) = [row for row in rows if row["board"] == "defenses"]
    assert float(defense["score"]) == pytest.approx(float(defense["reduction"]) - float(defense["cost"]))
    data = json.loads(said("json", "--results", results)[0], parse_constant=pytest.fail)
    shown = CliRunner().invoke(app, ["leaderboard", "--results", str(results), "--json"]).stdout
    assert data == json.loads(shown)
    assert "random" not in said("csv", "--results", results, "--only", "attack=a-*", "--k", 5)[0]


def test_bibtex_of_what_is_shown(results: Path) -> None:
    text, _ = said("bibtex", "--results", results)
    keys = re.findall(r"^@[a-z]+\{([^,]+),$", text, re.MULTILINE)
    assert keys == ["fedbench", "rong2022poisoning", "sun2019can", "zhang2024preventing", "koren2009matrix"]
    assert "@unpublished" not in text, "nothing is to be completed"
    assert text.startswith("% From fedbench's own list of papers: compare with the publishers'")
    assert (
        """\
@inproceedings{rong2022poisoning,
  title = {{Poisoning Deep Learning Based Recommender Model in Federated Learning Scenarios}},
  author = {Dazhong Rong and Qinming He and Jianhai Chen},
  booktitle = {International Joint Conference on Artificial Intelligence (IJCAI)},
  year = {2022},
  annote = {For a-hum, a-ra, random}
}
"""
        in text
    )
    assert text.count("{") == text.count("}")


def test_bibtex_of_a_method_whose_paper_is_not_known_says_what_its_card_does(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ATTACKS.get("a-ra"), "card", replace(ATTACKS.get("a-ra").card, paper="Doe_1 {et} al., X 2030"))
    text, _ = said("bibtex", "--results", results)
    head, _, entries = text.partition("\n@")
    assert all(line.startswith("% ") for line in head.splitlines())
    assert "before this is printed" in head
    own = "@unpublished{a-ra,\n  title = {{Random approximation (A-ra)}},\n  howpublished = {Doe\\_1 et al., X 2030},\n"
    assert own in entries
    assert "annote = {For a-hum, random}" in entries


def test_fedbench_is_cited_as_its_citation_says(results: Path) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["authors"]) == (TITLE, [{"name": AUTHOR}])
    assert citation["version"] == __version__
    year, _, _ = citation["date-released"].partition("-")
    entry, _, _ = said("bibtex", "--results", results)[0].partition("@misc{fedbench,\n")[2].partition("\n}")
    assert entry.splitlines() == [
        f"  title = {{{{{TITLE}}}}},",
        f"  author = {{{{{AUTHOR}}}}},",
        f"  year = {{{year}}},",
        f"  version = {{{__version__}}}",
    ]


def test_mistakes_are_one_line(results: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("latec", "--results", results), "Unknown format 'latec'. Did you mean 'latex'?"),
        (("csv", "--results", results, "--document"), "--table, --document and --wide are of latex, not of csv."),
        (("latex", "--results", results, "--table", "Atacks*"), "Unknown table 'Atacks*'."),
        (("csv", "--results", tmp_path / "none"), "no results in "),
        (("csv", "--results", results, "--suite", "smokey"), "Unknown suite 'smokey'."),
    ):
        out, err = said(*arguments, code=2)
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"error: {message}")
