"""How to cite what a leaderboard shows: fedbench, and every attack, defense, model and dataset of its runs, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fedbench import __version__
from fedbench.data import DATASETS, ENTRIES
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.latex import escaped
from fedbench.leaderboard.page.cards import cards
from fedbench.models import MODELS

TITLE = "fedbench: a benchmark of poisoning attacks and defenses for federated recommenders"
AUTHOR = "The fedbench maintainers"
YEAR = 2026
"""Of the release, as CITATION.cff says."""
HEAD = """\
% Titles and authors are those of fedbench's cards: the name of a method, its first author, venue and year. Complete
% them from the papers before this is printed. An entry stands for one paper; its note names the methods.
"""
_BASELINE = re.compile("shilling baseline in ")
"""What cards say before the paper that a method was a baseline of: that paper is cited."""


def bibtex(database: Database) -> str:
    """An entry for fedbench, then one for each paper of the methods, models and datasets of the runs.

    A card names a paper by its first author, venue and year: that is what an entry has, and its note says it as the card
    does. Full titles are for whoever cites to look up, as the comment at the top says. A paper of several methods has one
    entry, whose key is the first of them; its note names all.
    """
    itself = {"title": f"{{{TITLE}}}", "author": f"{{{AUTHOR}}}", "year": str(YEAR), "version": __version__}
    found = [HEAD, _written("fedbench", itself)]
    known = cards(database)
    papers = {
        (kind, name): (card.get("title", name), card.get("paper", ""))
        for kind in known
        for name, card in known[kind].items()
    }
    for row in database.rows("select distinct model from runs order by model"):
        if row["model"] in MODELS.names():
            card = MODELS.get(row["model"]).card
            papers["model", card.name] = (card.title, card.paper)
    datasets = {entry.name: entry for entry in (*ENTRIES, *(DATASETS.get(name).card for name in DATASETS.names()))}
    for row in database.rows("select distinct dataset from runs order by dataset"):
        if row["dataset"] in datasets:
            entry = datasets[row["dataset"]]
            papers["dataset", entry.name] = (entry.title, entry.citation)
    by_paper: dict[str, list[tuple[str, str, str]]] = {}
    for (kind, name), (title, paper) in papers.items():
        if paper and paper not in ("none", "unpublished") and not paper.startswith("fedbench ("):
            by_paper.setdefault(_BASELINE.sub("", paper), []).append((kind, name, title))
    taken = {"fedbench"}
    for paper, methods in by_paper.items():
        kind, name, _ = methods[0]
        key = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
        key = key if key not in taken else f"{key}-{kind}"
        taken.add(key)
        found.append(_entry(key, paper, [name for _, name, _ in methods], [title for *_, title in methods]))
    return "\n".join(found)


def _entry(key: str, paper: str, names: Sequence[str], titles: Sequence[str]) -> str:
    author = re.match(r"([^\W\d_](?:[^\W\d_]|[' -])+?)(?: et al\.?| and ([^\W\d_][^\W\d_' -]*?))?(?: \(.*?\))?,", paper)
    years = re.findall(r"\b(?:19|20)\d\d\b", paper)
    fields = {"title": f"{{{_clean('; '.join(dict.fromkeys(titles)))}}}"}
    if author and author[1] != "fedbench" and (author[2] or "et al" in paper[: author.end()]):
        fields["author"] = f"{_clean(author[1])} and {_clean(author[2] or 'others')}"
    if years:
        fields["year"] = years[0]
    fields["note"] = _clean(f"{paper}; for {', '.join(dict.fromkeys(names))}")
    return _written(key, fields)


def _written(key: str, fields: Mapping[str, str]) -> str:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}\n"


def _clean(text: str) -> str:
    """As LaTeX takes it; without braces and backslashes, which BibTeX counts."""
    return escaped(re.sub(r"[{}\\]", "", text))
