"""How to cite what a leaderboard shows: fedbench, and every attack, defense, model and dataset of its runs, as BibTeX."""

from __future__ import annotations

from fedbench import __version__
from fedbench.data import DATASETS, ENTRIES
from fedbench.leaderboard.database import Database
from fedbench.leaderboard.page.cards import cards
from fedbench.leaderboard.references import UNKNOWN, Reference, cited_by
from fedbench.models import MODELS

TITLE = "fedbench: a benchmark of poisoning attacks and defenses for federated recommenders"
AUTHOR = "The fedbench maintainers"
YEAR = 2026
"""Of the release, as CITATION.cff says."""
HEAD = "% From fedbench's own list of papers: compare with the publishers' before this is printed.\n"
INCOMPLETE = f"""\
% Entries of type @{UNKNOWN} are of papers that fedbench does not know: they have what the cards of the methods say.
% Complete them before this is printed.
"""


def bibtex(database: Database) -> str:
    """An entry for fedbench, then one for each paper that the cards of the methods, models and datasets of the runs name.

    An entry's note says for which of them it stands. Of a paper that is not known, somebody else's method, there is what its
    card says, and a comment at the top asks to complete it.
    """
    itself = {"title": f"{{{TITLE}}}", "author": f"{{{AUTHOR}}}", "year": str(YEAR), "version": __version__}
    known = cards(database)
    named = [
        (name, card.get("title", name), card.get("paper", "")) for kind in known for name, card in known[kind].items()
    ]
    for row in database.rows("select distinct model from runs order by model"):
        if row["model"] in MODELS.names():
            card = MODELS.get(row["model"]).card
            named.append((card.name, card.title, card.paper))
    datasets = {entry.name: entry for entry in (*ENTRIES, *(DATASETS.get(name).card for name in DATASETS.names()))}
    for row in database.rows("select distinct dataset from runs order by dataset"):
        if row["dataset"] in datasets:
            entry = datasets[row["dataset"]]
            named.append((entry.name, entry.title, entry.citation))
    found: dict[str, Reference] = {}
    methods: dict[str, list[str]] = {}
    for name, title, paper in named:
        for reference in cited_by(name, title, paper):
            found.setdefault(reference.key, reference)
            methods.setdefault(reference.key, []).append(name)
    entries = [reference.bibtex(f"For {', '.join(dict.fromkeys(methods[key]))}") for key, reference in found.items()]
    incomplete = any(reference.kind == UNKNOWN for reference in found.values())
    head = HEAD + INCOMPLETE * incomplete
    return "\n".join([head, Reference("fedbench", "misc", itself).bibtex(), *entries])
