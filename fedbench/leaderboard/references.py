"""The papers that cards name in few words, in full, as BibTeX: ``references.toml``."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from fedbench.leaderboard.latex import escaped

UNKNOWN = "unpublished"
"""The type of the entries of papers that are not known."""


@dataclass(frozen=True)
class Reference:
    """An entry of a bibliography.

    Attributes:
        key: by which it is cited. kind: its type, ``inproceedings`` and the like. fields: as they are printed, in order.
        cited: how cards name it.
    """

    key: str
    kind: str
    fields: Mapping[str, str]
    cited: str = ""

    def bibtex(self, note: str = "") -> str:
        """The entry; ``note``: for what it stands, plain text."""
        fields = {**self.fields, "annote": _clean(note)} if note else self.fields
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}\n}}\n"


@functools.cache
def references() -> tuple[Reference, ...]:
    """All that are known; keys are made of the first author, the year and the first word of the title."""
    text = resources.files("fedbench.leaderboard").joinpath("references.toml").read_text(encoding="utf-8")
    return tuple(map(_reference, tomllib.loads(text)["paper"]))


def _reference(paper: dict[str, str | int | list[str]]) -> Reference:
    authors, title = paper.pop("author"), str(paper.pop("title"))
    assert isinstance(authors, list)
    last = authors[0].split(",")[0] if "," in authors[0] else authors[0].split()[-1]
    key = "".join(re.findall("[a-z0-9]", f"{last}{paper['year']}{re.split('[ :]', title)[0]}".lower()))
    cited, kind = str(paper.pop("cited")), str(paper.pop("type"))
    fields = {"title": f"{{{_clean(title)}}}", "author": _clean(" and ".join(authors))}
    return Reference(key, kind, fields | {name: _clean(str(value)) for name, value in paper.items()}, cited)


def cited_by(name: str, title: str, paper: str) -> list[Reference]:
    """The papers that a card names: that of the method, and others that it was a baseline of or comes from.

    Of a paper that is not known an entry with what the card says, to be completed; none of a method without a paper.

    Args:
        name, title, paper: of the card.
    """
    found = sorted((each for each in references() if each.cited in paper), key=lambda each: paper.index(each.cited))
    if found or not paper or paper in ("none", "unpublished", "fedbench") or paper.startswith("fedbench ("):
        return found
    key = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
    return [Reference(key, UNKNOWN, {"title": f"{{{_clean(title)}}}", "howpublished": _clean(paper)})]


def _clean(text: str) -> str:
    """As LaTeX takes it; without braces and backslashes, which BibTeX counts."""
    return escaped(re.sub(r"[{}\\]", "", text))
