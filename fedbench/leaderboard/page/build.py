"""The page's file: one HTML document with its style, its script and its data inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from fedbench.files import sweep, write_file
from fedbench.leaderboard.board import Board
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.page.data import page_data
from fedbench.texts import count

SCRIPTS = ("state.js", "tables.js", "copies.js", "pictures.js", "doses.js", "details.js", "page.js")
"""In the order in which they run, as one script."""


def write_page(database: Database, folder: Path, command: str, board: Board) -> Path:
    """Write ``index.html`` into ``folder``; raises :class:`ResultsError` when that cannot be done.

    Args:
        database: the records. folder: made when it is missing. command: that the page names as its origin. board: of the
            records.
    """
    path = folder / "index.html"
    text = page_html(page_data(database, command, board))
    sweep([folder])
    write_file(path, text)
    return path


def page_html(data: Mapping[str, Any]) -> str:
    """The document of :func:`~fedbench.leaderboard.page.data.page_data`'s data.

    Its policy allows this style and this script, by their hashes, and nothing else: no address is ever asked for anything.
    """
    files = resources.files("fedbench.leaderboard.page")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    script = "\n".join(files.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
    about = data["about"]
    policy = (
        f"default-src 'none'; style-src '{_source(style)}'; script-src '{_source(script)}';"
        " base-uri 'none'; form-action 'none'"
    )
    facts = (
        count(about[f"{noun}s"], noun).split() for noun in ("run", "scenario", "attack", "defense", "dataset", "model")
    )
    words = {name: about[name] for name in ("version", "command", "digest")} | {"runs": count(about["runs"], "run")}
    page = Template(files.joinpath("page.html").read_text(encoding="utf-8"))
    escaped = {name: html.escape(str(word)) for name, word in words.items()}
    return page.substitute(
        escaped,
        facts="".join(f"<li><b>{number}</b> {noun}</li>" for number, noun in facts),
        findings=_findings(data["findings"]),
        policy=html.escape(policy, quote=False),
        style=style,
        script=script,
        data=script_json(data),
    )


def _findings(found: Sequence[Mapping[str, Any]]) -> str:
    """The first finding, and the others, which a phone shows on demand; they are there without a script, too."""
    items = []
    for place, each in enumerate(found):
        detail = f'<p class="detail">{_escaped(each["detail"])}</p>' if each["detail"] else ""
        counter = f'<p class="counter">But {_escaped(each["counter"])}</p>' if each["counter"] else ""
        basis = f'<p class="basis" data-finding="{place}">{html.escape(each["basis"])}</p>'
        items.append(f'<p class="claim">{_escaped(each["text"])}</p>{detail}{counter}{basis}')
    if not items:
        return ""
    more = "".join(f"<li>{text}</li>" for text in items[1:])
    rest = (
        f'<details id="more" open><summary>{count(len(items) - 1, "more finding")}</summary><ul>{more}</ul></details>'
    )
    return f'<section id="findings" class="wide" aria-label="Findings"><div>{items[0]}</div>{rest if more else ""}</section>'


def _escaped(text: str) -> str:
    return html.escape(text.replace("<=", "\u2264").replace(">=", "\u2265"))


def script_json(data: Any) -> str:
    """JSON that neither ends nor opens an HTML element, and is valid JavaScript, too."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _source(text: str) -> str:
    """The content's name in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
