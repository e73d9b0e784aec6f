"""The counts that the sources state, on the real files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fedbench.data import ENTRIES, Split, import_dataset, load_split
from fedbench.data.load import load_item_ids, load_table, resolve
from fedbench.data.summary import summarise

pytestmark = pytest.mark.usefixtures("real")


def times_trained(split: Split, item: int) -> int:
    return int((split.train.item == item).sum())


@pytest.mark.parametrize(
    ("dataset", "split", "users", "items", "train", "test", "valid"),
    [
        ("ml-100k", "leave-one-out-validation", 943, 1_682, 98_114, 943, 943),
        ("ml-1m", "leave-one-out-validation", 6_040, 3_706, 988_129, 6_040, 6_040),
        ("amazon-phones", "leave-one-out-validation", 27_879, 10_429, 138_681, 27_879, 27_879),
        ("gowalla", "leave-one-out", 29_858, 40_981, 997_512, 29_858, None),
        ("gowalla", "leave-one-out-validation", 29_858, 40_981, 967_654, 29_858, 29_858),
        ("ml-100k", "published-icde24", 943, 1_682, 99_056, 943, None),
        ("ml-100k", "leave-one-out", 943, 1_682, 99_057, 943, None),
        ("ml-1m", "published-icde24", 6_040, 3_706, 994_169, 6_040, None),
        ("ml-1m", "published-ijcai22", 6_040, 3_706, 802_552, 197_656, None),
        ("ml-1m", "leave-one-out", 6_040, 3_706, 994_169, 6_040, None),
        ("amazon-phones", "published", 27_879, 10_429, 138_681, 27_879, 27_879),
        ("amazon-phones", "leave-one-out", 27_879, 10_429, 166_560, 27_879, None),
        ("gowalla", "published", 29_858, 40_981, 719_081, 217_242, 91_047),
        ("steam", "published-icde24", 3_753, 5_134, 110_960, 3_753, None),
    ],
)
def test_split_without_repeats(
    dataset: str, split: str, users: int, items: int, train: int, test: int, valid: int | None
) -> None:
    made = load_split(dataset, split)
    assert (made.num_users, made.num_items) == (users, items)
    assert (len(made.train), len(made.test), None if made.valid is None else len(made.valid)) == (train, test, valid)
    report = made.report
    assert (report.train_duplicates, report.heldout_duplicates, report.leaked, report.removed) == (0, 0, 0, 0)
    assert (report.users_without_train, report.users_without_test, report.public_outside_train) == (0, 0, 0)
    assert made.fingerprint == load_split(dataset, split, duplicates="keep").fingerprint


@pytest.mark.parametrize(
    ("split", "train", "test", "in_train", "in_test", "leaked", "without_test"),
    [
        ("published-icde24", 153_217, 16_564, 24_060, 0, 429, 2),
        ("published-ijcai22", 140_397, 29_384, 23_796, 111, 599, 56),
    ],
)
def test_amazon_music_as_published(
    split: str, train: int, test: int, in_train: int, in_test: int, leaked: int, without_test: int
) -> None:
    kept = load_split("amazon-music", split, duplicates="keep")
    report = kept.report
    assert (kept.num_users, kept.num_items, report.rows) == (16_566, 11_797, 169_781)
    assert (len(kept.train), len(kept.test)) == (train, test)
    assert (report.train_duplicates, report.heldout_duplicates, report.leaked) == (in_train, in_test, leaked)
    assert (report.users_without_test, report.removed) == (without_test, 0)


@pytest.mark.parametrize(
    ("split", "train", "test"), [("published-icde24", 129_157, 16_135), ("published-ijcai22", 116_601, 28_691)]
)
def test_amazon_music_cleaned(split: str, train: int, test: int) -> None:
    clean = load_split("amazon-music", split)
    assert (len(clean.train), len(clean.test), clean.report.removed) == (train, test, 24_489)
    assert train + test == 145_292
    keys = [pairs.user * clean.num_items + pairs.item for pairs in (clean.train, clean.test)]
    assert len(np.unique(np.concatenate(keys))) == 145_292


def test_amazon_music_sample_of_attackers_is_the_test_file_of_the_other_split() -> None:
    kept = load_split("amazon-music", "published-icde24", duplicates="keep")
    other = load_split("amazon-music", "published-ijcai22", duplicates="keep")
    sample = kept.public["0.01"]
    assert np.array_equal(sample.user, other.test.user)
    assert np.array_equal(sample.item, other.test.item)
    assert kept.report.public_outside_train == 16_089
    assert len(load_split("amazon-music", "published-icde24").public["0.01"]) == 13_184


@pytest.mark.parametrize(
    ("dataset", "item", "count"), [("ml-100k", 467, 65), ("ml-1m", 1_624, 218), ("amazon-music", 2_314, 17)]
)
def test_published_targets_have_the_popularity_that_the_paper_implies(dataset: str, item: int, count: int) -> None:
    assert times_trained(load_split(dataset, "published-icde24"), item) == count


def test_published_dl_targets() -> None:
    assert times_trained(load_split("ml-100k", "published-icde24"), 24) == 252
    assert times_trained(load_split("amazon-music", "published-icde24"), 8_676) == 6
    assert times_trained(load_split("ml-1m", "published-icde24"), 2_163) == 68


def test_published_samples_of_attackers() -> None:
    split = load_split("ml-100k", "published-icde24")
    assert list(split.public) == ["0.01", "0.02", "0.03", "0.05", "0.1"]
    assert len(split.public["0.01"]) == 1_525
    assert all(len(np.unique(pairs.user)) == 943 for pairs in split.public.values())
    assert len(load_split("ml-1m", "published-icde24").public["0.01"]) == 13_169


def test_known_order_of_ml_1m_gives_the_published_test_items() -> None:
    ours, published = (load_split("ml-1m", name).test for name in ("leave-one-out", "published-icde24"))
    assert int((ours.item == published.item).sum()) == 6_040


def test_steam_has_indices_without_interactions() -> None:
    entry = next(entry for entry in ENTRIES if entry.name == "steam")
    assert summarise(load_table(entry, "published-icde24")).items_without_rows == 42


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if not entry.embedded])
def test_catalogue_states_the_counts_of_the_data(name: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    summary = summarise(load_table(entry, "4:1"))
    assert (summary.users, summary.items, summary.interactions) == (entry.users, entry.items, entry.interactions)


def test_published_files_can_be_imported(real: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = load_split("ml-100k", "published-icde24").fingerprint
    monkeypatch.setenv("FEDBENCH_CACHE", str(home))
    monkeypatch.delenv("FEDBENCH_DATA")
    import_dataset("ml-100k", real / "ml-100k" / "loo_fedrecattack")
    import_dataset("ml-100k", real / "ml-100k" / "u.data")
    assert load_split("ml-100k", "published-icde24").fingerprint == pinned
    made = import_dataset("amazon-phones", real / "amazon-cell-phones")
    assert (made.slot, made.summary.interactions) == ("published", 194_439)


def test_ml_1m_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_split("ml-1m", "published-icde24")

    def parse(*_: object) -> None:
        pytest.fail("what is in the cache was parsed again")

    monkeypatch.setattr("fedbench.data.load._parse", parse)
    assert load_split("ml-1m", "published-icde24").fingerprint == first.fingerprint


def test_ml_1m_sequences_do_not_go_back_in_time(real: Path) -> None:
    made = load_split("ml-1m", "leave-one-out-validation")
    time_of: dict[tuple[int, int], int] = {}
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    with gzip.open(real / "ml-1m" / "ratings_merged_partial.csv.gz", "rt") as lines:
        next(lines)
        for line in lines:
            user, item, _, stamp, _ = line.rstrip("\n").split(",")
            pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
            if stamp:
                time_of[pair] = int(stamp)
    assert made.valid is not None
    latest = dict.fromkeys(range(made.num_users), 0)
    known = 0
    for part in (made.train, made.valid, made.test):
        for user, item in zip(part.user.tolist(), part.item.tolist(), strict=True):
            stamp = time_of.get((user, item))
            if stamp is not None:
                known += 1
                assert stamp >= latest[user]
                latest[user] = stamp
    assert known == 800_774
    assert np.all(np.diff(made.train.user) >= 0)
    assert not np.array_equal(made.train.item, load_split("ml-1m", "leave-one-out").train.item[: len(made.train)])


def test_gowalla_without_check_ins_is_split_at_random() -> None:
    made, other = (load_split("gowalla", "leave-one-out-validation", seed=seed) for seed in (0, 1))
    assert made.fingerprint != other.fingerprint
    assert "random" in made.report.method
    assert "the files have no timestamps" in made.report.method
    four = load_split("gowalla", "4:1")
    assert len(four.train) + len(four.test) == 1_027_370
    assert any("no timestamps" in note for note in made.report.notes)


@pytest.mark.parametrize(
    ("dataset", "split", "left_out"),
    [
        ("ml-100k", "published-icde24", {"242"}),
        ("ml-1m", "published-icde24", set()),
        ("ml-1m", "published-ijcai22", {"1193"}),
    ],
)
def test_items_of_published_splits_are_those_of_the_interactions(dataset: str, split: str, left_out: set[str]) -> None:
    """By what they are called, every item occurs as often; but for that of a first line which the split lacks."""
    known = resolve(dataset)
    counts = []
    for each in ("4:1", split):
        ids, parts = load_item_ids(known, each), load_table(known, each).parts
        items = np.concatenate([rows.item for name, rows in parts.items() if not name.startswith("public")])
        counts.append(dict(zip(ids, np.bincount(items).tolist(), strict=True)))
    interactions, published = counts
    assert {item for item, count in interactions.items() if count != published[item]} == left_out
