"""The hook of the documentation: pages that are made of the code, and parts of the repository's own pages in others.

In a page, a line ``<!-- include FILE -->`` stands for that file of the repository without its title,
``<!-- include FILE: HEADING -->`` for what stands below that heading, ``<!-- include FILE: - ITEM -->`` for the item of a
list that begins with ``**ITEM**``, ``<!-- opening FILE -->`` for the paragraph below its title, and
``<!-- docstring NAME -->`` for the docstring of a module or of what is in it, up to its arguments.
"""

from __future__ import annotations

import inspect
import pkgutil
import posixpath
import re
from pathlib import Path
from typing import Any

import reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PLACES = {
    "CONTRIBUTING.md": "howto/attack.md",
    "CONTRIBUTING.md#submit": "howto/submit.md",
    "fedbench/data/README.md": "howto/data.md",
    "fedbench/runs/MACHINES.md": "howto/machines.md",
    "leaderboard/suites/FORMAT.md": "reference/suite-format.md",
}
"""Files of the repository that links of included text may lead to, and the pages that hold them."""

_DIRECTIVE = re.compile(r"^<!-- (include|opening|docstring) (.+?) -->$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference."""
    for name, make in reference.PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put in what directives stand for."""
    return filled(markdown, page.file.src_uri)


def filled(markdown: str, uri: str) -> str:
    """The text of the page at ``uri`` with what its directives stand for; raises ``PluginError`` where there is none."""

    def found(match: re.Match[str]) -> str:
        kind, what = match.groups()
        if kind == "opening":
            return (ROOT / what).read_text(encoding="utf-8").split("\n\n")[1]
        return _docstring(what) if kind == "docstring" else _included(what, uri)

    return _DIRECTIVE.sub(found, markdown)


def _included(what: str, uri: str) -> str:
    file, _, part = what.partition(": ")
    text = (ROOT / file).read_text(encoding="utf-8")
    if part.startswith("- "):
        text = _item(text, part.removeprefix("- "), what)
    elif part:
        text = _section(text, part, what)
    else:
        text = text.partition("\n")[2]
    return _four(_LINK.sub(lambda match: _link(match, file, uri), text)).strip("\n")


def _section(text: str, heading: str, what: str) -> str:
    """What stands below a heading, whose own headings move up as far as it stood below the title."""
    lines = text.splitlines()
    outside = _outside_fences(lines)
    place = next((n for n in outside if re.fullmatch(rf"#+ {re.escape(heading)}", lines[n])), None)
    if place is None:
        raise PluginError(f"There is no heading for <!-- include {what} -->.")
    level = len(lines[place].partition(" ")[0])
    ends = [n for n in outside if n > place and re.match(rf"#{{1,{level}}} ", lines[n])]
    last = min(ends, default=len(lines))
    for n in outside:
        if place < n < last and lines[n].startswith("#"):
            lines[n] = lines[n][level - 1 :]
    return "\n".join(lines[place + 1 : last])


def _outside_fences(lines: list[str]) -> list[int]:
    """The numbers of the lines that are not in fenced code."""
    outside, inside = [], False
    for number, line in enumerate(lines):
        fence = line.lstrip().startswith("```")
        if not inside and not fence:
            outside.append(number)
        inside ^= fence
    return outside


def _item(text: str, name: str, what: str) -> str:
    """An item of a list and the lines that go on with it."""
    match = re.search(rf"^- \*\*{re.escape(name)}\*\*.*\n(?:  .*\n)*", text, re.MULTILINE)
    if match is None:
        raise PluginError(f"There is no item for <!-- include {what} -->.")
    return match.group()


def _link(match: re.Match[str], file: str, uri: str) -> str:
    """A link to a page of the documentation, or the words alone with the file that they are about."""
    picture, text, target = match.groups()
    if re.match(r"[a-z]+:", target):
        return match.group()
    path, mark, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(file), path)) if path else file
    page = PLACES.get(place + mark + anchor) or PLACES.get(place)
    if picture:
        return ""
    if page is not None:
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')})"
    return f"`{place}`" if text.strip("`") in (place, posixpath.basename(place)) else f"{text} (`{place}`)"


def _four(text: str) -> str:
    """Numbered lists whose items go on at column 3, at column 4: Python's Markdown wants four."""
    lines, within = text.splitlines(), False
    for number, line in enumerate(lines):
        within = bool(re.match(r"\d+\. ", line)) or (within and (not line or line.startswith("   ")))
        if within and line.startswith("   "):
            lines[number] = " " + line
    return "\n".join(lines)


def _docstring(name: str) -> str:
    text = inspect.getdoc(pkgutil.resolve_name(name))
    if text is None:
        raise PluginError(f"<!-- docstring {name} --> has none.")
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", re.split(r"\n\n(?:Args|Returns|Attributes):\n", text)[0])
    return re.sub(r"::\n\n", ":\n\n", text).replace("``", "`")
