"""The papers that cards name, in full."""

from __future__ import annotations

import re

import pytest

from fedbench.attacks import ATTACKS
from fedbench.data import DATASETS, ENTRIES
from fedbench.defenses import DEFENSES
from fedbench.leaderboard.references import UNKNOWN, Reference, cited_by, references
from fedbench.models import MODELS

CARDS = [registry.get(name).card for registry in (ATTACKS, DEFENSES, MODELS) for name in registry.names()]
DATA = [*ENTRIES, *(DATASETS.get(name).card for name in DATASETS.names())]
NAMED = {(card.name, card.title): card.paper for card in CARDS} | {
    (card.name, card.title): card.citation for card in DATA
}
WORDS = [text for text in NAMED.values() if text and not text.startswith("fedbench (")]


@pytest.mark.parametrize(("name", "title"), NAMED)
def test_every_paper_that_a_card_names_is_known(name: str, title: str) -> None:
    paper = NAMED[name, title]
    found = cited_by(name, title, paper)
    assert all(each.kind != UNKNOWN for each in found)
    years = set(re.findall(r"\b(?:19|20)\d\d\b", re.sub(r"arXiv [\d.]+|\(2018 reviews\)", "", paper)))
    assert years <= {each.fields["year"] for each in found}, "each year that the card says is that of a paper"
    assert bool(found) == (paper in WORDS)


@pytest.mark.parametrize("reference", references(), ids=lambda each: each.key)
def test_every_reference_is_whole_and_named_by_a_card(reference: Reference) -> None:
    assert any(reference.cited in paper for paper in WORDS)
    assert {"title", "author", "year"} <= set(reference.fields)
    assert {"booktitle", "journal", "eprint", "publisher", "howpublished"} & set(reference.fields)
    year = re.search(r"\b(?:19|20)\d\d\b", re.sub(r"arXiv [\d.]+", "", reference.cited))
    assert year is None or year[0] == reference.fields["year"]
    first = re.match(r"(.+?)(?: et al\.| and |, )", reference.cited)
    if first:
        of_card = first[1].split(". ")[-1]
        assert of_card in reference.fields["author"].split(" and ")[0]
    text = reference.bibtex("a & b")
    assert text.count("{") == text.count("}")
    assert "note = {a \\& b}" in text


def test_keys_are_unique_and_what_citation_managers_make() -> None:
    keys = [each.key for each in references()]
    assert len(set(keys)) == len(keys)
    assert {"rong2022fedrecattack", "elmhamdi2018the", "mcauley2015imagebased"} <= set(keys)


def test_papers_come_in_the_order_of_the_card() -> None:
    found = cited_by("lie", "", "Baruch et al., NeurIPS 2019; baseline in Yu et al., AAAI 2023")
    assert [each.key for each in found] == ["baruch2019a", "yu2023untargeted"]


@pytest.mark.parametrize("paper", ["", "none", "unpublished", "fedbench", "fedbench (synthetic)"])
def test_what_has_no_paper_has_no_entry(paper: str) -> None:
    assert cited_by("mine", "Mine", paper) == []
