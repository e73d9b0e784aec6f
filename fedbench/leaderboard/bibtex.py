"""How to cite what a leaderboard shows: fedbench, and every attack, defense, model and dataset of its runs, as BibTeX."""

from __future__ import annotations

import re

from fedbench import __version__
from fedbench.data import DATASETS, ENTRIES
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.latex import escaped
from fedbench.leaderboard.page.cards import cards
from fedbench.models import MODELS

TITLE = "fedbench: a benchmark of poisoning attacks and defenses for federated recommenders"
AUTHOR = "The fedbench maintainers"


def bibtex(database: Database) -> str:
    """An entry for fedbench, then one for each method, model and dataset of the runs, by name.

    A card names a paper by its first author, venue and year: that is what an entry has, and its note says it as the card
    does. Full titles are for whoever cites to look up.
    """
    found = [
        f"@misc{{fedbench,\n  title = {{{{{TITLE}}}}},\n  author = {{{{{AUTHOR}}}}},\n  version = {{{__version__}}}\n}}\n"
    ]
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
    taken: set[str] = set()
    for (kind, name), (title, paper) in papers.items():
        if paper and paper not in ("none", "unpublished") and not paper.startswith("fedbench ("):
            key = re.sub(r"[^A-Za-z0-9.-]+", "-", name)
            key = key if key not in taken else f"{key}-{kind}"
            taken.add(key)
            found.append(_entry(key, title, paper))
    return "\n".join(found)


def _entry(key: str, title: str, paper: str) -> str:
    author = re.match(r"([^\W\d_](?:[^\W\d_]|[' -])+?)(?: et al\.?| and ([^\W\d_][^\W\d_' -]*?))?(?: \(.*?\))?,", paper)
    years = re.findall(r"\b(?:19|20)\d\d\b", paper)
    fields = {"title": f"{{{_clean(title)}}}"}
    if author and author[1] != "fedbench" and (author[2] or "et al" in paper[: author.end()]):
        fields["author"] = f"{_clean(author[1])} and {_clean(author[2] or 'others')}"
    if years:
        fields["year"] = years[0]
    fields["note"] = _clean(paper)
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}\n"


def _clean(text: str) -> str:
    """As LaTeX takes it; without braces and backslashes, which BibTeX counts."""
    return escaped(re.sub(r"[{}\\]", "", text))
