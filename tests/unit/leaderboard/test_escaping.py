"""Records are written by strangers: whatever is in a text of theirs is shown, and does nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from records import defended, record, scenario, write

from fedbench.leaderboard import Database
from fedbench.leaderboard.board import make_board
from fedbench.leaderboard.render import escape, markdown

EVIL = '<script>alert(1)</script>|`c`\n# x [a](javascript:b) *b* ~~d~~ $e$ <img src=x onerror="f"> \x1b[2J\u202e'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a|b", r"a\|b"),
        ("`c`", r"\`c\`"),
        ("one\ntwo\r\nthree\u2028four", "one two three four"),
        ("[a](b)", r"\[a\](b)"),
        ("# x ~y~ $z$ _u_", r"\# x \~y\~ \$z\$ \_u\_"),
        ("\x1b[2J", r"\\x1b\[2J"),
        ("a\u202eb", r"a\\u202eb"),
        ("&lt;", "&amp;lt;"),
        ("a-ra + b (1.5 %)", "a-ra + b (1.5 %)"),
    ],
)
def test_what_markdown_and_html_would_read_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_no_text_of_a_record_gets_out_of_its_cell(tmp_path: Path) -> None:
    """In the names, the texts of the card, the error, the data, and the ids themselves."""
    evil = EVIL.replace("/", "")  # ids are names of files
    write(
        tmp_path,
        record(scenario(), hr=0.5),
        record(scenario("a-ra"), er=0.5, attack=EVIL, attack_knowledge=[EVIL]),
        record(scenario("a-ra"), 1, er=0.4, attack=EVIL, scenario_id=evil[:60]),
        record(scenario("a-hum"), status="failed", error=EVIL, model=EVIL),
        record(scenario("a-hum"), 1, status="diverged", error=EVIL, dataset=EVIL),
        defended("shield", hr=0.4),
        defended(EVIL, "a-ra", er=0.1, family=EVIL, assumes=EVIL),
    )
    text = markdown(make_board(Database([tmp_path])))
    assert "&lt;script&gt;alert(1)" in text
    ours = r"</?(details|summary)>"
    assert not re.search(r"<(?!/?(details|summary)>)", text), re.sub(ours, "", text)
    assert all(each.isprintable() for each in text.replace("\n", ""))
    assert not re.search(r"(?<!\\)\[a", text)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
