from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from fedbench.data import Pairs, import_dataset, load_split
from fedbench.data.formats import FORMATS, detect
from fedbench.errors import DataError, UserError

U_DATA = b"1\t10\t3\t30\n1\t11\t4\t20\n2\t10\t5\t1\n2\t12\t5\t2\n"


def listed(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def split_folder(folder: Path) -> Path:
    write(folder / "train.txt", b"0 5 1 1\r\n2 0\r\n")
    write(folder / "test.dat.gz", gzip.compress(b"0 2\n"))
    write(folder / "train.part-1%.txt", b"0 5\n")
    write(folder / "train.part-10%.txt", b"0 5 1\n")
    write(folder / "README.md", b"not data")
    return folder


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip", "folder"])
def test_new_dataset_from_a_file(tmp_path: Path, packing: str) -> None:
    path = write(tmp_path / "ml" / "u.data", U_DATA)
    if packing == "gzip":
        path = write(tmp_path / "mine.gz", gzip.compress(U_DATA))
    if packing == "zip":
        path = tmp_path / "mine.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ml/README", b"about")
            archive.writestr("ml/u.data", U_DATA)
    if packing == "folder":
        path = tmp_path / "ml"
    made = import_dataset("mine", path)
    assert (made.dataset, made.slot, made.format) == ("mine", "interactions", "ml-100k")
    assert (made.summary.users, made.summary.items, made.summary.interactions) == (2, 3, 4)
    split = load_split("mine", "leave-one-out")
    assert (listed(split.train), listed(split.test)) == ([(0, 1), (1, 0)], [(0, 0), (1, 2)])
    ratings = "ratings (3 to 5, 25 % below the middle) are not read: every row counts as a like"
    assert split.report.notes == (f"imported from {path.name}", ratings)


def test_new_dataset_from_a_folder_of_train_and_test(tmp_path: Path) -> None:
    made = import_dataset("mine", split_folder(tmp_path / "split"))
    assert (made.slot, made.format) == ("published", "split")
    split = load_split("mine", "published", duplicates="keep")
    # Users 0 and 2, items 0, 1, 2 and 5, numbered anew in their order.
    assert (listed(split.train), listed(split.test)) == ([(0, 1), (0, 1), (0, 3), (1, 0)], [(0, 2)])
    assert (split.num_users, split.num_items) == (2, 4)
    assert {share: listed(pairs) for share, pairs in split.public.items()} == {
        "0.01": [(0, 3)],
        "0.1": [(0, 1), (0, 3)],
    }
    assert load_split("mine", "4:1").report.train_duplicates == 1
    with pytest.raises(
        UserError,
        match=r"'mine' has no split 'published-icde24'\. It has: leave-one-out, 4:1, leave-one-out-validation,"
        r" leave-one-out-random, published",
    ):
        load_split("mine", "published-icde24")


def test_summary_counts_what_is_odd(tmp_path: Path) -> None:
    summary = import_dataset("steam", split_folder(tmp_path / "split")).summary  # whose indices are left as they are
    assert (summary.rows, summary.interactions, summary.duplicates) == (5, 4, 1)
    assert (summary.users_without_rows, summary.items_without_rows) == (1, 2)


def test_single_list_is_renumbered(tmp_path: Path) -> None:
    made = import_dataset("mine", write(tmp_path / "sequence.txt", b"1 7\n1 9\n5 7\n"))
    assert (made.format, made.summary.users, made.summary.items) == ("lists", 2, 2)


def test_dataset_of_the_catalogue_is_compared_with_it(tmp_path: Path) -> None:
    made = import_dataset("ml-100k", write(tmp_path / "u.data", U_DATA))
    assert made.notes[-1].startswith("differs from the catalogue: 2 users, 3 items, 4 interactions instead of 943,")
    split = load_split("ml-100k", "leave-one-out")
    assert split.num_users == 2
    assert split.report.notes == made.notes


def test_several_published_splits_must_be_told_apart(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "AZ")
    with pytest.raises(UserError, match="several published splits; say which with --split: published-icde24, publ"):
        import_dataset("amazon-music", folder)
    with pytest.raises(UserError, match="no published split 'published-icde2'; say which"):
        import_dataset("amazon-music", folder, split="published-icde2")
    assert import_dataset("amazon-music", folder, split="published-ijcai22").slot == "published-ijcai22"
    assert import_dataset("steam", folder).slot == "published-icde24"
    with pytest.raises(UserError, match="A new dataset has one published split"):
        import_dataset("mine", folder, split="published-icde24")


def test_malformed_line_is_refused_with_the_path_and_nothing_is_kept(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "u.data", U_DATA + b"3\t9\n")
    with pytest.raises(DataError, match=r"u\.data:5: 2 fields"):
        import_dataset("mine", path)
    assert not (home / "datasets").exists()
    made = import_dataset("mine", path, skip_malformed=True)
    assert (made.summary.malformed, made.summary.rows) == (1, 4)
    assert load_split("mine", "4:1").report.malformed == 1


def test_malformed_line_of_a_zip_is_named_inside_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("u.data", b"x\n")
    with pytest.raises(DataError, match=r"bad\.zip/u\.data:1: 1 fields"):
        import_dataset("mine", path)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Mine", "must be lower-case"),
        ("../mine", "must be lower-case"),
        ("", "must be lower-case"),
        ("longtail", "is generated by fedbench"),
        ("longtail-small", "is generated by fedbench"),
    ],
)
def test_impossible_name(tmp_path: Path, name: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        import_dataset(name, write(tmp_path / "u.data", U_DATA))


def test_impossible_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        import_dataset("mine", tmp_path / "nothing")
    with pytest.raises(DataError, match=r"needs train and test files, or exactly one of .* \(found: none\)"):
        import_dataset("mine", write(tmp_path / "empty" / "README.txt", b"x").parent)
    with pytest.raises(DataError, match="holds no interaction"):
        import_dataset("mine", write(tmp_path / "u.data", b""))
    with pytest.raises(DataError, match=r"test\.txt: the file holds no interaction"):
        import_dataset(
            "mine", write(tmp_path / "s" / "train.txt", write(tmp_path / "s" / "test.txt", b"").read_bytes()).parent
        )
    with pytest.raises(DataError, match="a split is train and test files"):
        import_dataset("mine", write(tmp_path / "f", b"0 1\n"), layout="split")
    with pytest.raises(UserError, match=r"Unknown format 'xml'\. Known: auto, split, ml-100k"):
        import_dataset("mine", tmp_path / "f", layout="xml")
    with pytest.raises(DataError, match="damaged gzip file"):
        import_dataset("mine", write(tmp_path / "g.gz", gzip.compress(U_DATA)[:-9]))


def test_two_files_for_one_part(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "split")
    write(folder / "test.txt", b"0 1\n")
    with pytest.raises(DataError, match=r"test\.dat\.gz and test\.txt are both the test file; keep one"):
        import_dataset("mine", folder)


def test_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", b"")
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*set FEDBENCH_CACHE"):
        import_dataset("mine", write(tmp_path / "u.data", U_DATA))


def test_damaged_import_is_named(tmp_path: Path) -> None:
    made = import_dataset("mine", write(tmp_path / "u.data", U_DATA))
    made.path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="import 'mine' again"):
        load_split("mine", "4:1")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("196\t242\t3\t881250949", "ml-100k"),
        ("1::1193::5::978300760", "ml-1m"),
        ('{"reviewerID": "A"}', "json"),
        ("0\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847", "gowalla"),
        ("user_id:token\titem_id:token", "inter"),
        ("0\t5454\t1385856000", "triples"),
        ("0 1 2 3", "lists"),
        ("17 4", "lists"),
    ],
)
def test_format_is_recognised_by_the_first_line(line: str, name: str) -> None:
    assert detect(f"{line}\r\nnext".encode(), "file.txt", "file.txt") == name
    assert name in FORMATS


def test_format_that_is_not_recognised() -> None:
    with pytest.raises(DataError, match=r"x\.txt: the format is not recognised; name it with --format \(ml-100k, "):
        detect(b"a poem\nof lines that have\nmore or fewer words than others do\n", "x.txt", "x.txt")
